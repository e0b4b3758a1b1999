"""R-GAP, the generator, and the search among what it makes."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from attacks.attack import Known
from attacks.gradients.generative import (
    FeatureMap,
    GenerativeSettings,
    GradientGenerative,
    invert_with_generator,
    project_l1,
)
from attacks.gradients.generator import Generator, GeneratorRecipe, train_generator
from attacks.gradients.inversion import LABELS, PSNR_OVER_MEAN, RETRIEVAL
from attacks.gradients.matching import (
    MatchSettings,
    Pixels,
    cosine_distance,
    match,
    total_variation,
)
from attacks.gradients.rgap import Convolution, RgapNetwork, margins, undo
from attacks.gradients.victim import DenseVictim
from attacks.measures.images import psnr
from secure_afl.analytic.rows import ClientData
from secure_afl.data.files import embedded_digits
from secure_afl.errors import ConfigError, DataError
from secure_afl.methods import ConvNet, FedSGD
from tests.kit.runs import PLAIN, by_metric, record, truth_of

# Networks are trained for most of these.
pytestmark = pytest.mark.slow

SIDE = 8
NETWORK = RgapNetwork(shape=(3, 8, 8), layers=(Convolution(12, 5, 2, 2), Convolution(12, 3, 1, 1)))
RECIPE = GeneratorRecipe(latent=8, widths=(32, 16, 8, 8), steps=400, batch=32, rate=5e-3)


def discs(count: int, seed: int) -> np.ndarray:
    """Coloured discs on grey, (count, 3, 8, 8): images that five numbers say all about."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[:SIDE, :SIDE]
    images = np.full((count, 3, SIDE, SIDE), 0.5)
    for image in images:
        centre, radius = rng.uniform(2, 5, 2), rng.uniform(1.5, 3)
        distance = np.hypot(down - centre[0], across - centre[1])
        inside = np.clip(radius + 0.5 - distance, 0, 1)
        image += inside * (rng.uniform(0, 1, (3, 1, 1)) - image)
    return images


@pytest.fixture(scope="module")
def generator() -> Generator:
    return train_generator(discs(200, seed=0), RECIPE)


class TestRgap:
    @pytest.mark.parametrize("seed", range(4))
    def test_undoes_a_gradient(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        image, label = rng.random(NETWORK.shape), 1 if seed % 2 else -1
        weights = NETWORK.initial(rng)
        found = undo(NETWORK, weights, NETWORK.gradient(weights, image, label))
        assert found.label == label
        assert found.misfit < 1e-9
        assert psnr(image, found.image) > 100

    def test_the_default_network(self) -> None:
        network = RgapNetwork()
        rng = np.random.default_rng(7)
        weights, image = network.initial(rng), rng.random(network.shape)
        single = [part.astype(np.float32) for part in network.gradient(weights, image, 1)]
        assert psnr(image, undo(network, weights, single).image) > 40

    def test_a_noisy_gradient_says_that_it_does_not_fit(self) -> None:
        rng = np.random.default_rng(3)
        weights, image = NETWORK.initial(rng), rng.random(NETWORK.shape)
        gradient = [
            part
            + 0.1 * np.linalg.norm(part) / math.sqrt(part.size) * rng.standard_normal(part.shape)
            for part in NETWORK.gradient(weights, image, 1)
        ]
        found = undo(NETWORK, weights, gradient)
        assert found.misfit > 1e-3
        assert psnr(image, found.image) < 60

    def test_too_few_equations_do_not_give_the_image(self) -> None:
        narrow = RgapNetwork(shape=(3, 8, 8), layers=(Convolution(2, 3, 2, 1),))
        assert narrow.surplus[0] < 0
        rng = np.random.default_rng(1)
        weights, image = narrow.initial(rng), rng.random(narrow.shape)
        assert psnr(image, undo(narrow, weights, narrow.gradient(weights, image, 1)).image) < 40

    def test_twins_have_the_same_gradient_and_the_brighter_is_taken(self) -> None:
        # A logit whose other solution is within the same order: the twin is as plausible.
        rng = np.random.default_rng(5)
        weights, image = NETWORK.initial(rng), rng.random(NETWORK.shape)
        value = torch.tensor(image)[None]
        logit = float(NETWORK._logit([torch.tensor(w) for w in weights], value))
        label = 1 if logit > 0 else -1
        weights[-1] = weights[-1] * (0.9 / abs(logit))
        gradient = NETWORK.gradient(weights, image, label)
        small, large = margins(float(weights[-1] @ gradient[-1]))
        assert small == pytest.approx(0.9)
        twin = NETWORK.gradient(weights, image * large / small, label)
        for ours, theirs in zip(gradient, twin, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-12)
        # Pixels of the twin go beyond 1, so the true one is returned.
        assert psnr(image, undo(NETWORK, weights, gradient).image) > 100

    @pytest.mark.parametrize("margin", [-20.0, -1.0, 0.0, 0.5, 1.2, 2.0, 30.0])
    def test_margins(self, margin: float) -> None:
        product = -margin / (1 + math.exp(margin))
        assert any(found == pytest.approx(margin, abs=1e-6) for found in margins(product))

    def test_refuses(self) -> None:
        weights = NETWORK.initial(np.random.default_rng(0))
        with pytest.raises(DataError, match="shaped like"):
            undo(NETWORK, weights, weights[:-1])
        with pytest.raises(DataError, match="norm is 0"):
            undo(NETWORK, weights, [np.zeros_like(weight) for weight in weights])
        with pytest.raises(ConfigError, match="smaller"):
            RgapNetwork(shape=(3, 8, 8), layers=(Convolution(4, 9, 1, 0),))


class TestGenerator:
    def test_saved_and_loaded(self, generator: Generator, tmp_path: Path) -> None:
        path = tmp_path / "generator.safetensors"
        generator.save(path)
        again = Generator.load(path)
        latent = torch.randn(3, RECIPE.latent, generator=torch.Generator().manual_seed(0))
        assert again.digest == generator.digest
        assert torch.equal(again.run(latent), generator.run(latent))

    def test_stages_follow_one_another(self, generator: Generator) -> None:
        latent = torch.randn(2, RECIPE.latent, generator=torch.Generator().manual_seed(0))
        whole = generator.run(latent)
        assert whole.shape == (2, 3, SIDE, SIDE)
        assert float(whole.min()) >= 0
        assert float(whole.max()) <= 1
        for stage in range(1, len(generator.stages)):
            assert torch.equal(generator.run(generator.run(latent, 0, stage), stage), whole)

    def test_the_same_seed_gives_the_same(self) -> None:
        recipe = GeneratorRecipe(latent=4, widths=(8, 8, 8, 8), steps=3, batch=4)
        once, again = (train_generator(discs(8, seed=0), recipe) for _ in range(2))
        assert once.digest == again.digest

    def test_damage_is_seen(self, generator: Generator, tmp_path: Path) -> None:
        path = tmp_path / "generator.safetensors"
        generator.save(path)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(bytes(content))
        with pytest.raises(DataError, match="digest"):
            Generator.load(path)

    @pytest.mark.parametrize(
        "images", [np.zeros((4, 3, 10, 10)), np.zeros((1, 3, 8, 8)), np.full((4, 3, 8, 8), 255.0)]
    )
    def test_refuses_images(self, images: np.ndarray) -> None:
        with pytest.raises(DataError):
            train_generator(images, RECIPE)


class TestProjection:
    def test_is_the_nearest_point(self) -> None:
        rng = np.random.default_rng(0)
        point = rng.standard_normal(6)
        found = project_l1(torch.tensor(point)[None], torch.tensor([1.0]))[0].numpy()
        # Of a convex set, the nearest point is the one whose offset points to no other of it.
        others = rng.standard_normal((1000, 6))
        others /= np.abs(others).sum(axis=1, keepdims=True)
        corners = np.concatenate([np.eye(6), -np.eye(6), others])
        assert ((corners - found) @ (point - found)).max() < 1e-6
        assert np.abs(found).sum() == pytest.approx(1.0)

    def test_leaves_what_is_inside(self) -> None:
        rows = torch.tensor([[0.1, -0.2, 0.0], [3.0, -4.0, 0.0]])
        found = project_l1(rows, torch.tensor([1.0, 5.0]))
        torch.testing.assert_close(found[0], rows[0])
        torch.testing.assert_close(found[1], torch.tensor([2.0, -3.0, 0.0]))

    def test_a_map_stays_in_its_ball(self, generator: Generator) -> None:
        latent = torch.randn(2, RECIPE.latent, generator=torch.Generator().manual_seed(0))
        start = generator.run(latent, 0, 1)
        variables = FeatureMap(generator, 1, start, radius=0.1)
        with torch.no_grad():
            variables.value += 1.0
        variables.project()
        moved = (variables.value - start).abs().sum(dim=(1, 2, 3))
        torch.testing.assert_close(moved.detach(), 0.1 * start.abs().sum(dim=(1, 2, 3)))


class TestSearch:
    @pytest.mark.slow
    def test_beats_pixels_on_a_noisy_gradient(self, generator: Generator) -> None:
        images = discs(3, seed=99)
        victim = DenseVictim.random((3, SIDE, SIDE), 4, (6,), seed=1)
        victim.parameters = victim.parameters.float()
        settings = GenerativeSettings(
            latent=MatchSettings(steps=80, rate=0.1, signed=False, restarts=3),
            maps=MatchSettings(steps=80, rate=0.03, signed=False),
            last=0,
            radius=0.3,
        )
        gains = []
        for index, image in enumerate(images):
            labels = torch.tensor([index])
            true = torch.tensor(image[None], dtype=torch.float32)
            wanted = victim.gradients(true, labels)
            random = torch.Generator().manual_seed(index)
            noise = torch.randn(len(wanted), generator=random)
            wanted = wanted + 0.5 * wanted.norm() / math.sqrt(len(wanted)) * noise
            found = invert_with_generator(victim, wanted, labels, generator, settings)
            start = Pixels.noise((1, 3, SIDE, SIDE), index, torch.float32)
            budget = MatchSettings(steps=400, rate=0.1)
            prior = total_variation(settings.smoothness)
            pixels = match(victim, wanted, labels, start, cosine_distance, prior, budget)
            gains.append(psnr(image, found.images[0].numpy()) - psnr(image, pixels[0].numpy()))
            assert len(found.losses) == len(found.stages) == 2
            assert found.losses[1] <= found.losses[0] * 1.01
        assert np.mean(gains) > 1

    def test_refuses(self, generator: Generator) -> None:
        victim = DenseVictim.random((3, 16, 16), 4, (6,), seed=1)
        wanted, labels = torch.ones_like(victim.parameters), torch.tensor([0])
        with pytest.raises(ConfigError, match="train one for these"):
            invert_with_generator(victim, wanted, labels, generator)
        with pytest.raises(ConfigError, match="L-BFGS"):
            GenerativeSettings(maps=MatchSettings(optimiser="lbfgs"))


class TestAttack:
    """On a real round of FedSGD, one digit a client; the generator learns from other digits."""

    SETTINGS = GenerativeSettings(
        latent=MatchSettings(steps=60, rate=0.1, signed=False, restarts=2),
        maps=MatchSettings(steps=40, rate=0.03, signed=False),
        last=1,
        radius=1.0,
        smoothness=1e-3,
    )

    def digits(self) -> tuple[list[ClientData], np.ndarray]:
        """Three clients, and public images (p, 8, 8, 1) of none of them."""
        whole = embedded_digits()
        order = np.random.default_rng(3).permutation(len(whole))
        images = np.stack([whole.image(row) for row in order]).reshape(-1, 8, 8, 1) / 255.0
        clients = [
            ClientData(f"c{number}", images[number].reshape(1, 64), whole.labels[order[[number]]])
            for number in range(3)
        ]
        return clients, images[100:600]

    @pytest.mark.slow
    def test_rebuilds_images(self) -> None:
        clients, public = self.digits()
        method = FedSGD(rounds=1, update_clip=1e3, architecture=ConvNet())
        view = record(clients, PLAIN, method, classes=10).view(("server",))
        attack = GradientGenerative(settings=self.SETTINGS, recipe=RECIPE)
        known, rng = Known(extra={"public_images": public}), np.random.default_rng(0)
        claim = attack.claim(view, known, rng)
        assert claim is not None
        measures = by_metric(attack.judge(claim, truth_of(clients)))
        assert measures[LABELS].value == 1.0
        assert measures[PSNR_OVER_MEAN].value > 4
        assert measures[RETRIEVAL].value == 1.0

    def test_wants_a_generator_and_gradients(self) -> None:
        clients, _ = self.digits()
        method = FedSGD(rounds=1, update_clip=1e3, architecture=ConvNet())
        view = record(clients, PLAIN, method, classes=10).view(("server",))
        attack, rng = GradientGenerative(settings=self.SETTINGS), np.random.default_rng(0)
        with pytest.raises(ConfigError, match="public_images"):
            attack.claim(view, Known(), rng)
        linear = record(clients, PLAIN, FedSGD(rounds=1), classes=10).view(("server",))
        assert attack.claim(linear, Known(), rng) is None
