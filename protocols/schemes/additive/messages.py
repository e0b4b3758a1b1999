"""The messages of `additive`: its steps, their contents, and the mask of a share."""

from typing import Annotated

from msgspec import Meta

from protocols.codec import Secret, Wire
from protocols.identity import SIGNATURE_BYTES
from protocols.message import derive
from protocols.session import Session
from protocols.uploads import Uploads

COLLECTOR = "collector"
AGGREGATOR = "aggregator"
UPLOAD = "upload"
VERIFIED = "verified"
AGREE = "agree"
PARTIAL = "partial"
SEED_BYTES = 32
MAX_AGGREGATORS = 16

Signature = Annotated[bytes, Meta(max_length=SIGNATURE_BYTES)]


class Share(Secret, frozen=True):
    """One share of a vector: the packed ring vector, or the seed of a mask.

    The other of the two is empty.
    """

    vector: bytes
    seed: bytes


class Verified(Wire, frozen=True):
    """An aggregator's list of the uploads that it has verified."""

    uploads: Uploads


class Agree(Wire, frozen=True):
    """An aggregator's signature over the hash of the set of uploads that all hold."""

    signature: Signature


class Partial(Secret, frozen=True):
    """The sum of an aggregator's shares, packed, under the signatures of all aggregators."""

    signatures: Annotated[tuple[Signature, ...], Meta(max_length=MAX_AGGREGATORS)]
    vector: bytes


def mask_key(session: Session, seed: bytes, client: str, aggregator: str) -> bytes:
    """Return the key, 32 bytes, of the mask of a client's seed for an aggregator."""
    return derive(seed, session.id, "mask", client, aggregator)


def aggregators(session: Session) -> tuple[str, ...]:
    """Name all aggregators, the collector first and the others sorted by name."""
    return session.of_role(COLLECTOR) + session.of_role(AGGREGATOR)
