"""An audit: how much of the promised ε can really be shown, through the whole pipeline.

The worst case that is promised: D clients drop out, T others tell the adversary their shares of the
noise, and the adversary knows everything but whether one canary is there. A canary is a row of full
length, and canaries are nearly orthogonal, so that one run carries many independent tests. The best
test is the likelihood ratio of all sums of the run; its ROC is Φ(Φ⁻¹(FPR) + μ). Beside it there are
tests of each block of each sum alone, which see noise that is missing somewhere, and of differences
between sums of one kind, which see noise that comes again. The lower bound on ε is that of Gaussian
differential privacy from Clopper-Pearson bounds on both error rates: of the first test with half of
the error probability, of all others together with the other half.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from protocols.codec import encode
from protocols.identity import Identity
from protocols.layout import Integers
from protocols.network import FaultPlan, Network
from protocols.protocol import Protocol
from protocols.schemes.additive.protocol import Additive
from secure_afl.analytic.quantise import MAX_BITS, Floats, Quantiser
from secure_afl.analytic.rows import ClientData, pooled
from secure_afl.checks import whole
from secure_afl.errors import ConfigError
from secure_afl.federation.convener import Convener, Planned
from secure_afl.federation.gathering import gather, open_session
from secure_afl.federation.oracle import RecordingClient
from secure_afl.federation.participant import Outcome
from secure_afl.federation.server import FederationServer
from secure_afl.federation.sums import calibrated, this_noisy_sum
from secure_afl.federation.task import Terms
from secure_afl.methods.afl import AFL
from secure_afl.methods.method import METHODS, AnyMethod, PublicState, Task
from secure_afl.privacy import accounting
from secure_afl.privacy.mechanism import Mechanism, Privacy
from secure_afl.progress import Progress
from secure_afl.tuning.canaries import Canaries, Canary, canaries_for

CONFIDENCE = 0.999
ALL_SUMS = "all sums"
_VICTIM = "victim"

Flags: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Audit:
    """The findings of an audit.

    Attributes:
        epsilon, delta: promised.
        lower_bound: on ε at that δ, with probability `confidence`.
        tests: canaries that were looked for.
        false_positive_rate, true_positive_rate: of the test that shows most.
        shown_by: that test.
        seconds: taken.
    """

    epsilon: float
    delta: float
    lower_bound: float
    confidence: float
    tests: int
    false_positive_rate: float
    true_positive_rate: float
    shown_by: str
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether the promise may be true."""
        return self.lower_bound <= self.epsilon


@dataclass(frozen=True)
class Cohort:
    """K clients: a victim, T that collude, D that drop out, and the rest.

    Attributes:
        clients, dropouts, colluders: K, D and T ≥ 1.

    Raises:
        ConfigError: a number out of range.
    """

    clients: int = 4
    dropouts: int = 1
    colluders: int = 1

    def __post_init__(self) -> None:
        whole("clients", self.clients, 2)
        whole("dropouts", self.dropouts, 0, self.clients)
        whole("colluders", self.colluders, 1, self.clients)

    @property
    def names(self) -> list[str]:
        """The victim first, then those who collude, those who stay, those who drop out."""
        return [_VICTIM, *(f"client_{i}" for i in range(1, self.clients))]

    @property
    def colluding(self) -> list[str]:
        """Names of those who tell."""
        return self.names[1 : 1 + self.colluders]

    @property
    def dropping(self) -> list[str]:
        """Names of those who vanish as their vectors should leave."""
        return self.names[self.clients - self.dropouts :]


_COHORT, _PROTOCOL, _METHOD = Cohort(), Additive(), AFL()


def audit(
    privacy: Privacy,
    *,
    tests: int = 100_000,
    cohort: Cohort = _COHORT,
    protocol: Protocol = _PROTOCOL,
    method: AnyMethod = _METHOD,
    corrupt: int | None = None,
    change: Callable[[Task], Task] = lambda task: task,
    member: type[RecordingClient] = RecordingClient,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Audit:
    """Look for canaries in real sums, as often as `tests` says.

    Args:
        privacy: the promise; of unit example or patient.
        cohort: who drops out and who colludes, as promised.
        method: what the clients contribute; one that is `auditable`.
        corrupt: clients that the sessions declare to be so, 0 to T; by default T. Sessions with
            none have noise for T = 1, for every client knows its own share.
        change, member: the task and the clients as they really are; for audits of audits.
        seed: of which canaries are there; noise and keys come from the system.

    Raises:
        ConfigError: another unit, noise that one party adds, or a method without canaries.
    """
    if privacy.unit == "client" or privacy.placement != "distributed":
        raise ConfigError(
            f"unit {privacy.unit}, placement {privacy.placement}; audits are of unit example "
            "or patient, placement distributed"
        )
    if not method.auditable:
        allowed = ", ".join(name for name, kind in METHODS.items() if kind.auditable)
        raise ConfigError(f"method {method.name} has no canaries; allowed: {allowed}")
    begin = perf_counter()
    rng = np.random.default_rng(seed)
    canaries = canaries_for(method, privacy, cohort.clients)
    trial = _Trial(
        change(_task(privacy, cohort, method, canaries)),
        cohort,
        protocol,
        method,
        member,
        cohort.colluders if corrupt is None else corrupt,
        canaries,
    )
    looked_for = 0
    counts: dict[str, Integers] = {}
    while looked_for < tests:
        there = rng.random(len(canaries.each)) < 0.5
        for name, ratios in _statistics(trial.release(there), there).items():
            # By whether the canary is there, and whether it is claimed to be.
            table = counts.setdefault(name, np.zeros((2, 2), dtype=np.int64))
            np.add.at(table, (there.astype(int), (ratios > 0).astype(int)), 1)
        looked_for += len(there)
        if progress is not None:
            progress("canaries", min(looked_for, tests), tests)
    bounds = _bounds(counts, privacy.delta, confidence)
    shown = max(bounds, key=lambda name: bounds[name])
    negatives, positives = (int(n) for n in counts[shown].sum(axis=1))
    return Audit(
        privacy.epsilon,
        privacy.delta,
        bounds[shown],
        confidence,
        looked_for,
        int(counts[shown][0, 1]) / negatives,
        int(counts[shown][1, 1]) / positives,
        shown,
        perf_counter() - begin,
    )


def _bounds(counts: Mapping[str, Integers], delta: float, confidence: float) -> dict[str, float]:
    """Return the lower bound on ε that each test shows, all of them true with the confidence."""
    others = max(1, len(counts) - 1)
    found = {}
    for name, table in counts.items():
        miss = (1 - confidence) / 2 / (1 if name == ALL_SUMS else others)
        (false_positives, true_positives) = (int(n) for n in table[:, 1])
        negatives, positives = (int(n) for n in table.sum(axis=1))
        found[name] = accounting.audited_epsilon(
            false_positives, negatives, true_positives, positives, delta, 1 - miss
        )
    return found


def _task(privacy: Privacy, cohort: Cohort, method: AnyMethod, canaries: Canaries) -> Task:
    total = canaries.rows * cohort.clients
    sums = method.planned_sums(privacy, total, canaries.rows)
    mechanism = Mechanism(privacy, sums, cohort.clients, cohort.dropouts, cohort.colluders)
    task = Task(
        feature_dim=canaries.dim,
        classes=tuple(str(c) for c in range(canaries.classes)),
        quantiser=Quantiser(MAX_BITS),
        total_rows=total,
        client_rows=canaries.rows,
        clients=cohort.clients,
        backbone=bytes(32),
        mechanism=mechanism,
    )
    return calibrated(method, task)


class _Released(NamedTuple):
    """A sum of a run: what the adversary knows of it but for its noise.

    Attributes:
        blocks: names, and where each begins and ends.
        weights: 1/σ of each entry.
        moved: what each canary changes, (canaries, entries).
        noise: the sum less all that is known of it, (entries,).
    """

    blocks: tuple[tuple[str, slice], ...]
    weights: Floats
    moved: Floats
    noise: Floats

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.blocks)


def _statistics(sums: Sequence[_Released], there: Flags) -> dict[str, Floats]:
    """Return log-likelihood ratios by the name of their test; all sums together come first."""
    side = there - 0.5

    def ratio(moved: Floats, noise: Floats) -> Floats:
        found: Floats = moved @ noise + side * (moved**2).sum(axis=1)
        return found

    alone = {
        f"{name} of sum {at}": ratio(
            s.moved[:, where] * s.weights[where], s.noise[where] * s.weights[where]
        )
        for at, s in enumerate(sums, 1)
        for name, where in s.blocks
    }
    found = {ALL_SUMS: np.sum(list(alone.values()), axis=0), **alone}
    for at, (one, other) in enumerate(itertools.pairwise(sums), 1):
        if one.key == other.key:
            # Of independent noise the difference has twice the variance.
            weights = one.weights / math.sqrt(2)
            found[f"difference of sums {at} and {at + 1}"] = ratio(
                (one.moved - other.moved) * weights, (one.noise - other.noise) * weights
            )
    return found


class _Adds(NamedTuple):
    """What is added to a sum under one public state.

    Attributes:
        present, absent: by each canary that is there and that is not, (canaries, entries).
        zero: by a row of zeros, (entries,).
    """

    present: Floats
    absent: Floats
    zero: Integers


class _Trial:
    """One cohort, whose runs are released again and again."""

    def __init__(
        self,
        task: Task,
        cohort: Cohort,
        protocol: Protocol,
        method: AnyMethod,
        member: type[RecordingClient],
        corrupt: int,
        canaries: Canaries,
    ) -> None:
        assert task.mechanism is not None, "without noise there is nothing to audit"
        self._task = task
        self._cohort = cohort
        self._terms = Terms(method, protocol, task.mechanism.privacy)
        self._kind = member
        self._corrupt = corrupt
        self._canaries = canaries
        self._identities = {name: Identity.generate(name) for name in cohort.names}
        coordinators = protocol.coordinators()
        self._coordinators = {name: Identity.generate(name) for name in coordinators}
        self._first: tuple[bytes, _Adds] | None = None

    def release(self, there: Flags) -> list[_Released]:
        """Release all sums of a run in which some canaries are there."""
        members = {name: self._member(name, there) for name in self._cohort.names}
        people = gather(self._terms, members, self._identities, self._coordinators)
        convener = self._convener()
        gone = dict.fromkeys(self._cohort.dropping, self._terms.protocol.upload_step)
        found = []
        while not convener.over:
            _, parties = open_session(convener, people)
            public = convener.server.public
            network = Network(parties, FaultPlan(vanish=gone))
            released = network.run()
            total = released.total
            for name in self._cohort.colluding:
                total = total - members[name].added_noise
            for name in set(released.included) - {_VICTIM}:
                total = total - self._terms.method.contribute(public, members[name].data, {}, b"")
            found.append(self._known(public, total, there))
            convener.absorb(Outcome(released, network.release, network.release_salt, bytes(32)))
        return found

    def _known(self, public: PublicState, total: Integers, there: Flags) -> _Released:
        """Take off a sum what the victim adds to it by right."""
        noisy = this_noisy_sum(self._terms.method, public)
        present, absent, zero = self._known_adds(public)
        adds = np.where(there[:, None], present, absent).sum(axis=0) + zero
        begin, blocks, weights = 0, [], []
        for block in noisy.layout.blocks:
            blocks.append((block.name, slice(begin, begin + block.length)))
            begin += block.length
            weights.append(np.full(block.length, 1 / noisy.stds[block.name]))
        return _Released(tuple(blocks), np.concatenate(weights), present - absent, total - adds)

    def _known_adds(self, public: PublicState) -> _Adds:
        """Return what can be added; the state before the first sum is the same in all runs."""
        state = encode(public)
        if self._first is not None and self._first[0] == state:
            return self._first[1]
        canaries = self._canaries.each
        present = np.array([self._adds(public, c.present, c) for c in canaries], dtype=np.float64)
        absent = np.array([self._adds(public, c.absent, c) for c in canaries], dtype=np.float64)
        adds = _Adds(present, absent, self._terms.method.contribute(public, self._nobody, {}, b""))
        self._first = self._first or (state, adds)
        return adds

    def _adds(self, public: PublicState, rows: Floats, canary: Canary) -> Integers:
        if not len(rows):
            layout = self._terms.method.layout(public)
            assert layout is not None, "there is a sum"
            return np.zeros(layout.length, dtype=np.int64)
        data = ClientData(_VICTIM, rows, canary.labels(rows), [canary.name] * len(rows))
        return self._terms.method.contribute(public, data, {}, b"")

    def _convener(self) -> Convener:
        mechanism = self._task.mechanism
        assert mechanism is not None, "checked before"
        server = FederationServer(self._terms, self._task)
        return Convener(lambda _: Planned(server, mechanism.min_cohort, self._corrupt))

    @property
    def _nobody(self) -> ClientData:
        """A row of zeros, which moves no other row; everybody holds it, for a client has a row."""
        return ClientData(_VICTIM, np.zeros((1, self._canaries.dim)), np.zeros(1, int), [""])

    def _member(self, name: str, there: Flags) -> RecordingClient:
        rows = [dataclasses.replace(self._nobody, name=name)]
        if name == _VICTIM:
            for canary, is_there in zip(self._canaries.each, there, strict=True):
                own = canary.present if is_there else canary.absent
                names = [canary.name] * len(own)
                rows += [ClientData(name, own, canary.labels(own), names)] if len(own) else []
        data = dataclasses.replace(pooled(rows), name=name)
        return self._kind(self._terms, data, self._canaries.rows)
