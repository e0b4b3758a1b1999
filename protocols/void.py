"""Voids: what parties sign to give a failed session back.

A void says: no message of mine that opens this session exists, and none will. It is durable before
it is signed, and a party that cannot prove its state signs none. Which parties' voids are enough is
for the protocol to say. A sum that came out is never voided.
"""

import hashlib
from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta

from protocols.codec import Digest, Wire, domain_tag, encode
from protocols.errors import BadSignature, InvalidSession, Malformed
from protocols.identity import SIGNATURE_BYTES, Identity
from protocols.roster import MAX_MEMBERS, Name
from protocols.session import Session


class Void(Wire, frozen=True):
    """One party's word on a session.

    Attributes:
        session: id, 32 bytes.
        party: name.
        signature: by that party, 64 bytes.
    """

    session: Digest
    party: Name
    signature: Annotated[bytes, Meta(max_length=SIGNATURE_BYTES)]


class Voids(Wire, frozen=True):
    """The words that together give a session back, sorted by party."""

    session: Digest
    voids: Annotated[tuple[Void, ...], Meta(max_length=MAX_MEMBERS)]

    @classmethod
    def of(cls, voids: Iterable[Void]) -> "Voids":
        """Put together the words of several parties on one session.

        Raises:
            InvalidSession: none, or on several sessions.
        """
        ordered = tuple(sorted(voids, key=lambda void: void.party))
        sessions = {void.session for void in ordered}
        if len(sessions) != 1:
            raise InvalidSession(f"voids of {len(sessions)} sessions, wanted those of one")
        return cls(ordered[0].session, ordered)

    @property
    def digest(self) -> bytes:
        """SHA-256, 32 bytes: what the header of the next attempt names."""
        return hashlib.sha256(encode((domain_tag("voids"), self))).digest()

    def parties(self, session: Session) -> frozenset[str]:
        """Return who of a session has signed.

        Raises:
            Malformed: of another session, out of order, or one party twice.
            UnknownSender, BadSignature: a word that its party did not sign.
        """
        names = [void.party for void in self.voids]
        of_this = all(void.session == session.id for void in self.voids)
        if self.session != session.id or not of_this or names != sorted(set(names)):
            raise Malformed("voids of another session, out of order, or of one party twice")
        for void in self.voids:
            try:
                session.line(void.party).verify(void.signature, statement(session.id))
            except BadSignature as error:
                raise BadSignature(f"a void is {error.what}") from None
        return frozenset(names)


class Evidence(Wire, frozen=True):
    """Voids with the session that they are about, for whoever was not there.

    Attributes:
        header: the session's, canonically encoded.
        roster: the one that it is over, canonically encoded.
        voids: of its parties.
    """

    header: bytes
    roster: bytes
    voids: Voids


def sign_void(session: Session, identity: Identity) -> Void:
    """Sign a party's word; whoever calls has made it true, and durable."""
    return Void(session.id, identity.name, identity.sign(statement(session.id)))


def statement(session_id: bytes) -> bytes:
    """Make what a void signs."""
    return domain_tag("void").encode() + session_id
