"""Letters: what the convener of a run and its parties say to each other beside the blind sums.

Every letter is signed by its sender's identity and bound to the run and the recipient; what is not
signed by a party of the pinned roster is never decoded. A letter that comes again changes nothing.
"""

import hashlib
from typing import Annotated

from msgspec import Meta, structs

from protocols.codec import Digest, Wire, decode, domain_tag, encode
from protocols.errors import BadSignature, Malformed, UnknownSender, WrongRecipient
from protocols.identity import NONCE_BYTES, SIGNATURE_BYTES, Identity, Member
from protocols.release import Release
from protocols.roster import Name, Roster
from protocols.void import Evidence, Void
from secure_afl.federation.rounds.history import EndedRound, History

RUN_BYTES = 16
MAX_LETTER_BYTES = 2**28
"""A state of 16 million 64-bit numbers fits, with the enrolments of a large cohort."""

Nonce = Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]


class Invitation(Wire, frozen=True, tag=True):
    """An invitation to enrol in the session that will be formed under a nonce.

    Attributes:
        nonce: 32 bytes.
        round, attempt: of the run; for people, since nobody has agreed to anything yet.
    """

    nonce: Nonce
    round: int
    attempt: int


class Hello(Wire, frozen=True, tag=True):
    """The answer to an invitation: an enrolment's public part."""

    nonce: Nonce
    member: Member


class Opened(Wire, frozen=True, tag=True):
    """A session, and what goes with it; every party of the session is sent one.

    Attributes:
        header: the session's.
        roster: the one that it is over; empty for whoever has pinned it.
        members: the clients' enrolments, for coordinators.
        public: the state that the round begins with.
        history, ended, voids: as in `Opening`.
    """

    header: bytes
    roster: bytes
    members: tuple[Member, ...] | None
    public: bytes
    history: History
    ended: EndedRound | None
    voids: tuple[bytes, ...]


class Declined(Wire, frozen=True, tag=True):
    """A party takes no part; why stays at the site.

    Even the kind of the error would tell whoever forms sessions something of the site's data: a
    used-up ledger is asked after the classes were compared.

    Attributes:
        nonce: of the session.
        session: id; empty from a party that has not enrolled.
    """

    nonce: Nonce
    session: Digest


class TakeBack(Wire, frozen=True, tag=True):
    """A request to give a session back, which has come to nothing."""

    session: Digest


class GivenBack(Wire, frozen=True, tag=True):
    """A party's word that nothing of it opens the session."""

    void: Void


class Closed(Wire, frozen=True, tag=True):
    """A session is over.

    Attributes:
        nonce, session: which.
        release: what the collector signed about its sum; None without one.
        evidence: that it was given back; None with a sum, and where too few have signed.
    """

    nonce: Nonce
    session: Digest
    release: Release | None
    evidence: Evidence | None


class Finished(Wire, frozen=True, tag=True):
    """The run is over.

    Attributes:
        failed: there is no model.
        public: the last state, for clients; None for coordinators, and where the run has failed.
        history, ended: as in `Opening`; None without a state.
    """

    failed: bool
    public: bytes | None
    history: History | None
    ended: EndedRound | None


Content = Invitation | Hello | Opened | Declined | TakeBack | GivenBack | Closed | Finished


class Letter(Wire, frozen=True):
    """A letter as it travels.

    Attributes:
        run: 16 bytes that tell the run from all others.
        sender, recipient: names.
        content: one of `Content`, encoded.
        signature: the sender's, over all this, 64 bytes.
    """

    run: Annotated[bytes, Meta(min_length=RUN_BYTES, max_length=RUN_BYTES)]
    sender: Name
    recipient: Name
    content: Annotated[bytes, Meta(max_length=MAX_LETTER_BYTES)]
    signature: Annotated[bytes, Meta(max_length=SIGNATURE_BYTES)]

    def read(self, recipient: str, roster: Roster) -> Content:
        """Return the content, once its sender has signed it.

        Raises:
            WrongRecipient: for somebody else.
            UnknownSender, BadSignature: not signed by a party of the roster.
            Malformed: no letter's content.
        """
        if self.recipient != recipient:
            raise WrongRecipient(f"a letter for '{self.recipient}'", party=recipient)
        line = roster.by_name.get(self.sender)
        if line is None:
            raise UnknownSender("a letter of nobody on the roster", party=recipient)
        try:
            line.verify(self.signature, _statement(self))
        except BadSignature as error:
            raise BadSignature(f"a letter is {error.what}", party=recipient) from None
        return decode(self.content, Content, party=recipient)  # type: ignore[arg-type]


def write(run: bytes, sender: Identity, recipient: str, content: Content) -> bytes:
    """Write and sign a letter."""
    letter = Letter(run, sender.name, recipient, encode(content), b"")
    return encode(structs.replace(letter, signature=sender.sign(_statement(letter))))


def open_envelope(data: bytes, recipient: str) -> Letter:
    """Decode a letter's envelope, of which nothing is to be believed before `Letter.read`.

    Raises:
        Malformed: no letter.
    """
    if len(data) > MAX_LETTER_BYTES:
        raise Malformed(f"a letter of {len(data)} bytes", party=recipient)
    return decode(data, Letter, party=recipient)


def _statement(letter: Letter) -> bytes:
    said = letter.run, letter.sender, letter.recipient, hashlib.sha256(letter.content).digest()
    return domain_tag("letter").encode() + hashlib.sha256(encode(said)).digest()
