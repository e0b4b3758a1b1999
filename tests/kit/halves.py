"""Both halves of a federation, with rounds that a test opens, bends and runs itself."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from protocols import Enrolment, Identity, Network, Party, Session, Sum, enrol, new_nonce
from protocols.layout import Integers
from protocols.release import Release, release_salt, sign_release
from protocols.roster import Line, Roster
from secure_afl.analytic.rows import ClientData
from secure_afl.federation.client import FederationClient
from secure_afl.federation.rounds.history import Ended, Opening
from secure_afl.federation.server import FederationCoordinator, FederationServer
from secure_afl.federation.task import Terms
from secure_afl.methods import PublicState, Task


class Halves:
    """A server and the identities of everybody; clients declare `max_rows` each.

    Attributes:
        server: of the task; a test may move it on, or put another in its place.
        roster: of all parties, for whoever pins it.
    """

    def __init__(
        self,
        terms: Terms,
        task: Task,
        clients: Sequence[ClientData],
        *,
        max_rows: int = 32,
        min_cohort: int = 2,
        corrupt: int = 0,
        **server: Any,
    ) -> None:
        self.terms = terms
        self.clients = {client.name: client for client in clients}
        self.max_rows = max_rows
        self.min_cohort, self.corrupt = min_cohort, corrupt
        self._server = server
        self.task = task
        self.meet(
            {name: Identity.generate(name) for name in self.clients},
            {name: Identity.generate(name) for name in terms.protocol.coordinators()},
        )

    def meet(self, clients: Mapping[str, Identity], coordinators: Mapping[str, Identity]) -> None:
        """Begin the run anew among parties with these identities, who pin one another."""
        self.identities, self.coordinators = dict(clients), dict(coordinators)
        roles = self.terms.protocol.coordinators()
        lines = [Line(i.name, "client", i.verify_key) for i in clients.values()]
        lines += [Line(n, roles[n], i.verify_key) for n, i in coordinators.items()]
        self.roster = Roster.of(lines)
        self.server = FederationServer(self.terms, self.task, roster=self.roster, **self._server)
        self.carriers = {
            name: FederationCoordinator(
                name, self.terms, self.roster, same_set=self._server.get("same_set", False)
            )
            for name in coordinators
        }

    @property
    def opening(self) -> Opening:
        return self.server.opening

    def form(self, names: Sequence[str] | None = None) -> tuple[Session, dict[str, Enrolment]]:
        """The session of the server's next round, over all clients or these."""
        nonce = new_nonce()
        present = {name: self.identities[name] for name in names or self.identities}
        bounds = dict.fromkeys(present, self.max_rows)
        enrolments = enrol(self.terms.protocol, present, nonce, self.coordinators, bounds)
        members = [enrolment.member for enrolment in enrolments.values()]
        session = self.server.form(members, nonce, self.min_cohort, self.corrupt)
        assert session is not None, "there is a next round"
        return session, enrolments

    def client(self, name: str, kind: type[Any] = FederationClient, **wishes: Any) -> Any:
        """A client's half, with what it insists on."""
        return kind(self.terms, self.clients[name], self.max_rows, **wishes)

    def carry(
        self,
        session: Session,
        enrolments: Mapping[str, Enrolment],
        members: Mapping[str, FederationClient],
        opening: Opening | None = None,
    ) -> tuple[Sum, Release, bytes]:
        """Run a round among honest coordinators and these clients."""
        opening = opening or self.opening
        parties: list[Party] = [
            carrier.join(session, enrolments[name], opening)
            for name, carrier in self.carriers.items()
        ]
        parties += [
            member.join(session, enrolments[name], opening) for name, member in members.items()
        ]
        network = Network(parties)
        return network.run(), network.release, network.release_salt

    def pretend(
        self,
        public: PublicState,
        session: Session,
        total: Integers | None = None,
        included: Sequence[str] = (),
    ) -> None:
        """Move the server on to a state, over a sum that the collector says was released."""
        (name,) = session.of_role(self.terms.protocol.receiver_role)
        if total is None:
            total = np.zeros(session.layout.length, dtype=np.int64)
        collector = self.coordinators[name]
        release = sign_release(session, collector, total, included or session.clients)
        ended = Ended(self.server.public, total, release_salt(session, collector))
        self.server.public = public
        self.server.history = self.server.history.then(release, public)
        self.server._ended = ended
