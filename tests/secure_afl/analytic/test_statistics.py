import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.errors import WouldOverflow
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.statistics import Statistics, statistics_layout
from secure_afl.errors import DataError
from tests.kit.samples import by_hand


def equal(first: Statistics, second: Statistics) -> bool:
    return (
        np.array_equal(first.gram, second.gram)
        and np.array_equal(first.cross, second.cross)
        and np.array_equal(first.counts, second.counts)
    )


def random_rows(rows: int, dim: int, classes: int, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng([rows, dim, classes, seed])
    return rng.standard_normal((rows, dim)), rng.integers(0, classes, rows)


@pytest.mark.parametrize("bits", [1, 5, 8, 12])
@pytest.mark.parametrize(("rows", "dim", "classes"), [(1, 1, 1), (1, 5, 2), (40, 1, 3), (60, 9, 4)])
def test_statistics_are_those_of_python_integers(
    bits: int, rows: int, dim: int, classes: int
) -> None:
    features, labels = random_rows(rows, dim, classes)
    quantiser = Quantiser(bits)
    statistics = Statistics.of(features, labels, classes, quantiser)
    gram, cross, counts = by_hand(quantiser.integers(features), labels, classes)
    assert np.array_equal(statistics.gram, gram)
    assert np.array_equal(statistics.cross, cross)
    assert np.array_equal(statistics.counts, counts)
    for part in (statistics.gram, statistics.cross, statistics.counts):
        assert part.dtype == np.int64
    assert statistics.rows == rows


def test_large_sums_are_exact() -> None:
    # Sums far above 2^24 and 2^32, where narrower arithmetic would lose the last digit.
    rows, quantiser = 30_001, Quantiser(12)
    features = np.tile([[1.0, 0.0, 1.0]], (rows, 1))
    statistics = Statistics.of(features, np.zeros(rows, np.int64), 2, quantiser)
    (one,) = quantiser.integers(features[:1]).astype(np.int64)
    assert np.array_equal(statistics.gram, rows * np.outer(one, one))
    assert int(statistics.gram[0, 0]) == rows * int(one[0]) ** 2 > 2**37
    assert np.array_equal(statistics.cross, np.stack([rows * one, 0 * one], axis=1))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_statistics_add_up_over_any_partition_and_order(data: st.DataObject) -> None:
    rows = data.draw(st.integers(2, 30))
    features, labels = random_rows(rows, data.draw(st.integers(1, 6)), 3)
    quantiser = Quantiser(data.draw(st.integers(1, 12)))
    whole = Statistics.of(features, labels, 3, quantiser)
    order = np.array(data.draw(st.permutations(range(rows))))
    cuts = sorted(data.draw(st.sets(st.integers(1, rows - 1))))
    parts = [
        Statistics.of(features[part], labels[part], 3, quantiser) for part in np.split(order, cuts)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    assert equal(total, whole)
    assert np.array_equal(sum(part.pack() for part in parts), whole.pack())


def test_the_sizes_of_blocks_do_not_matter() -> None:
    features, labels = random_rows(4000, 7, 3)
    whole = Statistics.of(features, labels, 3, Quantiser(12))
    gram, cross, counts = by_hand(Quantiser(12).integers(features), labels, 3)
    assert equal(whole, Statistics(gram, cross, counts))
    cuts = np.cumsum([1, 127, 128, 129, 1023, 1024, 1025])
    parts = [
        Statistics.of(rows, own, 3, Quantiser(12)).pack()
        for rows, own in zip(np.split(features, cuts), np.split(labels, cuts), strict=True)
    ]
    assert np.array_equal(sum(parts), whole.pack())


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f8"])
def test_rows_in_any_memory_order_give_the_same(dtype: Any) -> None:
    features, labels = random_rows(50, 8, 3)
    features = features.astype(dtype)
    expected = Statistics.of(features.astype(np.float64), labels, 3, Quantiser(12))
    wide = np.zeros((100, 16), dtype)
    wide[::2, ::2] = features
    for same in (np.asfortranarray(features), wide[::2, ::2]):
        assert equal(Statistics.of(same, labels, 3, Quantiser(12)), expected)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 12), st.integers(1, 6))
def test_unpack_is_the_inverse_of_pack(dim: int, classes: int, bits: int, rows: int) -> None:
    features, labels = random_rows(rows, dim, classes)
    quantiser = Quantiser(bits)
    statistics = Statistics.of(features, labels, classes, quantiser)
    layout = statistics_layout(dim, classes, quantiser, rows)
    vector = statistics.pack()
    assert vector.dtype == np.int64
    assert vector.shape == (layout.length,) == (dim * (dim + 1) // 2 + dim * classes + classes,)
    back = Statistics.unpack(vector, layout)
    assert equal(back, statistics)
    assert np.array_equal(back.gram, back.gram.T)


def test_the_blocks_of_the_layout_are_where_pack_puts_them() -> None:
    features, labels = random_rows(20, 4, 3)
    quantiser = Quantiser(8)
    statistics = Statistics.of(features, labels, 3, quantiser)
    blocks = statistics_layout(4, 3, quantiser, 20).split(statistics.pack())
    gram = statistics.gram
    assert np.array_equal(blocks["gram_diagonal"], np.diag(gram))
    upper = [gram[i, j] for i in range(4) for j in range(i + 1, 4)]
    assert np.array_equal(blocks["gram_upper"], upper)
    assert np.array_equal(blocks["cross"], statistics.cross.ravel())
    assert np.array_equal(blocks["counts"], statistics.counts)
    assert list(blocks) == ["gram_diagonal", "gram_upper", "cross", "counts"]


def test_what_unpack_gives_does_not_share_memory_that_it_may_write() -> None:
    features, labels = random_rows(20, 4, 3)
    layout = statistics_layout(4, 3, Quantiser(8), 20)
    vector = Statistics.of(features, labels, 3, Quantiser(8)).pack()
    before = vector.copy()
    back = Statistics.unpack(vector, layout)
    back.gram[0, 0] += 1
    back.counts[0] += 1
    assert np.array_equal(vector, before)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_no_rows_leave_the_bounds_of_the_layout(data: st.DataObject) -> None:
    dim, bits = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12))
    entry = st.sampled_from([0.0, 1.0, -1.0, 0.7, 1e-4]) | st.floats(-10, 10)
    rows = data.draw(st.lists(st.lists(entry, min_size=dim, max_size=dim), min_size=1, max_size=8))
    labels = np.array(
        data.draw(st.lists(st.integers(0, 1), min_size=len(rows), max_size=len(rows)))
    )
    quantiser = Quantiser(bits, data.draw(st.sampled_from(["normalise", "clip"])))
    vector = Statistics.of(np.array(rows), labels, 2, quantiser).pack()
    statistics_layout(dim, 2, quantiser, len(rows)).check(vector)


@pytest.mark.parametrize("bits", [1, 4, 8, 12])
def test_the_worst_integer_rows_reach_the_bounds(bits: int) -> None:
    # Not rows of the quantiser, which stays a unit below, but all that its promise allows.
    s, rows = 2**bits, 5
    layout = statistics_layout(2, 2, Quantiser(bits), rows)
    blocks = {block.name: block for block in layout.blocks}
    for sign in (1, -1):
        axis = np.tile([[sign * s, 0]], (rows, 1))
        gram, cross, counts = by_hand(axis, np.zeros(rows, np.int64), 2)
        worst = Statistics(*(part.astype(np.int64) for part in (gram, cross, counts)))
        layout.check(worst.pack())
        assert gram[0, 0] == blocks["gram_diagonal"].high
        assert cross[0, 0] == (blocks["cross"].high if sign > 0 else blocks["cross"].low)
        assert counts[0] == blocks["counts"].high
    upper = blocks["gram_upper"]
    best = max(a * int(np.sqrt(s * s - a * a)) for a in range(s + 1))
    assert rows * best <= upper.high == -upper.low
    assert upper.high == rows * s * s // 2, "half of the diagonal's bound, by 2ab ≤ a² + b²"


@pytest.mark.parametrize(("which", "value"), [(0, 5 * 64**2 + 1), (0, -1), (-1, 6), (-1, -1)])
def test_one_more_than_the_bound_is_refused(which: int, value: int) -> None:
    layout = statistics_layout(3, 2, Quantiser(6), 5)
    vector = np.zeros(layout.length, np.int64)
    layout.check(vector)
    vector[which] = value
    with pytest.raises(WouldOverflow, match="gram_diagonal" if which == 0 else "counts"):
        layout.check(vector)


@pytest.mark.parametrize(
    ("bits", "rows", "ring"),
    [
        (8, 65_535, 32),
        (8, 65_536, 40),
        (8, 2**24 - 1, 40),
        (8, 2**24, 48),
        (12, 255, 32),
        (12, 256, 40),
        (12, 2**38, 64),
    ],
)
def test_the_ring_is_as_wide_as_the_rows_need(bits: int, rows: int, ring: int) -> None:
    assert statistics_layout(10, 3, Quantiser(bits), rows).ring_bits == ring


def test_more_rows_than_any_ring_holds_are_refused() -> None:
    with pytest.raises(WouldOverflow, match="gram_diagonal"):
        statistics_layout(10, 3, Quantiser(12), 2**39)


def test_floats_are_in_units_of_the_features() -> None:
    features, labels = random_rows(30, 5, 2)
    quantiser = Quantiser(12)
    gram, cross = Statistics.of(features, labels, 2, quantiser).floats(quantiser)
    rows = quantiser.integers(features) / 4096
    np.testing.assert_allclose(gram, rows.T @ rows, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(cross, rows.T @ np.eye(2)[labels], rtol=1e-13, atol=1e-13)


def peak_bytes(features: Any, labels: Any, classes: int) -> int:
    tracemalloc.start()
    try:
        Statistics.of(features, labels, classes, Quantiser(8))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    peaks = {}
    for rows in (8_000, 64_000):
        features = np.memmap(tmp_path / str(rows), np.float32, "w+", shape=(rows, 16))
        features[:] = np.random.default_rng(0).standard_normal((rows, 16), np.float32)
        labels = np.zeros(rows, np.int64)
        peak_bytes(features, labels, 3)
        peaks[rows] = peak_bytes(features, labels, 3)
    assert peaks[64_000] < 1.05 * peaks[8_000]
    assert peaks[64_000] < 64_000 * 16 * 4 / 4, "a quarter of the rows themselves"


def test_memory_does_not_grow_with_the_square_of_the_classes() -> None:
    features, labels = random_rows(4, 2, 3)
    assert peak_bytes(features, labels, 4_000) < 8_000_000


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, np.int64), r"float64\[0, 3\]; wanted float\[n, d\]"),
        (np.zeros((3, 0)), np.zeros(3, np.int64), r"float64\[3, 0\]"),
        (np.zeros(3), np.zeros(3, np.int64), r"float64\[3\]"),
        (np.zeros((2, 2, 2)), np.zeros(2, np.int64), r"float64\[2, 2, 2\]"),
        (np.zeros((2, 3), np.int64), np.zeros(2, np.int64), r"int64\[2, 3\]"),
        (np.zeros((2, 3), np.uint8), np.zeros(2, np.int64), r"uint8\[2, 3\]"),
        (np.zeros((2, 3), complex), np.zeros(2, np.int64), r"complex128\[2, 3\]"),
        (np.zeros((2, 3)), np.zeros(3, np.int64), r"int64\[3\]; wanted int64\[2\]"),
        (np.zeros((2, 3)), np.zeros((2, 1), np.int64), r"int64\[2, 1\]; wanted int64\[2\]"),
        (np.zeros((2, 3)), np.zeros(2), r"float64\[2\]; wanted int64"),
        (np.zeros((2, 3)), np.array([0, 4]), r"label 4 is out of range; allowed: 0\.\.3"),
        (np.zeros((2, 3)), np.array([-1, 0]), r"label -1 is out of range; allowed: 0\.\.3"),
    ],
)
def test_rows_that_cannot_be_are_refused(features: Any, labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Statistics.of(features, labels, 4, Quantiser(8))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_by_row(value: float) -> None:
    # The row is the caller's, not its place in some block.
    features, labels = random_rows(3000, 4, 3)
    features[2500, 1] = value
    with pytest.raises(DataError, match="row 2500 "):
        Statistics.of(features, labels, 3, Quantiser(8))


def test_its_repr_shows_no_entry() -> None:
    statistics = Statistics.of(np.array([[0.6, 0.8]]), np.zeros(1, np.int64), 1, Quantiser(12))
    assert str(statistics.gram[0, 0]) not in repr(statistics)
    assert str(statistics.cross[1, 0]) not in repr(statistics)
