"""What a party checks of a round before it enters it, and of a run that is over."""

from protocols.codec import decode, encode
from protocols.errors import (
    BadSignature,
    InvalidSession,
    Malformed,
    ProtocolError,
    WouldOverflow,
)
from protocols.protocol import check_given_back
from protocols.release import commit, next_context
from protocols.roster import Line, Roster
from protocols.session import Session, read_header
from protocols.void import Evidence
from secure_afl.errors import ConfigError, DataError
from secure_afl.federation.rounds.history import (
    MAX_ATTEMPTS,
    History,
    Link,
    Opening,
    first_context,
    reveals_total,
    state_digest,
)
from secure_afl.federation.rounds.position import Position
from secure_afl.federation.sums import sum_layout
from secure_afl.methods.method import AnyMethod, PublicState, Task


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


def conclude(
    position: Position | None,
    method: AnyMethod,
    opening: Opening,
    receiver: Line,
    pinned: Roster | None,
) -> None:
    """Check how a run ended; raises InvalidSession, see `Half.conclude`."""
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
