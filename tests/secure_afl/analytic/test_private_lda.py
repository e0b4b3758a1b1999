"""LDA from noisy statistics: its corrections on average, its limits, and what it refuses."""

import math

import numpy as np
import pytest

from secure_afl.analytic.priors import drawn_together
from secure_afl.analytic.private_lda import SumNoise, private_lda, relative_noise
from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError

DIM = 6
COUNTS = np.array([12, 40, 25])


def rows_of(rng: np.random.Generator, means: Floats) -> tuple[Floats, Floats]:
    """Draw rows of three classes, and sum them up: G and Q."""
    labels = np.repeat(np.arange(3), COUNTS)
    rows = means[labels] + 0.1 * rng.standard_normal((len(labels), DIM))
    return rows.T @ rows, rows.T @ np.eye(3)[labels]


@pytest.mark.slow
def test_biases_are_those_of_true_means_on_average() -> None:
    rng = np.random.default_rng(0)
    means = 0.3 * rng.standard_normal((3, DIM))
    cross_std, floor = 1.5, 20.0
    # All eigenvalues lie below the floor, so that K is the same in every draw.
    noise = SumNoise(floor / math.sqrt(DIM), cross_std, 0.0)
    found = []
    for _ in range(4000):
        gram, cross = rows_of(rng, means)
        cross = cross + cross_std * rng.standard_normal(cross.shape)
        # The scatter within classes, as it is without the noise in Q.
        exact = private_lda(gram, cross, COUNTS.astype(float), noise)
        assert exact.floor == pytest.approx(floor)
        found.append(exact.biases)
    # Of the eigenvalues that the noisy means leave, only those above zero count as spread.
    truth = -0.5 * (COUNTS.sum() / floor) * (means**2).sum(axis=1)
    error = np.std(found, axis=0) / math.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - truth) < 4 * error + 0.01 * np.abs(truth)).all()
    # What is taken off is no rounding: without it the smallest class is far from its truth.
    taken = 0.5 * (COUNTS.sum() / floor) * DIM * cross_std**2 / COUNTS**2
    assert taken[0] > 10 * error[0]


def test_without_noise_it_is_fisher() -> None:
    rng = np.random.default_rng(1)
    means = 0.3 * rng.standard_normal((3, DIM))
    gram, cross = rows_of(rng, means)
    found = private_lda(gram, cross, COUNTS.astype(float), SumNoise(1e-9, 0.0, 0.0))
    total, own = COUNTS.sum(), cross / COUNTS
    scatter = (gram - (own * COUNTS) @ own.T) / total
    np.testing.assert_allclose(found.weights, np.linalg.solve(scatter, own), rtol=1e-8)
    # d/n is what d directions of spread add to the length of a mean of n rows.
    lengths = (own * found.weights).sum(axis=0) - DIM / COUNTS
    np.testing.assert_allclose(found.biases, -0.5 * lengths, rtol=1e-8)


def test_the_order_of_the_classes_is_of_no_consequence() -> None:
    rng = np.random.default_rng(2)
    gram, cross = rows_of(rng, 0.3 * rng.standard_normal((3, DIM)))
    noise, order = SumNoise(0.5, 0.5, 1.0), [2, 0, 1]
    one = private_lda(gram, cross, COUNTS.astype(float), noise)
    other = private_lda(gram, cross[:, order], COUNTS[order].astype(float), noise)
    np.testing.assert_allclose(other.weights, one.weights[:, order], rtol=1e-9)
    np.testing.assert_allclose(other.biases, one.biases[order], rtol=1e-9)


def test_counts_are_drawn_together_as_far_as_noise_explains_them() -> None:
    assert drawn_together([90.0, 110.0, 100.0], 20.0) == [100.0] * 3
    assert drawn_together([90.0, 110.0, 100.0], 0.0) == [90.0, 110.0, 100.0]
    assert drawn_together([-5.0, -1.0], 1.0) == [1.0, 1.0]
    far = drawn_together([500.0, 100.0, -20.0], 10.0)
    assert 480 < far[0] < 500
    assert far[2] == pytest.approx(sum([500, 100, -20]) / 3 / 20)


def test_the_rule_is_in_units_of_a_mean_row() -> None:
    assert relative_noise(2.0, 100, 1000, 10) == pytest.approx(0.2)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, True, "1"])
@pytest.mark.parametrize("field", ["gram", "cross", "counts"])
def test_impossible_noise_is_refused(field: str, bad: object) -> None:
    settings = {"gram": 1.0, "cross": 1.0, "counts": 1.0, field: bad}
    with pytest.raises(ConfigError, match=f"noise of {field} is"):
        SumNoise(**settings)  # type: ignore[arg-type]


def test_statistics_that_do_not_fit_are_refused() -> None:
    gram, cross, counts = np.eye(3), np.ones((3, 2)), np.array([4.0, 5.0])
    noise = SumNoise(1.0, 1.0, 1.0)
    with pytest.raises(ConfigError, match=r"gram \[2, 2\]"):
        private_lda(np.eye(2), cross, counts, noise)
    with pytest.raises(ConfigError, match="NaN"):
        private_lda(gram, np.full((3, 2), np.nan), counts, noise)
    with pytest.raises(ConfigError, match="noise of gram is 0"):
        private_lda(gram, cross, counts, SumNoise(0.0, 1.0, 1.0))
