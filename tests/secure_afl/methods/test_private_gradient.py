"""Noisy gradients in blind sums: exact to the last integer, bounded, and recomputed by clients."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from protocols import Additive, Pairwise
from protocols.errors import InvalidSession
from protocols.layout import Integers
from protocols.network import FaultPlan
from protocols.protocol import Protocol
from protocols.schemes.encrypted.protocol import Bfv, Ckks
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.residuals import residuals
from secure_afl.analytic.rows import ClientData, pooled
from secure_afl.data.files import embedded_digits
from secure_afl.errors import ConfigError, DataError, LedgerRefusal
from secure_afl.features.backbone import parse_backbone
from secure_afl.features.centring import centred, projection, without
from secure_afl.federation.result import Result
from secure_afl.federation.rounds.history import History, Link, state_digest
from secure_afl.federation.simulation import Federation
from secure_afl.federation.task import Declared, Terms, plan_task
from secure_afl.methods import AFL, PrivateGradient, Task
from secure_afl.methods.evaluated import evaluated
from secure_afl.methods.model import LinearModel
from secure_afl.methods.private_gradient import PrivateGradientPublic
from secure_afl.privacy.ledger import Budget, Ledger
from secure_afl.privacy.mechanism import Mechanism, Privacy
from secure_afl.privacy.schedule import CLIP, schedule
from tests.kit.commands import Command
from tests.kit.halves import Halves
from tests.kit.samples import make_clients, make_task

CLIENTS = make_clients([7, 5, 9, 6, 8], dim=40)
CLASSES = ("0", "1", "2")
SHORT = PrivateGradient(rounds=5, centre=True)
BARE = PrivateGradient(rounds=5, centre=False)


def run(
    protocol: Protocol | None = None,
    method: Any = SHORT,
    privacy: Privacy | None = None,
    **settings: Any,
) -> Result:
    federation = Federation(
        method, protocol or Additive(), privacy=privacy or Privacy(2.0), min_cohort=4
    )
    return federation.run(CLIENTS, classes=CLASSES, max_rows=16, record=True, **settings)


def by_hand(public: PrivateGradientPublic, data: ClientData, dimension: int) -> Integers:
    """A client's vector in Python's own integers, from rows and residuals one by one."""
    quantiser, found = public.task.quantiser, public.descent
    classes, scale = len(public.task.classes), public.task.quantiser.scale
    signs = projection(public.task.feature_dim, dimension, 0)
    first = np.zeros(dimension + classes, dtype=object)
    gradient = np.zeros((dimension, classes), dtype=object)
    for features, label in zip(data.features, data.labels, strict=True):
        row = centred(features[None], quantiser, signs)
        first += [*map(int, row[0]), *(scale // 2 * int(label == c) for c in range(classes))]
        if found is None:
            continue
        row = without(row, found.direction, quantiser)
        off = residuals(row, np.array([label]), found.point, scale, found.log_prior)
        clipped = Quantiser(quantiser.bits, "clip", CLIP).integers(off)
        gradient += np.outer([*map(int, row[0])], [*map(int, clipped[0])])
    whole = first if found is None else gradient.ravel()
    return whole.astype(np.int64)


def check_sums(result: Result) -> None:
    """Integers of the rows of those in the sum, plus the noise on record, to the last bit."""
    assert len(result.rounds) == 5
    for round_ in result.rounds:
        public = round_.public
        assert isinstance(public, PrivateGradientPublic)
        names = round_.released.included
        there = pooled([data for data in CLIENTS if data.name in names])
        noise = np.sum([round_.noise[name] for name in names], axis=0)
        assert noise.any()
        clear = by_hand(public, there, dimension=32)
        assert np.array_equal(round_.released.total, clear + noise)


PROTOCOLS = [
    Additive(),
    pytest.param(Additive(3), marks=pytest.mark.slow),
    pytest.param(Pairwise(corrupt_fraction=0.0, dropout_fraction=0.2), marks=pytest.mark.slow),
    pytest.param(Ckks(), marks=pytest.mark.slow),
    pytest.param(Bfv(), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=repr)
def test_every_sum_is_integers_and_noise_to_the_last_bit(protocol: Protocol) -> None:
    result = run(protocol)
    check_sums(result)
    assert result.report.exact
    assert result.report.privacy is not None
    assert result.report.privacy.rounds == result.report.rounds == 5


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=repr)
def test_also_when_a_client_drops_out_and_all_restart(protocol: Protocol) -> None:
    result = run(protocol, drop=["c2"], plan=FaultPlan(reload=True))
    check_sums(result)
    assert result.report.exact
    assert result.report.clients.dropped == 1


def test_the_number_of_sums_follows_from_the_promise() -> None:
    for epsilon, sums in ((0.5, 5), (20.0, 9)):
        result = run(method=PrivateGradient(), privacy=Privacy(epsilon))
        assert result.report.rounds == len(result.rounds) == sums
        assert result.report.privacy is not None
        assert result.report.privacy.rounds == sums


# Bounds


def tasks(privacy: Privacy, method: PrivateGradient = SHORT) -> Task:
    bare = make_task(make_clients([4, 4, 4], dim=6), bits=8, max_rows=4)
    return msgspec.structs.replace(bare, mechanism=Mechanism(privacy, method.sums, 3, 0, 1))


@pytest.mark.parametrize("method", [SHORT, BARE], ids=["centred", "as they are"])
@pytest.mark.parametrize("neighbours", ["add-remove", "replace-one"])
def test_no_row_moves_a_sum_by_more_than_the_sensitivity_and_some_reach_it(
    neighbours: Any, method: PrivateGradient
) -> None:
    privacy = Privacy(1.0, neighbours=neighbours)
    task = tasks(privacy)
    rng = np.random.default_rng(0)
    states = [method.begin(task)]
    state = method.absorb(
        states[0], rng.integers(-900, 900, method._first_layout(task).length), ("c0",)
    )
    states.append(state)
    # Weights as large as any, so that residuals are clipped.
    states.append(method.absorb(state, rng.integers(-(10**7), 10**7, 18), ("c0",)))
    lines = rng.standard_normal((30, 6))
    for state in states:
        moved = []
        bound = method.sensitivity(state, privacy).joint
        vectors = {
            (at, label): method.contribute(
                state, ClientData("c0", sign * lines[at : at + 1], np.array([label])), {}, b""
            )
            for at, sign, label in itertools.product(range(30), (1.0,), range(3))
        }
        opposite = {
            (at, label): method.contribute(
                state, ClientData("c0", -lines[at : at + 1], np.array([label])), {}, b""
            )
            for at, label in vectors
        }
        everything = [*vectors.values(), *opposite.values()]
        if neighbours == "add-remove":
            moved = [float(np.linalg.norm(vector)) for vector in everything]
        else:
            moved = [
                float(np.linalg.norm(one - other))
                for one, other in itertools.combinations(everything, 2)
            ]
        assert max(moved) <= bound
        assert max(moved) > 0.95 * bound


def test_a_client_counts_as_many_times_as_it_has_rows() -> None:
    privacy = Privacy(1.0, unit="client")
    task = tasks(privacy)
    for state in SHORT.foreseen(task):
        assert SHORT.sensitivity(state, privacy).joint == 4 * (
            SHORT.sensitivity(state, Privacy(1.0)).joint
        )


def test_sums_stay_within_their_blocks_at_the_worst() -> None:
    task = tasks(Privacy(1.0))
    for state in [SHORT.begin(task), SHORT.absorb(SHORT.begin(task), np.arange(9), ("c0",))]:
        alike = ClientData("c0", np.tile([9.0, 0, 0, 0, 0, 0], (4, 1)), np.zeros(4, dtype=int))
        layout = SHORT.layout(state)
        assert layout is not None
        layout.check(SHORT.contribute(state, alike, {}, b""))


# Steps


def test_a_step_is_nesterovs_in_floats() -> None:
    privacy = Privacy(1.0)
    task = tasks(privacy)
    plan = schedule(privacy, 12, 4, 6, 3, 4)
    rng = np.random.default_rng(5)
    state = SHORT.absorb(SHORT.begin(task), rng.integers(0, 900, 9), ("c0",))
    weights = point = np.zeros((6, 3))
    for step in range(1, 5):
        total = rng.integers(-(10**5), 10**5, 18)
        state = SHORT.absorb(state, total, ("c0",))
        gradient = total.reshape(6, 3) * CLIP / task.quantiser.scale**2
        moved = point - plan.rate * (gradient - gradient.mean(axis=1, keepdims=True))
        weights, point = moved, moved + step / (step + 3) * (moved - weights)
        assert state.descent is not None
        assert np.abs(state.descent.weights - weights).max() < 1e-4
        assert np.abs(state.descent.point - point).max() < 1e-4
    assert SHORT.layout(state) is None


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([10**6, 10**6, 10**6], [1 / 3, 1 / 3, 1 / 3]),
        ([-5, -5, -5], [1 / 3, 1 / 3, 1 / 3]),
        ([130 * 128, 120 * 128, 110 * 128], [1 / 3, 1 / 3, 1 / 3]),
        ([10**8, 10**7, 0], [0.894, 0.0894, 0.0164]),
    ],
)
def test_a_prior_is_drawn_to_equal_shares_as_far_as_noise_explains_it(
    counts: list[int], expected: list[float]
) -> None:
    task = tasks(Privacy(0.05))
    assert task.mechanism is not None
    noisy = msgspec.structs.replace(task.mechanism, noise_multiplier=50.0)
    task = msgspec.structs.replace(task, mechanism=noisy)
    state = SHORT.absorb(SHORT.begin(task), np.array([0] * 6 + counts), ("c0",))
    assert SHORT.model(state).prior == pytest.approx(expected, abs=5e-3)


def test_the_model_predicts_as_the_clients_trained() -> None:
    result = run(privacy=Privacy(20.0))
    state = result.public
    assert isinstance(state, PrivateGradientPublic)
    assert state.descent is not None
    whole = pooled(CLIENTS)
    signs = projection(40, len(state.descent.direction), 0)
    rows = centred(whole.features, Quantiser(12), signs)
    rows = without(rows, state.descent.direction, Quantiser(12)) / 2**12
    scores = rows @ state.descent.weights + state.descent.log_prior
    assert (result.model.predict(whole.features) == scores.argmax(axis=1)).mean() > 0.9
    equal = result.model.with_prior(np.ones(3))
    plain = (rows @ state.descent.weights).argmax(axis=1)
    assert (equal.predict(whole.features) == plain).mean() > 0.9


@pytest.mark.slow
def test_digits_are_learned_and_five_sums_are_enough_at_one() -> None:
    data = embedded_digits()
    features = parse_backbone("projection:128").extract(data)
    clients = [ClientData(f"c{i}", features[i:1440:8], data.labels[i:1440:8]) for i in range(8)]
    test = ClientData("test", features[1440:], data.labels[1440:])
    names = tuple(map(str, range(10)))
    accuracy = {}
    for name, method in (("steps", SHORT), ("statistics", AFL())):
        found = Federation(method, Additive(), privacy=Privacy(1.0)).run(
            clients, classes=names, max_rows=256, test=test
        )
        accuracy[name] = found.model.accuracy(test.features, test.labels)
    assert accuracy["steps"] > 0.7
    assert accuracy["steps"] > accuracy["statistics"]


# Refusals


def test_there_is_no_form_without_noise() -> None:
    with pytest.raises(ConfigError, match="pass --epsilon"):
        Federation(PrivateGradient(), Additive()).run(CLIENTS)
    with pytest.raises(ConfigError, match="pass --epsilon"):
        PrivateGradient.configured({}, private=False, seed=0)


@pytest.mark.parametrize("rounds", [4, 26, 5.5])
def test_a_number_of_sums_out_of_range_is_refused(rounds: Any) -> None:
    with pytest.raises(ConfigError, match=r"rounds is .*5\.\.25"):
        PrivateGradient(rounds=rounds)


def test_rows_of_two_features_or_of_any_length_are_refused() -> None:
    two = make_clients([7, 5, 9], dim=2)
    federation = Federation(SHORT, Additive(), privacy=Privacy(1.0))
    with pytest.raises(ConfigError, match=r"--centre with 2 features.*leave it out"):
        federation.run(two, classes=CLASSES, max_rows=16)
    clipped = Federation(SHORT, Additive(), privacy=Privacy(1.0), row_mode="clip")
    with pytest.raises(ConfigError, match="row mode 'clip'"):
        clipped.run(CLIENTS, classes=CLASSES, max_rows=16)


def test_states_that_no_round_has_are_refused() -> None:
    task = tasks(Privacy(1.0))
    first = SHORT.begin(task)
    state = SHORT.absorb(first, np.arange(9), ("c0",))
    assert state.descent is not None
    SHORT.check(first, 1)
    SHORT.check(state, 2)
    replace = msgspec.structs.replace
    bent = [
        {"direction": state.descent.direction + 0.5},
        {"direction": 4 * state.descent.direction},
        {"log_prior": np.zeros(4)},
        {"log_prior": np.array([0.0, np.nan, 0.0])},
        {"weights": np.full((6, 3), 1e-9)},
        {"weights": np.zeros((5, 3))},
        {"point": np.full((6, 3), np.inf)},
    ]
    for change in bent:
        with pytest.raises(DataError):
            SHORT.check(replace(state, descent=replace(state.descent, **change)), 2)
    for other, round_ in ((first, 2), (state, 1), (state, 3), (replace(state, descent=None), 2)):
        with pytest.raises(DataError, match="in round"):
            SHORT.check(other, round_)


@pytest.mark.parametrize("sums", [1, 2])
def test_clients_recompute_the_state_of_a_lying_server(sums: int) -> None:
    """A server that shifts the point would choose where it asks for a gradient."""
    terms = Terms(SHORT, Additive(), Privacy(1.0))
    bounds = tuple((data.name, 16) for data in CLIENTS)
    task = plan_task(terms, Declared(40, CLASSES, bounds, bytes(32), min_cohort=4))
    world = Halves(terms, task, CLIENTS, max_rows=16, min_cohort=4)
    members = {name: world.client(name, min_cohort=4) for name in world.identities}
    for _ in range(sums):
        session, enrolments = world.form()
        released, release, salt = world.carry(session, enrolments, members)
        world.server.absorb(session, released, release, salt)
    honest = world.server.public
    assert isinstance(honest, PrivateGradientPublic)
    assert honest.descent is not None
    shifted = msgspec.structs.replace(honest.descent, point=honest.descent.point + 1.0)
    lie = msgspec.structs.replace(honest, descent=shifted)
    history = world.server.history
    links = (*history.links[:-1], Link(history.links[-1].release, state_digest(lie)))
    world.server.public, world.server.history = lie, History(history.first, links)
    session, enrolments = world.form()
    with pytest.raises(InvalidSession, match="not what the total of the round before gives"):
        members["c0"].join(session, enrolments["c0"], world.opening)


def test_a_collector_that_signs_a_false_sum_chooses_the_point_and_no_row_gives_more() -> None:
    """It receives the sums, so that nobody can know better: the bounds do not turn on the point."""
    terms = Terms(SHORT, Additive(), Privacy(1.0))
    bounds = tuple((data.name, 16) for data in CLIENTS)
    task = plan_task(terms, Declared(40, CLASSES, bounds, bytes(32), min_cohort=4))
    world = Halves(terms, task, CLIENTS, max_rows=16, min_cohort=4)
    members = {name: world.client(name, min_cohort=4) for name in world.identities}
    for seed in (1, 2):
        session, enrolments = world.form()
        for name, member in members.items():
            member.join(session, enrolments[name], world.opening)
        draw = np.random.default_rng(seed).random(session.layout.length)
        blocks = session.layout.split(np.arange(session.layout.length))
        total = np.zeros(session.layout.length, dtype=np.int64)
        for block in session.layout.blocks:
            span = block.high - block.low
            total[blocks[block.name]] = block.low + (span * draw[blocks[block.name]]).astype(int)
        before = world.server.public
        assert isinstance(before, PrivateGradientPublic)
        world.pretend(SHORT.absorb(before, total, session.clients), session, total)
    chosen = world.server.public
    assert isinstance(chosen, PrivateGradientPublic)
    assert chosen.descent is not None
    assert np.abs(chosen.descent.point).max() > 5
    session, enrolments = world.form()
    members["c0"].join(session, enrolments["c0"], world.opening)
    bound = SHORT.sensitivity(chosen, Privacy(1.0)).joint
    data = next(data for data in CLIENTS if data.name == "c0")
    for place in range(len(data)):
        alone = SHORT.contribute(chosen, data.take(np.array([place])), {}, b"")
        assert np.linalg.norm(alone) <= bound


# Through the whole pipeline


def test_every_sum_is_in_the_ledger_and_a_second_run_over_budget_is_refused(tmp_path: Path) -> None:
    ledger = Ledger.open(
        tmp_path / "ledger.json", Budget(1.2, 1e-5, "example", "add-remove"), new=True
    )
    federation = Federation(SHORT, Additive(), privacy=Privacy(1.0), ledger=ledger, min_cohort=4)
    federation.run(CLIENTS, classes=CLASSES, max_rows=16)
    spent = ledger.spent("c0")
    assert spent.releases == 5
    assert spent.epsilon == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(LedgerRefusal, match="c0"):
        federation.run(CLIENTS, classes=CLASSES, max_rows=16)
    # Two of its five sums would fit the budget: nothing is spent on a run that cannot be finished.
    assert all(ledger.spent(data.name).releases == 5 for data in CLIENTS)


def test_counts_of_rows_kept_out_come_after_it() -> None:
    result = run(method=evaluated(PrivateGradient(), 0.3), privacy=Privacy(0.5))
    assert result.report.rounds == 6
    assert result.report.pooled is not None
    assert isinstance(result.model, LinearModel)


def test_from_the_command_line_to_predictions(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--method", "private-gradient", "--epsilon", "8", "--max-rows", "256"]
    command.well("run", *options, "--rounds", "5", "--dimension", "128", "--out", out)
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert (report["rounds"], report["exact"]) == (5, True)
    model, card = LinearModel.load(out / "model.safetensors")
    data = embedded_digits()
    features = parse_backbone("projection:512").extract(data)
    accuracy = model.accuracy(features, data.labels)
    assert model.width == 512
    assert accuracy > 0.7
    assert math.isclose(sum(card["scoring"]["prior"]), 1, abs_tol=1e-9)


def test_a_run_that_the_budget_would_stop_midway_is_refused_before_its_first_sum(
    tmp_path: Path,
) -> None:
    """Two of five sums would fit the budget, and make no model."""
    ledger = Ledger.open(
        tmp_path / "ledger.json", Budget(0.7, 1e-5, "example", "add-remove"), new=True
    )
    federation = Federation(SHORT, Additive(), privacy=Privacy(1.0), ledger=ledger, min_cohort=4)
    with pytest.raises(LedgerRefusal, match="the release would exceed the budget"):
        federation.run(CLIENTS, classes=CLASSES, max_rows=16)
    assert ledger.spent("c0").releases == 0


@pytest.mark.slow
def test_the_columns_of_narrow_tables_keep_their_means() -> None:
    """Which of two columns is larger is all that tells these classes apart, or its sign."""
    rng = np.random.default_rng(0)
    rows = rng.uniform(-1, 1, (2_000, 3))
    labels = (rows[:, 0] > 0.2).astype(np.int64)
    clients = [ClientData(f"c{i}", rows[i:1600:4], labels[i:1600:4]) for i in range(4)]
    test = ClientData("test", rows[1600:], labels[1600:])
    accuracy = {}
    for method in (PrivateGradient(), PrivateGradient(centre=True)):
        federation = Federation(method, Additive(), privacy=Privacy(4.0))
        result = federation.run(clients, classes=("0", "1"), max_rows=512, test=test)
        accuracy[method.centre] = result.model.accuracy(test.features, test.labels)
        names = [block.name for block in result.rounds[0].session.layout.blocks]
        assert names == (["rows", "counts"] if method.centre else ["counts"])
        assert result.report.exact
    assert accuracy[None] > accuracy[True] + 0.05
    assert accuracy[None] > 0.85
