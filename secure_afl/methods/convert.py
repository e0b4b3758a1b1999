"""Linear models in other tools' hands: as a fitted scikit-learn pipeline, as a torch module."""

from typing import TYPE_CHECKING, Any

import numpy as np

from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from secure_afl.methods.model import LinearModel

# −∞ in words that all tools multiply and add without a NaN.
_NEVER = -1e30


def linear_map(model: "LinearModel") -> tuple[Floats, Floats]:
    """Return weights (d, C) and intercepts (C,) of a model's scores, finite.

    Scores of a model with probabilities are log-odds: they are over the temperature.
    """
    intercept = np.zeros(len(model.classes))
    if model.offset is not None:
        intercept = intercept - model.offset
    if model.prior is not None:
        with np.errstate(divide="ignore"):
            intercept = intercept + np.log(model.prior)
    temperature = model.temperature or 1.0
    return model.weights / temperature, np.maximum(intercept / temperature, _NEVER)


def to_sklearn(model: "LinearModel") -> Any:
    """Return a fitted scikit-learn pipeline with the model's predictions and probabilities.

    Its classifier is `LogisticRegression`, whose probabilities are the softmax of scores, for
    models with probabilities, and else `RidgeClassifier`. Its input is features of the backbone.

    Raises:
        ConfigError: fewer than two classes.
    """
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer, LabelBinarizer

    if len(model.classes) < 2:
        raise ConfigError("scikit-learn's classifiers have two classes or more")
    weights, intercept = linear_map(model)
    if len(model.classes) == 2:
        # Of two classes both have one score, which is the second's less the first's.
        weights = weights[:, 1:] - weights[:, :1]
        intercept = intercept[1:] - intercept[:1]
    if model.has_probabilities:
        classifier: Any = LogisticRegression()
        classifier.n_iter_ = np.array([0])
    else:
        classifier = RidgeClassifier()
        names = LabelBinarizer(pos_label=1, neg_label=-1).fit(np.array(model.classes))
        classifier._label_binarizer = names
    classifier.classes_ = np.array(model.classes)
    classifier.coef_ = np.ascontiguousarray(weights.T)
    classifier.intercept_ = intercept
    classifier.n_features_in_ = len(weights)
    rows = FunctionTransformer(_prepared, kw_args={"model": _row_map(model)})
    return Pipeline([("rows", rows.fit(np.zeros((1, model.width)))), ("classify", classifier)])


def _row_map(model: "LinearModel") -> Any:
    """Return the model without what comes after its rows."""
    from dataclasses import replace

    return replace(model, offset=None, observed=None, prior=None, temperature=None)


def _prepared(features: Any, model: "LinearModel") -> Floats:
    """Bring features to the rows that weights multiply."""
    array = np.asarray(features, dtype=np.float64)
    return model.prepared(array)


def to_torch(model: "LinearModel") -> "torch.nn.Module":
    """Return a torch module of features (n, d) to scores (n, C), in float64.

    Scores of a model with probabilities are log-odds: their softmax is the probabilities. Put it
    behind the backbone, and `.float()` it if the backbone is in float32.

    Raises:
        ConfigError: torch is missing.
    """
    try:
        import torch
    except ImportError as error:
        raise ConfigError("to_torch needs torch; install 'secure-afl[vision]'") from error

    weights, intercept = linear_map(model)
    quantiser, reduction = model.rows, model.reduction

    class Head(torch.nn.Module):
        """The linear model, with the preparation of its rows."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(len(weights), len(intercept), dtype=torch.float64)
            self.linear.weight = torch.nn.Parameter(torch.from_numpy(weights.T.copy()))
            self.linear.bias = torch.nn.Parameter(torch.from_numpy(intercept.copy()))
            if reduction is not None:
                self.mean = torch.nn.Parameter(torch.from_numpy(reduction.mean.copy()))
                self.basis = torch.nn.Parameter(torch.from_numpy(reduction.basis.copy()))

        def forward(self, features: "torch.Tensor") -> "torch.Tensor":
            """Score features (n, d)."""
            rows = features.to(self.linear.weight.dtype)
            if reduction is not None:
                rows = torch.nn.functional.normalize(rows, dim=1)
                rows = (rows - self.mean) @ self.basis
            if quantiser.mode == "normalise":
                rows = torch.nn.functional.normalize(rows, dim=1)
            else:
                rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(quantiser.clip)
            if quantiser.mode == "columns":
                rows = rows * (quantiser.steps(rows.shape[1]) / quantiser.scale)
            scores: torch.Tensor = self.linear(rows)
            return scores

    return Head().eval().requires_grad_(False)
