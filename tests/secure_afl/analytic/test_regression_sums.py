"""Sums of regression: exact, in their ranges, and the same packed and unpacked."""

import numpy as np
import pytest

from secure_afl.analytic.patients import PatientGroups
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.regression_sums import RegressionSums, regression_layout
from secure_afl.errors import DataError


def rows_of(rows: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([rows, dim])
    return rng.uniform(-1, 1, (rows, dim)) / np.sqrt(dim), rng.uniform(-1, 1, rows)


@pytest.mark.parametrize("bits", [3, 8, 12])
@pytest.mark.parametrize(("rows", "dim"), [(1, 1), (700, 4), (1100, 3)])
@pytest.mark.parametrize("mark", [1, 64])
def test_they_are_those_of_pythons_own_integers(bits: int, rows: int, dim: int, mark: int) -> None:
    features, targets = rows_of(rows, dim)
    quantiser = Quantiser(bits, "clip")
    found = RegressionSums.of(features, targets, quantiser, mark)
    integers = quantiser.integers(features)
    columns = [
        integers,
        np.full((rows, 1), mark),
        np.rint(targets * quantiser.label_scale)[:, None],
    ]
    whole = np.concatenate(columns, axis=1).astype(int).astype(object)
    assert (found.whole() == whole.T @ whole).all()
    layout = regression_layout(dim, quantiser, rows, rows, mark)
    packed = found.pack()
    again = RegressionSums.unpack(packed, layout)
    assert np.array_equal(again.pack(), packed)
    for block, part in zip(layout.blocks, layout.split(packed).values(), strict=True):
        assert (part >= block.low).all()
        assert (part <= block.high).all()


@pytest.mark.parametrize("mark", [64, 4096])
def test_a_patients_rows_weigh_no_more_than_one(mark: int) -> None:
    features, targets = rows_of(60, 3)
    quantiser = Quantiser(12, "clip")
    each = PatientGroups.of([f"p{place // 7}" for place in range(60)]).rows_each
    found = RegressionSums.of(features, targets, quantiser, mark, each)
    bounds = regression_layout(3, quantiser, 9, 9, mark)
    for block, part in zip(bounds.blocks, bounds.split(found.pack()).values(), strict=True):
        assert (part >= block.low).all()
        assert (part <= block.high).all()
    # Nine patients, less what rounding down costs.
    assert 0.8 * 9 < found.rows / mark**2 <= 9


def test_no_sum_shows_itself() -> None:
    features, targets = rows_of(5, 2)
    found = RegressionSums.of(features, targets, Quantiser(8, "clip"))
    assert repr(found) == "<RegressionSums>"
    features[3, 0] = np.nan
    with pytest.raises(DataError, match="row 3"):
        RegressionSums.of(features, targets, Quantiser(8, "clip"))
