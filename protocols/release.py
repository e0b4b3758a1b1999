"""What the receiver signs about a sum, and the chain that the rounds of a run form.

Each round's context hashes the context before it, the receiver's release, and the public state that
follows. Clients compute it for themselves: two clients in one session have the same history.
"""

import hashlib
from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta, structs

from protocols.codec import Digest, Wire, domain_tag, encode
from protocols.identity import SIGNATURE_BYTES, Identity
from protocols.layout import Integers
from protocols.roster import Bits, Line
from protocols.session import Session


class Release(Wire, frozen=True):
    """What the receiver of a sum says about it.

    Attributes:
        session: id, 32 bytes.
        total: commitment to the sum, 32 bytes; whoever is not given its salt learns nothing from
            it, and cannot try sums until one fits.
        included: bits of the clients in it.
        signature: the receiver's, over all this, 64 bytes.
    """

    session: Digest
    total: Digest
    included: Bits
    signature: Annotated[bytes, Meta(max_length=SIGNATURE_BYTES)]

    def check(self, receiver: Line) -> None:
        """Raise BadSignature unless the receiver signed this."""
        receiver.verify(self.signature, _statement(self))


def sign_release(
    session: Session, receiver: Identity, total: Integers, included: Iterable[str]
) -> Release:
    """Sign, as the receiver, which sum a session released; the same bytes each time."""
    commitment = commit(total, release_salt(session, receiver))
    unsigned = Release(session.id, commitment, session.bits(included), b"")
    return structs.replace(unsigned, signature=receiver.sign(_statement(unsigned)))


def release_salt(session: Session, receiver: Identity) -> bytes:
    """Return the salt, 32 bytes, of the receiver's commitment to a session's sum.

    It is the hash of a signature that never leaves: nobody without the key can tell it, and a
    receiver that restarts has it again.
    """
    return hashlib.sha256(receiver.sign(encode((domain_tag("release salt"), session.id)))).digest()


def commit(total: Integers, salt: bytes) -> bytes:
    """Commit to a sum: SHA-256, 32 bytes, over a secret salt and the sum."""
    return hashlib.sha256(encode((domain_tag("total"), salt, total))).digest()


def next_context(context: bytes, release: Release, state: bytes) -> bytes:
    """Chain the context of the next round.

    Args:
        context: of the round that ended, 32 bytes.
        release: of that round.
        state: digest of the public state that the next round begins with, 32 bytes.
    """
    ended = release.session, release.total, release.included
    return hashlib.sha256(encode((domain_tag("next context"), context, *ended, state))).digest()


def _statement(release: Release) -> bytes:
    said = release.session, release.total, release.included
    return domain_tag("release").encode() + hashlib.sha256(encode(said)).digest()
