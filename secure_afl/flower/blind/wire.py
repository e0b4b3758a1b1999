"""What the grid and the mod tell each other, inside Flower's train messages."""

import hashlib
from typing import Annotated

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from msgspec import Meta

from protocols.codec import Digest, Wire, decode, domain_tag, encode
from protocols.errors import Malformed
from protocols.identity import Member
from protocols.layout import Layout
from protocols.roster import Name
from secure_afl.analytic.quantise import Floats
from secure_afl.errors import DataError
from secure_afl.methods.update import UpdateQuantiser

RECORD, _CONTENT = "blind-sum", "content"
# Clip, bits, greatest weight, and the name of the metric that weighs.
Terms = tuple[float, int, int, str]
MAX_MAIL = 1_000_000


class Hello(Wire, frozen=True, tag="hello"):
    """Asks for an enrolment under a nonce."""

    nonce: Digest


class Train(Wire, frozen=True, tag="train"):
    """Asks a node to train, and to join a session with what came of it.

    Attributes:
        header, thin: of the session, canonical.
        clip, bits, most: how updates become integers, and the greatest weight of one.
        weight: name of the metric that weighs.
    """

    header: bytes
    thin: bytes
    clip: float
    bits: int
    most: int
    weight: str

    @property
    def terms(self) -> Terms:
        """What all nodes have to be told alike."""
        return self.clip, self.bits, self.most, self.weight


class Deliver(Wire, frozen=True, tag="deliver"):
    """Brings messages of the session."""

    nonce: Digest
    mail: Annotated[tuple[bytes, ...], Meta(max_length=MAX_MAIL)]


class Enrolled(Wire, frozen=True, tag="enrolled"):
    """Answers `Hello`."""

    member: Member


class Said(Wire, frozen=True, tag="said"):
    """Answers `Train` and `Deliver`: recipients, and messages for them."""

    mail: Annotated[tuple[tuple[Name, bytes], ...], Meta(max_length=MAX_MAIL)]


Question = Hello | Train | Deliver
Answer = Enrolled | Said


def pack(content: Question | Answer, records: RecordDict | None = None) -> RecordDict:
    """Put content into records, beside what is there."""
    packed = RecordDict() if records is None else RecordDict(dict(records))
    packed[RECORD] = ConfigRecord({_CONTENT: encode(content)})
    return packed


def unpack_question(records: RecordDict) -> Question:
    """Read what a server asks.

    Raises:
        Malformed: nothing of the kind.
    """
    found: Question = decode(_content(records), Question)  # type: ignore[arg-type]
    return found


def unpack_answer(records: RecordDict) -> Answer:
    """Read what a node answers.

    Raises:
        Malformed: nothing of the kind.
    """
    found: Answer = decode(_content(records), Answer)  # type: ignore[arg-type]
    return found


def _content(records: RecordDict) -> bytes:
    record = records.get(RECORD)
    content = record.get(_CONTENT) if isinstance(record, ConfigRecord) else None
    if not isinstance(content, bytes):
        raise Malformed("no record of a blind sum")
    return content


def arrays_of(records: RecordDict) -> tuple[str, ArrayRecord]:
    """Return the one record of arrays, and its key.

    Raises:
        DataError: none, or several.
    """
    found = [(key, value) for key, value in records.items() if isinstance(value, ArrayRecord)]
    if len(found) != 1:
        raise DataError(
            f"{len(found)} records of arrays in a message; a blind sum takes one, in both "
            "directions: put all of the model into one ArrayRecord"
        )
    return found[0]


def flattened(arrays: ArrayRecord) -> Floats:
    """Return all values of a record, in its order, (p,) float64.

    Raises:
        DataError: arrays that are no floating-point numbers.
    """
    parts = []
    for name, array in arrays.items():
        values = array.numpy()
        if not np.issubdtype(values.dtype, np.floating):
            raise DataError(
                f"array '{name}' is of {values.dtype}; a mean is of floating-point numbers: leave "
                "counters such as num_batches_tracked out"
            )
        parts.append(values.ravel().astype(np.float64))
    return np.concatenate(parts) if parts else np.zeros(0)


def shapes_of(arrays: ArrayRecord) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    """Return names, types and shapes, in the record's order."""
    return tuple((name, array.dtype, tuple(array.shape)) for name, array in arrays.items())


def context_of(records: RecordDict, terms: Terms) -> bytes:
    """Hash what clients train from and how updates are rounded, 32 bytes.

    It is in the session's header, so that nodes which were given other arrays or settings are in
    another session.
    """
    _, arrays = arrays_of(records)
    hashed = hashlib.sha256(encode((domain_tag("flower"), terms)))
    hashed.update(encode(shapes_of(arrays)))
    hashed.update(flattened(arrays).tobytes())
    return hashed.digest()


def layout_of(quantiser: UpdateQuantiser, length: int, clients: int, most: int) -> Layout:
    """Return the layout of a session of so many clients, each of weight ≤ `most`."""
    return quantiser.layout(length, clients * most, most)
