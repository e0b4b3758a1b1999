"""Gradient inversion on real rounds of FedSGD and FedAvg, one image a client."""

import sys
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.attack import ATTACKS, Known, Measure
from attacks.gradients.analytic import (
    dense_input,
    labels_of_head,
    labels_of_weights,
    neuron_inputs,
    row_of_head,
)
from attacks.gradients.inversion import (
    LABELS,
    PSNR,
    PSNR_OVER_MEAN,
    RETRIEVAL,
    ROWS,
    GradientAttack,
    GradientCosine,
    GradientDlg,
    GradientLabels,
    GradientLinear,
    clipped_error,
    victim_of,
)
from attacks.gradients.matching import (
    MatchSettings,
    Pixels,
    cosine_distance,
    match,
    squared_error,
    total_variation,
)
from attacks.gradients.updates import gradient_of, rows_of
from attacks.gradients.victim import ConvNetVictim, DenseVictim, LeNetVictim, Victim
from attacks.measures.images import psnr
from attacks.views.knowledge import subset_sums
from attacks.views.run import Record
from protocols.protocol import Protocol
from protocols.schemes.additive.protocol import Additive
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.data.files import embedded_digits
from secure_afl.errors import ConfigError
from secure_afl.methods import AFL, AnyMethod, ConvNet, FedAvg, FedSGD, Linear, Task
from tests.kit.runs import PLAIN, by_metric, record, relu_clients, truth_of

SHAPE = (8, 8, 1)
CLASSES = 10
CONVNET = FedSGD(rounds=1, update_clip=1e3, architecture=ConvNet())
LINEAR = FedSGD(rounds=1)
SERVER, FIRST = ("server",), ("collector",)
CLIENTS = 10


@cache
def people(each: int = 1) -> tuple[ClientData, ...]:
    """Ten clients with so many digits in 0..1 each."""
    whole = embedded_digits()
    rows = np.random.default_rng(3).permutation(len(whole))[: CLIENTS * each]
    images = np.stack([whole.image(row) for row in rows]).reshape(CLIENTS, each, 64) / 255.0
    labels = whole.labels[rows].reshape(CLIENTS, each)
    return tuple(
        ClientData(f"c{number}", images[number], labels[number]) for number in range(CLIENTS)
    )


@cache
def run(method: AnyMethod, protocol: Protocol = PLAIN, each: int = 1) -> Record:
    return record(people(each), protocol, method, classes=CLASSES)


def known() -> Known:
    return Known(extra={"image_shape": SHAPE})


def task(dim: int, classes: int) -> Task:
    names = tuple(str(label) for label in range(classes))
    return Task(dim, names, Quantiser(12), 1, 1, 1, bytes(32))


def convnet(seed: int, shape: tuple[int, int, int]) -> tuple[ConvNet, Task, Floats, Victim]:
    height, width, channels = shape
    architecture = ConvNet(shape, (4, 6))
    learned = task(height * width * channels, 3)
    parameters = architecture.initial(learned, np.random.default_rng(seed))
    return architecture, learned, parameters, ConvNetVictim.of(architecture, learned, parameters)


def as_images(rows: Floats, shape: tuple[int, int, int]) -> torch.Tensor:
    return torch.from_numpy(rows.reshape(-1, *shape).transpose(0, 3, 1, 2).copy())


# The twin


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    shape=st.sampled_from([(4, 4, 1), (8, 6, 3), (7, 9, 2)]),
    rows=st.integers(1, 4),
)
def test_the_twin_has_the_gradient_of_the_network(
    seed: int, shape: tuple[int, int, int], rows: int
) -> None:
    architecture, learned, parameters, victim = convnet(seed, shape)
    rng = np.random.default_rng(seed)
    features = rng.random((rows, learned.feature_dim))
    labels = rng.integers(0, 3, rows)
    found = victim.gradients(as_images(features, shape), torch.from_numpy(labels)).numpy()
    # The network itself computes in float32.
    inputs = architecture.inputs(learned, features)
    theirs = architecture.gradient(parameters, inputs, labels)
    np.testing.assert_allclose(found, theirs, rtol=0, atol=2e-3 * np.abs(theirs).max())
    # Its own scores in float64 leave nothing but the order of additions.
    wide = features - features.mean(axis=1, keepdims=True)
    images = as_images(wide / wide.std(axis=1, keepdims=True), shape)
    vector = torch.from_numpy(parameters.copy()).requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(
        architecture.embedded(vector, images).scores, torch.from_numpy(labels)
    )
    (exact,) = torch.autograd.grad(loss, vector)
    np.testing.assert_allclose(found, exact.numpy(), rtol=1e-10, atol=1e-12)


def test_a_flat_image_has_a_finite_gradient() -> None:
    *_, victim = convnet(0, (8, 8, 1))
    images = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64, requires_grad=True)
    gradient = victim.gradients(images, torch.tensor([1]), graph=True)
    (back,) = torch.autograd.grad(gradient.square().sum(), images)
    assert gradient.isfinite().all()
    assert back.isfinite().all()


# Updates


def test_the_gradient_of_fedsgd_is_the_clients_own() -> None:
    view = run(CONVNET).view(SERVER)
    for subset, data in zip(subset_sums(view), people(), strict=False):
        assert subset.clients == {data.name}
        inputs = CONVNET.architecture.inputs(view.publics[0].task, data.features)
        parameters = view.publics[0].parameters  # type: ignore[attr-defined]
        true = CONVNET.architecture.gradient(parameters, inputs, data.labels)
        step = CONVNET.quantiser(view.publics[0].task).step
        np.testing.assert_allclose(gradient_of(view, subset), true, rtol=0, atol=step)
        assert rows_of(view, subset) == 1


def test_the_gradient_of_fedavg_is_one_at_the_start_for_small_steps() -> None:
    clients = relu_clients([6, 6], 6)

    def lacking(rate: float) -> float:
        method = FedAvg(
            rounds=1, learning_rate=rate, update_clip=20 * rate, local_epochs=4, batch_size=2
        )
        view = record(clients, PLAIN, method).view(SERVER)
        subset = subset_sums(view)[0]
        (data,) = (client for client in clients if client.name in subset.clients)
        rows = view.publics[0].task.quantiser.scaled(data.features)
        true = Linear().gradient(np.zeros(18), rows, data.labels)
        return float(np.linalg.norm(gradient_of(view, subset) - true) / np.linalg.norm(true))

    assert lacking(1e-3) < 1e-2
    assert lacking(5.0) > 0.1


def test_who_has_no_gradients_finds_nothing() -> None:
    statistics = record(relu_clients([4, 4], 5), PLAIN, AFL())
    view = statistics.view(SERVER)
    with pytest.raises(ConfigError, match="sums no gradients"):
        gradient_of(view, subset_sums(view)[0])
    outsider = run(LINEAR).view(())
    for attack in (GradientLabels(), GradientLinear(), GradientDlg(), GradientCosine()):
        for nothing in (view, outsider):
            claim = attack.claim(nothing, Known(), np.random.default_rng(0))
            assert claim is None
            assert all(measure.trials == 0 for measure in attack.judge(claim, truth_of(people())))
        assert ATTACKS[attack.name] is type(attack)


# In closed form


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    classes=st.integers(2, 8),
    spread=st.sampled_from([0.0, 0.5, 3.0]),
    length=st.floats(0.1, 1.0),
)
def test_a_row_is_read_off_the_gradient_of_a_head(
    seed: int, classes: int, spread: float, length: float
) -> None:
    rng = np.random.default_rng(seed)
    row = rng.random(12) + 0.01
    row *= length / np.linalg.norm(row)
    weights = spread * rng.standard_normal((12, classes))
    label = int(rng.integers(classes))
    gradient = Linear().gradient(weights.ravel(), row[None], np.array([label]))
    found = row_of_head(gradient.reshape(12, classes), weights)
    assert found.label == label
    cosine = found.feature @ row / np.linalg.norm(found.feature) / length
    assert cosine == pytest.approx(1.0, abs=1e-10)
    if spread == 0.0:
        np.testing.assert_allclose(found.feature, row, atol=1e-10)


def test_a_dense_layer_gives_its_input() -> None:
    shape = (3, 8, 8)
    rng = np.random.default_rng(0)
    victim = DenseVictim.random(shape, 5, (16,), seed=1)
    images = torch.from_numpy(rng.random((2, *shape)))
    one = victim.parts(victim.gradients(images[:1], torch.tensor([2])))
    found = dense_input(one[0].numpy(), one[1].numpy())
    assert psnr(images[:1].numpy(), found.reshape(1, *shape)) > 100
    np.testing.assert_allclose(neuron_inputs(one[0].numpy(), one[1].numpy())[0], found, atol=1e-9)
    # Of two images only their blend.
    two = victim.parts(victim.gradients(images, torch.tensor([2, 3])))
    blend = dense_input(two[0].numpy(), two[1].numpy())
    assert max(psnr(image.numpy(), blend.reshape(shape)) for image in images) < 40
    assert not dense_input(np.zeros((2, 3)), np.zeros(2)).any()


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 12))
def test_labels_are_read_off_a_head_that_knows_nothing(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    # One class is nobody's: its share tells the length of the rows.
    labels = np.sort(rng.integers(0, 4, rows))
    shares = np.full((rows, 5), 1 / 5)
    shares[np.arange(rows), labels] -= 1
    np.testing.assert_array_equal(labels_of_head(shares.mean(axis=0), rows), labels)
    columns = np.full((7, 1), 0.3) * shares.mean(axis=0)
    np.testing.assert_array_equal(labels_of_weights(columns, rows), labels)


# Runs on record


@pytest.mark.parametrize("method", [LINEAR, CONVNET], ids=["linear", "convnet"])
def test_the_server_reads_every_label_in_plain(method: FedSGD) -> None:
    measure = measured(GradientLabels(), run(method))[LABELS]
    assert (measure.value, measure.trials) == (1.0, CLIENTS)
    assert measure.chance == pytest.approx(1 / CLASSES)


def test_the_server_reads_every_row_of_a_linear_head_in_plain() -> None:
    # Integers of 24 bits leave about 120 dB.
    attack = GradientLinear()
    view = run(LINEAR).view(SERVER)
    claim = attack.claim(view, known(), np.random.default_rng(0))
    found = by_metric(attack.judge(claim, truth_of(people())))
    assert found[LABELS].value == 1.0
    assert found[PSNR].value > 100
    assert found[RETRIEVAL].value == 1.0
    pictures = attack.pictures(claim, truth_of(people()))
    assert len(pictures) == CLIENTS
    assert all(psnr(picture.true, picture.rebuilt) > 90 for picture in pictures)
    # Where nobody says that rows are images, they are judged as rows.
    claim = attack.claim(view, Known(), np.random.default_rng(0))
    found = by_metric(attack.judge(claim, truth_of(people())))
    assert found[ROWS].low > 100
    assert not attack.pictures(claim, truth_of(people()))


def test_a_blind_sum_gives_blends_of_rows() -> None:
    blind = run(LINEAR, Additive(3))
    found = measured(GradientLinear(), blind, FIRST)
    assert found[PSNR].value < 30
    assert found[LABELS].trials == CLIENTS
    assert measured(GradientLinear(), blind, ("aggregator_1",))[LABELS].trials == 0


def test_the_last_layer_of_an_upload_gives_what_went_into_it() -> None:
    view = run(CONVNET).view(SERVER)
    victim = victim_of(view)
    *_, weight, bias = victim.parts(victim.parameters)
    for subset, data in zip(subset_sums(view), people(), strict=False):
        gradient = victim.parts(torch.from_numpy(gradient_of(view, subset)))
        hidden = dense_input(gradient[-2].numpy(), gradient[-1].numpy())
        # The class shares that follow from it are those in the gradient of the bias.
        shares = torch.softmax(weight @ torch.from_numpy(hidden) + bias, dim=0).numpy()
        shares[data.labels[0]] -= 1
        np.testing.assert_allclose(shares, gradient[-1].numpy(), atol=1e-3)


BRIEF = MatchSettings(steps=250)


@pytest.mark.slow
def test_the_cosine_finds_images_in_plain_and_not_in_a_blind_sum() -> None:
    attack = GradientCosine(BRIEF, most=3)
    plain = measured(attack, run(CONVNET))
    assert plain[PSNR_OVER_MEAN].value > 5
    assert plain[RETRIEVAL].value == 1.0
    blind = measured(attack, run(CONVNET, Additive(3)), FIRST)
    assert blind[PSNR_OVER_MEAN].trials == CLIENTS
    assert blind[PSNR_OVER_MEAN].value < plain[PSNR_OVER_MEAN].value - 5
    # Images of one sum are matched to the ones they are most like, and not looked for again.
    assert (plain[RETRIEVAL].trials, blind[RETRIEVAL].trials) == (3, 0)


@pytest.mark.slow
def test_dlg_runs_on_clipped_updates() -> None:
    clipped = run(FedSGD(rounds=1, update_clip=1.0, architecture=ConvNet()))
    attack = GradientDlg(MatchSettings(steps=5, rate=1.0, optimiser="lbfgs"), most=2)
    found = measured(attack, clipped)
    assert found[LABELS].value == 1.0
    assert found[PSNR].trials == 2


def test_without_torch_closed_forms_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    convnet_view, linear_view = run(CONVNET).view(SERVER), run(LINEAR).view(SERVER)
    monkeypatch.setitem(sys.modules, "torch", None)
    rng = np.random.default_rng(0)
    assert GradientLinear().claim(linear_view, known(), rng) is not None
    assert GradientLabels().claim(convnet_view, known(), rng) is not None
    with pytest.raises(ConfigError, match="needs torch"):
        GradientCosine(BRIEF).claim(convnet_view, known(), rng)


def test_large_sums_are_cut_down_to_so_many_images() -> None:
    attack = GradientCosine(MatchSettings(steps=2), max_rows=3)
    view = run(CONVNET, Additive(3), each=2).view(FIRST)
    claim = attack.claim(view, known(), np.random.default_rng(0))
    assert claim is not None
    (found,) = claim.found
    assert found.rows is not None
    assert found.rows.shape == (3, 64)
    pictures = attack.pictures(claim, truth_of(people(2)))
    assert [picture.rebuilt.shape for picture in pictures] == [SHAPE] * 3


def measured(
    attack: GradientAttack, of: Record, coalition: Sequence[str] = SERVER
) -> dict[str, Measure]:
    claim = attack.claim(of.view(coalition), known(), np.random.default_rng(0))
    return by_metric(attack.judge(claim, truth_of(people())))


# The loop


def lenet(seed: int = 0) -> LeNetVictim:
    return LeNetVictim.random((1, 8, 8), 4, seed)


def target(victim: Victim, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """An image, its label and its gradient."""
    images = torch.from_numpy(np.random.default_rng(seed).random((1, *victim.shape)))
    labels = torch.tensor([2])
    return images, labels, victim.gradients(images, labels)


@pytest.mark.slow
def test_dlg_finds_images_behind_sigmoids() -> None:
    victim = lenet()
    images, labels, wanted = target(victim)
    start = Pixels.noise((1, 1, 8, 8), 1)
    quasi_newton = MatchSettings(steps=20, rate=1.0, optimiser="lbfgs")
    found = match(victim, wanted, labels, start, squared_error, None, quasi_newton)
    assert psnr(images.numpy(), found.numpy()) > 30


def test_the_best_restart_counts() -> None:
    victim = lenet()
    _, labels, wanted = target(victim)

    def reached(restarts: int) -> float:
        start = Pixels((1, 1, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.float64))
        short = MatchSettings(steps=5, rate=0.01, restarts=restarts)
        found = match(victim, wanted, labels, start, cosine_distance, None, short)
        assert found.min() >= 0
        assert found.max() <= 1
        return float(cosine_distance(victim.gradients(found, labels), wanted))

    values = [reached(restarts) for restarts in (1, 2, 6)]
    assert values == sorted(values, reverse=True)
    assert values[2] < values[0]


def test_the_prior_makes_images_smoother() -> None:
    victim = lenet()
    _, labels, wanted = target(victim)
    rough = []
    for weight in (0.0, 10.0):
        start = Pixels.noise((1, 1, 8, 8), 1)
        prior = total_variation(weight)
        brief = MatchSettings(steps=40)
        found = match(victim, wanted, labels, start, cosine_distance, prior, brief)
        rough.append(float(total_variation(1.0)(found)))
    assert rough[1] < 0.5 * rough[0]


def test_objectives_ignore_what_they_say_they_ignore() -> None:
    wanted = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert float(squared_error(wanted, wanted)) == 0.0
    assert float(squared_error(0 * wanted, wanted)) == 1.0
    assert float(cosine_distance(7 * wanted, wanted)) == pytest.approx(0.0, abs=1e-12)
    assert float(clipped_error(5.0)(7 * wanted, wanted)) == pytest.approx(0.0, abs=1e-12)
    assert float(clipped_error(5.0)(0.5 * wanted, wanted)) == pytest.approx(0.25)


class Fixed:
    """Variables that cannot begin anew."""

    def __init__(self, images: torch.Tensor) -> None:
        self._images = images.requires_grad_(True)

    def tensors(self) -> list[torch.Tensor]:
        return [self._images]

    def images(self) -> torch.Tensor:
        return self._images

    def project(self) -> None:
        pass


def test_what_cannot_be_matched_is_refused() -> None:
    victim = lenet()
    images, labels, wanted = target(victim)
    fixed, twice = Fixed(images.clone()), MatchSettings(steps=1, restarts=2)
    once = MatchSettings(steps=1)
    with pytest.raises(ConfigError, match="cannot begin anew"):
        match(victim, wanted, labels, fixed, cosine_distance, None, twice)
    with pytest.raises(ConfigError, match="a gradient of shape"):
        match(victim, wanted[1:], labels, fixed, cosine_distance, None, once)
    with pytest.raises(ConfigError, match="zero or not finite"):
        match(victim, 0 * wanted, labels, fixed, cosine_distance, None, once)
    with pytest.raises(ConfigError, match="a start of shape"):
        Pixels((2, 1, 8, 8), images)
    with pytest.raises(ConfigError, match="steps"):
        MatchSettings(steps=0)
    with pytest.raises(ConfigError, match="this network has"):
        victim.parts(wanted[1:])
    assert torch.equal(match(victim, wanted, labels, fixed, squared_error, None, once), images)
