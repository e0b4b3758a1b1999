"""The base of methods that average clients' clipped updates, a sum a round.

An update becomes integers before it is summed, as `UpdateQuantiser` says.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self, TypeAlias, get_args

import numpy as np
from msgspec import Meta, structs
from numpy.typing import NDArray

from protocols.layout import Block, Integers, Layout
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData, check_rows
from secure_afl.checks import check_choice, settle_float, settle_int
from secure_afl.errors import ConfigError, DataError
from secure_afl.methods.memory import Memory, once, pend
from secure_afl.methods.method import Method, PublicState, Task
from secure_afl.methods.model import Model
from secure_afl.methods.networks.architecture import Linear
from secure_afl.methods.networks.convnet import ConvNet
from secure_afl.methods.networks.mlp import Mlp
from secure_afl.methods.update import Rounding, UpdateQuantiser, clipped
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.sensitivity import Sensitivity, update_sensitivity

MAX_ROUNDS = 1_000_000
MIN_RATE, MAX_RATE = 1e-12, 1e12


Rounds: TypeAlias = Annotated[
    int, Meta(ge=1, le=MAX_ROUNDS, description="blind sums.", extra={"metavar": "N"})
]
Rate: TypeAlias = Annotated[
    float,
    Meta(
        ge=MIN_RATE,
        le=MAX_RATE,
        description="learning rate of the clients' steps; with fedsgd of the server's.",
        extra={"metavar": "η"},
    ),
]
Clip: TypeAlias = Annotated[
    float,
    Meta(
        ge=MIN_RATE,
        le=MAX_RATE,
        description="greatest L2 norm of a client's update.",
        extra={"metavar": "NORM"},
    ),
]

Network: TypeAlias = Annotated[
    Linear | Mlp | ConvNet,
    Meta(
        description="train a linear model on features, a network of one hidden layer on them "
        "(mlp), or a small ConvNet on the pixels of square images. The learning rate of networks "
        "is about 0.1."
    ),
]


class AveragingPublic(PublicState, frozen=True, eq=False):
    """The state that every client is given for a round.

    Attributes:
        task: what is learned.
        parameters: the global model's, (p,) float64.
        round: rounds that are over, from 0.
        carried: float64 arrays that rounds carry on beside the parameters, as a method has them:
            moments of the server's steps, a control variate.
    """

    parameters: Floats
    round: int
    carried: tuple[Floats, ...] = ()


class Averaging(Method[AveragingPublic], frozen=True):
    """Base of methods whose rounds average the clients' updates.

    Client memory holds what a round needs should it be asked for again, under
    `update/<round>/<digest of the state>/…`, so that a restarted client does not train a second
    time and cannot differ in a last bit; and, with error feedback, `residual`.

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
    hides_patients = True
    releases_updates = True
    ignores = ("feature_bits", "cross_weight", "accept_outside")
    rounds: Rounds = 100
    learning_rate: Rate = 1.0
    update_clip: Clip = 1.0
    update_bits: int | None = None
    rounding: Rounding = "stochastic"
    weighted: bool = True
    error_feedback: bool = False
    architecture: Network = Linear()
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
        parameters = self.architecture.initial(task, rng)
        return AveragingPublic(task, parameters, 0, self.carried(task, parameters))

    def carried(self, task: Task, parameters: Floats) -> tuple[Floats, ...]:
        """Return what the first round's state carries beside the initial parameters (p,)."""
        return ()

    def check(self, public: AveragingPublic, round: int) -> None:
        """Check that parameters are the architecture's, finite, and of this round.

        Raises:
            DataError: they are not.
        """
        begun = self.begin(public.task)
        given = (public.parameters, *public.carried)
        right = (begun.parameters, *begun.carried)
        if len(given) != len(right):
            raise DataError(f"a state of {len(given)} arrays, wanted {len(right)}")
        for array, wanted in zip(given, right, strict=True):
            if array.shape != wanted.shape or not np.isfinite(array).all():
                raise DataError(
                    f"parameters {list(array.shape)}, wanted {list(wanted.shape)} finite numbers"
                )
        if public.round != round - 1:
            raise DataError(f"a state of round {public.round + 1}, wanted {round}")

    def layout(self, public: AveragingPublic) -> Layout | None:
        """Return blocks for p update entries, one weight, and what goes beside; then None.

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
        beside = tuple(block.name for block in self.blocks_beside(public))
        return self._moved(public, privacy, beside)

    def contribute(
        self, public: AveragingPublic, data: ClientData, memory: Memory, entropy: bytes
    ) -> Integers:
        """Return the clipped, rounded update times its weight, the weight, and what goes beside.

        int64 (p + 1 + …,). Memory serves the round's update on a repeated call, and takes the
        rounding error with error feedback. Stochastic rounding draws from `entropy`.

        Raises:
            ConfigError: training diverged, so that the update is not finite; with noise it then
                counts as zeros.
            DataError: rows of a wrong shape or dtype, a label out of range, or features not finite.
        """
        quantiser = self.quantiser(public.task)
        weight = len(data) if self.weighted else 1
        factor = self.factor(public, memory)
        update = self._recalled(public, data, memory)
        residual = memory.get("residual")
        if self.error_feedback and residual is not None:
            update = update + np.asarray(residual, dtype=np.float64)
        update = clipped(update, self.update_clip, hide=public.task.mechanism is not None)
        integers = quantiser.integers(factor * update, weight, entropy)
        if self.error_feedback:
            lost = update - integers * (quantiser.step / (weight * factor))
            pend(memory, public.round + 1, "residual", lost)
        beside = self.beside(public, data, memory, integers, entropy)
        return np.concatenate([integers, [weight], beside])

    def absorb(
        self, public: AveragingPublic, total: Integers, included: tuple[str, ...]
    ) -> AveragingPublic:
        """Move the parameters by the weighted mean update, as `step` does."""
        # Elementwise only, with factors that are single numbers. No reduction and no BLAS, whose
        # order of addition machines choose.
        layout = self._layout(public)
        mean = self.quantiser(public.task).mean(total, layout)
        parameters, carried = self.step(public, mean, layout.split(total))
        after = public.round + 1
        return structs.replace(public, parameters=parameters, round=after, carried=carried)

    def step(
        self, public: AveragingPublic, mean: Floats, total: Mapping[str, Integers]
    ) -> tuple[Floats, tuple[Floats, ...]]:
        """Return the parameters after a round, (p,) float64, and what is carried on.

        Only elementwise arithmetic, where `state_reveals_total`.

        Args:
            mean: of the clients' updates, (p,) float64.
            total: the sum by the names of its blocks.
        """
        return public.parameters + self._server_rate * mean, public.carried

    def blocks_beside(self, public: AveragingPublic) -> tuple[Block, ...]:
        """Return the blocks of the vector after update and weight."""
        return ()

    def beside(
        self,
        public: AveragingPublic,
        data: ClientData,
        memory: Memory,
        integers: Integers,
        entropy: bytes,
    ) -> Integers:
        """Return the entries of `blocks_beside`, and pend what follows from them.

        Args:
            integers: the client's update as it is sent, (p,) int64.
            entropy: what rounding derives from; for another purpose, append to it.
        """
        return np.zeros(0, dtype=np.int64)

    def factor(self, public: AveragingPublic, memory: Memory) -> float:
        """Return what the client multiplies its clipped update with, ≤ `greatest_factor`."""
        return 1.0

    @property
    def greatest_factor(self) -> float:
        """The most that `factor` gives; it is paid for in resolution."""
        return 1.0

    def model(self, public: AveragingPublic) -> Model:
        """Return the architecture's classifier with the current parameters."""
        return self.architecture.model(public.task, public.parameters)

    def quantiser(self, task: Task) -> UpdateQuantiser:
        """Return how updates become integers, for the clients of a task."""
        total = self._total_weight(task)
        reach = self.update_clip * self.greatest_factor
        return UpdateQuantiser.fitting(reach, self.update_bits, self.rounding, total)

    @abstractmethod
    def update(
        self, public: AveragingPublic, data: ClientData, memory: Memory | None = None
    ) -> Floats:
        """Return a client's update before it is clipped, (p,) float64.

        The update is a function of its arguments.

        Args:
            memory: of the client, by default one that has been in no sum.
        """

    @property
    def _server_rate(self) -> float:
        """Factor that the server multiplies the mean update with."""
        return 1.0

    def _moved(
        self, public: AveragingPublic, privacy: Privacy, beside: tuple[str, ...] = ()
    ) -> Sensitivity:
        """Bound how far a client moves its update, and blocks that are as long."""
        if self.weighted:
            raise ConfigError(
                "weights are clients' numbers of rows, which privacy hides; use weighted=False"
            )
        bits = self.quantiser(public.task).bits
        return update_sensitivity(bits, privacy.unit, privacy.neighbours, beside)

    def _total_weight(self, task: Task) -> int:
        return task.total_rows if self.weighted else task.clients

    def _layout(self, public: AveragingPublic) -> Layout:
        task = public.task
        client_weight = task.client_rows if self.weighted else 1
        total = self._total_weight(task)
        own = self.quantiser(task).layout(len(public.parameters), total, client_weight)
        return Layout((*own.blocks, *self.blocks_beside(public)))

    def once(
        self, public: AveragingPublic, memory: Memory, name: str, make: Callable[[], NDArray[Any]]
    ) -> NDArray[Any]:
        """Return an array of this round, from memory if it is there; older rounds are forgotten.

        Args:
            name: what it is.
            make: returns it, where it is not there yet.
        """
        state = (public.parameters, *public.carried)
        return once(memory, public.round, state, name, make)

    def _recalled(self, public: AveragingPublic, data: ClientData, memory: Memory) -> Floats:
        def train() -> Floats:
            check_rows(data.features, data.labels, len(public.task.classes))
            return self.update(public, data, memory)

        return np.asarray(self.once(public, memory, "update", train), dtype=np.float64)
