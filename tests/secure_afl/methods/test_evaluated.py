"""Evaluation as a further round: exact counts, a split by hash, and servers that lie."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import Additive, Bfv, Ckks, FaultPlan, Network, Pairwise, Plain, Protocol
from protocols.codec import decode, encode
from protocols.errors import InvalidSession, Malformed
from secure_afl.analytic.rows import ClientData, pooled
from secure_afl.analytic.tally import HIDDEN, LEAST_ROWS, Tally, edges_of, hide_small, tally
from secure_afl.errors import ConfigError, DataError, LedgerRefusal
from secure_afl.evaluation.figures import measure
from secure_afl.evaluation.pooled import figures_of
from secure_afl.federation import simulation
from secure_afl.federation.client import FederationClient
from secure_afl.federation.rounds.history import History, Opening, state_digest
from secure_afl.federation.simulation import Federation
from secure_afl.federation.sums import this_noisy_sum
from secure_afl.federation.task import Declared, Terms, plan_task
from secure_afl.methods import AFL, AnyMethod, FedAvg, Method, Softmax
from secure_afl.methods.evaluated import Evaluated, EvaluatedPublic, evaluated
from secure_afl.methods.further import SAID, Further
from secure_afl.methods.method import METHODS
from secure_afl.privacy.ledger import Ledger
from secure_afl.privacy.mechanism import Privacy
from tests.kit.halves import Halves
from tests.kit.samples import make_clients, make_task

CLIENTS = make_clients((60, 90, 50, 70))
CLASSES = ("0", "1", "2")


def kept_rows(
    method: Evaluated, result: Any, clients: Sequence[ClientData] = CLIENTS
) -> ClientData:
    """The rows that all clients kept out, in one place."""
    task = result.rounds[-1].public.task
    found = [method.kept(task, client) for client in clients]
    return pooled([data for data in found if data is not None])


# What comes out


@pytest.mark.parametrize("protocol", [Plain(), Additive(), Pairwise(), Ckks(), Bfv()], ids=repr)
@pytest.mark.parametrize("learner", [AFL(), AFL(ridge=0.1)], ids=("lda", "ridge"))
def test_counts_are_those_of_the_pooled_rows_under_every_protocol(
    protocol: Protocol, learner: AnyMethod
) -> None:
    method = evaluated(learner, 0.4)
    result = Federation(method, protocol).run(CLIENTS, classes=CLASSES)
    assert result.report.exact
    assert (result.report.rounds, result.report.clients.included) == (2, 4)
    kept, found = kept_rows(method, result), result.report.pooled
    exact = measure(result.model.comparable(kept.features), kept.labels, CLASSES)
    assert found is not None
    assert found.confusion == exact.confusion
    assert (found.examples, found.sites) == (len(kept), 4)
    assert result.report.examples == sum(map(len, CLIENTS)) - len(kept)
    assert found.accuracy is not None
    assert found.accuracy.value == exact.accuracy.value
    for ours, theirs in zip(found.classes, exact.classes, strict=True):
        assert ours.sensitivity is not None
        assert ours.specificity is not None
        assert theirs.sensitivity is not None
        assert theirs.specificity is not None
        assert theirs.auc is not None
        assert ours.auc is not None
        assert ours.auc_error is not None
        assert ours.sensitivity.value == theirs.sensitivity.value
        assert ours.specificity.value == pytest.approx(theirs.specificity.value, abs=1e-15)
        assert abs(ours.auc - theirs.auc.value) <= ours.auc_error + 1e-12
        assert ours.auc_error < 0.02


def every_method() -> list[Any]:
    """All that there are, those of many rounds with two, and one that weighs clients alike.

    Those that train for long are slow.
    """
    made: list[Any] = [FedAvg(rounds=2, weighted=False)]
    quick = ("class-means", "softmax", "fedavg")
    for name, kind in METHODS.items():
        if kind.wants_noise or kind.numeric:
            continue
        settings = {"rounds": 2} if "rounds" in kind.__struct_fields__ else {}
        marks = [] if name in quick else [pytest.mark.slow]
        made.append(pytest.param(kind(**settings), marks=marks))
    return made


@pytest.mark.parametrize("learner", every_method(), ids=lambda method: method.name)
def test_every_method_can_be_evaluated(learner: AnyMethod) -> None:
    method = evaluated(learner, 0.4)
    clients = make_clients((60, 90, 50, 70), dim=36 if learner.images else 6)
    result = Federation(method, Additive()).run(clients, classes=CLASSES)
    kept, found = kept_rows(method, result, clients), result.report.pooled
    exact = measure(result.model.comparable(kept.features), kept.labels, CLASSES)
    assert found is not None
    assert found.confusion == exact.confusion
    assert found.auc is not None
    assert found.auc_error is not None
    assert found.auc_error < 0.05
    assert result.report.rounds == learner.sums + 1
    assert result.method == learner


def test_the_model_is_that_of_the_rows_that_are_not_kept_out() -> None:
    method = evaluated(AFL(), 0.4)
    result = Federation(method, Additive(), feature_bits=10).run(CLIENTS, classes=CLASSES)
    task = result.rounds[-1].public.task
    trained = [method.trained(task, client) for client in CLIENTS]
    alone = Federation(AFL(), Plain(), feature_bits=10).run(
        [data for data in trained if data is not None], classes=CLASSES
    )
    assert np.array_equal(result.model.weights, alone.model.weights)
    assert result.statistics.rows == alone.statistics.rows


def test_an_evaluated_method_says_what_the_method_says() -> None:
    hints = [name for name, kind in Method.__annotations__.items() if "ClassVar" in str(kind)]
    assert set(hints) - {"public", "auditable"} == set(SAID)
    for learner in (AFL(), FedAvg(), Softmax()):
        method = evaluated(learner, 0.2)
        for name in set(SAID) - {"ignores"}:
            assert getattr(method, name) == getattr(learner, name)
    assert "same_set" in AFL.ignores
    assert "same_set" not in evaluated(AFL(), 0.2).ignores


def test_nothing_that_a_method_may_say_is_forgotten() -> None:
    said = {name for name in vars(Method) if not name.startswith("_")} - set(SAID)
    own = {"public", "auditable", "row_additive", "begin", "run_sums"}
    assert said - set(vars(Further)) - set(vars(Evaluated)) - own == set()


@pytest.mark.parametrize("share", [0, -0.1, 0.95, 1, float("nan")])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="share is"):
        evaluated(AFL(), share)


# Counts


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32), st.integers(2, 5), st.integers(2, 80), st.floats(0.1, 3000))
def test_tallies_add_up_and_their_auc_is_within_its_bound(
    seed: int, classes: int, rows: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    scores = spread * rng.standard_normal((rows, classes))
    if seed % 3 == 0:
        scores[:, 0] = -np.inf  # a class that is never predicted
    labels = rng.integers(0, classes, rows)
    whole = tally(scores, labels, 2.0)
    halves = [tally(scores[part], labels[part], 2.0) for part in (slice(0, 1), slice(1, None))]
    for place in range(3):
        total = np.asarray(whole[place])
        assert np.array_equal(total, np.asarray(halves[0][place]) + np.asarray(halves[1][place]))
    names = [str(c) for c in range(classes)]
    ours = figures_of(whole, names)
    theirs = measure(scores, labels, names)
    assert ours.confusion == theirs.confusion
    for own, exact in zip(ours.classes, theirs.classes, strict=True):
        assert (own.auc is None) == (exact.auc is None)
        if own.auc is not None and exact.auc is not None and own.auc_error is not None:
            assert abs(own.auc - exact.auc.value) <= own.auc_error + 1e-12


def test_bins_are_fine_where_scores_are_and_leave_none_out() -> None:
    edges = edges_of(256, 1.0)
    assert np.array_equal(edges, np.sort(edges))
    np.testing.assert_allclose(edges, -edges[::-1], atol=1e-12)
    assert edges[127] == pytest.approx(0, abs=1e-12)
    assert edges[128] < 1 / 16
    assert edges[-1] > 900
    # Classes far apart are told apart, where even bins of a small range put most rows into one.
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 500)
    scores = np.stack([-60.0 * labels, 30.0 * labels - 30], axis=1) + 25 * rng.standard_normal(
        (1000, 2)
    )
    found = figures_of(tally(scores, labels, 1.0), ["a", "b"]).classes[1]
    exact = measure(scores, labels, ["a", "b"]).classes[1].auc
    assert exact is not None
    assert found.auc is not None
    assert found.auc_error is not None
    assert abs(found.auc - exact.value) <= found.auc_error < 0.01


def test_classes_of_few_rows_are_hidden_from_all_but_the_receiver() -> None:
    rare = [
        replace(client, labels=np.where(np.arange(len(client)) < 2, 3, client.labels))
        for client in CLIENTS
    ]
    method = evaluated(AFL(), 0.4)
    result = Federation(method, Additive()).run(rare, classes=(*CLASSES, "rare"))
    found = result.report.pooled
    assert found is not None
    last = result.rounds[-1]
    assert isinstance(last.public, EvaluatedPublic)
    counts = last.session.layout.split(last.released.total)
    # Of eight in all, whichever are kept out.
    assert counts["confusion"].reshape(4, 4)[3].sum() < 10
    assert found.confusion[3] is None
    assert found.classes[3].auc is None
    assert found.classes[3].examples is None
    assert found.classes[0].auc is not None
    state = method.advance(last.public, [last.released.total], last.released.included)
    assert state.counts is not None
    shown = last.session.layout.split(state.counts)
    assert (shown["confusion"].reshape(4, 4)[3] == HIDDEN).all()
    assert (shown["own_scores"].reshape(4, -1)[3] == HIDDEN).all()


def test_intervals_of_noisy_counts_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    truth = np.array([[300, 40, 10], [20, 200, 30], [0, 5, 3]])
    inside = []
    for _ in range(400):
        drawn = np.array([rng.multinomial(row.sum(), row / row.sum()) for row in truth])
        noisy = np.rint(16 * (drawn + 5.0 * rng.standard_normal((3, 3)))).astype(np.int64)
        found = figures_of(hide_small(Tally(noisy, step=16, noise_std=5.0)), CLASSES)
        # Three counts of noise 5 are no sign of ten rows.
        assert found.confusion[2] is None or noisy[2].sum() >= 16 * 2 * 5 * 3**0.5
        for place in range(2):
            recall, share = found.classes[place].sensitivity, truth[place] / truth[place].sum()
            assert recall is not None
            assert recall.low is not None
            assert recall.high is not None
            inside.append(recall.low <= share[place] <= recall.high)
    assert LEAST_ROWS == 10
    assert 0.92 < np.mean(inside) < 0.98


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="not numbers"):
        tally(np.array([[np.nan, 0.0]]), np.array([0]), 1.0)


# Which rows


def test_a_row_is_kept_out_whatever_the_others_are() -> None:
    method = evaluated(AFL(), 0.3)
    task = make_task(CLIENTS)
    data = CLIENTS[1]
    whole = method.kept(task, data)
    assert whole is not None
    for place in range(20):
        one = ClientData("x", data.features[[place]], data.labels[[place]])
        inside = (whole.features == data.features[place]).all(axis=1).any()
        assert (method.kept(task, one) is not None) == inside
        assert (method.trained(task, one) is None) == inside
    # The last bits of a row, and its type, are the machine's.
    float32 = replace(data, features=data.features.astype(np.float32))
    again = method.kept(task, float32)
    assert again is not None
    assert len(again) == len(whole)
    other = method.kept(msgspec.structs.replace(task, run=bytes(15) + b"1"), data)
    assert other is None or not np.array_equal(other.features, whole.features)


def test_the_share_is_kept_out() -> None:
    rows = np.random.default_rng(0).standard_normal((4000, 6))
    data = ClientData("x", rows, np.zeros(4000, dtype=np.int64))
    kept = evaluated(AFL(), 0.2).kept(make_task(CLIENTS), data)
    assert kept is not None
    assert 0.17 < len(kept) / 4000 < 0.23


def test_a_client_whose_rows_are_all_kept_out_adds_nothing_to_the_model() -> None:
    method = evaluated(AFL(), 0.9)
    task = make_task(CLIENTS)
    kept = method.kept(task, CLIENTS[0])
    assert kept is not None
    one = ClientData("one", kept.features[:1], kept.labels[:1])
    vector = method.contribute(method.begin(task), one, {}, b"")
    assert not vector.any()
    averaging = evaluated(FedAvg(rounds=1), 0.9)
    with pytest.raises(DataError, match="keeps all of its rows out"):
        averaging.contribute(averaging.begin(task), one, {}, bytes(32))


# The ledger


def test_the_ledger_knows_of_both_sums_and_allows_no_other(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.json", new=True)
    federation = Federation(evaluated(AFL(), 0.4), Additive(), ledger=ledger)
    federation.run(CLIENTS, classes=CLASSES)
    entries = ledger.entries("c0")
    assert [(e.rounds, e.released, e.mu) for e in entries] == [(2, True, None)] * 2
    assert len({e.run for e in entries}) == 1
    for again in (federation, Federation(AFL(), Additive(), ledger=ledger)):
        with pytest.raises(LedgerRefusal, match="another run had an exact release"):
            again.run(CLIENTS, classes=CLASSES)


@pytest.mark.parametrize(
    ("unit", "neighbours"), [("example", "add-remove"), ("client", "replace-one")]
)
def test_with_noise_both_sums_are_charged(unit: Any, neighbours: Any, tmp_path: Path) -> None:
    privacy = Privacy(4.0, unit=unit, neighbours=neighbours)
    ledger = Ledger.open(tmp_path / "ledger.json", new=True)
    federation = Federation(evaluated(AFL(), 0.4), Additive(), privacy=privacy, ledger=ledger)
    result = federation.run(CLIENTS, classes=CLASSES, max_rows=128)
    assert result.report.exact
    assert result.report.privacy is not None
    assert result.report.privacy.rounds == 2
    found = result.report.pooled
    assert found is not None
    assert found.noise_std > 1
    assert found.auc is None
    last = result.rounds[-1]
    assert [block.name for block in last.session.layout.blocks] == ["confusion"]
    spent = [entry.mu for entry in ledger.entries("c0")]
    alone = Federation(AFL(), Additive(), privacy=privacy).run(
        CLIENTS, classes=CLASSES, max_rows=128
    )
    assert alone.report.privacy is not None
    # √2 times the noise, for twice the sums.
    assert result.report.privacy.noise_multiplier == pytest.approx(
        np.sqrt(2) * alone.report.privacy.noise_multiplier, rel=1e-3
    )
    assert spent[0] == pytest.approx(spent[1], rel=1e-6)


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from(["example", "client"]), st.booleans())
def test_no_neighbour_moves_the_counts_further_than_their_sensitivity(
    seed: int, unit: Any, replaced: bool
) -> None:
    neighbours: Any = "replace-one" if replaced else "add-remove"
    method = evaluated(AFL(), 0.5)
    rows = 32
    task = make_task(CLIENTS[:2], max_rows=rows)
    rng = np.random.default_rng(seed)

    def made(count: int) -> ClientData:
        labels = rng.integers(0, 3, count)
        return ClientData("x", rng.standard_normal((count, 6)), labels)

    trained = AFL().absorb(
        AFL().begin(task), AFL().contribute(AFL().begin(task), made(30), {}, b""), ()
    )
    privacy = Privacy(1.0, unit=unit, neighbours=neighbours)
    declared = Declared(6, CLASSES, (("a", rows), ("b", rows), ("c", rows)), bytes(32), 2)
    noisy = plan_task(Terms(method, Additive(), privacy), declared)
    state = method.begin(noisy)
    state = msgspec.structs.replace(
        state, learned=msgspec.structs.replace(trained, task=noisy), evaluating=True
    )
    before = made(rows if unit == "client" else 20)
    if unit == "client":
        after = made(rows) if replaced else None
    else:
        keep = slice(1, None)
        after = ClientData("x", before.features[keep], before.labels[keep])
        if replaced:
            after = pooled([after, made(1)])
    one = method.contribute(state, before, {}, b"")
    other = np.zeros_like(one) if after is None else method.contribute(state, after, {}, b"")
    bound = this_noisy_sum(method, state).sensitivity.joint
    assert np.linalg.norm(one - other) <= bound * (1 + 1e-12)


# A server that lies

LEARNER = AFL()
METHOD = evaluated(LEARNER, 0.4)
NAMES = [client.name for client in CLIENTS]


def world_of(learner: AnyMethod = LEARNER) -> tuple[Halves, dict[str, FederationClient]]:
    """A run whose model is there, and whose evaluation is to come."""
    task = make_task(CLIENTS, bits=10, max_rows=128)
    method = evaluated(learner, 0.4)
    world = Halves(Terms(method, Additive()), task, CLIENTS, max_rows=128, min_cohort=3)
    everybody = {name: world.client(name, pinned=world.roster) for name in NAMES}
    for _ in range(learner.sums):
        session, enrolments = world.form()
        released, release, salt = world.carry(session, enrolments, everybody)
        world.server.absorb(session, released, release, salt)
    return world, everybody


def evaluation_of(world: Halves) -> EvaluatedPublic:
    public = world.server.public
    assert isinstance(public, EvaluatedPublic)
    assert public.evaluating
    return public


def with_model(public: EvaluatedPublic, weights: np.ndarray) -> EvaluatedPublic:
    """The state with another model, such as one that scores one patient's row above all others."""
    learned: Any = public.learned
    fitted = msgspec.structs.replace(learned.fitted, weights=weights)
    return msgspec.structs.replace(public, learned=msgspec.structs.replace(learned, fitted=fitted))


def question(public: EvaluatedPublic) -> EvaluatedPublic:
    """A state that asks whether a certain row is among those kept out."""
    target = CLIENTS[0].features[0]
    learned: Any = public.learned
    weights = np.zeros_like(learned.fitted.weights)
    weights[:, 0] = 1e6 * target / np.linalg.norm(target)
    return with_model(public, weights)


def refused(world: Halves, everybody: Any, opening: Opening, match: str, names: Any = None) -> None:
    session, enrolments = world.form(names)
    for name in names or NAMES:
        with pytest.raises(InvalidSession, match=match):
            everybody[name].join(session, enrolments[name], opening)
    for name, carrier in world.carriers.items():
        with pytest.raises(InvalidSession, match=match):
            carrier.join(session, enrolments[name], opening)


def test_a_model_that_is_not_the_runs_is_not_evaluated() -> None:
    world, everybody = world_of()
    false = question(evaluation_of(world))
    refused(
        world,
        everybody,
        replace(world.opening, public=false),
        "not the one that the history ends with",
    )


def test_two_models_are_not_evaluated_in_one_session() -> None:
    """Counts of two models over two parts of the clients would be two questions."""
    world, everybody = world_of()
    session, enrolments = world.form()
    false = question(evaluation_of(world))
    history = world.server.history
    last = msgspec.structs.replace(history.links[-1], state=state_digest(false))
    other = Opening(false, History(history.first, (*history.links[:-1], last)))
    everybody["c0"].join(session, enrolments["c0"], world.opening)
    with pytest.raises(InvalidSession, match="another method, task, state or history"):
        everybody["c1"].join(session, enrolments["c1"], other)


def test_the_model_that_was_evaluated_is_the_one_that_the_run_ends_with() -> None:
    """A receiver that asks with a false model has to give everybody that model."""
    world, everybody = world_of()
    honest = evaluation_of(world)
    false = question(honest)
    history = world.server.history
    last = msgspec.structs.replace(history.links[-1], state=state_digest(false))
    world.server.public = false
    world.server.history = History(history.first, (*history.links[:-1], last))
    session, enrolments = world.form()
    released, release, salt = world.carry(session, enrolments, everybody)
    world.server.absorb(session, released, release, salt)
    counts = evaluation_counts(world)
    end = msgspec.structs.replace(honest, counts=counts.counts, sites=4)
    links = world.server.history.links
    forged = msgspec.structs.replace(links[-1], state=state_digest(end))
    receiver = world.roster.by_name["collector"]
    opening = Opening(end, History(history.first, (*links[:-1], forged)))
    for name in NAMES:
        with pytest.raises(InvalidSession, match="not the one that this party evaluated"):
            everybody[name].conclude(opening, receiver)
        everybody[name].conclude(world.opening, receiver)
    # Also after a restart.
    back = world.client("c0", pinned=world.roster).restore(everybody["c0"].save())
    with pytest.raises(InvalidSession, match="not the one that this party evaluated"):
        back.conclude(opening, receiver)


def evaluation_counts(world: Halves) -> EvaluatedPublic:
    public = world.server.public
    assert isinstance(public, EvaluatedPublic)
    assert public.counts is not None
    return public


def test_an_end_without_counts_is_refused() -> None:
    world, everybody = world_of()
    session, enrolments = world.form()
    released, release, salt = world.carry(session, enrolments, everybody)
    world.server.absorb(session, released, release, salt)
    links = world.server.history.links
    for counts in (None, np.zeros(3, dtype=np.int64)):
        end = msgspec.structs.replace(evaluation_counts(world), counts=counts)
        forged = msgspec.structs.replace(links[-1], state=state_digest(end))
        opening = Opening(end, History(world.server.history.first, (*links[:-1], forged)))
        with pytest.raises(InvalidSession, match="without its counts"):
            everybody["c0"].conclude(opening, world.roster.by_name["collector"])


@pytest.mark.parametrize("names", [NAMES, NAMES[1:]], ids=("same-set", "without-one"))
@pytest.mark.parametrize("bend", [False, True], ids=("same-model", "other-model"))
def test_an_evaluation_is_not_asked_twice(names: Sequence[str], bend: bool) -> None:
    world, everybody = world_of()
    session, enrolments = world.form()
    world.carry(session, enrolments, everybody)
    if bend:
        public = question(evaluation_of(world))
        links = world.server.history.links
        last = msgspec.structs.replace(links[-1], state=state_digest(public))
        world.server.public = public
        world.server.history = History(world.server.history.first, (*links[:-1], last))
    refused(world, everybody, world.opening, "joined another session of this round", names)


def test_a_run_has_one_evaluation() -> None:
    world, everybody = world_of()
    session, enrolments = world.form()
    released, release, salt = world.carry(session, enrolments, everybody)
    world.server.absorb(session, released, release, salt)
    assert world.server.finished
    public = msgspec.structs.replace(evaluation_counts(world), counts=None)
    links = world.server.history.links
    last = msgspec.structs.replace(links[-1], state=state_digest(public))
    world.server.public = public
    world.server.history = History(world.server.history.first, (*links[:-1], last))
    refused(world, everybody, world.opening, "the run has 2 rounds")


@pytest.mark.parametrize("kind", ["statistics", "counted", "flag", "task"])
def test_another_rounds_state_is_refused(kind: str) -> None:
    """The first sum once more, under the name of the evaluation, would be two Gram matrices."""
    world, everybody = world_of()
    public = evaluation_of(world)
    first = METHOD.begin(public.task)
    length = METHOD._layout(public.task).length
    other = {
        "statistics": first,
        "counted": msgspec.structs.replace(public, counts=np.zeros(length, dtype=np.int64)),
        "flag": msgspec.structs.replace(first, evaluating=True),
        "task": msgspec.structs.replace(
            public, task=msgspec.structs.replace(public.task, backbone=b"\1" * 32)
        ),
    }[kind]
    links = world.server.history.links
    last = msgspec.structs.replace(links[-1], state=state_digest(other))
    history = History(world.server.history.first, (*links[:-1], last))
    session, enrolments = world.form()
    for name in NAMES:
        with pytest.raises(InvalidSession, match=r"none of this round's|another task"):
            everybody[name].join(session, enrolments[name], Opening(other, history))


@pytest.mark.parametrize("bend", ["shape", "nan", "infinite"])
def test_a_state_without_a_model_of_the_task_is_refused(bend: str) -> None:
    world, everybody = world_of()
    public = evaluation_of(world)
    learned: Any = public.learned
    weights = learned.fitted.weights.copy()
    if bend == "shape":
        weights = weights[:-1]
    else:
        weights[0, 0] = np.nan if bend == "nan" else np.inf
    world.server.public = with_model(public, weights)
    links = world.server.history.links
    last = msgspec.structs.replace(links[-1], state=state_digest(world.server.public))
    world.server.history = History(world.server.history.first, (*links[:-1], last))
    refused(world, everybody, world.opening, "none of this round's")


def test_with_noise_a_client_whose_rows_are_all_kept_out_sends_some_update() -> None:
    learner = FedAvg(rounds=1, weighted=False)
    method = evaluated(learner, 0.9)
    declared = Declared(6, CLASSES, tuple((name, 128) for name in NAMES), bytes(32), 3)
    task = plan_task(Terms(method, Additive(), Privacy(1.0)), declared)
    state = method.begin(task)
    single = (CLIENTS[0].take(np.array([row])) for row in range(len(CLIENTS[0])))
    out = next(data for data in single if method.trained(task, data) is None)
    sent = this_noisy_sum(method, state).layout.split(method.contribute(state, out, {}, bytes(32)))
    assert sent["weight"].tolist() == [1]
    assert np.linalg.norm(sent["update"]) <= 2 ** learner.quantiser(task).bits
    exact = msgspec.structs.replace(task, mechanism=None)
    with pytest.raises(DataError, match="keeps all of its rows out"):
        method.contribute(method.begin(exact), out, {}, bytes(32))


def test_with_noise_no_row_makes_its_client_refuse_whatever_the_model() -> None:
    """A refusal is seen by all: scores that overflow for some rows alone would ask about these."""
    method = evaluated(AFL(), 0.5)
    declared = Declared(6, CLASSES, tuple((name, 128) for name in NAMES), bytes(32), 3)
    noisy = plan_task(Terms(method, Additive(), Privacy(1.0)), declared)
    exact = AFL().begin(make_task(CLIENTS, max_rows=128))
    trained = AFL().absorb(exact, AFL().contribute(exact, CLIENTS[0], {}, b""), ())
    kept = method.kept(noisy, CLIENTS[0])
    assert kept is not None
    rows = kept.features / np.linalg.norm(kept.features, axis=1, keepdims=True)
    weights = np.zeros((6, 3))
    weights[:, 0] = np.clip(3e308 * rows[0], -1.7e308, 1.7e308)
    learned = msgspec.structs.replace(trained, task=noisy)
    state = msgspec.structs.replace(method.begin(noisy), learned=learned, evaluating=True)
    state = with_model(state, weights)
    bent: Any = state.learned
    fitted = msgspec.structs.replace(
        bent.fitted, offset=None, prior=None, observed=None, temperature=np.inf
    )
    bent = msgspec.structs.replace(bent, fitted=fitted)
    state = msgspec.structs.replace(state, learned=bent)
    method.check(state, 2)
    with np.errstate(all="ignore"):
        scores = [method.model(state).comparable(row[None]) for row in kept.features]
    odd = np.isnan(scores).any(axis=(1, 2))
    assert 0 < odd.sum() < len(kept), "some rows have no scores, others have"
    bound = this_noisy_sum(method, state).sensitivity.joint
    counts = method.contribute(state, CLIENTS[0], {}, b"")
    for place in range(len(CLIENTS[0])):
        fewer = CLIENTS[0].take(np.delete(np.arange(len(CLIENTS[0])), place))
        moved = counts - method.contribute(state, fewer, {}, b"")
        assert np.linalg.norm(moved) <= bound


def test_a_first_state_that_asks_for_counts_is_refused() -> None:
    """With no sum before it, the model would be whatever the server likes."""
    task = make_task(CLIENTS, bits=10, max_rows=128)
    world = Halves(Terms(METHOD, Additive()), task, CLIENTS, max_rows=128, min_cohort=3)
    everybody = {name: world.client(name, pinned=world.roster) for name in NAMES}
    public = evaluation_of(world_of()[0])
    world.server.public = public
    world.server.history = History(state_digest(public))
    refused(world, everybody, world.opening, "none of this round's")


def test_a_party_that_joins_no_evaluation_has_the_plain_methods_runs() -> None:
    """Who did not agree to an evaluation is in no run that has one, nor the other way round."""
    task = make_task(CLIENTS, bits=10, max_rows=128)
    for ours, theirs in ((METHOD, evaluated(AFL(), 0.3)), (METHOD, evaluated(AFL(ridge=1.0), 0.4))):
        world = Halves(Terms(theirs, Additive()), task, CLIENTS, max_rows=128, min_cohort=3)
        session, enrolments = world.form()
        client = FederationClient(Terms(ours, Additive()), CLIENTS[0], 128, world.roster)
        with pytest.raises(InvalidSession, match="another method"):
            client.join(session, enrolments["c0"], world.opening)
    for state, other in ((METHOD.begin(task), AFL.public), (AFL().begin(task), METHOD.public)):
        with pytest.raises(Malformed):
            decode(encode(state), other)


def test_states_outlast_a_restart() -> None:
    world, _ = world_of()
    public = evaluation_of(world)
    again = decode(encode(public), METHOD.public)
    assert encode(again) == encode(public)
    assert repr(public) == "<EvaluatedSummedPublic>"


# An evaluation that comes to nothing


def test_the_model_stands_where_the_evaluation_comes_to_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Second(Network):
        def __init__(self, parties: Any, plan: FaultPlan, record: bool = False) -> None:
            if parties[0].session.header.round == 2:
                plan = FaultPlan(vanish=dict.fromkeys(NAMES[:3], Additive().upload_step))
            super().__init__(parties, plan, record=record)

    monkeypatch.setattr(simulation, "Network", Second)
    ledger = Ledger.open(tmp_path / "ledger.json", new=True)
    result = Federation(METHOD, Additive(), ledger=ledger).run(CLIENTS, classes=CLASSES)
    assert result.report.pooled is None
    assert any("came to nothing" in warning for warning in result.report.warnings)
    assert result.report.rounds == 1
    assert result.model.weights.any()


def test_a_run_may_end_with_the_model_before_its_evaluation() -> None:
    for learner in (AFL(), FedAvg(rounds=2, weighted=False)):
        world, everybody = world_of(learner)
        receiver = world.roster.by_name["collector"]
        session, enrolments = world.form()
        everybody["c0"].join(session, enrolments["c0"], world.opening)
        for name in ("c0", "c1"):
            everybody[name].conclude(world.opening, receiver)
        lied = msgspec.structs.replace(evaluation_of(world), sites=3)
        links = world.server.history.links
        last = msgspec.structs.replace(links[-1], state=state_digest(lied))
        history = History(world.server.history.first, (*links[:-1], last))
        with pytest.raises(InvalidSession):
            everybody["c0"].conclude(replace(world.opening, public=lied, history=history), receiver)
