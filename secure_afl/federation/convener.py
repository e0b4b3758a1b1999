"""Whoever forms the sessions of a run: invites, opens, absorbs, and tries again what failed.

The convener needs public keys only, and does no I/O. A simulation calls its methods; between
machines letters do (`convening`).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from protocols.codec import encode
from protocols.identity import Member
from protocols.protocol import new_nonce
from protocols.roster import CLIENT
from protocols.session import Session
from protocols.void import Evidence, Void, Voids
from secure_afl.federation.participant import Outcome
from secure_afl.federation.rounds.history import Opening
from secure_afl.federation.server import FederationServer


class Planned(NamedTuple):
    """What a run is once the clients' bounds are known.

    Attributes:
        server: the half that keeps the public state.
        min_cohort, corrupt: of every session.
    """

    server: FederationServer
    min_cohort: int
    corrupt: int


class Convener:
    """The sequence of a run's sessions.

    Args:
        plan: makes the run of what each client declares, by name; called once, as the first
            session is formed.

    Attributes:
        planned: the run; None before its first session.
        bounds: what the clients of the first session declared.
        outside: entries of the last sum that break their bounds, by block.
        nonce, members: of the session that is enrolled or open.
        session: the one that is open; None before that.
    """

    def __init__(self, plan: Callable[[Mapping[str, int]], Planned]) -> None:
        self._plan = plan
        self.planned: Planned | None = None
        self.bounds: dict[str, int] = {}
        self.outside: tuple[tuple[str, int], ...] = ()
        self.nonce = b""
        self.members: dict[str, Member] = {}
        self.session: Session | None = None

    @property
    def server(self) -> FederationServer:
        """The server's half, once the run is planned."""
        assert self.planned is not None, "open a session first"
        return self.planned.server

    @property
    def round(self) -> int:
        """Number of the next round, or of the one that is open, from 1."""
        return 1 if self.planned is None else len(self.server.history.links) + 1

    @property
    def attempt(self) -> int:
        """Number of the next attempt, or of the one that is open, from 0."""
        return 0 if self.planned is None else len(self.server.opening.voids)

    @property
    def over(self) -> bool:
        """Whether no further sum is wanted."""
        return self.planned is not None and self.server.finished

    def invite(self) -> bytes:
        """Begin the enrolment of the next session; return its nonce."""
        self.nonce, self.members, self.session = new_nonce(), {}, None
        return self.nonce

    def enrol(self, member: Member) -> None:
        """Take an enrolment, the answer to `hello`; the first of a name stays."""
        self.members.setdefault(member.name, member)

    def plan(self) -> FederationServer:
        """Plan the run by what those declare who have enrolled, the first time; return its server.

        Raises:
            ConfigError: no task can be planned of this.
        """
        if self.planned is None:
            clients = [member for member in self.members.values() if member.role == CLIENT]
            self.bounds = self.bounds or {member.name: member.bound for member in clients}
            self.planned = self._plan(self.bounds)
        return self.planned.server

    def open(self) -> tuple[Session, Opening]:
        """Form the session of all who have enrolled; the same one each time.

        Raises:
            ConfigError, InvalidSession: no session can be formed of these.
        """
        server = self.plan()
        assert self.planned is not None, "planned just now"
        _, min_cohort, corrupt = self.planned
        if self.session is None:
            self.session = server.form(self.members.values(), self.nonce, min_cohort, corrupt)
        assert self.session is not None, "the run is not over"
        return self.session, server.opening

    def absorb(self, outcome: Outcome) -> None:
        """Move the public state on by a round's sum.

        Raises:
            BadSignature, InvalidSession, OutOfBoundsTotal: as `FederationServer.absorb`.
        """
        assert self.session is not None, "a session is open"
        self.server.absorb(self.session, *outcome)
        self.outside = outcome.released.outside

    def lacks(self, voids: Iterable[Void]) -> str:
        """Say in words whose voids are missing to try the round again; empty if none are.

        Raises:
            MessageRejected: a void that its party did not sign.
        """
        assert self.session is not None, "a session is open"
        signed = list(voids)
        parties = Voids.of(signed).parties(self.session) if signed else ()
        return self.server.protocol.void_lacks(self.session, parties)

    def give_back(self, voids: Iterable[Void]) -> Evidence:
        """Let the round be attempted again, for enough parties gave its session back.

        Raises:
            InvalidSession: too few, or the round has had its attempts.
        """
        assert self.session is not None, "a session is open"
        header = encode(self.session.header)
        evidence = Evidence(header, self.session.thin, Voids.of(voids))
        self.server.attempt_again(evidence)
        return evidence
