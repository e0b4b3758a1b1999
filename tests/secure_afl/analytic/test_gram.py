"""The certificate of float32 products, and whatever might break it."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.linalg.blas import ssyrk

from protocols.layout import Integers
from secure_afl.analytic.gram import (
    SINGLE_LIMIT,
    GramSum,
    block_rows,
    cross_term,
    is_certified,
    pack_upper,
    singles_are_exact,
    unpack_upper,
)
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.statistics import Statistics, packed_statistics

LARGEST = 2**12


def oracle(rows: Any) -> Integers:
    whole = np.asarray(rows).astype(np.int64)
    product: Integers = whole.T @ whole
    return product


def added(blocks: list[Any], **kind: Any) -> GramSum:
    total = GramSum(blocks[0].shape[1], **kind)
    for block in blocks:
        total.add(np.ascontiguousarray(block, dtype=np.float32))
    return total


def is_exact(total: GramSum, blocks: list[Any]) -> bool:
    """Whether the sum is that of Python's integers, in both of its forms."""
    wanted = oracle(np.vstack(blocks))
    dim = len(wanted)
    vector = np.full(dim * (dim + 1) // 2, -1, dtype=np.int64)
    total.pack_into(vector)
    packed = np.concatenate([wanted.diagonal(), wanted[np.triu_indices(dim, 1)]])
    return np.array_equal(total.symmetric(), wanted) and np.array_equal(vector, packed)


def squares(total: int) -> list[int]:
    """Numbers up to 2^12 whose squares have a sum, the largest first."""
    found = []
    while total:
        found.append(min(LARGEST, int(np.sqrt(total))))
        total -= found[-1] ** 2
    return found


def column_of(total: int) -> Integers:
    """A column (n, 1) of mixed signs whose squares have a sum."""
    numbers = np.array(squares(total), dtype=np.int64)
    numbers[1::2] *= -1
    return numbers[:, None]


@pytest.mark.parametrize(
    ("total", "certain"),
    [
        (SINGLE_LIMIT - 2, True),
        (SINGLE_LIMIT - 1, True),
        (SINGLE_LIMIT, False),
        (SINGLE_LIMIT + 1, False),
        (SINGLE_LIMIT + 2, False),
        (2 * SINGLE_LIMIT + 3, False),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_sums_about_the_limit(total: int, certain: bool, turned: bool) -> None:
    """One less than 2^24 is certain, 2^24 is not: 2^24 + 1 would be computed as that."""
    column = column_of(total)
    other = np.ones_like(column)
    rows = np.hstack([column, other, -column, other * 3])[:: -1 if turned else 1]
    product = ssyrk(1.0, np.ascontiguousarray(rows, dtype=np.float32).T, lower=True)
    assert is_certified(product) is certain
    sum_of = added([rows])
    assert sum_of.single is certain
    assert is_exact(sum_of, [rows])


def test_without_a_certificate_float32_is_wrong() -> None:
    """So that the tests of exactness can fail at all."""
    rows = np.vstack([np.full((1, 2), LARGEST), np.ones((3, 2))])
    product = ssyrk(1.0, np.ascontiguousarray(rows, dtype=np.float32).T, lower=True)
    assert not np.array_equal(product, np.tril(oracle(rows)))
    assert is_exact(added([rows]), [rows])


@pytest.mark.parametrize("entry", [1, -1, 255, 256, 4095, LARGEST])
@pytest.mark.parametrize("rows", [1, 2, 255, 256, 257, 513])
def test_rows_that_are_all_equal(entry: int, rows: int) -> None:
    block = np.full((rows, 3), entry) * np.array([1, -1, 1])
    total = added([block, block])
    assert total.single is (rows * entry**2 < SINGLE_LIMIT)
    assert is_exact(total, [block, block])


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_blocks_of_every_kind_are_exact(data: st.DataObject) -> None:
    """Whatever is certified and whatever is not, in any order of blocks."""
    dim = data.draw(st.integers(1, 9))
    blocks = []
    for _ in range(data.draw(st.integers(1, 4))):
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
        rows = data.draw(st.sampled_from([1, 2, 3, 17, 127, 128, 129, 600]))
        largest = data.draw(st.sampled_from([1, 7, 180, 256, 1023, LARGEST]))
        block = rng.integers(-largest, largest, (rows, dim), endpoint=True)
        if data.draw(st.booleans()):
            block = np.abs(block)
        if data.draw(st.booleans()):
            block[:, rng.integers(dim)] = largest
        blocks.append(block)
    assert is_exact(added(blocks), blocks)
    assert is_exact(added(blocks, single=False), blocks)


def summed_along_a_tree(products: Integers, rng: np.random.Generator, chained: bool) -> np.float32:
    """Add numbers up in float32 along a random tree, or in a chain of random order."""
    parts = list(products.astype(np.float32))
    while len(parts) > 1:
        first = parts.pop(rng.integers(1, len(parts)))
        at = 0 if chained else rng.integers(len(parts))
        parts[at] = np.float32(parts[at] + first)
    return np.float32(parts[0])


@settings(deadline=None, max_examples=120)
@given(
    seed=st.integers(0, 2**32),
    total=st.integers(SINGLE_LIMIT - 3, SINGLE_LIMIT + 3) | st.integers(1, 2 * SINGLE_LIMIT),
    splits=st.integers(0, 60),
    chained=st.booleans(),
)
@example(seed=0, total=SINGLE_LIMIT - 1, splits=0, chained=False)
@example(seed=0, total=SINGLE_LIMIT, splits=40, chained=False)
def test_the_certificate_holds_in_any_order(
    seed: int, total: int, splits: int, chained: bool
) -> None:
    """Trees that no BLAS has: a diagonal below 2^24 is right, and one from 2^24 on stays there."""
    rng = np.random.default_rng(seed)
    column = column_of(total)[:, 0]
    # Many small terms after large ones, of which float32 loses those beyond the limit.
    column = np.concatenate([column, rng.integers(-3, 4, splits)])
    other = rng.permutation(column) * rng.choice([-1, 1], len(column))
    diagonals = [summed_along_a_tree(c * c, rng, chained) for c in (column, other)]
    exact = int((column * column).sum())
    if max(diagonals) < SINGLE_LIMIT:
        assert exact < SINGLE_LIMIT
        assert diagonals == [exact, exact]
        assert summed_along_a_tree(column * other, rng, chained) == int((column * other).sum())
    else:
        assert exact >= SINGLE_LIMIT


@pytest.mark.parametrize("bits", range(1, 13))
def test_blocks_are_short_enough_for_the_cross_term(bits: int) -> None:
    assert block_rows(bits) * 2**bits <= 2**21
    assert block_rows(bits) == {12: 512, 11: 1024, 10: 2048}.get(bits, 4096)


@pytest.mark.parametrize("weight", [1, 7, 8, 15, 16, 4095])
@pytest.mark.parametrize("rows", [1, 511, 512])
def test_the_cross_term_is_exact_for_targets_of_any_size(weight: int, rows: int) -> None:
    """At the limit and beyond, where an odd sum does not fit into float32."""
    block = np.full((rows, 2), LARGEST, dtype=np.float32)
    block[-1] = -1, 1
    targets = np.zeros((rows, 3))
    targets[:, 1], targets[-1, 2] = weight, 1
    found = cross_term(block, targets, LARGEST)
    wanted = block.astype(np.int64).T @ targets.astype(np.int64)
    assert found.dtype == np.int64
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("bits", [8, 12])
def test_packed_statistics_are_the_statistics_packed(bits: int) -> None:
    rows = block_rows(bits) + 130
    rng = np.random.default_rng(bits)
    features, labels = rng.standard_normal((rows, 6)), rng.integers(0, 3, rows)
    features[:, 0] += 3  # one number so large that its sum is beyond the limit
    whole = Statistics.of(features, labels, 3, Quantiser(bits))
    integers = Quantiser(bits).integers(features)
    assert np.array_equal(whole.gram, oracle(integers))
    assert whole.gram[0, 0] > SINGLE_LIMIT
    for rows_each in (None, rng.integers(1, 9, rows)):
        weighed = Statistics.of(features, labels, 3, Quantiser(bits), rows_each)
        assert (rows_each is None) == np.array_equal(weighed.gram, whole.gram)
        for counts in (True, False):
            vector = packed_statistics(
                features, labels, 3, Quantiser(bits), rows_each, counts=counts
            )
            assert np.array_equal(vector, weighed.pack(counts=counts))


@given(st.integers(1, 12), st.integers(0, 2**32))
def test_a_triangle_is_packed_and_unpacked(dim: int, seed: int) -> None:
    half = np.triu(np.random.default_rng(seed).integers(-(2**60), 2**60, (dim, dim)), 1)
    upper = pack_upper(half + half.T)
    assert np.array_equal(upper, half[np.triu_indices(dim, 1)])
    assert np.array_equal(unpack_upper(upper, dim), half + half.T)


def test_float32_is_what_it_says_here() -> None:
    assert singles_are_exact()
    assert GramSum(3).single
