"""The encoding: one value, one encoding, and nothing else is accepted."""

import tracemalloc
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
import rich.pretty
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from protocols.codec import Secret, Wire, decode, encode, encode_around, wire_version
from protocols.errors import Malformed, MessageRejected, ProtocolError
from protocols.identity import Member
from protocols.layout import Layout
from protocols.message import Header, Message
from protocols.party import Aborted, Fresh, Sum
from protocols.session import Session
from tests.kit.worlds import mutations


class Inner(Wire, frozen=True):
    label: str
    weight: float = 0.5


class Outer(Wire, frozen=True):
    number: int
    flag: bool
    data: bytes
    maybe: str | None
    inner: tuple[Inner, ...]


class Arrays(Wire, frozen=True, eq=False):
    integers: NDArray[np.int64]
    floats: NDArray[np.float64]


class Hidden(Secret, frozen=True):
    key: bytes


KINDS: list[Any] = [
    Outer,
    Arrays,
    Message,
    Header,
    Member,
    Sum,
    Fresh | Aborted,
    tuple[bytes, str, bytes],
]

_inners = st.builds(Inner, st.text(max_size=40), st.floats(allow_nan=False))
_outers = st.builds(
    Outer,
    st.integers(-(2**63), 2**64 - 1),
    st.booleans(),
    st.binary(max_size=300),
    st.none() | st.text(max_size=40),
    st.lists(_inners, max_size=20).map(tuple),
)


@given(_outers)
def test_decode_inverts_encode(value: Outer) -> None:
    assert decode(encode(value), Outer) == value


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=12),
    st.lists(st.floats(), max_size=12),
    st.sampled_from([(-1,), (1, -1), (-1, 1, 1)]),
)
def test_arrays_keep_their_bits_and_shapes(
    integers: list[int], floats: list[float], shape: tuple[int, ...]
) -> None:
    value = Arrays(
        np.array(integers, dtype=np.int64).reshape(-1),
        np.array(floats, dtype=np.float64).reshape(shape if floats else (0,)),
    )
    again = decode(encode(value), Arrays)
    assert again.integers.dtype == np.int64
    assert np.array_equal(again.integers, value.integers)
    assert again.floats.shape == value.floats.shape
    assert again.floats.tobytes() == value.floats.tobytes()  # NaNs and signs of zero included


@given(st.integers(0, 3))
def test_equal_arrays_have_equal_bytes_however_they_lie(seed: int) -> None:
    grid = np.random.default_rng(seed).integers(0, 2**40, size=(6, 4))
    laid_out = [grid, np.asfortranarray(grid), np.repeat(grid, 2, axis=0)[::2]]
    encodings = {encode(Arrays(array, np.zeros(1))) for array in laid_out}
    assert len(encodings) == 1


@given(st.sampled_from(KINDS), st.binary(max_size=200))
def test_accepted_bytes_encode_to_themselves(kind: Any, data: bytes) -> None:
    try:
        value = decode(data, kind)
    except Malformed:
        return
    assert encode(value) == data


@given(_outers, mutations())
def test_damaged_encodings_are_other_values_or_malformed(
    value: Outer, damage: Callable[[bytes], bytes]
) -> None:
    damaged = damage(encode(value))
    try:
        other = decode(damaged, Outer)
    except Malformed:
        return
    assert encode(other) == damaged
    assert encode(other) != encode(value)


@given(mutations(), st.integers(0, 20))
def test_damaged_arrays_are_other_values_or_malformed(
    damage: Callable[[bytes], bytes], length: int
) -> None:
    encoding = encode(Sum(np.arange(length, dtype=np.int64), ("a", "b")))
    damaged = damage(encoding)
    try:
        other = decode(damaged, Sum)
    except Malformed:
        return
    assert other.total.dtype == np.int64
    assert encode(other) == damaged


# Each of these says the same as the canonical encoding, in another way, or says too little or much.
_CANONICAL = encode(Outer(1, True, b"d", "s", (Inner("l", 2.0),)))
_SECOND_ENCODINGS = {
    "trailing byte": _CANONICAL + b"\0",
    "two values": _CANONICAL * 2,
    "nothing": b"",
    "integer in two bytes": _CANONICAL.replace(b"\x95\x01", b"\x95\xcc\x01"),
    "signed integer in two bytes": _CANONICAL.replace(b"\x95\x01", b"\x95\xd0\x01"),
    "integer in nine bytes": _CANONICAL.replace(b"\x95\x01", b"\x95\xcf" + bytes(7) + b"\x01"),
    "long form of an array": _CANONICAL.replace(b"\x95", b"\xdc\0\x05", 1),
    "long form of a text": _CANONICAL.replace(b"\xa1s", b"\xd9\x01s"),
    "long form of bytes": _CANONICAL.replace(b"\xc4\x01d", b"\xc5\0\x01d"),
    "text for bytes": _CANONICAL.replace(b"\xc4\x01d", b"\xa1d"),
    "bytes for text": _CANONICAL.replace(b"\xa1s", b"\xc4\x01s"),
    "integer for a float": encode((1, True, b"d", "s", (("l", 2),))),
    "short float": _CANONICAL.replace(b"\xcb" + b"@" + bytes(7), b"\xca" + b"@" + bytes(3)),
    "float for an integer": encode((1.0, True, b"d", "s", (("l", 2.0),))),
    "boolean for an integer": encode((True, True, b"d", "s", (("l", 2.0),))),
    "integer for a boolean": encode((1, 1, b"d", "s", (("l", 2.0),))),
    "text for an integer": encode(("1", True, b"d", "s", (("l", 2.0),))),
    "default left out": encode((1, True, b"d", "s", (("l",),))),
    "field left out": encode((1, True, b"d", "s")),
    "field too many": encode((1, True, b"d", "s", (("l", 2.0),), None)),
    "map": msgspec.msgpack.encode({"number": 1}),
    "not UTF-8": _CANONICAL.replace(b"\xa1s", b"\xa1\xff"),
}


@pytest.mark.parametrize("second", _SECOND_ENCODINGS.values(), ids=_SECOND_ENCODINGS)
def test_there_is_no_second_encoding(second: bytes) -> None:
    assert second != _CANONICAL
    with pytest.raises(Malformed, match=r"^p at step 's': not .*Outer"):
        decode(second, Outer, party="p", step="s")


_ARRAYS = {
    "other dtype": ("<i4", (2,), bytes(8)),
    "big-endian": (">i8", (2,), bytes(16)),
    "object": ("|O", (2,), bytes(16)),
    "floats for integers": ("<f8", (2,), bytes(16)),
    "inferred length": ("<i8", (-1,), bytes(16)),
    "negative": ("<i8", (-2, -1), bytes(16)),
    "too short": ("<i8", (2,), bytes(8)),
    "too long": ("<i8", (2,), bytes(24)),
    "half an entry": ("<i8", (1,), bytes(9)),
    "beyond 64 bits": ("<i8", (2**64 - 1,), b""),
    "empty and huge": ("<i8", (0, 2**62, 2**62), b""),
    "many dimensions": ("<i8", (1,) * 100, bytes(8)),
    "two fields": ("<i8", (2,)),
    "no array": 7,
}


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65535, 65536])
def test_bytes_have_the_shortest_of_all_lengths(size: int) -> None:
    """Structs of bytes alone are not encoded again to find that out."""
    body = bytes(size)
    data = encode(Message(b"header", b"signature", body))
    assert decode(data, Message) == Message(b"header", b"signature", body)
    start = encode((b"header", b"signature"))[1:]
    heads = {1: b"\xc4", 2: b"\xc5", 4: b"\xc6"}
    accepted = []
    for width, head in heads.items():
        if size < 256**width:
            said = b"\x93" + start + head + size.to_bytes(width, "big") + body
            try:
                accepted.append(encode(decode(said, Message)) == said)
            except Malformed:
                assert said != data
    assert accepted == [True]
    for array in (b"\xdc\0\x03", b"\xdd\0\0\0\x03"):
        with pytest.raises(Malformed):
            decode(array + data[1:], Message)
    with pytest.raises(Malformed):
        decode(data + b"\0", Message)


@pytest.mark.parametrize("array", _ARRAYS.values(), ids=_ARRAYS)
def test_arrays_that_contradict_themselves_are_malformed(array: object) -> None:
    with pytest.raises(Malformed, match="Sum"):
        decode(encode((array, ("a",))), Sum)


@pytest.mark.parametrize("lengths", [b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_claimed_length_takes_no_memory(lengths: bytes, kind: Any) -> None:
    for prefix in (b"", b"\x92", b"\x92\x93\xa3<i8", b"\x95\x01\xc3"):
        tracemalloc.start()
        with pytest.raises(Malformed):
            decode(prefix + lengths + b"\xff\xff\xff\xff", kind)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**20


@pytest.mark.parametrize("nested", [b"\x91" * 10**5, (b"\xdd\0\0\x10\0") * 900 + bytes(4096)])
def test_depth_is_bounded(nested: bytes) -> None:
    for kind in KINDS:
        with pytest.raises(Malformed):
            decode(b"\x92" + nested, kind)


def test_errors_do_not_repeat_what_a_peer_chose() -> None:
    attack = "\x1b[2J\nroot: all is well "
    for data, kind in (
        (encode((attack,)), Fresh | Aborted),
        (encode((attack, attack)), Fresh | Aborted),
        (encode((attack,)), Outer),
        (encode((1, True, b"", attack, attack)), Outer),
        (encode(((attack, (1,), b""), ("a",))), Sum),
        (encode({attack: 1}), Outer),
    ):
        with pytest.raises(Malformed) as caught:
            decode(data, kind)  # type: ignore[arg-type]
        assert "root" not in str(caught.value)
        assert "\x1b" not in str(caught.value)
        assert len(str(caught.value)) < 200
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


def test_terms_are_checked_while_they_are_decoded() -> None:
    with pytest.raises(ProtocolError, match="length 0"):
        decode(encode(((("a", 0, 0, 1, 1.0),),)), Layout)
    with pytest.raises(Malformed):
        decode(encode((("a", 1, 0, 1, 1.0),)), Layout)
    with pytest.raises(Malformed):
        decode(encode((1, "plain")), Session)


def test_what_has_no_encoding_is_refused() -> None:
    for value in (
        object(),
        np.zeros(2, dtype=np.float32),
        np.zeros(2, dtype=">i8"),
        np.array([object()]),
        np.int64(1),
    ):
        with pytest.raises(TypeError, match="no encoding"):
            encode(value)


def test_malformed_is_a_rejected_message() -> None:
    assert issubclass(Malformed, MessageRejected)


def test_secrets_show_their_type_only() -> None:
    for show in (repr, str, rich.pretty.pretty_repr, "{}".format, "{0!r:>10}".format):
        shown = show(Hidden(b"0123456789abcdef"))
        assert "Hidden" in shown
        assert "0123" not in shown
    assert "0123" not in repr((Hidden(b"0123456789abcdef"), [Hidden(b"0123456789abcdef")]))


# The version, which every header of every version begins with


@pytest.mark.parametrize(
    "data",
    [
        encode((2, b"rest")),
        b"\x91\x02",
        b"\x9f\x02",
        b"\xdc\x00\x10\x02",
        b"\xdd\x00\x00\x00\x10\x02",
        b"\x91\x02\xff\xff",
    ],
)
def test_the_version_is_read_off_any_array(data: bytes) -> None:
    """Whatever follows, which may be a later version's."""
    assert wire_version(data) == 2
    assert wire_version(data.replace(b"\x02", b"\x7f", 1)) == 127


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x02",
        b"\x92",
        b"\x80",
        b"\x81\x02\x02",
        b"\xc4\x01\x02",
        b"\xdc\x00\x10",
        b"\xdd\x00\x00\x00\x10",
        encode((128,)),
        encode((-1,)),
        encode((2.0,)),
        encode(("2",)),
        encode((b"\x02",)),
        encode((True,)),
        encode(((2,),)),
    ],
)
def test_what_does_not_begin_with_a_small_number_has_no_version(data: bytes) -> None:
    with pytest.raises(Malformed, match=r"^who: not a header of any version$"):
        wire_version(data, party="who")


@given(st.binary(max_size=12))
def test_any_bytes_have_a_version_or_none(data: bytes) -> None:
    try:
        version = wire_version(data)
    except Malformed:
        return
    assert 0 <= version < 128
    assert bytes([version]) in data


def test_a_word_that_a_peer_chose_is_in_no_error() -> None:
    class Choice(Wire, frozen=True):
        trust: Literal["yes", "no"]

    with pytest.raises(Malformed) as refused:
        decode(b"\x91\xa4\x1b[31", Choice)
    assert "\x1b" not in str(refused.value)
    assert "unknown value" in str(refused.value)


class Long(Wire, frozen=True):
    data: bytes
    more: bytes


@pytest.mark.parametrize("length", [0, 1, 255, 256, 65535, 65536, 70000])
@pytest.mark.parametrize("more", [b"", b"more"])
def test_what_stands_around_a_first_field_completes_its_encoding(length: int, more: bytes) -> None:
    before, after = encode_around(Long(b"", more), length)
    data = bytes(number % 251 for number in range(length))
    assert before + data + after == encode(Long(data, more))
