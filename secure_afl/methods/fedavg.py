"""FedAvg and FedSGD: the mean of the clients' clipped updates, a sum a round.

McMahan et al., AISTATS 2017, algorithm 1; the proximal term is FedProx's (Li et al., MLSys 2020,
eq. 2). An update becomes integers before it is summed, as `UpdateQuantiser` says.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Self, TypeAlias, get_args

import numpy as np
from msgspec import Meta

from protocols.layout import Integers, Layout
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData, check_rows
from secure_afl.checks import check_choice, settle_float, settle_int
from secure_afl.errors import ConfigError, DataError
from secure_afl.methods.method import METHODS, Memory, Method, PublicState, Task
from secure_afl.methods.model import Model
from secure_afl.methods.networks.architecture import Linear
from secure_afl.methods.networks.convnet import ConvNet
from secure_afl.methods.update import Rounding, UpdateQuantiser
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.sensitivity import Sensitivity, update_sensitivity

MAX_ROUNDS = 1_000_000
MIN_RATE, MAX_RATE = 1e-12, 1e12


Rate: TypeAlias = Annotated[
    float,
    Meta(
        ge=MIN_RATE,
        le=MAX_RATE,
        description="learning rate: with fedavg of the clients' steps, with fedsgd of the "
        "server's. Default, for linear models: 10 and 30.",
        extra={"metavar": "η"},
    ),
]
Clip: TypeAlias = Annotated[
    float,
    Meta(
        ge=MIN_RATE,
        le=MAX_RATE,
        description="greatest L2 norm of a client's update. Default: 30 with fedavg, 1.5 with "
        "fedsgd.",
        extra={"metavar": "NORM"},
    ),
]


class AveragingPublic(PublicState, frozen=True, eq=False):
    """The state that every client is given for a round.

    Attributes:
        task: what is learned.
        parameters: the global model's, (p,) float64.
        round: rounds that are over, from 0.
    """

    parameters: Floats
    round: int


class Averaging(Method[AveragingPublic], frozen=True):
    """Base of methods whose rounds average the clients' updates.

    Client memory holds what a round needs should it be asked for again, under
    `update/<round>/<digest of the parameters>`, so that a restarted client does not train a second
    time and cannot differ in a last bit; and, with error feedback, `residual/<round>`.

    Attributes:
        rounds: ≥ 1.
        learning_rate: > 0.
        update_clip: the greatest L2 norm of an update, > 0.
        update_bits: resolution, see `UpdateQuantiser`; by default the most that 32 bits hold.
        rounding: of updates to integers.
        weighted: by the clients' rows, whose total is then in the sum; otherwise all alike.
        error_feedback: what rounding took off an update is added to the client's next one.
        architecture: what is trained.
        seed: of the initial parameters and of the order of rows in local training; public.
    """

    public = AveragingPublic
    releases_updates = True
    ignores = ("feature_bits", "cross_weight", "accept_outside")
    rounds: Annotated[
        int, Meta(ge=1, le=MAX_ROUNDS, description="blind sums.", extra={"metavar": "N"})
    ] = 100
    learning_rate: Rate = 1.0
    update_clip: Clip = 1.0
    update_bits: int | None = None
    rounding: Rounding = "stochastic"
    weighted: bool = True
    error_feedback: bool = False
    architecture: Annotated[
        Linear | ConvNet,
        Meta(
            description="train a linear model on features, or a small ConvNet on the pixels of "
            "square images (its learning rate is about 0.1)."
        ),
    ] = Linear()
    seed: int = 0

    def __post_init__(self) -> None:
        settle_int(self, "rounds", 1, MAX_ROUNDS)
        settle_float(self, "learning_rate", MIN_RATE, MAX_RATE)
        settle_float(self, "update_clip", MIN_RATE, MAX_RATE)
        settle_int(self, "seed", 0, 2**63 - 1)
        check_choice(self, "rounding", get_args(Rounding))

    @classmethod
    def configured(cls, settings: Mapping[str, Any], *, private: bool, seed: int) -> Self:
        """Make the method of a run; updates are weighted unless numbers of rows are private."""
        return cls(**settings, weighted=not private, seed=seed)

    @property
    def clipping(self) -> str:
        """Clause on what bounds a client's update."""
        return (
            f"every client's update has norm ≤ {self.update_clip:g} (--update-clip) before it is "
            "rounded"
        )

    @property
    def images(self) -> bool:
        """Whether a network on pixels is trained."""
        return self.architecture.images

    @property
    def state_reveals_total(self) -> bool:
        """Whether all weigh alike: how far parameters moved is then a known multiple of the sum."""
        return not self.weighted

    @property
    def sums(self) -> int:
        """One blind sum for each of the rounds."""
        return self.rounds

    def begin(self, task: Task) -> AveragingPublic:
        """Draw the architecture's initial parameters from `seed`; round 0.

        Raises:
            ConfigError: the architecture does not fit the task's features.
        """
        rng = np.random.default_rng(self.seed)
        return AveragingPublic(task, self.architecture.initial(task, rng), 0)

    def check(self, public: AveragingPublic, round: int) -> None:
        """Check that parameters are the architecture's, finite, and of this round.

        Raises:
            DataError: they are not.
        """
        wanted = self.begin(public.task).parameters.shape
        if public.parameters.shape != wanted or not np.isfinite(public.parameters).all():
            raise DataError(
                f"parameters {list(public.parameters.shape)}, wanted {list(wanted)} finite numbers"
            )
        if public.round != round - 1:
            raise DataError(f"a state of round {public.round + 1}, wanted {round}")

    def layout(self, public: AveragingPublic) -> Layout | None:
        """Return blocks for p update entries and one weight; None after `rounds`.

        Raises:
            WouldOverflow: not even 2 bits an update fit 32 bits.
            ConfigError: more `update_bits` than fit 32 bits.
        """
        return self._layout(public) if public.round < self.rounds else None

    def sensitivity(self, public: AveragingPublic, privacy: Privacy) -> Sensitivity:
        """Bound how far a client moves a sum of unweighted updates.

        Raises:
            ConfigError: `weighted` is set, for the weights are private numbers of rows.
        """
        if self.weighted:
            raise ConfigError(
                "weights are clients' numbers of rows, which privacy hides; use weighted=False"
            )
        bits = self.quantiser(public.task).bits
        return update_sensitivity(bits, privacy.unit, privacy.neighbours)

    def contribute(
        self, public: AveragingPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        """Return the clipped, rounded update times its weight, then the weight: int64 (p + 1,).

        Memory serves the round's update on a repeated call, and takes the rounding error with error
        feedback. Stochastic rounding draws from `entropy`.

        Raises:
            ConfigError: training diverged, so that the update is not finite.
            DataError: rows of a wrong shape or dtype, a label out of range, or features not finite.
        """
        quantiser = self.quantiser(public.task)
        weight = len(data) if self.weighted else 1
        update = self._recalled(public, data, memory)
        residual = memory.get(f"residual/{public.round}")
        if self.error_feedback and residual is not None:
            update = update + np.asarray(residual, dtype=np.float64)
        update = quantiser.clipped(update)
        integers = quantiser.integers(update, weight, entropy)
        if self.error_feedback:
            lost = update - integers * (quantiser.step / weight)
            memory[f"residual/{public.round + 1}"] = lost
        return np.append(integers, weight)

    def absorb(
        self, public: AveragingPublic, total: Integers, included: tuple[str, ...]
    ) -> AveragingPublic:
        """Add the weighted mean update, times the server's rate, to the parameters."""
        # Elementwise only: one conversion, two products and a sum for each entry, by factors that
        # are single numbers. No reduction and no BLAS, whose order of addition machines choose.
        mean = self.quantiser(public.task).mean(total, self._layout(public))
        parameters = public.parameters + self._server_rate * mean
        return AveragingPublic(public.task, parameters, public.round + 1)

    def model(self, public: AveragingPublic) -> Model:
        """Return the architecture's classifier with the current parameters."""
        return self.architecture.model(public.task, public.parameters)

    def quantiser(self, task: Task) -> UpdateQuantiser:
        """Return how updates become integers, for the clients of a task."""
        total = self._total_weight(task)
        return UpdateQuantiser.fitting(self.update_clip, self.update_bits, self.rounding, total)

    @abstractmethod
    def update(self, public: AveragingPublic, data: ClientData) -> Floats:
        """Return a client's update before it is clipped, (p,) float64.

        The update is a function of its arguments.
        """

    @property
    def _server_rate(self) -> float:
        """Factor that the server multiplies the mean update with."""
        return 1.0

    def _total_weight(self, task: Task) -> int:
        return task.total_rows if self.weighted else task.clients

    def _layout(self, public: AveragingPublic) -> Layout:
        task = public.task
        client_weight = task.client_rows if self.weighted else 1
        total = self._total_weight(task)
        return self.quantiser(task).layout(len(public.parameters), total, client_weight)

    def _recalled(self, public: AveragingPublic, data: ClientData, memory: Memory) -> Floats:
        """Return this round's update, from memory if it is there.

        Older rounds are forgotten.
        """
        digest = hashlib.sha256(public.parameters.tobytes()).hexdigest()
        key = f"update/{public.round}/{digest}"
        if key not in memory:
            for old in [name for name in memory if int(name.split("/")[1]) < public.round]:
                del memory[old]
            check_rows(data.features, data.labels, len(public.task.classes))
            memory[key] = self.update(public, data)
        return np.asarray(memory[key], dtype=np.float64)


@METHODS.register
class FedSGD(Averaging, frozen=True, tag="fedsgd"):
    """Server steps, one a round, along the mean of the clients' whole gradients.

    Weighted by rows and without clipping it is gradient descent on all rows in one place. Rows of
    norm ≤ 1 give a linear head gradients of norm ≤ √2, which the default lets pass.
    """

    name = "fedsgd"
    summary = "one gradient step a round, on all rows"
    learning_rate: Rate = 30.0
    update_clip: Clip = 1.5

    def update(self, public: AveragingPublic, data: ClientData) -> Floats:
        """Return minus the gradient of mean cross-entropy over all rows, (p,) float64."""
        inputs = self.architecture.inputs(public.task, data.features)
        return -self.architecture.gradient(public.parameters, inputs, data.labels)

    @property
    def _server_rate(self) -> float:
        return self.learning_rate


@METHODS.register
class FedAvg(Averaging, frozen=True, tag="fedavg"):
    """Clients train by themselves for some epochs; the server averages by how much they moved.

    Attributes:
        local_epochs: passes over a client's rows a round, ≥ 1.
        batch_size: rows of a local step, ≥ 1; the last of an epoch may be smaller.
        proximal: FedProx's μ ≥ 0: each step also pulls back to the global model by μ times the
            distance; 0 is FedAvg.
    """

    name = "fedavg"
    summary = "local training, averaged in many rounds"
    learning_rate: Rate = 10.0
    update_clip: Clip = 30.0
    local_epochs: Annotated[
        int,
        Meta(
            ge=1,
            le=MAX_ROUNDS,
            description="passes over its rows that a client makes in a round.",
            extra={"metavar": "N"},
        ),
    ] = 5
    batch_size: Annotated[
        int,
        Meta(ge=1, le=2**31, description="rows of a client's step.", extra={"metavar": "N"}),
    ] = 16
    proximal: Annotated[
        float,
        Meta(
            ge=0,
            le=MAX_RATE,
            description="FedProx's μ, a pull back to the global model.",
            extra={"metavar": "μ"},
        ),
    ] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        settle_int(self, "local_epochs", 1, MAX_ROUNDS)
        settle_int(self, "batch_size", 1, 2**31)
        settle_float(self, "proximal", 0, MAX_RATE)

    def update(self, public: AveragingPublic, data: ClientData) -> Floats:
        """Train `local_epochs` of minibatch SGD; return how far parameters moved, (p,) float64.

        The order of rows derives from `seed`, round and client name. A diverged run returns NaN or
        infinity, which `contribute` refuses.
        """
        rng = np.random.default_rng([self.seed, public.round, *data.name.encode()])
        inputs = self.architecture.inputs(public.task, data.features)
        start, parameters = public.parameters, public.parameters.copy()
        # Training that diverges is refused when its update is clipped.
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(self.local_epochs):
                order = rng.permutation(len(data))
                for first in range(0, len(data), self.batch_size):
                    batch = order[first : first + self.batch_size]
                    gradient = self.architecture.gradient(
                        parameters, inputs[batch], data.labels[batch]
                    )
                    gradient += self.proximal * (parameters - start)
                    parameters -= self.learning_rate * gradient
        return parameters - start
