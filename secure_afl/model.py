"""The models that a federation yields; the usual one is linear over frozen features."""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from protocols.layout import Integers
from secure_afl.errors import DataError
from secure_afl.quantise import Floats

FORMAT_VERSION = 1


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
        """(n, d) features to (n, C) scores. Raises DataError for another width."""

    @abstractmethod
    def save(self, path: Path, card: dict[str, Any]) -> None:
        """Write `path` (safetensors) and its card beside it (`.json`).

        The card gains `format_version` and `classes`; it should say what the weights are for and
        how they were made.
        """

    def predict(self, features: NDArray[np.floating]) -> Integers:
        """(n, d) features to (n,) class indices."""
        predicted: Integers = self.scores(features).argmax(axis=1).astype(np.int64)
        return predicted

    def accuracy(self, features: NDArray[np.floating], labels: Integers) -> float:
        """Share of rows whose prediction is their label, 0 to 1."""
        return float((self.predict(features) == labels).mean())


@dataclass(frozen=True, eq=False)
class LinearModel(Model):
    """Scores are features times weights; the prediction is the class of the highest score.

    Rows need no scaling before they are scored: a row's length changes all its scores alike.

    Attributes:
        weights: (d, C) float64.
        classes: names of the C classes.
    """

    weights: Floats
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<LinearModel {len(self.weights)} features, {len(self.classes)} classes>"

    def scores(self, features: NDArray[np.floating]) -> Floats:
        """(n, d) features to (n, C) scores. Raises DataError for another width."""
        if features.ndim != 2 or features.shape[1] != len(self.weights):
            raise DataError(
                f"features are {list(features.shape)}; this model wants [n, {len(self.weights)}]: "
                "use the backbone that its card names"
            )
        scores: Floats = features.astype(np.float64, copy=False) @ self.weights
        return scores

    def save(self, path: Path, card: dict[str, Any]) -> None:
        save_weights(path, self.weights, self.classes, card)

    @classmethod
    def load(cls, path: Path) -> tuple["LinearModel", dict[str, Any]]:
        """A saved model and its card. Raises DataError for damaged or foreign files."""
        weights, classes, card = load_weights(path, axes=2)
        if weights.shape[1] != len(classes):
            raise DataError(f"{path} has weights {list(weights.shape)} for {len(classes)} classes")
        return cls(weights, classes), card


def save_weights(
    path: Path, weights: Floats, classes: tuple[str, ...], card: dict[str, Any]
) -> None:
    """Write a model's weights (safetensors) and its card, as `Model.save` says."""
    save_file({"weights": np.ascontiguousarray(weights)}, path)
    card = card | {"format_version": FORMAT_VERSION, "classes": list(classes)}
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    path.with_suffix(".json").write_text(text, encoding="utf-8")


def load_weights(
    path: Path, axes: int | None = None
) -> tuple[Floats, tuple[str, ...], dict[str, Any]]:
    """The inverse of `save_weights`: weights, class names, card.

    Raises:
        DataError: damaged or foreign files, another format, or another number of axes than asked.
    """
    try:
        weights = load_file(path)["weights"]
        card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        version = card["format_version"]
        classes = msgspec.convert(card["classes"], tuple[str, ...])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a saved model with its card: {error}") from None
    if version != FORMAT_VERSION:
        raise DataError(f"{path} has format {version}; this version reads {FORMAT_VERSION}")
    if axes not in (None, weights.ndim) or not np.isfinite(weights).all():
        raise DataError(
            f"{path} has weights {list(weights.shape)}; wanted finite numbers, and {axes} axes: "
            "it is damaged, or another kind of model"
        )
    return weights.astype(np.float64), classes, card
