"""Intervals of figures: Wilson's of shares, and bootstrap ones by patient of all figures."""

import math
from collections.abc import Callable, Iterator

import msgspec
import numpy as np

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.intervals import wilson_interval

DRAWS = 1000
CONFIDENCE = 0.95

# Numbers held at a time.
_AT_ONCE = 2_000_000

# Ends of an interval that are no further apart, relative to them, differ by rounding alone.
_ROUNDING = 1e-12


class Interval(msgspec.Struct, frozen=True):
    """A figure and its 95 % interval; null bounds where the rows do not tell how sure it is."""

    value: float
    low: float | None
    high: float | None


def share(hits: int, trials: int) -> Interval | None:
    """Return a share of independent trials with Wilson's interval (1927); None of no trials.

    It has a width at 0 and 1 too, and covers its share at few trials (Brown, Cai and DasGupta 2001,
    Statistical Science 16).

    Args:
        hits: 0 to trials.
    """
    if trials == 0:
        return None
    return Interval(hits / trials, *wilson_interval(hits, trials, CONFIDENCE))


def weights(clusters: Integers, draws: int, seed: int) -> Iterator[Floats]:
    """Yield how often each row is in bootstrap samples, (k, n), until there were `draws` of them.

    Whole clusters are drawn, with replacement, as many as there are.

    Args:
        clusters: of each row, (n,), numbered from 0.
        seed: draws are the same for the same seed.
    """
    rng = np.random.default_rng(seed)
    count = int(clusters.max()) + 1
    at_once = max(1, _AT_ONCE // len(clusters))
    for start in range(0, draws, at_once):
        number = min(at_once, draws - start)
        drawn = [np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(number)]
        yield np.array(drawn, dtype=np.float64)[:, clusters]


def intervals(
    figures: Callable[[Floats], Floats],
    clusters: Integers,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Interval | None]:
    """Return figures with percentile intervals (Efron and Tibshirani 1993, chapter 13).

    Args:
        figures: of rows counted so many times, (k, n) to (k, f); NaN for what is not defined.
        clusters: of each row, (n,): rows of one patient stay together.

    Returns:
        f intervals; None for a figure that the rows themselves do not define. One that too few
        draws define has null bounds. So has one of which all draws are equal: rows without an
        error, drawn again, have none either, and do not tell how rare errors are.
    """
    point = figures(np.ones((1, len(clusters))))[0]
    drawn = np.concatenate([figures(counts) for counts in weights(clusters, draws, seed)])
    tail = (1 - CONFIDENCE) / 2
    found: list[Interval | None] = []
    for value, sample in zip(point, drawn.T, strict=True):
        known = sample[np.isfinite(sample)]
        if not np.isfinite(value):
            found.append(None)
        elif len(known) < draws / 2:
            found.append(Interval(float(value), None, None))
        else:
            low, high = map(float, np.quantile(known, (tail, 1 - tail)))
            varies = not math.isclose(low, high, rel_tol=_ROUNDING)
            bounds = (low, high) if varies else (None, None)
            found.append(Interval(float(value), *bounds))
    return found
