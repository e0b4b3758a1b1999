"""The bound on regression's sums: no search passes it, and rows reach it."""

import math
from itertools import product
from typing import Literal

import numpy as np
import pytest

from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError
from secure_afl.privacy.sensitivity import RegressionWeights, regression_sensitivity

WEIGHTS = (
    RegressionWeights(),
    RegressionWeights(1.0, 1.0, 0.8, 0.9, 0.8),
    RegressionWeights(0.3, 1.3, 0.9, 0.05, 0.2),
)
Neighbours = Literal["add-remove", "replace-one"]


def vectors(rows: Floats, marks: Floats, targets: Floats, weights: RegressionWeights) -> Floats:
    """Rows' parts of the sum, every block in units of its noise: Frobenius for the Gram matrix."""
    outer = (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
    single = [
        weights.rows * marks**2,
        weights.target_sum * marks * targets,
        weights.target_squares * targets**2,
    ]
    products = weights.cross * rows * targets[:, None], weights.sums * rows * marks[:, None]
    return np.concatenate([outer, *products, np.stack(single, axis=1)], axis=1)


def delta(
    weights: RegressionWeights,
    neighbours: Neighbours,
    unit: Literal["example", "patient", "client"] = "example",
    rows: int = 1,
) -> float:
    """The bound in units of B²."""
    found = regression_sensitivity(16, 16, 16, unit, neighbours, rows, weights)
    return found.joint / 16**2


def search(weights: RegressionWeights, marks: tuple[float, ...]) -> float:
    """The greatest distance between two rows of two dimensions, over a grid of all that matters."""
    sizes, targets, angles = (0.0, 0.7, 1.0), np.linspace(-1, 1, 9), np.linspace(0, math.pi, 121)
    every = [
        np.array(list(product(sizes, directions, marks, targets))) for directions in ([0.0], angles)
    ]
    first, second = (
        vectors(
            size[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1), mark, target, weights
        )
        for size, angle, mark, target in (grid.T for grid in every)
    )
    squared = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2 * first @ second.T
    return math.sqrt(float(squared.max()))


@pytest.mark.parametrize("weights", WEIGHTS[:2])
def test_rows_that_come_or_go_reach_the_bound_and_none_pass_it(weights: RegressionWeights) -> None:
    alone = vectors(np.array([[0.6, 0.8]]), np.ones(1), -np.ones(1), weights)
    assert math.isclose(float(np.linalg.norm(alone)), delta(weights, "add-remove"), rel_tol=1e-12)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((500, 3))
    rows *= rng.random((500, 1)) / np.linalg.norm(rows, axis=1, keepdims=True)
    parts = vectors(rows, rng.random(500), rng.uniform(-1, 1, 500), weights)
    assert (np.linalg.norm(parts, axis=1) <= delta(weights, "add-remove")).all()


@pytest.mark.parametrize("weights", WEIGHTS)
def test_rows_that_change_reach_the_bound_and_none_pass_it(weights: RegressionWeights) -> None:
    bound = delta(weights, "replace-one")
    found = search(weights, (1.0,))
    assert found <= bound * (1 + 1e-12)
    assert found > bound * 0.999


@pytest.mark.parametrize("weights", WEIGHTS)
def test_patients_rows_of_any_weight_pass_no_bound(weights: RegressionWeights) -> None:
    bound = delta(weights, "replace-one", "patient")
    found = search(weights, (0.0, 0.5, 1.0))
    assert found <= bound * (1 + 1e-12)
    assert found > bound * 0.999
    # A patient of several rows is a mean of parts of single ones.
    rng = np.random.default_rng(1)
    for _ in range(300):
        parts = []
        for several in rng.integers(1, 5, 2):
            rows = rng.standard_normal((several, 2))
            rows /= np.linalg.norm(rows, axis=1, keepdims=True) * math.sqrt(several)
            weight = np.full(several, 1 / math.sqrt(several))
            targets = weight * rng.choice([-1.0, 1.0], several)
            parts.append(vectors(rows, weight, targets, weights).sum(axis=0))
        assert np.linalg.norm(parts[0] - parts[1]) <= bound
        assert np.linalg.norm(parts[0]) <= delta(weights, "add-remove", "patient") * (1 + 1e-12)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_client_has_as_much_as_its_rows(weights: RegressionWeights) -> None:
    assert math.isclose(delta(weights, "add-remove", "client", 7), 7 * delta(weights, "add-remove"))
    # Its rows may be exchanged for fewer, or for more.
    each = max(delta(weights, "replace-one"), delta(weights, "add-remove"))
    assert math.isclose(delta(weights, "replace-one", "client", 7), 7 * each)


def test_blocks_are_in_units_of_their_integers() -> None:
    found = dict(regression_sensitivity(256, 64, 4, "example", "add-remove", 1).relative)
    assert found["gram_diagonal"] == 1
    assert found["gram_upper"] == math.sqrt(0.5)
    weights = RegressionWeights()
    for name, unit, weight in (
        ("cross", 256 * 64, weights.cross),
        ("sums", 256 * 4, weights.sums),
        ("rows", 16, weights.rows),
        ("target_sum", 64 * 4, weights.target_sum),
        ("target_squares", 64**2, weights.target_squares),
    ):
        assert math.isclose(found[name] * weight * 256**2, unit)


@pytest.mark.parametrize(
    "weights",
    [
        RegressionWeights(cross=1.5),
        RegressionWeights(target_squares=2.0),
        RegressionWeights(rows=1.0),
    ],
)
def test_weights_that_no_proof_covers_are_refused(weights: RegressionWeights) -> None:
    with pytest.raises(ConfigError, match="under replace-one; allowed"):
        regression_sensitivity(16, 16, 16, "example", "replace-one", 1, weights)
    regression_sensitivity(16, 16, 16, "example", "add-remove", 1, weights)


@pytest.mark.parametrize("field", ["cross", "sums", "rows", "target_sum", "target_squares"])
def test_weights_are_positive(field: str) -> None:
    weights = RegressionWeights()._replace(**{field: 0.0})
    with pytest.raises(ConfigError, match=field):
        regression_sensitivity(16, 16, 16, "example", "add-remove", 1, weights)
