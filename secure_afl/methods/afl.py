"""AFL: the ridge classifier of all clients' rows, from one sum (He et al., CVPR 2025)."""

from typing import Annotated, TypeAlias

import numpy as np
from msgspec import Meta

from protocols.layout import Integers, Layout
from secure_afl.analytic.private_ridge import noise_floor, private_ridge
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.ridge import ridge
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.statistics import Statistics, statistics_layout
from secure_afl.checks import settle_float
from secure_afl.errors import ConfigError
from secure_afl.methods.method import METHODS, Memory, Method, PublicState, Task
from secure_afl.methods.model import LinearModel
from secure_afl.privacy.mechanism import NoisySum, Privacy
from secure_afl.privacy.sensitivity import Sensitivity, statistics_sensitivity

# In squared norms of rows, which are 1: as much as a tenth of one more row in every direction.
# Looks at no data.
DEFAULT_RIDGE = 0.1

MAX_RIDGE = 1e12

Ridge: TypeAlias = Annotated[
    Annotated[float, Meta(ge=0, le=MAX_RIDGE)] | None,
    Meta(
        description="λ of the ridge (β of fedhip), in squared norms of the rows, which are 1. "
        "Default: 0.1, or by the noise with --epsilon; neither looks at data.",
        extra={"metavar": "λ"},
    ),
]


class AFLPublic(PublicState, frozen=True, eq=False):
    """Public state: the task, and after the sum the weights (d, C) as well.

    Nothing else of the sum is in it.

    The paper's clients upload `C_k = G_k + γI` and `W_k = C_k⁻¹Q_k`, which their server joins by a
    pairwise law and then frees from the excess Kγ; the result equals the solution from the summed
    `(G, Q)` used here, in which γ does not occur.
    """

    weights: Floats | None = None


@METHODS.register
class AFL(Method[AFLPublic], frozen=True, tag="afl"):
    """Analytic federated learning: W = (ΣG + λI)⁻¹ΣQ.

    Attributes:
        ridge: λ, in squared norms of the rows, which have norm ≤ 1; 0 to 1e12. In noisy sums it is
            the floor to which eigenvalues are raised. By default 0.1, or by the noise; neither
            looks at data.
    """

    name = "afl"
    summary = "one model for all"
    public = AFLPublic
    row_additive = True
    prefers_fewer_dimensions = True
    auditable = True
    releases_statistics = True
    ignores = ("same_set",)
    ridge: Ridge = None

    def __post_init__(self) -> None:
        if self.ridge is not None:
            settle_float(self, "ridge", 0, MAX_RIDGE)

    def regularisation(self, task: Task) -> float:
        """Return λ, the task's default where none is set."""
        return default_ridge(task) if self.ridge is None else self.ridge

    def begin(self, task: Task) -> AFLPublic:
        """Return the task with no weights yet."""
        return AFLPublic(task)

    def layout(self, public: AFLPublic) -> Layout | None:
        """Return the layout of (G, Q) over all rows; None once the weights are there.

        Raises:
            WouldOverflow: no ring holds that many rows at the quantiser's bits.
        """
        return task_layout(public.task) if public.weights is None else None

    def sensitivity(self, public: AFLPublic, privacy: Privacy) -> Sensitivity:
        """Bound how far one example or client moves (G, Q) and any counts.

        Raises:
            ConfigError: λ = 0, or a weight out of range for the promise.
        """
        check_floor(self.ridge)
        return task_sensitivity(public.task, privacy)

    def contribute(
        self, public: AFLPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        """Pack the client's integer (G, Q) as int64; memory and entropy go unused.

        Raises:
            DataError: no rows or more than 2^29, a label out of range, or features not finite.
        """
        return task_vector(public.task, data)

    def absorb(self, public: AFLPublic, total: Integers, included: tuple[str, ...]) -> AFLPublic:
        """Solve W = (ΣG + λI)⁻¹ΣQ; with noise, raise eigenvalues to λ instead.

        Raises:
            ConfigError: the Gram matrix is singular at this λ.
        """
        task = public.task
        statistics = Statistics.unpack(total, task_layout(task))
        return AFLPublic(task, task_weights(task, statistics, self.ridge))

    def model(self, public: AFLPublic) -> LinearModel:
        """Return the linear model with weights W, (d, C) float64; call it after the sum."""
        assert public.weights is not None, "the model exists after the sum"
        return LinearModel(np.asarray(public.weights), public.task.classes)


def task_layout(task: Task) -> Layout:
    """Lay out the statistics of all clients of a task, without noise."""
    return statistics_layout(
        task.feature_dim,
        len(task.classes),
        task.quantiser,
        task.total_rows,
        task.client_rows,
        counts=_releases_counts(task),
    )


def task_sensitivity(task: Task, privacy: Privacy) -> Sensitivity:
    """Return the sensitivity of the statistics of a task's clients."""
    return statistics_sensitivity(
        task.quantiser.scale,
        privacy.unit,
        privacy.neighbours,
        task.client_rows,
        privacy.cross_weight,
        privacy.counts_weight,
    )


def task_statistics(task: Task, data: ClientData) -> Statistics:
    """Return the statistics of one client's rows."""
    return Statistics.of(data.features, data.labels, len(task.classes), task.quantiser)


def check_floor(regularisation: float | None) -> None:
    """Raise ConfigError for a λ of 0 with noise, which leaves eigenvalues below zero."""
    if regularisation == 0:
        raise ConfigError("ridge is 0 with privacy, allowed: > 0; leave it out to go by the noise")


def task_vector(task: Task, data: ClientData) -> Integers:
    """Return the vector of one client's statistics, of `task_layout`."""
    return task_statistics(task, data).pack(counts=_releases_counts(task))


def default_ridge(task: Task) -> float:
    """Return λ where none is set, or with noise τ; in squared norms of rows.

    The value looks at no data.
    """
    if task.mechanism is None:
        return DEFAULT_RIDGE
    return noise_floor(_gram_std(task), task.feature_dim)


def task_weights(task: Task, statistics: Statistics, regularisation: float | None) -> Floats:
    """Return the ridge classifier (d, C) of summed statistics, noisy or not."""
    gram, cross = statistics.floats(task.quantiser)
    if regularisation is None:
        regularisation = default_ridge(task)
    solve = ridge if task.mechanism is None else private_ridge
    return solve(gram, cross, regularisation)


def _gram_std(task: Task) -> float:
    """Return σ_G of the noise in the Gram matrix, in squared norms of rows."""
    mechanism = task.mechanism
    assert mechanism is not None, "without noise there is no deviation"
    noisy = NoisySum(mechanism, task_layout(task), task_sensitivity(task, mechanism.privacy))
    return noisy.stds["gram_diagonal"] / task.quantiser.scale**2


def _releases_counts(task: Task) -> bool:
    return task.mechanism is None or task.mechanism.privacy.counts_weight is not None
