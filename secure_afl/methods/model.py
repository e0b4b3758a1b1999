"""The models that a federation yields; the usual one is linear over frozen features."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from protocols.layout import Integers
from secure_afl.analytic.heads.head import Fitted
from secure_afl.analytic.quantise import MAX_BITS, Floats, Quantiser, RowMode
from secure_afl.analytic.rows import check_finite
from secure_afl.errors import ConfigError, DataError
from secure_afl.features.reduction import Reduction
from secure_afl.methods import artefact

UNIT_ROWS = Quantiser(MAX_BITS)


class Model(ABC):
    """A classifier of feature rows; the prediction is the class of the highest score.

    Or, where it is `numeric`, a predictor of one number: its score, which no class is made of.

    Attributes:
        weights: all that was learned, float64.
        classes: names of the C classes; of the number alone for a numeric model.
        observed, prior: class shares (C,) as `LinearModel` has them; None where scores hold none.
    """

    weights: Floats
    classes: tuple[str, ...]
    observed: Floats | None = None
    prior: Floats | None = None

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
        """Map (n, d) features to (n,) class indices.

        Raises:
            DataError: the model is numeric.
        """
        predicted: Integers = self.scores(features).argmax(axis=1).astype(np.int64)
        return predicted

    @property
    def numeric(self) -> bool:
        """Whether scores (n, 1) are the prediction itself, in the target's own unit."""
        return False

    @property
    def has_prior(self) -> bool:
        """Whether scores hold the logarithm of a prior that may be exchanged."""
        return False

    @property
    def has_probabilities(self) -> bool:
        """Whether `probabilities` gives any."""
        return False

    def probabilities(self, features: NDArray[np.floating]) -> Floats:
        """Return the probability of each class, (n, C) float64.

        Raises:
            DataError: the model has none.
        """
        raise DataError("this model has no calibrated probabilities; use scores and predictions")

    def uncalibrated(self) -> "Model":
        """Return the model whose probabilities are those of temperature 1."""
        return self

    def with_prior(self, prior: Floats) -> "Model":
        """Return the model for other class shares, (C,) ≥ 0; they are brought to sum 1.

        Raises:
            DataError: scores of this model hold no prior, or these are no shares.
        """
        raise DataError("this model's scores hold no prior to exchange; leave it out")

    def comparable(self, features: NDArray[np.floating]) -> Floats:
        """Return scores (n, C) that can be compared between rows, whatever their lengths."""
        return self.scores(features)

    def accuracy(self, features: NDArray[np.floating], labels: Integers) -> float:
        """Share of rows whose prediction is their label, 0 to 1."""
        return float((self.predict(features) == labels).mean())


@dataclass(frozen=True, eq=False)
class LinearModel(Model):
    """Scores are features times weights; the prediction is the class of the highest score.

    Rows need no scaling before they are scored: without an offset a row's length changes all its
    scores alike, and with one rows are brought to norm ≤ 1 here, as they were for the sum.

    Attributes:
        weights: (d, C) float64.
        classes: names of the C classes.
        offset: (C,) float64, subtracted from the scores; +∞ for a class that is never predicted.
            None for none.
        observed: shares of the classes that the model was made from, (C,); None where no prior
            belongs to the scores.
        prior: π, (C,), whose logarithm is part of the scores; None for none.
        temperature: scores over it are log-odds of probabilities; None where there are none.
        rows: how rows are brought to norm ≤ 1.
        reduction: what makes d dimensions of the backbone's; None for all of them.
    """

    weights: Floats
    classes: tuple[str, ...]
    offset: Floats | None = None
    observed: Floats | None = None
    prior: Floats | None = None
    temperature: float | None = None
    rows: Quantiser = UNIT_ROWS
    reduction: Reduction | None = None

    def __repr__(self) -> str:
        return f"<LinearModel {self.width} features, {len(self.classes)} classes>"

    @classmethod
    def fitted(
        cls, fitted: Fitted, classes: tuple[str, ...], quantiser: Quantiser
    ) -> "LinearModel":
        """Make the model of a fitted head, for rows that this quantiser rounded."""
        return cls(
            np.asarray(fitted.weights),
            classes,
            fitted.offset,
            fitted.observed,
            fitted.prior,
            fitted.temperature,
            quantiser.of_floats,
        )

    @property
    def width(self) -> int:
        """Number of features of a row."""
        return len(self.weights) if self.reduction is None else len(self.reduction.basis)

    @property
    def has_prior(self) -> bool:
        """Whether scores hold the logarithm of a prior that may be exchanged."""
        return self.prior is not None

    @property
    def has_probabilities(self) -> bool:
        """Whether the head of the model is one of calibrated probabilities."""
        return self.temperature is not None

    def scores(self, features: NDArray[np.floating]) -> Floats:
        """Multiply features (n, d) by the weights: (n, C) float64, less any offset.

        Raises:
            DataError: d is not the model's width, or a row is not finite.
        """
        if features.ndim != 2 or features.shape[1] != self.width:
            raise DataError(
                f"features are {list(features.shape)}; this model wants [n, {self.width}]: "
                "use the backbone that its card names"
            )
        check_finite(features)
        if self.reduction is None and self.offset is None and self.prior is None:
            scores: Floats = features.astype(np.float64, copy=False) @ self.weights
            return scores
        scores = self.prepared(features) @ self.weights
        if self.offset is not None:
            scores = scores - self.offset
        if self.prior is not None:
            with np.errstate(divide="ignore"):
                scores = scores + np.log(self.prior)
        return scores

    def comparable(self, features: NDArray[np.floating]) -> Floats:
        """Return scores (n, C) of rows of norm ≤ 1, over the temperature where there is one."""
        # Without an offset scores grow with a row's length, and predictions do not.
        rows = features if self.reduction is not None else self.rows.scaled(features)
        return self.scores(rows) / (self.temperature or 1.0)

    def uncalibrated(self) -> "LinearModel":
        """Return the model whose probabilities are those of temperature 1."""
        return replace(self, temperature=1.0)

    def prepared(self, features: NDArray[np.floating]) -> Floats:
        """Bring features (n, width) to the rows of norm ≤ 1 that weights multiply, (n, d)."""
        if self.reduction is not None:
            features = self.reduction.apply(features)
        # At any number of bits, what the quantiser approximates are these rows.
        return self.rows.scaled(features)

    def to_sklearn(self) -> Any:
        """Return a fitted scikit-learn pipeline that predicts as this model does."""
        from secure_afl.methods.convert import to_sklearn

        return to_sklearn(self)

    def to_torch(self) -> Any:
        """Return a torch module of features to scores, whose softmax is the probabilities."""
        from secure_afl.methods.convert import to_torch

        return to_torch(self)

    def probabilities(self, features: NDArray[np.floating]) -> Floats:
        """Return the softmax of scores over the temperature, (n, C) float64; rows sum to 1.

        Raises:
            DataError: as `scores`; or the head has no probabilities.
        """
        if self.temperature is None:
            raise DataError(
                "this model has no calibrated probabilities, for its scores are no log-odds; "
                "train one with --head lda, or use scores and predictions"
            )
        scaled = self.scores(features) / self.temperature
        shares: Floats = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        return shares

    def with_prior(self, prior: Floats) -> "LinearModel":
        """Return the model for other class shares, (C,) ≥ 0; they are brought to sum 1.

        Raises:
            DataError: scores of this model hold no prior, or these are no shares.
        """
        if self.prior is None:
            raise DataError(
                "this model's scores hold no prior to exchange; train one with --head lda"
            )
        shares = np.asarray(prior, dtype=np.float64)
        if shares.shape != self.prior.shape or not (np.isfinite(shares) & (shares >= 0)).all():
            raise DataError(f"prior {shares!r}; allowed: {len(self.classes)} finite shares ≥ 0")
        if not shares.sum() > 0:
            raise DataError("a prior of zeros; allowed: at least one share above 0")
        return replace(self, prior=shares / shares.sum())

    def save(self, path: Path, card: dict[str, Any]) -> None:
        """Write tensors `weights` and, where there are any, `offset`, `mean` and `basis`; and card.

        The card's `scoring` says which prior and temperature belong to the scores.
        """
        added, tensors = self.parts()
        save_weights(path, self.weights, self.classes, card | added, **tensors)

    def parts(self) -> tuple[dict[str, Any], dict[str, Floats]]:
        """Return what is to be saved beside weights and classes: keys of the card, and tensors."""
        tensors = {} if self.offset is None else {"offset": self.offset}
        if self.reduction is not None:
            tensors |= {"mean": self.reduction.mean, "basis": self.reduction.basis}
        scoring = Scoring(
            self.rows.mode,
            self.rows.clip,
            None if self.prior is None else tuple(self.prior.tolist()),
            None if self.observed is None else tuple(self.observed.tolist()),
            self.temperature,
            self.rows.bits,
        )
        return {} if scoring == Scoring() else {"scoring": msgspec.to_builtins(scoring)}, tensors

    @classmethod
    def load(cls, path: Path) -> tuple["LinearModel", dict[str, Any]]:
        """Read a saved model and its card.

        Raises:
            DataError: damaged or foreign files.
        """
        weights, classes, card = load_weights(path, axes=2)
        if weights.shape[1] != len(classes):
            raise DataError(f"{path} has weights {list(weights.shape)} for {len(classes)} classes")
        tensors = load_file(path)
        offset = tensors.get("offset")
        # A class that is never predicted has an offset of +∞.
        if offset is not None and (offset.shape != (len(classes),) or not (offset > -np.inf).all()):
            raise DataError(
                f"{path} has an offset {list(offset.shape)}; wanted {len(classes)} finite numbers: "
                "it is damaged, or another kind of model"
            )
        try:
            reduction = None
            if "basis" in tensors:
                reduction = Reduction(tensors["mean"], tensors["basis"])
                if reduction.basis.shape[1] != len(weights):
                    raise DataError(f"a basis of {reduction.basis.shape[1]} dimensions")
            scoring = msgspec.convert(card.get("scoring", {}), Scoring)
            model = cls(
                weights,
                classes,
                None if offset is None else offset.astype(np.float64),
                scoring.array(scoring.observed, len(classes)),
                scoring.array(scoring.prior, len(classes)),
                scoring.temperature,
                Quantiser(scoring.bits, scoring.mode, scoring.clip),
                reduction,
            )
        except (KeyError, msgspec.ValidationError, ConfigError, DataError) as error:
            raise DataError(f"{path} is damaged, or another kind of model: {error}") from None
        return model, card


class Scoring(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A card's account of how scores are made of rows and weights.

    Attributes:
        mode, clip: how rows are brought to norm ≤ 1, see `Quantiser`.
        prior, observed: class shares, in the order of the classes; None for heads without a prior.
        temperature: of probabilities; None for heads without any.
        bits: of `Quantiser`.
    """

    mode: RowMode = "normalise"
    clip: float = 1.0
    prior: tuple[float, ...] | None = None
    observed: tuple[float, ...] | None = None
    temperature: Annotated[float, msgspec.Meta(gt=0)] | None = None
    bits: int = MAX_BITS

    @staticmethod
    def array(shares: tuple[float, ...] | None, classes: int) -> Floats | None:
        """Return shares as an array (C,).

        Raises:
            DataError: another number of classes, or numbers that are no shares.
        """
        if shares is None:
            return None
        found = np.array(shares, dtype=np.float64)
        if found.shape != (classes,) or not ((found >= 0) & (found <= 1)).all():
            raise DataError(f"the card has {len(found)} class shares for {classes} classes")
        return found


def save_weights(
    path: Path,
    weights: Floats,
    classes: tuple[str, ...],
    card: dict[str, Any],
    **others: Floats | Integers,
) -> None:
    """Write a model's tensors (safetensors) and its card, as `Model.save` says.

    Args:
        others: further tensors by name.
    """
    tensors = {
        name: np.ascontiguousarray(array) for name, array in {"weights": weights, **others}.items()
    }
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
