"""Figures of a model, under each prior that its scores may have."""

from collections.abc import Mapping, Sequence

import numpy as np

from secure_afl.analytic.priors import OBSERVED, UNIFORM, Prior, prior_shares
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.split import halves_by_patient
from secure_afl.evaluation.figures import HIGHEST, Figures, measure
from secure_afl.evaluation.thresholds import predict_at, threshold_at
from secure_afl.methods.model import Model

GIVEN = "given"


def under_priors(model: Model, prior: Prior | None = None) -> Mapping[str, Model]:
    """Return the model under the observed and the uniform prior, and under one that is asked for.

    The one in use comes first. A model without a prior is returned as it is, under "".

    Raises:
        DataError: a prior asked of a model that has none.
        ConfigError: a prior of other classes.
    """
    if model.prior is None:
        if prior is not None:
            model.with_prior(np.ones(len(model.classes)))  # says why not
        return {"": model}
    shares = np.ones(len(model.classes)) if model.observed is None else model.observed
    words: dict[str, Model] = {name: with_prior(model, name) for name in (OBSERVED, UNIFORM)}
    if prior is None:
        used, name = model, GIVEN
        for word in words:
            # Shares are brought to a sum of 1 more than once.
            if np.allclose(model.prior, prior_shares(word, model.classes, shares), 1e-12, 0):
                name = word
                break
    else:
        used, name = with_prior(model, prior), prior if isinstance(prior, str) else GIVEN
    return {name: used} | {word: other for word, other in words.items() if word != name}


def with_prior(model: Model, prior: Prior) -> Model:
    """Return the model under a prior: a word, or shares by class.

    Raises:
        DataError: the model has no prior to exchange.
        ConfigError: shares of other classes.
    """
    observed = np.ones(len(model.classes)) if model.observed is None else model.observed
    return model.with_prior(prior_shares(prior, model.classes, observed))


def evaluate_model(
    model: Model,
    rows: ClientData,
    *,
    patients: Sequence[str] | None = None,
    prior: str = "",
    sensitive_to: str | None = None,
    sensitivity: float = 0.95,
) -> Figures:
    """Measure a model on labelled rows.

    Args:
        patients: whose each row is; by default as the rows say.
        prior: in words, for the figures.
        sensitive_to: a class that is to be found with this `sensitivity`: its threshold is chosen
            on one half of the patients, and the figures are of the other half.

    Raises:
        DataError: rows that the model does not take, or no such class.
    """
    # As `predict` prints them: a threshold is of use there, and no row counts for its length.
    scores, labels = model.comparable(rows.features), rows.labels
    patients = rows.people if patients is None else patients
    probabilities = raw = None
    if model.has_probabilities:
        probabilities = model.probabilities(rows.features)
        raw = model.uncalibrated().probabilities(rows.features)
    if sensitive_to is None:
        return measure(
            scores,
            labels,
            model.classes,
            patients=patients,
            probabilities=probabilities,
            raw_probabilities=raw,
            prior=prior,
        )
    place = model.classes.index(sensitive_to)
    whose = [str(i) for i in range(len(rows))] if patients is None else list(patients)
    chosen, judged = halves_by_patient(whose)
    threshold = threshold_at(scores[chosen], labels[chosen], place, sensitivity)
    return measure(
        scores[judged],
        labels[judged],
        model.classes,
        predicted=predict_at(scores[judged], place, threshold),
        patients=None if patients is None else [whose[i] for i in judged],
        probabilities=None if probabilities is None else probabilities[judged],
        raw_probabilities=None if raw is None else raw[judged],
        prior=prior,
        rule=f"'{sensitive_to}' where its score exceeds the best other by {threshold:.4g}, which "
        f"found {sensitivity:.0%} of its rows among {len(chosen)} others; else {HIGHEST}",
    )
