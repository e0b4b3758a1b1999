"""Fewer dimensions for a run's features, chosen by what is public alone."""

from collections.abc import Sequence
from dataclasses import replace

from secure_afl.errors import ConfigError
from secure_afl.features.reduction import (
    Reduction,
    choose_dimension,
    public_reduction,
    reduction_at_random,
)
from secure_afl.federation.task import Terms
from secure_afl.methods.model import LinearModel, Model
from secure_afl.privacy import accounting
from secure_afl.privacy.sensitivity import statistics_sensitivity
from secure_afl.runs.config import RunConfig
from secure_afl.runs.prepare import Prepared


def choose_reduction(config: RunConfig, terms: Terms, prepared: Prepared) -> Reduction | None:
    """Choose how features are brought to fewer dimensions; None leaves them as they are.

    Raises:
        ConfigError: more dimensions than the features have.
    """
    if config.dictionary is not None:
        return None  # a table's columns are what people read results by
    dim = prepared.clients[0].features.shape[1]
    wanted = config.dimension
    if wanted is not None and wanted > dim:
        raise ConfigError(f"--dimension {wanted} of features with {dim}; allowed: ≤ {dim}")
    if wanted is None and terms.method.prefers_fewer_dimensions:
        bounds = terms.declared_rows(prepared.clients, config.max_rows)
        wanted = suggested_dimension(terms, bounds, dim, len(prepared.classes))
    if prepared.public is not None:
        # Rows span no more axes than there are of them, less one for their mean.
        kept = min(wanted or dim, len(prepared.public) - 1)
        return public_reduction(prepared.public, kept, whiten=config.whiten)
    noisy = terms.privacy is not None and terms.method.prefers_fewer_dimensions
    return reduction_at_random(dim, wanted or dim, config.seed, centred=noisy)


def unfold(reduction: Reduction | None, model: Model) -> Model:
    """Turn a model of reduced rows into one of the backbone's features."""
    if reduction is None:
        return model
    assert isinstance(model, LinearModel), "only linear models see reduced rows"
    if model.reduction is not None:
        return replace(model, reduction=reduction.then(model.reduction))
    if model.offset is not None or model.prior is not None:
        # Scores then turn on the norm of a reduced row, which no linear map gives.
        return replace(model, reduction=reduction)
    weights, offset = reduction.fold(model.weights)
    return LinearModel(weights, model.classes, offset)


def suggested_dimension(
    terms: Terms, bounds: Sequence[int], dim: int, classes: int | None = None
) -> int | None:
    """Return the dimension that the clients' public bounds on rows and the noise suggest.

    None without noise. The head that a method takes of so many classes may want more.
    """
    privacy = terms.privacy
    if privacy is None:
        return None
    sensitivity = statistics_sensitivity(
        1, privacy.unit, privacy.neighbours, max(bounds), privacy.known_cross_weight
    )
    sums = terms.method.planned_sums(privacy, sum(bounds), max(bounds))
    z = accounting.noise_multiplier(privacy.epsilon, privacy.delta, sums)
    wanted = choose_dimension(sum(bounds), z * sensitivity.joint, dim)
    if classes is None:
        return wanted
    return terms.method.least_dimension(privacy, sums, bounds, wanted, dim, classes)
