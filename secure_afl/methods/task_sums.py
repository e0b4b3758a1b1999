"""The one sum of statistics of a task: its layout, its noise, and a client's vector of it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from protocols.layout import Integers, Layout
from secure_afl.analytic.heads.head import Fitted, Head, fit_first
from secure_afl.analytic.moments import Moments
from secure_afl.analytic.private_lda import (
    COUNTS_WEIGHT,
    CROSS_WEIGHT,
    MOST_NOISE,
    SumNoise,
    relative_noise,
)
from secure_afl.analytic.private_ridge import noise_floor
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.statistics import (
    Statistics,
    class_squares,
    packed_statistics,
    statistics_layout,
)
from secure_afl.errors import ConfigError
from secure_afl.methods.method import Task
from secure_afl.privacy import accounting
from secure_afl.privacy.mechanism import NoisySum, Privacy
from secure_afl.privacy.sensitivity import Sensitivity, statistics_sensitivity

# μ of squares by class in units of the Gram matrix's: a model needs the others more.
SQUARES_WEIGHT = 0.5


class Weights(NamedTuple):
    """μ of cross term and counts in units of the Gram matrix's; None sends no counts."""

    cross: float
    counts: float | None


class Promised(NamedTuple):
    """The public numbers that noise follows from: a promise, sums, and declared rows."""

    privacy: Privacy
    sums: int
    total_rows: int
    client_rows: int

    def relative_noise(self, dim: int, classes: int) -> float:
        """Return σ_Q·√d/(N/C) at LDA's own weights.

        Raises:
            ConfigError: counts have no place beside so heavy a cross term.
        """
        privacy, weights = self.privacy, lda_weights(self.privacy)
        sensitivity = statistics_sensitivity(
            1, privacy.unit, privacy.neighbours, self.client_rows, *weights
        )
        z = accounting.noise_multiplier(privacy.epsilon, privacy.delta, self.sums)
        noise = z * sensitivity.joint / weights.cross
        return relative_noise(noise, dim, self.total_rows, classes)

    def suits_lda(self, dim: int, classes: int) -> bool:
        """Say whether LDA is better than ridge by σ_Q·√d/(N/C) < 0.45, at LDA's own weights."""
        try:
            return self.relative_noise(dim, classes) < MOST_NOISE
        except ConfigError:
            return False


def task_weights(privacy: Privacy) -> Weights:
    """Return the weights that were given, or those of a head without counts."""
    return Weights(privacy.known_cross_weight, privacy.counts_weight)


def lda_weights(privacy: Privacy) -> Weights:
    """Return the weights that were given, or those that LDA is best with."""
    return Weights(
        CROSS_WEIGHT if privacy.cross_weight is None else privacy.cross_weight,
        COUNTS_WEIGHT if privacy.counts_weight is None else privacy.counts_weight,
    )


def _count_scale(task: Task) -> int:
    """Return what counts are multiplied by: noise on them has steps enough, as a patient's have."""
    return 1 if task.mechanism is None or task.by_patient else task.quantiser.scale


def task_layout(task: Task, weights: Weights | None = None, *, squares: bool = False) -> Layout:
    """Lay out the statistics of all clients of a task, without noise.

    Args:
        weights: of a noisy task; those given by default.
        squares: with squares by class.
    """
    return statistics_layout(
        task.feature_dim,
        len(task.classes),
        task.quantiser,
        task.total_rows,
        task.client_rows,
        counts=releases_counts(task, weights),
        squares=squares,
        label_scale=task.label_scale,
        count_scale=_count_scale(task),
    )


def task_sensitivity(
    task: Task, privacy: Privacy, weights: Weights | None = None, *, squares: bool = False
) -> Sensitivity:
    """Return the sensitivity of the statistics of a task's clients."""
    cross, counts = task_weights(privacy) if weights is None else weights
    return statistics_sensitivity(
        task.quantiser.scale,
        privacy.unit,
        privacy.neighbours,
        task.client_rows,
        cross,
        counts,
        label_scale=task.label_scale,
        count_scale=_count_scale(task),
        squares_weight=SQUARES_WEIGHT if squares else None,
    )


def task_statistics(task: Task, data: ClientData, rows_each: Integers | None = None) -> Statistics:
    """Return the statistics of one client's rows.

    Args:
        rows_each: as `Task.rows_each`, for a part of a client's rows.
    """
    if rows_each is None:
        rows_each = task.rows_each(data)
    classes = len(task.classes)
    return Statistics.of(data.features, data.labels, classes, task.quantiser, rows_each)


def task_vector(
    task: Task,
    data: ClientData,
    weights: Weights | None = None,
    rows_each: Integers | None = None,
    *,
    squares: bool = False,
) -> Integers:
    """Return the vector of one client's statistics, of `task_layout`."""
    if rows_each is None:
        rows_each = task.rows_each(data)
    rows = data.features, data.labels, len(task.classes), task.quantiser, rows_each
    packed = packed_statistics(
        *rows, counts=releases_counts(task, weights), count_scale=_count_scale(task)
    )
    return np.concatenate([packed, class_squares(*rows).ravel()]) if squares else packed


def task_noise(
    task: Task, weights: Weights | None, included: int, *, squares: bool = False
) -> tuple[float, SumNoise]:
    """Return τ of a noisy task, in squared norms of rows, and the noise of so many shares.

    It looks at no data.
    """
    mechanism = task.mechanism
    assert mechanism is not None, "without noise there is no floor"
    layout = task_layout(task, weights, squares=squares)
    sensitivity = task_sensitivity(task, mechanism.privacy, weights, squares=squares)
    noisy = NoisySum(mechanism, layout, sensitivity)
    promised, more = noisy.scaled_stds, mechanism.surplus(included)
    there = SumNoise(
        promised["gram_diagonal"] * more,
        promised["cross"] * more,
        promised.get("counts", 0.0) * more,
    )
    return noise_floor(promised["gram_diagonal"], task.feature_dim), there


def fit_task(
    task: Task,
    heads: Sequence[Head],
    statistics: Statistics,
    weights: Weights | None = None,
    included: int = 0,
    *,
    squares: bool = False,
) -> Fitted:
    """Fit the first of the heads that can be to summed statistics, noisy or not.

    Args:
        weights: of a noisy sum; those given by default.
        included: clients in a noisy sum, each with its share of the noise.
        squares: squares by class were summed beside, and share the noise.
    """
    moments = Moments.of(
        statistics,
        task.quantiser,
        counts=releases_counts(task, weights),
        label_scale=task.label_scale,
    )
    if task.mechanism is None:
        return fit_first(heads, moments, task.classes).fitted
    floor, noise = task_noise(task, weights, included, squares=squares)
    return heads[0].fit_noisy(moments, floor, noise, task.classes)


def releases_counts(task: Task, weights: Weights | None) -> bool:
    """Say whether the sum holds the class counts."""
    if task.mechanism is None:
        return True
    given = task_weights(task.mechanism.privacy) if weights is None else weights
    return given.counts is not None
