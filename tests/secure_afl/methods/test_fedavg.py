"""FedAvg, FedSGD and FedProx, with both architectures, under every protocol."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import Additive, Fault, FaultPlan, Layout, Pairwise, Plain, Protocol
from protocols.codec import decode, encode
from protocols.errors import WouldOverflow
from protocols.layout import Decoded
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.rows import ClientData, pooled
from secure_afl.errors import ConfigError, DataError
from secure_afl.federation.result import Result
from secure_afl.federation.simulation import Federation
from secure_afl.methods import ConvNet, FedAvg, FedSGD, Linear, Memory, Task
from secure_afl.methods.averaging import Averaging, AveragingPublic
from secure_afl.methods.memory import settle
from secure_afl.methods.model import LinearModel, Model
from secure_afl.methods.networks.convnet import ConvNetModel
from secure_afl.methods.update import MAX_BITS, Rounding, UpdateQuantiser
from secure_afl.methods.update import clipped as shortened
from secure_afl.privacy.mechanism import Privacy
from secure_afl.runs import choose as runs_choose
from secure_afl.runs import run as runs
from secure_afl.runs.config import RunConfig
from tests.kit.protocols import ProtocolSuite
from tests.kit.worlds import World

# Every protocol has to carry these methods.
PROTOCOLS: tuple[Protocol, ...] = (Plain(), Additive(), Pairwise(dropout_fraction=0.25))
every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p.name)

METHODS: tuple[Averaging, ...] = (
    FedAvg(rounds=3),
    FedAvg(rounds=3, rounding="nearest", weighted=False, error_feedback=True, update_bits=6),
    FedAvg(rounds=3, update_clip=0.2, proximal=0.1),
    FedSGD(rounds=3),
    FedSGD(rounds=3, rounding="nearest", weighted=False),
)
every_method = pytest.mark.parametrize("method", METHODS, ids=range(len(METHODS)))

DIM, CLASSES = 6, ("a", "b", "c")


def blobs(sizes: tuple[int, ...] = (30, 7, 18, 23), seed: int = 0) -> list[ClientData]:
    """Clients whose classes lie around one axis each; every client has mostly one class."""
    rng = np.random.default_rng(seed)
    clients = []
    for number, size in enumerate(sizes):
        labels = np.where(rng.random(size) < 0.8, number % 3, rng.integers(0, 3, size))
        rows = 2.0 * np.eye(DIM)[labels] + 0.5 * rng.standard_normal((size, DIM))
        clients.append(ClientData(f"client{number}", rows, labels.astype(np.int64)))
    return clients


def bars(sizes: tuple[int, ...] = (20, 12, 16), seed: int = 0) -> list[ClientData]:
    """8 × 8 grey images of one bar, upright or level, in noise; brightness differs by client."""
    rng = np.random.default_rng(seed)
    clients = []
    for number, size in enumerate(sizes):
        labels = rng.integers(0, 2, size)
        images = 0.1 * rng.random((size, 8, 8))
        for image, label in zip(images, labels, strict=True):
            at = rng.integers(1, 7)
            (image if label else image.T)[at] += 0.5
        features = ((1 + number) * images).reshape(size, 64).astype(np.float32)
        clients.append(ClientData(f"client{number}", features, labels))
    return clients


def task_of(clients: list[ClientData], classes: tuple[str, ...] = CLASSES) -> Task:
    dim, count = clients[0].features.shape[1], len(clients)
    return Task(dim, classes, Quantiser(12), 32 * count, 32, count, bytes(32))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads cost a network this small more than they give."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def weight_of(method: Averaging, client: ClientData) -> int:
    return len(client) if method.weighted else 1


def absorbed(
    method: Averaging, public: AveragingPublic, clients: list[ClientData], memories: list[Memory]
) -> AveragingPublic:
    """The state after a round, its sum formed in the clear."""
    vectors = [
        method.contribute(public, client, memory, bytes([number]))
        for number, (client, memory) in enumerate(zip(clients, memories, strict=True))
    ]
    names = tuple(client.name for client in clients)
    for memory in memories:
        settle(memory, public.round + 1, included=True)
    return method.absorb(public, np.sum(vectors, axis=0), names)


def trained(method: Averaging, clients: list[ClientData], classes: int = 3) -> AveragingPublic:
    """The state after all rounds, in the clear."""
    public = method.begin(task_of(clients, CLASSES[:classes]))
    memories: list[Memory] = [{} for _ in clients]
    while method.layout(public) is not None:
        public = absorbed(method, public, clients, memories)
    return public


def states(result: Result) -> list[AveragingPublic]:
    found = [round_.public for round_ in result.rounds]
    assert all(isinstance(state, AveragingPublic) for state in found)
    return found  # type: ignore[return-value]


# The oracle


@every_protocol
@every_method
def test_the_sum_is_exact_and_the_mean_within_a_step(method: Averaging, protocol: Protocol) -> None:
    clients = blobs()
    plain = msgspec.structs.replace(method, error_feedback=False)
    result = Federation(plain, protocol).run(clients, max_rows=32)
    assert result.report.exact
    assert len(result.rounds) == method.rounds
    following = [*states(result)[1:], None]
    for round_, public, after in zip(result.rounds, states(result), following, strict=True):
        quantiser = plain.quantiser(public.task)
        layout = plain.layout(public)
        assert layout == round_.session.layout
        assert layout.ring_bits == 32
        weights = [weight_of(method, client) for client in clients]
        assert round_.released.total[-1] == sum(weights)
        if method.rounding == "nearest":
            vectors = [plain.contribute(public, client, {}, b"") for client in clients]
            assert np.array_equal(round_.released.total, np.sum(vectors, axis=0))
        updates = [shortened(plain.update(public, client), plain.update_clip) for client in clients]
        wanted = np.average(updates, axis=0, weights=weights)
        decoded = quantiser.mean(round_.released.total, layout)
        assert np.abs(decoded - wanted).max() <= quantiser.step
        if after is not None:
            rate = method.learning_rate if isinstance(method, FedSGD) else 1.0
            np.testing.assert_allclose(after.parameters, public.parameters + rate * decoded)


@every_protocol
def test_a_wrong_sum_is_not_called_exact(
    protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Layout.decode

    def off_by_one(self: Layout, total: Any) -> Decoded:
        decoded = original(self, total)
        decoded.total[0] += 1
        return decoded

    monkeypatch.setattr(Layout, "decode", off_by_one)
    assert not Federation(FedAvg(rounds=2), protocol).run(blobs()).report.exact


@every_protocol
def test_whoever_vanishes_is_not_in_the_mean(protocol: Protocol) -> None:
    clients = blobs((30, 7, 18, 23, 11))
    method = FedSGD(rounds=1, rounding="nearest")
    result = Federation(method, protocol).run(clients, max_rows=32, drop=["client1"])
    assert result.report.exact
    assert result.rounds[0].released.included == ("client0", "client2", "client3", "client4")
    (public,) = states(result)
    remaining = [client for client in clients if client.name != "client1"]
    vectors = [method.contribute(public, client, {}, b"") for client in remaining]
    assert np.array_equal(result.rounds[0].released.total, np.sum(vectors, axis=0))


@pytest.mark.slow
class UpdateLayouts(ProtocolSuite):
    """The shared suite, on vectors of real updates where a test does not choose its own."""

    def world(self, layout: Layout | None = None, *, seed: int = 0, edges: bool = False) -> World:
        if layout is not None:
            return super().world(layout, seed=seed, edges=edges)
        clients = blobs((30, 7, 18, 23, 11), seed)[: self.clients]
        method = FedAvg()
        public = method.begin(task_of(clients))
        updates = method.layout(public)
        assert updates is not None
        vectors = [method.contribute(public, client, {}, b"") for client in clients]
        return self.world_of(updates, vectors)


class TestPlainWithUpdates(UpdateLayouts):
    protocol: ClassVar[Protocol] = Plain()


class TestAdditiveWithUpdates(UpdateLayouts):
    protocol: ClassVar[Protocol] = Additive()
    max_routes = 8


class TestPairwiseWithUpdates(UpdateLayouts):
    protocol: ClassVar[Protocol] = Pairwise(corrupt_fraction=0.2, dropout_fraction=0.2)
    min_cohort = 4
    examples = 6
    max_routes = 4


# Bounds

updates_of = st.lists(
    st.floats(-1e3, 1e3) | st.sampled_from([0.0, 1e300, -1e-300]), min_size=1, max_size=40
).map(np.array)


@settings(deadline=None, max_examples=300)
@given(
    update=updates_of,
    clip=st.floats(1e-3, 1e3),
    bits=st.none() | st.integers(2, 8),
    rounding=st.sampled_from(["stochastic", "nearest"]),
    weights=st.lists(st.integers(1, 2**20), min_size=1, max_size=5),
    entropy=st.binary(max_size=32),
)
def test_no_update_exceeds_its_bound(
    update: Floats,
    clip: float,
    bits: int | None,
    rounding: Rounding,
    weights: list[int],
    entropy: bytes,
) -> None:
    total = sum(weights)
    quantiser = UpdateQuantiser.fitting(clip, bits, rounding, total)
    if np.abs(update).max() > 1e150:
        with pytest.raises(ConfigError, match="diverged"):
            shortened(update, clip)
        return
    clipped = shortened(update, clip)
    layout = quantiser.layout(len(update), total, max(weights))
    assert layout.ring_bits == 32
    vectors = []
    for weight in weights:
        integers = quantiser.integers(clipped, weight, entropy)
        assert sum(int(i) ** 2 for i in integers) <= (weight * 2**quantiser.bits) ** 2
        assert np.abs(integers * (quantiser.step / weight) - clipped).max() <= quantiser.step
        vectors.append(np.append(integers, weight))
        layout.check(vectors[-1])
    ring = np.zeros(layout.length, dtype=np.uint32)
    for vector in vectors:
        ring += layout.embed(vector).astype(np.uint32)
    assert np.array_equal(layout.decode(ring).total, np.sum(vectors, axis=0))


def test_the_layout_is_as_tight_as_its_proof() -> None:
    quantiser = UpdateQuantiser(clip=3.0, bits=10)
    for sign in (1, -1):
        longest = quantiser.integers(np.array([sign * 3.0, 0.0]), 7, b"")
        assert np.array_equal(longest, [sign * 7 * 1023, 0])
    layout = quantiser.layout(2, 7, 4)
    assert [(b.low, b.high, b.scale, b.addend) for b in layout.blocks] == [
        (-7 * 1024, 7 * 1024, 3.0 / 1023, (-4 * 1024, 4 * 1024)),
        (1, 7, 1.0, (1, 4)),
    ]
    # Nobody weighs nothing.
    assert layout.decode(layout.embed(np.zeros(3, dtype=np.int64))).outside == (("weight", 1),)


def test_rounding_that_lengthens_an_update_beyond_its_bound_is_undone() -> None:
    # 25 entries of 0.6 steps have the norm 3; rounded to nearest they have 5, and 4 is allowed.
    quantiser = UpdateQuantiser(clip=1.0, bits=2, rounding="nearest")
    update = shortened(np.full(25, 0.6 * quantiser.step), quantiser.clip)
    assert np.array_equal(quantiser.integers(update, 1, b""), np.zeros(25))
    assert np.array_equal(quantiser.integers(update, 5, b""), np.full(25, 3))


@given(total=st.integers(1, 2**40))
def test_the_default_bits_are_the_most_that_fit(total: int) -> None:
    def ring_bits(bits: int) -> int:
        return UpdateQuantiser(1.0, bits).layout(1, total, total).ring_bits

    try:
        most = UpdateQuantiser.fitting(1.0, None, "nearest", total).bits
    except WouldOverflow:
        assert ring_bits(2) > 32
        return
    assert ring_bits(most) == 32
    assert most == MAX_BITS or ring_bits(most + 1) > 32
    assert UpdateQuantiser.fitting(1.0, most, "nearest", total).bits == most
    for refused in (1, most + 1):
        with pytest.raises(ConfigError, match=rf"update_bits {refused} .* allowed: 2\.\.{most}"):
            UpdateQuantiser.fitting(1.0, refused, "nearest", total)


def test_too_many_rows_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(ConfigError, match="declare fewer with --max-rows"):
        Federation(FedAvg(), Plain()).run(blobs(), max_rows=2**29)


def test_stochastic_rounding_is_unbiased_and_nearest_is_nearest() -> None:
    quantiser = UpdateQuantiser(clip=1.0, bits=8)
    update = np.full(10_000, 0.3 * quantiser.step)
    integers = quantiser.integers(update, 1, b"seed")
    assert set(integers.tolist()) == {0, 1}
    # Ten standard deviations of a share of 0.3 among 10,000.
    assert abs(integers.mean() - 0.3) < 0.05
    nearest = UpdateQuantiser(clip=1.0, bits=8, rounding="nearest")
    assert np.array_equal(nearest.integers(update, 1, b""), np.zeros(10_000))
    assert np.array_equal(nearest.integers(2 * update, 1, b""), np.ones(10_000))


# Clipping and weights


@given(update=updates_of.filter(lambda u: np.abs(u).max() < 1e150), clip=st.floats(1e-3, 1e3))
def test_clipping_shortens_and_does_not_turn(update: Floats, clip: float) -> None:
    clipped = shortened(update, clip)
    norm = float(np.linalg.norm(update))
    if norm <= clip:
        assert np.array_equal(clipped, update)
    else:
        assert np.linalg.norm(clipped) == pytest.approx(clip)
        np.testing.assert_allclose(clipped * norm, update * clip, rtol=1e-9, atol=1e-200)


def test_a_client_moves_the_model_by_the_clip_at_most() -> None:
    method = FedAvg(rounds=1, update_clip=0.01)
    public = trained(method, blobs())
    assert 0 < np.linalg.norm(public.parameters) <= 0.01 * (1 + 1e-3)


@pytest.mark.parametrize("kind", [FedAvg, FedSGD])
def test_whoever_has_the_total_of_unweighted_updates_recomputes_the_state(
    kind: type[Averaging],
) -> None:
    """To the last bit, by the arithmetic of single floats, whatever the machine."""
    assert not kind(weighted=True).state_reveals_total
    method = kind(rounds=2, weighted=False, update_bits=20)
    assert method.state_reveals_total
    result = Federation(method, Plain()).run(blobs())
    for round_ in result.rounds:
        assert isinstance(round_.public, AveragingPublic)
        *updates, weight = round_.released.total.tolist()
        step, rate = method.update_clip / (2**20 - 1), 30.0 if kind is FedSGD else 1.0
        after = [
            parameter + rate * (update * (step / weight))
            for parameter, update in zip(round_.public.parameters.tolist(), updates, strict=True)
        ]
        included = round_.released.included
        absorbed = method.absorb(round_.public, round_.released.total, included)
        assert absorbed.parameters.tolist() == after
    assert encode(absorbed) == encode(result.public)


def test_weights_are_rows_or_ones() -> None:
    clients = blobs()
    for weighted, weights in ((True, [len(c) for c in clients]), (False, [1] * len(clients))):
        method = FedAvg(rounds=1, weighted=weighted)
        public = method.begin(task_of(clients))
        updates = [method.update(public, client) for client in clients]
        other = np.average(updates, axis=0, weights=[len(c) ** (not weighted) for c in clients])
        step = method.quantiser(public.task).step
        moved = trained(method, clients).parameters
        assert np.abs(moved - np.average(updates, axis=0, weights=weights)).max() <= step
        assert np.abs(moved - other).max() > 100 * step


# Gradients and steps


def test_the_linear_gradient_is_that_of_the_cross_entropy() -> None:
    import torch

    client = blobs()[0]
    task = task_of([client])
    parameters = np.random.default_rng(1).standard_normal(DIM * 3)
    rows = client.features / np.linalg.norm(client.features, axis=1, keepdims=True)
    weights = torch.tensor(parameters.reshape(DIM, 3), requires_grad=True)
    loss = torch.nn.functional.cross_entropy(
        torch.tensor(rows) @ weights, torch.tensor(client.labels)
    )
    loss.backward()  # type: ignore[no-untyped-call]
    inputs = Linear().inputs(task, client.features)
    gradient = Linear().gradient(parameters, inputs, client.labels)
    assert weights.grad is not None
    np.testing.assert_allclose(gradient.reshape(DIM, 3), weights.grad.numpy(), atol=1e-12)


@every_protocol
def test_a_round_of_fedsgd_is_a_step_on_all_rows_in_one_place(protocol: Protocol) -> None:
    clients = blobs()
    method = FedSGD(rounds=4)
    result = Federation(method, protocol).run(clients, max_rows=32)
    everybody = pooled(clients)
    following = [*states(result)[1:]]
    for before, after in zip(states(result), following, strict=False):
        rows = Linear().inputs(before.task, everybody.features)
        gradient = Linear().gradient(before.parameters, rows, everybody.labels)
        central = before.parameters - method.learning_rate * gradient
        step = method.learning_rate * method.quantiser(before.task).step
        assert np.abs(after.parameters - central).max() <= step
        assert np.abs(after.parameters - before.parameters).max() > 100 * step


def test_fedavg_with_one_whole_batch_is_fedsgd() -> None:
    clients = blobs()
    averaging = FedAvg(rounds=1, learning_rate=2.0, local_epochs=1, batch_size=64)
    descending = FedSGD(rounds=1, learning_rate=2.0)
    one, other = trained(averaging, clients), trained(descending, clients)
    steps = averaging.quantiser(one.task).step + 2.0 * descending.quantiser(one.task).step
    assert np.abs(one.parameters - other.parameters).max() <= steps


def test_the_proximal_term_pulls_back_to_the_global_model() -> None:
    client = blobs()[0]
    mu, rate = 0.3, 0.5
    method = FedAvg(learning_rate=rate, local_epochs=2, batch_size=64, proximal=mu)
    public = method.begin(task_of([client]))
    inputs = Linear().inputs(public.task, client.features)

    def slope(parameters: Floats) -> Floats:
        return Linear().gradient(parameters, inputs, client.labels)

    first = -rate * slope(public.parameters)
    second = first - rate * (slope(first) + mu * first)
    np.testing.assert_allclose(method.update(public, client), second, atol=1e-12)
    lengths = [
        np.linalg.norm(msgspec.structs.replace(method, proximal=value).update(public, client))
        for value in (0.0, 0.3, 1.0)
    ]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1]


# Restarts and memory


@every_method
def test_a_restarted_client_contributes_the_same(method: Averaging) -> None:
    client = blobs()[1]
    public = trained(msgspec.structs.replace(method, rounds=2), blobs())
    public = AveragingPublic(public.task, public.parameters, 1)
    residual = {"residual": np.full(DIM * 3, method.quantiser(public.task).step / 3)}
    memory: Memory = dict(residual)
    vector = method.contribute(public, client, memory, b"entropy")
    assert np.array_equal(method.contribute(public, client, memory, b"entropy"), vector)
    assert np.array_equal(method.contribute(public, client, dict(residual), b"entropy"), vector)
    received = decode(encode(public), AveragingPublic)
    assert np.array_equal(method.contribute(received, client, memory, b"entropy"), vector)
    other = method.contribute(public, client, dict(residual), b"other")
    assert np.array_equal(other, vector) == (method.rounding == "nearest")


def test_a_restarted_client_does_not_train_again(monkeypatch: pytest.MonkeyPatch) -> None:
    method, clients = FedAvg(), blobs()
    public = method.begin(task_of(clients))
    memory: Memory = {}
    vector = method.contribute(public, clients[0], memory, b"entropy")
    after = absorbed(method, public, clients, [{} for _ in clients])

    def refuse(*_: object) -> Floats:
        raise AssertionError("trained")

    monkeypatch.setattr(Linear, "gradient", refuse)
    assert np.array_equal(method.contribute(public, clients[0], memory, b"entropy"), vector)
    moved = AveragingPublic(public.task, public.parameters + 1, public.round)
    for other in (after, moved):
        with pytest.raises(AssertionError, match="trained"):
            method.contribute(other, clients[0], dict(memory), b"entropy")


@every_protocol
def test_crashes_and_lost_replies_change_nothing(protocol: Protocol) -> None:
    clients = blobs()
    method = FedAvg(rounds=3, rounding="nearest", error_feedback=True, update_bits=5)
    plans = (None, FaultPlan(reload=True), FaultPlan((Fault("duplicate"),), shuffle=5))
    results = [Federation(method, protocol).run(clients, plan=plan) for plan in plans]
    assert all(result.report.exact for result in results)
    finals = [result.rounds[-1].released.total for result in results]
    for final in finals[1:]:
        assert np.array_equal(final, finals[0])


def test_error_feedback_loses_nothing_but_the_last_residual() -> None:
    client = blobs()[0]
    method = FedAvg(rounding="nearest", update_bits=3, error_feedback=True, weighted=False)
    public = method.begin(task_of([client]))
    memory: Memory = {}
    step = method.quantiser(public.task).step
    sent, intended = np.zeros(DIM * 3), np.zeros(DIM * 3)
    for number in range(6):
        public = AveragingPublic(public.task, public.parameters, number)
        vector = method.contribute(public, client, memory, b"")
        sent += step * vector[:-1]
        intended += method.update(public, client)
        assert np.linalg.norm(intended) < method.update_clip * (number + 1)
        settle(memory, number + 1, included=True)
        residual = np.asarray(memory["residual"], dtype=np.float64)
        np.testing.assert_allclose(sent + residual, intended, atol=1e-9)
        assert np.abs(residual).max() <= step / 2 + 1e-9


def test_error_feedback_learns_what_coarse_rounding_drops() -> None:
    # A step of 2, and gradients below 1.
    dropping = FedSGD(
        rounds=40,
        learning_rate=1.0,
        update_clip=6.0,
        update_bits=2,
        rounding="nearest",
        weighted=False,
    )
    clients = blobs()
    assert not trained(dropping, clients).parameters.any()
    feeding = msgspec.structs.replace(dropping, error_feedback=True)
    everybody = pooled(clients)
    model = feeding.model(trained(feeding, clients))
    assert model.accuracy(everybody.features, everybody.labels) > 0.9


def test_memory_does_not_grow_with_the_rounds() -> None:
    clients = blobs()
    method = FedAvg(rounds=5, error_feedback=True)
    public = method.begin(task_of(clients))
    memories: list[Memory] = [{} for _ in clients]
    for number in range(5):
        public = absorbed(method, public, clients, memories)
        for memory in memories:
            kept = sorted(name.split("/")[:2] for name in memory)
            assert kept == [["residual"], ["update", str(number)]]


# Learning


@pytest.mark.slow
@every_protocol
@pytest.mark.parametrize("method", [FedAvg(rounds=8), FedSGD(rounds=30)], ids=lambda m: m.name)
def test_skewed_clients_learn_a_separable_problem(method: Averaging, protocol: Protocol) -> None:
    clients, test = blobs(), pooled(blobs((60, 60, 60), seed=9))
    start = method.model(method.begin(task_of(clients)))
    assert start.accuracy(test.features, test.labels) < 0.5
    result = Federation(method, protocol).run(clients, test=test)
    assert result.report.exact
    assert result.report.rounds == method.rounds
    assert result.report.accuracy.federated is not None
    assert result.report.accuracy.federated > 0.95


@pytest.mark.slow
@every_protocol
@pytest.mark.usefixtures("one_thread")
def test_a_convnet_learns_images(protocol: Protocol) -> None:
    clients, test = bars(), pooled(bars((60,), seed=9))
    method = FedAvg(
        rounds=8,
        learning_rate=0.1,
        local_epochs=2,
        architecture=ConvNet(widths=(4, 8)),
        seed=3,
    )
    result = Federation(method, protocol).run(clients, test=test)
    assert result.report.exact
    start = method.model(states(result)[0])
    assert start.accuracy(test.features, test.labels) < 0.75
    assert result.model.accuracy(test.features, test.labels) > 0.9
    assert isinstance(result.model, ConvNetModel)


def test_diverging_training_is_refused() -> None:
    wild = FedAvg(learning_rate=1e12, local_epochs=40, architecture=Linear(), proximal=1.0)
    with pytest.raises(ConfigError, match="diverged; pass a smaller --learning-rate"):
        trained(wild, blobs())


def test_under_a_promise_nobody_sees_that_training_diverged() -> None:
    """A client that refused would tell all others something of its rows."""
    wild = FedAvg(
        learning_rate=1e12,
        local_epochs=40,
        architecture=Linear(),
        proximal=1.0,
        weighted=False,
        rounds=1,
    )
    federation = Federation(wild, Additive(), privacy=Privacy(8.0))
    result = federation.run(blobs(), classes=("0", "1", "2"), max_rows=512, record=True)
    (round_,) = result.rounds
    noise = np.sum(list(round_.noise.values()), axis=0)
    sent = round_.released.total - noise
    assert not sent[:-1].any()
    assert sent[-1] == len(blobs())


# The ConvNet


def convnet_task(features: int, classes: int = 3) -> Task:
    return Task(features, CLASSES[:classes], Quantiser(12), 16, 8, 2, bytes(32))


def test_the_convnet_is_the_network_that_it_says() -> None:
    import torch

    architecture = ConvNet(image_shape=(9, 6, 3), widths=(4, 5))
    task = convnet_task(9 * 6 * 3)
    rng = np.random.default_rng(0)
    parameters = architecture.initial(task, rng) + 0.1
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(4, 5, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(5 * 2 * 1, 3),
    )
    vector = torch.tensor(parameters, dtype=torch.float32)
    torch.nn.utils.vector_to_parameters(vector, layers.parameters())
    images = rng.random((7, 9, 6, 3))
    flat = (images - images.mean(axis=(1, 2, 3), keepdims=True)) / images.std(
        axis=(1, 2, 3), keepdims=True
    )
    scores = layers(torch.tensor(flat.transpose(0, 3, 1, 2), dtype=torch.float32))
    labels = rng.integers(0, 3, 7)
    torch.nn.functional.cross_entropy(scores, torch.tensor(labels)).backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in layers.parameters() if p.grad is not None]
    expected = torch.nn.utils.parameters_to_vector(gradients)

    rows = images.reshape(7, -1)
    model = architecture.model(task, parameters)
    np.testing.assert_allclose(model.scores(rows), scores.detach().numpy(), atol=1e-4)
    # Neither brightness nor contrast matters, and an image of one colour has scores too.
    np.testing.assert_allclose(model.scores(3 * rows + 5), model.scores(rows), atol=1e-4)
    assert np.isfinite(model.scores(np.ones((1, 162)))).all()
    gradient = architecture.gradient(parameters, architecture.inputs(task, rows), labels)
    np.testing.assert_allclose(gradient, expected.numpy(), atol=1e-4)


def test_the_first_parameters_follow_from_the_seed() -> None:
    task = convnet_task(64)
    one, again, other = (
        FedAvg(architecture=ConvNet(), seed=seed).begin(task).parameters for seed in (0, 0, 1)
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_images_are_square_unless_said_otherwise() -> None:
    assert ConvNet().shape(784) == (28, 28, 1)
    assert ConvNet().shape(3 * 784) == (28, 28, 3)
    assert ConvNet((28, 7, 4)).shape(784) == (28, 7, 4)
    for architecture, features in (
        (ConvNet(), 785),
        (ConvNet(), 9),
        (ConvNet((28, 28, 3)), 784),
        (ConvNet((2, 392, 1)), 784),
    ):
        with pytest.raises(ConfigError, match=rf"rows of {features} values .* allowed: "):
            FedAvg(architecture=architecture).begin(convnet_task(features))


@pytest.mark.usefixtures("one_thread")
def test_a_convnet_is_saved_and_loaded(tmp_path: Path) -> None:
    clients = bars()
    method = FedAvg(rounds=1, learning_rate=0.1, architecture=ConvNet(widths=(2, 3)))
    model = method.model(trained(method, clients, classes=2))
    path = tmp_path / "model.safetensors"
    model.save(path, {"for": "a test"})
    loaded, card = ConvNetModel.load(path)
    assert card["for"] == "a test"
    assert loaded.classes == model.classes == CLASSES[:2]
    assert np.array_equal(loaded.scores(clients[0].features), model.scores(clients[0].features))
    with pytest.raises(DataError, match=r"2 axes: .* another kind of model"):
        LinearModel.load(path)
    linear: Model = LinearModel(np.eye(3), CLASSES)
    linear.save(path, {})
    with pytest.raises(DataError, match="1 axes"):
        ConvNetModel.load(path)
    with pytest.raises(DataError, match=r"this model wants \[n, 64\]"):
        model.predict(np.zeros((2, 65)))


# Settings


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        *((FedAvg, {name: 0}) for name in ("rounds", "local_epochs", "batch_size", "update_clip")),
        *((FedAvg, {name: -1}) for name in ("seed", "proximal", "learning_rate")),
        (FedSGD, {"learning_rate": float("nan")}),
        (FedSGD, {"update_clip": 0.0}),
    ],
)
def test_settings_out_of_range_are_refused(kind: type[Averaging], setting: dict[str, Any]) -> None:
    ((name, value),) = setting.items()
    with pytest.raises(ConfigError, match=f"{name} is {value}, allowed: .*[0-9]"):
        kind(**setting)


def test_the_configuration_reaches_the_method() -> None:
    given_settings = RunConfig(method="fedavg", seed=3).replaced(
        rounds=7,
        learning_rate=0.5,
        update_clip=2.0,
        local_epochs=2,
        batch_size=9,
        proximal=0.1,
    )
    assert runs_choose.make_method(given_settings) == FedAvg(
        rounds=7,
        learning_rate=0.5,
        update_clip=2.0,
        local_epochs=2,
        batch_size=9,
        proximal=0.1,
        seed=3,
    )
    assert runs_choose.make_method(RunConfig(method="fedavg")) == FedAvg()
    assert runs_choose.make_method(RunConfig(method="fedsgd")) == FedSGD()
    convnet = RunConfig(method="fedsgd").replaced(architecture="convnet")
    assert runs_choose.make_method(convnet) == FedSGD(architecture=ConvNet())


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_configured_run_trains_on_features_or_on_pixels(tmp_path: Path) -> None:
    result = runs.run(RunConfig(method="fedsgd", out=str(tmp_path)).replaced(rounds=4))
    assert result.report.exact
    assert isinstance(result.model, LinearModel)
    assert LinearModel.load(tmp_path / "model.safetensors")[1]["method"] == "fedsgd"
    convnet = RunConfig(method="fedavg").replaced(
        architecture="convnet", rounds=1, local_epochs=1, learning_rate=0.1
    )
    result = runs.run(convnet)
    assert result.report.exact
    assert isinstance(result.model, ConvNetModel)
    assert result.model.architecture.image_shape == (8, 8, 1)
    with pytest.raises(ConfigError, match=r"fedavg, .*, learns from pixels, .* allowed: identity"):
        runs.run(msgspec.structs.replace(convnet, backbone="projection:64"))


@pytest.mark.slow
def test_the_methods_do_not_import_torch() -> None:
    code = (
        "import sys, secure_afl; from secure_afl import *; "
        "FedAvg(architecture=ConvNet()); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
