"""An audit: how much of the promised ε can really be shown, through the whole pipeline.

The worst case that is promised: D clients drop out, T others tell the adversary their shares of the
noise, and the adversary knows everything but which canaries a client holds. A canary is a row of
full length along an axis of its own; canaries are orthogonal, so that one sum carries many
independent tests. The best test between the neighbours is the inner product of the sum with
their difference, each block in units of its noise; its ROC is Φ(Φ⁻¹(FPR) + μ). The lower bound on ε
is that of Gaussian differential privacy from Clopper-Pearson bounds on both error rates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from protocols.identity import Identity
from protocols.layout import Integers
from protocols.network import FaultPlan, Network
from protocols.protocol import Protocol
from protocols.schemes.additive.protocol import Additive
from secure_afl.analytic.quantise import MAX_BITS, Floats, Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError
from secure_afl.federation.convener import Convener, Planned
from secure_afl.federation.gathering import gather, open_session
from secure_afl.federation.oracle import RecordingClient
from secure_afl.federation.server import FederationServer
from secure_afl.federation.sums import calibrated, this_noisy_sum
from secure_afl.federation.task import Terms
from secure_afl.methods.afl import AFL
from secure_afl.methods.method import Task
from secure_afl.privacy import accounting
from secure_afl.privacy.mechanism import Mechanism, Privacy
from secure_afl.progress import Progress

CONFIDENCE = 0.999
_DIM = 128
_MAX_ROWS = 2 * _DIM
_VICTIM = "victim"


@dataclass(frozen=True)
class Audit:
    """The findings of an audit.

    Attributes:
        epsilon, delta: promised.
        lower_bound: on ε at that δ, with probability `confidence`.
        tests: canaries that were looked for.
        false_positive_rate, true_positive_rate: of the test.
        seconds: taken.
    """

    epsilon: float
    delta: float
    lower_bound: float
    confidence: float
    tests: int
    false_positive_rate: float
    true_positive_rate: float
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
    """

    clients: int = 4
    dropouts: int = 1
    colluders: int = 1

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
    method: AFL = _METHOD,
    corrupt: int | None = None,
    change: Callable[[Task], Task] = lambda task: task,
    member: type[RecordingClient] = RecordingClient,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Audit:
    """Look for canaries in real sums, as often as `tests` says.

    Args:
        privacy: the promise; of unit example.
        cohort: who drops out and who colludes, as promised.
        method: what the clients contribute.
        corrupt: clients that the sessions declare to be so, 0 to T; by default T. Sessions with
            none have noise for T = 1, for every client knows its own share.
        change, member: the task and the clients as they really are; for audits of audits.
        seed: of which canaries are there; noise and keys come from the system.

    Raises:
        ConfigError: another unit, or noise that one party adds.
    """
    if privacy.unit != "example" or privacy.placement != "distributed":
        raise ConfigError(
            f"unit {privacy.unit}, placement {privacy.placement}; audits are of unit example, "
            "placement distributed"
        )
    begin = perf_counter()
    rng = np.random.default_rng(seed)
    canaries = _pairs(privacy) if privacy.neighbours == "replace-one" else _axes()
    trial = _Trial(
        change(_task(privacy, cohort, method)),
        cohort,
        protocol,
        method,
        member,
        cohort.colluders if corrupt is None else corrupt,
    )
    present, absent, threshold = trial.templates(canaries)
    looked_for = 0
    counts = np.zeros((2, 2), dtype=np.int64)  # canary there, canary claimed
    while looked_for < tests:
        there = rng.random(len(canaries)) < 0.5
        rows = np.concatenate(
            [(c.present if t else c.absent) for c, t in zip(canaries, there, strict=True)]
        )
        claimed = (present - absent) @ trial.release(rows) > threshold
        np.add.at(counts, (there.astype(int), claimed.astype(int)), 1)
        looked_for += len(canaries)
        if progress is not None:
            progress("canaries", min(looked_for, tests), tests)
    negatives, positives = (int(n) for n in counts.sum(axis=1))
    false_positives, true_positives = int(counts[0, 1]), int(counts[1, 1])
    return Audit(
        privacy.epsilon,
        privacy.delta,
        accounting.audited_epsilon(
            false_positives, negatives, true_positives, positives, privacy.delta, confidence
        ),
        confidence,
        looked_for,
        false_positives / negatives,
        true_positives / positives,
        perf_counter() - begin,
    )


@dataclass(frozen=True)
class _Canary:
    """Rows (0 or 1, d) of a victim in one world and in the other."""

    present: Floats
    absent: Floats


def _axes() -> list[_Canary]:
    """Make rows along the axes, twice as long as allowed.

    Whether rows are clipped is thus audited too.
    """
    return [_Canary(2 * row[None], np.empty((0, _DIM))) for row in np.eye(_DIM)]


def _pairs(privacy: Privacy) -> list[_Canary]:
    """Make the worst pairs for replace-one: equal labels, f·g = −w²/2.

    Each pair is in a plane of its own.
    """
    cosine = -min(1.0, privacy.cross_weight**2 / 2)
    axes = np.eye(_DIM)
    pairs = []
    for first, second in zip(axes[::2], axes[1::2], strict=True):
        other = cosine * first + np.sqrt(1 - cosine**2) * second
        pairs.append(_Canary(2 * first[None], 2 * other[None]))
    return pairs


def _task(privacy: Privacy, cohort: Cohort, method: AFL) -> Task:
    mechanism = Mechanism(privacy, 1, cohort.clients, cohort.dropouts, cohort.colluders)
    task = Task(
        feature_dim=_DIM,
        classes=("a", "b"),
        quantiser=Quantiser(MAX_BITS),
        total_rows=_MAX_ROWS * cohort.clients,
        client_rows=_MAX_ROWS,
        clients=cohort.clients,
        backbone=bytes(32),
        mechanism=mechanism,
    )
    return calibrated(method, task)


class _Trial:
    """One cohort, whose sums are released again and again."""

    def __init__(
        self,
        task: Task,
        cohort: Cohort,
        protocol: Protocol,
        method: AFL,
        member: type[RecordingClient],
        corrupt: int,
    ) -> None:
        assert task.mechanism is not None, "without noise there is nothing to audit"
        self._task = task
        self._cohort = cohort
        self._terms = Terms(method, protocol, task.mechanism.privacy)
        self._kind = member
        self._corrupt = corrupt
        self._public = method.begin(task)
        self._identities = {name: Identity.generate(name) for name in cohort.names}
        coordinators = protocol.coordinators()
        self._coordinators = {name: Identity.generate(name) for name in coordinators}
        noisy = this_noisy_sum(method, self._public)
        # Each entry in units of its noise, as the likelihood ratio weighs it.
        self._weights = np.concatenate(
            [np.full(b.length, 1 / noisy.stds[b.name]) for b in noisy.layout.blocks]
        )

    def templates(self, canaries: list[_Canary]) -> tuple[Floats, Floats, Floats]:
        """Return what canaries add to a sum, and where the likelihoods are equal.

        Returns:
            Of each canary that is there, and of each that is not: (tests, entries) twice; and the
            scores at which both are equally likely, (tests,).
        """
        present = np.array([self._contribution(canary.present) for canary in canaries])
        absent = np.array([self._contribution(canary.absent) for canary in canaries])
        present, absent = present * self._weights, absent * self._weights
        return present, absent, 0.5 * ((present**2).sum(axis=1) - (absent**2).sum(axis=1))

    def release(self, rows: Floats) -> Floats:
        """Return a sum less what the adversary knows, in units of the noise, (entries,)."""
        members = {name: self._member(name, rows) for name in self._cohort.names}
        people = gather(self._terms, members, self._identities, self._coordinators)
        _, parties = open_session(self._convener(), people)
        gone = dict.fromkeys(self._cohort.dropping, self._terms.protocol.upload_step)
        total = Network(parties, FaultPlan(vanish=gone)).run().total
        for name in self._cohort.colluding:
            total = total - members[name].added_noise
        scaled: Floats = total * self._weights
        return scaled

    def _convener(self) -> Convener:
        mechanism = self._task.mechanism
        assert mechanism is not None, "checked before"
        server = FederationServer(self._terms, self._task)
        return Convener(lambda _: Planned(server, mechanism.min_cohort, self._corrupt))

    def _member(self, name: str, canaries: Floats) -> RecordingClient:
        # Everybody holds a row of zeros, which adds nothing, for a client has at least one.
        rows = np.zeros((1, _DIM))
        if name == _VICTIM:
            rows = np.concatenate([rows, canaries])
        data = ClientData(name, rows, np.zeros(len(rows), dtype=np.int64))
        return self._kind(self._terms, data, _MAX_ROWS)

    def _contribution(self, rows: Floats) -> Integers:
        rows = np.concatenate([np.zeros((1, _DIM)), rows])
        data = ClientData(_VICTIM, rows, np.zeros(len(rows), dtype=np.int64))
        return self._terms.method.contribute(self._public, data, {}, b"")
