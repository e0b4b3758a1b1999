"""A saved model at work: score it on labelled data, or predict."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocols.roster import Roster
from secure_afl.analytic.priors import Prior
from secure_afl.analytic.rows import ClientData
from secure_afl.data import dataset as data
from secure_afl.data import files as data_files
from secure_afl.data.classes import check_numbering
from secure_afl.data.ids import parse_ids
from secure_afl.data.mapping import Mapping, shorten
from secure_afl.data.tables.design import Design
from secure_afl.errors import ConfigError, DataError
from secure_afl.evaluation.figures import Figures
from secure_afl.evaluation.models import evaluate_model, under_priors
from secure_afl.evaluation.numeric import NumericFigures
from secure_afl.features.backbone import Backbone, parse_backbone
from secure_afl.features.cache import FeatureCache, default_path
from secure_afl.features.table import TABLE, design_behind, table_backbone
from secure_afl.federation.numeric_scores import measure_model
from secure_afl.methods import artefact
from secure_afl.methods.model import LinearModel, Model, load_weights
from secure_afl.methods.networks.convnet import ConvNetModel
from secure_afl.methods.networks.layered import LayeredModel
from secure_afl.methods.networks.mlp import MlpModel
from secure_afl.methods.regression_model import KEY, RegressionModel
from secure_afl.progress import Progress

log = logging.getLogger("secure_afl")

# Models that are not linear, by what their cards have.
_Kinds = type[ConvNetModel] | type[LayeredModel] | type[MlpModel] | type[RegressionModel]
_KINDS: dict[str, _Kinds] = {
    "architecture": ConvNetModel,
    "layers": LayeredModel,
    "mlp": MlpModel,
    KEY: RegressionModel,
}
# The global model's name in the folder of a run.
MODEL = "model.safetensors"


class Evaluation(msgspec.Struct, frozen=True):
    """The performance of a model on a labelled data set.

    Attributes:
        examples: rows scored.
        accuracy: share of right predictions, 0 to 1, under the first prior of `results`.
        per_class: class to share of its own examples that are predicted right; classes without
            examples are left out.
        results: figures with intervals, under the prior in use first and then under others.
        numeric: figures of a model that predicts a number, which has none of the others.
    """

    examples: int
    accuracy: float | None
    per_class: dict[str, float]
    results: tuple[Figures, ...]
    numeric: NumericFigures | None = None


class MadeBy(msgspec.Struct, frozen=True):
    """A card's description of its backbone."""

    spec: str
    digest: str
    image_size: int | None
    seed: int


class Prediction(NamedTuple):
    """One example: where it came from, its class, and what the model says of every class.

    Attributes:
        predicted: name of the class; None for a table's row with a missing value, of which the
            model says nothing: its score is None too, and `scores` are empty.
        score: of the predicted class: its probability, or its score where there is none.
        scores: of all classes: log-odds over the temperature where there are probabilities, else
            scores. They do not grow with the length of the row.
        probabilities: of all classes; None for a model without.
    """

    example: str
    predicted: str | None
    score: float | None
    scores: tuple[float, ...]
    probabilities: tuple[float, ...] | None


class SavedModel(NamedTuple):
    """A model with the backbone that its card names.

    Attributes:
        about: how the model was made, by its card: names and values for people.
    """

    model: Model
    backbone: Backbone
    about: tuple[tuple[str, str], ...] = ()

    @property
    def design(self) -> Design | None:
        """What the model's rows are made by, where they are those of tables."""
        return design_behind(self.backbone)


def load_model(
    path: Path, checkpoint: Path | None = None, roster: Roster | None = None
) -> SavedModel:
    """Load a saved model, and its backbone from the card; `checkpoint` as in training.

    Args:
        path: of the model, or of the folder that a run made.
        roster: that the signer of the model has to be on; without it, nobody has to have signed.

    Raises:
        ConfigError: a checkpoint for a model of tables.
        DataError: damaged or changed files, a backbone whose digest is not the card's, or a signer
            who is not on the roster.
    """
    if path.is_dir():
        path = path / MODEL
    model, card = _load(path)
    if roster is not None:
        artefact.check_signer(path, msgspec.convert(card, artefact.Card), roster)
    try:
        made_by = msgspec.convert(card["backbone"], MadeBy)
    except (KeyError, msgspec.ValidationError):
        raise DataError(f"the card of {path} does not say which backbone made it") from None
    if made_by.spec == TABLE:
        if checkpoint is not None:
            raise ConfigError(
                f"--checkpoint {checkpoint} with a model of tables, which has none; leave it out"
            )
        backbone = table_backbone(Design.of_card(card.get("table")))
    else:
        backbone = parse_backbone(
            made_by.spec, checkpoint, made_by.image_size, made_by.seed, default_path()
        )
    if backbone.digest.hex() != made_by.digest:
        raise DataError(
            f"backbone {made_by.spec!r} has digest {backbone.digest.hex()[:16]}…, the card of "
            f"{path} has {made_by.digest[:16]}…; give the --checkpoint that the model was made with"
        )
    return SavedModel(model, backbone, _about(card))


def _about(card: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Say what a card tells of a model's making; nothing of what an old card lacks."""
    found = {name: str(card[name]) for name in ("method", "protocol") if card.get(name)}
    if "cohort" in card:
        found["sites in the sum"] = str(card["cohort"])
    if "privacy" in card:
        promise = card["privacy"]
        found["privacy"] = (
            "none promised"
            if promise is None
            else f"ε = {promise['epsilon']:g}, δ = {promise['delta']:g}, unit {promise['unit']}"
        )
    if "signature" in card:
        found["signed by"] = str(card["signature"]["name"])
    return tuple(found.items())


def _load(path: Path) -> tuple[Model, dict[str, Any]]:
    _, _, card = load_weights(path)
    for key, kind in _KINDS.items():
        if key in card:
            return kind.load(path)
    return LinearModel.load(path)


def evaluate(
    saved: SavedModel,
    path: str,
    split: str,
    progress: Progress | None,
    mapping: Mapping | None = None,
    id: str | None = None,
    *,
    prior: Prior | None = None,
    sensitive_to: str | None = None,
    sensitivity: float = 0.95,
) -> Evaluation:
    """Score a model on a folder, .npz or table of labelled examples.

    Args:
        mapping: of names to the model's; not of tables, whose categories are the dictionary's.
        id: where examples say whose they are: a table's column, else as `parse_ids` takes it.
        prior: the class shares to count on; by default those in the card.
        sensitive_to, sensitivity: as `evaluate_model`.

    Raises:
        DataError, ConfigError: examples of a class that the model does not know, a prior that the
            model cannot have, no such class, or a setting without effect.
    """
    if saved.model.numeric:
        _check_classless(prior, sensitive_to)
        return _evaluate_number(saved, path, split, progress, mapping, id)
    models = under_priors(saved.model, prior)
    if sensitive_to is not None and sensitive_to not in saved.model.classes:
        raise ConfigError(f"no class {sensitive_to!r}; allowed: {', '.join(saved.model.classes)}")
    found = _labelled(saved, path, split, mapping, id)
    check_numbering({"the model": saved.model.classes, path: found.classes})
    (dataset,) = data.align([found], saved.model.classes)
    rows = ClientData.of(dataset, _features(saved, path, dataset, progress), "test")
    results = tuple(
        evaluate_model(model, rows, prior=name, sensitive_to=sensitive_to, sensitivity=sensitivity)
        for name, model in models.items()
    )
    first = results[0]
    per_class = {
        figures.name: figures.sensitivity.value
        for figures in first.classes
        if figures.sensitivity is not None
    }
    return Evaluation(first.examples, first.accuracy.value, per_class, results)


def _evaluate_number(
    saved: SavedModel,
    path: str,
    split: str,
    progress: Progress | None,
    mapping: Mapping | None,
    id: str | None,
) -> Evaluation:
    """Score a model that predicts a number, in the target's own unit."""
    dataset = _labelled(saved, path, split, mapping, id)
    if dataset.targets is None:
        raise DataError(f"{path} has no column of numbers {saved.model.classes[0]!r} to compare")
    rows = ClientData.of(dataset, _features(saved, path, dataset, progress), "test")
    columns = saved.model.columns if isinstance(saved.model, RegressionModel) else None
    return Evaluation(len(rows), None, {}, (), measure_model(saved.model, columns, rows))


def _labelled(
    saved: SavedModel, path: str, split: str, mapping: Mapping | None, id: str | None
) -> data.Dataset:
    """Load labelled examples; of a table, by the column of ids and no mapping."""
    design = saved.design
    if design is None:
        return data_files.load(path, split, mapping, parse_ids(id))
    if mapping is not None:
        raise ConfigError(
            "--mapping with a model of tables, whose dictionary declares the categories; correct "
            "the cells, or leave it out"
        )
    return data_files.load(path, design=design if id is None else design.with_id(id))


def _check_classless(prior: Prior | None, sensitive_to: str | None) -> None:
    """Refuse what is of classes, with a model that predicts a number."""
    for flag, value in (("--prior", prior), ("--sensitive-to", sensitive_to)):
        if value is not None:
            shown = f" {value}" if isinstance(value, str) else ""
            raise ConfigError(f"{flag}{shown} with a model that predicts a number; leave it out")


def predict(
    saved: SavedModel,
    path: str,
    split: str,
    progress: Progress | None,
    prior: Prior | None = None,
) -> Iterator[Prediction]:
    """Yield predictions for an image, a folder of images, a table or an .npz, in order.

    Of a model that predicts a number, `score` is the number and `predicted` the target's name. Of
    a table every row has a prediction in its place, if only one without a class.

    Raises:
        DataError, ConfigError: a prior that the model cannot have.
    """
    model = next(iter(under_priors(saved.model, prior).values()))
    dataset = data_files.load_unlabelled(path, split, saved.design)
    features = _features(saved, path, dataset, progress)
    scores = model.comparable(features)
    shares = model.probabilities(features) if model.has_probabilities else None
    rows = iter(range(len(dataset)))
    for example, there in _examples(dataset):
        if not there:
            yield Prediction(example, None, None, (), None)
            continue
        index = next(rows)
        row, own = scores[index], None if shares is None else tuple(shares[index].tolist())
        best = int(np.argmax(row))
        yield Prediction(
            example,
            model.classes[best],
            float(row[best]) if own is None else own[best],
            tuple(row.tolist()),
            own,
        )


def _examples(dataset: data.Dataset) -> Iterator[tuple[str, bool]]:
    """Yield each example's name, and whether it is in the data set or was left out, in order."""
    if isinstance(dataset.examples, tuple):
        yield from ((str(file), True) for file in dataset.examples)
        return
    table = None if dataset.origin is None else dataset.origin.table
    dropped = {row.place for row in (() if table is None else table.dropped)}
    for place in range(len(dataset) + len(dropped)):
        yield str(place), place not in dropped


def _features(
    saved: SavedModel, path: str, dataset: data.Dataset, progress: Progress | None
) -> NDArray[np.floating]:
    """Return a data set's features, (n, d); says what a dictionary left out of it, and cut."""
    table = None if dataset.origin is None else dataset.origin.table
    if table is not None:
        for name, count in table.cut:
            log.warning("%s: %d values of %r are out of range and cut to it", path, count, name)
        if count := len(table.dropped):
            log.warning(
                "%s: %d rows are left out, for a value is missing: %s %s",
                path,
                count,
                "line" if count == 1 else "lines",
                shorten(tuple(str(row.line) for row in table.dropped)),
            )
    return saved.backbone.extract(dataset, FeatureCache(default_path()), progress)
