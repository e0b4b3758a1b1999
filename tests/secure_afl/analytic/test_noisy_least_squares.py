"""Least squares of noisy sums: what the noise adds to errors, and when they are given up."""

import numpy as np
import pytest

from secure_afl.analytic.noisy_least_squares import (
    NoisyMoments,
    RegressionNoise,
    noise_covariance,
    noisy_least_squares,
)
from secure_afl.analytic.quantise import Floats

NOISE = RegressionNoise(1.3, 2.1, 3.2, 5.5, 4.1, 6.2)
TRUTH = np.array([0.1, 0.3, -0.2, 0.25])


def moments_of(rows: Floats, targets: Floats, noise: RegressionNoise, seed: int) -> NoisyMoments:
    """The moments of rows and targets with noise drawn."""
    rng = np.random.default_rng(seed)
    dim = rows.shape[1]
    upper = np.triu(rng.standard_normal((dim, dim)) * noise.gram / np.sqrt(2), 1)
    drawn = upper + upper.T + np.diag(rng.standard_normal(dim) * noise.gram)
    return NoisyMoments(
        rows.T @ rows + drawn,
        rows.T @ targets + noise.cross * rng.standard_normal(dim),
        rows.sum(axis=0) + noise.sums * rng.standard_normal(dim),
        len(rows) + noise.rows * rng.standard_normal(),
        targets.sum() + noise.target_sum * rng.standard_normal(),
        float(targets @ targets) + noise.target_squares * rng.standard_normal(),
        noise,
    )


def drawn_rows(rows: int, seed: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng([7, seed])
    values = np.clip(0.3 * rng.standard_normal((rows, 3)) + 0.1, -1, 1) / np.sqrt(3)
    return values, TRUTH[0] + values @ TRUTH[1:] + 0.1 * rng.standard_normal(rows)


@pytest.mark.slow
def test_the_noise_on_normal_equations_has_the_covariance_that_is_claimed() -> None:
    rows, targets = np.zeros((1, 3)), np.zeros(1)
    found = []
    for seed in range(6_000):
        noisy = moments_of(rows, targets, NOISE, seed)
        left = np.empty((4, 4))
        left[0, 0], left[1:, 1:] = noisy.rows - 1, noisy.gram
        left[0, 1:] = left[1:, 0] = noisy.sums
        found.append(np.append(noisy.target_sum, noisy.cross) - left @ TRUTH)
    claimed = noise_covariance(TRUTH, NOISE)
    scale = np.sqrt(np.outer(claimed.diagonal(), claimed.diagonal()))
    assert np.abs(np.cov(np.array(found).T) - claimed).max() < 0.08 * scale.max()
    assert (np.abs(np.cov(np.array(found).T) - claimed) < 0.08 * scale).all()


def test_without_noise_it_is_least_squares() -> None:
    rows, targets = drawn_rows(500, 0)
    fit = noisy_least_squares(moments_of(rows, targets, RegressionNoise(*[0.0] * 6), 0))
    left = np.column_stack([np.ones(500), rows])
    expected, residual, *_ = np.linalg.lstsq(left, targets)
    np.testing.assert_allclose(np.append(fit.intercept, fit.weights), expected, rtol=1e-9)
    np.testing.assert_allclose(fit.variance, residual[0] / 496, rtol=1e-9)
    assert fit.covariance is not None
    spread = fit.variance * np.linalg.inv(left.T @ left)
    np.testing.assert_allclose(fit.covariance, spread, rtol=1e-7, atol=1e-14)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    covered, noise = [], RegressionNoise(10.0, 12.0, 25.0, 50.0, 40.0, 30.0)
    for seed in range(400):
        rows, targets = drawn_rows(5000, seed)
        fit = noisy_least_squares(moments_of(rows, targets, noise, seed))
        assert fit.covariance is not None
        errors = np.sqrt(fit.covariance.diagonal())
        covered.append(np.abs(np.append(fit.intercept, fit.weights) - TRUTH) < 1.96 * errors)
    by_coefficient = np.mean(covered, axis=0)
    # Three standard errors of a share of 400.
    assert (by_coefficient > 0.95 - 0.033).all()
    assert (by_coefficient < 0.95 + 0.033).all()


def test_noise_beyond_the_signal_leaves_no_interval_and_small_coefficients() -> None:
    rows, targets = drawn_rows(300, 0)
    noise = RegressionNoise(*[60.0] * 6)
    for seed in range(20):
        fit = noisy_least_squares(moments_of(rows, targets, noise, seed))
        assert fit.covariance is None
        assert np.linalg.norm(fit.weights) < 20
        assert fit.variance > 0


def test_ridge_has_no_covariance_under_noise() -> None:
    rows, targets = drawn_rows(5000, 0)
    moments = moments_of(rows, targets, RegressionNoise(*[1.0] * 6), 0)
    ridged = noisy_least_squares(moments, 50.0)
    assert ridged.covariance is None
    assert np.linalg.norm(ridged.weights) < np.linalg.norm(noisy_least_squares(moments).weights)


@pytest.mark.parametrize("rows", [-30.0, 0.0, 2.0])
def test_a_noisy_number_of_rows_below_one_is_survived(rows: float) -> None:
    moments = NoisyMoments(
        np.eye(2) * 5, np.ones(2), np.ones(2), rows, 1.0, 2.0, RegressionNoise(*[1.0] * 6)
    )
    fit = noisy_least_squares(moments)
    assert np.isfinite(fit.weights).all()
    assert fit.covariance is None
