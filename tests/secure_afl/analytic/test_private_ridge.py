import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_afl.analytic.private_ridge import noise_floor, private_ridge, raise_eigenvalues
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.statistics import Statistics
from secure_afl.errors import ConfigError

seeds = st.integers(0, 2**32 - 1)


def symmetric(dim: int, seed: int) -> Floats:
    half = np.random.default_rng(seed).standard_normal((dim, dim))
    return half + half.T


def statistics_of(rows: int, dim: int, seed: int) -> tuple[Floats, Floats]:
    """Gram and cross term of integer rows, as the solver gets them."""
    rng = np.random.default_rng(seed)
    quantiser = Quantiser(12)
    labels = rng.integers(0, 3, rows)
    return Statistics.of(rng.standard_normal((rows, dim)), labels, 3, quantiser).floats(quantiser)


def noisy(gram: Floats, cross: Floats, std: float, seed: int) -> tuple[Floats, Floats]:
    """With noise of variance std² on the Gram's diagonal and half of it elsewhere."""
    rng = np.random.default_rng(seed)
    half = rng.standard_normal(gram.shape) * std / 2
    return gram + half + half.T, cross + std * rng.standard_normal(cross.shape)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 12), seeds)
def test_the_projection_is_the_nearest_psd_matrix(dim: int, seed: int) -> None:
    matrix = symmetric(dim, seed)
    projected = raise_eigenvalues(matrix, 0.0)
    size = np.linalg.norm(matrix)
    assert np.array_equal(projected, projected.T)
    assert np.linalg.eigvalsh(projected)[0] >= -1e-12 * size
    # In a convex cone P(A) is nearest to A if and only if A − P(A) is orthogonal to P(A), and has
    # no positive inner product with any member of the cone.
    residual = matrix - projected
    assert abs((residual * projected).sum()) <= 1e-11 * size**2
    assert np.linalg.eigvalsh(residual)[-1] <= 1e-12 * size
    half = np.random.default_rng(seed + 1).standard_normal((dim, dim))
    other = half @ half.T
    assert np.linalg.norm(matrix - other) >= np.linalg.norm(residual) - 1e-12 * size


@pytest.mark.parametrize("dim", [1, 5, 40])
def test_a_psd_matrix_is_left_as_it_is(dim: int) -> None:
    gram, _ = statistics_of(3 * dim, dim, 0)
    np.testing.assert_allclose(raise_eigenvalues(gram, 0.0), gram, rtol=0, atol=1e-12 * dim)
    assert not raise_eigenvalues(-np.eye(dim), 0.0).any()
    assert not raise_eigenvalues(np.zeros((dim, dim)), 0.0).any()


def test_as_the_noise_goes_so_does_its_effect() -> None:
    gram, cross = statistics_of(60, 12, 0)
    expected = np.linalg.solve(gram, cross)
    errors = []
    for std in (1e-1, 1e-3, 1e-5, 1e-7):
        solved = private_ridge(*noisy(gram, cross, std, 1), noise_floor(std, 12))
        errors.append(np.linalg.norm(solved - expected) / np.linalg.norm(expected))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-5
    np.testing.assert_allclose(private_ridge(gram, cross, 0.0), expected, rtol=1e-9, atol=1e-11)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 15), st.floats(0.01, 10), seeds)
def test_the_formula_as_written(dim: int, std: float, seed: int) -> None:
    gram, cross = noisy(*statistics_of(10, dim, seed), std, seed)
    unit, floor = np.eye(dim), noise_floor(std, dim)
    assert floor == pytest.approx(0.7 * std * np.sqrt(dim))
    # The nearest matrix ≥ τI is the nearest positive semidefinite one of what lies above τI.
    raised = raise_eigenvalues(gram - floor * unit, 0.0) + floor * unit
    np.testing.assert_allclose(raise_eigenvalues(gram, floor), raised, rtol=1e-8, atol=1e-10)
    by_hand = np.linalg.solve(raised, cross)
    np.testing.assert_allclose(private_ridge(gram, cross, floor), by_hand, rtol=1e-8, atol=1e-10)


def test_noise_blows_no_weight_up() -> None:
    # As many rows as a tenth of the dimensions: most eigenvalues are noise, of either sign.
    std, dim = 2.0, 60
    for seed in range(20):
        gram, cross = noisy(*statistics_of(6, dim, seed), std, seed)
        floor = noise_floor(std, dim)
        weights = private_ridge(gram, cross, floor)
        assert np.linalg.norm(weights) <= np.linalg.norm(cross) / floor


def test_what_noise_leaves_is_learned() -> None:
    rng = np.random.default_rng(0)
    centres, labels = rng.standard_normal((3, 20)), rng.integers(0, 3, 3000)
    rows = centres[labels] + 0.7 * rng.standard_normal((3000, 20))
    quantiser, std = Quantiser(12), 60.0
    exact = Statistics.of(rows[:2000], labels[:2000], 3, quantiser).floats(quantiser)
    gram, cross = noisy(*exact, std, 1)
    assert np.linalg.eigvalsh(gram)[0] < 0

    def accuracy(weights: Floats) -> float:
        return float(((rows[2000:] @ weights).argmax(axis=1) == labels[2000:]).mean())

    naive = accuracy(np.asarray(np.linalg.solve(gram + 0.1 * np.eye(20), cross), np.float64))
    assert accuracy(private_ridge(gram, cross, noise_floor(std, 20))) > max(0.9, naive)


def test_arguments_are_left_alone() -> None:
    gram, cross = noisy(*statistics_of(9, 4, 0), 0.5, 0)
    before = gram.copy(), cross.copy()
    private_ridge(gram, cross, 0.5)
    raise_eigenvalues(gram, 0.5)
    assert np.array_equal(gram, before[0])
    assert np.array_equal(cross, before[1])


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_strengths_that_cannot_be_are_refused(value: float) -> None:
    gram, cross = statistics_of(9, 4, 0)
    with pytest.raises(ConfigError, match=r"floor is .*allowed: finite and ≥ 0"):
        private_ridge(gram, cross, value)
    with pytest.raises(ConfigError, match=r"floor is .*allowed: finite and ≥ 0"):
        raise_eigenvalues(gram, value)


def test_a_singular_gram_without_noise_is_refused() -> None:
    for seed in range(10):
        gram, cross = statistics_of(5, 8, seed)
        with pytest.raises(ConfigError, match=r"singular.*pass a larger"):
            private_ridge(gram, cross, 0.0)
    with pytest.raises(ConfigError, match="singular"):
        private_ridge(np.zeros((3, 3)), np.zeros((3, 2)), 0.0)


def test_matrices_that_cannot_be_are_refused() -> None:
    gram, cross = statistics_of(9, 4, 0)
    for bad in (gram[:3], gram[0], gram[:0, :0]):
        with pytest.raises(ConfigError, match="allowed"):
            private_ridge(bad, cross, 1.0)
    for bad in (cross[:3], cross[:, 0]):
        with pytest.raises(ConfigError, match=r"cross is .*allowed: \[4, classes\]"):
            private_ridge(gram, bad, 1.0)
    for value in (np.nan, np.inf):
        spoilt = gram.copy()
        spoilt[1, 2] = spoilt[2, 1] = value
        with pytest.raises(ConfigError, match="NaN or infinity"):
            private_ridge(spoilt, cross, 1.0)
        with pytest.raises(ConfigError, match="NaN or infinity"):
            private_ridge(gram, np.full((4, 2), value), 1.0)
    lopsided = gram.copy()
    lopsided[0, 1] += 1e-3
    with pytest.raises(ConfigError, match="not symmetric"):
        private_ridge(lopsided, cross, 1.0)
    with pytest.raises(ConfigError, match="not symmetric"):
        raise_eigenvalues(lopsided, 0.0)
