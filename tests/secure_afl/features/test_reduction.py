import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.codec import decode, encode
from protocols.errors import Malformed
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.errors import ConfigError, DataError
from secure_afl.features.reduction import (
    Reduction,
    choose_dimension,
    public_reduction,
    random_reduction,
)
from secure_afl.methods.model import LinearModel

seeds = st.integers(0, 2**32 - 1)


def rows_of(count: int, dim: int, seed: int = 0) -> Floats:
    """Not centred, of many lengths, with variances that fall."""
    rng = np.random.default_rng(seed)
    rows = 0.5 + rng.standard_normal((count, dim)) / (1 + np.arange(dim))
    return rows * rng.uniform(0.1, 10, (count, 1))


def unit(rows: Floats) -> Floats:
    units: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return units


REDUCTIONS = {
    "random": random_reduction(12, 5, 0),
    "centred": public_reduction(rows_of(40, 12), 5),
    "whitened": public_reduction(rows_of(40, 12), 5, whiten=0.25),
    "axes": public_reduction(rows_of(40, 12), 5, centre=False),
    "all": public_reduction(rows_of(40, 12), 12),
}


@pytest.mark.parametrize("reduction", REDUCTIONS.values(), ids=REDUCTIONS.keys())
def test_rows_are_normalised_centred_and_mapped(reduction: Reduction) -> None:
    rows = rows_of(20, 12, seed=1)
    expected = unit(rows) @ reduction.basis - reduction.mean @ reduction.basis
    np.testing.assert_allclose(reduction.apply(rows), expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(reduction.apply(7 * rows), expected, rtol=1e-12, atol=1e-13)
    assert reduction.apply(rows.astype(np.float32)).dtype == np.float64
    before = rows.copy()
    reduction.apply(rows)
    assert np.array_equal(rows, before)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 10), st.integers(1, 6), st.booleans(), seeds)
def test_a_folded_model_predicts_like_the_reduced_one(
    k: int, classes: int, centre: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    reductions = (
        random_reduction(10, k, seed),
        public_reduction(rows_of(30, 10, seed), k, centre, 0.25),
    )
    for reduction in reductions:
        weights = rng.standard_normal((k, classes))
        names = tuple(str(i) for i in range(classes))
        rows = rows_of(25, 10, seed + 1)
        reduced = reduction.apply(rows)
        folded = LinearModel(reduction.fold(weights)[0], names, reduction.fold(weights)[1])
        # As the federation scores: rows that the quantiser brought to norm 1.
        expected = Quantiser(12).scaled(reduced) @ weights
        scores = folded.scores(rows)
        np.testing.assert_allclose(scores, reduced @ weights, rtol=1e-9, atol=1e-10)
        top = np.sort(expected, axis=1)
        clear = np.ones(25, bool) if classes == 1 else top[:, -1] - top[:, -2] > 1e-9
        assert np.array_equal(folded.predict(rows)[clear], expected.argmax(axis=1)[clear])
        assert clear.mean() > 0.9


def test_a_random_reduction_depends_on_its_arguments_alone() -> None:
    first = random_reduction(64, 16, 3)
    again = random_reduction(64, 16, 3)
    assert np.array_equal(first.basis, again.basis)
    assert first.digest == again.digest
    assert not first.mean.any()
    digests = {random_reduction(*given).digest for given in ((64, 16, 4), (64, 17, 3), (65, 16, 3))}
    assert len(digests | {first.digest}) == 4


@pytest.mark.parametrize(("dim", "k"), [(768, 256), (1024, 200), (1000, 400)])
def test_a_random_reduction_keeps_lengths(dim: int, k: int) -> None:
    reduction = random_reduction(dim, k, 1)
    assert set(np.unique(reduction.basis)) == {-1.0, 1.0}
    rows = np.random.default_rng(0).standard_normal((50, dim))
    # Johnson and Lindenstrauss: a squared length errs by √(2/k), and these by five times that.
    ratio = (reduction.apply(rows) ** 2).sum(axis=1) / k
    np.testing.assert_allclose(ratio, 1.0, atol=5 * np.sqrt(2 / k))
    singular = np.linalg.svd(reduction.basis / np.sqrt(dim), compute_uv=False)
    spread = np.sqrt(k / dim)
    assert 0.95 * (1 - spread) < singular[-1] < singular[0] < 1.05 * (1 + spread)


def test_a_public_reduction_depends_on_the_public_rows_alone() -> None:
    public = rows_of(40, 12)
    reduction = public_reduction(public, 5)
    assert public_reduction(public.copy(), 5).digest == reduction.digest
    reduction.apply(rows_of(9, 12, seed=5))
    assert public_reduction(public, 5).digest == reduction.digest
    other = public.copy()
    other[7] = other[7, ::-1]
    assert public_reduction(other, 5).digest != reduction.digest
    assert np.array_equal(public, rows_of(40, 12)), "the rows given are not changed"


def test_public_rows_are_scaled_alike_before_they_are_looked_at() -> None:
    public = rows_of(40, 12)
    longer = public * np.random.default_rng(0).uniform(0.1, 9, (40, 1))
    first, second = public_reduction(public, 5), public_reduction(longer, 5)
    np.testing.assert_allclose(first.basis, second.basis, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("centre", [True, False])
def test_principal_axes_are_those_of_the_singular_values(centre: bool) -> None:
    public = unit(rows_of(60, 9))
    mean = public.mean(axis=0) if centre else np.zeros(9)
    _, singular, axes = np.linalg.svd(public - mean, full_matrices=False)
    reduction = public_reduction(public, 4, centre)
    np.testing.assert_allclose(reduction.mean, mean, rtol=1e-12, atol=1e-15)
    cosines = np.abs((reduction.basis * axes[:4].T).sum(axis=0))
    np.testing.assert_allclose(cosines, 1.0, rtol=1e-9)
    assert (reduction.basis.max(axis=0) > -reduction.basis.min(axis=0)).all(), "one sign of two"
    for power in (0.25, 0.5):
        whitened = public_reduction(public, 4, centre, whiten=power).basis
        variances = singular[:4] ** 2 / 60
        expected = (variances + 0.01 * variances.mean()) ** -power
        np.testing.assert_allclose(np.linalg.norm(whitened, axis=0), expected, rtol=1e-9)
        np.testing.assert_allclose(whitened, reduction.basis * expected, rtol=1e-9, atol=1e-12)


def test_axes_that_no_public_row_has_stay_finite() -> None:
    # Five axes of variance, and seven asked for.
    flat = rows_of(40, 12)
    flat[:, 5:] = 0
    reduction = public_reduction(flat, 7, whiten=0.5)
    assert np.isfinite(reduction.basis).all()
    largest = np.linalg.norm(reduction.basis, axis=0)
    assert largest.max() / largest.min() < 1e2


def test_an_encoded_reduction_comes_back_with_its_digest() -> None:
    for reduction in REDUCTIONS.values():
        back = decode(encode(reduction), Reduction)
        assert np.array_equal(back.basis, reduction.basis)
        assert np.array_equal(back.mean, reduction.mean)
        assert back.digest == reduction.digest
        assert len(back.digest) == 32
    assert len({reduction.digest for reduction in REDUCTIONS.values()}) == len(REDUCTIONS)
    centred = REDUCTIONS["centred"]
    assert Reduction(2 * centred.mean, centred.basis).digest != centred.digest
    assert Reduction(centred.mean, 2 * centred.basis).digest != centred.digest


def test_a_reduction_that_cannot_be_is_refused() -> None:
    for mean, basis in (
        (np.zeros(3), np.zeros((4, 2))),
        (np.zeros(2), np.zeros((2, 3))),
        (np.zeros(2), np.zeros((2, 0))),
        (np.zeros(2), np.zeros(2)),
        (np.zeros((1, 2)), np.zeros((2, 2))),
    ):
        with pytest.raises(ConfigError, match=r"allowed: \[d\] and \[d, k\]"):
            Reduction(mean, basis)
    with pytest.raises(ConfigError, match="NaN or infinity"):
        Reduction(np.array([np.nan, 0]), np.eye(2))
    with pytest.raises(ConfigError, match="NaN or infinity"):
        Reduction(np.zeros(2), np.full((2, 1), np.inf))
    good = encode(Reduction(np.zeros(2), np.eye(2)))
    infinity = np.array(np.inf).tobytes()
    with pytest.raises(Malformed):
        decode(good.replace(np.array(1.0).tobytes(), infinity), Reduction)


def test_rows_that_do_not_fit_are_refused() -> None:
    reduction = REDUCTIONS["centred"]
    for shape in ((3, 11), (3, 13), (12,), (1, 12, 1)):
        with pytest.raises(DataError, match=r"wants \[n, 12\].*backbone"):
            reduction.apply(np.zeros(shape))
    rows = rows_of(4, 12)
    rows[2, 3] = np.nan
    with pytest.raises(DataError, match="row 2 "):
        reduction.apply(rows)
    with pytest.raises(DataError, match="row 2 "):
        public_reduction(rows, 2)


@pytest.mark.parametrize(("dim", "k"), [(4, 0), (4, 5), (4, -1), (0, 1)])
def test_dimensions_that_cannot_be_are_refused(dim: int, k: int) -> None:
    with pytest.raises(ConfigError, match=rf"dimension is {k}, allowed: 1..{dim}"):
        random_reduction(dim, k, 0)
    with pytest.raises(ConfigError, match="allowed"):
        public_reduction(np.ones((9, dim)), k)


def test_other_arguments_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="seed -1"):
        random_reduction(4, 2, -1)
    with pytest.raises(ConfigError, match=r"5 public rows for 5 dimensions.*more public data"):
        public_reduction(rows_of(5, 9), 5)
    for whiten in (-0.1, 0.6, float("nan")):
        with pytest.raises(ConfigError, match=r"whiten is .*allowed: 0..0.5"):
            public_reduction(rows_of(9, 4), 2, whiten=whiten)
    for alike in (np.zeros((9, 4)), np.full((9, 4), 0.3), np.outer(np.arange(1.0, 10), [1, 3, 7])):
        with pytest.raises(ConfigError, match="all alike"):
            public_reduction(alike, 2)
    with pytest.raises(ConfigError, match=r"allowed: \[p, d\]"):
        public_reduction(np.ones(9), 2)


def test_the_chosen_dimension_follows_its_rule() -> None:
    # (4 · 4708 / 4.78)^(2/3) = 249.4
    assert choose_dimension(4708, 4.78, 1024) == 249
    assert choose_dimension(4708, 4.78, 373) == 373
    assert choose_dimension(4708, 4.78, 375) == 249
    assert choose_dimension(1, 1e9, 1024) == 8
    assert choose_dimension(1, 1e9, 13) == 8
    assert choose_dimension(1, 1e9, 12) == 12
    assert choose_dimension(1, 1e9, 5) == 5
    assert choose_dimension(10**12, 1.0, 1024) == 1024
    for silent in (0.0, 5e-324):
        assert choose_dimension(1, silent, 1024) == 1024


@settings(deadline=None)
@given(st.integers(1, 10**9), st.floats(0, 1e6), st.integers(1, 4096))
def test_more_rows_or_less_noise_never_mean_fewer_dimensions(
    rows: int, noise: float, dim: int
) -> None:
    k = choose_dimension(rows, noise, dim)
    assert min(8, dim) <= k <= dim
    assert k == dim or 1.5 * k <= dim or k == 8
    assert choose_dimension(2 * rows, noise, dim) >= k
    assert choose_dimension(rows, noise / 2, dim) >= k


def test_numbers_to_choose_from_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="total_rows is 0"):
        choose_dimension(0, 1.0, 9)
    for noise in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="gram_noise"):
            choose_dimension(9, noise, 9)
    with pytest.raises(ConfigError, match="dim is 0"):
        choose_dimension(9, 1.0, 0)
