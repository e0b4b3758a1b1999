"""Units of which odds ratios are told."""

import numpy as np
import pytest

from secure_afl.data.columns import Column, Columns
from secure_afl.methods.odds import told_per, wald_coefficients


@pytest.mark.parametrize(
    ("low", "high", "per"),
    [
        (0, 0.2, 0.1),
        (0.2, 0.3, 0.1),
        (0, 0.0999, 0.01),
        (0, 3e-9, 1e-9),
        (0, 1, 1),
        (0, 120, 1),
        (-499, 500, 1),
        (0, 1000, 100),
        (2000, 40_000, 1000),
        (0, 9e6, 1e5),
    ],
)
def test_odds_are_told_of_a_sensible_step(low: float, high: float, per: float) -> None:
    found = told_per(Columns((Column.over("x", low, high), Column.over("s[m]", 0, 1))))
    assert found == pytest.approx([1, per, 1], rel=1e-12)


def test_estimates_stay_those_of_one_unit() -> None:
    (one,) = wald_coefficients(["x"], np.array([92.0]), np.array([9.0]), np.array([0.01]))
    assert (one.estimate, one.error, one.per) == (92.0, 9.0, 0.01)
