"""Networks that end in a linear layer on an embedding. They need torch."""

from abc import abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.methods.method import Task
from secure_afl.methods.networks.architecture import Architecture, Inputs

if TYPE_CHECKING:
    import torch

# Rows scored at a time, so that memory does not grow with their number.
_BATCH = 512


class Embedded(NamedTuple):
    """Rows behind all layers but the last, and the last layer.

    Attributes:
        rows: z, (n, e).
        weight: W, (C, e).
        bias: b, (C,).
    """

    rows: "torch.Tensor"
    weight: "torch.Tensor"
    bias: "torch.Tensor"

    @property
    def scores(self) -> "torch.Tensor":
        """Wz + b, (n, C)."""
        return self.rows @ self.weight.T + self.bias


class Embedding(Architecture, frozen=True):
    """Base of networks whose scores are linear in an embedding of width e.

    The last C·e + C parameters are the weights of the last layer, (C, e), and its biases.
    """

    @abstractmethod
    def width(self, task: Task) -> int:
        """Return e, the embedding's number of values."""

    @abstractmethod
    def hidden(
        self, vector: "torch.Tensor", inputs: "torch.Tensor"
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Map inputs to embeddings (n, e); return the last layer's parameters too, flat.

        Args:
            vector: (p,) float32, all parameters.
            inputs: of n rows, float32.
        """

    def embedded(self, vector: "torch.Tensor", inputs: "torch.Tensor") -> Embedded:
        """Embed rows; differentiable in `vector`."""
        rows, last = self.hidden(vector, inputs)
        classes = len(last) // (rows.shape[1] + 1)
        return Embedded(rows, last[:-classes].view(classes, -1), last[-classes:])

    def gradient(self, parameters: Floats, inputs: Inputs, labels: Integers) -> Floats:
        """Differentiate mean cross-entropy by torch in float32; return (p,) float64."""
        import torch

        vector = torch.tensor(parameters, dtype=torch.float32, requires_grad=True)
        scores = self.embedded(vector, torch.from_numpy(inputs)).scores
        loss = torch.nn.functional.cross_entropy(scores, torch.tensor(labels))
        (gradient,) = torch.autograd.grad(loss, vector)
        return gradient.numpy().astype(np.float64)

    def scores(self, parameters: Floats, inputs: Inputs) -> Floats:
        """Score rows, 512 at a time: (n, C) float64."""
        import torch

        vector = torch.tensor(parameters, dtype=torch.float32)
        parts = []
        with torch.inference_mode():
            for start in range(0, len(inputs), _BATCH):
                block = torch.from_numpy(inputs[start : start + _BATCH])
                parts.append(self.embedded(vector, block).scores.numpy())
        return np.concatenate(parts).astype(np.float64)
