"""Blocks, bounds, rings: exact over the whole of every range, and refused outside it."""

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from protocols import Block, Layout
from protocols.codec import decode, encode
from protocols.errors import InvalidLayout, InvalidVector, SumOutOfBounds, WouldOverflow
from protocols.layout import RING_BITS, RingVector
from tests.kit.worlds import addends, layouts

any_layout = st.sampled_from(RING_BITS).flatmap(lambda bits: layouts(bits, 12))
seeds = st.integers(0, 2**32 - 1)

# The widest range of every ring, and the narrowest that does not fit the next smaller one.
EDGES = [
    (0, 2**32 - 1, 32),
    (-(2**31), 2**31 - 1, 32),
    (0, 0, 32),
    (2**63 - 1, 2**63 - 1, 32),
    (0, 2**32, 40),
    (-(2**39), 2**39 - 1, 40),
    (-(2**40) + 1, 0, 40),
    (0, 2**40, 48),
    (-(2**63), -(2**63) + 2**48 - 1, 48),
    (0, 2**48, 64),
    (-(2**63), 2**63 - 1, 64),
]


@pytest.mark.parametrize(("low", "high", "bits"), EDGES)
def test_the_ring_is_the_narrowest_that_holds_the_range(low: int, high: int, bits: int) -> None:
    layout = Layout((Block("narrow", 1, 0, 1), Block("wide", 2, low, high)))
    assert layout.ring_bits == bits
    assert layout.packed_bytes == 3 * bits // 8


@pytest.mark.parametrize(("low", "high", "bits"), EDGES)
def test_decoding_is_exact_from_low_to_high(low: int, high: int, bits: int) -> None:
    rng = random.Random(0)
    inside = sorted({low, high, *(rng.randint(low, high) for _ in range(50))})
    layout = Layout((Block("all", len(inside), low, high),))
    vector = np.array(inside, dtype=np.int64)
    assert layout.ring_bits == bits
    assert np.array_equal(layout.decode(layout.embed(vector)), vector)
    assert np.array_equal(layout.decode(layout.unpack(layout.pack(layout.embed(vector)))), vector)


@pytest.mark.parametrize(("low", "high", "bits"), EDGES)
def test_one_step_outside_is_out_of_bounds(low: int, high: int, bits: int) -> None:
    if high - low == 2**bits - 1:
        return  # every element of the ring is a sum within bounds
    layout = Layout((Block("first", 1, 0, 0), Block("last", 2, low, high)))
    for outside in (high + 1, low - 1, high + 2 ** (bits - 1)):
        total = np.array([0, outside % 2**64, low % 2**64], dtype=np.uint64)
        ring = total.astype(np.uint32) if bits == 32 else total
        if (outside - low) % 2**bits <= high - low:
            continue
        with pytest.raises(SumOutOfBounds, match=r"^who at step 'sum': block 'last'") as caught:
            layout.decode(ring, party="who", step="sum")
        assert str(outside) not in caught.value.what.replace(f"{low}..{high}", "")


def test_every_element_of_a_full_ring_decodes() -> None:
    layout = Layout((Block("all", 3, -5, 2**32 - 6),))
    total = np.array([2**32 - 5, 2**32 - 6, 0], dtype=np.uint32)
    assert np.array_equal(layout.decode(total), [-5, 2**32 - 6, 0])


@given(any_layout, seeds, st.integers(1, 6), st.booleans())
def test_sums_in_the_ring_are_sums_in_the_clear(
    layout: Layout, seed: int, clients: int, edges: bool
) -> None:
    vectors = addends(random.Random(seed), layout, clients, edges=edges)
    total: RingVector = layout.unpack(bytes(layout.packed_bytes))
    for vector in vectors:
        layout.check(vector)
        total = layout.unpack(layout.pack(total + layout.embed(vector)))
    truth = [sum(column) for column in zip(*(v.tolist() for v in vectors), strict=True)]
    decoded = layout.decode(total)
    assert decoded.dtype == np.int64
    assert np.array_equal(decoded, truth)
    low = np.concatenate([[b.low] * b.length for b in layout.blocks])
    assert edges <= all(
        t in (b.low, b.high)
        for b, part in zip(layout.blocks, layout.split(decoded).values(), strict=True)
        for t in part.tolist()
    )
    assert (decoded >= low).all()


@given(any_layout, st.data())
def test_pack_and_unpack_are_inverse(layout: Layout, data: st.DataObject) -> None:
    packed = data.draw(st.binary(min_size=layout.packed_bytes, max_size=layout.packed_bytes))
    ring = layout.unpack(packed)
    assert ring.shape == (layout.length,)
    assert layout.pack(ring) == packed
    width = layout.ring_bits // 8
    by_hand = [
        int.from_bytes(packed[at : at + width], "little") for at in range(0, len(packed), width)
    ]
    assert ring.tolist() == by_hand
    assert np.array_equal(layout.unpack(layout.pack(ring)), ring)


@given(any_layout, seeds)
def test_upper_bits_carry_no_meaning(layout: Layout, seed: int) -> None:
    assume(layout.ring_bits in (40, 48))
    (vector,) = addends(random.Random(seed), layout, 1, edges=False)
    ring = layout.embed(vector)
    dirty = ring + np.uint64(0xABCD << layout.ring_bits)
    assert layout.pack(dirty) == layout.pack(ring)
    assert np.array_equal(layout.decode(dirty), vector)


@pytest.mark.parametrize("bits", RING_BITS)
def test_nothing_changes_its_argument(bits: int) -> None:
    layout = Layout((Block("all", 4, -(2 ** (bits - 2)), 2 ** (bits - 2)),))
    vector = np.array([1, -2, 3, -4])
    vector.flags.writeable = False
    ring = layout.embed(vector)
    packed = layout.pack(ring)
    before = ring.copy()
    assert np.array_equal(layout.decode(ring), vector)
    assert np.array_equal(layout.decode(layout.unpack(packed)), vector)
    assert np.array_equal(ring, before)
    assert vector.tolist() == [1, -2, 3, -4]


@pytest.mark.parametrize("bits", RING_BITS)
def test_a_vector_packs_alike_however_it_lies(bits: int) -> None:
    layout = Layout((Block("all", 5, -(2 ** (bits - 2)), 2 ** (bits - 2)),))
    vector = np.array([0, -1, 2 ** (bits - 2), -(2 ** (bits - 2)), 7])
    wanted = layout.pack(layout.embed(vector))
    for laid in (np.repeat(vector, 3)[::3], vector[::-1].copy()[::-1], vector.astype(">i8")):
        assert layout.pack(layout.embed(laid.astype(np.int64, copy=False))) == wanted
    assert b"".join((v % 2**bits).to_bytes(bits // 8, "little") for v in vector.tolist()) == wanted


@pytest.mark.parametrize("bits", RING_BITS)
def test_packed_vectors_of_another_length_are_refused(bits: int) -> None:
    layout = Layout((Block("all", 3, 0, 2**bits - 1 if bits < 64 else 2**63 - 1),))
    width = layout.packed_bytes
    for length in (0, 1, width - 1, width + 1, 2 * width):
        with pytest.raises(InvalidVector, match=f"{length} bytes, wanted {width}"):
            layout.unpack(bytes(length))


def test_split_names_the_blocks_in_order() -> None:
    layout = Layout((Block("b", 2, 0, 9), Block("a", 1, 0, 9), Block("c", 3, 0, 9)))
    parts = layout.split(np.arange(6))
    assert list(parts) == ["b", "a", "c"]
    assert [part.tolist() for part in parts.values()] == [[0, 1], [2], [3, 4, 5]]


# What a client may give


@pytest.mark.parametrize(
    ("low", "high", "least", "most"),
    [(-5, 9, -5, 9), (3, 9, 0, 9), (-9, -3, -9, 0), (0, 0, 0, 0)],
)
def test_addends_lie_within_the_bounds_and_zero(low: int, high: int, least: int, most: int) -> None:
    layout = Layout((Block("free", 1, -(2**31), 2**31 - 1), Block("tight", 2, low, high)))
    layout.check(np.array([2**31 - 1, least, most]))
    layout.check(np.zeros(3, dtype=np.int64))
    for vector in ([0, least - 1, 0], [0, 0, most + 1], [0, -(2**63), 0], [0, 0, 2**63 - 1]):
        with pytest.raises(WouldOverflow, match=rf"^me: .*'tight' is outside {least}\.\.{most}"):
            layout.check(np.array(vector), party="me")


def test_vectors_of_another_kind_are_refused() -> None:
    layout = Layout((Block("all", 3, -9, 9),))
    for vector in (
        np.zeros(2, dtype=np.int64),
        np.zeros((3, 1), dtype=np.int64),
        np.zeros((), dtype=np.int64),
        np.zeros(3),
        np.zeros(3, dtype=np.uint64),
        np.zeros(3, dtype=np.int32),
        np.zeros(3, dtype=bool),
        np.zeros(3, dtype=">i8"),
    ):
        with pytest.raises(InvalidVector, match=r"^me: vector is .*wanted int64\[3\]"):
            layout.check(vector, party="me")  # type: ignore[arg-type]


# What a layout may be


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: Layout(()), "needs blocks"),
        (lambda: Layout((Block("a", 1, 0, 1), Block("a", 2, 0, 1))), "name of its own"),
        (lambda: Layout((Block("a", 0, 0, 1),)), "length 0"),
        (lambda: Layout((Block("a", -1, 0, 1),)), "length -1"),
        (lambda: Layout((Block("a", 1, 2, 1),)), "low 2 > high 1"),
        (lambda: Layout((Block("a", 1.0, 0, 1),)), "type int"),  # type: ignore[arg-type]
        (lambda: Layout((Block("a", 1, 0.0, 1),)), "type int"),  # type: ignore[arg-type]
        (lambda: Layout((Block("a", 1, 0, 1.5),)), "type int"),  # type: ignore[arg-type]
        (lambda: Layout((Block("a", True, 0, 1),)), "type int"),
        (lambda: Layout((Block("a", 1, 0, np.int64(1)),)), "type int"),  # type: ignore[arg-type]
        (lambda: Layout((Block("a", 1, 0, float("nan")),)), "type int"),  # type: ignore[arg-type]
        (lambda: Layout((Block("a", 1, 0, 1, float("nan")),)), "scale nan"),
        (lambda: Layout((Block("a", 1, 0, 1, float("inf")),)), "scale inf"),
        (lambda: Layout((Block("a", 1, 0, 1, 0.0),)), "scale 0"),
        (lambda: Layout((Block("a", 1, 0, 1, -1.0),)), "scale -1"),
        (lambda: Layout((Block("a", 1, 0, 1, "1"),)), "scale 1"),  # type: ignore[arg-type]
    ],
)
def test_contradictions_are_refused(build: Callable[[], Layout], reason: str) -> None:
    with pytest.raises(InvalidLayout, match=reason):
        build()


@pytest.mark.parametrize(
    ("low", "high"), [(0, 2**63), (-(2**63) - 1, 0), (2**63, 2**64), (-(2**200), 2**200)]
)
def test_ranges_beyond_64_bits_are_refused_with_the_bound(low: int, high: int) -> None:
    with pytest.raises(WouldOverflow, match=rf"'wide' needs {low}\.\.{high}"):
        Layout((Block("fine", 1, 0, 1), Block("wide", 1, low, high)))


@given(any_layout)
def test_layouts_survive_their_encoding(layout: Layout) -> None:
    again = decode(encode(layout), Layout)
    assert again == layout
    assert (again.ring_bits, again.length) == (layout.ring_bits, layout.length)
    _ = layout.length  # what is cached is not encoded
    assert encode(again) == encode(layout)


def test_equal_scales_have_equal_bytes() -> None:
    assert encode(Block("a", 1, 0, 1, 2)) == encode(Block("a", 1, 0, 1, 2.0))
