"""Noise inside real sums: every protocol, drop-outs, restarts, and terms that fall short."""

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from protocols import Additive, Pairwise, Plain
from protocols.errors import BelowThreshold, InvalidSession, SessionAborted
from protocols.network import Fault, FaultPlan, Network
from protocols.protocol import Protocol
from protocols.schemes.encrypted.protocol import Bfv, Ckks
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.rows import ClientData, pooled
from secure_afl.analytic.statistics import Statistics
from secure_afl.errors import ConfigError, DataError, LedgerRefusal
from secure_afl.federation.client import FederationClient
from secure_afl.federation.oracle import RecordingClient
from secure_afl.federation.result import Result
from secure_afl.federation.simulation import Federation
from secure_afl.federation.task import Declared, Terms, plan_task
from secure_afl.methods import AFL, AnyMethod, FedAvg, FedHiP, FedSGD
from secure_afl.privacy.ledger import Budget, Ledger
from secure_afl.privacy.mechanism import Mechanism, Privacy
from tests.kit.halves import Halves
from tests.kit.samples import make_clients

PROTOCOLS: tuple[Protocol, ...] = (
    Plain(),
    Additive(),
    Additive(3),
    Pairwise(corrupt_fraction=0.0, dropout_fraction=0.2),
    Ckks(),
    Bfv(),
)
CLIENTS = make_clients([7, 5, 9, 6, 8])
CLASSES = ("0", "1", "2")


def run(
    protocol: Protocol,
    method: AnyMethod | None = None,
    privacy: Privacy | None = None,
    drop: Sequence[str] = (),
    plan: FaultPlan | None = None,
    min_cohort: int = 4,
    ledger: Ledger | None = None,
) -> Result:
    federation = Federation(
        method or AFL(),
        protocol,
        privacy=privacy or Privacy(2.0),
        min_cohort=min_cohort,
        ledger=ledger,
    )
    return federation.run(CLIENTS, classes=CLASSES, max_rows=16, drop=drop, plan=plan, record=True)


def check_sums(result: Result) -> None:
    """Integer vectors of the pooled rows, plus the noise on record, to the last bit."""
    for round_ in result.rounds:
        names = round_.released.included
        rows = pooled([data for data in CLIENTS if data.name in names])
        quantiser = Quantiser(result.report.feature_bits)
        counts = "counts" in {block.name for block in round_.session.layout.blocks}
        clear = Statistics.of(rows.features, rows.labels, 3, quantiser).pack(
            counts=counts, count_scale=quantiser.scale
        )
        noise = np.sum([round_.noise[name] for name in names], axis=0)
        assert noise.any()
        assert np.array_equal(round_.released.total, clear + noise)


def test_fewer_clients_than_the_minimum_cohort_are_named_before_noise_is_planned() -> None:
    with pytest.raises(ConfigError, match="minimum cohort 6 of 5 clients; allowed: ≤ 5"):
        run(Additive(), min_cohort=6)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=repr)
def test_the_sum_is_rows_and_noise_to_the_last_bit(protocol: Protocol) -> None:
    for method, head in ((AFL(), "lda"), (AFL(head="ridge"), "ridge")):
        result = run(protocol, method)
        check_sums(result)
        assert result.report.exact
        assert result.report.clients.included == 5
        assert result.report.head is not None
        assert result.report.head.name == head


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=repr)
def test_also_when_a_client_drops_out_and_all_restart(protocol: Protocol) -> None:
    result = run(protocol, drop=["c2"], plan=FaultPlan(reload=True))
    check_sums(result)
    assert result.report.exact
    assert result.report.clients.dropped == 1


@pytest.mark.parametrize("protocol", [Additive(), Pairwise(0.0, 0.2)], ids=repr)
def test_fewer_than_promised_release_nothing(protocol: Protocol) -> None:
    with pytest.raises(SessionAborted) as error:
        run(protocol, drop=["c2", "c4"])
    assert isinstance(error.value, BelowThreshold) or "4" in str(error.value)


@pytest.mark.parametrize(
    "method",
    [
        FedHiP(),
        FedHiP(personal="proximal"),
        FedAvg(rounds=3, weighted=False),
        FedSGD(rounds=3, weighted=False),
    ],
    ids=lambda m: m.name,
)
def test_every_method_runs_with_noise(method: AnyMethod) -> None:
    result = run(Additive(), method)
    assert result.report.exact
    assert result.report.privacy is not None
    assert result.report.privacy.rounds == method.sums
    for round_ in result.rounds:
        assert np.sum(list(round_.noise.values()), axis=0).any()


def test_noise_of_rounds_is_independent() -> None:
    result = run(Additive(), FedAvg(rounds=2, weighted=False))
    first, second = (round_.noise["c0"] for round_ in result.rounds)
    assert not np.array_equal(first, second)


def test_weights_by_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="weighted=False"):
        run(Additive(), FedAvg(rounds=2))


def test_nothing_private_is_in_the_report() -> None:
    report = run(Additive()).report
    assert report.examples is None
    assert report.accuracy.local_mean is None
    assert report.accuracy.centralised_float is None
    rows = sum(len(data) for data in CLIENTS)
    # The session's id is random, and has any digits now and then.
    unnamed = msgspec.structs.replace(report, session="")
    told = re.findall(r"[\d.]+", msgspec.json.encode(unnamed).decode())
    assert str(rows) not in told
    assert report.warnings == ()


def test_rows_must_be_bounded_where_their_number_is_private() -> None:
    federation = Federation(AFL(), Additive(), privacy=Privacy(1.0))
    with pytest.raises(ConfigError, match="--max-rows"):
        federation.run(CLIENTS, classes=CLASSES)
    with pytest.raises(ConfigError, match="classes="):
        federation.run(CLIENTS, max_rows=16)
    told = Federation(AFL(), Additive(), privacy=Privacy(1.0, neighbours="replace-one"))
    assert told.run(CLIENTS, classes=CLASSES).report.examples == sum(len(data) for data in CLIENTS)


def test_less_epsilon_is_more_noise_and_wider_rings_hold_it() -> None:
    spread = []
    for epsilon in (0.1, 8.0):
        result = run(Additive(), privacy=Privacy(epsilon))
        assert result.report.privacy is not None
        spread.append(result.report.privacy.noise_std["gram_diagonal"])
        block = result.rounds[0].session.layout.blocks[0]
        assert block.low < 0
    assert spread[0] > 40 * spread[1]


def test_central_noise_is_added_after_the_sum_and_says_whom_it_trusts() -> None:
    result = run(Additive(), privacy=Privacy(1.0, placement="central"))
    assert result.report.privacy is not None
    assert "sees it exactly" in result.report.privacy.trusts
    rows = pooled(CLIENTS)
    clear = Statistics.of(rows.features, rows.labels, 3, Quantiser(12)).pack(counts=False)
    assert np.array_equal(result.rounds[0].released.total, clear)
    noiseless = Federation(AFL(), Additive(), feature_bits=12).run(CLIENTS)
    assert not np.allclose(result.model.weights, noiseless.model.weights)


# A client checks by itself


class World:
    """One server and clients, whose terms a test may bend."""

    def __init__(
        self, min_cohort: int = 4, corrupt: int = 0, protocol: Protocol | None = None
    ) -> None:
        protocol = protocol or Additive()
        bounds = tuple((data.name, 16) for data in CLIENTS)
        dim = CLIENTS[0].features.shape[1]
        declared = Declared(dim, ("0", "1", "2"), bounds, bytes(32), min_cohort=4)
        self.task = plan_task(Terms(AFL(), Additive(), Privacy(1.0)), declared)
        self.terms = Terms(AFL(), protocol, Privacy(1.0))
        self.wishes = {"max_rows": 16, "min_cohort": min_cohort, "corrupt": corrupt}
        self.client = RecordingClient(self.terms, CLIENTS[0], 16)

    def halves(self, mechanism: Mechanism | None) -> Halves:
        task = msgspec.structs.replace(self.task, mechanism=mechanism)
        return Halves(self.terms, task, CLIENTS, **self.wishes)

    def join(self, mechanism: Mechanism | None) -> None:
        halves = self.halves(mechanism)
        session, enrolments = halves.form()
        self.client.join(session, enrolments["c0"], halves.opening)

    @property
    def mechanism(self) -> Mechanism:
        assert self.task.mechanism is not None
        return self.task.mechanism


def test_a_client_joins_terms_that_keep_the_promise() -> None:
    world = World()
    world.join(world.mechanism)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"noise_multiplier": 3.6}, "noise multiplier"),
        ({"mu": 0.3}, "does not give ε = 1"),
        ({"mu": 0.2}, "μ ≤ 0.2"),
        ({"distance": 1e-6}, "does not give ε = 1"),
        ({"distance": 0.0}, "the grid costs"),
        ({"clients": 6}, "6 clients"),
        ({"dropouts": 0}, "minimum cohort"),
    ],
)
def test_a_client_refuses_noise_that_falls_short(change: dict[str, float], problem: str) -> None:
    world = World()
    with pytest.raises(InvalidSession, match=problem):
        world.join(msgspec.structs.replace(world.mechanism, **change))


def test_a_bad_row_shows_before_anybody_hears_of_the_client() -> None:
    """Later a refusal would tell all that there is one, and no noise would hide it."""
    terms = Terms(AFL(), Additive(), Privacy(1.0))
    good = make_clients((20,))[0]
    features, labels = good.features.copy(), good.labels.copy()
    features[7, 2], labels[3] = np.nan, 9
    for bad, said in (
        (ClientData("c0", features, good.labels), "features of row 7 are NaN"),
        (ClientData("c0", good.features, labels), "label 9 is out of range"),
    ):
        with pytest.raises(DataError, match=said):
            FederationClient(terms, bad, 32, classes=("0", "1", "2"))
    with pytest.raises(DataError, match="features of row 7 are NaN"):
        FederationClient(terms, ClientData("c0", features, good.labels), 32)


def test_a_client_refuses_smaller_cohorts_and_more_colluders_than_the_noise_is_for() -> None:
    for world in (World(min_cohort=3), World(corrupt=2)):
        with pytest.raises(InvalidSession, match="minimum cohort"):
            world.join(world.mechanism)


@pytest.mark.parametrize(
    "other",
    [
        Privacy(1.0, placement="central"),
        Privacy(15.0),
        Privacy(1.0, delta=1e-3),
        Privacy(1.0, unit="client"),
        Privacy(1.0, neighbours="replace-one"),
    ],
    ids=repr,
)
def test_a_client_joins_no_promise_but_its_own(other: Privacy) -> None:
    world = World()
    with pytest.raises(InvalidSession, match="this client wants"):
        world.join(msgspec.structs.replace(world.mechanism, privacy=other))


def test_a_client_that_wants_privacy_joins_no_exact_sum() -> None:
    with pytest.raises(InvalidSession, match="promises None"):
        World().join(None)


def test_a_client_joins_as_many_sums_as_the_run_has() -> None:
    world = World()
    world.join(world.mechanism)
    with pytest.raises(InvalidSession, match="another session of this round"):
        world.join(world.mechanism)
    # With a little more noise it is another task, and the same round all the same.
    bent = msgspec.structs.replace(
        world.mechanism, noise_multiplier=world.mechanism.noise_multiplier * 1.001
    )
    with pytest.raises(InvalidSession, match="another session of this round"):
        world.join(bent)


def test_a_server_that_sees_vectors_sees_each_with_all_of_the_noise() -> None:
    for protocol, shares in ((Plain(), 1), (Additive(), 3)):
        report = run(protocol).report.privacy
        assert report is not None
        assert f"at least {shares} of" in report.trusts
    world = World(protocol=Plain())
    with pytest.raises(InvalidSession, match="one of 3 shares"):
        world.join(world.mechanism)


def test_noise_for_fewer_colluders_than_the_protocol_concedes_is_refused() -> None:
    """Pairwise with two corrupt of five, and noise that one who tells what it knows takes away."""
    world = World(protocol=Pairwise(corrupt_fraction=0.4, dropout_fraction=0.0))
    assert world.mechanism.colluders == 1
    with pytest.raises(InvalidSession, match=r"with 1 colluders, the session's are 4 and 2"):
        world.join(world.mechanism)


def test_pairwise_noise_is_for_as_many_colluders_as_the_protocol_withstands() -> None:
    report = run(Pairwise(corrupt_fraction=0.4, dropout_fraction=0.0), min_cohort=5).report
    assert report.privacy is not None
    assert report.privacy.colluders == 2


def test_a_floor_of_zero_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    ledger = Ledger.open(
        tmp_path / "ledger.json", Budget(1.4, 1e-5, "example", "add-remove"), new=True
    )
    with pytest.raises(ConfigError, match="ridge is 0"):
        run(Additive(), AFL(ridge=0.0), ledger=ledger)
    assert ledger.spent("c0").releases == 0


def test_a_run_that_one_client_refuses_costs_nobody_anything(tmp_path: Path) -> None:
    ledger = Ledger.open(
        tmp_path / "ledger.json", Budget(1.1, 1e-5, "example", "add-remove"), new=True
    )
    short = Federation(AFL(), Additive(), privacy=Privacy(1.0), ledger=ledger, min_cohort=2)
    short.run(CLIENTS[3:], classes=CLASSES, max_rows=16)
    with pytest.raises(LedgerRefusal, match="c3"):
        run(Additive(), privacy=Privacy(1.0), ledger=ledger)
    assert [ledger.spent(data.name).releases for data in CLIENTS] == [0, 0, 0, 1, 1]


def test_central_noise_is_an_exact_sum_to_a_ledger(tmp_path: Path) -> None:
    ledger = Ledger.open(
        tmp_path / "ledger.json", Budget(5, 1e-5, "example", "add-remove"), new=True
    )
    with pytest.raises(LedgerRefusal, match="infinite"):
        run(Additive(), privacy=Privacy(1.0, placement="central"), ledger=ledger)


def test_a_ledger_refuses_a_second_exact_sum(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.json", None, new=True)
    Federation(AFL(), Additive(), ledger=ledger).run(CLIENTS)
    changed = [*CLIENTS[:-1], ClientData("c4", CLIENTS[-1].features[:-1], CLIENTS[-1].labels[:-1])]
    with pytest.raises(LedgerRefusal, match="c0"):
        Federation(AFL(), Additive(), ledger=ledger).run(changed)


def test_the_rounds_of_one_run_are_one_declared_release(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.json", None, new=True)
    Federation(FedSGD(rounds=3), Additive(), ledger=ledger).run(CLIENTS)
    with pytest.raises(LedgerRefusal):
        Federation(FedSGD(rounds=3), Additive(), ledger=ledger).run(CLIENTS)


def test_a_budget_is_spent_and_then_refused(tmp_path: Path) -> None:
    ledger = Ledger.open(
        tmp_path / "ledger.json", Budget(1.4, 1e-5, "example", "add-remove"), new=True
    )
    run(Additive(), privacy=Privacy(1.0), ledger=ledger)
    with pytest.raises(LedgerRefusal, match="exceed the budget"):
        run(Additive(), privacy=Privacy(1.0), ledger=ledger)
    again = Ledger.open(tmp_path / "ledger.json", None)
    with pytest.raises(LedgerRefusal):
        run(Additive(), privacy=Privacy(1.0), ledger=again)


def test_a_budget_lets_no_exact_sum_pass(tmp_path: Path) -> None:
    ledger = Ledger.open(
        tmp_path / "ledger.json", Budget(50, 1e-5, "example", "add-remove"), new=True
    )
    with pytest.raises(LedgerRefusal):
        Federation(AFL(), Additive(), ledger=ledger).run(CLIENTS)


def test_a_restarted_client_adds_the_same_noise_again() -> None:
    world = World()
    halves = world.halves(world.mechanism)
    session, enrolments = halves.form()
    members = {name: halves.client(name, RecordingClient) for name in halves.clients}
    parties = {
        name: member.join(session, enrolments[name], halves.opening)
        for name, member in members.items()
    }
    parties["c0"].start()
    before = members["c0"].added_noise
    restarted = parties["c0"].reload()
    aggregators = [
        Additive().coordinator(session, enrolments[name]) for name in Additive().coordinators()
    ]
    released = Network([*aggregators, restarted, *list(parties.values())[1:]]).run()
    assert np.array_equal(members["c0"].added_noise, before)
    vectors = [member.vector + member.added_noise for member in members.values()]
    assert np.array_equal(released.total, np.sum(vectors, axis=0))


@pytest.mark.parametrize(
    ("protocol", "gone"),
    [
        (Additive(), {"aggregator_1": "verified"}),
        (Additive(), {"collector": "verified"}),
        (Plain(), {"c0": "upload", "c1": "upload", "c2": "upload"}),
        (Ckks(), {"key_holder": "key"}),
        (Pairwise(dropout_fraction=0.2), {"c0": "advertise", "c1": "advertise", "c2": "share"}),
    ],
    ids=str,
)
def test_a_session_without_a_sum_is_given_back(
    protocol: Protocol, gone: dict[str, str], tmp_path: Path
) -> None:
    """One vanished aggregator once used up everybody's exact release for good."""
    ledger = Ledger.open(tmp_path / "ledger.json", None, new=True)
    federation = Federation(AFL(), protocol, ledger=ledger)
    with pytest.raises(SessionAborted):
        federation.run(CLIENTS, plan=FaultPlan(vanish=gone))
    assert [ledger.spent(data.name).releases for data in CLIENTS] == [0] * 5
    assert Federation(AFL(), protocol, ledger=ledger).run(CLIENTS).report.exact
    with pytest.raises(LedgerRefusal):
        Federation(AFL(), protocol, ledger=ledger).run(CLIENTS)


def test_a_session_whose_partial_sums_are_out_is_not_given_back(tmp_path: Path) -> None:
    """The collector lost them; another that works with it may have them."""
    ledger = Ledger.open(tmp_path / "ledger.json", None, new=True)
    plan = FaultPlan(faults=(Fault("lose", step="partial"),))
    with pytest.raises(SessionAborted):
        Federation(AFL(), Additive(), ledger=ledger).run(CLIENTS, plan=plan)
    with pytest.raises(LedgerRefusal, match="another run had an exact release"):
        Federation(AFL(), Additive(), ledger=ledger).run(CLIENTS)
