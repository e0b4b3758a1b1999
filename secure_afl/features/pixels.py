"""Features without a network: pixels as they are, and seeded random projections of them."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from secure_afl.data.dataset import Dataset
from secure_afl.errors import DataError
from secure_afl.features.cache import FeatureCache
from secure_afl.progress import Progress

MAX_PROJECTION = 65_536
_BATCH = 64


@dataclass(frozen=True)
class Pixels:
    """Images as rows of their pixels in [0, 1], resized if asked.

    Features stay as they are.
    """

    image_size: int | None
    width: ClassVar[int | None] = None
    """Number of a row's features: it turns on the examples."""

    @property
    def digest(self) -> bytes:
        """SHA-256 (32 bytes) of the settings."""
        return digest_of({"pixels": self.image_size})

    def extract(
        self, dataset: Dataset, cache: FeatureCache | None, progress: Progress | None
    ) -> NDArray[np.float32]:
        """Flatten images to rows, float32 (n, d); features pass through; nothing is cached.

        Raises:
            DataError: images of different sizes, or features that are to be resized.
        """
        if not dataset.holds_images:
            if self.image_size is not None:
                raise DataError(
                    f"{dataset.name} holds features of width {dataset.width}, which cannot be "
                    f"resized to {self.image_size} pixels; leave the image size out"
                )
            # What float32 cannot hold becomes infinite, which Backbone.extract refuses.
            with np.errstate(over="ignore"):
                features = np.array(dataset.examples, dtype=np.float32)
            _check_underflow(dataset, features)
            if progress:
                progress("features", len(dataset), len(dataset))
            return features
        first = self._pixels(dataset, 0)
        rows = np.empty((len(dataset), first.size), dtype=np.float32)
        for index in range(len(dataset)):
            pixels = self._pixels(dataset, index)
            if pixels.shape != first.shape:
                raise DataError(
                    f"{_place(dataset, index)} has the size {pixels.shape}, but "
                    f"{_place(dataset, 0)} has {first.shape}; give an image size to resize to"
                )
            rows[index] = pixels.reshape(-1)
            if progress and ((index + 1) % _BATCH == 0 or index + 1 == len(dataset)):
                progress("features", index + 1, len(dataset))
        return rows / np.float32(255)

    def _pixels(self, dataset: Dataset, index: int) -> NDArray[np.uint8]:
        pixels = dataset.image(index)
        if self.image_size is None:
            return pixels
        size = (self.image_size, self.image_size)
        return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class Projection:
    """A random ReLU layer: relu(x @ R) with R ~ N(0, 1 / d_in).

    It is the same for the same seed.
    """

    dim: int
    seed: int

    @property
    def digest(self) -> bytes:
        """SHA-256 (32 bytes) of the settings."""
        return digest_of({"projection": self.dim, "seed": self.seed})

    def apply(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map float32 (n, d_in) to float32 (n, dim), not negative."""
        d_in = rows.shape[1]
        matrix = np.random.default_rng(self.seed).standard_normal((d_in, self.dim), np.float32)
        matrix /= np.float32(math.sqrt(d_in))
        # Rows too large for float32 become infinite, which Backbone.extract refuses.
        with np.errstate(over="ignore", invalid="ignore"):
            projected: NDArray[np.float32] = rows @ matrix
        return np.maximum(projected, 0, out=projected)


def batches(digests: list[bytes]) -> Iterator[list[bytes]]:
    """Cut a list into batches that go through a network together."""
    for start in range(0, len(digests), _BATCH):
        yield digests[start : start + _BATCH]


def _check_underflow(dataset: Dataset, features: NDArray[np.float32]) -> None:
    """Raise DataError for a row of numbers so small that float32 keeps little of them."""
    small = np.abs(features).max(axis=1) < np.finfo(np.float32).tiny
    for row in np.flatnonzero(small):
        if np.any(np.asarray(dataset.examples)[row]):
            raise DataError(
                f"{dataset.name}: the features of row {row} are below "
                f"{np.finfo(np.float32).tiny:.2g}, too small for float32; multiply all rows by one "
                "number"
            )


def _place(dataset: Dataset, index: int) -> str:
    if isinstance(dataset.examples, tuple):
        return str(dataset.examples[index])
    return f"image {index} of {dataset.name}"


def digest_of(settings: dict[str, Any]) -> bytes:
    """Hash settings, 32 bytes."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).digest()
