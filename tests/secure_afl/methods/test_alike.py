"""SCAFFOLD, FedStale, FedAU and the server's optimisers, beside their published steps in NumPy."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from protocols import Additive, FaultPlan, Pairwise, Plain, Protocol
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError
from secure_afl.federation.simulation import Federation
from secure_afl.methods import FedAU, FedAvg, FedStale, Memory, Scaffold
from secure_afl.methods.averaging import Averaging, AveragingPublic
from secure_afl.methods.memory import pend, settle
from secure_afl.methods.optimisers import Adam, Momentum, Optimiser, Sgd, Yogi
from secure_afl.privacy.mechanism import Privacy
from tests.secure_afl.methods.test_fedavg import blobs, task_of

PROTOCOLS: tuple[Protocol, ...] = (Plain(), Additive(), Pairwise(dropout_fraction=0.25))
KIN: tuple[FedAvg, ...] = (
    Scaffold(rounds=4),
    FedStale(rounds=4, staleness=0.7),
    FedAU(rounds=4, interval=3),
    FedAvg(rounds=4, weighted=False, server_step=Yogi()),
    FedAvg(rounds=4, weighted=False, error_feedback=True, update_bits=6, rounding="nearest"),
)
every_kin = pytest.mark.parametrize("method", KIN, ids=lambda m: f"{m.name}-{m.update_bits}")


def rounds_of(
    method: Averaging, clients: Sequence[ClientData], present: Sequence[Sequence[int]]
) -> tuple[AveragingPublic, list[Memory]]:
    """The state after rounds over some clients each, in the clear; who is absent is not asked."""
    public = method.begin(task_of(list(clients)))
    memories: list[Memory] = [{} for _ in clients]
    for number, here in enumerate(present):
        total = sum(
            method.contribute(public, clients[i], memories[i], bytes([number, i])) for i in here
        )
        assert not isinstance(total, int)
        for i in here:
            settle(memories[i], number + 1, included=True)
        public = method.absorb(public, total, tuple(clients[i].name for i in here))
    return public, memories


PRESENT = ((0, 1, 2), (1, 2, 3), (0, 3), (0, 1, 2, 3), (2,), (0, 1, 2, 3))
FINE: dict[str, Any] = {"rounding": "nearest", "learning_rate": 0.5, "rounds": len(PRESENT)}


def movement(
    method: FedAvg, start: Floats, data: ClientData, round: int, drift: Floats | float
) -> Floats:
    """How far a client moves the parameters, by FedAvg's loop and a drift on every gradient."""
    task = task_of([data])
    rng = np.random.default_rng([method.seed, round, *data.name.encode()])
    inputs = method.architecture.inputs(task, data.features)
    parameters = start.copy()
    for _ in range(method.local_epochs):
        order = rng.permutation(len(data))
        for first in range(0, len(data), method.batch_size):
            batch = order[first : first + method.batch_size]
            slope = method.architecture.gradient(parameters, inputs[batch], data.labels[batch])
            parameters -= method.learning_rate * (slope + drift)
    return parameters - start


def test_scaffold_is_its_algorithm() -> None:
    method, clients = Scaffold(**FINE), blobs()
    public, memories = rounds_of(method, clients, PRESENT)
    server = np.zeros_like(public.parameters)
    shared = np.zeros_like(server)
    own = [np.zeros_like(server) for _ in clients]
    for number, here in enumerate(PRESENT):
        moved, before = [], [value.copy() for value in own]
        for i in here:
            step = movement(method, server, clients[i], number, shared - own[i])
            steps = method.local_steps(len(clients[i]))
            own[i] = own[i] - shared - step / (steps * method.learning_rate)
            moved.append(step)
        server = server + np.mean(moved, axis=0)
        shared = shared + sum(own[i] - before[i] for i in here) / len(clients)
    np.testing.assert_allclose(public.parameters, server, atol=1e-3)
    np.testing.assert_allclose(public.carried[-1], shared, atol=1e-3)
    # What the server has is the mean of what the clients have, to the last bits of float64.
    held = [np.asarray(memory["control"], dtype=np.float64) for memory in memories]
    np.testing.assert_allclose(public.carried[-1], np.mean(held, axis=0), atol=1e-9)
    assert np.abs(public.carried[-1]).max() > 0.01


@pytest.mark.parametrize("staleness", [0.0, 0.6, 1.0])
def test_fedstale_is_its_algorithm(staleness: float) -> None:
    method, clients = FedStale(staleness=staleness, **FINE), blobs()
    public, _ = rounds_of(method, clients, PRESENT)
    server = np.zeros_like(public.parameters)
    last = [np.zeros_like(server) for _ in clients]
    for number, here in enumerate(PRESENT):
        moved = {i: movement(method, server, clients[i], number, 0.0) for i in here}
        mean = np.mean(last, axis=0)
        server = (
            server
            + np.mean([moved[i] - staleness * last[i] for i in here], axis=0)
            + staleness * mean
        )
        for i in here:
            last[i] = moved[i]
    np.testing.assert_allclose(public.parameters, server, atol=1e-4)
    np.testing.assert_allclose(public.carried[-1], np.mean(last, axis=0), atol=1e-4)
    if staleness == 0:
        plain, _ = rounds_of(FedAvg(weighted=False, **FINE), clients, PRESENT)
        np.testing.assert_allclose(public.parameters, plain.parameters, atol=1e-12)


def test_fedau_is_its_algorithm() -> None:
    # Client 1 is away for longer than the cap, and its absence is cut into pieces.
    present = ((0, 1), (0,), (0,), (0, 2), (0,), (0, 1), (0, 1), (1, 2))
    settings: dict[str, Any] = FINE | {"rounds": len(present)}
    method, clients = FedAU(interval=2, **settings), blobs()[:3]
    public, _ = rounds_of(method, clients, present)
    server = np.zeros_like(public.parameters)
    since, counted, weight = [0, 0, 0], [0, 0, 0], [1.0, 1.0, 1.0]
    for number, here in enumerate(present):
        moved = [weight[i] * movement(method, server, clients[i], number, 0.0) for i in here]
        server = server + sum(moved) / len(clients)
        for i in range(3):
            since[i] += 1
            if i in here or since[i] == 2:
                total = counted[i] * weight[i] if counted[i] else 0.0
                weight[i] = (total + since[i]) / (counted[i] + 1)
                counted[i] += 1
                since[i] = 0
    np.testing.assert_allclose(public.parameters, server, atol=1e-4)
    assert len(set(weight)) == 3


@pytest.mark.parametrize(
    ("optimiser", "expected"),
    [
        (Sgd(), lambda m, v, g: (g, m, v)),
        (Momentum(0.5), lambda m, v, g: (0.5 * m + g, 0.5 * m + g, v)),
        (
            Adam(0.9, 0.8, 1e-2),
            lambda m, v, g: (
                (0.9 * m + 0.1 * g) / (np.sqrt(0.8 * v + 0.2 * g**2) + 1e-2),
                0.9 * m + 0.1 * g,
                0.8 * v + 0.2 * g**2,
            ),
        ),
        (
            Yogi(0.9, 0.8, 1e-2),
            lambda m, v, g: (
                (0.9 * m + 0.1 * g) / (np.sqrt(v - 0.2 * g**2 * np.sign(v - g**2)) + 1e-2),
                0.9 * m + 0.1 * g,
                v - 0.2 * g**2 * np.sign(v - g**2),
            ),
        ),
    ],
    ids=["sgd", "momentum", "adam", "yogi"],
)
def test_the_servers_steps_are_the_papers(
    optimiser: Sgd | Momentum | Adam | Yogi, expected: Callable[..., tuple[Floats, Floats, Floats]]
) -> None:
    clients = blobs()
    method = FedAvg(weighted=False, server_step=optimiser, server_rate=0.3, **FINE)
    public, _ = rounds_of(method, clients, PRESENT)
    server = np.zeros_like(public.parameters)
    first, second = np.zeros_like(server), np.zeros_like(server)
    for number, here in enumerate(PRESENT):
        moved = [movement(method, server, clients[i], number, 0.0) for i in here]
        step, first, second = expected(first, second, np.mean(moved, axis=0))
        server = server + 0.3 * step
    np.testing.assert_allclose(public.parameters, server, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p.name)
@every_kin
def test_every_protocol_gives_the_sums_of_one_place(method: FedAvg, protocol: Protocol) -> None:
    clients = blobs()
    result = Federation(method, protocol).run(clients)
    assert result.report.exact
    assert len(result.rounds) == 4


@every_kin
def test_an_absent_client_is_as_one_that_was_never_asked(method: FedAvg) -> None:
    """Its vector is lost in rounds 2 and 3; it then goes on from what it had before."""
    clients = blobs()
    absent = clients[3].name

    nearest = msgspec.structs.replace(method, rounding="nearest")
    plan = FaultPlan(vanish={absent: Additive().upload_step}, rounds=(2, 3), reload=True)
    result = Federation(nearest, Additive(), same_set=False).run(clients, max_rows=32, plan=plan)
    included = [round_.released.included for round_ in result.rounds]
    assert [absent in names for names in included] == [True, False, False, True]
    assert result.report.exact
    assert any("2 of them are over others" in text for text in result.report.warnings)
    everybody = (0, 1, 2, 3)
    public, _ = rounds_of(nearest, clients, (everybody, everybody[:3], everybody[:3], everybody))
    final = result.public
    assert isinstance(final, AveragingPublic)
    assert np.array_equal(final.parameters, public.parameters)
    for got, wanted in zip(final.carried, public.carried, strict=True):
        assert np.array_equal(got, wanted)


def test_what_is_pending_is_kept_or_dropped_by_its_round() -> None:
    memory: Memory = {"control": np.zeros(1), "update/2/ab": np.ones(1)}
    pend(memory, 2, "control", np.ones(1))
    pend(memory, 3, "control", np.full(1, 2.0))
    settle(memory, 1, included=True)
    assert sorted(memory) == ["control", "pending/2/control", "pending/3/control", "update/2/ab"]
    settle(memory, 2, included=False)
    assert np.array_equal(memory["control"], np.zeros(1))
    settle(memory, 3, included=True)
    assert np.array_equal(memory["control"], np.full(1, 2.0))
    settle(memory, 3, included=True)
    assert sorted(memory) == ["control", "update/2/ab"]


@pytest.mark.parametrize("method", [Scaffold(rounds=2), FedStale(rounds=2), FedAU(rounds=2)])
def test_noise_covers_all_blocks(method: FedAvg) -> None:
    clients = blobs()
    privacy = Privacy(8.0, 1e-5, unit="client")
    result = Federation(method, Additive(), privacy=privacy).run(
        clients, classes=("a", "b", "c"), max_rows=32
    )
    assert result.report.exact
    public = method.begin(task_of(clients))
    bits = method.quantiser(public.task).bits
    bound = method.sensitivity(public, privacy)
    blocks = method.layout(public)
    assert blocks is not None
    names = {block.name for block in blocks.blocks} - {"weight"}
    assert {name for name, relative in bound.relative if relative} == names
    # The longest vector of one client: the root of the sum of its blocks' squared norms.
    longest = np.sqrt(len(names)) * 2**bits
    assert bound.joint == pytest.approx(longest)


def test_no_vector_is_longer_than_its_bound() -> None:
    clients = blobs()
    for method in (
        Scaffold(update_clip=0.01, update_bits=2),
        FedStale(update_clip=0.01, update_bits=3),
        FedAU(update_clip=0.01, update_bits=2, interval=4),
    ):
        public = method.begin(task_of(clients))
        layout = method.layout(public)
        assert layout is not None
        memory: Memory = {}
        for number in range(6):
            state = msgspec.structs.replace(public, round=number)
            for entropy in range(4):
                vector = method.contribute(state, clients[0], memory, bytes([entropy]))
                layout.check(vector)
                for name, values in layout.split(vector).items():
                    if name != "weight":
                        assert int(values @ values) <= 4 ** method.quantiser(public.task).bits
            settle(memory, number + 1, included=number % 2 == 0)


@pytest.mark.parametrize("kind", [Scaffold, FedStale, FedAU])
def test_weights_by_rows_are_refused(kind: type[FedAvg]) -> None:
    with pytest.raises(ConfigError, match=f"{kind.name} weighs all clients alike"):
        kind(weighted=True)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (FedStale, {"staleness": 1.5}, "staleness is 1.5, allowed: 0..1"),
        (FedAU, {"interval": 0}, "interval is 0, allowed: whole numbers 1..1000"),
        (FedAvg, {"server_rate": 0.0}, "server_rate is 0.0, allowed: 1e-12"),
    ],
)
def test_settings_out_of_range_are_refused(
    kind: type[FedAvg], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**settings)


def test_moments_are_numbers_in_range() -> None:
    kinds: tuple[type[Optimiser], ...] = (Momentum, Adam)
    for kind, field in zip(kinds, ("beta", "beta2"), strict=True):
        with pytest.raises(ConfigError, match=f"{field} is 1.0, allowed: 0..0.9999"):
            kind(**{field: 1.0})
