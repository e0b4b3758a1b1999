"""What a protocol declares to whoever wants a sum: its name, its terms, its trust, its parties."""

import secrets
from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from protocols.codec import WIRE_VERSION, Wire, decode, encode
from protocols.errors import InvalidSession
from protocols.identity import NONCE_BYTES, Enrolment, Identity, Member
from protocols.layout import Layout
from protocols.party import Entropy, Party, Vector
from protocols.registry import Registry
from protocols.roster import CLIENT, Line, Roster
from protocols.session import Session, SessionHeader, enrolments_digest
from protocols.spool import Spool
from protocols.void import Evidence


@dataclass(frozen=True)
class Coalition:
    """Coordinators of a protocol that may work together, and what their records open.

    Attributes:
        name: as on the command line and in reports; protocols may share one.
        title: the name in words.
        meaning: one sentence on who it is and what it has under this protocol.
        parties: names of its members; a protocol's default names.
        opens: `nothing` of the vectors, the `sum` that is released, or single `vectors`: then the
            coalition breaks the protocol.
        clients: how many of the last clients work with it.
        swept: it is one coordinator by itself, whose successes make the attack suite's curves.
    """

    name: str
    title: str
    meaning: str
    parties: tuple[str, ...]
    opens: Literal["nothing", "sum", "vectors"]
    clients: int = 0
    swept: bool = False


class Protocol(Wire, frozen=True):
    """A way to sum vectors, with the parameters that all parties must agree on.

    The parameters are the fields.

    A field that has a description is a setting: it is a flag, a key of run.toml and a property of
    the JSON Schema. Modules of protocols import neither scipy nor tenseal when they are imported.

    Attributes:
        name: as in `Session.protocol` and on the command line.
        summary: a clause for help texts: who sees what while the sum is formed.
        protects: one sentence for reports: what is hidden, from whom, and under which condition.
        hides_vectors: no single party sees a client's vector.
        receiver_role: the role that receives the sum; one coordinator has it.
        receiver_title: the receiver in words, for reports.
        upload_step: the step in which a client's vector travels; one that vanishes there is left
            out, having taken part in everything before.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    protects: ClassVar[str]
    hides_vectors: ClassVar[bool] = True
    receiver_role: ClassVar[str]
    receiver_title: ClassVar[str] = "the server"
    upload_step: ClassVar[str]

    @classmethod
    @abstractmethod
    def parties(cls) -> Mapping[str, type[Party]]:
        """Import and return the class of party that plays each role."""

    @abstractmethod
    def coordinators(self) -> Mapping[str, str]:
        """Return the default name and the role of every coordinator, in starting order.

        A coordinator is a party that is not a client.
        """

    @abstractmethod
    def coalitions(self) -> tuple[Coalition, ...]:
        """List the sets of coordinators that an attacker may be, weakest first."""

    @property
    def receiver(self) -> str:
        """Default name of the coordinator that receives the sum."""
        roles = self.coordinators().items()
        return next(name for name, role in roles if role == self.receiver_role)

    def colluders(self, clients: int) -> int:
        """Return how many clients may tell a coordinator what they know, by the parameters."""
        return 0

    def advice(self, clients: int) -> tuple[str, ...]:
        """List what a report's reader should know of these parameters.

        The advice is for so many clients.
        """
        return ()

    def void_lacks(self, session: Session, signed: Collection[str]) -> str:
        """Say in words whose voids are missing to give a session back; empty if none are.

        By default those of all coordinators: without a message of one of them there is no sum.
        """
        names = [member.name for member in session.header.coordinators]
        return ", ".join(name for name in names if name not in signed)

    def client(
        self,
        session: Session,
        enrolment: Enrolment,
        vector: Vector,
        *,
        entropy: Entropy = secrets.token_bytes,
    ) -> Party:
        """Make a client of the session.

        Raises:
            InvalidSession: `check` is not content, or the roster has no such client.
        """
        self.check(session)
        return self.parties()[CLIENT](session, enrolment, vector, entropy=entropy)

    def coordinator(
        self,
        session: Session,
        enrolment: Enrolment,
        *,
        spool: Spool | None = None,
        entropy: Entropy = secrets.token_bytes,
    ) -> Party:
        """Make a coordinator of the session, in the role that the roster gives it.

        `spool` is where it may keep bulky messages; by default in memory, which a restart loses.

        Raises:
            InvalidSession: `check` is not content, or the enrolment is no coordinator's.
        """
        self.check(session)
        if session.members is None:
            raise InvalidSession(
                "a coordinator needs the clients' enrolments", party=enrolment.member.name
            )
        role = enrolment.member.role
        parties = self.parties()
        if role == CLIENT or role not in parties:
            raise InvalidSession(
                f"'{role}' is no coordinator's role, allowed: {sorted(self.coordinators())}",
                party=enrolment.member.name,
            )
        return parties[role](session, enrolment, spool=spool, entropy=entropy)

    def check(self, session: Session) -> None:
        """Raise InvalidSession unless the session is one of this protocol with these parameters."""
        if session.protocol != self.name or session.parameters != encode(self):
            raise InvalidSession(
                f"the session's protocol is '{session.protocol}', this party's '{self.name}', or "
                "their parameters differ",
                fix="give all parties the same protocol and parameters",
            )
        roles = sorted(member.role for member in session.header.coordinators)
        if roles != sorted(self.coordinators().values()):
            raise InvalidSession(
                f"coordinators {roles}, wanted {sorted(self.coordinators().values())}",
                fix="enrol exactly the coordinators that the protocol names",
            )


PROTOCOLS: Registry[Protocol] = Registry(
    "protocol", Protocol, ("protocols.schemes",), "secure_afl.protocols"
)


def roles() -> tuple[str, ...]:
    """List every role that a party can have, the client's first."""
    found = dict.fromkeys([CLIENT])
    for protocol in PROTOCOLS.values():
        found |= dict.fromkeys(protocol().coordinators().values())
    return tuple(found)


def receiver_of(protocol: Protocol, session: Session) -> Line:
    """Return the roster's line of the one party that receives a session's sum.

    Raises:
        InvalidSession: not one party has the receiver's role.
    """
    names = session.of_role(protocol.receiver_role)
    if len(names) != 1:
        raise InvalidSession(f"{len(names)} parties in role '{protocol.receiver_role}', wanted 1")
    return session.line(names[0])


def check_given_back(data: bytes, pinned: Roster | None) -> bytes:
    """Check evidence that a session was given back; returns the session's id, 32 bytes.

    Args:
        data: `Evidence`, canonically encoded.
        pinned: the roster whose parties are believed; None, for simulations, believes the
            evidence's own.

    Raises:
        Malformed, InvalidSession, BadSignature, UnknownSender: no evidence of parties that are
            pinned; or too few of them have given the session back, naming who is missing.
    """
    evidence = decode(data, Evidence)
    session = Session.read(evidence.header, pinned, thin=evidence.roster)
    protocol = decode(session.parameters, PROTOCOLS[session.protocol])
    protocol.check(session)
    if lacks := protocol.void_lacks(session, evidence.voids.parties(session)):
        raise InvalidSession(
            f"the session is not given back: {lacks} missing",
            fix="ask them for their voids; who has the sum, or helped to open it, signs none",
        )
    return session.id


def new_nonce() -> bytes:
    """Make a nonce for a session that is about to be formed."""
    return secrets.token_bytes(NONCE_BYTES)


def enrol(
    protocol: Protocol,
    clients: Mapping[str, Identity],
    nonce: bytes,
    coordinators: Mapping[str, Identity] | None = None,
    bounds: Mapping[str, int] | None = None,
) -> dict[str, Enrolment]:
    """Enrol clients, and coordinators as the protocol wants them, for one session.

    Args:
        coordinators: identity by the protocol's default name; without one, a new identity.
        bounds: what each client declares, by name; without one, 0.

    Returns:
        Enrolment by the party's own name, clients first.

    Raises:
        InvalidSession: a client has the name of a coordinator.
    """
    enrolments = {
        name: identity.enrol(CLIENT, nonce, (bounds or {}).get(name, 0))
        for name, identity in clients.items()
    }
    for name, role in protocol.coordinators().items():
        identity = (coordinators or {}).get(name) or Identity.generate(name)
        if identity.name in enrolments:
            raise InvalidSession(
                f"two parties have the name '{identity.name}', which is a coordinator's",
                fix="rename the client",
            )
        enrolments[identity.name] = identity.enrol(role, nonce)
    return enrolments


def form_session(
    protocol: Protocol,
    members: Iterable[Member],
    nonce: bytes,
    layout: Layout,
    *,
    min_cohort: int,
    corrupt: int = 0,
    context: bytes = bytes(32),
    round: int = 1,
    attempt: int = 0,
    void: bytes = b"",
    same_set: bytes = b"",
    roster: Roster | None = None,
) -> Session:
    """Make the session of these enrolments, as coordinators see it.

    Args:
        members: of all parties, in any order: public keys only.
        roster: the federation's; by default the roster of these parties.
        min_cohort, corrupt, context, round, attempt, void, same_set: see `SessionHeader`.

    Raises:
        InvalidSession: terms that no party may agree to, with the allowed range.
        BadKey: an enrolment that is not endorsed for this nonce.
    """
    ordered = sorted(members, key=lambda member: member.name)
    roster = Roster.of(ordered) if roster is None else roster
    clients = [member for member in ordered if member.role == CLIENT]
    header = SessionHeader(
        version=WIRE_VERSION,
        protocol=protocol.name,
        parameters=encode(protocol),
        nonce=nonce,
        layout=layout,
        min_cohort=min_cohort,
        corrupt=corrupt,
        round=round,
        attempt=attempt,
        void=void,
        context=context,
        same_set=same_set,
        coordinators=tuple(member for member in ordered if member.role != CLIENT),
        roster=roster.digest,
        participants=roster.bits(member.name for member in clients),
        enrolments=enrolments_digest(clients),
    )
    return Session(header, roster, clients)
