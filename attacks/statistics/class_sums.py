"""What sums by class say where no Gram matrix is summed: class means, softmax rows, embeddings."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attacks.attack import ATTACKS, Attack, Known, Measure, Truth
from attacks.measures.metrics import mean_of, share
from attacks.statistics.membership import MembershipAttack, Scores
from attacks.statistics.rows import Recovered, Recovery, true_rows
from attacks.views.knowledge import finest, has_statistics, subset_sums, task_of
from attacks.views.run import RunView
from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.statistics import one_hot
from secure_afl.errors import ConfigError
from secure_afl.methods import ClassMeans, FedHPro
from secure_afl.methods.averaging import AveragingPublic
from secure_afl.methods.pulled import PRESENCE, STATISTIC, Pulled

# Of the mean variance, added to the public rows' scatter within classes.
_SHRINKAGE = 0.1
# Of the mean square, in the regression of rows on what the sum shows of them.
_RIDGE = 1e-3
_LEAST_SHARE = 1e-6
_FEWEST_PUBLIC = 3


@dataclass(frozen=True, eq=False)
class ClassSums:
    """What a coalition has of some clients' classes.

    Attributes:
        clients: whose.
        means: of what the sum holds of a row, by class, (C, k) float64; 0 for a class without.
        counts: of rows, or of clients that have the class, (C,) float64.
        rows: (C,) rows of each class as far as is known, at least 1.
        seen: maps features (n, d) to what the sum holds of each row, (n, k).
        straight: maps what the sum holds to where it is linear in the row; None where the sum is of
            the rows themselves.
    """

    clients: frozenset[str]
    means: Floats
    counts: Floats
    rows: Floats
    seen: Callable[[NDArray[np.floating]], Floats]
    straight: Callable[[Floats], Floats] | None

    def __repr__(self) -> str:
        return f"<ClassSums of {len(self.clients)} clients>"


def class_sums(view: RunView) -> list[ClassSums]:
    """List the finest sums by class that the coalition has of the first round, no client twice.

    Empty for an outsider, for whoever has no sum, and where a Gram matrix is summed too.
    """
    if not view.publics or not view.rounds or has_statistics(view):
        return []
    if not isinstance(view.method, ClassMeans | Pulled):
        return []
    return [
        _of_blocks(view, found.clients, view.rounds[0].session.layout.split(found.vector))
        for found in finest(subset_sums(view))
    ]


def _of_blocks(view: RunView, clients: frozenset[str], blocks: dict[str, Integers]) -> ClassSums:
    task, method, public = task_of(view), view.method, view.publics[0]
    classes = len(task.classes)
    seen: Callable[[NDArray[np.floating]], Floats]
    straight: Callable[[Floats], Floats] | None
    if isinstance(method, ClassMeans):
        counts = np.maximum(blocks["counts"], 0).astype(np.float64)
        sums = blocks["cross"].reshape(-1, classes).T / task.quantiser.scale
        quantiser = task.quantiser

        def itself(features: NDArray[np.floating]) -> Floats:
            return quantiser.integers(features) / quantiser.scale

        seen, straight, rows = itself, None, counts
    else:
        assert isinstance(method, Pulled), "class_sums looks first"
        assert isinstance(public, AveragingPublic), "what averaging makes public"
        unit = method.blocks_beside(public)[0].scale
        counts = np.maximum(blocks[PRESENCE], 0).astype(np.float64) * unit
        sums = blocks[STATISTIC].reshape(classes, -1).astype(np.float64) * unit

        def through(features: NDArray[np.floating]) -> Floats:
            return method.statistic(public, method.architecture.inputs(task, features))

        seen, straight = through, _logarithms if isinstance(method, FedHPro) else _same
        # Of clients that have a class nobody says how many rows of it they have.
        some = task.total_rows * len(clients) / task.clients / classes
        rows = counts if method.class_means == "rows" else np.full(classes, some)
    means = sums / np.where(counts > 0, counts, 1.0)[:, None]
    return ClassSums(clients, means, counts, np.maximum(rows, 1.0), seen, straight)


@ATTACKS.register
class ClassRows(Attack[list[Recovery]]):
    """Rows of classes of which the sum holds one: what stands for the class is the row's own.

    A sum of rows by class holds the row itself. Of a softmax row the logarithms are C − 1 linear
    equations on the embedding; the row is then what ridge regression on public rows says.
    """

    name = "class-rows"
    wants = "sums by class, without a Gram matrix"
    assumes = ("public rows of the same kind, where the sum is not of the rows themselves",)

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> list[Recovery] | None:
        """Claim a row for each class with a count of one.

        Return None without such sums, and without public rows where they are needed.
        """
        found = class_sums(view)
        quantiser = task_of(view).quantiser if found else None
        claims = []
        for sums in found:
            assert quantiser is not None, "there are sums"
            single = np.flatnonzero(np.rint(sums.counts) == 1)
            shown = sums.means[single]
            if sums.straight is not None:
                if known.public is None or len(known.public) < _FEWEST_PUBLIC:
                    return None
                there = sums.straight(sums.seen(known.public))
                shown = _regressed(sums.straight(shown), there, quantiser.scaled(known.public))
            rows = np.rint(shown * quantiser.scale)
            claims.append(Recovery(sums.clients, Recovered(rows, single), quantiser))
        return claims or None

    def judge(
        self, claim: list[Recovery] | None, truth: Truth, confidence: float = 0.95
    ) -> list[Measure]:
        """Return how many rows that are alone in their class are right, and their mean cosine.

        Rows are taken less the mean of all in the sum. A row that was not claimed counts as 0.
        """
        right, cosines = 0, []
        for clients, recovered, quantiser in claim or []:
            rows, labels = true_rows(truth, clients, quantiser)
            middle = rows.mean(axis=0)
            for label in np.flatnonzero(np.bincount(labels) == 1):
                claimed, true = recovered.rows[recovered.labels == label], rows[labels == label]
                right += len(claimed) == 1 and np.array_equal(claimed, true)
                near = _cosine(claimed[0] - middle, true[0] - middle) if len(claimed) else 0.0
                cosines.append(near)
        exact, cosine = "exact rows of single-row classes", "cosine of single-row classes"
        return [
            share(right, len(cosines), 0.0, confidence=confidence, metric=exact),
            mean_of(cosines, 0.0, confidence=confidence, metric=cosine, bounds=(-1.0, 1.0)),
        ]


class _Spread(NamedTuple):
    """Public rows' class means (C, k), and the inverse of their scatter within classes (k, k)."""

    means: Floats
    inverse: Floats


@ATTACKS.register
class ClassMembership(MembershipAttack):
    """A member has moved its class's mean toward itself.

    The log-likelihood ratio of two Gaussians with public rows' mean μ and scatter S within classes:
    uᵀS⁻¹(m − μ) − uᵀS⁻¹u/2n for a candidate at μ + u and a class of n rows with mean m. It is the
    test of Homer et al. (2008) and Dwork et al. (2015), for features that are not independent. Of
    several sums the best score counts.
    """

    name = "membership-class-mean"
    wants = "sums by class, without a Gram matrix"
    assumes = (
        *MembershipAttack.assumes,
        "their labels",
        "public rows of the same kind, with their labels as extra['public_labels']",
    )

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Scores | None:
        """Score each candidate (m,) by its log likelihood ratio.

        Return None without such sums, labels, or public rows with labels.

        Raises:
            ConfigError: `Known.candidates` is missing.
        """
        found, labels = class_sums(view), known.candidate_labels
        shown = known.extra.get("public_labels")
        if not found or labels is None or known.public is None or shown is None:
            return None
        if known.candidates is None:
            raise ConfigError("an attack on membership needs Known.candidates, which are missing")
        seen = found[0].seen
        spread = _spread(seen(known.public), np.asarray(shown), len(found[0].counts))
        rows = seen(known.candidates)
        scores = [_ratio(sums, rows, labels, spread) for sums in found]
        clients: frozenset[str] = frozenset().union(*(sums.clients for sums in found))
        return Scores(np.max(scores, axis=0), clients)


def _ratio(sums: ClassSums, rows: Floats, labels: Integers, spread: _Spread) -> Floats:
    away = rows - spread.means[labels]
    white = away @ spread.inverse
    moved = (sums.means - spread.means)[labels]
    score: Floats = (white * moved).sum(axis=1) - (white * away).sum(axis=1) / 2 / sums.rows[labels]
    # A class without rows has no member.
    return np.where(sums.counts[labels] > 0, score, score.min() - 1.0)


def _spread(rows: Floats, labels: Integers, classes: int) -> _Spread:
    hot = one_hot(labels, classes)
    counts = hot.sum(axis=0)
    means = hot.T @ rows / np.maximum(counts, 1)[:, None]
    # Of a class without public rows the mean of all is known.
    means[counts == 0] = rows.mean(axis=0)
    centred = rows - means[labels]
    scatter = centred.T @ centred / len(rows)
    width = len(scatter)
    floor = max(_SHRINKAGE * float(np.trace(scatter)) / width, 1e-300)
    return _Spread(means, np.linalg.inv(scatter + floor * np.eye(width)))


def _regressed(shown: Floats, known: Floats, rows: Floats) -> Floats:
    """Return rows (m, d) by what is shown of them (m, k), as for public ones (p, k) and (p, d)."""
    middle, centre = known.mean(axis=0), rows.mean(axis=0)
    away = known - middle
    gram = away.T @ away
    gram += _RIDGE * max(float(np.trace(gram)) / len(gram), 1e-300) * np.eye(len(gram))
    weights = np.linalg.solve(gram, away.T @ (rows - centre))
    found: Floats = centre + (shown - middle) @ weights
    return found


def _same(shown: Floats) -> Floats:
    return shown


def _logarithms(shares: Floats) -> Floats:
    """Return log-odds against the mean class, which are linear in the embedding."""
    logs = np.log(np.maximum(shares, _LEAST_SHARE))
    centred: Floats = logs - logs.mean(axis=1, keepdims=True)
    return centred


def _cosine(one: Floats, other: Floats) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / lengths if lengths > 0 else 0.0
