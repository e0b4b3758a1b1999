"""What the halves of clients and coordinators have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Self

from protocols.errors import BadSavedState, InvalidSession, Malformed
from protocols.identity import Enrolment
from protocols.party import Party
from protocols.protocol import receiver_of
from protocols.roster import Line, Roster
from protocols.seats.seat import Seat
from protocols.session import Session
from secure_afl.federation.rounds.checks import conclude, enter
from secure_afl.federation.rounds.history import Opening
from secure_afl.federation.rounds.position import Position, SavedPosition
from secure_afl.federation.task import Terms
from secure_afl.methods.method import PublicState


class Half(ABC):
    """What a client's and a coordinator's half have in common: one party a session, in order.

    Args:
        name: of the party.
        terms: method, protocol and promise.
        pinned: the roster that this party has; None trusts whoever forms the sessions.
        same_set: it insists on sums over the same clients in all rounds.
    """

    def __init__(self, name: str, terms: Terms, pinned: Roster | None, same_set: bool) -> None:
        self.name = name
        self.method = terms.method
        self.protocol = terms.protocol
        self.pinned = pinned
        self.same_set = same_set
        self._position: Position | None = None

    def stand(self, session: Session, public: PublicState) -> None:
        """Put this half where it stands once it has been in a session, and its party is gone.

        Args:
            public: the state that the session began with.
        """
        header = session.header
        self._position = Position(header.round, session.id, header.context, header.roster, public)

    def _check_session(self, session: Session) -> None:
        """Compare a session with what this party has pinned, and insists on."""
        if self.pinned is not None:
            session.check_pinned(self.pinned)
        if self.same_set and session.header.round > 1 and not session.header.same_set:
            raise self._refused(
                "the session does not hold its sum to the last round's clients, as this party wants"
            )

    def _enter(self, session: Session, opening: Opening, seat: Seat | None) -> Position:
        """Return where this party stands in the session's round, with its party if it has one.

        Raises:
            InvalidSession: as `enter`; or it has been in the session, and its party is gone.
        """
        receiver = receiver_of(self.protocol, session)
        position = enter(
            self._position, session, self.method, opening, receiver, self.name, self.pinned
        )
        # Another party would have other entropy, and know nothing of what this one signed.
        again = self._position is not None and self._position.session == position.session
        if again and position.party is None and seat is None:
            raise self._refused(
                "this party has been in this session, and has no seat to go on from"
            )
        return position

    @abstractmethod
    def join(
        self,
        session: Session,
        enrolment: Enrolment,
        opening: Opening,
        *,
        seat: Seat | None = None,
        keep: Callable[[bytes], None] = lambda saved: None,
    ) -> Party:
        """Return this party, once the session is for the next round of this run."""

    @abstractmethod
    def save(self) -> bytes:
        """Return what this party remembers of its run, for a restart."""

    @abstractmethod
    def restore(self, saved: bytes) -> Self:
        """Put a newly made half where an earlier one was."""

    def released(self, session: bytes) -> None:  # noqa: B027
        """Account for a session, by its id, whose sum is out; coordinators need not."""

    def given_back(self, session: bytes, reason: str, evidence: bytes = b"") -> None:
        """Account for a session that was given back.

        Args:
            session: its id.
            reason: in words.
            evidence: that all were who count, which the caller has checked; empty for this party's
                word alone.
        """
        position = self._position
        if evidence and position is not None and position.session == session:
            self._position = replace(position, given_back=True)

    def conclude(self, opening: Opening, receiver: Line) -> None:
        """Check what the server says of a run that is over, before anything is made of it.

        Args:
            opening: the last state, with the whole history.
            receiver: the collector, by whose key the history is signed.

        Raises:
            InvalidSession: the state is not what the history ends with, the history is unsigned or
                another than this party knows, or the state is not what the last total gives.
        """
        try:
            conclude(self._position, self.method, opening, receiver, self.pinned)
        except InvalidSession as error:
            raise InvalidSession(
                f"the end of the run: {error.what}", party=self.name, fix=error.fix
            ) from None

    def _saved_position(self) -> SavedPosition | None:
        return None if self._position is None else SavedPosition.of(self._position)

    def _restore_position(self, saved: SavedPosition | None) -> None:
        self._position = None if saved is None else saved.position(self.method)

    def _unreadable(self, error: Malformed) -> BadSavedState:
        return BadSavedState(
            f"what this party remembers: {error.what}",
            party=self.name,
            fix="restore what it saved in this run, or take part in a new one",
        )

    def _refused(self, what: str) -> InvalidSession:
        return InvalidSession(what, party=self.name)
