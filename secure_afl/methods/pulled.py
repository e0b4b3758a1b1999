"""FedAvg whose clients' embeddings are pulled to prototypes, which the server makes from a sum."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, get_args

import numpy as np
from msgspec import Meta

from protocols.layout import Block, Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData
from secure_afl.checks import check_choice, settle_float
from secure_afl.errors import ConfigError
from secure_afl.methods.averaging import MAX_RATE, AveragingPublic, Clip, Network, Rate
from secure_afl.methods.fedavg import FedAvg, Slope
from secure_afl.methods.memory import Memory
from secure_afl.methods.method import Task
from secure_afl.methods.networks.architecture import Inputs
from secure_afl.methods.networks.embedding import Embedding
from secure_afl.methods.networks.mlp import Mlp
from secure_afl.methods.prototypes import Pull, margin_of, pulled_gradient
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.sensitivity import Sensitivity

STATISTIC, PRESENCE = "statistic", "presence"
STATISTIC_BITS = 12
# μ of the statistic, and of the counts, in units of the update's.
_STATISTIC_WEIGHT = 0.25

ClassMeans = Literal["clients", "rows"]


class Pulled(FedAvg, frozen=True):
    """Base of methods that sum a statistic of each class's rows beside the update.

    A row's statistic has norm ≤ 1, and is that of the model which the round began with. The state
    carries the prototypes, (C, m, e), after the server's moments.

    Attributes:
        signed: entries of the statistic may be below 0.
        contrast, alignment: weights of the two pulls; 0 leaves one out.
        temperature: τ of the contrast.
        margin: the contrast has a margin of each client's own.
        class_means: over `clients`, each class of a client counting once; or over `rows`.
    """

    signed: ClassVar[bool] = True
    learning_rate: Rate = 0.1
    update_clip: Clip = 10.0
    architecture: Network = Mlp()
    contrast: Annotated[
        float,
        Meta(
            ge=0,
            le=MAX_RATE,
            description="weight of the contrast with all classes' prototypes.",
            extra={"metavar": "WEIGHT"},
        ),
    ] = 1.0
    alignment: Annotated[
        float,
        Meta(
            ge=0,
            le=MAX_RATE,
            description="weight of the alignment with the own class's prototypes.",
            extra={"metavar": "WEIGHT"},
        ),
    ] = 1.0
    temperature: Annotated[
        float,
        Meta(ge=1e-3, le=1e3, description="τ of the contrast.", extra={"metavar": "τ"}),
    ] = 0.05
    margin: Annotated[
        bool, Meta(description="give the contrast a margin of each client's own.")
    ] = False
    class_means: Annotated[
        ClassMeans,
        Meta(description="means of a class's statistic over clients, or over rows."),
    ] = "clients"

    def __post_init__(self) -> None:
        super().__post_init__()
        settle_float(self, "contrast", 0, MAX_RATE)
        settle_float(self, "alignment", 0, MAX_RATE)
        settle_float(self, "temperature", 1e-3, 1e3)
        check_choice(self, "class_means", get_args(ClassMeans))
        if not isinstance(self.architecture, Embedding):
            raise ConfigError(
                f"{self.name} pulls embeddings, and a linear model has none; pass --architecture "
                "mlp or convnet"
            )
        if not self.contrast and not self.alignment:
            raise ConfigError("contrast and alignment are both 0, which is fedavg; choose that")

    @abstractmethod
    def statistic(self, public: AveragingPublic, inputs: Inputs) -> Floats:
        """Return a row's statistic for each of the inputs, (n, k) float64 of norm ≤ 1."""

    @abstractmethod
    def statistic_width(self, task: Task) -> int:
        """Return k."""

    @abstractmethod
    def prototypes_after(self, public: AveragingPublic, means: Floats, present: Integers) -> Floats:
        """Return the prototypes after a round, (C, m, e) float64.

        Args:
            means: of the statistic by class, (C, k); zeros for classes without rows.
            present: classes with rows.
        """

    @property
    def network(self) -> Embedding:
        """What is trained."""
        assert isinstance(self.architecture, Embedding), "checked when the method was made"
        return self.architecture

    @property
    def state_reveals_total(self) -> bool:
        """Never: the statistic does not follow from the state."""
        return False

    def sensitivity(self, public: AveragingPublic, privacy: Privacy) -> Sensitivity:
        """Bound a client's update with its class means, each of a quarter of the update's μ.

        With C classes and k bits, a client's means have norm ≤ √C·2^k, and so have its counts.

        Raises:
            ConfigError: weights or class means by rows, whose numbers privacy hides.
        """
        if self.class_means == "rows":
            raise ConfigError(
                "counts of classes are clients' numbers of rows, which privacy hides; use "
                "--class-means clients"
            )
        update = self._moved(public, privacy)
        bound = 2 ** self.quantiser(public.task).bits
        joint = update.joint * math.sqrt(1 + 2 * _STATISTIC_WEIGHT**2)
        longest = math.sqrt(len(public.task.classes)) * self._unit(public.task)
        relative = longest / (_STATISTIC_WEIGHT * bound)
        return Sensitivity(joint, (*update.relative, (STATISTIC, relative), (PRESENCE, relative)))

    def blocks_beside(self, public: AveragingPublic) -> tuple[Block, ...]:
        """Return the blocks of the statistic summed by class, and of counts."""
        task = public.task
        classes, unit = len(task.classes), self._unit(task)
        by_rows = self.class_means == "rows"
        total, client = (task.total_rows, task.client_rows) if by_rows else (task.clients, 1)
        most, own = total * unit, client * unit
        low, least = (-most, -own) if self.signed else (0, 0)
        entries = classes * self.statistic_width(task)
        return (
            Block(STATISTIC, entries, low, most, 1 / unit, least, own),
            Block(PRESENCE, classes, 0, most, 1 / unit, 0, own),
        )

    def beside(
        self,
        public: AveragingPublic,
        data: ClientData,
        memory: Memory,
        integers: Integers,
        entropy: bytes,
    ) -> Integers:
        """Return the statistic at the received model, summed or averaged by class, and counts."""
        task = public.task
        classes, unit = len(task.classes), self._unit(task)

        def summed() -> Integers:
            rows = self.statistic(public, self.architecture.inputs(task, data.features))
            counts = np.bincount(data.labels, minlength=classes)
            sums = np.zeros((classes, rows.shape[1]), dtype=np.int64)
            for place in np.flatnonzero(counts):
                own = rows[data.labels == place]
                if self.class_means == "rows":
                    # Toward zero, which lengthens nothing.
                    sums[place] = np.trunc(unit * own).astype(np.int64).sum(axis=0)
                else:
                    sums[place] = np.trunc(unit * own.mean(axis=0)).astype(np.int64)
            if self.class_means == "clients":
                counts = np.minimum(counts, 1)
            return np.concatenate([sums.ravel(), unit * counts]).astype(np.int64)

        return np.asarray(self.once(public, memory, STATISTIC, summed), dtype=np.int64)

    def slope(self, public: AveragingPublic, inputs: Inputs, labels: Integers) -> Slope:
        """Return the gradient of cross-entropy with the pull of the prototypes.

        A client's margin is that of its rows at the received model.
        """
        network, margin = self.network, 0.0
        if self.margin:
            classes = len(public.task.classes)
            margin = margin_of(network, public.parameters, inputs, labels, classes)
        pull = Pull(public.carried[-1], self.contrast, self.alignment, self.temperature, margin)
        return lambda parameters, rows, own: pulled_gradient(network, parameters, rows, own, pull)

    def step(
        self, public: AveragingPublic, mean: Floats, total: Mapping[str, Integers]
    ) -> tuple[Floats, tuple[Floats, ...]]:
        """Step by the mean update, and make the prototypes of the classes' means."""
        parameters, carried = super().step(public, mean, total)
        unit = self._unit(public.task)
        counts = total[PRESENCE] / unit
        # Noise may leave less than one.
        present = np.flatnonzero(counts >= 1)
        sums = total[STATISTIC].reshape(len(counts), -1) / unit
        means = np.zeros_like(sums)
        means[present] = sums[present] / counts[present, None]
        return parameters, (*carried[:-1], self.prototypes_after(public, means, present))

    def _unit(self, task: Task) -> int:
        """Return 2^k: the statistic and counts are in units of 2^-k, their sums below 2^31."""
        return 1 << min(STATISTIC_BITS, max(1, 30 - task.total_rows.bit_length()))
