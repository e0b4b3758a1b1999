"""What Gaussian noise promises: (ε, δ) of one release and of many, and the noise for a promise.

A release of sensitivity Δ with Gaussian noise of standard deviation σ is told by one number,
μ = Δ/σ. Every function rounds towards safety: a bound on a loss upwards, an allowance downwards.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from secure_afl.checks import number

# Least noise, in grid units, for which the figures on discrete noise below hold.
MIN_SHARE = 2.0

# What allowances lose, so that other machines' rounding cannot find them exceeded.
_MARGIN = 1e-9
_PRECISION = 1e-13

# √(KL/2)·σ⁴ of one coordinate: the fourth cumulant of the rounding, −1/120, gives √24/(2·2880) =
# 8.505e-4 as σ grows; the exact sums over the integers reach 8.512e-4 at σ = 2.
_DISTANCE = 8.52e-4


def delta_of(epsilon: float, mu: float) -> float:
    """Return δ(ε) = Φ(−ε/μ + μ/2) − e^ε·Φ(−ε/μ − μ/2) of the Gaussian mechanism.

    Balle and Wang (ICML 2018), Theorem 8. The error is below 1e-15, and where ε ≥ 0.01 and
    μ ≥ 0.001 relatively below 1e-9.

    Args:
        epsilon: ≥ 0.
        mu: Δ/σ, ≥ 0.

    Raises:
        ConfigError: a negative number or NaN.
    """
    from scipy.special import erfcx, ndtr

    number("epsilon", epsilon, 0, math.inf)
    number("mu", mu, 0, math.inf)
    if mu == 0 or epsilon == math.inf:
        return 0.0
    if mu == math.inf:
        return 1.0
    if epsilon == 0:
        return math.erf(mu / math.sqrt(8))
    cut = -epsilon / mu + mu / 2
    # e^ε·φ(cut − μ) = φ(cut): both terms are φ(cut) times a tail ratio, and no exponential of ε is
    # left that could overflow or cancel.
    density = 0.5 * math.exp(-min(cut * cut / 2, 800.0))
    taken = density * float(erfcx((mu - cut) / math.sqrt(2)))
    kept = float(ndtr(cut)) if cut > 0 else density * float(erfcx(-cut / math.sqrt(2)))
    return max(kept - taken, 0.0)


def epsilon_of(delta: float, mu: float) -> float:
    """Return the least ε ≥ 0 with δ(ε) ≤ delta; infinite if there is none.

    Args:
        delta: 0 to 1.
        mu: Δ/σ, ≥ 0.

    Raises:
        ConfigError: a number out of range.
    """
    number("delta", delta, 0, 1)
    number("mu", mu, 0, math.inf)
    if delta_of(0.0, mu) <= delta:
        return 0.0
    if delta == 0 or mu == math.inf:
        return math.inf
    return _least(lambda epsilon: delta_of(epsilon, mu) <= delta)


def mu_of(epsilon: float, delta: float) -> float:
    """Return the greatest μ that is (epsilon, delta)-private, less a billionth for rounding.

    Args:
        epsilon: ≥ 0 and finite.
        delta: > 0 and < 1.

    Raises:
        ConfigError: a number out of range.
    """
    return _mu_of(number("epsilon", epsilon, 0, 1e6), number("delta", delta, 1e-300, 1 - 1e-9))


@lru_cache(maxsize=256)
def _mu_of(epsilon: float, delta: float) -> float:
    return (1 - _MARGIN) / _least(lambda sigma: delta_of(epsilon, 1 / sigma) <= delta)


def noise_multiplier(epsilon: float, delta: float, releases: int = 1) -> float:
    """Return the least σ/Δ of each of some releases.

    The releases are (epsilon, delta)-private together.

    Each may depend on those before it: they compose to √releases·Δ/σ.

    Args:
        epsilon: ≥ 0 and finite.
        delta: > 0 and < 1.
        releases: ≥ 1.

    Returns:
        z, rounded up by a billionth: `delta_of(epsilon, √releases / z) < delta`.

    Raises:
        ConfigError: a number out of range.
    """
    number("releases", releases, 1, 2**53)
    return math.sqrt(releases) / mu_of(epsilon, delta)


def compose(mus: Iterable[float]) -> float:
    """Compose Gaussian mechanisms on the same data to √Σμ².

    Each may be adapted to the results of those before it.

    Dong, Roth and Su (JRSS-B 2022), Corollary 3.3: as private as one of this μ, exactly.

    Raises:
        ConfigError: a μ that is negative or no number.
    """
    return math.hypot(*(number("mu", mu, 0, math.inf) for mu in mus))


def continuous(sigma: float) -> float:
    """Return √(σ² − 1/12), the noise to account for in place of `sigma`.

    It holds where rounded or discrete noise of `sigma` is added.

    A continuous Gaussian of this standard deviation, rounded to integers, has the variance σ², and
    rounding is post-processing. Discrete noise is that up to `discretisation_distance`. Where
    blocks have noise of their own, μ = Δ/σ grows by the greatest σ_b / continuous(σ_b) of any b.

    Raises:
        ConfigError: sigma below 2 grid units.
    """
    number("sigma", sigma, MIN_SHARE, math.inf)
    return math.sqrt(sigma * sigma - 1 / 12)


def discretisation_distance(shares: Sequence[tuple[float, int]]) -> float:
    """Bound on the total variation between discrete noise and the rounded Gaussian accounted for.

    8.52e-4·√(Σ σ_i⁻⁸) over the coordinates: the divergences of single coordinates (Kullback and
    Leibler's) add up, and Pinsker's inequality turns their sum into a distance. The constant is
    exact for one discrete Gaussian and for sums of several, from 2 grid units upwards.

    Args:
        shares: for each block, the noise's standard deviation in grid units, and the number of
            coordinates. Of one share it is a bound for the sum of any number of them; of the sum
            of all honest shares, each ≥ 2, it is a sharper one.

    Raises:
        ConfigError: noise below 2 grid units, or a negative number of coordinates.
    """
    total = 0.0
    for sigma, entries in shares:
        number("noise of a share, in grid units,", sigma, MIN_SHARE, math.inf)
        number("number of coordinates", entries, 0, math.inf)
        total += entries * sigma**-8
    return min(_DISTANCE * math.sqrt(total), 1.0)


def distance_delta(epsilon: float, distance: float) -> float:
    """Return (1 + e^ε)·distance, the δ to add for a distance of releases.

    The releases are that far from the ones accounted for.

    Args:
        epsilon: ≥ 0, of the whole promise: that of all releases, where there are several.
        distance: total variation, ≥ 0; distances of several releases add up.

    Raises:
        ConfigError: a number out of range.
    """
    number("epsilon", epsilon, 0, math.inf)
    number("distance", distance, 0, math.inf)
    if distance == 0:
        return 0.0
    return (1 + math.exp(epsilon)) * distance if epsilon < 700 else math.inf


def audited_epsilon(
    false_positives: int,
    negatives: int,
    true_positives: int,
    positives: int,
    delta: float,
    confidence: float = 0.95,
) -> float:
    """Return a lower bound on ε from an attack that tells the two neighbours apart.

    Both error rates are bounded from above by Clopper and Pearson, each with half of the error
    probability; the mechanism being Gaussian, μ ≥ Φ⁻¹(1 − FPR) − Φ⁻¹(FNR) (Nasr et al., USENIX
    Security 2023).

    Args:
        false_positives: of `negatives` trials in which the attack was wrong to say yes.
        true_positives: of `positives` trials in which it was right to say yes.
        delta: of the promise, > 0 and < 1.
        confidence: with which the bound holds, if the attack's threshold was fixed beforehand.

    Returns:
        ε ≥ 0; 0 if the attack shows nothing.

    Raises:
        ConfigError: more hits than trials, no trials, or a number out of range.
    """
    from scipy.special import ndtri

    for hits, trials in ((false_positives, negatives), (true_positives, positives)):
        number("number of trials", trials, 1, math.inf)
        number("number of positive answers", hits, 0, trials)
    number("delta", delta, 1e-300, 1)
    number("confidence", confidence, 0, 1 - 1e-12)
    miss = (1 - confidence) / 2
    false_rate = _upper(false_positives, negatives, miss)
    missed_rate = _upper(positives - true_positives, positives, miss)
    mu = -float(ndtri(false_rate)) - float(ndtri(missed_rate))
    return epsilon_of(delta, mu) if mu > 0 else 0.0


def _upper(hits: int, trials: int, miss: float) -> float:
    from scipy.special import betaincinv

    return 1.0 if hits == trials else float(betaincinv(hits + 1, trials - hits, 1 - miss))


def _least(holds: Callable[[float], bool]) -> float:
    """Find the least number > 0 from which on a condition holds.

    It is rounded up to one where the condition holds.
    """
    high = 1.0
    while not holds(high):
        high *= 2
    low = high / 2
    while holds(low):
        low, high = low / 2, low
    while high - low > _PRECISION * high:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
