"""FedHPro: its statistic beside autograd, its pulls beside their formulas, its sums beside one."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from protocols import Additive, FaultPlan, Pairwise, Plain, Protocol
from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError, DataError
from secure_afl.federation.simulation import Federation
from secure_afl.methods import ConvNet, FedAvg, FedHPro, FedProto, Linear, Mlp
from secure_afl.methods.averaging import AveragingPublic
from secure_afl.methods.networks.embedding import Embedding
from secure_afl.methods.networks.mlp import MlpModel
from secure_afl.methods.prototypes import (
    Pull,
    class_gradients,
    margin_of,
    matched,
    pulled_gradient,
    softmax,
)
from secure_afl.privacy.mechanism import Privacy
from tests.secure_afl.methods.test_alike import rounds_of
from tests.secure_afl.methods.test_fedavg import bars, blobs, task_of

PROTOCOLS: tuple[Protocol, ...] = (Plain(), Additive(), Pairwise(dropout_fraction=0.25))
SMALL = Mlp(units=8)


def networks() -> list[tuple[Embedding, Floats, Any, Any, int]]:
    """Both networks at drawn parameters, with inputs and labels."""
    found: list[tuple[Embedding, Floats, Any, Any, int]] = []
    rng = np.random.default_rng(5)
    for network, clients, names in (
        (SMALL, blobs(), ("a", "b", "c")),
        (ConvNet(widths=(3, 4)), bars(), ("a", "b")),
    ):
        task = task_of(clients, names)
        parameters = network.initial(task, rng)
        parameters += 0.1 * rng.standard_normal(len(parameters))
        inputs = network.inputs(task, clients[0].features)
        found.append((network, parameters, inputs, clients[0].labels, len(names)))
    return found


@pytest.mark.parametrize("index", [0, 1], ids=["mlp", "convnet"])
def test_a_classs_gradient_follows_from_its_softmax_rows(index: int) -> None:
    network, parameters, inputs, labels, classes = networks()[index]
    vector = torch.tensor(parameters, dtype=torch.float32)
    found = network.embedded(vector, torch.from_numpy(inputs))
    shares = softmax(network.scores(parameters, inputs))
    means = np.array([shares[labels == place].mean(axis=0) for place in range(classes)])
    weight = found.weight.numpy().astype(np.float64)
    for place, gradient in enumerate(class_gradients(weight, means)):
        rows = found.rows.detach()[labels == place].double().requires_grad_()
        scores = rows @ found.weight.double().T + found.bias.double()
        loss = cross_entropy(scores, torch.full((len(rows),), place))
        (slopes,) = torch.autograd.grad(loss, rows)
        # The loss is a mean, so that the mean gradient of a row is the sum of these.
        assert np.abs(slopes.sum(dim=0).numpy() - gradient).max() < 1e-6


@pytest.mark.parametrize("index", [0, 1], ids=["mlp", "convnet"])
@pytest.mark.parametrize("margin", [0.0, 2.5])
def test_the_pulls_are_their_formulas(index: int, margin: float) -> None:
    network, parameters, inputs, labels, classes = networks()[index]
    width = network.embedded(
        torch.tensor(parameters, dtype=torch.float32), torch.from_numpy(inputs)
    ).rows.shape[1]
    prototypes = np.random.default_rng(1).standard_normal((classes, 4, width))

    def loss(vector: Floats, contrast: float, alignment: float) -> float:
        found = network.embedded(torch.tensor(vector).float(), torch.from_numpy(inputs))
        rows = found.rows.detach().numpy().astype(np.float64)
        scores = found.scores.detach().numpy().astype(np.float64)
        total = 0.0
        for row, own, label in zip(rows, scores, labels, strict=True):
            total += np.log(np.exp(own).sum()) - own[label]
            length = max(np.linalg.norm(row), 1e-12)
            likeness = [
                np.mean([s @ row / np.linalg.norm(s) / length for s in group]) / 0.05
                for group in prototypes
            ]
            total += contrast * (np.log(np.exp(likeness).sum() + margin) - likeness[label])
            mean = prototypes[label].mean(axis=0)
            apart = np.abs(row / length - mean / np.linalg.norm(mean))
            huber = np.where(apart < 1, 0.5 * apart**2, apart - 0.5)
            total += alignment * huber.mean()
        return total / len(rows)

    for contrast, alignment in ((0.0, 0.0), (0.7, 0.0), (0.0, 3.0)):
        pull = Pull(prototypes, contrast, alignment, 0.05, margin)
        gradient = pulled_gradient(network, parameters, inputs, labels, pull)
        if not contrast and not alignment:
            expected = network.gradient(parameters, inputs, labels)
            np.testing.assert_allclose(gradient, expected, atol=1e-6)
        direction = gradient / np.linalg.norm(gradient)
        step = 1e-3 * direction
        rise = loss(parameters + step, contrast, alignment)
        rise -= loss(parameters - step, contrast, alignment)
        assert rise / 2e-3 == pytest.approx(np.linalg.norm(gradient), rel=0.03)


def test_the_margin_is_the_likeness_of_a_clients_class_means() -> None:
    network, parameters, inputs, labels, classes = networks()[0]
    vector = torch.tensor(parameters, dtype=torch.float32)
    rows = network.embedded(vector, torch.from_numpy(inputs)).rows.numpy()
    means = [rows[labels == place].mean(axis=0) for place in range(classes)]
    expected = sum(a @ b for i, a in enumerate(means) for j, b in enumerate(means) if i != j)
    found = margin_of(network, parameters, inputs, labels, classes)
    assert found == pytest.approx(float(expected) / 4, rel=1e-5)
    one = np.zeros_like(labels)
    assert margin_of(network, parameters, inputs, one, classes) == 0.0


def test_matching_turns_prototypes_gradients_to_the_classes() -> None:
    network, parameters, inputs, labels, classes = networks()[0]
    prototypes = np.random.default_rng(2).standard_normal((classes, 5, 8))
    shares = softmax(network.scores(parameters, inputs))
    means = np.array([shares[labels == place].mean(axis=0) for place in range(classes)])
    last = parameters[-(classes * 8 + classes) :]
    weight = last[:-classes].reshape(classes, 8)
    gradients = class_gradients(weight, means)

    def likeness(of: Floats) -> Floats:
        found = np.empty(classes)
        for place in range(classes):
            slopes = softmax(of[place] @ weight.T + last[-classes:]) - np.eye(classes)[place]
            mean, wanted = torch.tensor((slopes @ weight).mean(axis=0)), gradients[place]
            found[place] = cosine_similarity(mean, torch.tensor(wanted), dim=0, eps=1e-6)
        return found

    present = np.array([0, 2])
    moved = matched(prototypes, network, parameters, gradients, present, steps=30, rate=0.1)
    assert (likeness(moved)[present] > likeness(prototypes)[present]).all()
    assert np.array_equal(moved[1], prototypes[1])
    further = matched(moved, network, parameters, gradients, present, steps=300, rate=0.5)
    assert likeness(further)[present].min() > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("class_means", ["clients", "rows"])
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda p: p.name)
@pytest.mark.parametrize("kind", [FedHPro, FedProto])
def test_every_protocol_gives_the_sums_of_one_place(
    kind: type[FedHPro | FedProto], class_means: Any, protocol: Protocol
) -> None:
    clients = blobs()
    method = kind(rounds=2, architecture=SMALL, class_means=class_means, rounding="nearest")
    result = Federation(method, protocol).run(clients, max_rows=32)
    assert result.report.exact
    state, _ = rounds_of(method, clients, [range(4)] * 2)
    final = result.public
    assert isinstance(final, AveragingPublic)
    assert np.array_equal(final.parameters, state.parameters)
    assert np.array_equal(final.carried[-1], state.carried[-1])
    # The prototypes are those of the classes' softmax rows, read off the sum.
    total = result.rounds[0].session.layout.split(result.rounds[0].released.total)
    has = np.array([[(c.labels == place).sum() for place in range(3)] for c in clients])
    expected = has.sum(axis=0) if class_means == "rows" else (has > 0).sum(axis=0)
    assert np.array_equal(total["presence"], 2**12 * expected)
    statistic = total["statistic"].reshape(3, -1) / 2**12
    if kind is FedHPro:
        np.testing.assert_allclose(statistic.sum(axis=1), expected, atol=3 * expected.max() / 2**12)
    else:
        # The prototypes are the means of directions.
        np.testing.assert_allclose(
            rounds_of(method, clients, [range(4)])[0].carried[-1][:, 0],
            statistic / expected[:, None],
        )


def test_clients_may_be_absent_from_rounds() -> None:
    clients = blobs()
    method = FedHPro(rounds=3, architecture=SMALL, rounding="nearest")
    plan = FaultPlan(vanish={clients[3].name: Additive().upload_step}, rounds=(2,), reload=True)
    result = Federation(method, Additive(), same_set=False).run(clients, max_rows=32, plan=plan)
    assert result.report.exact
    state, _ = rounds_of(method, clients, [range(4), range(3), range(4)])
    assert isinstance(result.public, AveragingPublic)
    assert np.array_equal(result.public.parameters, state.parameters)


def test_a_client_moves_the_sum_by_its_sensitivity_at_most() -> None:
    clients = blobs()
    method = FedHPro(architecture=SMALL, update_clip=0.05, update_bits=3, weighted=False)
    public = method.begin(task_of(clients))
    layout = method.layout(public)
    assert layout is not None
    bound = method.sensitivity(public, Privacy(1.0, unit="client"))
    relative = dict(bound.relative)
    for number, client in enumerate(clients):
        vector = method.contribute(public, client, {}, bytes([number]))
        layout.check(vector)
        length = sum(
            float(values @ values) / relative[name] ** 2
            for name, values in layout.split(vector).items()
            if relative[name]
        )
        assert length <= bound.joint**2
    # One that has all classes and knows them, with an update as long as may be, reaches it.
    everything = np.concatenate(
        [
            [2**3],
            np.zeros(len(public.parameters) - 1),
            [1],
            2**12 * np.eye(3).ravel(),
            2**12 * np.ones(3),
        ]
    ).astype(np.int64)
    layout.check(everything)
    reached = sum(
        float(values @ values) / relative[name] ** 2
        for name, values in layout.split(everything).items()
        if relative[name]
    )
    assert reached == pytest.approx(bound.joint**2)
    by_rows = msgspec.structs.replace(method, class_means="rows")
    with pytest.raises(ConfigError, match="--class-means clients"):
        by_rows.sensitivity(public, Privacy(1.0))


def test_a_run_with_noise_is_exact_but_for_it() -> None:
    method = FedHPro(rounds=2, architecture=SMALL, weighted=False)
    privacy = Privacy(8.0, unit="client")
    federation = Federation(method, Additive(), privacy=privacy)
    result = federation.run(blobs(), classes=("a", "b", "c"), max_rows=32)
    assert result.report.exact


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": Linear()}, "--architecture mlp or convnet"),
        ({"contrast": 0, "alignment": 0}, "which is fedavg"),
        ({"prototypes": 0}, "prototypes is 0, allowed: whole numbers 1..1000"),
        ({"class_means": "sums"}, "class_means is 'sums', allowed: clients, rows"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FedHPro(**settings)


def test_a_lying_servers_prototypes_of_another_shape_are_refused() -> None:
    method = FedHPro(architecture=SMALL)
    public = method.begin(task_of(blobs()))
    with pytest.raises(DataError, match=r"wanted \[3, 5, 8\]"):
        method.check(msgspec.structs.replace(public, carried=(np.zeros((3, 4, 8)),)), 1)
    with pytest.raises(DataError, match="a state of 1 arrays, wanted 2"):
        method.check(msgspec.structs.replace(public, carried=()), 1)


def test_an_mlps_gradient_is_that_of_its_loss() -> None:
    network, parameters, inputs, labels, classes = networks()[0]
    dim = inputs.shape[1]
    first, bias, last, ends = np.split(
        parameters, [8 * dim, 8 * dim + 8, 8 * dim + 8 + classes * 8]
    )
    layer, head = first.reshape(8, dim), last.reshape(classes, 8)
    hidden = np.maximum(inputs @ layer.T + bias, 0)
    np.testing.assert_allclose(
        network.scores(parameters, inputs), hidden @ head.T + ends, atol=1e-5
    )
    apart = (softmax(hidden @ head.T + ends) - np.eye(classes)[labels]) / len(labels)
    back = (apart @ head) * (hidden > 0)
    expected = np.concatenate(
        [(back.T @ inputs).ravel(), back.sum(axis=0), (apart.T @ hidden).ravel(), apart.sum(axis=0)]
    )
    np.testing.assert_allclose(network.gradient(parameters, inputs, labels), expected, atol=1e-6)


def test_an_mlp_learns_and_outlasts_its_file(tmp_path: Path) -> None:
    clients = blobs()
    result = Federation(FedAvg(rounds=5, learning_rate=0.3, architecture=SMALL), Plain()).run(
        clients, test=clients[0]
    )
    model = result.model
    assert isinstance(model, MlpModel)
    assert result.report.accuracy.federated is not None
    assert result.report.accuracy.federated > 0.9
    model.save(tmp_path / "model.safetensors", {"note": 1})
    loaded, card = MlpModel.load(tmp_path / "model.safetensors")
    assert card["mlp"] == {"units": 8, "row_mode": "normalise", "clip": 1.0}
    features = 7.0 * clients[1].features
    assert np.array_equal(loaded.scores(features), model.scores(features))
    # Rows are brought to norm 1, whatever they come as.
    np.testing.assert_allclose(loaded.scores(features), model.scores(features / 7), atol=1e-5)
    with pytest.raises(DataError, match=r"this model wants \[n, 6\]"):
        loaded.scores(features[:, :5])
    with pytest.raises(DataError, match=r"features .*nan|not finite|row 0"):
        loaded.scores(np.full((1, 6), np.nan))
