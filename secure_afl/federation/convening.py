"""The convener between machines: letters in, letters out, a clock, and no I/O.

A session is enrolled, opened, and closed with its sum; or it comes to nothing, and is given back
and tried again. What the convener is about to say is kept before it is said, so that one that was
killed goes on where it was.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Annotated, Literal

from msgspec import Meta

from protocols.codec import Secret, decode, encode
from protocols.errors import (
    BadSavedState,
    InvalidSession,
    Malformed,
    ProtocolError,
    SecureAflError,
)
from protocols.identity import Identity, Member
from protocols.protocol import Protocol
from protocols.release import Release
from protocols.roster import CLIENT, Roster
from protocols.session import Session
from protocols.void import Evidence, Void
from secure_afl.analytic.statistics import MAX_CLIENT_ROWS
from secure_afl.federation.attending import Posted
from secure_afl.federation.convener import Convener, Planned
from secure_afl.federation.letters import (
    RUN_BYTES,
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
from secure_afl.federation.participant import Outcome
from secure_afl.federation.rounds.history import EndedRound

Phase = Literal["inviting", "open", "taking back", "finished"]

REPEAT = 30.0
"""Seconds until a letter that has no answer is sent again, at first; then twice as long."""


class _Saved(Secret, frozen=True):
    run: Annotated[bytes, Meta(max_length=RUN_BYTES)]
    phase: Phase
    nonce: bytes
    members: tuple[Member, ...]
    bounds: tuple[tuple[str, int], ...]
    outside: tuple[tuple[str, int], ...]
    header: bytes
    server: bytes
    problem: str


class Convening:
    """The convener of one run, who is also the party that receives its sums.

    Args:
        protocol: of the run.
        identity: of the receiver.
        roster: all parties that are invited.
        plan: as in `Convener`.
        run: 16 random bytes that tell this run from all others.
        outcome: of a session by its nonce, from this site's own party; None before there is one.
        ended: whether a session is over, without a sum, for this site's own party.
        wait: seconds for all enrolments, and for all voids.
        attempts: sessions that a round may have.
        keep: makes what is given durable.
        tell: is told in words what happens.

    Attributes:
        problem: why the run has failed; empty otherwise.
    """

    def __init__(
        self,
        protocol: Protocol,
        identity: Identity,
        roster: Roster,
        plan: Callable[[Mapping[str, int]], Planned],
        run: bytes,
        *,
        outcome: Callable[[bytes], Outcome | None],
        ended: Callable[[bytes], bool],
        wait: float,
        attempts: int,
        keep: Callable[[bytes], None],
        tell: Callable[[str], None],
    ) -> None:
        self._protocol = protocol
        self._identity = identity
        self._roster = roster
        self._roles = {CLIENT, *protocol.coordinators().values()}
        self._convener = Convener(plan)
        self._run = run
        self._outcome = outcome
        self._ended = ended
        self._wait = wait
        self._attempts = attempts
        self._keep = keep
        self._tell = tell
        self._phase: Phase = "inviting"
        self._voids: dict[str, Void] = {}
        self._declined: set[str] = set()
        self._since: float | None = None
        self._again = 0.0
        self._pause = REPEAT
        self.problem = ""

    @property
    def finished(self) -> bool:
        """Whether the run is over, with a model or without."""
        return self._phase == "finished"

    @property
    def convener(self) -> Convener:
        """The run itself."""
        return self._convener

    def hear(self, data: bytes) -> None:
        """Take a letter; what nobody of the roster has signed changes nothing."""
        me = self._identity.name
        try:
            letter = open_envelope(data, me)
            if letter.run != self._run:
                return
            content = letter.read(me, self._roster)
            match content:
                case Hello():
                    self._enrol(letter.sender, content)
                case Declined():
                    self._decline(letter.sender, content)
                case GivenBack():
                    self._take_void(letter.sender, content.void)
        except ProtocolError as error:
            self._tell(f"a letter was refused: {error}")

    def turn(self, now: float) -> list[Posted]:
        """Return what is to be sent now; go on to the next phase where one is over.

        Raises:
            SecureAflError: no state follows from a sum that is out, as `Convener.absorb` says; the
                sum stays with the receiver's party, and the run can go on from it.
        """
        if self._since is None:
            self._since = now
            if not self._convener.nonce:
                self._convener.invite()
                self._save()
        sent = self._go_on(now)
        if now >= self._again and not self.finished:
            sent += self._letters()
            self._again, self._pause = now + self._pause, min(2 * self._pause, 900.0)
        return sent

    def save(self) -> bytes:
        """Return the run as it stands, for a restart; secret."""
        convener = self._convener
        return encode(
            _Saved(
                self._run,
                self._phase,
                convener.nonce,
                tuple(convener.members.values()),
                tuple(convener.bounds.items()),
                convener.outside,
                b"" if convener.session is None else encode(convener.session.header),
                b"" if convener.planned is None else convener.server.save(),
                self.problem,
            )
        )

    def restore(self, saved: bytes) -> "Convening":
        """Put a newly made convener where an earlier one was.

        Raises:
            BadSavedState: damaged, or the settings are others than those that the open session was
                formed with.
        """
        try:
            found = decode(saved, _Saved)
        except Malformed as error:
            raise self._unusable(error.what) from None
        convener = self._convener
        self._run, self._phase, self.problem = found.run, found.phase, found.problem
        convener.nonce = found.nonce
        convener.members = {member.name: member for member in found.members}
        convener.bounds, convener.outside = dict(found.bounds), found.outside
        if found.server:
            convener.plan().restore(found.server)
        if found.phase in ("open", "taking back"):
            session, _ = convener.open()
            if encode(session.header) != found.header:
                raise self._unusable("the open session was formed with other settings")
        return self

    def _go_on(self, now: float) -> list[Posted]:
        assert self._since is not None
        late = now - self._since >= self._wait
        match self._phase:
            case "inviting":
                return self._open(now, late)
            case "open":
                return self._close(now)
            case "taking back":
                return self._give_back(now, late)
            case _:
                return []

    def _open(self, now: float, late: bool) -> list[Posted]:
        """Form the session once everybody has answered, or may no longer."""
        convener = self._convener
        silent = [name for name in self._invited if name not in convener.members]
        waiting = [name for name in silent if name not in self._declined]
        if waiting and not late:
            return []
        gone = [name for name in silent if self._roster.by_name[name].role != CLIENT]
        if gone:
            return self._fail(f"no enrolment of {', '.join(gone)}, without whom there is no sum")
        if all(self._roster.by_name[name].role != CLIENT for name in convener.members):
            return self._fail("no client has enrolled; their own screens say why")
        if silent:
            self._tell(f"without {', '.join(silent)}, who did not enrol")
        try:
            session, _ = convener.open()
        except SecureAflError as error:
            return self._fail(str(error))
        self._tell(
            f"round {session.header.round}: session of {len(session.clients)} clients, minimum "
            f"cohort {session.min_cohort}"
        )
        return self._enter("open", now)

    def _close(self, now: float) -> list[Posted]:
        """Absorb the sum, or take the session back that came to nothing."""
        convener = self._convener
        session = convener.session
        assert session is not None, "a session is open"
        outcome = self._outcome(session.nonce)
        if outcome is not None:
            return self._absorb(outcome, now)
        why = "the session ended without a sum" if self._ended(session.nonce) else ""
        if why := why or self._too_few(session):
            self._tell(f"round {convener.round}: {why}; asking for the session back")
            return self._enter("taking back", now)
        return []

    def _too_few(self, session: Session) -> str:
        """Say who declined, if there is no sum without them; empty otherwise."""
        roles = {member.name for member in session.header.coordinators}
        if gone := sorted(roles & self._declined):
            return f"{', '.join(gone)} declined"
        gone = sorted(set(session.clients) & self._declined)
        left = len(session.clients) - len(gone)
        if left >= session.min_cohort:
            return ""
        return f"{', '.join(gone)} declined, and {left} clients are fewer than the minimum cohort"

    def _absorb(self, outcome: Outcome, now: float) -> list[Posted]:
        convener = self._convener
        self._tell(f"the sum over {len(outcome.released.included)} clients is out")
        closed = self._closed(outcome.release, None)
        convener.absorb(outcome)
        if convener.over:
            return closed + self._finish()
        convener.invite()
        return closed + self._enter("inviting", now)

    def _give_back(self, now: float, late: bool) -> list[Posted]:
        convener = self._convener
        assert convener.session is not None, "a session is open"
        outcome = self._outcome(convener.session.nonce)
        if outcome is not None:
            # Whoever declined has come after all: what is out is never lost.
            return self._absorb(outcome, now)
        lacks = convener.lacks(self._voids.values())
        if lacks and not late:
            return []
        if lacks:
            failed = self._closed(None, None)
            return failed + self._fail(f"no sum came out, and no void of {lacks}")
        try:
            evidence = convener.give_back(self._voids.values())
        except SecureAflError as error:
            return self._closed(None, None) + self._fail(str(error))
        closed = self._closed(None, evidence)
        if convener.attempt >= self._attempts:
            return closed + self._fail(f"no sum came out in {self._attempts} attempts")
        convener.invite()
        return closed + self._enter("inviting", now)

    def _enter(self, phase: Phase, now: float) -> list[Posted]:
        self._phase, self._since, self._again, self._pause = phase, now, now, REPEAT
        self._voids, self._declined = {}, set()
        self._save()
        return []

    def _finish(self) -> list[Posted]:
        self._phase = "finished"
        self._save()
        return self._letters()

    def _fail(self, problem: str) -> list[Posted]:
        """End the run without a model, or with the one that is there already."""
        planned = self._convener.planned
        if planned is not None and planned.server.complete:
            self._tell(f"the model stands without its evaluation: {problem}")
            return self._finish()
        self.problem = problem
        self._tell(f"the run has failed: {problem}")
        return self._finish()

    def _letters(self) -> list[Posted]:
        """Return what this phase has to say to those who have not answered."""
        convener = self._convener
        match self._phase:
            case "inviting":
                invitation = Invitation(convener.nonce, convener.round, convener.attempt)
                silent = [name for name in self._invited if name not in convener.members]
                return self._to(silent, lambda _: invitation)
            case "open":
                return self._to(self._session_names, self._opened)
            case "taking back":
                assert convener.session is not None
                request = TakeBack(convener.session.id)
                missing = [name for name in self._session_names if name not in self._voids]
                return self._to(missing, lambda _: request)
            case _:
                return self._to(self._invited, lambda name: self._end(name))

    def _opened(self, name: str) -> Opened:
        session, opening = self._convener.open()
        client = self._roster.by_name[name].role == CLIENT
        return Opened(
            encode(session.header),
            b"",
            None if client else tuple(session.members or ()),
            encode(opening.public),
            opening.history,
            None if opening.ended is None else EndedRound.of(opening.ended),
            opening.voids,
        )

    def _end(self, name: str) -> Finished:
        """Return the end of the run: the state is for clients, who make their models of it."""
        if self.problem or self._roster.by_name[name].role != CLIENT:
            return Finished(bool(self.problem), None, None, None)
        opening = self._convener.server.opening
        ended = None if opening.ended is None else EndedRound.of(opening.ended)
        return Finished(False, encode(opening.public), opening.history, ended)

    def _closed(self, release: Release | None, evidence: Evidence | None) -> list[Posted]:
        session = self._convener.session
        assert session is not None, "a session is open"
        closed = Closed(session.nonce, session.id, release, evidence)
        return self._to(self._session_names, lambda _: closed)

    def _to(self, names: Iterable[str], content: Callable[[str], Content]) -> list[Posted]:
        return [Posted(n, write(self._run, self._identity, n, content(n))) for n in names]

    def _enrol(self, sender: str, content: Hello) -> None:
        line, member, convener = self._roster.by_name[sender], content.member, self._convener
        if line.role not in self._roles:
            raise InvalidSession(
                f"'{sender}' was not invited: protocol '{self._protocol.name}' has no role "
                f"'{line.role}', allowed: {', '.join(sorted(self._roles))}"
            )
        if self._phase != "inviting" or sender in convener.members:
            return
        if content.nonce != convener.nonce:
            return  # the answer to an earlier invitation
        if member.line != line:
            raise InvalidSession(f"'{sender}' enrols as another party than it is on the roster")
        member.check(convener.nonce)
        if line.role == CLIENT and not 1 <= member.bound <= MAX_CLIENT_ROWS:
            self._declined.add(sender)  # nobody waits for another answer
            raise InvalidSession(
                f"'{sender}' declares a bound of {member.bound} rows, allowed: "
                f"1..{MAX_CLIENT_ROWS}",
                fix="the run goes on without it; let that site declare another max-rows",
            )
        convener.enrol(member)
        self._declined.discard(sender)
        self._tell(f"'{sender}' has enrolled, {len(convener.members)} so far")

    def _decline(self, sender: str, content: Declined) -> None:
        session = self._convener.session
        now = content.nonce, content.session
        asked = self._convener.nonce, b"" if session is None else session.id
        if now == asked and sender not in self._declined:
            self._declined.add(sender)
            self._tell(f"'{sender}' declined; its people know why")

    def _take_void(self, sender: str, void: Void) -> None:
        if self._phase == "taking back" and void.party == sender:
            self._convener.lacks([void])  # signed, and of this session
            self._voids[sender] = void

    @property
    def _invited(self) -> Collection[str]:
        return [line.name for line in self._roster.lines if line.role in self._roles]

    @property
    def _session_names(self) -> Collection[str]:
        return list(self._convener.members)

    def _save(self) -> None:
        self._keep(self.save())

    def _unusable(self, what: str) -> BadSavedState:
        return BadSavedState(
            f"what the convener remembers: {what}",
            party=self._identity.name,
            fix="start it with the settings that the run began with, or leave the run: "
            "secure-afl party --leave",
        )
