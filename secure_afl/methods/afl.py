"""AFL: the ridge classifier of all clients' rows, from one sum (He et al., CVPR 2025)."""

import numpy as np

from protocols.layout import Integers, Layout
from secure_afl.clients import ClientData
from secure_afl.methods.method import Memory, Method, PublicState, Task
from secure_afl.model import LinearModel
from secure_afl.numbers import settle_float
from secure_afl.quantise import Floats
from secure_afl.ridge import ridge
from secure_afl.statistics import Statistics, statistics_layout

# In squared norms of rows, which are 1: as much as a tenth of one more row in every direction.
# Looks at no data.
DEFAULT_RIDGE = 0.1

MAX_RIDGE = 1e12


class AFLPublic(PublicState, frozen=True, eq=False):
    """Before the sum, the task; after it, the weights (d, C) as well, and nothing else of the sum.

    The paper's clients upload `C_k = G_k + γI` and `W_k = C_k⁻¹Q_k`, which their server joins by a
    pairwise law and then frees from the excess Kγ; the result equals the solution from the summed
    `(G, Q)` used here, in which γ does not occur.
    """

    weights: Floats | None = None


class AFL(Method[AFLPublic], frozen=True, tag="afl"):
    """Analytic federated learning: W = (ΣG + λI)⁻¹ΣQ.

    Attributes:
        ridge: λ, in squared norms of the rows, which have norm ≤ 1; 0 to 1e12.
    """

    name = "afl"
    row_additive = True
    ridge: float = DEFAULT_RIDGE

    def __post_init__(self) -> None:
        settle_float(self, "ridge", 0, MAX_RIDGE)

    def begin(self, task: Task) -> AFLPublic:
        return AFLPublic(task)

    def layout(self, public: AFLPublic) -> Layout | None:
        return task_layout(public.task) if public.weights is None else None

    def contribute(
        self, public: AFLPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        return task_statistics(public.task, data).pack()

    def absorb(self, public: AFLPublic, total: Integers, included: tuple[str, ...]) -> AFLPublic:
        task = public.task
        gram, cross = Statistics.unpack(total, task_layout(task)).floats(task.quantiser)
        return AFLPublic(task, ridge(gram, cross, self.ridge))

    def model(self, public: AFLPublic) -> LinearModel:
        assert public.weights is not None, "the model exists after the sum"
        return LinearModel(np.asarray(public.weights), public.task.classes)


def task_layout(task: Task) -> Layout:
    """The layout of the statistics of all clients of a task."""
    return statistics_layout(task.feature_dim, len(task.classes), task.quantiser, task.total_rows)


def task_statistics(task: Task, data: ClientData) -> Statistics:
    """The statistics of one client's rows."""
    return Statistics.of(data.features, data.labels, len(task.classes), task.quantiser)
