"""Unchanged Flower strategies over blind sums: equal to NumPy, and what nodes and grid refuse."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra 'flower'")

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import (
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    QFedAvg,
    Strategy,
)
from flwr.supercore.task_identity import TaskIdentity

from protocols import Additive, Identity, Pairwise
from protocols.errors import InvalidSession, SecureAflError
from secure_afl.errors import ConfigError
from secure_afl.federation.keys import (
    ROSTER,
    generate,
    identity_path,
    load_identity,
    load_roster,
)
from secure_afl.flower.blind.grid import BlindSum
from secure_afl.flower.blind.mod import blind_sum_mod
from secure_afl.flower.blind.wire import RECORD, Hello, Train, pack, unpack_question
from tests.kit.blind import OneProcess


@pytest.fixture(autouse=True)
def server_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be the process of a server app, which Flower tells who it is."""
    for name, value in (("run_id", 1), ("node_id", 99), ("task_id", 1)):
        monkeypatch.setattr(TaskIdentity, f"_{name}", value, raising=False)


NODES, SIZE = 6, 40
STEPS = 3
Arrays = dict[str, np.ndarray]


def begun() -> ArrayRecord:
    rng = np.random.default_rng(0)
    return ArrayRecord(
        {
            "layer.weight": Array(rng.standard_normal((5, SIZE)).astype(np.float32)),
            "layer.bias": Array(np.zeros(5, dtype=np.float32)),
            "norm": Array(rng.standard_normal(3)),
        }
    )


def rows_of(node: int) -> int:
    return 10 + 7 * node


def moved(node: int, arrays: Arrays) -> Arrays:
    """What a node's training makes of arrays: a step toward the node's own target."""
    rng = np.random.default_rng(node)
    return {
        name: (0.5 * values + rng.standard_normal(values.shape)).astype(values.dtype)
        for name, values in arrays.items()
    }


def app_of(node: int, calls: list[int] | None = None, **metrics: Any) -> ClientApp:
    """A client app as its author would write it; nothing in it knows of blind sums but the mod."""
    app = ClientApp()

    @app.train(mods=[blind_sum_mod])
    def train(message: Message, context: Context) -> Message:
        assert RECORD not in message.content
        if calls is not None:
            calls.append(node)
        arrays = {k: a.numpy() for k, a in message.content.array_records["arrays"].items()}
        trained = {name: Array(values) for name, values in moved(node, arrays).items()}
        told: dict[str, Any] = {"num-examples": rows_of(node), "train_loss": 0.1 * node} | metrics
        content = RecordDict({"arrays": ArrayRecord(trained), "metrics": MetricRecord(told)})
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        told = MetricRecord({"num-examples": float(rows_of(node)), "loss": 1.0})
        return Message(RecordDict({"metrics": told}), reply_to=message)

    return app


def engine(
    nodes: int = NODES, config: dict[int, dict[str, str]] | None = None, **made: Any
) -> OneProcess:
    return OneProcess({node: app_of(node, **made) for node in range(1, nodes + 1)}, config or {})


def over(grid: OneProcess, **settings: Any) -> BlindSum:
    return BlindSum(grid, Pairwise(), **{"clip": 30.0, "most": 256} | settings)


def flat(arrays: ArrayRecord) -> np.ndarray:
    return np.concatenate([a.numpy().ravel().astype(np.float64) for a in arrays.values()])


OF_MEANS: list[Callable[[], Strategy]] = [
    lambda: FedAvg(min_available_nodes=2),
    lambda: FedAvgM(server_momentum=0.7, server_learning_rate=0.5, min_available_nodes=2),
    lambda: FedProx(proximal_mu=0.1, min_available_nodes=2),
    lambda: FedAdam(eta=0.1, min_available_nodes=2),
    lambda: FedYogi(eta=0.1, min_available_nodes=2),
]


@pytest.mark.slow
@pytest.mark.parametrize("make", OF_MEANS, ids=["avg", "avgm", "prox", "adam", "yogi"])
def test_an_unchanged_strategy_learns_what_it_learns_without(make: Callable[[], Strategy]) -> None:
    apps = {node: ClientApp() for node in range(1, NODES + 1)}
    for node, app in apps.items():

        @app.train()
        def train(message: Message, context: Context, node: int = node) -> Message:
            arrays = {k: a.numpy() for k, a in message.content.array_records["arrays"].items()}
            trained = {name: Array(values) for name, values in moved(node, arrays).items()}
            told = MetricRecord({"num-examples": rows_of(node)})
            return Message(
                RecordDict({"arrays": ArrayRecord(trained), "metrics": told}), reply_to=message
            )

        @app.evaluate()
        def evaluate(message: Message, context: Context, node: int = node) -> Message:
            told = MetricRecord({"num-examples": float(rows_of(node)), "loss": 1.0})
            return Message(RecordDict({"metrics": told}), reply_to=message)

    bare = make().start(grid=OneProcess(apps, {}), initial_arrays=begun(), num_rounds=STEPS)
    grid = engine()
    blind = make().start(grid=over(grid), initial_arrays=begun(), num_rounds=STEPS)
    wanted, got = flat(bare.arrays), flat(blind.arrays)
    # An adaptive server's first steps are of one size, in whatever direction: small means magnify.
    tolerance = 1e-6 if type(make()) in (FedAvg, FedAvgM, FedProx) else 1e-3
    assert np.abs(got - wanted).max() <= tolerance * np.abs(wanted).max()
    assert [a.numpy().dtype for a in blind.arrays.values()] == [
        a.numpy().dtype for a in bare.arrays.values()
    ]


def test_fedavg_is_numpys_weighted_mean() -> None:
    grid = engine()
    result = FedAvg(min_available_nodes=2).start(
        grid=over(grid), initial_arrays=begun(), num_rounds=STEPS
    )
    arrays = {name: array.numpy() for name, array in begun().items()}
    for _ in range(STEPS):
        trained = [moved(node, arrays) for node in range(1, NODES + 1)]
        weights = [rows_of(node) for node in range(1, NODES + 1)]
        arrays = {
            name: np.average([t[name] for t in trained], axis=0, weights=weights).astype(v.dtype)
            for name, v in arrays.items()
        }
    expected = np.concatenate([values.ravel().astype(np.float64) for values in arrays.values()])
    assert np.abs(flat(result.arrays) - expected).max() < 1e-6
    # What training returned beside arrays and weight stayed at the nodes.
    assert not result.train_metrics_clientapp[1]


def test_no_reply_of_a_node_holds_its_update() -> None:
    grid = engine()
    FedAvg(min_available_nodes=2).start(grid=over(grid), initial_arrays=begun(), num_rounds=1)
    training = [m for m in grid.replied if m.metadata.message_type == "train"]
    assert len(training) > NODES
    for message in training:
        assert set(message.content) == {RECORD}
    base = {name: array.numpy() for name, array in begun().items()}
    for node in range(1, NODES + 1):
        update = moved(node, base)["layer.weight"].ravel()[:4].tobytes()
        said = b"".join(bytes(m.content.config_records[RECORD]["content"]) for m in training)  # type: ignore[arg-type]
        assert update not in said


def test_a_node_that_fails_at_its_upload_is_left_out() -> None:
    grid = engine()
    failed = {"at": 0}

    def lost(node: int, message: Message) -> bool:
        if node == 3 and RECORD in message.content:
            failed["at"] += 1
        return node == 3 and failed["at"] > 2

    grid.lost = lost
    blind = BlindSum(grid, Pairwise(dropout_fraction=0.3), clip=30.0, most=256)
    result = FedAvg(min_available_nodes=2).start(grid=blind, initial_arrays=begun(), num_rounds=1)
    here = [node for node in range(1, NODES + 1) if node != 3]
    assert len(blind.included) == len(here)
    base = {name: array.numpy() for name, array in begun().items()}
    trained = [moved(node, base) for node in here]
    mean = {
        name: np.average(
            [t[name] for t in trained], axis=0, weights=[rows_of(node) for node in here]
        )
        for name in base
    }
    expected = np.concatenate([values.ravel() for values in mean.values()])
    assert np.abs(flat(result.arrays) - expected).max() < 1e-6


def test_a_round_that_no_node_answers_ends_by_name() -> None:
    grid = engine()
    grid.lost = lambda node, message: True
    with pytest.raises(SecureAflError, match="no node has enrolled"):
        FedAvg(min_available_nodes=2).start(grid=over(grid), initial_arrays=begun(), num_rounds=1)


def test_too_few_nodes_end_the_run_with_a_typed_error() -> None:
    grid = engine()
    grid.lost = lambda node, message: node > 2 and RECORD in message.content
    with pytest.raises(SecureAflError):
        FedAvg(min_available_nodes=2).start(
            grid=over(grid, min_cohort=4), initial_arrays=begun(), num_rounds=1
        )


NO_MEANS: list[Strategy] = [
    FedMedian(),
    FedTrimmedAvg(),
    Krum(),
    MultiKrum(),
    QFedAvg(client_learning_rate=0.1),
]


@pytest.mark.parametrize("strategy", NO_MEANS, ids=lambda made: type(made).__name__)
def test_strategies_of_single_updates_are_refused_by_name(strategy: Strategy) -> None:
    named = rf"strategy {type(strategy).__name__} needs single updates"
    with pytest.raises(ConfigError, match=named):
        strategy.start(grid=over(engine()), initial_arrays=begun(), num_rounds=1)


def test_a_strategy_of_ones_own_that_aggregates_otherwise_is_refused() -> None:
    class Peeking(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            return super().aggregate_train(server_round, replies)

    class Renamed(FedAvg):
        def summary(self) -> None:
            return None

    with pytest.raises(ConfigError, match="strategy Peeking"):
        Peeking().start(grid=over(engine()), initial_arrays=begun(), num_rounds=1)
    Renamed().start(grid=over(engine()), initial_arrays=begun(), num_rounds=1)


def test_protocols_with_other_coordinators_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs coordinators at other organisations"):
        BlindSum(engine(), Additive(), clip=1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"clip": 0.0}, "clip is 0.0"), ({"most": 0}, "most is 0, allowed: 1..16777216")],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        over(engine(), **settings)


def test_a_bare_train_message_is_refused_at_the_node() -> None:
    calls: list[int] = []
    grid = engine(calls=calls)
    content = RecordDict({"arrays": begun(), "config": ConfigRecord()})
    (reply,) = grid.send_and_receive([grid.create_message(content, "train", 1, "1")])
    assert reply.has_error()
    assert "without a blind sum" in str(reply.error.reason)
    assert not calls
    result = FedAvg(min_available_nodes=2).start(grid=grid, initial_arrays=begun(), num_rounds=1)
    assert not result.arrays
    assert not calls


def test_a_train_message_cannot_go_around_the_sum() -> None:
    blind = over(engine())
    content = RecordDict({"arrays": begun(), "config": ConfigRecord()})
    with pytest.raises(ConfigError, match="in a blind sum only"):
        blind.push_messages([blind.create_message(content, "train", 1, "1")])


def run_once(grid: OneProcess) -> list[Message]:
    FedAvg(min_available_nodes=2).start(grid=over(grid), initial_arrays=begun(), num_rounds=1)
    return [m for m in grid.asked if RECORD in m.content]


def of_train(messages: list[Message], node: int) -> Message:
    (found,) = [
        m
        for m in messages
        if m.metadata.dst_node_id == node and isinstance(unpack_question(m.content), Train)
    ]
    return found


def test_a_round_that_is_asked_for_again_is_not_trained_again_and_not_summed_twice() -> None:
    calls: list[int] = []
    grid = engine(calls=calls)
    asked = run_once(grid)
    assert sorted(calls) == list(range(1, NODES + 1))
    # The same session again: the same answer, without training.
    again = of_train(asked, 1)
    (reply,) = grid.send_and_receive([again])
    assert not reply.has_error()
    # Another session of the same round, as a server would form that wants to see who is missing.
    second = over(grid)
    with pytest.raises(SecureAflError):
        FedAvg(min_available_nodes=2).start(grid=second, initial_arrays=begun(), num_rounds=1)
    assert sorted(calls) == list(range(1, NODES + 1))


def test_a_server_that_shows_one_node_other_arrays_gets_nothing_of_it() -> None:
    grid = engine()
    asked = run_once(grid)
    fresh = engine()
    message = of_train(asked, 1)
    question = unpack_question(message.content)
    assert isinstance(question, Train)
    hello = next(m for m in asked if m.metadata.dst_node_id == 1)
    fresh.contexts[1].state = RecordDict()
    fresh.send_and_receive([fresh.create_message(hello.content, "train", 1, "1")])
    other = ArrayRecord({n: Array(a.numpy() + 1) for n, a in begun().items()})
    content = pack(question, RecordDict({"arrays": other, "config": ConfigRecord()}))
    (reply,) = fresh.send_and_receive([fresh.create_message(content, "train", 1, "1")])
    assert reply.has_error()
    assert "InvalidSession" in str(reply.error.reason)


@pytest.mark.parametrize("weight", [0, 317, 1.5, [3, 4]])
def test_a_weight_that_cannot_be_summed_stays_at_the_node(
    weight: Any, caplog: pytest.LogCaptureFixture
) -> None:
    grid = engine(**{"num-examples": weight})
    with pytest.raises(SecureAflError):
        FedAvg(min_available_nodes=2).start(grid=over(grid), initial_arrays=begun(), num_rounds=1)
    reasons = [str(m.error.reason) for m in grid.replied if m.has_error()]
    assert any("allowed: one whole number, 1..256" in reason for reason in reasons), reasons
    assert not any("317" in reason for reason in reasons)
    assert f"'num-examples' is [{weight}]" in caplog.text


def test_a_long_update_is_shortened_at_the_node() -> None:
    clip = 0.5
    result = FedAvg(min_available_nodes=2).start(
        grid=over(engine(), clip=clip), initial_arrays=begun(), num_rounds=1
    )
    assert np.linalg.norm(flat(result.arrays) - flat(begun())) <= clip * (1 + 1e-5)


Config = dict[int, dict[str, str]]


def pinned(keys: Path, **own: str) -> tuple[Config, dict[str, Any]]:
    """What nodes with a roster have as configuration, and what the server app has."""
    names = [f"site{node}" for node in range(1, NODES + 1)]
    generate(names, "client", keys)
    generate(["server"], "server", keys)
    config = {
        node: {
            "blind-sum-identity": str(identity_path(keys, name)),
            "blind-sum-roster": str(keys / ROSTER),
            **{f"blind-sum-{key.replace('_', '-')}": value for key, value in own.items()},
        }
        for node, name in enumerate(names, 1)
    }
    server = load_identity(identity_path(keys, "server"))
    return config, {"identity": server, "roster": load_roster(keys)}


def asked(blind: BlindSum, nodes: int = NODES) -> None:
    """Ask the first nodes for a round, as a server app may that uses no strategy."""
    content = RecordDict({"arrays": begun(), "config": ConfigRecord()})
    messages = [blind.create_message(content, "train", node, "1") for node in range(1, nodes + 1)]
    blind.send_and_receive(messages)


def refusals(grid: OneProcess) -> set[str]:
    return {str(reply.error.reason) for reply in grid.replied if reply.has_error()}


@pytest.mark.parametrize("trust", ["curious", "lying_in_unmasking"])
def test_a_node_trusts_no_server_that_asks_for_it(trust: Any, tmp_path: Path) -> None:
    """A server that lies, and is taken to be curious, opens one node's update."""
    calls: list[int] = []
    config, server = pinned(tmp_path / "keys")
    for own, given in ((config, server), ({}, {})):
        grid = engine(config=own, calls=calls)
        with pytest.raises(SecureAflError):
            asked(BlindSum(grid, Pairwise(server_trust=trust), clip=30.0, most=256, **given))
        assert len(refusals(grid)) == NODES
        for reason in refusals(grid):
            assert "InvalidSession" in reason
            assert f"server trust '{trust}'; this node wants 'lying'" in reason
            assert "blind-sum-server-trust" in reason
    assert not calls


def test_a_node_that_is_told_to_trusts_the_server(tmp_path: Path) -> None:
    config, server = pinned(tmp_path / "keys", server_trust="lying_in_unmasking")
    for trust, works in (("curious", False), ("lying_in_unmasking", True), ("lying", True)):
        grid = engine(config=config)
        protocol = Pairwise(server_trust=trust)  # type: ignore[arg-type]
        blind = BlindSum(grid, protocol, clip=30.0, most=256, **server)
        if works:
            asked(blind)
        else:
            with pytest.raises(SecureAflError):
                asked(blind)
        assert bool(refusals(grid)) is not works


def test_a_node_wants_a_majority_of_its_roster(tmp_path: Path) -> None:
    """Of six that it has pinned, two at a time, three times, give each one's update."""
    config, server = pinned(tmp_path / "keys")
    grid = engine(config=config)
    with pytest.raises(SecureAflError):
        asked(over(grid, min_cohort=2, **server), nodes=2)
    (first, second) = refusals(grid)
    for reason in (first, second):
        assert "minimum cohort 2 of 2 clients; this node wants ≥ 4" in reason
        assert "a majority of the 6 on its roster (blind-sum-min-cohort)" in reason
    # A server app that follows the nodes learns it before it asks them to train.
    grid = engine(config=config)
    with pytest.raises(InvalidSession, match="minimum cohort 4"):
        asked(over(grid, **server), nodes=2)
    assert not refusals(grid)


def test_a_node_may_want_another_cohort(tmp_path: Path) -> None:
    for least, nodes in (("2", 2), ("6", 6)):
        config, server = pinned(tmp_path / least, min_cohort=least)
        blind = over(engine(config=config), min_cohort=int(least), **server)
        asked(blind, nodes=nodes)
        assert len(blind.included) == nodes
    grid = engine(config=config)
    with pytest.raises(SecureAflError):
        asked(over(grid, min_cohort=5, **server))
    assert all("wants ≥ 6 (blind-sum-min-cohort)" in reason for reason in refusals(grid))


def test_a_node_may_want_more_clients_to_be_taken_for_corrupt(tmp_path: Path) -> None:
    config, server = pinned(tmp_path / "keys", corrupt="2")
    grid = engine(config=config)
    with pytest.raises(SecureAflError):
        asked(over(grid, **server))
    assert len(refusals(grid)) == NODES
    for reason in refusals(grid):
        assert "1 clients may work with the server; this node wants ≥ 2" in reason
    protocol = Pairwise(corrupt_fraction=0.3, dropout_fraction=0.0)
    asked(BlindSum(engine(config=config), protocol, clip=30.0, most=256, **server))


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("server-trust", "honest", "'honest', allowed: curious, lying_in_unmasking, lying"),
        ("min-cohort", "most", "'most', allowed: whole numbers ≥ 2"),
        ("min-cohort", "1", "'1', allowed: whole numbers ≥ 2"),
        ("corrupt", "-1", "'-1', allowed: whole numbers ≥ 0"),
    ],
)
def test_a_node_whose_configuration_is_out_of_range_says_so_first(
    key: str, value: str, allowed: str
) -> None:
    grid = engine(config={1: {f"blind-sum-{key}": value}})
    content = pack(Hello(bytes(32)))
    (reply,) = grid.send_and_receive([grid.create_message(content, "train", 1, "1")])
    assert reply.has_error()
    assert f"blind-sum-{key} is {allowed}" in str(reply.error.reason)


def test_nodes_that_pin_a_roster_sum_with_just_those(tmp_path: Path) -> None:
    config, server = pinned(tmp_path / "keys")
    blind = over(engine(config=config), **server)
    FedAvg(min_available_nodes=2).start(grid=blind, initial_arrays=begun(), num_rounds=1)
    assert blind.included == tuple(f"site{node}" for node in range(1, NODES + 1))
    # A server that nobody has pinned gets no vector.
    stranger = over(engine(config=config), identity=Identity.generate("server"))
    with pytest.raises(SecureAflError):
        FedAvg(min_available_nodes=2).start(grid=stranger, initial_arrays=begun(), num_rounds=1)


def test_arrays_that_have_no_mean_are_refused() -> None:
    counted = ArrayRecord({"steps": Array(np.zeros(2, dtype=np.int64))})
    with pytest.raises(SecureAflError, match="'steps' is of int64"):
        FedAvg(min_available_nodes=2).start(
            grid=over(engine()), initial_arrays=counted, num_rounds=1
        )
