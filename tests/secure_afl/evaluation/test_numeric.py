"""Figures of predicted numbers."""

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from secure_afl.errors import DataError
from secure_afl.evaluation.numeric import measure_numbers
from secure_afl.runs.fits import numeric_lines


def test_figures_are_scikit_learns_and_lie_in_their_intervals() -> None:
    rng = np.random.default_rng(0)
    values = 1e7 + rng.standard_normal(200)
    predicted = values + 0.5 * rng.standard_normal(200)
    found = measure_numbers(predicted, values)
    assert found.r_squared is not None
    for ours, theirs in (
        (found.rmse, root_mean_squared_error(values, predicted)),
        (found.mae, mean_absolute_error(values, predicted)),
        (found.r_squared, r2_score(values, predicted)),
    ):
        assert ours.value == pytest.approx(theirs, rel=1e-8)
        assert ours.low is not None
        assert ours.high is not None
        assert ours.low < ours.value < ours.high
    assert (found.examples, found.patients) == (200, None)


def test_patients_stay_together() -> None:
    rng = np.random.default_rng(0)
    by_patient = np.repeat(rng.standard_normal(20), 30)
    values = rng.standard_normal(600)
    names = [str(i // 30) for i in range(600)]
    alone = measure_numbers(values + by_patient, values)
    together = measure_numbers(values + by_patient, values, patients=names)
    assert together.patients == 20
    assert together.rmse.value == alone.rmse.value

    def width(found: object) -> float:
        return float(found.high - found.low)  # type: ignore[attr-defined]

    assert width(together.rmse) > 2 * width(alone.rmse)


def test_numbers_that_do_not_vary_have_no_r_squared() -> None:
    assert measure_numbers(np.ones(5), np.full(5, 2.0)).r_squared is None


def test_errors_that_do_not_vary_have_no_interval() -> None:
    values = np.arange(20.0)
    for off in (0.0, 0.1):
        found = measure_numbers(values + off, values)
        assert found.mae.value == pytest.approx(off)
        assert found.mae.low is None
        assert (found.rmse.high, numeric_lines(found)["RMSE"]) == (None, f"{off:.4g} (–)")


def test_no_rows_and_other_lengths_are_refused() -> None:
    with pytest.raises(DataError, match=r"\[0\] predictions"):
        measure_numbers(np.empty(0), np.empty(0))
    with pytest.raises(DataError, match=r"\[2\] predictions of \[3\]"):
        measure_numbers(np.ones(2), np.ones(3))
    with pytest.raises(DataError, match="1 patients for 2 rows"):
        measure_numbers(np.ones(2), np.ones(2), patients=["a"])
