"""A federation: a method's rounds, each carried by a session of a protocol.

The server half and the client half know nothing of each other but what crosses between them: the
public state, the session, and the parties' messages. A driver joins them: `simulation` in one
process, a transport between many.
"""

import hashlib
import time
from collections.abc import Mapping

from protocols.codec import encode
from protocols.errors import InvalidSession
from protocols.identity import Enrolment
from protocols.layout import Integers
from protocols.party import Party, Sum
from protocols.protocol import Protocol, form_session
from protocols.session import Session
from secure_afl.clients import ClientData
from secure_afl.errors import DataError
from secure_afl.methods import AnyMethod, Memory, PublicState, Task
from secure_afl.model import Model


def context(method: AnyMethod, public: PublicState) -> bytes:
    """SHA-256 of what a round's sum is for: method, its parameters, and the public state."""
    return hashlib.sha256(encode(("secure-afl/1 context", method, public))).digest()


class FederationServer:
    """The coordinators' half: the public state, and the sessions of its rounds."""

    def __init__(self, method: AnyMethod, protocol: Protocol, task: Task) -> None:
        self.method = method
        self.protocol = protocol
        self.public = method.begin(task)

    def form(
        self, enrolments: Mapping[str, Enrolment], nonce: bytes, min_cohort: int, corrupt: int
    ) -> Session | None:
        """The session of the next round; None when there is no next."""
        layout = self.method.layout(self.public)
        if layout is None:
            return None
        return form_session(
            self.protocol,
            enrolments,
            nonce,
            layout,
            min_cohort=min_cohort,
            corrupt=corrupt,
            context=context(self.method, self.public),
        )

    def absorb(self, released: Sum) -> None:
        """Move the public state on by a round's sum."""
        self.public = self.method.absorb(self.public, released.total, released.included)


class FederationClient:
    """One client's half: its rows, the bound that it declares on them, and its memory.

    Args:
        known: role and signing key by name that this client has pinned; it then joins no session
            with anybody else. None trusts whoever forms the sessions.
        min_cohort, corrupt: the least that this client accepts in a session's terms: whoever
            forms a session chooses its cohort, and would choose one victim and its own clients.

    Raises:
        DataError: more rows than the bound.
    """

    def __init__(
        self,
        method: AnyMethod,
        protocol: Protocol,
        data: ClientData,
        max_rows: int,
        known: Mapping[str, tuple[str, bytes]] | None = None,
        *,
        min_cohort: int = 2,
        corrupt: int = 0,
    ) -> None:
        if len(data) > max_rows:
            raise DataError(
                f"client '{data.name}' has {len(data)} rows, allowed: ≤ {max_rows}, the bound that "
                "it declares; pass a larger --max-rows"
            )
        self.method = method
        self.protocol = protocol
        self.data = data
        self.max_rows = max_rows
        self.known = known
        self.min_cohort = min_cohort
        self.corrupt = corrupt
        self._joined: dict[bytes, bytes] = {}
        self.memory: Memory = {}
        self.statistics_seconds = 0.0

    def join(self, session: Session, enrolment: Enrolment, public: PublicState) -> Party:
        """This client's party, once the session is for this round of this method.

        Raises:
            InvalidSession: the session's layout or context is not that of `public`, `public` has
                another bound for this client than it declared, or the roster has a party that
                this client does not know.
        """
        name = self.data.name
        if self.known is not None:
            session.check_known(self.known)
        if session.min_cohort < self.min_cohort or session.corrupt < self.corrupt:
            raise InvalidSession(
                f"minimum cohort {session.min_cohort} with {session.corrupt} declared corrupt; "
                f"this client wants ≥ {self.min_cohort} and ≥ {self.corrupt}",
                party=name,
            )
        if session.layout != self.method.layout(public):
            raise InvalidSession("the session's layout is not this round's", party=name)
        if session.context != context(self.method, public):
            raise InvalidSession("the session is for another method or public state", party=name)
        if dict(public.task.max_rows).get(name) != self.max_rows:
            raise InvalidSession("the task has another bound on this client's rows", party=name)
        # Two sums of one round that differ by one client show that client.
        if self._joined.setdefault(session.context, session.id) != session.id:
            raise InvalidSession("this client has joined another session of this round", party=name)
        return self.protocol.client(
            session, enrolment, lambda entropy: self.contribute(public, entropy)
        )

    def contribute(self, public: PublicState, entropy: bytes) -> Integers:
        """This client's vector for the round of `public`."""
        begin = time.perf_counter()
        vector = self.method.contribute(public, self.data, self.memory, entropy)
        self.statistics_seconds += time.perf_counter() - begin
        return vector

    def personalise(self, public: PublicState) -> Model:
        """This client's own model."""
        return self.method.personalise(public, self.data, self.memory)
