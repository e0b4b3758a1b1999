from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secure_afl.analytic.quantise import MAX_BITS, Floats, Quantiser
from secure_afl.errors import ConfigError, DataError

Mode = Literal["normalise", "clip", "columns"]

BITS = range(1, MAX_BITS + 1)
MODES: tuple[Mode, ...] = ("normalise", "clip", "columns")


def adversarial(dim: int) -> Floats:
    """Rows that rounding, norms or ranges could trip over."""
    rng = np.random.default_rng(dim)
    normal = rng.standard_normal((40, dim))
    heavy = rng.standard_cauchy((20, dim))
    one_hot = np.eye(dim)[rng.integers(0, dim, 4)]
    equal = np.ones((1, dim))
    signs = np.sign(normal[:4])
    lopsided = np.full((1, dim), 1e-3)
    lopsided[0, -1] = 1.0
    sparse = np.where(rng.random((10, dim)) < 0.1, normal[:10], 0.0)
    nudged = np.nextafter(equal, 2.0)
    rows = [normal, heavy, one_hot, -one_hot, equal, signs, lopsided, sparse, nudged]
    stacked = np.concatenate([*rows, np.zeros((2, dim))])
    sizes = (1e-30, 0.5, 1.0, 1.0 + 2**-52, 3.0, 1e12, 1e140)
    return np.concatenate([size * stacked for size in sizes])


def squared_norms(integers: Floats) -> NDArray[np.int64]:
    """Exact, once the entries are known to be small integers."""
    assert np.array_equal(integers, np.rint(integers))
    assert np.abs(integers).max() <= 2**MAX_BITS
    exact = integers.astype(np.int64)
    total: NDArray[np.int64] = (exact * exact).sum(axis=1)
    return total


def dims(quantiser: Quantiser, *wanted: int) -> list[int]:
    """Those widths at which the mode has a whole step."""
    return [dim for dim in wanted if quantiser.mode != "columns" or dim <= 4**quantiser.bits]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bits", BITS)
def test_no_integer_row_is_longer_than_the_scale(bits: int, mode: Mode) -> None:
    quantiser = Quantiser(bits, mode)
    for dim in dims(quantiser, 1, 2, 3, 16, 257, 1024):
        integers = quantiser.integers(adversarial(dim))
        assert squared_norms(integers).max() <= 4**bits


@pytest.mark.parametrize("bits", range(1, 6))
def test_entries_that_all_round_up_do_not_break_the_bound(bits: int) -> None:
    # Each entry is a little over one half: rounded, the row would be almost twice too long.
    quantiser = Quantiser(bits)
    dim = max(1, 4 * (quantiser.scale - 1) ** 2 - 1)
    integers = quantiser.integers(np.ones((1, dim)))
    assert squared_norms(integers)[0] <= 4**bits
    if bits > 1:
        assert not integers.any()


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.floats(-1e140, 1e140), min_size=1, max_size=12),
    st.sampled_from(BITS),
    st.sampled_from(MODES),
    st.sampled_from([0.25, 1.0, 17.3]),
)
def test_any_row_keeps_the_bound(row: list[float], bits: int, mode: Mode, clip: float) -> None:
    quantiser = Quantiser(bits, mode, clip if mode == "clip" else 1.0)
    assume(mode != "columns" or len(row) <= 4**bits)
    integers = quantiser.integers(np.array([row]))
    assert squared_norms(integers)[0] <= 4**bits


@pytest.mark.parametrize("mode", MODES)
def test_rows_whose_squares_underflow_keep_the_bound(mode: Mode) -> None:
    row = np.full((1, 1000), 1.5e-162)
    row[0, 0] = 2.3e-162
    for clip in (1.0, 1e-100) if mode == "clip" else (1.0,):
        integers = Quantiser(8, mode, clip).integers(np.concatenate([row, row * 1e-100, -row]))
        assert squared_norms(integers).max() <= 256**2


@pytest.mark.parametrize("mode", MODES)
def test_rows_of_zeros_stay_zeros(mode: Mode) -> None:
    assert not Quantiser(8, mode).integers(np.zeros((3, 5))).any()
    assert not Quantiser(8, mode).scaled(np.zeros((3, 5))).any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bits", BITS)
def test_an_entry_is_rounded_by_at_most_one_unit(bits: int, mode: Mode) -> None:
    quantiser = Quantiser(bits, mode)
    for dim in dims(quantiser, 1, 3, 64):
        rows = adversarial(dim)
        error = np.abs(quantiser.integers(rows) - quantiser.reach * quantiser.scaled(rows))
        # The slack is float64's own, on values up to 4095.
        assert error.max() <= 1 + 1e-11
        if mode != "columns":  # rows of one large entry are not those that it is for
            rounded_down = error.max(axis=1) > 0.5 + 1e-11
            assert rounded_down.mean() < 0.5, "truncation is for the few that rounding lengthens"


@pytest.mark.parametrize("mode", MODES)
def test_scaled_rows_have_norm_at_most_one(mode: Mode) -> None:
    rows = adversarial(33)
    norms = np.linalg.norm(Quantiser(8, mode).scaled(rows), axis=1)
    assert norms.max() <= 1 + 1e-15 * 33
    if mode == "normalise":
        assert norms[rows.any(axis=1)].min() >= 1 - 1e-15 * 33


def test_clip_leaves_short_rows_as_long_as_they_are() -> None:
    rows = np.array([[0.6, 0.0], [3.0, 4.0], [0.0, -1.0]])
    scaled = Quantiser(8, "clip", 2.0).scaled(rows)
    np.testing.assert_allclose(scaled, [[0.3, 0.0], [0.6, 0.8], [0.0, -0.5]], rtol=1e-15)
    assert np.array_equal(
        Quantiser(8, "clip", 2.0).integers(rows), np.rint(255 * scaled), equal_nan=False
    )


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(BITS), st.integers(1, 5000), st.integers(0, 2**32 - 1))
def test_columns_are_rounded_to_nearest_and_their_ends_not_at_all(
    bits: int, dim: int, seed: int
) -> None:
    assume(dim <= 4**bits)
    quantiser, rng = Quantiser(bits, "columns"), np.random.default_rng(seed)
    end = quantiser.end(dim)
    assert dim * end**2 <= 4**bits < dim * (end + 1) ** 2
    scaled = rng.uniform(-1, 1, (4, dim))
    # Rows all of whose entries are at ends are the longest that there are.
    scaled[:2] = rng.choice([-1.0, 1.0], (2, dim))
    integers = quantiser.integers(scaled / np.sqrt(dim))
    assert np.array_equal(integers[:2], end * scaled[:2])
    assert np.abs(integers - end * scaled).max() <= 0.5 + 1e-9
    assert np.allclose(integers, quantiser.steps(dim) * scaled / np.sqrt(dim), atol=0.5 + 1e-9)


def test_too_many_columns_for_the_bits_are_refused() -> None:
    assert Quantiser(2, "columns").end(16) == 1
    with pytest.raises(ConfigError, match=r"17 columns at 2 bits.*at most 16 columns"):
        Quantiser(2, "columns").integers(np.zeros((1, 17)))


def test_a_norm_to_cut_at_without_effect_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"clip is 2 in row mode 'columns'.*allowed: 1"):
        Quantiser(8, "columns", 2.0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dim", [1, 2, 3, 7, 8, 31, 1024, 9000])
def test_a_row_does_not_depend_on_its_neighbours(dim: int, mode: Mode) -> None:
    rows = np.random.default_rng(dim).standard_normal((23, dim)) * 1.3 / np.sqrt(dim)
    quantiser = Quantiser(12, mode)
    together = quantiser.integers(rows)
    alone = np.concatenate([quantiser.integers(row[None]) for row in rows])
    assert np.array_equal(together, alone)
    assert np.array_equal(together[::-1], quantiser.integers(rows[::-1]))
    for size in (2, 5, 16):
        blocks = [quantiser.integers(rows[at : at + size]) for at in range(0, len(rows), size)]
        assert np.array_equal(together, np.concatenate(blocks))
    scaled = np.concatenate([quantiser.scaled(row[None]) for row in rows])
    assert np.array_equal(quantiser.scaled(rows), scaled)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", ">f8"])
def test_integers_do_not_depend_on_how_the_rows_lie_in_memory(dtype: Any, mode: Mode) -> None:
    rows = np.random.default_rng(3).standard_normal((17, 30)).astype(dtype)
    quantiser = Quantiser(11, mode, 3.0 if mode == "clip" else 1.0)
    expected = quantiser.integers(rows.astype(np.float64))
    wide = np.zeros((34, 60), dtype)
    wide[::2, ::2] = rows
    frozen = rows.copy()
    frozen.flags.writeable = False
    backwards = np.ascontiguousarray(rows[::-1, ::-1])[::-1, ::-1]
    for same in (rows, np.asfortranarray(rows), wide[::2, ::2], frozen, backwards):
        assert np.array_equal(quantiser.integers(same), expected)


@pytest.mark.parametrize("exponent", [-300, -40, -1, 1, 40, 300])
def test_powers_of_two_change_nothing_in_normalised_rows(exponent: int) -> None:
    rows = np.random.default_rng(0).standard_normal((20, 9))
    expected = Quantiser(12).integers(rows)
    assert np.array_equal(Quantiser(12).integers(rows * 2.0**exponent), expected)
    clip = 2.0**exponent
    expected = Quantiser(12, "clip").integers(rows)
    assert np.array_equal(Quantiser(12, "clip", clip).integers(rows * clip), expected)


def test_the_rows_given_are_not_changed() -> None:
    rows = np.random.default_rng(0).standard_normal((5, 4))
    before = rows.copy()
    for made in (Quantiser(8).integers(rows), Quantiser(8).scaled(rows)):
        assert not np.shares_memory(made, rows)
    assert np.array_equal(rows, before)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("row", [0, 3, 6])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e200, -1.7e308])
def test_values_without_a_norm_are_refused_by_row(value: float, row: int, mode: Mode) -> None:
    rows = np.random.default_rng(0).standard_normal((7, 4))
    rows[row, 2] = value
    rows[6, 0] = np.nan
    for refused in (Quantiser(8, mode).integers, Quantiser(8, mode).scaled):
        with pytest.raises(DataError, match=rf"row {row} .*allowed: finite numbers"):
            refused(rows)


def test_long_doubles_beyond_float64_are_refused() -> None:
    if np.finfo(np.longdouble).max <= np.finfo(np.float64).max:
        pytest.skip("this machine's long double is no longer than a double")
    with pytest.raises(DataError, match="row 0"):
        Quantiser(8).integers(np.full((1, 2), np.longdouble("1e400")))
