"""FedHiP: a model of one's own for every client, from the same single sum (Tang et al., 2025)."""

from typing import Literal, TypeAlias, get_args

from protocols.layout import Integers, Layout
from secure_afl.analytic.private_ridge import raise_eigenvalues
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.ridge import ridge
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.statistics import Statistics
from secure_afl.checks import check_choice, settle_float
from secure_afl.methods.afl import (
    MAX_RIDGE,
    check_floor,
    default_ridge,
    task_layout,
    task_sensitivity,
    task_statistics,
    task_vector,
    task_weights,
)
from secure_afl.methods.method import Memory, Method, PublicState, Task
from secure_afl.methods.model import LinearModel
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.sensitivity import Sensitivity

Reading: TypeAlias = Literal["joint", "proximal"]
MAX_ALPHA = 1e12


class FedHiPPublic(PublicState, frozen=True, eq=False):
    """What the server gives to every client.

    Attributes:
        task: what is learned.
        weights: the global model G_K (d, C), after the sum.
        statistics: the summed statistics, after the sum and in the joint reading only. A client
            can subtract its own from them; with two clients that leaves the other's.
    """

    weights: Floats | None = None
    statistics: Statistics | None = None


class FedHiP(Method[FedHiPPublic], frozen=True, tag="fedhip"):
    """Analytic personalised learning, in the two readings that fit the article.

    `joint` minimises `Σ‖Y_i − F_iP‖² + α‖Y_k − F_kP‖² + β‖P‖²` over all clients' rows, so that
    `P_k = (ΣG + αG_k + βI)⁻¹(ΣQ + αQ_k)`. `proximal` minimises `α‖Y_k − F_kP‖² + β‖P − G_K‖²`, so
    that `P_k = (αG_k + βI)⁻¹(αQ_k + βG_K)`; its client never sees more than the global model.

    Attributes:
        alpha: weight of the client's own rows, 0 to 1e12; 0 gives the global model.
        ridge: β, as AFL's λ.
        reading: which of the two.
    """

    name = "fedhip"
    row_additive = True
    alpha: float = 1.0
    ridge: float | None = None
    reading: Reading = "joint"

    def __post_init__(self) -> None:
        settle_float(self, "alpha", 0, MAX_ALPHA)
        if self.ridge is not None:
            settle_float(self, "ridge", 0, MAX_RIDGE)
        check_choice(self, "reading", get_args(Reading))

    def begin(self, task: Task) -> FedHiPPublic:
        return FedHiPPublic(task)

    def layout(self, public: FedHiPPublic) -> Layout | None:
        return task_layout(public.task) if public.weights is None else None

    def sensitivity(self, task: Task, privacy: Privacy) -> Sensitivity:
        check_floor(self.ridge)
        return task_sensitivity(task, privacy)

    def contribute(
        self, public: FedHiPPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        return task_vector(public.task, data)

    def absorb(
        self, public: FedHiPPublic, total: Integers, included: tuple[str, ...]
    ) -> FedHiPPublic:
        task = public.task
        statistics = Statistics.unpack(total, task_layout(task))
        # The article's server sums K regularised matrices and takes (K − 1)βI off again.
        weights = task_weights(task, statistics, self.ridge)
        return FedHiPPublic(task, weights, statistics if self.reading == "joint" else None)

    def model(self, public: FedHiPPublic) -> LinearModel:
        assert public.weights is not None, "the model exists after the sum"
        return LinearModel(public.weights, public.task.classes)

    def personalise(self, public: FedHiPPublic, data: ClientData, memory: Memory) -> LinearModel:
        task = public.task
        beta = default_ridge(task) if self.ridge is None else self.ridge
        own_gram, own_cross = task_statistics(task, data).floats(task.quantiser)
        if public.statistics is not None:
            gram, cross = public.statistics.floats(task.quantiser)
            if task.mechanism is not None:
                gram, beta = raise_eigenvalues(gram, beta), 0.0
        else:
            assert public.weights is not None, "the model exists after the sum"
            gram, cross = 0.0 * own_gram, beta * public.weights
        weights = ridge(gram + self.alpha * own_gram, cross + self.alpha * own_cross, beta)
        return LinearModel(weights, task.classes)
