"""Figures of a model that predicts a number, on rows whose number is known."""

from collections.abc import Sequence

import msgspec
import numpy as np

from secure_afl.analytic.quantise import Floats
from secure_afl.errors import DataError
from secure_afl.evaluation.bootstrap import DRAWS, Interval, intervals

# Rows times draws for one table of figures; more rows get fewer draws.
_WORK = 4e8
_FEWEST_DRAWS = 200


class NumericFigures(msgspec.Struct, frozen=True):
    """How far predictions are from the numbers themselves, with 95 % intervals.

    Intervals are percentiles of a bootstrap; bounds are null where all draws are equal.

    Attributes:
        examples: rows.
        patients: how many they are of, whole patients being drawn for the intervals; null where
            rows do not say, which makes the intervals too narrow if there are several of one.
        rmse: root of the mean squared error, in the target's own unit.
        mae: mean absolute error, likewise.
        r_squared: share of the rows' own variance that is predicted; below 0 where their mean would
            be nearer. Null where the number does not vary.
    """

    examples: int
    patients: int | None
    rmse: Interval
    mae: Interval
    r_squared: Interval | None


def measure_numbers(
    predicted: Floats,
    values: Floats,
    *,
    patients: Sequence[str] | None = None,
    seed: int = 0,
) -> NumericFigures:
    """Measure predictions of numbers.

    Args:
        predicted, values: (n,), n ≥ 1, in one unit.
        patients: whose each row is; None takes every row for another patient's.
        seed: of the bootstrap.

    Raises:
        DataError: no rows, or lengths that differ.
    """
    if not len(values) or predicted.shape != values.shape:
        raise DataError(
            f"{list(predicted.shape)} predictions of {list(values.shape)} numbers; allowed: [n] of "
            "both, with n ≥ 1"
        )
    if patients is not None and len(patients) != len(values):
        raise DataError(f"{len(patients)} patients for {len(values)} rows; give one a row")
    clusters = np.arange(len(values))
    if patients is not None:
        clusters = np.unique(np.asarray(patients), return_inverse=True)[1]
    off = predicted - values
    # Less the mean, so that the variance of large numbers keeps its digits.
    deviations = values - values.mean()

    def figures(counts: Floats) -> Floats:
        rows = counts.sum(axis=1)
        squares = counts @ off**2 / rows
        spread = counts @ deviations**2 / rows - (counts @ deviations / rows) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            explained = np.where(spread > 0, 1 - squares / spread, np.nan)
        return np.stack([np.sqrt(squares), counts @ np.abs(off) / rows, explained], axis=1)

    draws = int(np.clip(_WORK / len(values), _FEWEST_DRAWS, DRAWS))
    rmse, mae, r_squared = intervals(figures, clusters, draws=draws, seed=seed)
    assert rmse is not None, "there are rows"
    assert mae is not None, "there are rows"
    whose = None if patients is None else int(clusters.max()) + 1
    return NumericFigures(len(values), whose, rmse, mae, r_squared)
