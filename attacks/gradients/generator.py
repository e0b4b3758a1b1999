"""A small generator of images, learned from public ones. Needs torch.

The decoder of a variational autoencoder (Kingma and Welling 2014, "Auto-encoding variational
Bayes"). It is split in stages, so that an attack can look for the latent as well as for a feature
map behind any stage. Larger ones from elsewhere can be plugged in as a file of the same kind.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from attacks import networks
from attacks.features.differentiable import require_torch
from secure_afl.checks import settle_float, settle_int
from secure_afl.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch
    from torch import nn

SIDES = (8, 16, 32)
KIND = "secure-afl image generator"

_FIRST_SIDE = 4
_CHANNELS = (1, 3)
# What colours of one image differ by from the next, in the altered copies that training makes.
_LIGHT, _CONTRAST, _SHIFT, _TURN, _ZOOM = 0.1, 0.15, 0.16, 0.17, 0.1

Progress = Callable[[int, int], None]
"""Called with the number of steps done and that of all."""


class GeneratorRecipe(msgspec.Struct, frozen=True):
    """The recipe by which a generator is trained.

    Attributes:
        latent: entries of the latent, ≥ 1.
        widths: channels of the maps 4, 8, 16, … pixels wide, one for each, each ≥ 1; those after
            the last that the images' side needs are not used.
        steps: of Adam, ≥ 1.
        batch: images of a step, ≥ 2.
        rate: Adam's, > 0; it falls to zero along a half cosine.
        divergence: weight of the Kullback-Leibler divergence of the latent from a standard normal,
            against the squared error in units of `deviation`²; ≥ 0.
        deviation: of a pixel around the decoded one, > 0.
        seed: of weights, altered copies, noise and the order of the images.
    """

    latent: int = 64
    widths: tuple[int, ...] = (128, 96, 64, 32)
    steps: int = 3000
    batch: int = 32
    rate: float = 2e-3
    divergence: float = 1.0
    deviation: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        settle_int(self, "latent", 1, 4096)
        doublings = (max(SIDES) // _FIRST_SIDE).bit_length()
        if len(self.widths) != doublings or min(self.widths) < 1:
            raise ConfigError(f"widths are {self.widths!r}, allowed: {doublings} numbers ≥ 1")
        settle_int(self, "steps", 1, 10_000_000)
        settle_int(self, "batch", 2, 65_536)
        settle_float(self, "rate", 1e-9, 1)
        settle_float(self, "divergence", 0, 1e6)
        settle_float(self, "deviation", 1e-6, 1e3)
        settle_int(self, "seed", 0, 2**63 - 1)


class GeneratorCard(msgspec.Struct, frozen=True):
    """The description that a saved generator gives of itself.

    Attributes:
        side: pixels of its images each way.
        channels: 1 or 3.
        recipe: how it was trained.
        images: on how many.
    """

    side: int
    channels: int
    recipe: GeneratorRecipe
    images: int
    kind: str = KIND


@dataclass(frozen=True, eq=False)
class Generator:
    """A trained generator: latent (n, l) → stages and maps in turn → images.

    The order is stage 0 → map → stage 1 → map → ….

    Attributes:
        card: what it is.
        network: the stages, `nn.Sequential`, frozen. The maps behind them are 4, 8, 16, … pixels
            wide; the last stage makes images (n, channels, side, side) in 0..1.
    """

    card: GeneratorCard
    network: "nn.Sequential" = field(repr=False)

    @property
    def stages(self) -> "Sequence[nn.Module]":
        """Stages that follow one another; all outputs but the last's can be looked for."""
        return list(self.network)

    def run(self, value: "torch.Tensor", first: int = 0, last: int | None = None) -> "torch.Tensor":
        """Run stages `first` … `last` − 1 on the input of stage `first`.

        Stage 0 wants a latent (n, l). By default `last` is the number of stages: images in 0..1.
        """
        for stage in self.stages[first:last]:
            value = stage(value)
        return value

    @property
    def digest(self) -> bytes:
        """SHA-256 (32 bytes) over the weights and the card."""
        return networks.digest(self._tensors(), self.card)

    def save(self, path: Path) -> None:
        """Write a `.safetensors` file that holds the weights, the card and the digest."""
        networks.save(path, self._tensors(), self.card)

    @classmethod
    def load(cls, path: Path) -> "Generator":
        """Load a saved generator.

        Raises:
            ConfigError: torch is missing.
            DataError: the file is missing, damaged, or no generator.
        """
        require_torch()
        return networks.load(
            path,
            GeneratorCard,
            cls._built,
            kind=KIND,
            what="generator",
            remedy="train one with train_generator",
        )

    @classmethod
    def _built(cls, card: GeneratorCard, tensors: networks.Tensors) -> "Generator":
        network = _decoder(card.side, card.channels, card.recipe)
        networks.put_into(network, tensors)
        return cls(card, network.eval().requires_grad_(False))

    def _tensors(self) -> networks.Tensors:
        return networks.tensors_of(self.network)


def train_generator(
    images: NDArray[np.floating],
    recipe: GeneratorRecipe | None = None,
    progress: Progress | None = None,
) -> Generator:
    """Learn to generate images like the public ones.

    The same arguments and number of threads give the same generator, on one machine. Every image
    is learned from shifted, turned, zoomed, mirrored, brighter or darker, anew at every step.

    Args:
        images: of nobody who is attacked, (n ≥ 2, channels, side, side) in 0..1; channels 1 or 3,
            side 8, 16 or 32.
        recipe: by default `GeneratorRecipe()`.
        progress: called after every step.

    Raises:
        ConfigError: torch is missing.
        DataError: images of another shape or range.
    """
    require_torch()
    import torch

    recipe = recipe or GeneratorRecipe()
    _check(images)
    side, channels = images.shape[2], images.shape[1]
    public = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        encoder, decoder = _encoder(side, channels, recipe), _decoder(side, channels, recipe)
        weights = [*encoder.parameters(), *decoder.parameters()]
        optimiser = torch.optim.Adam(weights, lr=recipe.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
        for step in range(recipe.steps):
            true = _altered(public[torch.randint(len(public), (recipe.batch,))])
            mean, log_variance = encoder(true).chunk(2, dim=1)
            latent = mean + torch.randn_like(mean) * torch.exp(log_variance / 2)
            error = (decoder(latent) - true).square().sum(dim=(1, 2, 3)) / recipe.deviation**2
            divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
            loss = (error + recipe.divergence * divergence).mean() / 2
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            if progress:
                progress(step + 1, recipe.steps)
    card = GeneratorCard(side, channels, recipe, len(images))
    return Generator(card, decoder.eval().requires_grad_(False))


def _check(images: NDArray[np.floating]) -> None:
    shape = images.shape
    if (
        len(shape) != 4
        or shape[1] not in _CHANNELS
        or shape[2] != shape[3]
        or shape[2] not in SIDES
    ):
        raise DataError(
            f"public images are {list(shape)}, allowed: [n, channels, side, side], channels in "
            f"{_CHANNELS}, side in {SIDES}; resize them"
        )
    if len(images) < 2:
        raise DataError(f"{len(images)} public image; a generator needs at least 2")
    if not ((images >= 0) & (images <= 1)).all():
        raise DataError("public images have pixels outside 0..1; divide bytes by 255")


def _widths(side: int, recipe: GeneratorRecipe) -> tuple[int, ...]:
    return recipe.widths[: (side // _FIRST_SIDE).bit_length()]


def _decoder(side: int, channels: int, recipe: GeneratorRecipe) -> "nn.Sequential":
    from torch import nn

    widths = _widths(side, recipe)
    first = nn.Sequential(
        nn.Linear(recipe.latent, widths[0] * _FIRST_SIDE**2),
        nn.Unflatten(1, (widths[0], _FIRST_SIDE, _FIRST_SIDE)),
        nn.BatchNorm2d(widths[0]),
        nn.LeakyReLU(0.2),
    )
    doublings = [
        nn.Sequential(
            nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.LeakyReLU(0.2),
        )
        for wide, narrow in pairwise(widths)
    ]
    last = nn.Sequential(nn.Conv2d(widths[-1], channels, 3, padding=1), nn.Sigmoid())
    return nn.Sequential(first, *doublings, last)


def _encoder(side: int, channels: int, recipe: GeneratorRecipe) -> "nn.Module":
    """Map images to means and log variances of the latent, (n, 2l)."""
    from torch import nn

    widths = _widths(side, recipe)
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[-1], 3, padding=1), nn.LeakyReLU(0.2)]
    for narrow, wide in pairwise(reversed(widths)):
        layers += [
            nn.Conv2d(narrow, wide, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.LeakyReLU(0.2),
        ]
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(widths[0] * _FIRST_SIDE**2, 2 * recipe.latent)
    )


def _altered(images: "torch.Tensor") -> "torch.Tensor":
    """Return each image turned, zoomed, mirrored, shifted, and in another light."""
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    n = len(images)

    def uniform(most: float) -> torch.Tensor:
        return (2 * torch.rand(n) - 1) * most

    angle, zoom, mirror = uniform(_TURN), 1 + uniform(_ZOOM), torch.sign(torch.rand(n) - 0.5)
    rows = [
        torch.stack([mirror * zoom * angle.cos(), -zoom * angle.sin(), uniform(_SHIFT)], dim=1),
        torch.stack([mirror * zoom * angle.sin(), zoom * angle.cos(), uniform(_SHIFT)], dim=1),
    ]
    grid = affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    moved = grid_sample(images, grid, padding_mode="border", align_corners=False)
    light, contrast = uniform(_LIGHT).view(-1, 1, 1, 1), 1 + uniform(_CONTRAST).view(-1, 1, 1, 1)
    return ((moved - 0.5) * contrast + 0.5 + light).clamp(0, 1)
