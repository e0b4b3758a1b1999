"""How well an attack did, with what chance gives and an interval: all return `Measure`."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.optimize import linear_sum_assignment

from attacks.attack import Measure
from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError
from secure_afl.intervals import student_reach

Bools = NDArray[np.bool_]

ATTRIBUTION = "attribution to a client"

_BYTE_VALUES = 256
# Five for each value, as Pearson's χ² test wants.
FEWEST_BYTES = 5 * _BYTE_VALUES


def simultaneous(confidence: float, cells: int) -> float:
    """Return the confidence of each of `cells` intervals.

    All of them hold together with `confidence`.

    Bonferroni's 1 − (1 − confidence)/cells: the cells of a matrix share runs, and Šidák's slightly
    narrower intervals want independent ones.

    Raises:
        ConfigError: confidence not between 0 and 1, or no cells.
    """
    _check(confidence)
    if cells < 1:
        raise ConfigError(f"{cells} cells, allowed: ≥ 1")
    return 1 - (1 - confidence) / cells


def share(
    successes: int,
    trials: int,
    chance: float,
    best: float = 1.0,
    confidence: float = 0.95,
    metric: str = "share",
) -> Measure:
    """Return successes among independent trials, with Clopper and Pearson's exact interval (1934).

    Without trials the value is that of chance, and anything is possible.
    """
    _check(confidence)
    if trials == 0:
        return Measure(metric, chance, 0.0, 1.0, chance, best, 0, confidence)
    miss, failures = (1 - confidence) / 2, trials - successes
    low = float(special.betaincinv(successes, failures + 1, miss)) if successes else 0.0
    high = float(special.betaincinv(successes + 1, failures, 1 - miss)) if failures else 1.0
    return Measure(metric, successes / trials, low, high, chance, best, trials, confidence)


def mean_of(
    values: Sequence[float] | Floats,
    chance: float,
    best: float = 1.0,
    confidence: float = 0.95,
    metric: str = "mean",
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> Measure:
    """Return the mean of independent values, with Student's interval.

    The interval is cut to the metric's bounds.

    Of one value, or none, the interval is `bounds`: there is nothing to tell the spread from.
    """
    _check(confidence)
    array = np.asarray(values, dtype=np.float64)
    if len(array) == 0:
        return Measure(metric, chance, *bounds, chance, best, 0, confidence)
    mean = float(array.mean())
    if len(array) == 1:
        return Measure(metric, mean, *bounds, chance, best, 1, confidence)
    reach = student_reach(array.tolist(), confidence)
    low, high = max(bounds[0], mean - reach), min(bounds[1], mean + reach)
    return Measure(metric, mean, low, high, chance, best, len(array), confidence)


def auc(scores: Floats, members: Bools, confidence: float = 0.95, metric: str = "AUC") -> Measure:
    """Return the area under the ROC curve, with ties half.

    It is the chance that a member scores above a non-member.

    DeLong's variance (DeLong, DeLong and Clarke-Pearson 1988), the interval formed on the logit
    scale. With few members, or where almost every one is above every non-member, that variance says
    too little; the disjoint pairs of one member and one non-member are independent trials, for
    which Clopper and Pearson's interval holds: the wider end of the two counts.

    Args:
        scores: (m,) finite, high for members.
        members: (m,) which are.
    """
    _check(confidence)
    inside, outside = _split(scores, members)
    ranks = _ranks(np.concatenate([inside, outside]))
    pairs = len(inside) * len(outside)
    above = ranks[: len(inside)] - _ranks(inside)
    below = ranks[len(inside) :] - _ranks(outside)
    value = float(above.sum() / pairs)
    variance = _variance(above / len(outside)) + _variance(below / len(inside))
    trials = len(scores)
    least = min(len(inside), len(outside))
    hits = value * least
    low = share(math.floor(hits + 1e-9), least, 0.5, confidence=confidence).low
    high = share(math.ceil(hits - 1e-9), least, 0.5, confidence=confidence).high
    if not 0 < value < 1 or variance <= 0:
        return Measure(metric, value, low, high, 0.5, 1.0, trials, confidence)
    logit = np.log(value / (1 - value))
    reach = special.ndtri((1 + confidence) / 2) * np.sqrt(variance) / (value * (1 - value))
    # tanh rather than exp: for a value next to 1 the reach can be hundreds.
    ends = [float((1 + np.tanh((logit + sign * reach) / 2)) / 2) for sign in (-1, 1)]
    return Measure(
        metric, value, min(low, ends[0]), max(high, ends[1]), 0.5, 1.0, trials, confidence
    )


def tpr_at_fpr(scores: Floats, members: Bools, fpr: float, confidence: float = 0.95) -> Measure:
    """Share of members above the lowest threshold that at most `fpr` of non-members exceed.

    With fewer than 1/fpr non-members that is the highest of theirs, and chance 1/(n + 1). The
    interval covers the threshold as well as the share: half of its error for each. The rate at
    which others exceed the j-th highest of n is Beta(j, n − j + 1)-distributed.
    """
    inside, outside = _split(scores, members)
    descending, n = np.sort(outside)[::-1], len(outside)

    def caught(place: int) -> int:
        """Count members above the highest but `place` of the others."""
        return int((inside > descending[place]).sum()) if place < n else len(inside)

    miss = (1 - confidence) / 4
    places = np.arange(1, n + 1)
    below = np.asarray(special.betainc(places, n - places + 1, fpr))
    # Thresholds whose rate is surely ≤ fpr, and surely ≥: places from 1 for the highest.
    least = int(np.count_nonzero(below >= 1 - miss))
    most = int(np.count_nonzero(below > miss)) + 1
    half = (1 + confidence) / 2
    few = caught(least - 1) if least else 0
    low = share(few, len(inside), fpr, confidence=half).low
    high = share(caught(most - 1), len(inside), fpr, confidence=half).high
    value = caught(min(int(np.floor(fpr * n + 1e-9)), n - 1)) / len(inside)
    chance = max(fpr, 1 / (n + 1))
    name = f"TPR at {100 * fpr:g} % FPR"
    return Measure(
        name, value, min(low, value), max(high, value), chance, 1.0, len(inside), confidence
    )


def membership(scores: Floats, members: Bools, confidence: float = 0.95) -> list[Measure]:
    """Return the usual three: AUC, and TPR at 1 % and at 0.1 % FPR.

    Carlini et al. 2022.
    """
    return [
        auc(scores, members, confidence),
        tpr_at_fpr(scores, members, 0.01, confidence),
        tpr_at_fpr(scores, members, 0.001, confidence),
    ]


def membership_at_chance(confidence: float = 0.95) -> list[Measure]:
    """Return the three measures of an attack that had nothing to go on."""
    chances = (("AUC", 0.5), ("TPR at 1 % FPR", 0.01), ("TPR at 0.1 % FPR", 0.001))
    return [Measure(metric, c, 0.0, 1.0, c, 1.0, 0, confidence) for metric, c in chances]


def gaussian_tradeoff(mu: float, fpr: Floats) -> Floats:
    """Return the greatest TPR at each FPR against a μ-Gaussian-DP release: Φ(Φ⁻¹(FPR) + μ).

    Dong, Roth and Su 2022, definition 2.6.
    """
    return np.asarray(special.ndtr(special.ndtri(fpr) + mu), dtype=np.float64)


def gaussian_auc(mu: float) -> float:
    """Return the area under the curve of `gaussian_tradeoff`, Φ(μ/√2)."""
    return float(special.ndtr(mu / np.sqrt(2)))


def roc(scores: Floats, members: Bools) -> tuple[Floats, Floats]:
    """Return FPR and TPR at every threshold, from (0, 0) to (1, 1), to draw."""
    inside, outside = _split(scores, members)
    thresholds = np.unique(np.concatenate([inside, outside]))[::-1]
    tpr = (len(inside) - np.searchsorted(np.sort(inside), thresholds)) / len(inside)
    fpr = (len(outside) - np.searchsorted(np.sort(outside), thresholds)) / len(outside)
    return np.append(0.0, fpr), np.append(0.0, tpr)


def centred_cosine(claimed: Floats, true: Floats) -> Floats:
    """Return the cosine (n,) of each claimed row with the true row in its place.

    The true rows' mean is taken off both.

    Features of one backbone have much in common, which a guess of the mean would be credited for.
    A row without direction after that counts 0.
    """
    mean = true.mean(axis=0)
    a, b = claimed - mean, true - mean
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines: Floats = np.einsum("ij,ij->i", a, b) / np.where(norms > 0, norms, np.inf)
    return cosines


def match_rows(claimed: Floats, true: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Match claimed rows to true ones: pairs of indices of least squared distance.

    The order of recovered rows is unknown; each is used once (Hungarian assignment).
    """
    squared = (claimed**2).sum(1)[:, None] - 2 * claimed @ true.T + (true**2).sum(1)
    rows, columns = linear_sum_assignment(squared)
    return rows.astype(np.int64), columns.astype(np.int64)


def attribution(
    claims: Mapping[int, str], owners: Sequence[str], clients: int, confidence: float = 0.95
) -> Measure:
    """Return the share of rows for which the claimed client is the right one.

    Args:
        claims: from the index of a row to a client's name.
        owners: the true client of every row.
        clients: among how many one would guess.
    """
    right = sum(owners[row] == name for row, name in claims.items())
    chance = 1 / clients
    return share(right, len(claims), chance, 1.0, confidence, ATTRIBUTION)


def uniformity(data: bytes) -> float:
    """Return the p-value of Pearson's χ² test that the values of these bytes are uniform.

    Raises:
        ConfigError: fewer than 1280 bytes, five for each value.
    """
    if len(data) < FEWEST_BYTES:
        raise ConfigError(f"{len(data)} bytes; the test wants ≥ {FEWEST_BYTES}")
    counts = np.bincount(np.frombuffer(data, dtype=np.uint8), minlength=_BYTE_VALUES)
    expected = len(data) / _BYTE_VALUES
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return float(special.chdtrc(_BYTE_VALUES - 1, statistic))


def _ranks(values: Floats) -> Floats:
    """Return each value's rank from 1; equal ones share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: Floats = np.cumsum(counts) - (counts - 1) / 2
    return means[places]


def _split(scores: Floats, members: Bools) -> tuple[Floats, Floats]:
    scores, members = np.asarray(scores, dtype=np.float64), np.asarray(members, dtype=np.bool_)
    if scores.shape != members.shape or members.all() or not members.any():
        raise ConfigError(
            f"{scores.shape} scores for {int(members.sum())} members of {members.size}; wanted one "
            "score each, of at least one member and one non-member"
        )
    if not np.isfinite(scores).all():
        raise ConfigError("a score is NaN or infinite; wanted finite scores")
    return scores[members], scores[~members]


def _variance(placements: Floats) -> float:
    return float(placements.var(ddof=1)) / len(placements) if len(placements) > 1 else 0.0


def _check(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence is {confidence}, allowed: above 0 and below 1")
