"""The messages of `additive`: its steps, their contents, and the mask of a share."""

from protocols.codec import Secret, Wire
from protocols.message import derive
from protocols.session import Session

AGGREGATOR = "aggregator"
UPLOAD = "upload"
VERIFIED = "verified"
AGREE = "agree"
PARTIAL = "partial"
SEED_BYTES = 32


class Share(Secret, frozen=True):
    """One share of a vector: the packed ring vector, or the seed of a mask.

    The other of the two is empty.
    """

    vector: bytes
    seed: bytes


class UploadDigest(Wire, frozen=True):
    """A client that an aggregator has verified, and the digest of all its sealed shares."""

    client: str
    digest: bytes


class Verified(Wire, frozen=True):
    """An aggregator's list of uploads, sorted by client."""

    uploads: tuple[UploadDigest, ...]


class Agree(Wire, frozen=True):
    """An aggregator's signature over the hash of the set of uploads that all hold."""

    signature: bytes


class Partial(Secret, frozen=True):
    """The sum of an aggregator's shares, packed, under the signatures of all aggregators."""

    signatures: tuple[bytes, ...]
    vector: bytes


def mask_key(session: Session, seed: bytes, client: str, aggregator: str) -> bytes:
    """Return the key, 32 bytes, of the mask of a client's seed for an aggregator."""
    return derive(seed, session.id, "mask", client, aggregator)
