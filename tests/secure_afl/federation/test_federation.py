from collections.abc import Callable
from dataclasses import replace
from statistics import mean
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import Fault, FaultPlan, Line, Pairwise, Plain, Protocol, Roster
from protocols.errors import BelowThreshold, InvalidSession, WouldOverflow
from protocols.session import Session
from secure_afl.analytic.heads.head import Fitted
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.ridge import ridge
from secure_afl.analytic.rows import ClientData, check_clients, pooled
from secure_afl.analytic.statistics import Statistics
from secure_afl.errors import ConfigError, DataError
from secure_afl.federation.client import FederationClient
from secure_afl.federation.rounds.history import History, Opening, context_of, state_digest
from secure_afl.federation.simulation import Federation
from secure_afl.federation.task import Declared, Terms, plan_task
from secure_afl.methods import AFL, AnyMethod, FedHiP, PublicState
from secure_afl.methods.evaluated import evaluated
from secure_afl.methods.summed import SummedPublic
from secure_afl.privacy.mechanism import Privacy
from tests.kit.halves import Halves
from tests.kit.samples import Miscounting, NotAdditive, make_client, make_clients, make_task

# The two halves


def halves(method: AnyMethod, max_rows: int = 32, **task: Any) -> Halves:
    """One server and two clients."""
    clients = make_clients((20, 30))
    planned = msgspec.structs.replace(make_task(clients, max_rows=max_rows), **task)
    return Halves(Terms(method, Plain()), planned, clients, max_rows=max_rows)


def join(
    world: Halves,
    method: AnyMethod | None = None,
    *,
    public: PublicState | None = None,
    session: dict[str, Any] | None = None,
    **wishes: Any,
) -> Any:
    """Client c0 joins the first round, in which something may be bent."""
    formed, enrolments = world.form()
    formed = Session(msgspec.structs.replace(formed.header, **(session or {})), formed.roster)
    opening = world.opening
    if public is not None:
        opening = Opening(public, History(state_digest(public)))
    terms = world.terms if method is None else Terms(method, Plain())
    bound = wishes.pop("max_rows", world.max_rows)
    client = FederationClient(terms, world.clients["c0"], bound, **wishes)
    return client.join(formed, enrolments["c0"], opening)


def bent(**changes: Any) -> SummedPublic:
    task = make_task(make_clients((20, 30)), max_rows=32)
    return SummedPublic(msgspec.structs.replace(task, **changes))


def test_a_client_joins_the_session_of_its_round() -> None:
    world = halves(AFL())
    assert (
        join(world, pinned=world.roster, classes=("0", "1", "2"), backbone=bytes(32)).name == "c0"
    )
    session, _ = world.form()
    history = world.opening.history
    assert session.context == context_of(AFL(), world.server.public.task, history)
    assert session.header.round == 1


OTHER = "another method, task, state or history"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: join(w, AFL(ridge=0.2)), OTHER),
        (lambda w: join(w, FedHiP()), OTHER),
        (
            lambda w: join(w, public=SummedPublic(bent().task, None, Fitted(np.zeros((6, 3))))),
            "first public state is not the method's",
        ),
        (
            lambda w: join(w, public=SummedPublic(bent().task, Fitted(np.zeros((6, 3))))),
            "layout is not this",
        ),
        (lambda w: join(w, public=bent(total_rows=65, client_rows=33)), "layout is not this"),
        (lambda w: join(w, public=bent(classes=("cat", "dog", "newt"))), OTHER),
        (lambda w: join(w, public=bent(backbone=b"x" * 32)), OTHER),
        (lambda w: join(w, session={"layout": AFL().layout(bent(quantiser=Quantiser(9)))}), "layo"),
        (lambda w: join(w, session={"context": bytes(32)}), OTHER),
        (lambda w: join(w, session={"round": 2}), "round 2: the run has 1 rounds"),
        (lambda w: join(w, session={"same_set": b"\3"}), "another set of clients than the first"),
        (lambda w: join(w, max_rows=64), "another bound on this client's rows"),
        (lambda w: join(w, max_rows=20), "another bound on this client's rows"),
        (lambda w: join(w, public=bent(clients=3)), "for 3 clients, the session has 2"),
        (lambda w: join(w, public=bent(client_rows=31, total_rows=62)), "room for 31 rows"),
        (lambda w: join(w, classes=("a", "b", "c")), r"classes are not this client's, \['a'"),
        (lambda w: join(w, classes=("0", "2", "1")), "classes are not this client's"),
        (lambda w: join(w, backbone=b"x" * 32), "backbone is not the one"),
        (lambda w: join(w, min_cohort=3), "this client wants ≥ 3"),
        (lambda w: join(w, corrupt=1), "this client wants ≥ 2 and ≥ 1"),
    ],
)
def test_a_client_refuses_a_session_that_is_not_its_rounds(
    change: Callable[[Halves], object], message: str
) -> None:
    with pytest.raises(InvalidSession, match=f"c0: .*{message}"):
        change(halves(AFL()))


def test_by_default_a_client_wants_a_majority_of_those_that_it_has_pinned() -> None:
    lines = [Line(f"c{i}", "client", bytes([i]) * 32) for i in range(7)]
    pinned = FederationClient(Terms(AFL(), Plain()), make_client("c0", 20), 32, Roster.of(lines))
    assert pinned.min_cohort == 4
    assert FederationClient(Terms(AFL(), Plain()), make_client("c0", 20), 32).min_cohort == 2


@pytest.mark.parametrize(
    "task",
    [
        {"total_rows": 63},
        {"total_rows": 66, "client_rows": 33},
        {"client_rows": 40},
        {"clients": 3},
    ],
)
def test_a_coordinator_adds_up_what_the_clients_declare(task: dict[str, int]) -> None:
    world = halves(AFL())
    session, enrolments = world.form()
    opening = world.opening
    assert world.carriers["server"].join(session, enrolments["server"], opening).name == "server"
    lying = halves(AFL(), **task)
    session, enrolments = lying.form()
    with pytest.raises(InvalidSession, match=r"server: 2 clients declare 64 rows, the greatest 32"):
        lying.carriers["server"].join(session, enrolments["server"], lying.opening)


def test_a_coordinator_needs_the_enrolments() -> None:
    world = halves(AFL())
    session, enrolments = world.form()
    view = Session(session.header, session.roster)
    with pytest.raises(InvalidSession, match="needs the clients' enrolments"):
        world.carriers["server"].join(view, enrolments["server"], world.opening)


def test_a_client_with_more_rows_than_it_declares_is_refused() -> None:
    with pytest.raises(DataError, match=r"client 'c0' has more rows than 19.*--max-rows"):
        FederationClient(Terms(AFL(), Plain()), make_client("c0", 20), 19)
    FederationClient(Terms(AFL(), Plain()), make_client("c0", 20), 20)


def test_a_session_for_another_width_of_features_is_refused() -> None:
    clients = make_clients((20, 30))
    wider = make_task(make_clients((20, 30), dim=7), max_rows=32)
    world = Halves(Terms(AFL(), Plain()), wider, clients)
    with pytest.raises(
        InvalidSession, match="c0: the task's rows have 7 features, this client's 6"
    ):
        join(world)


def test_there_is_no_session_after_the_last_round() -> None:
    world = halves(AFL())
    session, enrolments = world.form()
    members = {name: world.client(name) for name in world.clients}
    world.server.absorb(session, *world.carry(session, enrolments, members))
    with pytest.raises(AssertionError, match="next round"):
        world.form()


# The oracle


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_the_sum_is_exact_over_any_partition_order_and_drop_outs(data: st.DataObject) -> None:
    rows = data.draw(st.integers(4, 40))
    whole = make_client("whole", rows, dim=data.draw(st.integers(1, 7)))
    order = np.array(data.draw(st.permutations(range(rows))))
    cuts = sorted(data.draw(st.sets(st.integers(1, rows - 1), min_size=2, max_size=6)))
    clients = [
        ClientData(f"c{i}", whole.features[part], whole.labels[part])
        for i, part in enumerate(np.split(order, cuts))
    ]
    names = [client.name for client in clients]
    drop = data.draw(st.sets(st.sampled_from(names), max_size=len(names) - 2))
    shuffle = data.draw(st.none() | st.integers(0, 99))
    plan = FaultPlan(reload=data.draw(st.booleans()), shuffle=shuffle)
    bits = data.draw(st.integers(1, 12))
    result = Federation(AFL(), Plain(), feature_bits=bits, min_cohort=2).run(
        clients, classes=("a", "b", "c"), drop=drop, plan=plan
    )
    assert result.report.exact
    included = [client for client in clients if client.name not in drop]
    assert result.rounds[0].released.included == tuple(sorted(c.name for c in included))
    rest = pooled(included)
    expected = Statistics.of(rest.features, rest.labels, 3, Quantiser(bits))
    assert np.array_equal(result.statistics.gram, expected.gram)
    assert np.array_equal(result.statistics.cross, expected.cross)
    assert np.array_equal(result.statistics.counts, expected.counts)
    assert result.report.examples == expected.rows == len(rest)
    assert (result.report.clients.included, result.report.clients.dropped) == (
        len(included),
        len(drop),
    )


@pytest.mark.parametrize(("method", "protocol"), [(AFL(), Miscounting()), (NotAdditive(), Plain())])
def test_exact_is_computed_and_not_claimed(method: AnyMethod, protocol: Protocol) -> None:
    result = Federation(method, protocol).run(make_clients((20, 31)))
    assert result.report.exact is False


def test_two_runs_of_the_same_clients_are_two_sessions_with_one_sum() -> None:
    clients = make_clients((20, 30))
    first, second = (Federation(AFL(), Plain()).run(clients) for _ in range(2))
    assert first.report.session != second.report.session
    assert np.array_equal(first.rounds[0].released.total, second.rounds[0].released.total)
    assert np.array_equal(first.model.weights, second.model.weights)


# Bits, bounds, cohort


@pytest.mark.parametrize(
    ("max_rows", "bits", "ring"),
    [
        (32, 12, 32),
        (127, 12, 32),
        (128, 11, 32),
        (511, 11, 32),
        (512, 10, 32),
        (2_048, 9, 32),
        (8_191, 9, 32),
        (8_192, 8, 32),
        (32_767, 8, 32),
        (32_768, 11, 40),
        (2**23 - 1, 8, 40),
        (2**23, 11, 48),
    ],
)
def test_by_default_the_most_bits_that_the_narrowest_ring_holds(
    max_rows: int, bits: int, ring: int
) -> None:
    report = Federation(AFL(), Plain()).run(make_clients((20, 30)), max_rows=max_rows).report
    assert (report.feature_bits, report.ring_bits, report.max_rows) == (bits, ring, 2 * max_rows)
    assert report.exact


def test_by_default_clients_declare_the_next_power_of_two() -> None:
    result = Federation(AFL(), Plain()).run(make_clients((1, 2, 3, 16, 17)))
    assert result.report.max_rows == 1 + 2 + 4 + 16 + 32


def test_bounds_that_no_ring_holds_are_refused() -> None:
    declared = Declared(6, ("0", "1"), (("c0", 2**62), ("c1", 1)), bytes(32), 2)
    with pytest.raises(ConfigError, match=r"no ring holds \d+ rows.*--max-rows"):
        plan_task(Terms(AFL(), Plain()), declared)
    many = make_clients((1,) * 1024)
    with pytest.raises(WouldOverflow, match="gram_diagonal"):
        Federation(AFL(), Plain(), feature_bits=12).run(many, max_rows=2**29)


def test_more_rows_than_max_rows_are_refused_by_client() -> None:
    with pytest.raises(DataError, match=r"client 'c1' has more rows than 25"):
        Federation(AFL(), Plain()).run(make_clients((20, 30)), max_rows=25)


@pytest.mark.parametrize("max_rows", [0, -1, 2**29 + 1, 2**63 - 1])
def test_a_bound_out_of_range_is_refused(max_rows: int) -> None:
    with pytest.raises(ConfigError, match=rf"{max_rows}, allowed: 1\.\.{2**29};.*--max-rows"):
        Federation(AFL(), Plain()).run(make_clients((20, 30)), max_rows=max_rows)


@pytest.mark.parametrize("bits", [0, -1, 13, 20])
def test_bits_out_of_range_are_refused(bits: int) -> None:
    with pytest.raises(ConfigError, match=r"bits.*12"):
        Federation(AFL(), Plain(), feature_bits=bits).run(make_clients((20, 30)))


@pytest.mark.parametrize(("clients", "cohort"), [(2, 2), (3, 2), (4, 3), (5, 3), (8, 5)])
def test_by_default_a_majority_must_contribute(clients: int, cohort: int) -> None:
    data = make_clients([5] * clients)
    names = [client.name for client in data]
    report = Federation(AFL(), Plain()).run(data, drop=names[cohort:]).report
    assert report.min_cohort == cohort
    assert report.clients.included == cohort
    with pytest.raises(BelowThreshold, match=f"{cohort - 1} clients.*wanted ≥ {cohort}"):
        Federation(AFL(), Plain()).run(data, drop=names[cohort - 1 :])


@pytest.mark.parametrize(("cohort", "corrupt"), [(1, 0), (5, 0), (2, 1), (0, 0), (3, -1)])
def test_a_cohort_that_protects_nobody_is_refused(cohort: int, corrupt: int) -> None:
    federation = Federation(AFL(), Plain(), min_cohort=cohort, corrupt=corrupt)
    with pytest.raises(InvalidSession, match=f"minimum cohort {cohort} .*allowed: "):
        federation.run(make_clients((5, 5, 5, 5)))


def test_when_everybody_vanishes_nothing_is_released() -> None:
    clients = make_clients((20, 30, 4))
    with pytest.raises(BelowThreshold, match="0 clients contributed"):
        Federation(AFL(), Plain()).run(clients, drop=[c.name for c in clients])


def test_a_name_in_drop_that_is_no_clients_is_refused() -> None:
    with pytest.raises(ConfigError, match="nobody"):
        Federation(AFL(), Plain()).run(make_clients((20, 30)), drop=["nobody"])


def test_faults_of_the_plan_happen() -> None:
    clients = make_clients((20, 30, 4, 9))
    lost = FaultPlan((Fault("lose", sender="c0"), Fault("tamper", sender="c1")))
    report = Federation(AFL(), Plain(), min_cohort=2).run(clients, plan=lost).report
    assert (report.clients.included, report.examples, report.exact) == (2, 13, True)


def test_parties_that_vanish_by_plan_vanish_beside_those_in_drop() -> None:
    clients = make_clients((20, 30, 4, 9))
    gone = FaultPlan(vanish={"c0": "upload"})
    result = Federation(AFL(), Plain(), min_cohort=2).run(clients, plan=gone, drop=["c1"])
    assert result.rounds[0].released.included == ("c2", "c3")


# Input that cannot be used


def replaced(client: ClientData, features: Any = None, labels: Any = None) -> ClientData:
    return replace(
        client,
        features=client.features if features is None else features,
        labels=client.labels if labels is None else labels,
    )


def with_nan(client: ClientData) -> ClientData:
    features = client.features.copy()
    features[7, 2] = np.nan
    return replaced(client, features)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: replaced(c, labels=np.full(30, 3)), r"'c1'.*label 3 is out of range.*0\.\.2"),
        (lambda c: replaced(c, labels=np.full(30, -1)), r"'c1'.*label -1 .*0\.\.2"),
        (lambda c: replaced(c, labels=c.labels[1:]), r"'c1'.*int64\[29\].*int64\[30\]"),
        (lambda c: replaced(c, features=np.ones((30, 6), complex)), r"'c1'.*complex128"),
        (lambda c: replaced(c, np.ones((0, 6)), np.ones(0, np.int64)), r"'c1'.*\[0, 6\]"),
        (lambda c: replaced(c, features=np.ones(30)), r"'c1'.*\[30\]"),
        (lambda c: replaced(c, features=np.ones((30, 5))), r"'c1' has 5 .*'c0' has 6"),
        (lambda c: replace(c, name="c0"), r"two clients share a name.*c0"),
        (with_nan, r"'c1'.*row 7 .*NaN"),
    ],
)
def test_a_client_that_cannot_take_part_is_refused_by_name(
    spoil: Callable[[ClientData], ClientData], message: str
) -> None:
    first, second, third = make_clients((20, 30, 4))
    with pytest.raises(DataError, match=message):
        Federation(AFL(), Plain()).run([first, spoil(second), third], classes=("a", "b", "c"))


def test_one_client_or_none_is_no_federation() -> None:
    for clients in ([], make_clients((20,))):
        with pytest.raises(DataError, match=f"{len(clients)} clients; .*≥ 2"):
            Federation(AFL(), Plain()).run(clients)


@pytest.mark.parametrize("name", ["site 1", "Zürich", "x" * 65, "", "server"])
def test_a_name_that_no_party_may_have_is_refused(name: str) -> None:
    clients = make_clients((20, 30))
    with pytest.raises(InvalidSession, match="name"):
        Federation(AFL(), Plain()).run([clients[0], replace(clients[1], name=name)])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: replaced(c, features=np.ones((30, 5))), r"'c1' have 5 .*clients have 6"),
        (lambda c: replaced(c, labels=np.full(30, 9)), r"'c1'.*label 9 "),
        (with_nan, r"'c1'.*row 7 .*NaN"),
    ],
)
def test_rows_to_score_on_must_fit(spoil: Callable[[ClientData], ClientData], message: str) -> None:
    clients = make_clients((20, 30))
    bad = spoil(clients[1])
    with pytest.raises(DataError, match=message):
        Federation(AFL(), Plain()).run(clients, test=bad)
    with pytest.raises(DataError, match=message):
        Federation(AFL(), Plain()).run(clients, holdout=[bad])


def test_check_clients_takes_what_is_good() -> None:
    check_clients(make_clients((20, 1, 4)), 3)


def test_classes_are_numbered_unless_they_have_names() -> None:
    clients = make_clients((20, 30))
    assert Federation(AFL(), Plain()).run(clients).model.classes == ("0", "1", "2")
    names = ("cat", "dog", "newt", "owl")
    result = Federation(AFL(), Plain()).run(clients, classes=names)
    assert result.model.classes == names
    assert result.report.classes == 4
    assert int(result.statistics.counts[3]) == 0
    assert not result.model.weights[:, 3].any()


def test_a_class_that_only_a_dropped_client_has_is_still_a_class() -> None:
    first, second, third = make_clients((20, 30, 10))
    rare = replace(third, labels=np.full(10, 5))
    result = Federation(AFL(), Plain()).run([first, second, rare], drop=["c2"])
    assert result.report.classes == 6
    assert np.array_equal(result.statistics.counts[3:], [0, 0, 0])


# The report


def test_the_report_has_the_fields_that_programs_read() -> None:
    clients = make_clients((20, 30, 10))
    result = Federation(FedHiP(ridge=0.1), Plain()).run(
        clients, test=make_client("test", 50), holdout=[replace(clients[0])], drop=["c2"]
    )
    report = msgspec.json.decode(msgspec.json.encode(result.report))
    wanted = {
        "method": "fedhip",
        "protocol": "plain",
        "examples": 50,
        "feature_dim": 6,
        "classes": 3,
        "feature_bits": 12,
        "ring_bits": 32,
        "exact": True,
        "privacy": None,
        "clients": {"total": 3, "included": 2, "dropped": 1},
        "rounds": 1,
        "ridge": 0.1,
        "session": result.rounds[0].session.id.hex(),
    }
    assert {key: report[key] for key in wanted} == wanted
    assert report["protects"].startswith("nothing")
    assert {"federated", "centralised_float", "local_mean", "personal_mean"} <= set(
        report["accuracy"]
    )
    assert all(0 <= share <= 1 for share in report["accuracy"].values())
    assert report["bytes"]["plain_float64_per_client"] == (6 * 6 + 6 * 3) * 8
    sent = result.rounds[0].sent_bytes
    assert report["bytes"]["upload_per_client"] == mean([sent["c0"], sent["c1"]])
    assert set(report["seconds"]) == {"features", "statistics", "protect", "aggregate", "solve"}
    assert all(seconds >= 0 for seconds in report["seconds"].values())
    assert any("plain" in warning for warning in report["warnings"])


def test_few_rows_are_warned_of_and_many_are_not() -> None:
    many = Federation(AFL(), Plain()).run(make_clients((120, 120))).report.warnings
    assert not any("rows in the sum" in warning for warning in many), "40 rows a dimension"
    # What counts is the rows that are there, not what clients declare.
    few = Federation(AFL(), Plain()).run(make_clients((120, 119)), max_rows=10**6).report.warnings
    assert any("239 rows in the sum for 6 dimensions" in warning for warning in few)


def test_of_two_pairwise_clients_neither_may_work_with_the_server_and_three_say_nothing() -> None:
    protocol = Pairwise(dropout_fraction=0.0)
    warned = Federation(AFL(), protocol).run(make_clients((20, 20))).report.warnings
    assert any("not one may work with the server" in warning for warning in warned)
    safer = Federation(AFL(), protocol).run(make_clients((20, 20, 20)))
    assert not any("not one" in warning for warning in safer.report.warnings)


def test_accuracies_are_those_of_the_models() -> None:
    clients = make_clients((20, 30, 10))
    test = make_client("test", 200)
    held = [make_client(client.name, 40, seed=0) for client in clients[:2]]
    result = Federation(FedHiP(alpha=5.0, ridge=0.3), Plain()).run(clients, test=test, holdout=held)
    accuracy = result.report.accuracy
    model, personal = result.model, result.personal

    def share(weights: Any, data: ClientData) -> float:
        return float(np.mean((data.features @ weights).argmax(axis=1) == data.labels))

    unit = {c.name: c.features / np.linalg.norm(c.features, axis=1)[:, None] for c in clients}
    local = {
        c.name: ridge(unit[c.name].T @ unit[c.name], unit[c.name].T @ np.eye(3)[c.labels], 0.3)
        for c in clients
    }
    everything = np.concatenate(list(unit.values()))
    labels = np.concatenate([c.labels for c in clients])
    central = ridge(everything.T @ everything, everything.T @ np.eye(3)[labels], 0.3)
    assert accuracy.federated == share(model.weights, test)
    assert accuracy.centralised_float == share(central, test)
    assert accuracy.local_mean == pytest.approx(mean(share(w, test) for w in local.values()))
    assert accuracy.personal_mean == mean(share(personal[d.name].weights, d) for d in held)
    assert accuracy.holdout_federated_mean == mean(share(model.weights, d) for d in held)
    assert accuracy.holdout_local_mean == mean(share(local[d.name], d) for d in held)
    same = (test.features @ model.weights).argmax(1) == (test.features @ central).argmax(1)
    assert accuracy.agreement == np.mean(same)


def test_means_over_held_out_rows_are_over_the_same_clients() -> None:
    # Or they could not be compared: here the client that vanishes is easy for everybody.
    clients = make_clients((30, 30, 30))
    held = [make_client(client.name, 60, seed=0) for client in clients]
    method = FedHiP(ridge=0.1)
    result = Federation(method, Plain()).run(clients, holdout=held, drop=["c2"])
    accuracy = result.report.accuracy

    def means(names: list[str]) -> tuple[float, float, float]:
        chosen = [d for d in held if d.name in names]
        rows = {c.name: Quantiser(8).scaled(c.features) for c in clients}
        local = {
            c.name: ridge(rows[c.name].T @ rows[c.name], rows[c.name].T @ np.eye(3)[c.labels], 0.1)
            for c in clients
        }
        return (
            mean(result.personal[d.name].accuracy(d.features, d.labels) for d in chosen),
            mean(result.model.accuracy(d.features, d.labels) for d in chosen),
            mean(
                float(np.mean((d.features @ local[d.name]).argmax(1) == d.labels)) for d in chosen
            ),
        )

    found = (accuracy.personal_mean, accuracy.holdout_federated_mean, accuracy.holdout_local_mean)
    assert found in (means(["c0", "c1"]), means(["c0", "c1", "c2"]))
    assert means(["c0", "c1"]) != means(["c0", "c1", "c2"])


def test_without_rows_to_score_on_there_are_no_accuracies() -> None:
    accuracy = Federation(AFL(), Plain()).run(make_clients((20, 30))).report.accuracy
    assert set(msgspec.to_builtins(accuracy).values()) == {None}


def test_transcripts_are_kept_only_when_asked_for() -> None:
    clients = make_clients((20, 30))
    assert Federation(AFL(), Plain()).run(clients).rounds[0].transcript is None
    transcript = Federation(AFL(), Plain()).run(clients, record=True).rounds[0].transcript
    assert transcript is not None
    assert set(transcript) == {"server", "c0", "c1"}
    assert len(transcript["server"].received) == 2


# Typical mistakes


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: replace(c, labels=c.labels.astype(str)), r"words for labels .* numbers"),
        (lambda c: replace(c, name=5), "client name 5"),
        (lambda c: (c.name, c.features, c.labels), "a client is a tuple.*ClientData"),
    ],
)
def test_what_is_no_client_is_refused_with_the_conversion(
    change: Callable[[ClientData], Any], says: str
) -> None:
    first, second = make_clients((20, 20))
    for clients in ([change(first), second], [second, change(first)]):
        with pytest.raises(DataError, match=says):
            Federation(AFL(), Plain()).run(clients)


def test_classes_instead_of_instances_and_doubled_class_names_are_refused() -> None:
    for method, protocol in ((AFL, Plain()), (AFL(), Plain), ("afl", "plain")):
        with pytest.raises(ConfigError, match="instances"):
            Federation(method, protocol)  # type: ignore[arg-type]
    for classes in (["x", "y", "x"], [0, 1, 2]):
        with pytest.raises(DataError, match="different strings"):
            Federation(AFL(), Plain()).run(make_clients((20, 20)), classes=classes)  # type: ignore[arg-type]


def test_a_simulation_has_figures_of_every_site() -> None:
    clients = make_clients((60, 80, 50))
    held = [make_client(client.name, 30, seed=0) for client in clients]
    report = Federation(AFL(), Plain()).run(clients, holdout=held[:2]).report
    model = Federation(AFL(), Plain()).run(clients).model
    assert [site.name for site in report.sites] == ["c0", "c1"]
    for site, rows in zip(report.sites, held, strict=False):
        exact = model.accuracy(rows.features, rows.labels)
        assert site.figures.accuracy.value == pytest.approx(exact)
        assert site.figures.accuracy.low is not None
        assert site.figures.prior == "observed"
    # Rows that are kept out for the evaluation will do; with noise nothing is said of sites.
    method = evaluated(AFL(), 0.4)
    seen = Federation(method, Plain()).run(clients).report
    assert seen.pooled is not None
    assert sum(site.figures.examples for site in seen.sites) == seen.pooled.examples
    noisy = Federation(method, Plain(), privacy=Privacy(8.0))
    assert noisy.run(clients, classes="abc", max_rows=128).report.sites == ()
