"""A party's side of a run between machines: letters in, letters out, and no I/O.

Whatever a letter asks for is done once and answered again each time: recovery is always to hear it
again. That a party refuses leaves the site; why is for the site's own people.
"""

from collections.abc import Callable
from typing import NamedTuple

from protocols.carrier import Hearing
from protocols.codec import decode
from protocols.errors import (
    Busy,
    MessageRejected,
    NotVoidable,
    ProtocolError,
    SeatEnded,
    SecureAflError,
)
from protocols.protocol import Protocol
from protocols.roster import CLIENT, Line, Roster
from protocols.session import Session
from secure_afl.errors import ConfigError
from secure_afl.federation.letters import (
    Closed,
    Content,
    Declined,
    Finished,
    GivenBack,
    Hello,
    Invitation,
    Opened,
    TakeBack,
    open_envelope,
    write,
)
from secure_afl.federation.participant import Participant
from secure_afl.federation.rounds.history import EndedRound, History, Opening
from secure_afl.federation.warnings import session_warnings
from secure_afl.methods.method import PublicState


class Posted(NamedTuple):
    """A letter to be sent."""

    recipient: str
    letter: bytes


def convener_of(protocol: Protocol, roster: Roster) -> Line:
    """Return the line of whoever forms the sessions of a federation: who receives the sums.

    Raises:
        ConfigError: the roster has none, or several.
    """
    lines = [line for line in roster.lines if line.role == protocol.receiver_role]
    if len(lines) != 1:
        raise ConfigError(
            f"the roster has {len(lines)} parties in role '{protocol.receiver_role}', wanted 1, "
            f"which receives the sums of {protocol.name}; make a roster of exactly those that take "
            "part"
        )
    return lines[0]


class Attending:
    """One party that takes part in one run.

    Args:
        participant: with seats, and the roster that it has pinned.
        tell: is told in words what happens, for the site's people.
        over: whether this party has been through a run already, by its 16 bytes.
        keep: keeps the letter that opened a session, by its nonce, so that a later process need
            not be sent it again; empty where the session is over.

    Attributes:
        run: the run that it takes part in; empty before it has joined a session.
        finished: the run is over for this party.
        failed: it is over, without a model for this party.
        public: the last public state; None before the end, and after a run that failed.
        session, included: id of the last session, and how many clients are in its sum.
    """

    def __init__(
        self,
        participant: Participant,
        tell: Callable[[str], None],
        over: Callable[[bytes], bool] = lambda run: False,
        keep: Callable[[bytes, bytes], None] = lambda nonce, letter: None,
    ) -> None:
        roster = participant.half.pinned
        assert roster is not None, "letters are believed by the roster"
        self._participant = participant
        self._roster = roster
        self._convener = convener_of(participant.half.protocol, roster)
        self._tell = tell
        self._over = over
        self._keep = keep
        self.run = b""
        self.finished = False
        self.failed = False
        self.public: PublicState | None = None
        self.session = b""
        self.included = 0
        # Nonces that each run has invited to, and whether that was known before this turn.
        self._invitations: dict[bytes, set[bytes]] = {}
        self._before: set[bytes] = set()
        # What ends something waits until all letters of a turn are heard, for they come in any
        # order.
        self._endings: list[tuple[bytes, TakeBack | Closed | Finished]] = []
        self._told: set[str] = set()

    @property
    def name(self) -> str:
        """Name of the party."""
        return self._participant.name

    @property
    def hearings(self) -> dict[bytes, Hearing]:
        """The parties of open sessions as a carrier sees them, by nonce."""
        return self._participant.hearings

    def others(self, nonce: bytes) -> tuple[str, ...]:
        """Return the names of the parties of an open session that this one may hear from."""
        session = self._participant.party(nonce).session
        coordinators = [member.name for member in session.header.coordinators]
        clients = () if self._participant.role == CLIENT else session.clients
        return tuple(name for name in (*coordinators, *clients) if name != self.name)

    def hear(self, data: bytes) -> list[Posted]:
        """Take a letter; return what is to be sent because of it.

        Letters of others than the convener, of other runs, and such as answer themselves, change
        nothing.
        """
        try:
            letter = open_envelope(data, self.name)
            if letter.sender != self._convener.name or self._over(letter.run):
                return []
            content = letter.read(self.name, self._roster)
        except MessageRejected as error:
            self._say(f"a letter was refused: {error}")
            return []
        if self.run not in (b"", letter.run):
            if isinstance(content, Invitation):
                self._say(
                    f"an invitation to run {letter.run.hex()[:8]} is not heard: this party is in "
                    f"run {self.run.hex()[:8]}. If that never ends here, leave it: secure-afl "
                    "party --leave"
                )
            return []
        known = set(self.hearings)
        reply = self._answer(letter.run, content)
        for nonce in self.hearings.keys() - known:
            self._keep(nonce, data)
        if reply is None:
            return []
        sent = write(letter.run, self._participant.identity, letter.sender, reply)
        return [Posted(letter.sender, sent)]

    def _answer(self, run: bytes, content: Content) -> Content | None:
        match content:
            case Invitation():
                return self._invited(run, content)
            case Opened():
                return self._opened(run, content)
            case TakeBack() | Closed() | Finished():
                self._endings.append((run, content))
        return None

    def settle(self) -> list[Posted]:
        """Give back and end what letters said; call it once all that have come are heard.

        Letters come in any order: a session is joined first, and how it ended is heard then.

        Returns:
            What is to be sent because of it.
        """
        endings, self._endings = self._endings, []
        known = set(self.hearings)
        sent = []
        for run, content in endings:
            if isinstance(content, TakeBack) and (reply := self._take_back(content)) is not None:
                letter = write(run, self._participant.identity, self._convener.name, reply)
                sent.append(Posted(self._convener.name, letter))
        for _, content in endings:
            if isinstance(content, Closed):
                self._closed(content)
        for run, content in endings:
            if isinstance(content, Finished):
                self._finished(run, content)
        for nonce in known - self.hearings.keys():
            self._keep(nonce, b"")
        self._before |= self._invitations.keys()
        return sent

    def _invited(self, run: bytes, content: Invitation) -> Content | None:
        if self._participant.knows(content.nonce):
            self._before.add(run)
        self._invitations.setdefault(run, set()).add(content.nonce)
        try:
            member = self._participant.hello(content.nonce)
        except (SeatEnded, Busy):
            return None
        except ProtocolError as error:
            self._say(f"not enrolled: {error}")
            return Declined(content.nonce, b"")
        self._say(f"enrolled for round {content.round}{_attempt(content.attempt)}")
        return Hello(content.nonce, member)

    def _opened(self, run: bytes, content: Opened) -> Content | None:
        half = self._participant.half
        try:
            session = Session.read(
                content.header, half.pinned, thin=content.roster, members=content.members
            )
        except ProtocolError as error:
            self._say(f"a session was refused: {error}")
            return None
        if session.nonce in self.hearings:
            return None
        try:
            opening = Opening(
                decode(content.public, half.method.public, party=self.name),
                content.history,
                None if content.ended is None else content.ended.ended(half.method),
                content.voids,
            )
            task = opening.public.task
            if task.run != run:
                raise ConfigError("the task is of another run than the letter")
            before, self.run = self.run, run
            joined = False
            try:
                self._participant.join(session, opening)
                joined = True
            finally:
                self.run = run if joined else before
        except (SeatEnded, Busy):
            return None
        except SecureAflError as error:
            self._say(f"not joined: {error}")
            return Declined(session.nonce, session.id)
        header, sums = session.header, half.method.run_sums(task)
        self._say(
            f"joined round {header.round} of {sums}{_attempt(header.attempt)}: "
            f"{half.method.name} over {session.protocol}, {len(session.clients)} clients, minimum "
            f"cohort {session.min_cohort}"
        )
        for warning in session_warnings(half.method, half.protocol, task):
            self._say(f"warning: {warning}")
        return None

    def _take_back(self, content: TakeBack) -> Content | None:
        try:
            void = self._participant.take_back(content.session)
        except NotVoidable:
            return None
        except ProtocolError as error:
            self._say(f"the session was not given back: {error}")
            return None
        self._say("gave the session back: nothing of this party opens it")
        return GivenBack(void)

    def _closed(self, content: Closed) -> None:
        try:
            known = content.nonce in self.hearings
            self._participant.close(content.nonce, content.release, content.evidence)
        except SecureAflError as error:
            self._say(f"the end of a session was refused: {error}")
            return
        if not known:
            return
        if content.release is not None:
            self._say("the sum is out; this session's keys are deleted")
        elif content.evidence is not None:
            self._say("no sum came out, and the session was given back")
        else:
            self._say("no sum came out; the session counts as a release, for too few could sign")

    def _finished(self, run: bytes, content: Finished) -> None:
        if self.finished or self.run not in (b"", run):
            return
        if run != self.run and run not in self._before:
            # It was over before this party's time, though its letters lie there still.
            for nonce in self._invitations.pop(run, ()):
                self._participant.close(nonce, None, None)
            return
        self.run, self.finished = run, True
        if content.failed:
            self.failed = True
            self._say("the run has failed: no model")
        elif content.public is None or content.history is None:
            self._say("the run is over")
        else:
            self._conclude(content.public, content.history, content.ended)
        self._participant.leave()

    def _conclude(self, state: bytes, history: History, last: EndedRound | None) -> None:
        """Believe the end of the run if it follows from what this party knows."""
        half = self._participant.half
        try:
            public = decode(state, half.method.public, party=self.name)
            ended = None if last is None else last.ended(half.method)
            half.conclude(Opening(public, history, ended), self._convener)
        except SecureAflError as error:
            self.failed = True
            self._say(f"the model was refused: {error}")
            return
        # By its word alone whose key has signed each of these sums.
        for link in history.links:
            self._participant.note_released(link.release)
        self.public = public
        release = history.links[-1].release
        self.session = release.session
        self.included = len(self._roster.names(release.included))
        self._say(f"the run is over after {len(history.links)} sums")

    def _say(self, what: str) -> None:
        """Tell the site's people something, once."""
        if what not in self._told:
            self._told.add(what)
            self._tell(what)


def _attempt(attempt: int) -> str:
    return f", attempt {attempt + 1}" if attempt else ""
