"""A network of one hidden layer on features, as one flat parameter vector. Needs torch."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from secure_afl.analytic.quantise import MAX_BITS, Floats, Quantiser, RowMode
from secure_afl.checks import settle_int
from secure_afl.errors import DataError
from secure_afl.methods.method import Task
from secure_afl.methods.model import Model, load_weights, save_weights
from secure_afl.methods.networks.architecture import Inputs
from secure_afl.methods.networks.embedding import Embedding

if TYPE_CHECKING:
    import torch

MAX_WIDTH = 65_536


class Mlp(Embedding, frozen=True, tag="mlp"):
    """A linear layer, ReLU and a linear layer, on rows of norm ≤ 1.

    Attributes:
        units: of the hidden layer, 1 to 65,536.
    """

    units: int = 128

    def __post_init__(self) -> None:
        settle_int(self, "units", 1, MAX_WIDTH)

    def initial(self, task: Task, rng: np.random.Generator) -> Floats:
        """Draw normal weights of variance 2 / fan-in, and biases of 0.

        He et al., ICCV 2015, eq. 10; but a row has norm ≤ 1 and not √d, so that the first layer's
        fan-in counts as 1.
        """
        classes = len(task.classes)
        first = math.sqrt(2) * rng.standard_normal(self.units * task.feature_dim)
        last = math.sqrt(2 / self.units) * rng.standard_normal(classes * self.units)
        return np.concatenate([first, np.zeros(self.units), last, np.zeros(classes)])

    def inputs(self, task: Task, features: NDArray[np.floating]) -> Inputs:
        """Scale rows to norm ≤ 1 by the task's quantiser: (n, d) float32.

        Raises:
            DataError: a NaN, an infinity, or a row whose norm overflows, naming the row.
        """
        return task.quantiser.scaled(features).astype(np.float32)

    def width(self, task: Task) -> int:
        """Return the number of hidden units."""
        return self.units

    def hidden(
        self, vector: "torch.Tensor", inputs: "torch.Tensor"
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Return the hidden layer behind its ReLU, (n, units)."""
        size = self.units * inputs.shape[1]
        weight, bias, last = vector.tensor_split((size, size + self.units))
        return (inputs @ weight.view(self.units, -1).T + bias).relu(), last

    def model(self, task: Task, parameters: Floats) -> "MlpModel":
        """Return the classifier, which scales rows as the task's quantiser does."""
        return MlpModel(self, parameters, task.classes, task.quantiser.of_floats)


class _Card(msgspec.Struct, frozen=True, omit_defaults=True):
    units: int
    row_mode: RowMode
    clip: float
    bits: int = MAX_BITS


@dataclass(frozen=True, eq=False)
class MlpModel(Model):
    """A trained network of one hidden layer.

    Attributes:
        architecture: its hidden units.
        weights: (p,) float64, all parameters.
        classes: names of the C classes.
        quantiser: how rows are scaled.
    """

    architecture: Mlp
    weights: Floats
    classes: tuple[str, ...]
    quantiser: Quantiser

    def __repr__(self) -> str:
        return f"<MlpModel of {self.architecture.units} units, {len(self.classes)} classes>"

    def scores(self, features: NDArray[np.floating]) -> Floats:
        """Score rows (n, d): (n, C) float64.

        Raises:
            DataError: another d than the model's, or a row that is not finite.
        """
        units, classes = self.architecture.units, len(self.classes)
        dim = (len(self.weights) - units - classes * (units + 1)) // units
        if features.ndim != 2 or features.shape[1] != dim:
            raise DataError(f"features are {list(features.shape)}; this model wants [n, {dim}]")
        rows = self.quantiser.scaled(features).astype(np.float32)
        return self.architecture.scores(self.weights, rows)

    def save(self, path: Path, card: dict[str, Any]) -> None:
        """Write the model and its card, which gains `mlp`."""
        rows = self.quantiser
        own = _Card(self.architecture.units, rows.mode, rows.clip, rows.bits)
        save_weights(path, self.weights, self.classes, card | {"mlp": msgspec.to_builtins(own)})

    @classmethod
    def load(cls, path: Path) -> tuple["MlpModel", dict[str, Any]]:
        """Read a saved model and its card.

        Raises:
            DataError: damaged or foreign files.
        """
        weights, classes, card = load_weights(path, axes=1)
        try:
            own = msgspec.convert(card["mlp"], _Card)
        except (KeyError, msgspec.ValidationError):
            raise DataError(f"{path} is no saved mlp: its card has no hidden units") from None
        rows = Quantiser(own.bits, own.row_mode, own.clip)
        return cls(Mlp(own.units), weights, classes, rows), card
