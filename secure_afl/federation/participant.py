"""One party's side of a run: it enrols, joins what its half agrees to, and ends that.

A simulation calls these methods; between machines letters do (`attending`).
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

from protocols.carrier import Hearing, Loose
from protocols.codec import encode
from protocols.errors import InvalidSession, NotVoidable, UnknownSender
from protocols.identity import Enrolment, Identity, Member
from protocols.party import Party, Sum
from protocols.protocol import check_given_back, receiver_of
from protocols.release import Release
from protocols.seats.seats import Seats
from protocols.session import Session
from protocols.void import Evidence, Void, sign_void
from secure_afl.errors import LedgerRefusal
from secure_afl.federation.rounds.half import Half
from secure_afl.federation.rounds.history import Opening

log = logging.getLogger("secure_afl")


class Outcome(NamedTuple):
    """What the receiver of a sum has of it: the sum, what it signed, and the commitment's salt.

    Attributes:
        noise: of which noise that is added afterwards is made, 32 bytes; None draws it.
    """

    released: Sum
    release: Release
    salt: bytes
    noise: bytes | None = None


class Participant:
    """One party of a run.

    Args:
        half: what it insists on, and remembers.
        identity: its long-lived key.
        role: that it takes in every session.
        bound: a client's, on its rows.
        seats: where its parties live; None, in simulations, in this process.
        keep: makes what the half saves durable.
    """

    def __init__(
        self,
        half: Half,
        identity: Identity,
        role: str,
        *,
        bound: int = 0,
        seats: Seats | None = None,
        keep: Callable[[bytes], None] = lambda saved: None,
    ) -> None:
        self.half = half
        self.identity = identity
        self.role = role
        self._bound = bound
        self._seats = seats
        self._keep = keep
        self._enrolments: dict[bytes, Enrolment] = {}
        self._joined: dict[bytes, tuple[Party, Hearing]] = {}
        self._refused: dict[bytes, Session] = {}

    @property
    def name(self) -> str:
        """Name of the party."""
        return self.identity.name

    def hello(self, nonce: bytes) -> Member:
        """Enrol for a nonce; one nonce, one answer.

        Raises:
            SeatEnded, Busy, NotStored, BadSavedState: as `Seats.hello`.
        """
        if nonce not in self._enrolments:
            if self._seats is None:
                enrolment = self.identity.enrol(self.role, nonce, self._bound)
            else:
                with self._seats.hello(self.role, nonce, self._bound) as seat:
                    enrolment = seat.enrolment
            self._enrolments[nonce] = enrolment
        return self._enrolments[nonce].member

    def knows(self, nonce: bytes) -> bool:
        """Say whether this party has a seat for a nonce, be it one that has ended."""
        return self._seats is not None and self._seats.knows(nonce)

    def join(self, session: Session, opening: Opening) -> Hearing:
        """Join a session, or go on with it; return the party as a carrier sees it.

        Raises:
            InvalidSession, LedgerRefusal: as from the half; nothing was said.
            SeatEnded, Busy, NotStored, BadSavedState: as from `Seats.open` and `Seat.join`.
        """
        if session.nonce in self._joined:
            party, hearing = self._joined[session.nonce]
            if party.session.id != session.id:
                raise InvalidSession(
                    "this party has joined another session of this nonce", party=self.name
                )
            return hearing
        if self._seats is None:
            party = self.half.join(session, self._enrolments[session.nonce], opening)
            hearing = Loose(party)
        else:
            seat = self._seats.open(session.nonce)
            try:
                party = self.half.join(session, seat.enrolment, opening, seat=seat, keep=self._keep)
            except BaseException:
                seat.close()
                self._refused[session.id] = session
                raise
            hearing = seat
            self._enrolments[session.nonce] = seat.enrolment
        self._joined[session.nonce] = party, hearing
        return hearing

    def party(self, nonce: bytes) -> Party:
        """Return the party that joined a nonce's session."""
        return self._joined[nonce][0]

    @property
    def hearings(self) -> dict[bytes, Hearing]:
        """The parties of open sessions as a carrier sees them, by nonce."""
        return {nonce: hearing for nonce, (_, hearing) in self._joined.items()}

    def outcome(self, nonce: bytes) -> Outcome | None:
        """Return the sum of a session, where this party has received it."""
        if nonce not in self._joined:
            return None
        party = self.party(nonce)
        if party.result is None or party.release is None:
            return None
        return Outcome(party.result, party.release, party.release_salt)

    def ended(self, nonce: bytes) -> bool:
        """Say whether a session is over, without a sum, for this party; or its seat is."""
        if nonce not in self._joined:
            return False
        try:
            return self._joined[nonce][1].aborted
        except InvalidSession:
            return True

    def take_back(self, session_id: bytes) -> Void:
        """Give a session back, and sign that nothing of this party opens it.

        A party that refused to join ends its seat first, and so never will.

        Raises:
            NotVoidable: something of it may; or it knows no such session.
        """
        for party, hearing in self._joined.values():
            if party.session.id == session_id:
                return hearing.void()
        refused = self._refused.get(session_id)
        if refused is None or self._seats is None or not self._seats.give_up(refused.nonce):
            raise NotVoidable("this party is in no such session", party=self.name)
        return sign_void(refused, self.identity)

    def close(self, nonce: bytes, release: Release | None, evidence: Evidence | None) -> None:
        """End a session that is over, and let the half account for it.

        Args:
            release: what the collector signed about its sum; None without one.
            evidence: that it was given back, if it was.

        Raises:
            BadSignature, InvalidSession, MessageRejected: the release or the evidence is not of
                this session; nothing has ended.
        """
        joined = self._joined.get(nonce)
        session = None if joined is None else joined[0].session
        if release is not None and session is not None:
            release.check(receiver_of(self.half.protocol, session))
            if release.session != session.id:
                raise InvalidSession("the release is of another session", party=self.name)
            self.note_released(release)
        elif evidence is not None:
            # Evidence speaks for itself, also to whoever has not joined again since a restart.
            data = encode(evidence)
            given_back = check_given_back(data, self.half.pinned)
            if session is not None and given_back != session.id:
                raise UnknownSender("evidence of another session", party=self.name)
            self._account(lambda: self.half.given_back(given_back, "no sum came out", data))
            self._keep(self.half.save())
        elif joined is not None:
            self._alone(*joined)
        self._end(nonce)

    def note_released(self, release: Release) -> None:
        """Let the half account for a sum that is out."""
        self._account(lambda: self.half.released(release.session))

    def leave(self) -> None:
        """End all sessions; what was charged for them stays charged, if anything was sent."""
        for nonce in list(self._joined):
            self.close(nonce, None, None)
        if self._seats is not None:
            self._seats.end_all()

    def _alone(self, party: Party, hearing: Hearing) -> None:
        """Give a session back to this client's ledger alone, if no vector of it is out."""
        if party.uploaded:
            return
        try:
            hearing.void()
        except NotVoidable:
            return
        why = "no vector of this client was sent"
        self._account(lambda: self.half.given_back(party.session.id, why))

    def _account(self, note: Callable[[], None]) -> None:
        """Let the half write a note; what is not noted counts, and ends nothing."""
        try:
            note()
        except LedgerRefusal as problem:
            log.warning("the ledger was not told how a session ended: %s", problem)

    def _end(self, nonce: bytes) -> None:
        if self._seats is not None and nonce in self._joined:
            # What its party agreed to, which the collector may lie about in a later round, is
            # known from the seat alone until it is kept here.
            self._keep(self.half.save())
        joined = self._joined.pop(nonce, None)
        self._enrolments.pop(nonce, None)
        if self._seats is None:
            return
        if joined is not None:
            joined[1].close()
        self._seats.end(nonce)
