"""A saved model at work: score it on labelled data, or predict."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from secure_afl.data import dataset as data
from secure_afl.data import files as data_files
from secure_afl.errors import DataError
from secure_afl.features.backbone import Backbone, parse_backbone
from secure_afl.features.cache import FeatureCache, default_path
from secure_afl.methods.model import LinearModel, Model, load_weights
from secure_afl.methods.networks.convnet import ConvNetModel
from secure_afl.methods.networks.layered import LayeredModel
from secure_afl.progress import Progress

# Models that are not linear, by what their cards have.
_KINDS: dict[str, type[ConvNetModel] | type[LayeredModel]] = {
    "architecture": ConvNetModel,
    "layers": LayeredModel,
}


class Evaluation(msgspec.Struct, frozen=True):
    """The performance of a model on a labelled data set.

    Attributes:
        examples: rows scored.
        accuracy: share of right predictions, 0 to 1.
        per_class: class to share of its own examples that are predicted right; classes without
            examples are left out.
    """

    examples: int
    accuracy: float
    per_class: dict[str, float]


class MadeBy(msgspec.Struct, frozen=True):
    """A card's description of its backbone."""

    spec: str
    digest: str
    image_size: int | None
    seed: int


class Prediction(NamedTuple):
    """One example: where it came from, its class, and that class's score."""

    example: str
    predicted: str
    score: float


class SavedModel(NamedTuple):
    """A model with the backbone that its card names."""

    model: Model
    backbone: Backbone


def load_model(path: Path, checkpoint: Path | None = None) -> SavedModel:
    """Load a saved model, and its backbone from the card; `checkpoint` as in training.

    Raises:
        DataError: damaged files, or a backbone whose digest is not the card's.
    """
    model, card = _load(path)
    try:
        made_by = msgspec.convert(card["backbone"], MadeBy)
    except (KeyError, msgspec.ValidationError):
        raise DataError(f"the card of {path} does not say which backbone made it") from None
    backbone = parse_backbone(made_by.spec, checkpoint, made_by.image_size, made_by.seed)
    if backbone.digest.hex() != made_by.digest:
        raise DataError(
            f"backbone {made_by.spec!r} has digest {backbone.digest.hex()[:16]}…, the card of "
            f"{path} has {made_by.digest[:16]}…; give the --checkpoint that the model was made with"
        )
    return SavedModel(model, backbone)


def _load(path: Path) -> tuple[Model, dict[str, Any]]:
    _, _, card = load_weights(path)
    for key, kind in _KINDS.items():
        if key in card:
            return kind.load(path)
    return LinearModel.load(path)


def evaluate(saved: SavedModel, path: str, split: str, progress: Progress | None) -> Evaluation:
    """Score a model on a folder or .npz of labelled examples."""
    (dataset,) = data.align([data_files.load(path, split)], saved.model.classes)
    features = saved.backbone.extract(dataset, FeatureCache(default_path()), progress)
    right = saved.model.predict(features) == dataset.labels
    per_class = {
        name: float(right[dataset.labels == index].mean())
        for index, name in enumerate(saved.model.classes)
        if (dataset.labels == index).any()
    }
    return Evaluation(len(dataset), float(right.mean()), per_class)


def predict(
    saved: SavedModel, path: str, split: str, progress: Progress | None
) -> Iterator[Prediction]:
    """Yield predictions for an image, a folder of images, or an .npz, in order."""
    dataset = data_files.load_unlabelled(path, split)
    features = saved.backbone.extract(dataset, FeatureCache(default_path()), progress)
    scores = saved.model.scores(features)
    for index, row in enumerate(scores):
        best = int(np.argmax(row))
        example = dataset.examples[index] if isinstance(dataset.examples, tuple) else index
        yield Prediction(str(example), saved.model.classes[best], float(row[best]))
