"""Ranges that are found: exponents of quantiles, and rows in them bit for bit."""

import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.scales import (
    FoundRange,
    completed,
    cut_values,
    exponents,
    found_ranges,
    open_columns,
    rescaled,
)
from secure_afl.data.columns import GREATEST, LEAST, Column, Columns

WIDEST = 2.0**GREATEST
values = st.floats(-1e25, 1e25, allow_subnormal=False).map(lambda v: 0.0 if abs(v) < 1e-200 else v)


def columns(width: int, *, target: bool = False) -> Columns:
    """The first column is declared, all others are open."""
    first = Column.over("a", -3, 10)
    others = [Column.over(f"x{k}", -WIDEST, WIDEST, "mg", open=True) for k in range(width)]
    of = Column.over("y", -WIDEST, WIDEST, open=True) if target else None
    return Columns((first, *others), of)


def client(opened: Columns, own: np.ndarray, target: np.ndarray | None = None) -> ClientData:
    targets = None if target is None or opened.target is None else opened.target.scaled(target)
    return ClientData("c", opened.features(own), np.zeros(len(own), np.int64), None, targets)


@given(
    st.integers(1, 6),
    st.lists(values, min_size=1, max_size=20),
    st.integers(LEAST, GREATEST),
    st.integers(LEAST, GREATEST),
)
def test_rows_are_those_of_declared_ranges_bit_for_bit(
    width: int, cells: list[float], one: int, other: int
) -> None:
    opened = columns(width, target=True)
    own = np.array(cells)[:, None] * np.array([1.0, *(2.0**-k for k in range(width))])
    chosen = [one] * width + [other]
    found = completed(opened, chosen)
    data = client(opened, own, np.array(cells))
    ours = rescaled(opened, found, data)
    theirs = client(found, own, np.array(cells))
    assert np.array_equal(ours.features, theirs.features)
    assert ours.targets is not None
    assert theirs.targets is not None
    assert np.array_equal(ours.targets, theirs.targets)
    cut = cut_values(opened, found, data)
    assert cut["y"] == (np.abs(cells) > 2.0**other).sum() or other == GREATEST
    ranges = {found.name: found.high for found in found_ranges(opened, found)}
    assert ranges == {f"x{k}": 2.0**one for k in range(width)} | {"y": 2.0**other}
    assert not open_columns(found)


@given(st.integers(1, 5), st.integers(LEAST, GREATEST), st.sampled_from((0.6, 1.0, 1.5)))
def test_an_exponent_is_the_least_that_holds_the_quantile(
    width: int, power: int, factor: float
) -> None:
    opened = columns(width)
    own = np.full((3, width + 1), factor * 2.0**power)
    wanted = min(power + (factor > 1), GREATEST)
    assert exponents(opened, client(opened, own)) == (wanted,) * width


def test_a_rare_value_sets_nothing_and_zeros_do_not_count() -> None:
    opened = columns(1)
    own = np.full((1000, 2), 3.0)
    own[:10, 1] = 1e9
    assert exponents(opened, client(opened, own)) == (2,)
    own[10:, 1] = 0.0
    assert exponents(opened, client(opened, own)) == (30,)
    own[:, 1] = 0.0
    assert exponents(opened, client(opened, own)) == (None,)


@pytest.mark.parametrize(("value", "exponent"), [(1e-30, LEAST), (1e30, GREATEST)])
def test_exponents_stay_in_their_interval(value: float, exponent: int) -> None:
    opened = columns(1)
    assert exponents(opened, client(opened, np.full((2, 2), value))) == (exponent,)


def test_rows_without_open_columns_stay_as_they_are() -> None:
    closed = completed(columns(2), (1, 2))
    data = client(closed, np.ones((2, 3)))
    assert rescaled(closed, closed, data) is data
    assert rescaled(None, None, data) is data
    assert found_ranges(closed, closed) == ()


@given(st.integers(LEAST, GREATEST))
def test_a_range_is_written_to_the_last_bit(exponent: int) -> None:
    name, key = FoundRange("crp", -(2.0**exponent), 2.0**exponent).text.split(": ")
    assert name == "crp"
    assert tomllib.loads(key) == {"range": [-(2.0**exponent), 2.0**exponent]}
