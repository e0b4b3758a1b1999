"""FedHiP: a model of one's own for every client, from the same single sum (Tang et al., 2025)."""

from typing import Annotated, Literal, TypeAlias, get_args

from msgspec import Meta

from protocols.layout import Integers, Layout
from secure_afl.analytic.private_ridge import raise_eigenvalues
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.ridge import ridge
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.statistics import Statistics
from secure_afl.checks import check_choice, settle_float
from secure_afl.methods.afl import (
    MAX_RIDGE,
    Ridge,
    check_floor,
    default_ridge,
    task_layout,
    task_sensitivity,
    task_statistics,
    task_vector,
    task_weights,
)
from secure_afl.methods.method import METHODS, Memory, Method, PublicState, Task
from secure_afl.methods.model import LinearModel
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.sensitivity import Sensitivity

Reading: TypeAlias = Literal["joint", "proximal"]
MAX_ALPHA = 1e12


class FedHiPPublic(PublicState, frozen=True, eq=False):
    """The state that the server gives to every client.

    Attributes:
        task: what is learned.
        weights: the global model G_K (d, C), after the sum.
        statistics: the summed statistics, after the sum and in the joint reading only. A client
            can subtract its own from them; with two clients that leaves the other's.
    """

    weights: Floats | None = None
    statistics: Statistics | None = None

    @property
    def broadcast(self) -> Statistics | None:
        """The summed statistics, in the joint reading and after the sum."""
        return self.statistics


@METHODS.register
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
    summary = "also a personal model for each client"
    public = FedHiPPublic
    row_additive = True
    prefers_fewer_dimensions = True
    releases_statistics = True
    ignores = ("same_set",)
    personal = True
    sums_of = "afl"
    alpha: Annotated[
        float,
        Meta(
            ge=0,
            le=MAX_ALPHA,
            description="weight of a client's own rows in its model.",
            extra={"metavar": "α"},
        ),
    ] = 1.0
    ridge: Ridge = None
    reading: Annotated[
        Reading,
        Meta(
            description="joint gives the clients the summed statistics, proximal only the global "
            "model."
        ),
    ] = "joint"

    def __post_init__(self) -> None:
        settle_float(self, "alpha", 0, MAX_ALPHA)
        if self.ridge is not None:
            settle_float(self, "ridge", 0, MAX_RIDGE)
        check_choice(self, "reading", get_args(Reading))

    @property
    def broadcasts_statistics(self) -> bool:
        """Whether the reading is joint."""
        return self.reading == "joint"

    def regularisation(self, task: Task) -> float:
        """Return β, the task's default where none is set."""
        return default_ridge(task) if self.ridge is None else self.ridge

    def advice(self, clients: int, *, few_rows: bool) -> tuple[str, ...]:
        """Warn of what the joint reading's broadcast gives away."""
        if not self.broadcasts_statistics:
            return ()
        found = []
        if clients == 2:
            found.append(
                "FedHiP's joint reading gives both clients the summed statistics, from which each "
                "can take its own: what is left is the other's. Use --reading proximal, or more "
                "clients."
            )
        if few_rows:
            found.append(
                "FedHiP's joint reading gives every client (G, Q), which show whose rows are in "
                "the sum where the model W hardly does. --reading proximal gives them W alone."
            )
        return tuple(found)

    def begin(self, task: Task) -> FedHiPPublic:
        """Return the task with neither weights nor statistics."""
        return FedHiPPublic(task)

    def layout(self, public: FedHiPPublic) -> Layout | None:
        """Return AFL's layout of (G, Q); None once the global weights are there.

        Raises:
            WouldOverflow: no ring holds that many rows at the quantiser's bits.
        """
        return task_layout(public.task) if public.weights is None else None

    def sensitivity(self, public: FedHiPPublic, privacy: Privacy) -> Sensitivity:
        """Bound how far one example or client moves AFL's sum, in either reading.

        Raises:
            ConfigError: β = 0, or a weight out of range for the promise.
        """
        check_floor(self.ridge)
        return task_sensitivity(public.task, privacy)

    def contribute(
        self, public: FedHiPPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        """Pack the client's integer (G, Q) as AFL does; α plays no part.

        Raises:
            DataError: no rows or more than 2^29, a label out of range, or features not finite.
        """
        return task_vector(public.task, data)

    def absorb(
        self, public: FedHiPPublic, total: Integers, included: tuple[str, ...]
    ) -> FedHiPPublic:
        """Solve for the global G_K; the joint reading publishes the summed statistics too.

        Raises:
            ConfigError: the Gram matrix is singular at this β.
        """
        task = public.task
        statistics = Statistics.unpack(total, task_layout(task))
        # The article's server sums K regularised matrices and takes (K − 1)βI off again.
        weights = task_weights(task, statistics, self.ridge)
        return FedHiPPublic(task, weights, statistics if self.reading == "joint" else None)

    def model(self, public: FedHiPPublic) -> LinearModel:
        """Return the global linear model G_K, (d, C) float64; call it after the sum."""
        assert public.weights is not None, "the model exists after the sum"
        return LinearModel(public.weights, public.task.classes)

    def personalise(self, public: FedHiPPublic, data: ClientData, memory: Memory) -> LinearModel:
        """Solve for the client's P_k, (d, C) float64, by the class's two formulas.

        With noise, the joint reading raises the summed Gram's eigenvalues to β and adds no βI.

        Raises:
            ConfigError: the client's system is singular, as it is at β = 0 with few rows.
        """
        task = public.task
        beta = self.regularisation(task)
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
