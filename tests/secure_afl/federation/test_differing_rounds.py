"""Noise where the rounds of a run differ in layout and sensitivity, and one promise holds."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from protocols import Additive, Plain
from protocols.errors import InvalidSession
from protocols.identity import Identity
from protocols.protocol import Protocol
from protocols.session import Session
from secure_afl.analytic.quantise import Quantiser
from secure_afl.errors import ConfigError
from secure_afl.federation.oracle import RecordingClient
from secure_afl.federation.result import Result
from secure_afl.federation.rounds.history import History
from secure_afl.federation.simulation import Federation
from secure_afl.federation.sums import this_noisy_sum
from secure_afl.federation.task import Declared, Terms, plan_task
from secure_afl.methods import AFL, FedAvg
from secure_afl.privacy import accounting
from secure_afl.privacy.ledger import Budget, Ledger
from secure_afl.privacy.mechanism import Mechanism, Privacy
from tests.kit.halves import Halves
from tests.kit.samples import make_clients
from tests.toys.two_rounds import TwoRounds, TwoRoundsPublic

CLIENTS = make_clients([7, 5, 9, 6, 8])
CLASSES = ("0", "1", "2")
DIM = CLIENTS[0].features.shape[1]
PRIVACY = Privacy(2.0)
# So coarse a grid that it costs something, and more in the second sum than in the first.
BITS = 2
NORM = 2**BITS


def run(
    method: TwoRounds | AFL | FedAvg, protocol: Protocol, ledger: Ledger | None = None
) -> Result:
    federation = Federation(
        method, protocol, feature_bits=BITS, privacy=PRIVACY, min_cohort=4, ledger=ledger
    )
    return federation.run(CLIENTS, classes=CLASSES, max_rows=16, record=True)


def costs(z: float) -> list[tuple[float, float]]:
    """μ and distance of both sums at a noise multiplier, by the formulas of docs/privacy.md."""
    found = []
    for sigma, entries in ((z * NORM**2, DIM), (z * NORM, len(CLASSES) * DIM // 2)):
        mu = sigma / math.sqrt(sigma**2 - 1 / 12) / z
        found.append((mu, 8.52e-4 * math.sqrt(entries) * sigma**-4))
    return found


def delta(mus: list[float], distances: list[float]) -> float:
    """δ at the promised ε of sums of these costs together."""
    grid = (1 + math.exp(PRIVACY.epsilon)) * sum(distances)
    return accounting.delta_of(PRIVACY.epsilon, math.hypot(*mus)) + grid


@pytest.mark.parametrize("protocol", [Additive(), Plain()], ids=repr)
def test_both_sums_are_rows_and_noise_to_the_last_bit(protocol: Protocol) -> None:
    result = run(TwoRounds(), protocol)
    assert result.report.exact
    first, second = result.rounds
    assert [b.name for r in result.rounds for b in r.session.layout.blocks] == ["squares", "sums"]
    rows = Quantiser(BITS).integers(np.concatenate([c.features for c in CLIENTS])).astype(np.int64)
    labels = np.concatenate([c.labels for c in CLIENTS])
    squares = (rows**2).sum(axis=0) + sum(first.noise.values())
    assert np.array_equal(first.released.total, squares)
    assert isinstance(second.public, TwoRoundsPublic)
    kept = second.public.kept
    sums = [rows[labels == label][:, kept].sum(axis=0) for label in range(len(CLASSES))]
    assert np.array_equal(second.released.total, np.ravel(sums) + sum(second.noise.values()))


@pytest.mark.parametrize("protocol", [Additive(), Plain()], ids=repr)
def test_each_sum_is_charged_what_it_costs_and_both_keep_the_promise(
    protocol: Protocol, tmp_path: Path
) -> None:
    budget = Budget(PRIVACY.epsilon, PRIVACY.delta, PRIVACY.unit, PRIVACY.neighbours)
    ledger = Ledger.open(tmp_path / "ledger.json", budget, new=True)
    report = run(TwoRounds(), protocol, ledger).report.privacy
    assert report is not None
    expected = costs(report.noise_multiplier)
    for client in CLIENTS:
        entries = ledger.entries(client.name)
        assert [entry.rounds for entry in entries] == [2, 2]
        mus = [entry.mu for entry in entries if entry.mu is not None]
        distances = [entry.distance for entry in entries]
        assert mus == pytest.approx([mu for mu, _ in expected], rel=1e-12)
        assert distances == pytest.approx([distance for _, distance in expected], rel=1e-12)
        assert mus[0] < mus[1]
        assert distances[0] < distances[1] / 100
        # Of δ the dearer of the two sums is counted twice, and nothing else is left over.
        assert 0.8 * PRIVACY.delta < delta(mus, distances) <= PRIVACY.delta
        dearer = delta([mus[1]] * 2, [distances[1]] * 2)
        assert 0.97 * PRIVACY.delta < dearer <= PRIVACY.delta
        spent = ledger.spent(client.name)
        assert spent.epsilon is not None
        assert spent.epsilon <= PRIVACY.epsilon * (1 + 1e-9)


def test_the_report_tells_the_noise_of_each_sum_where_they_differ() -> None:
    report = run(TwoRounds(), Additive()).report.privacy
    assert report is not None
    z = report.noise_multiplier
    squares, sums = report.noise_std_by_round
    # In units of the blocks' scales, in which a row has norm 1.
    assert squares == {"squares": pytest.approx(z)}
    assert sums == report.noise_std == {"sums": pytest.approx(z)}
    for method in (AFL(), FedAvg(rounds=3, weighted=False, update_bits=8)):
        alike = Federation(method, Additive(), privacy=PRIVACY, min_cohort=4)
        report = alike.run(CLIENTS, classes=CLASSES, max_rows=16).report.privacy
        assert report is not None
        assert report.noise_std_by_round == ()


class World:
    """A server at the second round of a run, and a client that has joined none yet."""

    def __init__(self, folder: Path, method: TwoRounds) -> None:
        self.terms = Terms(method, Additive(), PRIVACY)
        bounds = tuple((data.name, 16) for data in CLIENTS)
        declared = Declared(DIM, CLASSES, bounds, bytes(32), min_cohort=4, feature_bits=BITS)
        self.task = plan_task(self.terms, declared)
        self.ledger = Ledger.open(folder / "ledger.json", None, new=True)
        self.client = RecordingClient(self.terms, CLIENTS[0], 16, ledger=self.ledger)
        self.identities = {data.name: Identity.generate(data.name) for data in CLIENTS}
        self.coordinators = {n: Identity.generate(n) for n in Additive().coordinators()}
        self.first: Session | None = None
        self.history: History | None = None

    @property
    def mechanism(self) -> Mechanism:
        assert self.task.mechanism is not None
        return self.task.mechanism

    def join(self, mechanism: Mechanism, kept: tuple[int, ...] | None) -> None:
        """Join the first round, or the second in these dimensions."""
        task = replace(self.task, mechanism=mechanism)
        halves = Halves(self.terms, task, CLIENTS, max_rows=16, min_cohort=4)
        halves.meet(self.identities, self.coordinators)
        if kept is not None:
            assert self.first is not None
            assert self.history is not None
            halves.server.history = self.history
            halves.pretend(TwoRoundsPublic(task, np.array(kept)), self.first)
        session, enrolments = halves.form()
        self.client.join(session, enrolments["c0"], halves.opening).start()
        if kept is None:
            self.first, self.history = session, halves.server.history


def as_calibrated(mechanism: Mechanism) -> Mechanism:
    return mechanism


def with_the_grid_of_the_first(mechanism: Mechanism) -> Mechanism:
    return replace(mechanism, distance=costs(mechanism.noise_multiplier)[0][1] * (1 + 1e-9))


@pytest.mark.parametrize(
    ("method", "change", "problem"),
    [
        (TwoRounds(foresees=False), as_calibrated, r"does not give the sum of sums μ ≤ 0\.35"),
        (TwoRounds(), with_the_grid_of_the_first, r"costs the sum of sums 1\.48e-07 .*≤ 4\.71e-10"),
    ],
    ids=["mu", "distance"],
)
def test_a_second_round_that_costs_too_much_is_refused_before_anything_leaves(
    method: TwoRounds, change: Callable[[Mechanism], Mechanism], problem: str, tmp_path: Path
) -> None:
    world = World(tmp_path, method)
    mechanism = change(world.mechanism)
    world.join(mechanism, None)
    assert world.ledger.spent("c0").releases == 1
    del world.client.vector
    with pytest.raises(InvalidSession, match=rf"round 2: .*{problem}.*; calibrate again"):
        world.join(mechanism, (0, 1, 2))
    assert world.ledger.spent("c0").releases == 1
    assert not hasattr(world.client, "vector")


def test_a_second_round_within_the_allowance_is_joined(tmp_path: Path) -> None:
    world = World(tmp_path, TwoRounds())
    world.join(world.mechanism, None)
    world.join(world.mechanism, (1, 3, 5))
    assert world.ledger.spent("c0").releases == 2


def test_a_layout_of_more_entries_than_foreseen_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path, TwoRounds())
    world.join(world.mechanism, None)
    with pytest.raises(InvalidSession, match="round 2: the grid costs"):
        world.join(world.mechanism, (0, 1, 2, 3))


def test_a_run_that_foresees_less_ends_at_the_round_that_costs_more(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.json", None, new=True)
    with pytest.raises(InvalidSession, match="round 2"):
        run(TwoRounds(foresees=False), Additive(), ledger)
    assert ledger.spent("c0").releases == 1


def test_allowances_that_break_the_promise_are_refused() -> None:
    mechanism = plan_task(
        Terms(TwoRounds(), Additive(), PRIVACY),
        Declared(DIM, CLASSES, (("a", 9), ("b", 9)), bytes(32), 2, feature_bits=BITS),
    ).mechanism
    assert mechanism is not None
    mechanism.check()
    for less in (
        replace(mechanism, mu=mechanism.mu * 1.01),
        replace(mechanism, distance=mechanism.distance * 1.2),
        replace(mechanism, rounds=3),
    ):
        with pytest.raises(ConfigError, match="does not give ε = 2"):
            less.check()


def test_the_sensitivity_is_that_of_the_round() -> None:
    task = plan_task(
        Terms(TwoRounds(), Additive(), PRIVACY),
        Declared(DIM, CLASSES, (("a", 9), ("b", 9)), bytes(32), 2, feature_bits=BITS),
    )
    method = TwoRounds()
    joints = [this_noisy_sum(method, state).sensitivity.joint for state in method.foreseen(task)]
    assert joints == [NORM**2, NORM]
