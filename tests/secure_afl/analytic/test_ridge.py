import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import Plain
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.ridge import ridge
from secure_afl.analytic.statistics import Statistics
from secure_afl.errors import ConfigError
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL
from tests.kit.samples import make_clients


def statistics_of(rows: int, dim: int, seed: int) -> tuple[Floats, Floats]:
    """Gram and cross term of integer rows, as the solver gets them."""
    rng = np.random.default_rng(seed)
    quantiser = Quantiser(8)
    labels = rng.integers(0, 3, rows)
    return Statistics.of(rng.standard_normal((rows, dim)), labels, 3, quantiser).floats(quantiser)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.integers(1, 20), st.floats(1e-3, 1e3), st.integers(0, 2**32 - 1))
def test_ridge_solves_the_normal_equations(rows: int, dim: int, lam: float, seed: int) -> None:
    gram, cross = statistics_of(rows, dim, seed)
    expected = np.linalg.solve(gram + lam * np.eye(dim), cross)
    np.testing.assert_allclose(ridge(gram, cross, lam), expected, rtol=1e-9, atol=1e-11)


def test_ridge_is_the_minimum_of_its_objective() -> None:
    rng = np.random.default_rng(0)
    rows, targets = rng.standard_normal((30, 6)), np.eye(3)[rng.integers(0, 3, 30)]
    stacked = np.concatenate([rows, np.sqrt(0.7) * np.eye(6)])
    wanted = np.concatenate([targets, np.zeros((6, 3))])
    expected = np.linalg.lstsq(stacked, wanted)[0]
    np.testing.assert_allclose(ridge(rows.T @ rows, rows.T @ targets, 0.7), expected, rtol=1e-10)


def test_ridge_leaves_its_arguments_alone() -> None:
    gram, cross = statistics_of(9, 4, 0)
    before = gram.copy(), cross.copy()
    ridge(gram, cross, 0.5)
    assert np.array_equal(gram, before[0])
    assert np.array_equal(cross, before[1])


def test_without_ridge_a_full_gram_is_solved() -> None:
    gram, cross = statistics_of(40, 6, 0)
    expected = np.linalg.solve(gram, cross)
    np.testing.assert_allclose(ridge(gram, cross, 0.0), expected, rtol=1e-10)


@pytest.mark.parametrize("missing", [1, 2, 5])
@pytest.mark.parametrize("dim", [8, 30])
def test_without_ridge_a_singular_gram_is_refused(dim: int, missing: int) -> None:
    # Rounding makes the smallest pivots tiny rather than zero, of either sign: one in two would
    # pass for positive definite, with weights that mean nothing.
    for seed in range(20):
        gram, cross = statistics_of(dim - missing, dim, seed)
        with pytest.raises(ConfigError, match=r"singular at ridge 0.*allowed: > 0.*larger --ridge"):
            ridge(gram, cross, 0.0)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0])
def test_a_ridge_that_cannot_be_is_refused(value: float) -> None:
    gram, cross = statistics_of(40, 6, 0)
    with pytest.raises(ConfigError, match="ridge"):
        ridge(gram, cross, value)


# AFL as its article has it: an oracle that shares nothing with the code under test.


def local_model(rows: Floats, targets: Floats, gamma: float) -> tuple[Floats, Floats]:
    """What the article's client uploads: its regularised Gram C_k and its own weights W_k."""
    regularised = rows.T @ rows + gamma * np.eye(rows.shape[1])
    weights = np.asarray(np.linalg.solve(regularised, rows.T @ targets), dtype=np.float64)
    return regularised, weights


def aggregate_pair(
    first: tuple[Floats, Floats], second: tuple[Floats, Floats]
) -> tuple[Floats, Floats]:
    """The absolute aggregation law: two uploads to the upload of all their rows together."""
    (c_u, w_u), (c_v, w_v) = first, second
    unit, both = np.eye(len(c_u)), np.linalg.inv(c_u + c_v)
    u_by_v, v_by_u = np.linalg.solve(c_u, c_v), np.linalg.solve(c_v, c_u)
    law_u = unit - u_by_v + u_by_v @ both @ c_v
    law_v = unit - v_by_u + v_by_u @ both @ c_u
    return c_u + c_v, law_u @ w_u + law_v @ w_v


def remove_intermediary(upload: tuple[Floats, Floats], excess: float, lam: float) -> Floats:
    """The regularisation-intermediary step: Kγ goes out of the sum, and λ comes in."""
    regularised, weights = upload
    gram = regularised - excess * np.eye(len(regularised))
    solution = np.linalg.solve(gram + lam * np.eye(len(gram)), regularised @ weights)
    return np.asarray(solution, dtype=np.float64)


@pytest.mark.parametrize("lam", [0.0, 0.1, 5.0])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 10.0])
@pytest.mark.parametrize("sizes", [(30, 40), (3, 1, 60, 2), (25, 25, 25, 25, 25, 25)])
def test_afl_is_the_model_of_the_articles_pairwise_law(
    sizes: tuple[int, ...], gamma: float, lam: float
) -> None:
    clients = make_clients(sizes)
    result = Federation(AFL(ridge=lam), Plain(), feature_bits=12).run(clients)
    quantiser = Quantiser(12)
    uploads = [
        local_model(quantiser.integers(c.features) / quantiser.scale, np.eye(3)[c.labels], gamma)
        for c in clients
    ]
    for order in (uploads, uploads[::-1]):
        total = order[0]
        for upload in order[1:]:
            total = aggregate_pair(total, upload)
        expected = remove_intermediary(total, len(clients) * gamma, lam)
        np.testing.assert_allclose(result.model.weights, expected, rtol=1e-8, atol=1e-10)


def test_the_intermediary_matters() -> None:
    # Or the test above would not notice if Kγ were left in.
    clients = make_clients((30, 40))
    weights = Federation(AFL(ridge=0.1), Plain()).run(clients).model.weights
    left_in = Federation(AFL(ridge=2.1), Plain()).run(clients).model.weights
    assert np.abs(weights - left_in).max() > 1e-3
