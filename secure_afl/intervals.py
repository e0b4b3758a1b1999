"""Intervals for the mean of independent values, a share of independent trials, and estimates.

Their quantiles come from `scipy.special`: `scipy.stats` takes most of a second to import.
"""

import math
from collections.abc import Sequence
from statistics import stdev
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]


def student_reach(values: Sequence[float], confidence: float = 0.95) -> float:
    """Return half the width of Student's interval for the mean.

    Args:
        values: independent, at least two: one tells nothing of their spread.
        confidence: above 0 and below 1.

    Raises:
        ValueError: fewer than two values.
    """
    from scipy.special import stdtrit

    quantile = float(stdtrit(len(values) - 1, (1 + confidence) / 2))
    return quantile * stdev(values) / math.sqrt(len(values))


def wilson_interval(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the ends of Wilson's interval (1927) for the share of hits in independent trials.

    The formula is the one of `scipy.stats.binomtest`, in its order: the ends are equal bit for bit.

    Args:
        hits: 0 to trials.
        trials: at least one.
        confidence: above 0 and below 1.
    """
    from scipy.special import ndtri

    share, z = hits / trials, float(ndtri(0.5 + 0.5 * confidence))
    denominator = 2 * (trials + z**2)
    centre = (2 * trials * share + z**2) / denominator
    reach = z / denominator * math.sqrt(4 * trials * share * (1 - share) + z**2)
    return (0.0 if hits == 0 else centre - reach, 1.0 if hits == trials else centre + reach)


def t_tests(
    estimates: Floats, errors: Floats, freedom: float, level: float
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return t, its two-sided p value, and the ends of the interval, each (k,).

    Args:
        freedom: degrees of it; infinite for a normal distribution.
        level: of the interval, above 0 and below 1.
    """
    from scipy.special import ndtr, ndtri, stdtr, stdtrit

    with np.errstate(divide="ignore", invalid="ignore"):
        statistics = estimates / errors
    if math.isinf(freedom):
        p, reach = 2 * ndtr(-np.abs(statistics)), float(ndtri((1 + level) / 2))
    else:
        p = 2 * stdtr(freedom, -np.abs(statistics))
        reach = float(stdtrit(freedom, (1 + level) / 2))
    return statistics, np.asarray(p), estimates - reach * errors, estimates + reach * errors
