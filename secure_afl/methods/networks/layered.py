"""A convolutional network whose filters came from sums, and the model with a head behind it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from protocols.layout import Integers
from secure_afl.analytic.layers.bank import FilterBank, pooled_shape
from secure_afl.analytic.layers.maps import MapShape, image_shape, standardised, whole
from secure_afl.analytic.layers.patches import LayerShape, region_sums
from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError, DataError
from secure_afl.methods.model import LinearModel, Model, save_weights

# Images whose head rows are formed at a time: memory does not grow with their number.
_ROWS = 2048
# Smaller images than this get the smaller default kernel and fewer filters.
_SMALL_SIDE = 16
_LEAST_SIDE = 4


class LayeredNetwork(msgspec.Struct, frozen=True):
    """The public numbers of a network: image, layers, regions; the filters come beside it.

    Attributes:
        image: (height, width, channels) of images.
        kernel: side of a filter, odd.
        counts: filters of each layer.
        regions: maps are cut into regions × regions parts, for labels and for the head's means;
            where a map's side is shorter, into as many as that.
        steps: whole numbers to a unit of a map.
    """

    image: tuple[int, int, int]
    kernel: int
    counts: tuple[int, ...]
    regions: int
    steps: int

    @classmethod
    def fitting(
        cls,
        values: int,
        image: tuple[int, int, int] | None,
        kernel: int | None,
        layers: int,
        regions: int,
        steps: int,
    ) -> "LayeredNetwork":
        """Return the network for images of so many values, its filters not yet counted.

        Args:
            kernel: by default 5, and 3 for images below 16 pixels a side.

        Raises:
            ConfigError: rows are no images, or too small for so many layers.
        """
        least = _LEAST_SIDE * 2 ** (layers - 1)
        shape = image_shape(values, image, least)
        if kernel is None:
            kernel = 5 if min(shape[:2]) >= _SMALL_SIDE else 3
        return cls((shape.height, shape.width, shape.channels), kernel, (), regions, steps)

    @property
    def small(self) -> bool:
        """Whether images are below 16 pixels a side."""
        return min(self.image[:2]) < _SMALL_SIDE

    def layer(self, index: int) -> LayerShape:
        """Return the shape of a layer, from 0; the filters of those before are counted."""
        maps = self.maps(index)
        return LayerShape(maps, self.kernel, self._regions(maps), self.steps)

    def maps(self, layers: int) -> MapShape:
        """Return the shape of the maps behind so many layers."""
        maps = MapShape(*self.image)
        for count in self.counts[:layers]:
            maps = pooled_shape(maps, count)
        return maps

    @property
    def width(self) -> int:
        """Number of values of a head row: 2F maps of the last layer, averaged over regions."""
        maps = self.maps(len(self.counts))
        return maps.channels * self._regions(maps) ** 2

    def layer_maps(
        self, banks: Sequence[FilterBank], images: NDArray[np.floating]
    ) -> Iterator[tuple[Floats, int]]:
        """Yield what comes into the layer behind these filters, block by block.

        Args:
            images: (n, d), flattened; may be memory-mapped.

        Yields:
            Whole-number maps (m, h, w, c) and the row of the first of them.

        Raises:
            DataError: values that are not finite, naming the row.
        """
        for responses, start in self._responses(banks, images):
            flat = responses.reshape(len(responses), -1)
            yield whole(flat, self.steps).reshape(responses.shape), start

    def rows(self, banks: Sequence[FilterBank], images: NDArray[np.floating]) -> Floats:
        """Average the maps behind all layers over regions: (n, width) float64 ≥ 0.

        An image's numbers do not depend on its neighbours.

        Raises:
            DataError: values that are not finite, naming the row.
        """
        found = np.empty((len(images), self.width))
        shape = self.maps(len(banks))
        regions = self._regions(shape)
        sizes = LayerShape(shape, 1, regions, 1).region_sizes[None, :, None]
        for maps, start in self._responses(banks, images):
            means = region_sums(maps, regions) / sizes
            found[start : start + len(maps)] = means.reshape(len(maps), -1)
        return found

    def row_blocks(
        self, banks: Sequence[FilterBank], images: NDArray[np.floating]
    ) -> Iterator[tuple[Floats, slice]]:
        """Yield head rows, 2048 at a time, and whose they are."""
        for start in range(0, len(images), _ROWS):
            part = slice(start, min(start + _ROWS, len(images)))
            yield self.rows(banks, images[part]), part

    def _responses(
        self, banks: Sequence[FilterBank], images: NDArray[np.floating]
    ) -> Iterator[tuple[Floats, int]]:
        size = min(self.layer(index).block_rows() for index in range(max(1, len(banks))))
        for start in range(0, len(images), size):
            flat = standardised(images[start : start + size], start)
            maps = flat.reshape(-1, *self.image)
            for index, bank in enumerate(banks):
                flat = whole(maps.reshape(len(maps), -1), self.steps)
                maps = bank.apply(flat.reshape(maps.shape), self.layer(index))
            yield maps, start

    def _regions(self, maps: MapShape) -> int:
        return min(self.regions, maps.height, maps.width)


@dataclass(frozen=True, eq=False)
class LayeredModel(Model):
    """A head behind a network's layers; rows are flattened images, as they come.

    Attributes:
        network: the public numbers.
        banks: filters of each layer.
        head: a classifier of head rows.
    """

    network: LayeredNetwork
    banks: tuple[FilterBank, ...]
    head: LinearModel

    def __repr__(self) -> str:
        return f"<LayeredModel of {len(self.banks)} layers, {len(self.classes)} classes>"

    @property
    def weights(self) -> Floats:  # type: ignore[override]
        """Weights of the head."""
        return self.head.weights

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the C classes."""
        return self.head.classes

    @property
    def observed(self) -> Floats | None:  # type: ignore[override]
        """Class shares of the rows that the head was made from."""
        return self.head.observed

    @property
    def prior(self) -> Floats | None:  # type: ignore[override]
        """Class shares that the head counts on."""
        return self.head.prior

    @property
    def has_prior(self) -> bool:
        """Whether the head's scores hold a prior."""
        return self.head.has_prior

    @property
    def has_probabilities(self) -> bool:
        """Whether the head is one of calibrated probabilities."""
        return self.head.has_probabilities

    def with_prior(self, prior: Floats) -> "LayeredModel":
        """Return the model for other class shares; see `LinearModel.with_prior`."""
        return replace(self, head=self.head.with_prior(prior))

    def uncalibrated(self) -> "LayeredModel":
        """Return the model whose probabilities are those of temperature 1."""
        return replace(self, head=self.head.uncalibrated())

    def probabilities(self, features: NDArray[np.floating]) -> Floats:
        """Return the probability of each class of flattened images (n, d): (n, C) float64.

        Raises:
            DataError: as `scores`; or the head has none.
        """
        return self._by_head(features, self.head.probabilities)

    def comparable(self, features: NDArray[np.floating]) -> Floats:
        """Return scores (n, C) that can be compared between images."""
        return self._by_head(features, self.head.comparable)

    def scores(self, features: NDArray[np.floating]) -> Floats:
        """Score flattened images (n, d), pixels on any scale: (n, C) float64.

        Raises:
            DataError: d is not height · width · channels of the model, or values not finite.
        """
        return self._by_head(features, self.head.scores)

    def _by_head(
        self, features: NDArray[np.floating], judge: Callable[[NDArray[np.floating]], Floats]
    ) -> Floats:
        values = MapShape(*self.network.image).size
        if features.ndim != 2 or features.shape[1] != values:
            raise DataError(
                f"features are {list(features.shape)}; this model wants [n, {values}]: images of "
                f"shape {self.network.image}, flattened"
            )
        found = np.empty((len(features), len(self.classes)))
        for rows, part in self.network.row_blocks(self.banks, features):
            found[part] = judge(self.head.rows.scaled(rows))
        return found

    def save(self, path: Path, card: dict[str, Any]) -> None:
        """Write the head as it writes itself, with the filters; the card gains `layers`."""
        added, tensors = self.head.parts()
        parts: dict[str, Floats | Integers] = dict(tensors)
        for index, bank in enumerate(self.banks):
            parts[f"filters.{index}"], parts[f"bias.{index}"] = bank.weights, bank.bias
        whole_card = card | added | {"layers": msgspec.to_builtins(self.network)}
        save_weights(path, self.weights, self.classes, whole_card, **parts)

    @classmethod
    def load(cls, path: Path) -> tuple["LayeredModel", dict[str, Any]]:
        """Read a saved model and its card.

        Raises:
            DataError: damaged or foreign files.
        """
        head, card = LinearModel.load(path)
        try:
            network = msgspec.convert(card["layers"], LayeredNetwork)
            tensors = load_file(path)
            banks = []
            for index, count in enumerate(network.counts):
                bank = FilterBank(tensors[f"filters.{index}"], tensors[f"bias.{index}"])
                bank.check(network.layer(index), count)
                banks.append(bank)
            if not banks or len(head.weights) != network.width:
                raise DataError(f"a head of {len(head.weights)} features")
        except (KeyError, ValueError, SafetensorError, ConfigError, DataError) as error:
            raise DataError(f"{path} is damaged, or another kind of model: {error}") from None
        return cls(network, tuple(banks), head), card


def add_up(vectors: Iterator[Integers]) -> Integers:
    """Add int64 vectors, at least one."""
    total = next(vectors).copy()
    for vector in vectors:
        total += vector
    return total
