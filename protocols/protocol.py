"""What a protocol offers to whoever wants a sum: a name, its terms, its trust, and its parties."""

import secrets
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from protocols.codec import Wire, encode
from protocols.errors import InvalidSession
from protocols.identity import NONCE_BYTES, Enrolment, Identity
from protocols.layout import Layout
from protocols.party import Entropy, Party, Vector
from protocols.session import CLIENT, WIRE_VERSION, Session
from protocols.spool import Spool


class Protocol(Wire, frozen=True):
    """A way to sum vectors; its fields are the parameters that all parties must agree on.

    Attributes:
        name: as in `Session.protocol` and on the command line.
        protects: one sentence for reports: what is hidden, from whom, and under which condition.
        hides_vectors: no single party sees a client's vector.
        parties: the class of party that plays each role.
        upload_step: the step in which a client's vector travels; one that vanishes there is left
            out, having taken part in everything before.
    """

    name: ClassVar[str]
    protects: ClassVar[str]
    hides_vectors: ClassVar[bool] = True
    parties: ClassVar[Mapping[str, type[Party]]]
    upload_step: ClassVar[str]

    @abstractmethod
    def coordinators(self) -> Mapping[str, str]:
        """Default name to role of every party that is not a client, in the order they start."""

    def colluders(self, clients: int) -> int:
        """How many of so many clients may tell a coordinator what they know, by its parameters."""
        return 0

    def client(
        self,
        session: Session,
        enrolment: Enrolment,
        vector: Vector,
        *,
        entropy: Entropy = secrets.token_bytes,
    ) -> Party:
        """A client of the session. Raises InvalidSession unless `check` is content."""
        self.check(session)
        return self.parties[CLIENT](session, enrolment, vector, entropy=entropy)

    def coordinator(
        self,
        session: Session,
        enrolment: Enrolment,
        *,
        spool: Spool | None = None,
        entropy: Entropy = secrets.token_bytes,
    ) -> Party:
        """A coordinator of the session, in the role that the roster gives it.

        `spool` is where it may keep bulky messages; by default in memory, which a restart loses.

        Raises:
            InvalidSession: `check` is not content, or the enrolment is no coordinator's.
        """
        self.check(session)
        role = enrolment.member.role
        if role == CLIENT or role not in self.parties:
            raise InvalidSession(
                f"'{role}' is no coordinator's role, allowed: {sorted(self.coordinators())}",
                party=enrolment.member.name,
            )
        return self.parties[role](session, enrolment, spool=spool, entropy=entropy)

    def check(self, session: Session) -> None:
        """Raise InvalidSession unless the session is one of this protocol with these parameters."""
        if session.protocol != self.name or session.parameters != encode(self):
            raise InvalidSession(
                f"the session's protocol is '{session.protocol}', this party's '{self.name}', or "
                "their parameters differ",
                fix="give all parties the same protocol and parameters",
            )
        roles = sorted(member.role for member in session.roster if member.role != CLIENT)
        if roles != sorted(self.coordinators().values()):
            raise InvalidSession(
                f"coordinators {roles}, wanted {sorted(self.coordinators().values())}",
                fix="enrol exactly the coordinators that the protocol names",
            )


def new_nonce() -> bytes:
    """A nonce for a session that is about to be formed."""
    return secrets.token_bytes(NONCE_BYTES)


def enrol(
    protocol: Protocol,
    clients: Mapping[str, Identity],
    nonce: bytes,
    coordinators: Mapping[str, Identity] | None = None,
) -> dict[str, Enrolment]:
    """Enrol clients, and coordinators as the protocol wants them, for one session.

    Args:
        coordinators: identity by the protocol's default name; without one, a new identity.

    Returns:
        Enrolment by the party's own name, clients first.

    Raises:
        InvalidSession: a client has the name of a coordinator.
    """
    enrolments = {name: identity.enrol(CLIENT, nonce) for name, identity in clients.items()}
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
    enrolments: Mapping[str, Enrolment],
    nonce: bytes,
    layout: Layout,
    *,
    min_cohort: int,
    corrupt: int = 0,
    context: bytes = bytes(32),
) -> Session:
    """The session of these parties. Raises InvalidSession or BadKey."""
    return Session(
        version=WIRE_VERSION,
        protocol=protocol.name,
        parameters=encode(protocol),
        nonce=nonce,
        roster=tuple(enrolment.member for enrolment in enrolments.values()),
        layout=layout,
        min_cohort=min_cohort,
        corrupt=corrupt,
        context=context,
    )
