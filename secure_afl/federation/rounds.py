"""The rounds of a run as a chain, which every party computes for itself.

A round's context hashes the round before it: its context, what the collector signed about its sum,
and the public state that followed. Whoever forms the sessions can then neither give one round twice
nor show two parties different histories. A collector that lies about its own sum can still choose
the state; where the state reveals the total anyway, clients are sent that total and recompute it.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Self

from msgspec import Meta

from protocols.codec import Digest, Wire, decode, domain_tag, encode
from protocols.errors import (
    BadSavedState,
    BadSignature,
    InvalidSession,
    Malformed,
    ProtocolError,
    WouldOverflow,
)
from protocols.identity import Enrolment
from protocols.layout import Integers
from protocols.party import Party
from protocols.protocol import check_given_back, receiver_of
from protocols.release import Release, commit, next_context
from protocols.roster import Bits, Line, Roster
from protocols.seats.seat import Seat
from protocols.session import Session, read_header
from protocols.void import Evidence
from secure_afl.errors import ConfigError, DataError
from secure_afl.federation.sums import sum_layout
from secure_afl.federation.task import Terms
from secure_afl.methods.method import AnyMethod, PublicState, Task

MAX_ROUNDS = 1_000_000
MAX_ATTEMPTS = 16
"""Sessions that a round may have: each is a chance to try for a sum over another set."""


class Link(Wire, frozen=True):
    """A round that is over: what its collector signed, and the digest of the state after it."""

    release: Release
    state: Digest


class History(Wire, frozen=True):
    """The rounds of a run that are over.

    Attributes:
        first: digest of the public state that the first round began with, 32 bytes.
        links: one for each round that is over, in order.
    """

    first: Digest
    links: Annotated[tuple[Link, ...], Meta(max_length=MAX_ROUNDS)] = ()

    @property
    def state(self) -> bytes:
        """Digest of the state that the next round begins with, 32 bytes."""
        return self.links[-1].state if self.links else self.first

    @property
    def first_set(self) -> bytes:
        """Bits of the clients in the first sum; empty before that."""
        return self.links[0].release.included if self.links else b""

    def then(self, release: Release, public: PublicState) -> "History":
        """Return the history with one more round, which ended in this state."""
        return History(self.first, (*self.links, Link(release, state_digest(public))))


@dataclass(frozen=True, eq=False)
class Ended:
    """The round before, whole: for clients to compute its end themselves.

    Attributes:
        public: the state that it began with.
        total: its sum.
        salt: what opens the collector's commitment to the sum, 32 bytes.
    """

    public: PublicState
    total: Integers
    salt: bytes


class EndedRound(Wire, frozen=True, eq=False):
    """An ended round on the wire, and on the disk."""

    public: bytes
    total: Integers
    salt: Digest

    @classmethod
    def of(cls, ended: Ended) -> "EndedRound":
        """Write an ended round down."""
        return cls(encode(ended.public), ended.total, ended.salt)

    def ended(self, method: AnyMethod) -> Ended:
        """Return the round; raises Malformed for a state that is none of the method's."""
        return Ended(decode(self.public, method.public), self.total, self.salt)


@dataclass(frozen=True, eq=False)
class Opening:
    """What the server tells every party of a round beside its session.

    Attributes:
        public: the state that the round begins with.
        history: of the rounds before.
        ended: the round before, where the state gives its sum away anyway; else None.
        voids: `Evidence`, encoded, that each earlier attempt of this round was given back.
    """

    public: PublicState
    history: History
    ended: Ended | None = None
    voids: tuple[bytes, ...] = ()


@dataclass(frozen=True, eq=False)
class Position:
    """Where one party stands in a run: the last round that it entered.

    Attributes:
        round: its number.
        session: its session's id, 32 bytes.
        context: its context, 32 bytes.
        roster: digest of the roster, 32 bytes.
        public: the state that it began with.
        party: this party's in that session, which may know whose vectors are in the sum.
        given_back: the session was given back; another attempt's sum ends the round.
        restored: bits of the clients that the party had agreed to before a restart; empty where it
            could not tell, or there was none.
    """

    round: int
    session: bytes
    context: bytes
    roster: bytes
    public: PublicState
    party: Party | None = None
    given_back: bool = False
    restored: bytes = b""

    @property
    def agreed(self) -> bytes:
        """Bits of the clients that this party let into the sum; empty where it cannot tell."""
        if self.party is None or self.party.agreed is None:
            return self.restored
        return self.party.session.bits(self.party.agreed)


class SavedPosition(Wire, frozen=True):
    """A position as it outlasts a restart; the party is in its seat, until that ends."""

    round: int
    session: Digest
    context: Digest
    roster: Digest
    public: bytes
    given_back: bool
    agreed: Bits

    @classmethod
    def of(cls, position: Position) -> "SavedPosition":
        """Write a position down."""
        p = position
        public = encode(p.public)
        return cls(p.round, p.session, p.context, p.roster, public, p.given_back, p.agreed)

    def position(self, method: AnyMethod) -> Position:
        """Return the position, without its party.

        Raises:
            Malformed: the state is none of this method's.
        """
        public = decode(self.public, method.public)
        return Position(
            self.round,
            self.session,
            self.context,
            self.roster,
            public,
            given_back=self.given_back,
            restored=self.agreed,
        )


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
            _conclude(self._position, self.method, opening, receiver, self.pinned)
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


def state_digest(public: PublicState) -> bytes:
    """Return the SHA-256, 32 bytes, of a public state."""
    return hashlib.sha256(encode((domain_tag("state"), public))).digest()


def first_context(method: AnyMethod, task: Task, first: bytes) -> bytes:
    """Hash what a run is for: method, its parameters, the task, and the digest of its first state.

    The hash is SHA-256.
    """
    return hashlib.sha256(encode((domain_tag("context"), method, task, first))).digest()


def context_of(method: AnyMethod, task: Task, history: History) -> bytes:
    """Return the context of the round after this history, 32 bytes."""
    context = first_context(method, task, history.first)
    for link in history.links:
        context = next_context(context, link.release, link.state)
    return context


def enter(
    position: Position | None,
    session: Session,
    method: AnyMethod,
    opening: Opening,
    receiver: Line,
    party: str,
    pinned: Roster | None,
) -> Position:
    """Return where a party stands in a run once it enters a round.

    To enter a session again changes nothing.

    Args:
        position: where it stood; None before the first round that it enters.
        receiver: the collector, by whose key the history is signed.
        pinned: the roster whose parties may give earlier attempts back; None believes any.

    Raises:
        InvalidSession: the session's layout or context is not that of the opening; the history is
            unsigned, or another than this party knows; the round is not a later one of the same
            run over the same roster, or beyond the run's last; the state is not the one that the
            total before gives.
    """
    try:
        return _enter(position, session, method, opening, receiver, pinned)
    except InvalidSession as error:
        where = f"round {session.header.round}: {error.what}"
        raise InvalidSession(where, party=party, fix=error.fix) from None


def _enter(
    position: Position | None,
    session: Session,
    method: AnyMethod,
    opening: Opening,
    receiver: Line,
    pinned: Roster | None,
) -> Position:
    public, history, header = opening.public, opening.history, session.header
    sums = method.run_sums(public.task)
    if header.round > sums:
        raise InvalidSession(f"the run has {sums} rounds", fix="begin a new run")
    if header.round != len(history.links) + 1:
        raise InvalidSession(f"the history has {len(history.links)} rounds")
    given_back = _given_back(session, opening.voids, pinned)
    if state_digest(public) != history.state:
        raise InvalidSession("the public state is not the one that the history ends with")
    if header.same_set not in (b"", history.first_set):
        raise InvalidSession("the session names another set of clients than the first round's")
    _check_state(session, method, public)
    if position is None:
        context, links = first_context(method, public.task, history.first), history.links
    elif position.round == header.round:
        # Two sums of one round that differ by one client show that client.
        again = position.session == session.id
        if not again and position.session not in given_back:
            raise InvalidSession("this party has joined another session of this round")
        if state_digest(position.public) != history.state:
            raise InvalidSession("the round began with another public state")
        if again:
            return position
        context, links = position.context, ()
        _check_same_run(position, session, public)
    else:
        if header.round < position.round:
            raise InvalidSession(f"this party has been in round {position.round}")
        context, links = position.context, _links_since(position, history)
        _check_same_run(position, session, public)
        _check_step(position, method, opening)
    for link in links:
        context = next_context(context, link.release, link.state)
    if context != header.context:
        raise InvalidSession("the session is for another method, task, state or history")
    _check_signed(links, receiver)
    if history.links and reveals_total(method, public.task, len(history.links)):
        _recompute(session.roster, method, opening)
    return Position(header.round, session.id, context, header.roster, public)


def _given_back(
    session: Session, voids: tuple[bytes, ...], pinned: Roster | None
) -> frozenset[bytes]:
    """Check that all earlier attempts of a round were given back; return their sessions' ids."""
    header, before, found = session.header, b"", set()
    if len(voids) != header.attempt or header.attempt >= MAX_ATTEMPTS:
        raise InvalidSession(
            f"attempt {header.attempt} with {len(voids)} earlier ones given back, wanted all of "
            f"them, and < {MAX_ATTEMPTS} attempts"
        )
    for attempt, data in enumerate(voids):
        try:
            evidence = decode(data, Evidence)
            earlier = read_header(evidence.header)
            found.add(check_given_back(data, pinned))
        except ProtocolError as error:
            raise InvalidSession(
                f"attempt {attempt} is not given back: {error.what}", fix=error.fix
            ) from None
        of_this = earlier.round, earlier.attempt, earlier.void, earlier.context
        if of_this != (header.round, attempt, before, header.context):
            raise InvalidSession(f"what is given back is not attempt {attempt} of this round")
        before = evidence.voids.digest
    if header.void != before:
        raise InvalidSession("the session does not name what gave the attempt before back")
    return frozenset(found)


def _conclude(
    position: Position | None,
    method: AnyMethod,
    opening: Opening,
    receiver: Line,
    pinned: Roster | None,
) -> None:
    public, history = opening.public, opening.history
    if not history.links or state_digest(public) != history.state:
        raise InvalidSession("the public state is not the one that the history ends with")
    sums = method.run_sums(public.task)
    if len(history.links) > sums:
        raise InvalidSession(
            f"the history has {len(history.links)} rounds, the method at most {sums}"
        )
    links = history.links
    if position is not None:
        if _ended_before(position, method, history):
            links = ()  # known when this party entered the round that came to nothing
        elif len(links) < position.round:
            raise InvalidSession(f"the history has {len(links)} rounds")
        else:
            links = _links_since(position, history)
        if encode(public.task) != encode(position.public.task):
            raise InvalidSession("another task than in the rounds before")
        _check_step(position, method, opening)
    _check_signed(links, receiver)
    roster = pinned
    if roster is None and position is not None and position.party is not None:
        roster = position.party.session.roster
    if roster is not None and reveals_total(method, public.task, len(history.links)):
        _recompute(roster, method, opening)


def _ended_before(position: Position, method: AnyMethod, history: History) -> bool:
    """Say whether a run ended with the model that this party's last round began with."""
    began = len(history.links) == position.round - 1 and method.complete(position.public)
    return began and state_digest(position.public) == history.state


def _check_signed(links: tuple[Link, ...], receiver: Line) -> None:
    for link in links:
        try:
            link.release.check(receiver)
        except BadSignature as error:
            raise InvalidSession(f"a round of the history is {error.what}") from None


def _check_state(session: Session, method: AnyMethod, public: PublicState) -> None:
    """Check that the state is one of this round: what clients compute with it turns on it."""
    try:
        method.check(public, session.header.round)
        layout = sum_layout(method, public)
    except (ConfigError, DataError, WouldOverflow) as error:
        raise InvalidSession(f"the public state is none of this round's: {error}") from None
    if session.layout != layout:
        raise InvalidSession("the session's layout is not this round's")
    if session.header.round == 1 and encode(public) != encode(method.begin(public.task)):
        raise InvalidSession("the first public state is not the method's")


def _links_since(position: Position, history: History) -> tuple[Link, ...]:
    """Return the rounds that ended since; this party knows the session of the first."""
    links = history.links[position.round - 1 :]
    release = links[0].release
    if position.given_back and release.session != position.session:
        return links
    if release.session != position.session:
        raise InvalidSession(
            f"the history of round {position.round} is of another session than this party's"
        )
    if position.agreed and release.included != position.agreed:
        raise InvalidSession(
            f"the history of round {position.round} has other clients in the sum than those that "
            "this party agreed to",
            fix="the collector lies about its sum; do not go on with this run",
        )
    return links


def _check_step(position: Position, method: AnyMethod, opening: Opening) -> None:
    """Compare a state with that of the round before, where this party was in that."""
    if position.round != len(opening.history.links):
        return
    try:
        method.check_step(position.public, opening.public)
    except DataError as error:
        raise InvalidSession(
            f"the public state cannot follow from the one before: {error}",
            fix="whoever keeps the state lies; do not go on with this run",
        ) from None


def _check_same_run(position: Position, session: Session, public: PublicState) -> None:
    if session.header.roster != position.roster:
        raise InvalidSession("the roster is another than in the rounds before")
    if encode(public.task) != encode(position.public.task):
        raise InvalidSession("another task than in the rounds before")


def _recompute(roster: Roster, method: AnyMethod, opening: Opening) -> None:
    """Compute the state from the total before, where the state gives that away anyway."""
    ended, history = opening.ended, opening.history
    release = history.links[-1].release
    begun = history.links[-2].state if len(history.links) > 1 else history.first
    if ended is None or commit(ended.total, ended.salt) != release.total:
        raise InvalidSession("no total of the round before that the collector signed")
    if state_digest(ended.public) != begun:
        raise InvalidSession("the state before is not the one that the history has")
    layout = sum_layout(method, ended.public)
    if layout is None or not layout.holds(ended.total):
        raise InvalidSession("the total of the round before is none of its layout")
    try:
        included = roster.names(release.included)
        after = method.absorb(ended.public, ended.total, included)
    except (Malformed, ConfigError, DataError) as error:
        raise InvalidSession(f"the round before cannot be computed: {error}") from None
    if encode(after) != encode(opening.public):
        raise InvalidSession(
            "the public state is not what the total of the round before gives",
            fix="whoever keeps the state lies, or computes otherwise; do not go on with this run",
        )


def fits_task(session: Session, task: Task) -> bool:
    """Say whether a session is over as many clients as its task was planned for.

    Later sessions of a run may be over fewer: their cohort is as large, and so is their noise.
    """
    first = session.header.round == 1 and not session.header.attempt
    clients = len(session.clients)
    return clients == task.clients if first else clients <= task.clients


def reveals_total(method: AnyMethod, task: Task, round: int) -> bool:
    """Say whether clients are sent a round's total; never where noise comes to it afterwards."""
    central = task.mechanism is not None and task.mechanism.privacy.placement == "central"
    return method.reveals(round, task) and not central
