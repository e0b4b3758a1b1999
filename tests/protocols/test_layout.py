"""Blocks, bounds, rings: exact over the whole of every range, and refused outside it."""

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from protocols import Block, Layout
from protocols.codec import decode, encode
from protocols.errors import InvalidLayout, InvalidVector, Malformed, WouldOverflow
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
    for ring in (layout.embed(vector), layout.unpack(layout.pack(layout.embed(vector)))):
        decoded = layout.decode(ring)
        assert np.array_equal(decoded.total, vector)
        assert decoded.outside == ()


@pytest.mark.parametrize(("low", "high", "bits"), EDGES)
def test_one_step_outside_is_counted_and_stays_where_it_is(low: int, high: int, bits: int) -> None:
    gap = 2**bits - 1 - (high - low)
    for beyond in (high + 1, low - 1):
        # With no room outside, or none in a signed word, the step ends on the other side.
        if not gap or not -(2**63) <= beyond < 2**63 or (beyond < low and gap == 1):
            continue
        layout = Layout((Block("first", 1, 0, 0), Block("last", 2, low, high)))
        total = np.array([0, beyond % 2**64, low % 2**64], dtype=np.uint64)
        decoded = layout.decode(total.astype(np.uint32) if bits == 32 else total)
        assert decoded.total.tolist() == [0, beyond, low]
        assert decoded.outside == (("last", 1),)


def distance(value: int, block: Block) -> int:
    """How far an integer is from its block's range."""
    return max(block.low - value, value - block.high, 0)


@given(any_layout, st.data())
def test_what_is_outside_decodes_to_the_nearest_integer(
    layout: Layout, data: st.DataObject
) -> None:
    """Of all congruent ones that an entry can be; of two as near, to the one above the range."""
    size = 2**layout.ring_bits
    words = []
    for block in layout.blocks:
        middle = block.high + (size - (block.high - block.low)) // 2
        near = (block.low, block.high, middle, 0, -(2**63))
        around = st.builds(lambda at, by: at + by, st.sampled_from(near), st.integers(-2, 2))
        entries = st.integers(0, size - 1) | around
        words += data.draw(st.lists(entries, min_size=block.length, max_size=block.length))
    total = np.array([word % size for word in words], dtype=np.uint64)
    decoded = layout.decode(total.astype(np.uint32) if layout.ring_bits == 32 else total)
    counts = dict.fromkeys((block.name for block in layout.blocks), 0)
    values = iter(decoded.total.tolist())
    owners = [owner for owner in layout.blocks for _ in range(owner.length)]
    for block, word, value in zip(owners, words, values, strict=True):
        assert (value - word) % size == 0
        for other in (value - size, value + size):
            if -(2**63) <= other < 2**63:
                assert distance(value, block) <= distance(other, block)
                if distance(value, block) == distance(other, block):
                    assert value > block.high
        counts[block.name] += distance(value, block) > 0
    assert decoded.outside == tuple((name, count) for name, count in counts.items() if count)


@pytest.mark.parametrize("bits", [32, 40, 48])
@pytest.mark.parametrize("odd", [0, 1])
def test_the_gap_is_split_in_half(bits: int, odd: int) -> None:
    """Its lower half lies above the range; of an odd gap the middle does."""
    low, high = -7, 2**bits - 1001 - odd
    layout = Layout((Block("all", 4, low, high),))
    gap = 2**bits - 1 - (high - low)
    above = gap - gap // 2
    wanted = [high + 1, high + above, low - gap // 2, low - 1]
    # One more than the last above is the first below.
    assert high + above + 1 - 2**bits == low - gap // 2
    decoded = layout.decode(layout.embed(np.array(wanted)))
    assert decoded.total.tolist() == wanted
    assert decoded.outside == (("all", 4),)


def test_at_the_ends_of_64_bits_an_entry_is_what_a_signed_word_can_hold() -> None:
    """Nearer integers than that have no place in the sum."""
    low, high = -(2**63), 2**63 - 1
    for block in (Block("low", 1, low, low + 9), Block("high", 1, high - 9, high)):
        layout = Layout((block, Block("ring", 1, 0, 2**47)))
        assert layout.ring_bits == 48
        for step in (1, 2**20, 2**48 - 10 - 1):
            outside = block.high + step if block.low == low else block.low - step
            decoded = layout.decode(layout.embed(np.array([outside, 0])))
            assert decoded.total.tolist() == [outside, 0]
            assert decoded.outside == ((block.name, 1),)
    layout = Layout((Block("all", 3, -5, 2**62),))
    assert layout.ring_bits == 64
    decoded = layout.decode(np.array([2**63, 2**63 - 1, 2**64 - 6], dtype=np.uint64))
    assert decoded.total.tolist() == [low, high, -6]
    assert decoded.outside == (("all", 3),)


@given(any_layout, st.data())
def test_no_total_is_refused(layout: Layout, data: st.DataObject) -> None:
    """Whoever sent what breaks the bounds must not see it in what happens."""
    packed = data.draw(st.binary(min_size=layout.packed_bytes, max_size=layout.packed_bytes))
    decoded = layout.decode(layout.unpack(packed))
    assert layout.pack(layout.embed(decoded.total)) == packed
    assert [name for name, _ in decoded.outside] == [
        block.name
        for block, part in zip(layout.blocks, layout.split(decoded.total).values(), strict=True)
        if part.min() < block.low or part.max() > block.high
    ]


def test_entries_that_are_known_to_be_wrong_are_counted_once() -> None:
    layout = Layout((Block("a", 3, 0, 9), Block("b", 1, 0, 9), Block("c", 2, 0, 9)))
    marks = np.array([True, False, True, False, False, True])
    assert layout.outside(np.array([10, 10, 0, 0, 0, 9]), marks) == (("a", 3), ("c", 1))
    assert layout.outside(np.arange(6), np.zeros(6, dtype=bool)) == ()


def test_every_element_of_a_full_ring_decodes() -> None:
    layout = Layout((Block("all", 3, -5, 2**32 - 6),))
    decoded = layout.decode(np.array([2**32 - 5, 2**32 - 6, 0], dtype=np.uint32))
    assert decoded.total.tolist() == [-5, 2**32 - 6, 0]
    assert decoded.outside == ()


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
    decoded, outside = layout.decode(total)
    assert decoded.dtype == np.int64
    assert np.array_equal(decoded, truth)
    assert outside == ()
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
    assert np.array_equal(layout.decode(dirty).total, vector)
    assert layout.decode(dirty).outside == ()


@pytest.mark.parametrize("bits", RING_BITS)
def test_nothing_changes_its_argument(bits: int) -> None:
    layout = Layout((Block("all", 4, -(2 ** (bits - 2)), 2 ** (bits - 2)),))
    vector = np.array([1, -2, 3, -4])
    vector.flags.writeable = False
    ring = layout.embed(vector)
    packed = layout.pack(ring)
    before = ring.copy()
    assert np.array_equal(layout.decode(ring).total, vector)
    assert np.array_equal(layout.decode(layout.unpack(packed)).total, vector)
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


@pytest.mark.parametrize(
    ("low", "high", "least", "most"),
    [(0, 1000, 0, 10), (-1000, 1000, -3, 7), (0, 10, -5, 20), (5, 10, 1, 2), (0, 9, 4, 4)],
)
def test_an_addend_has_a_range_of_its_own(low: int, high: int, least: int, most: int) -> None:
    """Narrower than the sum's, as rows of one client are, or wider, as with noise."""
    layout = Layout((Block("free", 1, -9, 9), Block("own", 2, low, high, 1.0, least, most)))
    assert layout.blocks[1].addend == (least, most)
    layout.check(np.array([9, least, most]))
    for vector in ([0, least - 1, most], [0, most, most + 1]):
        with pytest.raises(WouldOverflow, match=rf"^me: .*'own' is outside {least}\.\.{most}\."):
            layout.check(np.array(vector), party="me")


def test_one_end_of_an_addends_range_may_be_left_to_the_sums() -> None:
    assert Block("a", 1, 3, 9).addend == (0, 9)
    assert Block("a", 1, -9, -3).addend == (-9, 0)
    assert Block("a", 1, 3, 9, least=2).addend == (2, 9)
    assert Block("a", 1, 3, 9, most=5).addend == (0, 5)
    assert encode(Block("a", 1, 3, 9)) == encode(Block("a", 1, 3, 9, 1.0, 0, 9))


def test_room_widens_both_ranges_at_both_ends() -> None:
    block = Block("a", 2, 0, 100, 0.5, 0, 10).widened(30, 3)
    assert (block.low, block.high, *block.addend) == (-30, 130, -3, 13)
    assert (block.name, block.length, block.scale) == ("a", 2, 0.5)


def test_addends_in_range_may_break_the_sums_bounds_and_are_counted() -> None:
    """That the ranges add up is for whoever declares the layout to prove."""
    layout = Layout((Block("a", 1, 0, 10, most=10),))
    total = layout.zeros()
    for vector in (np.array([10]), np.array([1])):
        layout.check(vector)
        total += layout.embed(vector)
    assert layout.decode(total).total.tolist() == [11]
    assert layout.decode(total).outside == (("a", 1),)


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
        (lambda: Layout((Block("a", 1, 0, 1, least=2),)), "least 2 > most 1"),
        (lambda: Layout((Block("a", 1, 0, 1, most=-1),)), "least 0 > most -1"),
        (lambda: Layout((Block("a", 1, 0, 1, least=0.0),)), "type int"),  # type: ignore[arg-type]
        (lambda: Layout((Block("a", 1, 0, 1, most=True),)), "type int"),
        (lambda: Layout((Block("", 1, 0, 1),)), "block name ''"),
        (lambda: Layout((Block("a b", 1, 0, 1),)), "block name 'a b'"),
        (lambda: Layout((Block("a\n", 1, 0, 1),)), "block name"),
        (lambda: Layout((Block("\x1b[2J", 1, 0, 1),)), "block name"),
        (lambda: Layout((Block("-a", 1, 0, 1),)), "block name '-a'"),
        (lambda: Layout((Block("ä", 1, 0, 1),)), "block name"),
        (lambda: Layout((Block("a" * 65, 1, 0, 1),)), "allowed: 1 to 64"),
        (lambda: Layout((Block("a" * 10**6, 1, 0, 1),)), "block name 'a{80}', allowed"),
        (lambda: Layout((Block("a", 2**29, 0, 1),)), "2147483648 bytes packed"),
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


@pytest.mark.parametrize(("least", "most"), [(0, 2**63), (-(2**63) - 1, 0)])
def test_addends_beyond_64_bits_are_refused(least: int, most: int) -> None:
    with pytest.raises(WouldOverflow, match=r"'wide' needs .*allowed: 64-bit signed"):
        Layout((Block("wide", 1, 0, 1, least=least, most=most),))


def test_block_names_of_all_allowed_characters() -> None:
    names = ("a", "_9", "A.b-c_d", "9", "a" * 64)
    assert Layout(tuple(Block(name, 1, 0, 1) for name in names)).length == 5


def test_ranges_that_are_left_out_do_not_travel() -> None:
    """One layout, one encoding: what stands for a default is no second one."""
    block = Block("a", 1, 3, 9)
    assert decode(encode(block), Block) == block
    for left_out in (("a", 1, 3, 9, 1.0, None, None), ("a", 1, 3, 9, 1.0), ("a", 1, 3, 9)):
        with pytest.raises(Malformed, match="not the canonical encoding of a Block"):
            decode(encode(left_out), Block)


@given(any_layout)
def test_layouts_survive_their_encoding(layout: Layout) -> None:
    again = decode(encode(layout), Layout)
    assert again == layout
    assert (again.ring_bits, again.length) == (layout.ring_bits, layout.length)
    _ = layout.length  # what is cached is not encoded
    assert encode(again) == encode(layout)


def test_equal_scales_have_equal_bytes() -> None:
    assert encode(Block("a", 1, 0, 1, 2)) == encode(Block("a", 1, 0, 1, 2.0))


@pytest.mark.parametrize("bits", RING_BITS)
@pytest.mark.parametrize("length", [1, 2**15 - 1, 2**15, 2**15 + 1, 70_001])
def test_pieces_are_what_the_whole_vector_packs_to(bits: int, length: int) -> None:
    high = 2 ** (bits - 2)
    layout = Layout((Block("all", length, -high, high),))
    vector = np.random.default_rng(length).integers(-high, high + 1, length)
    assert b"".join(bytes(piece) for piece in layout.packed_pieces(vector)) == layout.pack(
        layout.embed(vector)
    )
    assert bytes(layout.packed(layout.embed(vector))) == layout.pack(layout.embed(vector))

    def negate(words: RingVector) -> None:
        np.negative(words, out=words)

    pieces = b"".join(bytes(piece) for piece in layout.packed_pieces(vector, negate))
    assert pieces == layout.pack(layout.embed(-vector))


@pytest.mark.parametrize("place", [0, 2**15 - 1, 2**15, 70_000])
def test_an_entry_out_of_range_is_found_wherever_it_is(place: int) -> None:
    layout = Layout((Block("first", 1, 0, 9), Block("all", 70_001, -5, 5)))
    vector = np.zeros(70_002, dtype=np.int64)
    layout.check(vector)
    for wrong in (-6, 6):
        vector[1 + place] = wrong
        with pytest.raises(WouldOverflow, match="block 'all' is outside"):
            layout.check(vector)
