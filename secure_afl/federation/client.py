"""A federation: a method's rounds, each carried by a session of a protocol.

The server half and the client half know nothing of each other but what crosses between them: the
public state, the session, and the parties' messages. A driver joins them: `simulation` in one
process, a transport between many.
"""

import time
from collections.abc import Mapping

from protocols.codec import encode
from protocols.errors import InvalidSession
from protocols.identity import Enrolment
from protocols.layout import Integers
from protocols.message import derive
from protocols.party import Party
from protocols.session import Session
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError, DataError
from secure_afl.federation.sums import context, sum_layout, this_noisy_sum
from secure_afl.federation.task import Terms
from secure_afl.methods.method import Memory, PublicState, Task
from secure_afl.methods.model import Model
from secure_afl.privacy.ledger import Charge, Ledger


class FederationClient:
    """One client's half: its rows, the bound that it declares on them, and its memory.

    Args:
        terms: method, protocol, and the promise that this client wants kept: it joins nothing that
            promises anything else; without one it takes part in exact sums only.
        known: role and signing key by name that this client has pinned; it then joins no session
            with anybody else. None trusts whoever forms the sessions.
        min_cohort, corrupt: the least that this client accepts in a session's terms: whoever
            forms a session chooses its cohort, and would choose one victim and its own clients.
        ledger: of what was released about this client's data; it is asked before any part in a
            session. None keeps no account.
        lineage: what the ledger knows these data by; by default the client's name.

    Raises:
        DataError: more rows than the bound.
    """

    def __init__(
        self,
        terms: Terms,
        data: ClientData,
        max_rows: int,
        known: Mapping[str, tuple[str, bytes]] | None = None,
        *,
        min_cohort: int = 2,
        corrupt: int = 0,
        ledger: Ledger | None = None,
        lineage: str | None = None,
    ) -> None:
        if len(data) > max_rows:
            # How many more may be private.
            raise DataError(
                f"client '{data.name}' has more rows than {max_rows}, the bound that it declares; "
                "pass a larger --max-rows"
            )
        self.method = terms.method
        self.protocol = terms.protocol
        self.privacy = terms.privacy
        self.data = data
        self.max_rows = max_rows
        self.known = known
        self.min_cohort = min_cohort
        self.corrupt = corrupt
        self.ledger = ledger
        self.lineage = data.name if lineage is None else lineage
        self._task: Task | None = None
        self._joined: dict[bytes, bytes] = {}
        self.memory: Memory = {}
        self.statistics_seconds = 0.0

    def join(self, session: Session, enrolment: Enrolment, public: PublicState) -> Party:
        """Return this client's party, once the session is for this round of this method.

        Raises:
            InvalidSession: the session's layout or context is not that of `public`, `public` has
                another bound for this client than it declared, the roster has a party that this
                client does not know, the task is another than at the first join, promises another
                privacy than this client wants or has too little noise for it, or the run has had
                all its rounds.
            LedgerRefusal: this client's data have been in too many sums already.
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
        if session.layout != sum_layout(self.method, public):
            raise InvalidSession("the session's layout is not this round's", party=name)
        if session.context != context(self.method, public):
            raise InvalidSession("the session is for another method or public state", party=name)
        if dict(public.task.max_rows).get(name) != self.max_rows:
            raise InvalidSession("the task has another bound on this client's rows", party=name)
        self._check_privacy(session, public)
        party = self.protocol.client(
            session, enrolment, lambda entropy: self.contribute(public, entropy)
        )
        self._count(session, public.task)
        # Last: what is refused costs nothing.
        if self.ledger is not None:
            self.ledger.authorise(self.lineage, session=session.id, **self.charge(public))
        return party

    def contribute(self, public: PublicState, entropy: bytes) -> Integers:
        """Return this client's vector for the round of `public`, with its share of the noise."""
        begin = time.perf_counter()
        # Rounding's generator is not one for secrets: its seed tells nothing of the noise.
        rounding = derive(entropy, b"", "rounding")
        vector = self.method.contribute(public, self.data, self.memory, rounding)
        self.statistics_seconds += time.perf_counter() - begin
        mechanism = public.task.mechanism
        if mechanism is None or mechanism.privacy.placement == "central":
            return vector
        return vector + self.noise(public, entropy)

    def noise(self, public: PublicState, entropy: bytes) -> Integers:
        """Draw this client's share of the noise in the round of `public`."""
        return this_noisy_sum(self.method, public).share(entropy)

    def personalise(self, public: PublicState) -> Model:
        """Return this client's own model."""
        return self.method.personalise(public, self.data, self.memory)

    def charge(self, public: PublicState) -> Charge:
        """Return what a sum of the round of `public` costs this client's data."""
        task, mechanism = public.task, public.task.mechanism
        terms = Charge(
            run=task.run,
            rounds=self.method.sums,
            mu=None,
            distance=0.0,
            unit="example",
            neighbours="add-remove",
            mechanism="none: an exact sum",
        )
        if mechanism is None:
            return terms
        if mechanism.privacy.placement == "central":
            terms["mechanism"] = "none here: whoever decodes the exact sum adds the noise"
            return terms
        noisy = this_noisy_sum(self.method, public)
        return Charge(
            run=task.run,
            rounds=mechanism.rounds,
            mu=noisy.mu,
            distance=noisy.distance,
            unit=mechanism.privacy.unit,
            neighbours=mechanism.privacy.neighbours,
            mechanism=mechanism.describe(),
        )

    def _count(self, session: Session, task: Task) -> None:
        """Take part once in each of the run's sums, all of one task."""
        name = self.data.name
        if self._task is None:
            self._task = task
        if encode(task) != encode(self._task):
            raise InvalidSession("another task than in the rounds before", party=name)
        # Two sums of one round that differ by one client show that client.
        if self._joined.setdefault(session.context, session.id) != session.id:
            raise InvalidSession("this client has joined another session of this round", party=name)
        if len(self._joined) > self.method.sums:
            del self._joined[session.context]
            raise InvalidSession(
                f"the run has {self.method.sums} rounds, and this client has joined them all",
                party=name,
                fix="begin a new run",
            )

    def _check_privacy(self, session: Session, public: PublicState) -> None:
        """Trust nobody's promise but one's own, and nobody's arithmetic."""
        name, mechanism = self.data.name, public.task.mechanism
        promised = mechanism.privacy if mechanism is not None else None
        if promised != self.privacy:
            raise InvalidSession(
                f"the task promises {promised}, this client wants {self.privacy}", party=name
            )
        if mechanism is None:
            return
        if not self.protocol.hides_vectors and mechanism.shares > 1:
            raise InvalidSession(
                f"protocol '{self.protocol.name}' shows this client's vector, which has only one "
                f"of {mechanism.shares} shares of the noise",
                party=name,
            )
        try:
            this_noisy_sum(self.method, public).check()
        except ConfigError as error:
            raise InvalidSession(f"round {len(self._joined) + 1}: {error}", party=name) from None
        if mechanism.rounds < self.method.sums:
            raise InvalidSession(
                f"noise for {mechanism.rounds} sums, the method takes {self.method.sums}",
                party=name,
            )
        if mechanism.clients != len(session.clients):
            raise InvalidSession(
                f"noise from {mechanism.clients} clients, the session has {len(session.clients)}",
                party=name,
            )
        if session.min_cohort < mechanism.min_cohort or session.corrupt > mechanism.colluders:
            raise InvalidSession(
                f"noise for a minimum cohort of {mechanism.min_cohort} with {mechanism.colluders} "
                f"colluders, the session's are {session.min_cohort} and {session.corrupt}",
                party=name,
            )
