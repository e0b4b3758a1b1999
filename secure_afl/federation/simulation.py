"""A whole federation in one process: the driver for simulation, evaluation and tests."""

import logging
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from statistics import mean

import msgspec
import numpy as np

from protocols.errors import WouldOverflow
from protocols.identity import Enrolment, Identity
from protocols.layout import RING_BITS, Integers
from protocols.network import FaultPlan, Network, Transcript
from protocols.party import Sum
from protocols.protocol import Protocol, enrol, new_nonce
from protocols.session import Session
from secure_afl.analytic.quantise import MAX_BITS, Quantiser, RowMode
from secure_afl.analytic.rows import ClientData, check_clients, check_types, pooled
from secure_afl.analytic.statistics import Statistics
from secure_afl.data.dataset import MAX_CLASSES
from secure_afl.errors import ConfigError, DataError
from secure_afl.federation.client import FederationClient
from secure_afl.federation.keys import Keys
from secure_afl.federation.oracle import Watched
from secure_afl.federation.report import Bytes, Clients, PrivacyReport, Report, Seconds
from secure_afl.federation.scores import check_scored, score, score_private
from secure_afl.federation.server import FederationServer
from secure_afl.federation.sums import calibrated, noiseless, sum_layout
from secure_afl.federation.task import LEAST_DEFAULT_BITS, declared_rows, default_cohort
from secure_afl.federation.warnings import warnings
from secure_afl.methods import AnyMethod, Method, PublicState, Task
from secure_afl.methods.afl import DEFAULT_RIDGE, default_ridge
from secure_afl.methods.model import Model
from secure_afl.privacy.ledger import Ledger
from secure_afl.privacy.mechanism import Mechanism, Privacy

log = logging.getLogger("secure_afl")


@dataclass(frozen=True, eq=False)
class Round:
    """One blind sum, as the driver saw it.

    Attributes:
        session: its terms.
        public: the state that it began with, which everybody saw.
        released: the sum; without the noise where one party adds that afterwards (central).
        receivers: names of the parties that received it.
        exact: equal, bit for bit, to the included clients' vectors and noise added in the clear
            and, for row-additive methods, to the vector of their pooled rows and that noise.
        sent_bytes, seconds: of each party.
        transcript: of all parties, if asked for.
        noise: each client's share of it, by name, if a transcript was asked for.
    """

    session: Session
    public: PublicState
    released: Sum
    receivers: tuple[str, ...]
    exact: bool
    sent_bytes: Mapping[str, int]
    seconds: Mapping[str, float]
    transcript: Transcript | None
    noise: Mapping[str, Integers]


@dataclass(frozen=True, eq=False)
class Result:
    """What a federation yields.

    Attributes:
        model: the global model.
        personal: each client's own model, by name.
        rounds: every blind sum, in order.
        public: the state after the last, which everybody is given.
        report: what the run says about itself.
    """

    model: Model
    personal: Mapping[str, Model]
    rounds: Sequence[Round]
    public: PublicState
    report: Report

    def __repr__(self) -> str:
        return f"<Result {self.report.method} over {self.report.protocol}>"

    @property
    def statistics(self) -> Statistics:
        """The last sum as Gram, cross term and counts, for methods that sum those."""
        last = self.rounds[-1]
        return Statistics.unpack(last.released.total, last.session.layout)


class Federation:
    """A whole federation in one process: real parties, real messages, one machine.

    Args:
        method: what is learned.
        protocol: who sees what while it is summed.
        feature_bits: rows become integers of norm ≤ 2^bits; by default the most, from 8 to 12,
            that the narrowest ring holds.
        row_mode, clip: how rows are brought to norm ≤ 1, see `Quantiser`.
        min_cohort: least number of contributing clients; by default a majority.
        corrupt: declared number of clients that may work with whoever sees the sum.
        backbone: digest of what made the features, 32 bytes.
        keys: long-lived identities, and the roster that every client pins; by default new
            identities that nobody has pinned.
        privacy: what the run promises about single examples or clients; None adds no noise.
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
        min_cohort: int | None = None,
        corrupt: int = 0,
        backbone: bytes = bytes(32),
        keys: Keys | None = None,
        privacy: Privacy | None = None,
        ledger: Ledger | None = None,
        lineages: Mapping[str, str] | None = None,
    ) -> None:
        if not isinstance(method, Method) or not isinstance(protocol, Protocol):
            raise ConfigError(
                f"method {method!r} and protocol {protocol!r}; wanted instances, as in "
                "Federation(AFL(), Additive())"
            )
        self.method = method
        self.protocol = protocol
        self.feature_bits = feature_bits
        self.row_mode: RowMode = row_mode
        self.clip = clip
        self.min_cohort = min_cohort
        self.corrupt = corrupt
        self.backbone = backbone
        self.keys = keys
        self.privacy = privacy
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
    ) -> Result:
        """Run all rounds and return the models.

        Args:
            clients: at least two.
            classes: names; by default "0" to the greatest label.
            max_rows: the public bound that every client declares; by default the next power of
                two of each client's own number of rows.
            test: rows to score the global model on.
            holdout: rows of clients' own, by client name, to score personal models on.
            drop: names of clients that vanish when their vectors should leave.
            plan: further faults of the network.
            record: keep transcripts.

        Raises:
            DataError, ConfigError: input or settings that cannot be used, before anything is sent.
            ProtocolError: a session that was refused or aborted.
        """
        clients = list(clients)
        scored = [*holdout, *([test] if test else [])]
        check_types([*clients, *scored])
        names = self._class_names(clients, classes)
        check_clients(clients, len(names))
        check_scored(scored, clients[0], len(names))
        if unknown := sorted(set(drop) - {data.name for data in clients}):
            raise ConfigError(f"drop names '{unknown[0]}', which is no client")
        min_cohort = self.min_cohort
        if min_cohort is None:
            min_cohort = default_cohort(len(clients), self.privacy)
        task = self._task(clients, names, max_rows, min_cohort)
        bounds = dict(task.max_rows)
        known = self.keys.roster.known if self.keys else None
        members = {
            data.name: Watched(
                self.method,
                self.protocol,
                data,
                bounds[data.name],
                known,
                min_cohort=min_cohort,
                corrupt=self.corrupt,
                ledger=self.ledger,
                lineage=self.lineages.get(data.name),
                privacy=self.privacy,
            )
            for data in clients
        }
        server = FederationServer(self.method, self.protocol, task)
        if self.keys is None:
            identities = {name: Identity.generate(name) for name in members}
            coordinators = {}
        else:
            identities = self.keys.clients(list(members))
            coordinators = self.keys.coordinators(self.protocol)
        if self.ledger is not None:
            # All or none: a sum that one client refuses should cost the others nothing.
            for member in members.values():
                self.ledger.check(member.lineage, **member.charge(server.public))
        plan = plan or FaultPlan()
        vanish = dict(plan.vanish) | dict.fromkeys(drop, self.protocol.upload_step)
        plan = replace(plan, vanish=vanish)

        rounds: list[Round] = []
        solve_seconds = 0.0
        while True:
            nonce = new_nonce()
            enrolments = enrol(self.protocol, identities, nonce, coordinators)
            session = server.form(enrolments, nonce, min_cohort, self.corrupt)
            if session is None:
                break
            log.info("round %d: %r", len(rounds) + 1, session)
            rounds.append(self._round(session, enrolments, server, members, plan, record))
            log.info("round %d: %r", len(rounds), rounds[-1].released)
            begin = time.perf_counter()
            server.absorb(rounds[-1].released)
            solve_seconds += time.perf_counter() - begin

        begin = time.perf_counter()
        model = self.method.model(server.public)
        personal = {name: member.personalise(server.public) for name, member in members.items()}
        solve_seconds += time.perf_counter() - begin

        included = [members[name].data for name in rounds[-1].released.included]
        hides_rows = self.privacy is not None and not self.privacy.rows_are_public
        ridge = None
        if hasattr(self.method, "ridge"):
            ridge = default_ridge(task) if self.method.ridge is None else self.method.ridge
        rows = sum(len(data) for data in included)
        report = Report(
            method=self.method.name,
            protocol=self.protocol.name,
            protects=self.protocol.protects,
            session=rounds[-1].session.id.hex(),
            rounds=len(rounds),
            clients=Clients(len(members), len(included), len(members) - len(included)),
            examples=None if hides_rows else rows,
            feature_dim=task.feature_dim,
            classes=len(task.classes),
            feature_bits=task.quantiser.bits,
            ring_bits=rounds[-1].session.layout.ring_bits,
            max_rows=task.total_rows,
            min_cohort=min_cohort,
            ridge=ridge,
            exact=all(round_.exact for round_ in rounds),
            accuracy=(
                score_private(model, test)
                if self.privacy is not None
                else score(
                    model,
                    personal,
                    included,
                    task.quantiser,
                    DEFAULT_RIDGE if ridge is None else ridge,
                    test,
                    holdout,
                )
            ),
            bytes=Bytes(
                upload_per_client=_upload_per_client(rounds),
                plain_float64_per_client=8 * task.feature_dim * (task.feature_dim + len(names)),
            ),
            seconds=_seconds(rounds, members, solve_seconds),
            privacy=self._privacy_report(task, rounds[-1]),
            warnings=warnings(self.method, self.protocol, task, included),
        )
        return Result(model, personal, rounds, server.public, report)

    def _round(
        self,
        session: Session,
        enrolments: Mapping[str, Enrolment],
        server: FederationServer,
        members: Mapping[str, "Watched"],
        plan: FaultPlan,
        record: bool,
    ) -> Round:
        public = server.public
        coordinators = [
            self.protocol.coordinator(session, enrolments[name])
            for name in enrolments
            if name not in members
        ]
        parties = [
            member.join(session, enrolments[name], public) for name, member in members.items()
        ]
        network = Network([*coordinators, *parties], plan, record=record)
        released = network.run()
        return Round(
            session,
            public,
            released,
            network.receivers,
            self._is_exact(public, released, members),
            network.sent_bytes,
            network.seconds,
            network.transcript,
            {name: member.added_noise for name, member in members.items()} if record else {},
        )

    def _is_exact(
        self, public: PublicState, released: Sum, members: Mapping[str, "Watched"]
    ) -> bool:
        """The oracle: the sum in the clear, which only a simulation can form."""
        included = [members[name] for name in released.included]
        clear = np.sum([member.vector for member in included], axis=0)
        noise = np.sum([member.added_noise for member in included], axis=0)
        exact = np.array_equal(released.total, clear + noise)
        if self.method.row_additive:
            everybody = pooled([member.data for member in included])
            vector = self.method.contribute(public, everybody, {}, b"")
            exact = exact and np.array_equal(released.total, vector + noise)
        return exact

    def _privacy_report(self, task: Task, last: Round) -> PrivacyReport | None:
        mechanism = task.mechanism
        if mechanism is None:
            return None
        return PrivacyReport.of(mechanism, *noiseless(self.method, last.public))

    def _task(
        self,
        clients: Sequence[ClientData],
        classes: tuple[str, ...],
        max_rows: int | None,
        min_cohort: int,
    ) -> Task:
        bounds = tuple(
            zip(
                (data.name for data in clients),
                declared_rows(clients, max_rows, self.privacy),
                strict=True,
            )
        )
        dim = clients[0].features.shape[1]
        run = secrets.token_bytes(16)

        def task(bits: int) -> Task:
            quantiser = Quantiser(bits, self.row_mode, self.clip)
            exact = Task(dim, classes, quantiser, bounds, self.backbone, run)
            return exact if self.privacy is None else self._with_noise(exact, min_cohort)

        if self.feature_bits is not None:
            return task(self.feature_bits)
        if self.privacy is not None:
            # The noise needs a wider ring anyway, and rounding should not add to it.
            return task(MAX_BITS)
        for ring in RING_BITS:
            for bits in range(MAX_BITS, LEAST_DEFAULT_BITS - 1, -1):
                if self._ring_bits(task(bits)) <= ring:
                    return task(bits)
        raise ConfigError(
            f"no ring holds {sum(rows for _, rows in bounds)} rows; declare fewer with --max-rows"
        )

    def _with_noise(self, task: Task, min_cohort: int) -> Task:
        """The task with a mechanism calibrated to its sums."""
        assert self.privacy is not None, "noise is for privacy"
        clients = len(task.max_rows)
        dropouts = clients - min_cohort
        colluders = max(1, self.corrupt, self.protocol.colluders(clients))
        if not self.protocol.hides_vectors:
            # Who sees single vectors has one share of noise in each, as if all others had told.
            colluders = clients - dropouts - 1
        mechanism = Mechanism(
            self.privacy,
            rounds=self.method.sums,
            clients=clients,
            dropouts=dropouts,
            colluders=colluders,
        )
        return calibrated(self.method, msgspec.structs.replace(task, mechanism=mechanism))

    def _ring_bits(self, task: Task) -> float:
        try:
            layout = sum_layout(self.method, self.method.begin(task))
        except WouldOverflow:
            return inf
        assert layout is not None, "a method has at least one round"
        return layout.ring_bits

    def _class_names(
        self, clients: Sequence[ClientData], classes: Sequence[str] | None
    ) -> tuple[str, ...]:
        if classes is None and self.privacy is not None:
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


def _upload_per_client(rounds: Sequence[Round]) -> float:
    included = rounds[-1].released.included
    return mean(sum(round_.sent_bytes[name] for round_ in rounds) for name in included)


def _seconds(
    rounds: Sequence[Round], members: Mapping[str, FederationClient], solve: float
) -> Seconds:
    statistics = sum(member.statistics_seconds for member in members.values())
    clients = sum(round_.seconds[name] for round_ in rounds for name in members)
    everybody = sum(sum(round_.seconds.values()) for round_ in rounds)
    return Seconds(
        features=0.0,
        statistics=statistics,
        protect=clients - statistics,
        aggregate=everybody - clients,
        solve=solve,
    )
