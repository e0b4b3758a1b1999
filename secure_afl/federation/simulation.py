"""A whole federation in one process: the driver for simulation, evaluation and tests."""

import logging
import secrets
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from protocols.errors import SessionAborted
from protocols.identity import Identity
from protocols.network import FaultPlan, Network
from protocols.party import ENTROPY_BYTES, Party
from protocols.protocol import Protocol
from protocols.roster import Roster
from protocols.session import Session
from secure_afl.analytic.quantise import RowMode
from secure_afl.analytic.rows import ClientData, check_clients, check_targets, number_labels
from secure_afl.data.classes import MAX_CLASSES
from secure_afl.data.columns import Columns
from secure_afl.errors import ConfigError, DataError, LedgerRefusal
from secure_afl.federation.accounts import dropped, given_back, note_released
from secure_afl.federation.convener import Convener, Planned
from secure_afl.federation.gathering import gather, open_session
from secure_afl.federation.keeping import Identities, Keeper, KeptSum, Standing, Start
from secure_afl.federation.keys import Keys
from secure_afl.federation.oracle import RecordingClient, is_exact
from secure_afl.federation.participant import Outcome, Participant
from secure_afl.federation.result import (
    Result,
    Round,
    measure_seconds,
    report_run,
    with_ranges,
)
from secure_afl.federation.rows import RunRows
from secure_afl.federation.scores import Scored, check_scored, score, score_private
from secure_afl.federation.server import FederationServer
from secure_afl.federation.task import Declared, Terms, check_rows_enough, plan_task
from secure_afl.methods.method import AnyMethod, Method, Own, PublicState, Task
from secure_afl.methods.model import Model
from secure_afl.privacy.ledger import Ledger
from secure_afl.privacy.mechanism import Privacy

log = logging.getLogger("secure_afl")


@dataclass(frozen=True, eq=False)
class FirstSession:
    """The first session of a run, before anybody has begun.

    Attributes:
        session: its terms.
        public: the state that everybody sees.
        parties: in the order in which they start.
        members: the clients by name; what each sent is kept there.
    """

    session: Session
    public: PublicState
    parties: list[Party]
    members: Mapping[str, RecordingClient]

    def __repr__(self) -> str:
        return f"<FirstSession of {len(self.parties)} parties>"


class Federation:
    """A whole federation in one process: real parties, real messages, one machine.

    Args:
        method: what is learned.
        protocol: who sees what while it is summed.
        feature_bits: rows become integers of norm ≤ 2^bits; by default the most, from 8 to 12,
            that the narrowest ring holds.
        row_mode, clip: how rows are brought to norm ≤ 1, see `Quantiser`.
        columns: what the features are, where rows are those of a table.
        min_cohort: least number of contributing clients; by default a majority.
        corrupt: declared number of clients that may work with whoever sees the sum.
        backbone: digest of what made the features, 32 bytes.
        keys: long-lived identities, and the roster that every client pins; by default new
            identities that nobody has pinned.
        privacy: what the run promises about single examples or clients; None adds no noise.
        same_set: sums of later rounds are over the clients of the first; by default in exact runs
            of many rounds below 50 clients.
        accept_outside: a sum with entries out of their bounds makes a model, which is marked; for
            methods of one sum.
        ledger, lineages: where the clients account for what is released about their data, and
            what it knows these by, per client's name; by default the name.
    """

    def __init__(
        self,
        method: AnyMethod,
        protocol: Protocol,
        *,
        feature_bits: int | None = None,
        row_mode: RowMode = "normalise",
        clip: float = 1.0,
        columns: Columns | None = None,
        min_cohort: int | None = None,
        corrupt: int = 0,
        backbone: bytes = bytes(32),
        keys: Keys | None = None,
        privacy: Privacy | None = None,
        same_set: bool | None = None,
        accept_outside: bool = False,
        ledger: Ledger | None = None,
        lineages: Mapping[str, str] | None = None,
    ) -> None:
        if not isinstance(method, Method) or not isinstance(protocol, Protocol):
            raise ConfigError(
                f"method {method!r} and protocol {protocol!r}; wanted instances, as in "
                "Federation(AFL(), Additive())"
            )
        if accept_outside and method.sums > 1:
            raise ConfigError(
                f"accept_outside with {method.sums} sums; allowed: with one, for a wrong sum among "
                "several would go into all that follow. Leave it out"
            )
        self.terms = Terms(method, protocol, privacy)
        self.feature_bits = feature_bits
        self.row_mode: RowMode = row_mode
        self.clip = clip
        self.columns = columns
        self.min_cohort = min_cohort
        self.corrupt = corrupt
        self.backbone = backbone
        self.keys = keys
        self.same_set = same_set
        self.accept_outside = accept_outside
        self.ledger = ledger
        self.lineages = lineages or {}

    def run(
        self,
        clients: Sequence[ClientData],
        *,
        classes: Sequence[str] | None = None,
        max_rows: int | None = None,
        test: ClientData | None = None,
        holdout: Sequence[ClientData] = (),
        drop: Collection[str] = (),
        plan: FaultPlan | None = None,
        record: bool = False,
        keeper: Keeper | None = None,
    ) -> Result:
        """Run all rounds and return the models.

        Args:
            clients: at least two.
            classes: names; by default "0" to the greatest label, or all words that are labels.
            max_rows: the public bound that every client declares; by default the next power of
                two of each client's own number of rows.
            test: rows to score the global model on.
            holdout: rows of clients' own, by client name, to score personal models on.
            drop: names of clients that vanish when their vectors should leave.
            plan: further faults of the network.
            record: keep transcripts.
            keeper: is told what cannot be made again; one that has sums of an earlier process is
                gone on from, with the same clients and settings.

        Raises:
            DataError, ConfigError: input or settings that cannot be used, before anything is sent.
            ProtocolError: a session that was refused or aborted.
            OutOfBoundsTotal: a sum whose entries break their bounds, for a client lied.
        """
        others = [*holdout, *([test] if test else [])]
        clients, others, classes = number_labels(clients, others, classes)
        holdout, test = others[: len(holdout)], others[-1] if test else None
        names = self._check_input(clients, classes, test, holdout, drop)
        kept = None if keeper is None else keeper.kept
        start = self._start(clients, names, max_rows) if kept is None else kept.start
        start.check(clients, names, self.backbone)
        declared, task = start.declared, start.task
        members = self._members(clients, declared)
        server = self._server(task, len(members))
        if kept is None or len(kept.sums) < self.terms.method.run_sums(task):
            self._ask_ledger(members, server.public, begun=bool(kept and kept.sums))
        plan = plan or FaultPlan()
        vanish = dict(plan.vanish) | dict.fromkeys(drop, self.terms.protocol.upload_step)
        plan = replace(plan, vanish=vanish)

        convener = Convener(lambda _: Planned(server, declared.min_cohort, self.corrupt))
        rounds, solve_seconds = self._rounds(start, convener, members, plan, record, keeper)
        for member in members.values():
            member.settle(server.history, rounds[-1].session.roster)
        begin = time.perf_counter()
        method = self.terms.method
        model = method.model(server.public)
        # What is known to be wrong somewhere is passed on to nobody.
        sound = not any(round_.released.outside for round_ in rounds)
        own = self._personal(server.public, members, holdout) if sound else {}
        solve_seconds += time.perf_counter() - begin

        learned = method.learned(server.public)
        summed = self._in_the_sum(server.public, rounds, members)
        rows = RunRows.of(method, task, learned.task, summed, test, holdout)
        scored = self._score(learned, model, own, rows)
        seconds = measure_seconds(rounds, members, solve_seconds)
        report = report_run(self.terms, declared, server.public, rounds, rows, scored, seconds)
        report = with_ranges(report, task.columns, learned.task.columns, summed)
        personal = {name: made.model for name, made in own.items()}
        return Result(method.learner, model, personal, rounds, learned, report)

    def first_session(
        self,
        clients: Sequence[ClientData],
        *,
        classes: Sequence[str] | None = None,
        max_rows: int | None = None,
    ) -> "FirstSession":
        """Form a run's first session and its parties, for whoever drives them in another way.

        Args:
            clients, classes, max_rows: as in `run`.

        Raises:
            DataError, ConfigError, ProtocolError: as in `run`.
        """
        clients, _, classes = number_labels(clients, (), classes)
        declared = self._declare(
            clients, self._check_input(clients, classes, None, (), ()), max_rows
        )
        members = self._members(clients, declared)
        server = self._server(plan_task(self.terms, declared), len(members))
        convener = Convener(lambda _: Planned(server, declared.min_cohort, self.corrupt))
        people = self._people(members)
        session, parties = open_session(convener, people, self.ledger)
        return FirstSession(session, server.public, parties, members)

    def _check_input(
        self,
        clients: Sequence[ClientData],
        classes: Sequence[str] | None,
        test: ClientData | None,
        holdout: Sequence[ClientData],
        drop: Collection[str],
    ) -> tuple[str, ...]:
        """Check all rows and names, and return the names of the classes."""
        scored = [*holdout, *([test] if test else [])]
        names = self._class_names(clients, classes)
        check_clients(clients, len(names))
        check_scored(scored, clients[0], len(names))
        for data in (*clients, *scored):
            check_targets(f"'{data.name}'", data, numeric=self.terms.method.numeric)
        if unknown := sorted(set(drop) - {data.name for data in clients}):
            raise ConfigError(f"drop names '{unknown[0]}', which is no client")
        rows = sum(len(data) for data in clients if data.name not in drop)
        check_rows_enough(self.terms, rows, clients[0].features.shape[1])
        return names

    def _declare(
        self, clients: Sequence[ClientData], classes: tuple[str, ...], max_rows: int | None
    ) -> Declared:
        bounds = self.terms.declared_rows(clients, max_rows)
        min_cohort = self.min_cohort
        if min_cohort is None:
            min_cohort = self.terms.default_cohort(len(clients))
        return Declared(
            dim=clients[0].features.shape[1],
            classes=classes,
            max_rows=tuple(zip((data.name for data in clients), bounds, strict=True)),
            backbone=self.backbone,
            min_cohort=min_cohort,
            corrupt=self.corrupt,
            feature_bits=self.feature_bits,
            row_mode=self.row_mode,
            clip=self.clip,
            columns=self.columns,
        )

    def _members(
        self, clients: Sequence[ClientData], declared: Declared
    ) -> dict[str, RecordingClient]:
        bounds = dict(declared.max_rows)
        return {
            data.name: RecordingClient(
                self.terms,
                data,
                bounds[data.name],
                self._pinned,
                classes=declared.classes,
                backbone=declared.backbone,
                min_cohort=declared.min_cohort,
                corrupt=self.corrupt,
                same_set=self._same_set(len(clients)),
                ledger=self.ledger,
                lineage=self.lineages.get(data.name),
            )
            for data in clients
        }

    def _start(
        self, clients: Sequence[ClientData], classes: tuple[str, ...], max_rows: int | None
    ) -> Start:
        """Plan a new run."""
        declared = self._declare(clients, classes, max_rows)
        task = plan_task(self.terms, declared)
        names = [data.name for data in clients]
        return Start.of(declared, task, None if self.keys else self._identities(names))

    def _rounds(
        self,
        start: Start,
        convener: Convener,
        members: Mapping[str, RecordingClient],
        plan: FaultPlan,
        record: bool,
        keeper: Keeper | None,
    ) -> tuple[list[Round], float]:
        """Run all blind sums; returns them, and the seconds that the server spent on them."""
        people = self._people(members, start.identities)
        rounds: list[Round] = []
        begin = time.perf_counter()
        if keeper is not None and keeper.kept is not None:
            convener.bounds = dict(start.declared.max_rows)
            halves = [person.half for person in people if person.name not in members]
            rounds += keeper.kept.restore(convener.plan(), members, halves)
        seconds = time.perf_counter() - begin
        while not convener.over:
            try:
                network = self._sum(start, convener, people, members, plan, record, keeper, rounds)
            except (SessionAborted, LedgerRefusal) as error:
                if not convener.server.complete:
                    raise
                log.warning("the model stands without its evaluation: %s", error)
                break
            session = rounds[-1].session
            noise = secrets.token_bytes(ENTROPY_BYTES)
            if keeper is not None:
                with dropped(self.ledger, session):
                    keeper.out(
                        KeptSum.of(rounds[-1], network, noise), Standing.of(session, members)
                    )
            note_released(self.ledger, session)
            begin = time.perf_counter()
            released, release = rounds[-1].released, network.release
            convener.absorb(Outcome(released, release, network.release_salt, noise))
            seconds += time.perf_counter() - begin
            for person in people:
                person.close(session.nonce, network.release, None)
        return rounds, seconds

    def _sum(
        self,
        start: Start,
        convener: Convener,
        people: Sequence[Participant],
        members: Mapping[str, RecordingClient],
        plan: FaultPlan,
        record: bool,
        keeper: Keeper | None,
        rounds: list[Round],
    ) -> Network:
        """Form the next blind sum, and add it to the rounds; returns the network of its parties."""
        session, parties = open_session(
            convener,
            people,
            self.ledger,
            lambda session: None if keeper is None else keeper.opening(start, session),
        )
        network = Network(parties, plan, record=record)
        with given_back(self.ledger, self.terms.protocol, network):
            rounds.append(self._round(session, convener.server.public, network, members))
        log.info("round %d: %r", len(rounds), rounds[-1].released)
        return network

    def _people(
        self, members: Mapping[str, RecordingClient], identities: Identities | None = None
    ) -> list[Participant]:
        """Make everybody's side of the run, coordinators first."""
        return gather(
            self.terms,
            members,
            *(identities or self._identities(members)),
            pinned=self._pinned,
            same_set=self._same_set(len(members)),
        )

    def _ask_ledger(
        self, members: Mapping[str, RecordingClient], public: PublicState, *, begun: bool
    ) -> None:
        """Ask for all clients first: a run that one refuses should cost the others nothing."""
        if self.ledger is not None:
            for member in members.values():
                known = member.known_by(public.task)
                charge = member.charge(public) if begun else member.whole_charge(public)
                self.ledger.check(member.lineage, rows=known.rows, alike=known.alike, **charge)

    def _identities(self, names: Iterable[str]) -> tuple[dict[str, Identity], dict[str, Identity]]:
        """Return the identities of clients and of coordinators, for all rounds of a run."""
        protocol = self.terms.protocol
        if self.keys is not None:
            return self.keys.clients(list(names)), self.keys.coordinators(protocol)
        return {name: Identity.generate(name) for name in names}, {
            name: Identity.generate(name) for name in protocol.coordinators()
        }

    def _round(
        self,
        session: Session,
        public: PublicState,
        network: Network,
        members: Mapping[str, RecordingClient],
    ) -> Round:
        released = network.run()
        recorded = network.transcript is not None
        return Round(
            session,
            public,
            released,
            network.receivers,
            is_exact(self.terms.method, public, released, members),
            network.sent_bytes,
            network.seconds,
            network.transcript,
            {name: member.added_noise for name, member in members.items()} if recorded else {},
        )

    def _server(self, task: Task, clients: int) -> FederationServer:
        return FederationServer(
            self.terms,
            task,
            roster=self._pinned,
            same_set=self._same_set(clients),
            accept_outside=self.accept_outside,
        )

    def _same_set(self, clients: int) -> bool:
        return self.terms.keeps_same_set(clients) if self.same_set is None else self.same_set

    @property
    def _pinned(self) -> Roster | None:
        return self.keys.roster if self.keys else None

    def _personal(
        self,
        public: PublicState,
        members: Mapping[str, RecordingClient],
        holdout: Sequence[ClientData],
    ) -> dict[str, Own]:
        """Return the clients' own models; each may look at its own holdout."""
        held = {data.name: data for data in holdout}
        return {
            name: member.personalise(public, held.get(name)) for name, member in members.items()
        }

    def _score(
        self, public: PublicState, model: Model, own: Mapping[str, Own], rows: RunRows
    ) -> Scored:
        if self.terms.privacy is not None:
            return score_private(public, model, rows.test)
        learner = self.terms.method.learner
        return score(learner, public, model, own, rows.included, rows.test, rows.held_out)

    def _in_the_sum(
        self, public: PublicState, rounds: Sequence[Round], members: Mapping[str, RecordingClient]
    ) -> list[ClientData]:
        """Return all rows of the clients in the model's last sum, as they came."""
        sums = self.terms.method.model_sums(public, len(rounds))
        return [members[name].data for name in rounds[:sums][-1].released.included]

    def _class_names(
        self, clients: Sequence[ClientData], classes: Sequence[str] | None
    ) -> tuple[str, ...]:
        if classes is None and self.terms.privacy is not None:
            raise ConfigError("no class names, and labels are private; pass classes=")
        if len(clients) < 2:
            raise DataError(
                f"{len(clients)} clients; a federation needs ≥ 2, for one client's sum is its data"
            )
        if classes is not None:
            if len(set(classes)) != len(classes) or not all(isinstance(c, str) for c in classes):
                raise DataError(f"classes {list(classes)}: wanted different strings")
            return tuple(classes)
        greatest = max(int(data.labels.max(initial=0)) for data in clients)
        if greatest >= MAX_CLASSES:
            raise DataError(f"label {greatest} is out of range; allowed: 0..{MAX_CLASSES - 1}")
        return tuple(str(label) for label in range(greatest + 1))
