"""The messages of `ckks` and `bfv`: their steps, their contents, and digests of ciphertexts."""

import hashlib

from protocols.codec import Secret, Wire, domain_tag, encode
from protocols.session import Session

SERVER = "server"
KEY_HOLDER = "key_holder"
KEY = "key"
UPLOAD = "upload"
CONFIRMED = "confirmed"
TOTAL = "total"


class Key(Wire, frozen=True):
    """The session's public key, in SEAL's encoding."""

    public_key: bytes


class Ciphertexts(Secret, frozen=True):
    """A client's encrypted vector, chunk by chunk, in SEAL's encoding."""

    chunks: tuple[bytes, ...]


class Voucher(Secret, frozen=True):
    """A client's vouched upload: the digest of its ciphertexts, and the seed that made them.

    Attributes:
        digest: SHA-256, 32 bytes.
        seed: 32 bytes; empty where sums are not verified.
    """

    digest: bytes
    seed: bytes


class VouchedUpload(Wire, frozen=True):
    """A client, and the digest of its ciphertexts."""

    client: str
    digest: bytes


class Confirmed(Wire, frozen=True):
    """The uploads that clients have vouched for at the key holder, sorted by client."""

    uploads: tuple[VouchedUpload, ...]


class Total(Secret, frozen=True):
    """The sum of these uploads' ciphertexts, chunk by chunk."""

    uploads: tuple[VouchedUpload, ...]
    chunks: tuple[bytes, ...]


def ciphertext_digest(session: Session, client: str, chunks: tuple[bytes, ...]) -> bytes:
    """Return the SHA-256, 32 bytes, of a client's ciphertexts in a session."""
    sizes = tuple(map(len, chunks))
    digest = hashlib.sha256(encode((domain_tag("ciphertexts"), session.id, client, sizes)))
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()
