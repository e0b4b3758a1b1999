"""FedACnnL's network with parameters that gradients train: the baseline's architecture."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from protocols.layout import Integers
from secure_afl.analytic.layers.maps import standardised
from secure_afl.analytic.quantise import Floats
from secure_afl.methods.method import Task
from secure_afl.methods.model import Model
from secure_afl.methods.networks.architecture import Architecture, Inputs

_BATCH = 512


class LayerNet(Architecture, frozen=True, tag="layernet"):
    """One convolution, relu of responses and of their negatives, 2 × 2 max pooling, means, linear.

    Attributes:
        image: (height, width, channels).
        kernel, filters, grid: as FedACnnL's kernel, filter_count and regions.
    """

    images = True
    image: tuple[int, int, int] = (8, 8, 1)
    kernel: int = 3
    filters: int = 16
    grid: int = 4

    def initial(self, task: Task, rng: np.random.Generator) -> Floats:
        """Normal weights of variance 2 / fan-in, biases and linear layer of 0."""
        patch = self.kernel**2 * self.image[2]
        weights = math.sqrt(2 / patch) * rng.standard_normal(self.filters * patch)
        rest = self.filters + len(task.classes) * (self._width + 1)
        return np.concatenate([weights, np.zeros(rest)])

    def inputs(self, task: Task, features: NDArray[np.floating]) -> Inputs:
        """Standardised images, float32 (n, channels, height, width)."""
        images = standardised(features).reshape(-1, *self.image).transpose(0, 3, 1, 2)
        return np.ascontiguousarray(images, dtype=np.float32)

    def gradient(self, parameters: Floats, inputs: Inputs, labels: Integers) -> Floats:
        """By torch in float32."""
        vector = torch.tensor(parameters, dtype=torch.float32, requires_grad=True)
        scores = self.scores(vector, torch.from_numpy(inputs))
        loss = functional.cross_entropy(scores, torch.tensor(labels))
        (gradient,) = torch.autograd.grad(loss, vector)
        return gradient.numpy().astype(np.float64)

    def model(self, task: Task, parameters: Floats) -> "LayerNetModel":
        return LayerNetModel(self, parameters, task.classes, task)

    @property
    def _width(self) -> int:
        grid = min(self.grid, self.image[0] // 2, self.image[1] // 2)
        return 2 * self.filters * grid**2

    def scores(self, vector: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        channels, kernel = self.image[2], self.kernel
        sizes = [self.filters * channels * kernel**2, self.filters]
        weights, bias, head = torch.split_with_sizes(vector, [*sizes, len(vector) - sum(sizes)])
        shaped = weights.view(self.filters, channels, kernel, kernel)
        responses = functional.conv2d(images, shaped, bias, padding=kernel // 2)
        maps = functional.max_pool2d(torch.cat([responses.relu(), (-responses).relu()], 1), 2)
        grid = min(self.grid, *maps.shape[2:])
        seen = functional.adaptive_avg_pool2d(maps, grid).flatten(1)
        classes = len(head) // (seen.shape[1] + 1)
        return functional.linear(seen, head[:-classes].view(classes, -1), head[-classes:])


@dataclass(frozen=True, eq=False)
class LayerNetModel(Model):
    """A trained LayerNet."""

    architecture: LayerNet
    weights: Floats
    classes: tuple[str, ...]
    task: Task

    def scores(self, features: NDArray[np.floating]) -> Floats:
        vector = torch.tensor(self.weights, dtype=torch.float32)
        parts = []
        with torch.inference_mode():
            for start in range(0, len(features), _BATCH):
                images = self.architecture.inputs(self.task, features[start : start + _BATCH])
                scored = self.architecture.scores(vector, torch.from_numpy(images))
                parts.append(scored.numpy().astype(np.float64))
        return np.concatenate(parts)

    def save(self, path: Path, card: dict[str, Any]) -> None:
        raise NotImplementedError("a baseline of a benchmark")
