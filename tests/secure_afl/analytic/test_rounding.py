"""The bound on what rounding moves holds for rows of all sizes and bits, and grows with steps."""

import numpy as np
import pytest

from secure_afl.analytic.least_squares import least_squares
from secure_afl.analytic.quantise import Floats, Quantiser, RowMode
from secure_afl.analytic.regression_sums import RegressionSums
from secure_afl.analytic.rounding import rounding_bound


def bounds_and_moves(
    features: Floats, targets: Floats, quantiser: Quantiser
) -> tuple[Floats, Floats]:
    fit = least_squares(RegressionSums.of(features, targets, quantiser))
    rows = quantiser.scaled(features) * quantiser.reach
    exact = np.linalg.lstsq(rows - rows.mean(axis=0), targets - targets.mean())[0]
    return rounding_bound(fit, quantiser), np.abs(fit.weights - exact * quantiser.label_scale)


@pytest.mark.parametrize("bits", [6, 8, 12])
@pytest.mark.parametrize("dim", [1, 4, 9])
@pytest.mark.parametrize("mode", ["clip", "columns"])
def test_no_weight_moves_further(bits: int, dim: int, mode: RowMode) -> None:
    quantiser = Quantiser(bits, mode)
    for seed in range(20):
        rng = np.random.default_rng([bits, dim, seed])
        features = rng.uniform(-1, 1, (50 + 10 * dim, dim)) / np.sqrt(dim)
        targets = np.clip(features @ rng.uniform(-1, 1, dim), -1, 1)
        bound, moved = bounds_and_moves(features, targets, quantiser)
        assert (moved <= bound).all()


def test_ends_of_ranges_may_be_truncated_and_the_bound_knows() -> None:
    # Indicators alone make rows of norm 1, the longest that there are.
    rng = np.random.default_rng(0)
    features = rng.choice([-1.0, 1.0], (200, 7)) / np.sqrt(7)
    quantiser = Quantiser(8, "clip")
    assert (np.abs(quantiser.integers(features) - 255 * features) > 0.3).any()
    bound, moved = bounds_and_moves(features, rng.uniform(-1, 1, 200), quantiser)
    assert (moved <= bound).all()
    assert np.isfinite(bound).all()


def test_fewer_bits_and_columns_alike_make_it_larger() -> None:
    rng = np.random.default_rng(0)
    features = rng.uniform(-0.7, 0.7, (300, 2))
    targets = features[:, 0]
    fine, coarse = (bounds_and_moves(features, targets, Quantiser(b, "clip"))[0] for b in (12, 8))
    assert (coarse > 8 * fine).all()
    features[:, 1] = features[:, 0] + 0.01 * features[:, 1]
    alike = bounds_and_moves(features, targets, Quantiser(12, "clip"))[0]
    assert (alike > 10 * fine).all()


def test_what_rounding_may_have_made_has_no_bound() -> None:
    rng = np.random.default_rng(0)
    features = rng.uniform(-0.7, 0.7, (300, 2))
    features[:, 1] = features[:, 0] + 0.0002 * rng.choice([-1, 1], 300)
    bound, _ = bounds_and_moves(features, features[:, 0], Quantiser(12, "clip"))
    assert np.isinf(bound).all()
