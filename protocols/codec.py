"""The one encoding of everything that is sent, saved, signed or hashed.

MessagePack of typed structs, encoded as arrays, so that a value has exactly one encoding: integers
take their shortest form, fields keep the order of their declaration, and there are no maps.
Whatever does not encode back to the very bytes that it was decoded from is refused, which leaves no
room for a second encoding, a trailing byte or an unknown field.
"""

from functools import cache
from typing import Annotated, Any, TypeVar, cast, get_args

import msgspec
import numpy as np
from msgspec import Meta

from protocols.errors import Malformed

T = TypeVar("T")

WIRE_VERSION = 2
"""The version of everything on the wire; every domain-separation tag has it."""

Digest = Annotated[bytes, Meta(max_length=32)]
"""SHA-256, 32 bytes."""

# What an array may hold on the wire: little-endian, and exact to compare.
_DTYPES = ("<i8", "<f8")


class Wire(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of every struct that has a canonical encoding."""


class Secret(Wire, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of every struct that holds secrets: its repr shows its type and nothing else."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        # msgspec's own lists every field, and rich prefers it to __repr__.
        return []


def domain_tag(purpose: str) -> str:
    """Make the tag that separates hashes and signatures of one purpose from all others."""
    return f"secure-afl/{WIRE_VERSION} {purpose}"


def wire_version(data: bytes, *, party: str = "") -> int:
    """Read the version off a header, whose first field it is in every version.

    Raises:
        Malformed: no array that begins with a small number; it names `party`.
    """
    kind = data[0] if data else 0
    first = 1 if 0x90 <= kind <= 0x9F else {0xDC: 3, 0xDD: 5}.get(kind, len(data))
    if first >= len(data) or data[first] > 0x7F:
        raise Malformed("not a header of any version", party=party)
    return data[first]


def encode(value: object) -> bytes:
    """Return the canonical bytes of a struct, or of a tuple of structs and values.

    Values are plain ones.
    """
    return _encoder.encode(value)


def encode_around(value: Wire, length: int) -> tuple[bytes, bytes]:
    """Return what stands before and after so many bytes in the encoding of a struct.

    Args:
        value: a struct whose first field is empty bytes; they are what is left out.
        length: of the bytes, less than 2^32.
    """
    encoded = encode(value)
    assert encoded[1:3] == _EMPTY_BYTES, "its first field is empty bytes"
    return encoded[:1] + _bytes_head(length), encoded[3:]


def _bytes_head(length: int) -> bytes:
    """Return what stands before so many bytes: MessagePack takes the shortest of three forms."""
    kind, width = next(form for form in _BYTES_FORMS if length < 256 ** form[1])
    return kind + length.to_bytes(width, "big")


def decode(data: bytes, kind: type[T], *, party: str = "", step: str = "") -> T:
    """Return the value of type `kind` whose canonical encoding is `data`.

    Raises:
        Malformed: for any other bytes, naming `party` and `step`.
    """
    name = getattr(kind, "__name__", "value")
    try:
        value = msgspec.msgpack.decode(data, type=kind, dec_hook=_decode_custom)
        bulk = _bytes_fields(cast(Any, kind))
        is_canonical = (
            _encoder.encode(value) == data
            if bulk is None
            else _has_shortest_heads(data, [getattr(value, field) for field in bulk])
        )
    except (ValueError, TypeError, RecursionError) as error:
        # No cause is chained, for that could carry the bytes themselves.
        raise Malformed(f"not a {name}: {_reason(error)}", party=party, step=step) from None
    if not is_canonical:
        raise Malformed(f"not the canonical encoding of a {name}", party=party, step=step)
    return value


@cache
def _bytes_fields(kind: type) -> tuple[str, ...] | None:
    """Name the fields of a struct that holds nothing but bytes; None for anything else."""
    if not (isinstance(kind, type) and issubclass(kind, Wire)):
        return None
    fields = msgspec.structs.fields(kind)
    plain = all(field.type is bytes and field.required for field in fields)
    tagged = kind.__struct_config__.tag is not None
    return None if tagged or not plain else tuple(field.name for field in fields)


def _has_shortest_heads(data: bytes, parts: list[bytes]) -> bool:
    """Say whether data, which decode to these bytes, are their canonical encoding.

    Only the lengths can be written in other ways: vectors of megabytes are not encoded again.
    """
    if len(parts) > 15 or data[0] != 0x90 + len(parts):
        return False
    place = 1
    for part in parts:
        head = _bytes_head(len(part))
        if not data.startswith(head, place):
            return False
        place += len(head) + len(part)
    return place == len(data)


def _reason(error: Exception) -> str:
    reason = str(error) if isinstance(error, msgspec.MsgspecError) else type(error).__name__
    # msgspec's messages name types and paths; but an unknown tag is quoted, and a peer chose it.
    return "unknown value" if reason.startswith(("Invalid value", "Invalid enum")) else reason


def _encode_custom(value: object) -> object:
    if isinstance(value, np.ndarray):
        if value.dtype.str not in _DTYPES:
            raise TypeError(f"array of dtype {value.dtype} has no encoding; use one of {_DTYPES}")
        return (value.dtype.str, value.shape, np.ascontiguousarray(value).data)
    raise TypeError(f"{type(value).__name__} has no encoding")


def _decode_custom(kind: type, value: Any) -> object:
    if getattr(kind, "__origin__", kind) is np.ndarray:
        dtype, shape, data = msgspec.convert(value, tuple[str, tuple[int, ...], bytes])
        wanted = [np.dtype(scalar).str for arg in get_args(kind)[1:] for scalar in get_args(arg)]
        if dtype not in _DTYPES or wanted not in ([], [dtype]):
            raise ValueError("array dtype")
        return np.frombuffer(data, dtype=dtype).reshape(shape)
    raise TypeError("unknown type")


_BYTES_FORMS = ((b"\xc4", 1), (b"\xc5", 2), (b"\xc6", 4))
_EMPTY_BYTES = b"\xc4\x00"
_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_custom)
