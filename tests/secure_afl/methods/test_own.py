"""Training of one's own: any module and loop, adapters of a frozen network, parts that stay."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from protocols import Additive, Ckks, FaultPlan, Pairwise, Protocol
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError, DataError, SecureAflError
from secure_afl.federation.simulation import Federation
from secure_afl.methods import FedAvg, Mlp, Task
from secure_afl.methods.averaging import AveragingPublic
from secure_afl.methods.optimisers import Momentum
from secure_afl.methods.own import ModuleModel, OwnPublic, OwnTraining, Training
from tests.secure_afl.methods.test_alike import rounds_of
from tests.secure_afl.methods.test_fedavg import blobs, task_of


def network(task: Task) -> nn.Sequential:
    return nn.Sequential(nn.Linear(task.feature_dim, 8), nn.ReLU(), nn.Linear(8, 3))


def adapted(task: Task) -> nn.Sequential:
    """A frozen layer with an adapter of rank 2, and a head."""
    module = network(task)
    module[0].requires_grad_(False)
    adapter = nn.Sequential(nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False))
    return nn.Sequential(module[0], adapter, *module[1:])


def descend(module: nn.Module, data: ClientData, seed: int) -> None:
    rows = torch.as_tensor(data.features, dtype=torch.float32)
    labels = torch.as_tensor(data.labels)
    optimiser = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.2)
    order = np.random.default_rng(seed).permutation(len(data))
    for _ in range(3):
        for part in np.array_split(order, 3):
            optimiser.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(module(rows[part]), labels[part]))
            optimiser.step()


PLAIN = Training("plain", network, descend)
ADAPTER = Training("adapter", adapted, descend)
HEADED = Training("own heads", network, descend, personal=("2",))


def nearest(training: Training, **settings: Any) -> OwnTraining:
    return training.averaging(rounding="nearest", **settings)


@pytest.mark.slow
@pytest.mark.parametrize("training", [PLAIN, ADAPTER, HEADED], ids=lambda t: t.name)
@pytest.mark.parametrize(
    "protocol", [Additive(), Pairwise(dropout_fraction=0.25), Ckks()], ids=lambda p: p.name
)
def test_every_protocol_averages_what_clients_trained(
    training: Training, protocol: Protocol
) -> None:
    clients = blobs()
    method = nearest(training, rounds=2)
    result = Federation(method, protocol).run(clients, max_rows=32)
    assert result.report.exact
    state, _ = rounds_of(method, clients, [range(4)] * 2)
    assert isinstance(result.public, OwnPublic)
    assert np.array_equal(result.public.parameters, state.parameters)


def test_a_round_is_the_weighted_mean_of_local_training() -> None:
    clients = blobs()
    state, _ = rounds_of(nearest(PLAIN, rounds=1), clients, [range(4)])
    method = nearest(PLAIN, rounds=1)
    begun = method.begin(task_of(clients))
    moved = []
    for client in clients:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = network(task_of(clients))
        seed = int(np.random.default_rng([0, 0, *client.name.encode()]).integers(2**31))
        descend(module, client, seed)
        after = np.concatenate([p.detach().numpy().ravel() for p in module.parameters()])
        moved.append(len(client) * (after - begun.parameters))
    mean = np.sum(moved, axis=0) / sum(len(client) for client in clients)
    np.testing.assert_allclose(state.parameters, begun.parameters + mean, atol=1e-5)


def test_only_what_requires_gradients_travels() -> None:
    clients = blobs()
    layouts = [
        nearest(training).layout(nearest(training).begin(task_of(clients)))
        for training in (PLAIN, ADAPTER, HEADED)
    ]
    lengths = [layout.length - 1 for layout in layouts if layout is not None]
    head, first, adapter = 8 * 3 + 3, 6 * 8 + 8, 2 * 8 * 2
    assert lengths == [first + head, adapter + head, first]


def test_an_own_head_stays_with_its_client_and_goes_on_from_round_to_round() -> None:
    clients = blobs()
    method = nearest(HEADED, rounds=4)
    result = Federation(method, Additive()).run(clients, holdout=clients)
    heads = []
    for client in clients:
        model = result.personal[client.name]
        assert isinstance(model, ModuleModel)
        assert model.accuracy(client.features, client.labels) > 0.8
        heads.append(model.module[2].weight.detach().numpy().copy())  # type: ignore[index]
    assert len({head.tobytes() for head in heads}) == len(clients)
    _, memories = rounds_of(method, clients, [range(4)] * 4)
    for head, memory in zip(heads, memories, strict=True):
        own = np.asarray(memory["personal"], dtype=np.float64)[:24].reshape(3, 8)
        np.testing.assert_allclose(head, own, atol=1e-6)


def test_an_absent_clients_own_head_is_as_it_was() -> None:
    clients = blobs()
    absent = clients[3].name
    plan = FaultPlan(vanish={absent: Additive().upload_step}, rounds=(2, 3), reload=True)
    method = nearest(HEADED, rounds=4)
    result = Federation(method, Additive(), same_set=False).run(clients, max_rows=32, plan=plan)
    assert result.report.exact
    state, memories = rounds_of(method, clients, [range(4), range(3), range(3), range(4)])
    assert isinstance(result.public, AveragingPublic)
    assert np.array_equal(result.public.parameters, state.parameters)
    own = result.personal[absent]
    assert isinstance(own, ModuleModel)
    flat = np.concatenate([p.detach().numpy().ravel() for p in own.module[2].parameters()])  # type: ignore[index]
    np.testing.assert_allclose(flat, np.asarray(memories[3]["personal"], dtype=np.float64))


def test_a_round_is_trained_once() -> None:
    calls = []

    def counted(module: nn.Module, data: ClientData, seed: int) -> None:
        calls.append((data.name, seed))
        descend(module, data, seed)

    method = Training("counted", network, counted, personal=("2",)).averaging(rounds=2)
    result = Federation(method, Additive()).run(blobs(), plan=FaultPlan(reload=True))
    assert result.report.exact
    assert len(calls) == len(set(calls)) == 8


def test_frozen_weights_that_differ_between_parties_are_refused() -> None:
    offset = [0.0]

    def drifting(task: Task) -> nn.Module:
        module = adapted(task)
        with torch.no_grad():
            next(module.parameters()).add_(offset[0])
        return module

    method = Training("drifting", drifting, descend).averaging(rounds=2)
    begun = method.begin(task_of(blobs()))
    offset[0] = 1e-3
    elsewhere = method.begin(task_of(blobs()))
    assert np.array_equal(begun.parameters, elsewhere.parameters)
    assert begun.frozen != elsewhere.frozen

    def other_at_every_call(task: Task) -> nn.Module:
        offset[0] += 1.0
        return drifting(task)

    federation = Federation(
        Training("drifting", other_at_every_call, descend).averaging(rounds=1), Additive()
    )
    with pytest.raises(SecureAflError, match="the first public state is not the method's"):
        federation.run(blobs())


def test_it_is_saved_and_loaded_by_its_training(tmp_path: Path) -> None:
    clients = blobs()
    result = Federation(nearest(ADAPTER, rounds=2), Additive()).run(clients, test=clients[0])
    assert result.report.accuracy.federated is not None
    path = tmp_path / "model.safetensors"
    result.model.save(path, {})
    model, card = ADAPTER.load(path, result.public.task)
    assert card["training"] == "adapter"
    features = clients[2].features
    assert np.array_equal(model.scores(features), result.model.scores(features))
    with pytest.raises(DataError, match="no model of the training 'plain'"):
        PLAIN.load(path, result.public.task)


@pytest.mark.parametrize(
    ("training", "settings", "message"),
    [
        (Training("", network, descend), {}, "a training has no name"),
        (PLAIN, {"learning_rate": 0.5}, "have no effect"),
        (PLAIN, {"architecture": Mlp()}, "have no effect"),
        (PLAIN, {"rounds": 0}, "rounds is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    training: Training, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        training.averaging(**settings)


def test_a_module_that_cannot_be_averaged_is_refused() -> None:
    clients = blobs()
    frozen = Training("frozen", lambda task: network(task).requires_grad_(False), descend)
    with pytest.raises(ConfigError, match="no parameter of the module travels"):
        Federation(frozen.averaging(), Additive()).run(clients)
    missing = Training("missing", network, descend, personal=("head",))
    with pytest.raises(ConfigError, match=r"personal part 'head' is no .*allowed: 0\.weight"):
        Federation(missing.averaging(), Additive()).run(clients)
    with pytest.raises(ConfigError, match="knows no training 'elsewhere'"):
        OwnTraining(training="elsewhere").begin(task_of(clients))

    def explode(module: nn.Module, data: ClientData, seed: int) -> None:
        with torch.no_grad():
            next(module.parameters()).fill_(float("nan"))

    with pytest.raises(ConfigError, match="not finite"):
        Federation(Training("nan", network, explode).averaging(), Additive()).run(clients)


def test_the_servers_step_is_the_one_that_is_set() -> None:
    clients = blobs()
    public, _ = rounds_of(
        nearest(PLAIN, rounds=2, server_step=Momentum(0.5)), clients, [range(4)] * 2
    )
    assert len(public.carried) == 1
    plain, _ = rounds_of(nearest(PLAIN, rounds=2), clients, [range(4)] * 2)
    assert not np.array_equal(public.parameters, plain.parameters)
    assert isinstance(FedAvg().server_step, type(nearest(PLAIN).server_step))
