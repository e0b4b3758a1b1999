"""The model of a regression: a number for each row, in the target's own unit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from protocols.layout import Integers
from secure_afl.analytic.quantise import MAX_BITS, Floats, Quantiser, RowMode
from secure_afl.analytic.rows import check_finite
from secure_afl.data.columns import Columns
from secure_afl.errors import ConfigError, DataError
from secure_afl.methods.model import UNIT_ROWS, Model, load_weights, save_weights

# The key of a card by which this kind of model is known.
KEY = "regression"


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A card's account of what the weights multiply, and of what they predict."""

    mode: RowMode
    clip: float
    columns: Columns | None = None
    bits: int = MAX_BITS


@dataclass(frozen=True, eq=False)
class RegressionModel(Model):
    """A number that is predicted of feature rows: features times weights, and an offset.

    Attributes:
        weights: (d, 1) float64, in the target's own unit.
        classes: the target's name, one.
        offset: in the target's own unit.
        rows: how rows are brought to norm ≤ 1.
        columns: what the features are, where rows are those of a table.
    """

    weights: Floats
    classes: tuple[str, ...]
    offset: float = 0.0
    rows: Quantiser = UNIT_ROWS
    columns: Columns | None = None

    def __repr__(self) -> str:
        return f"<RegressionModel of {self.classes[0]}, {len(self.weights)} features>"

    @property
    def numeric(self) -> bool:
        """Scores are numbers in the target's own unit."""
        return True

    def scores(self, features: NDArray[np.floating]) -> Floats:
        """Predict the number of each row, (n, d) to (n, 1) float64.

        Raises:
            DataError: d is not the model's width, or a row is not finite.
        """
        if features.ndim != 2 or features.shape[1] != len(self.weights):
            raise DataError(
                f"features are {list(features.shape)}; this model wants [n, {len(self.weights)}]: "
                "give the columns that its card names"
            )
        check_finite(features)
        scores: Floats = self.rows.scaled(features) @ self.weights + self.offset
        return scores

    def predict(self, features: NDArray[np.floating]) -> Integers:
        """Refuse: there are no classes.

        Raises:
            DataError: always.
        """
        raise DataError(f"this model predicts a number, {self.classes[0]}: ask for its scores")

    def save(self, path: Path, card: dict[str, Any]) -> None:
        """Write tensors `weights` and `offset`, and the card, which says what the columns are."""
        kept = _Kept(self.rows.mode, self.rows.clip, self.columns, self.rows.bits)
        added = {KEY: msgspec.to_builtins(kept)}
        offset = np.array([self.offset])
        save_weights(path, self.weights, self.classes, card | added, offset=offset)

    @classmethod
    def load(cls, path: Path) -> tuple["RegressionModel", dict[str, Any]]:
        """Read a saved model and its card.

        Raises:
            DataError: damaged or foreign files.
        """
        weights, classes, card = load_weights(path, axes=2)
        try:
            offset = load_file(path)["offset"].astype(np.float64)
            kept = msgspec.convert(card[KEY], _Kept)
            rows = Quantiser(kept.bits, kept.mode, kept.clip)
        except (KeyError, msgspec.ValidationError, ConfigError) as error:
            raise DataError(f"{path} is damaged, or another kind of model: {error}") from None
        columns = kept.columns
        wide = columns is not None and len(columns.columns) != len(weights)
        if weights.shape[1:] != (1,) or len(classes) != 1 or offset.shape != (1,) or wide:
            raise DataError(
                f"{path} has weights {list(weights.shape)} for {len(classes)} targets, and an "
                f"offset {list(offset.shape)}; it is damaged, or another kind of model"
            )
        return cls(weights, classes, float(offset[0]), rows, columns), card
