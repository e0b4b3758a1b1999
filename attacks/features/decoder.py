"""A decoder from features to images, learned from public images. Needs torch.

Dosovitskiy and Brox 2016, "Inverting visual representations with convolutional networks": the mean
image given the feature, by squared error. It knows nothing of the attacked clients; what it knows
of images it has from the public ones.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from attacks import networks
from attacks.features.differentiable import require_torch
from attacks.features.stacks import load_stack
from secure_afl.checks import settle_float, settle_int
from secure_afl.data.dataset import Dataset
from secure_afl.errors import ConfigError, DataError
from secure_afl.features.backbone import Backbone

if TYPE_CHECKING:
    import torch

SIDES = (16, 32, 64, 128)
KIND = "secure-afl feature decoder"

# Pixels of the first map, and channels of the maps from there on: 4, 8, 16, 32, 64 pixels wide.
_FIRST_SIDE = 4
_WIDTHS = (256, 128, 64, 32, 16)
_BATCH = 256
_MIN_NORM = 1e-12

Progress = Callable[[int, int], None]
"""Called with the number of steps done and that of all."""


class Recipe(msgspec.Struct, frozen=True):
    """The recipe by which a decoder is trained.

    Attributes:
        side: pixels of its images each way, one of 16, 32, 64, 128.
        steps: of Adam, ≥ 1.
        batch: pairs of a step, ≥ 2.
        rate: Adam's, > 0; it falls to zero along a half cosine.
        copies: how many altered copies of every public image are learned from beside it: shifted,
            turned, mirrored, brighter or darker; ≥ 0.
        dropout: share of the feature's entries left out at a step, in [0, 1).
        seed: of weights, copies and the order of the pairs.
    """

    side: int = 64
    steps: int = 2000
    batch: int = 32
    rate: float = 1e-3
    copies: int = 2
    dropout: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.side not in SIDES:
            allowed = ", ".join(map(str, SIDES))
            raise ConfigError(f"side is {self.side!r}, allowed: {allowed}")
        settle_int(self, "steps", 1, 10_000_000)
        settle_int(self, "batch", 2, 65_536)
        settle_float(self, "rate", 1e-9, 1)
        settle_int(self, "copies", 0, 1000)
        settle_float(self, "dropout", 0, 0.99)
        settle_int(self, "seed", 0, 2**63 - 1)


class Card(msgspec.Struct, frozen=True):
    """The description that a saved decoder gives of itself.

    Attributes:
        backbone: hex digest of the backbone whose features it reads.
        feature_dim: their width d.
        recipe: how it was trained.
        public: name of the public data set, and how many images it had.
        images: their number.
    """

    backbone: str
    feature_dim: int
    recipe: Recipe
    public: str
    images: int
    kind: str = KIND


@dataclass(frozen=True, eq=False)
class Decoder:
    """A trained decoder.

    Attributes:
        card: what it is.
        network: standardised unit rows (n, d) to images (n, 3, side, side).
        centre, spread: (d,) of the public unit rows.
    """

    card: Card
    network: "torch.nn.Module" = field(repr=False)
    centre: NDArray[np.float32] = field(repr=False)
    spread: float = field(repr=False)

    def decode(self, rows: NDArray[np.floating]) -> NDArray[np.float32]:
        """Decode features of any length, (n, d), to float32 (n, side, side, 3) in 0..1.

        Raises:
            ConfigError: rows have another width than the decoder's, norm 0, or are not finite.
        """
        import torch

        if rows.ndim != 2 or rows.shape[1] != self.card.feature_dim:
            raise ConfigError(
                f"rows are {list(rows.shape)}; this decoder wants [n, {self.card.feature_dim}]"
            )
        inputs = torch.from_numpy(_standardised(rows, self.centre, self.spread))
        self.network.eval()
        with torch.inference_mode():
            parts = [self.network(batch) for batch in torch.split(inputs, _BATCH)]
        images: NDArray[np.float32] = torch.cat(parts).permute(0, 2, 3, 1).numpy()
        return images

    @property
    def digest(self) -> bytes:
        """SHA-256 (32 bytes) over the weights and the card."""
        return networks.digest(self._tensors(), self.card)

    def save(self, path: Path) -> None:
        """Write a `.safetensors` file that holds the weights, the card and the digest."""
        networks.save(path, self._tensors(), self.card)

    @classmethod
    def load(cls, path: Path) -> "Decoder":
        """Load a saved decoder.

        Raises:
            ConfigError: torch is missing.
            DataError: the file is missing, damaged, or no decoder.
        """
        require_torch()
        return networks.load(
            path,
            Card,
            cls._built,
            kind=KIND,
            what="decoder",
            remedy="train one with python -m attacks.features.train",
        )

    @classmethod
    def _built(cls, card: Card, tensors: networks.Tensors) -> "Decoder":
        centre, spread = tensors.pop("centre"), float(tensors.pop("spread")[0])
        network = _network(card.feature_dim, card.recipe, np.full((1, 1, 3), 0.5))
        networks.put_into(network, tensors)
        return cls(card, network.eval(), centre, spread)

    def _tensors(self) -> networks.Tensors:
        standard = {"centre": self.centre, "spread": np.array([self.spread])}
        return networks.tensors_of(self.network) | standard


def train_decoder(
    backbone: Backbone,
    public: Dataset,
    recipe: Recipe | None = None,
    progress: Progress | None = None,
) -> Decoder:
    """Learn to decode a backbone's features from public images.

    The same arguments and number of threads give the same decoder, on one machine.

    Args:
        backbone: whose features are decoded.
        public: images of nobody who is attacked, ≥ 2.
        recipe: by default `Recipe()`.
        progress: called after every step.

    Raises:
        ConfigError: torch is missing.
        DataError: features instead of images, or fewer than two images.
    """
    require_torch()
    import torch

    recipe = recipe or Recipe()
    if len(public) < 2:
        raise DataError(f"{public.name} holds {len(public)} image; a decoder needs at least 2")
    copies = _copies(public, recipe)
    rows = _unit(np.concatenate([backbone.extract(copy) for copy in copies]))
    images = np.concatenate([load_stack(copy, recipe.side) for copy in copies])
    centre = rows.mean(axis=0)
    spread = float((rows - centre).std())
    inputs = torch.from_numpy(_standardised(rows, centre, spread))
    targets = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = _network(rows.shape[1], recipe, images.mean(axis=0))
        optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
        network.train()
        for step in range(recipe.steps):
            batch = torch.randint(len(inputs), (recipe.batch,))
            loss = (network(inputs[batch]) - targets[batch]).square().mean()
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            if progress:
                progress(step + 1, recipe.steps)
    card = Card(backbone.digest.hex(), rows.shape[1], recipe, public.name, len(public))
    return Decoder(card, network.eval(), centre, spread)


def _network(feature_dim: int, recipe: Recipe, mean: NDArray[np.floating]) -> "torch.nn.Module":
    """Make transposed convolutions that double the side.

    Before training the network gives the mean image.
    """
    import torch
    from torch import nn

    doublings = (recipe.side // _FIRST_SIDE).bit_length() - 1
    widths = [*_WIDTHS, _WIDTHS[-1]][:doublings]
    layers: list[nn.Module] = [
        nn.Dropout(recipe.dropout),
        nn.Linear(feature_dim, widths[0] * _FIRST_SIDE**2),
        nn.Unflatten(1, (widths[0], _FIRST_SIDE, _FIRST_SIDE)),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
    ]
    for wide, narrow in pairwise(widths):
        layers += [
            nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
        ]
    last = nn.ConvTranspose2d(widths[-1], 3, 4, stride=2, padding=1)
    nn.init.zeros_(last.weight)
    assert last.bias is not None
    nn.init.zeros_(last.bias)
    logits = torch.logit(torch.from_numpy(np.asarray(mean, dtype=np.float32)), eps=1e-3)
    return nn.Sequential(*layers, last, _mean_image(logits.permute(2, 0, 1), recipe.side))


def _mean_image(logits: "torch.Tensor", side: int) -> "torch.nn.Module":
    """Make a layer that adds what is common to all images.

    The layer brings pixels into 0..1.
    """
    import torch
    from torch import nn

    class MeanImage(nn.Module):
        logits: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("logits", logits.expand(3, side, side).clone())

        def forward(self, difference: torch.Tensor) -> torch.Tensor:
            """Add the mean's logits to (n, 3, side, side) and squash to 0..1."""
            return torch.sigmoid(difference + self.logits)

    return MeanImage()


def _copies(public: Dataset, recipe: Recipe) -> list[Dataset]:
    """Return the data set itself, and altered copies of it."""
    rng = np.random.default_rng(recipe.seed)
    sets = [public]
    pictures = [
        Image.fromarray(public.image(index)).convert("RGB")
        for index in range(len(public) if recipe.copies else 0)
    ]
    for number in range(recipe.copies):
        arrays = [_altered(picture, rng) for picture in pictures]
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, array in enumerate(arrays):
            by_shape.setdefault(array.shape, []).append(index)
        for indices in by_shape.values():
            stack = np.stack([arrays[index] for index in indices])
            labels = public.labels[indices]
            sets.append(Dataset(f"{public.name}, copy {number + 1}", stack, labels, public.classes))
    return sets


def _altered(picture: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
    width, height = picture.size
    mirror = rng.random() < 0.5
    angle, zoom = rng.uniform(-10, 10), rng.uniform(1.0, 1.15)
    across, down = rng.uniform(-0.08, 0.08, 2)
    light, contrast = rng.uniform(-0.1, 0.1), rng.uniform(0.85, 1.15)
    if mirror:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture = picture.rotate(
        angle,
        Image.Resampling.BICUBIC,
        translate=(round(across * width), round(down * height)),
        fillcolor=_border_colour(picture),
    )
    left, top = (1 - 1 / zoom) / 2 * width, (1 - 1 / zoom) / 2 * height
    box = (left, top, width - left, height - top)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC, box=box)
    pixels = np.asarray(picture, dtype=np.float64)
    pixels = 255 * light + (pixels - 127.5) * contrast + 127.5
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _border_colour(picture: Image.Image) -> tuple[int, ...]:
    """Return the median colour of the top row.

    A shifted image shows it beyond its border.
    """
    top = np.asarray(picture)[0].reshape(-1, 3)
    return tuple(int(value) for value in np.median(top, axis=0))


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > _MIN_NORM)).all():
        raise ConfigError("a feature of norm 0, or not finite, has no direction; leave it out")
    unit: NDArray[np.float32] = (rows / lengths).astype(np.float32)
    return unit


def _standardised(
    rows: NDArray[np.floating], centre: NDArray[np.float32], spread: float
) -> NDArray[np.float32]:
    standardised: NDArray[np.float32] = (_unit(rows) - centre) / np.float32(spread or 1.0)
    return standardised
