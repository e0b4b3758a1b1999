"""Frozen backbones: from images or given features to the feature rows that methods work on."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from secure_afl.data.dataset import Dataset
from secure_afl.errors import ConfigError, DataError
from secure_afl.features.cache import FeatureCache
from secure_afl.features.pixels import MAX_PROJECTION, Pixels, Projection
from secure_afl.features.timm import load_network
from secure_afl.progress import Progress

"""Called with the number of examples done and that of all."""

FORMS = (
    "identity, projection:<dim>, timm:<model>[,<key>=<value>…] "
    "or timm:<model>[,<key>=<value>…]+projection:<dim>"
)
MAX_IMAGE_SIZE = 4096


class Front(Protocol):
    """The first part of a backbone, which makes rows of examples."""

    @property
    def digest(self) -> bytes:
        """SHA-256 (32 bytes) over everything that changes the rows."""

    @property
    def width(self) -> int | None:
        """Number of a row's features; None where that turns on the examples."""

    def extract(
        self, dataset: Dataset, cache: FeatureCache | None, progress: Progress | None
    ) -> NDArray[np.floating]:
        """Compute the rows of a dataset in its order, (n, d)."""


@dataclass(frozen=True)
class Backbone:
    """A frozen map from examples to feature rows; made by `parse_backbone`.

    `name` is the spec. `front` makes rows of images (or passes features on), `projection` expands
    them.
    """

    name: str
    front: "Front"
    projection: "Projection | None"

    @property
    def digest(self) -> bytes:
        """SHA-256 (32 bytes) over everything that changes the rows: weights, settings, seed."""
        expansion = self.projection.digest if self.projection else b""
        return hashlib.sha256(self.front.digest + expansion).digest()

    @property
    def width(self) -> int | None:
        """Number of a row's features; None where that turns on the examples."""
        return self.front.width if self.projection is None else self.projection.dim

    def extract(
        self,
        dataset: Dataset,
        cache: FeatureCache | None = None,
        progress: Progress | None = None,
    ) -> NDArray[np.floating]:
        """Compute the feature rows of a dataset in its order, float (n, d), all finite.

        With a cache, rows of a network are taken from it and stored in it as they are computed.

        Raises:
            DataError: data that the backbone does not take, an image that cannot be read, or rows
                that are not finite.
        """
        rows = self.front.extract(dataset, cache, progress)
        if self.projection is not None:
            rows = self.projection.apply(rows)
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            raise DataError(
                f"{self.name} made NaN or infinity of example {np.argmin(finite)} of "
                f"{dataset.name}; check the checkpoint's weights, and that the data fit float32"
            )
        return rows


def parse_backbone(
    spec: str,
    checkpoint: Path | None = None,
    image_size: int | None = None,
    seed: int = 0,
    memory: Path | None = None,
) -> Backbone:
    """Make a backbone from its spec; weights are loaded, or downloaded, here.

    - `identity`: features as they are; images flattened to pixels in [0, 1].
    - `projection:<dim>`: relu(x @ R) after `identity`, with R ~ N(0, 1 / d_in) drawn from `seed`.
    - `timm:<model>[,<key>=<value>…]`: a timm model without its classifier, with the weights of
      `checkpoint`, or timm's own without one. `mean`, `std`, `interpolation` and `crop_pct`
      override the model's preprocessing; `power` (0.1 to 1) takes powers of the entries, `stages=N`
      joins the means of the last N blocks and projects them to the model's width by `seed`; other
      keys go to `timm.create_model`.
    - `timm:…+projection:<dim>`: both.

    `image_size` resizes images to exactly that many pixels each way, without a crop unless
    `crop_pct` is given. With a `memory`, the path of a feature cache, the network of a checkpoint
    that was built before is built only when a row is wanted that the cache lacks.

    Raises:
        ConfigError: a spec or setting that cannot be.
        DataError: weights that cannot be loaded.
    """
    if image_size is not None and not 1 <= image_size <= MAX_IMAGE_SIZE:
        raise ConfigError(f"image size {image_size} is not in 1..{MAX_IMAGE_SIZE}")
    if seed < 0:
        raise ConfigError(f"seed {seed} of the backbone is negative; give 0 or more")
    front, projection = _parse_parts(spec, seed)
    if front.startswith("timm:"):
        network = load_network(front.removeprefix("timm:"), checkpoint, image_size, seed, memory)
        return Backbone(spec, network, projection)
    if checkpoint is not None:
        raise ConfigError(
            f"backbone {spec!r} has no weights to take from {checkpoint}; "
            "leave the checkpoint out, or give timm:<model>"
        )
    return Backbone(spec, Pixels(image_size), projection)


def _parse_parts(spec: str, seed: int) -> tuple[str, Projection | None]:
    """Parse the front, `identity` or `timm:…`, and the projection."""
    front, plus, tail = spec.partition("+")
    if not plus and front.startswith("projection:"):
        front, plus, tail = "identity", "+", spec
    front_known = front == "identity" or front.startswith("timm:")
    tail_known = not plus or tail.startswith("projection:")
    if not (front_known and tail_known):
        raise ConfigError(f"backbone {spec!r} is not one of {FORMS}")
    return front, _parse_projection(tail, seed) if plus else None


def _parse_projection(part: str, seed: int) -> Projection:
    text = part.removeprefix("projection:")
    dim = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0
    if not 1 <= dim <= MAX_PROJECTION:
        raise ConfigError(
            f"backbone {part!r}: dim {text!r} is not a whole number in 1..{MAX_PROJECTION}"
        )
    return Projection(dim, seed)
