"""The models that a federation yields; the usual one is linear over frozen features."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from protocols.layout import Integers
from secure_afl.analytic.quantise import MAX_BITS, Floats, Quantiser
from secure_afl.analytic.rows import check_finite
from secure_afl.errors import DataError
from secure_afl.methods import artefact


class Model(ABC):
    """A classifier of feature rows; the prediction is the class of the highest score.

    Attributes:
        weights: all that was learned, float64.
        classes: names of the C classes.
    """

    weights: Floats
    classes: tuple[str, ...]

    @abstractmethod
    def scores(self, features: NDArray[np.floating]) -> Floats:
        """Score features (n, d): (n, C) float64.

        Raises:
            DataError: d is not the model's width, or a row is not finite.
        """

    @abstractmethod
    def save(self, path: Path, card: dict[str, Any]) -> None:
        """Write `path` (safetensors) and its card beside it (`.json`).

        The card gains `format_version`, `classes` and the digest over both files; it should say
        what the weights are for and how they were made.
        """

    def predict(self, features: NDArray[np.floating]) -> Integers:
        """Map (n, d) features to (n,) class indices."""
        predicted: Integers = self.scores(features).argmax(axis=1).astype(np.int64)
        return predicted

    def accuracy(self, features: NDArray[np.floating], labels: Integers) -> float:
        """Share of rows whose prediction is their label, 0 to 1."""
        return float((self.predict(features) == labels).mean())


@dataclass(frozen=True, eq=False)
class LinearModel(Model):
    """Scores are features times weights; the prediction is the class of the highest score.

    Rows need no scaling before they are scored: without an offset a row's length changes all its
    scores alike, and with one rows are brought to norm 1 here.

    Attributes:
        weights: (d, C) float64.
        classes: names of the C classes.
        offset: (C,) float64, subtracted from the scores of rows of norm 1; None for none. A model
            that was learned on reduced rows has one (`secure_afl.features.reduction`).
    """

    weights: Floats
    classes: tuple[str, ...]
    offset: Floats | None = None

    def __repr__(self) -> str:
        return f"<LinearModel {len(self.weights)} features, {len(self.classes)} classes>"

    def scores(self, features: NDArray[np.floating]) -> Floats:
        """Multiply features (n, d) by the weights: (n, C) float64, less any offset.

        Raises:
            DataError: d is not the model's width, or a row is not finite.
        """
        if features.ndim != 2 or features.shape[1] != len(self.weights):
            raise DataError(
                f"features are {list(features.shape)}; this model wants [n, {len(self.weights)}]: "
                "use the backbone that its card names"
            )
        check_finite(features)
        if self.offset is not None:
            # At any number of bits, what the quantiser approximates are rows of norm 1.
            shifted: Floats = Quantiser(MAX_BITS).scaled(features) @ self.weights - self.offset
            return shifted
        scores: Floats = features.astype(np.float64, copy=False) @ self.weights
        return scores

    def save(self, path: Path, card: dict[str, Any]) -> None:
        """Write tensors `weights` and, where there is one, `offset`; card beside them."""
        save_weights(path, self.weights, self.classes, card, self.offset)

    @classmethod
    def load(cls, path: Path) -> tuple["LinearModel", dict[str, Any]]:
        """Read a saved model and its card.

        Raises:
            DataError: damaged or foreign files.
        """
        weights, classes, card = load_weights(path, axes=2)
        if weights.shape[1] != len(classes):
            raise DataError(f"{path} has weights {list(weights.shape)} for {len(classes)} classes")
        offset = load_file(path).get("offset")
        if offset is None:
            return cls(weights, classes), card
        if offset.shape != (len(classes),) or not np.isfinite(offset).all():
            raise DataError(
                f"{path} has an offset {list(offset.shape)}; wanted {len(classes)} finite numbers: "
                "it is damaged, or another kind of model"
            )
        return cls(weights, classes, offset.astype(np.float64)), card


def save_weights(
    path: Path,
    weights: Floats,
    classes: tuple[str, ...],
    card: dict[str, Any],
    offset: Floats | None = None,
) -> None:
    """Write a model's weights and offset (safetensors) and its card, as `Model.save` says."""
    tensors = {"weights": weights} | ({} if offset is None else {"offset": offset})
    tensors = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    save_file(tensors, path)
    own = {"format_version": artefact.FORMAT_VERSION, "classes": list(classes)}
    artefact.write(path, artefact.bind(card | own, tensors))


def load_weights(
    path: Path, axes: int | None = None
) -> tuple[Floats, tuple[str, ...], dict[str, Any]]:
    """Load weights, class names, card: the inverse of `save_weights`.

    Raises:
        DataError: damaged or foreign files, files that were changed, another format, or another
            number of axes than asked.
    """
    try:
        card, tensors = artefact.read(path)
        classes = artefact.check(path, card, tensors).classes
        weights = tensors["weights"]
    except DataError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a saved model with its card: {error}") from None
    if axes not in (None, weights.ndim) or not np.isfinite(weights).all():
        raise DataError(
            f"{path} has weights {list(weights.shape)}; wanted finite numbers, and {axes} axes: "
            "it is damaged, or another kind of model"
        )
    return weights.astype(np.float64), classes, card
