"""A small convolutional network on images, as one flat parameter vector. Needs torch."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from secure_afl.analytic.layers.maps import image_shape
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import check_finite
from secure_afl.errors import DataError
from secure_afl.methods.method import Task
from secure_afl.methods.model import Model, load_weights, save_weights
from secure_afl.methods.networks.architecture import Inputs
from secure_afl.methods.networks.embedding import Embedding

if TYPE_CHECKING:
    import torch

_KERNEL = 3
_LEAST_SIDE = 4
# Images scored at a time, so that memory does not grow with their number.
_BATCH = 512

# Height, width and channels, in the order of a flattened image's axes.
ImageShape = tuple[int, int, int]


class ConvNet(Embedding, frozen=True, tag="convnet"):
    """Two convolutions, each with ReLU and 2 × 2 max-pooling, and a linear layer.

    The convolutions are 3 × 3.

    ReLU and pooling follow each convolution.

    A row is an image flattened in the order (height, width, channels), as the backbone `identity`
    flattens it. Every image is standardised by its own mean and deviation: that needs no statistics
    of anybody's data, and makes brightness and contrast irrelevant.

    Attributes:
        image_shape: (height, width, channels), sides ≥ 4; by default that of a square image,
            grey if the number of features is a square, coloured if a third of it is.
        widths: channels after each convolution.
    """

    images = True
    image_shape: ImageShape | None = None
    widths: tuple[int, int] = (16, 32)

    def initial(self, task: Task, rng: np.random.Generator) -> Floats:
        """Draw normal weights of variance 2 / fan-in, and biases of 0.

        He et al., ICCV 2015, eq. 10.
        """
        parts = []
        for shape in self._shapes(task):
            # A kernel's first axis is that of its outputs; all others feed one output.
            deviation = math.sqrt(2 / math.prod(shape[1:])) if len(shape) > 1 else 0.0
            parts.append(deviation * rng.standard_normal(math.prod(shape)))
        return np.concatenate(parts)

    def inputs(self, task: Task, features: NDArray[np.floating]) -> Inputs:
        """Turn (n, d) into standardised images, float32 (n, channels, height, width)."""
        return _images(features, self.shape(task.feature_dim))

    def width(self, task: Task) -> int:
        """Return the number of values of the last maps, flattened."""
        height, width, _ = self.shape(task.feature_dim)
        return self.widths[1] * (height // 4) * (width // 4)

    def model(self, task: Task, parameters: Floats) -> "ConvNetModel":
        """Return a ConvNet model whose image shape is resolved from the task.

        Raises:
            ConfigError: the task's rows are not images of this architecture.
        """
        shape = self.shape(task.feature_dim)
        return ConvNetModel(ConvNet(shape, self.widths), parameters, task.classes)

    def shape(self, feature_dim: int) -> ImageShape:
        """Return (height, width, channels) of an image with so many pixel values.

        Raises:
            ConfigError: rows of that length are not images of this architecture.
        """
        return image_shape(feature_dim, self.image_shape, _LEAST_SIDE)

    def _shapes(self, task: Task) -> list[tuple[int, ...]]:
        channels = self.shape(task.feature_dim)[2]
        first, second = self.widths
        flat, classes = self.width(task), len(task.classes)
        return [
            *((first, channels, _KERNEL, _KERNEL), (first,)),
            *((second, first, _KERNEL, _KERNEL), (second,)),
            *((classes, flat), (classes,)),
        ]

    def hidden(
        self, vector: "torch.Tensor", inputs: "torch.Tensor"
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Map (p,) and (n, channels, h, w), both float32, to the last maps, flattened."""
        import torch
        from torch.nn.functional import conv2d, max_pool2d

        channels = inputs.shape[1]
        kernel = _KERNEL * _KERNEL
        first, second = self.widths
        sizes = [first * channels * kernel, first, second * first * kernel, second]
        parts = torch.split_with_sizes(vector, [*sizes, len(vector) - sum(sizes)])
        weight1, bias1, weight2, bias2, head = parts
        hidden = conv2d(inputs, weight1.view(first, channels, _KERNEL, _KERNEL), bias1, padding=1)
        hidden = max_pool2d(hidden.relu(), 2)
        hidden = conv2d(hidden, weight2.view(second, first, _KERNEL, _KERNEL), bias2, padding=1)
        return max_pool2d(hidden.relu(), 2).flatten(1), head


@dataclass(frozen=True, eq=False)
class ConvNetModel(Model):
    """A trained ConvNet.

    Attributes:
        architecture: with its image shape.
        weights: (p,) float64, all parameters.
        classes: names of the C classes.
    """

    architecture: ConvNet
    weights: Floats
    classes: tuple[str, ...]

    def scores(self, features: NDArray[np.floating]) -> Floats:
        """Score flattened images (n, d) by torch, 512 at a time: (n, C) float64.

        Raises:
            DataError: d is not height · width · channels of the model, or a row is not finite.
        """
        shape = self.architecture.image_shape
        assert shape is not None, "a model knows its image shape"
        if features.ndim != 2 or features.shape[1] != math.prod(shape):
            raise DataError(
                f"features are {list(features.shape)}; this model wants [n, {math.prod(shape)}]: "
                f"images of shape {shape}, flattened"
            )
        check_finite(features)
        starts = range(0, len(features), _BATCH)
        blocks = (_images(features[start : start + _BATCH], shape) for start in starts)
        return np.concatenate([self.architecture.scores(self.weights, b) for b in blocks])

    def save(self, path: Path, card: dict[str, Any]) -> None:
        """Write the model and its card, which gains `architecture`."""
        architecture = {
            "image_shape": self.architecture.image_shape,
            "widths": self.architecture.widths,
        }
        save_weights(path, self.weights, self.classes, card | {"architecture": architecture})

    @classmethod
    def load(cls, path: Path) -> tuple["ConvNetModel", dict[str, Any]]:
        """Read a saved model and its card.

        Raises:
            DataError: damaged or foreign files.
        """
        weights, classes, card = load_weights(path, axes=1)
        try:
            shape, widths = msgspec.convert(
                [card["architecture"]["image_shape"], card["architecture"]["widths"]],
                tuple[ImageShape, tuple[int, int]],
            )
        except (KeyError, TypeError, msgspec.ValidationError):
            raise DataError(f"{path} is no saved ConvNet: its card has no architecture") from None
        return cls(ConvNet(shape, widths), weights, classes), card


def _images(features: NDArray[np.floating], shape: ImageShape) -> NDArray[np.float32]:
    rows = features.astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    deviation = rows.std(axis=1, keepdims=True)
    # An image of one colour has no deviation; it stays zero.
    rows /= np.where(deviation > 0, deviation, 1.0)
    images = rows.reshape(-1, *shape).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images, dtype=np.float32)
