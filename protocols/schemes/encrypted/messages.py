"""The messages of `ckks` and `bfv`: their steps, their contents, and digests of ciphertexts."""

import hashlib
from typing import Annotated

from msgspec import Meta

from protocols.codec import Digest, Secret, Wire, domain_tag, encode
from protocols.session import Session
from protocols.uploads import Uploads

SERVER = "server"
KEY_HOLDER = "key_holder"
KEY = "key"
UPLOAD = "upload"
CONFIRMED = "confirmed"
TOTAL = "total"

CLIENT_SEED_BYTES = 32
# 2 GB of vector in the smallest ciphertexts, of one bit an entry.
MAX_CHUNKS = 2**24

Chunks = Annotated[tuple[bytes, ...], Meta(max_length=MAX_CHUNKS)]


class Key(Wire, frozen=True):
    """The session's public key, in SEAL's encoding."""

    public_key: bytes


class Ciphertexts(Secret, frozen=True):
    """A client's encrypted vector, chunk by chunk, in SEAL's encoding."""

    chunks: Chunks


class Voucher(Secret, frozen=True):
    """A client's vouched upload: the digest of its ciphertexts, and the seed that made them.

    Attributes:
        digest: SHA-256, 32 bytes.
        seed: 32 bytes; empty where sums are not verified.
    """

    digest: Digest
    seed: Annotated[bytes, Meta(max_length=CLIENT_SEED_BYTES)]


class Confirmed(Wire, frozen=True):
    """The uploads that clients have vouched for at the key holder."""

    uploads: Uploads


class Total(Secret, frozen=True):
    """The sum of these uploads' ciphertexts, chunk by chunk."""

    uploads: Uploads
    chunks: Chunks


def ciphertext_digest(session: Session, client: str, chunks: tuple[bytes, ...]) -> bytes:
    """Return the SHA-256, 32 bytes, of a client's ciphertexts in a session."""
    sizes = tuple(map(len, chunks))
    digest = hashlib.sha256(encode((domain_tag("ciphertexts"), session.id, client, sizes)))
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()
