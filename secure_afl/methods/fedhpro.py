"""FedHPro under blind sums: hyper-prototypes from a C × C statistic beside the update."""

import math
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

import numpy as np
from msgspec import Meta

from protocols.layout import Block, Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData
from secure_afl.checks import check_choice, settle_float, settle_int
from secure_afl.errors import ConfigError
from secure_afl.methods.averaging import MAX_RATE, AveragingPublic, Clip, Network, Rate
from secure_afl.methods.fedavg import FedAvg, Slope
from secure_afl.methods.memory import Memory
from secure_afl.methods.method import METHODS, Task
from secure_afl.methods.networks.architecture import Inputs
from secure_afl.methods.networks.embedding import Embedding
from secure_afl.methods.networks.mlp import Mlp
from secure_afl.methods.prototypes import (
    Pull,
    class_gradients,
    margin_of,
    matched,
    pulled_gradient,
    softmax,
)
from secure_afl.privacy.mechanism import Privacy
from secure_afl.privacy.sensitivity import Sensitivity

SHARES, PRESENCE = "shares", "presence"
SHARE_BITS = 12
# μ of the softmax rows, and of the counts, in units of the update's.
_STATISTIC_WEIGHT = 0.25

ClassMeans = Literal["clients", "rows"]


@METHODS.register
class FedHPro(FedAvg, frozen=True, tag="fedhpro"):
    """FedAvg whose clients are pulled to prototypes that no average of embeddings made.

    Wang et al., ICML 2026. A client's vector is its update, and for each class the sum of softmax
    rows at the received model with their count: C² + C numbers in the place of C gradients. The
    published code sends gradients of the last layer too, which hold class means, and refits that
    layer with them: this does not.

    The state carries the prototypes, (C, m, e), after the server's moments.

    Attributes:
        prototypes: m of each class.
        contrast, alignment: weights of the two pulls; 0 leaves one out.
        temperature: τ of the contrast.
        margin: the contrast has a margin of each client's own.
        class_means: over `clients` as published, each class of a client counting once; or over
            `rows`.
        match_steps, match_rate: of the server's gradient matching.
    """

    name = "fedhpro"
    summary = "fedavg whose clients are pulled to hyper-prototypes"
    learning_rate: Rate = 0.1
    update_clip: Clip = 10.0
    architecture: Network = Mlp()
    prototypes: Annotated[
        int,
        Meta(ge=1, le=1000, description="prototypes of each class.", extra={"metavar": "N"}),
    ] = 5
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
        Meta(description="mean softmax rows of a class over clients, or over rows."),
    ] = "clients"
    match_steps: int = 30
    match_rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        settle_int(self, "prototypes", 1, 1000)
        settle_float(self, "contrast", 0, MAX_RATE)
        settle_float(self, "alignment", 0, MAX_RATE)
        settle_float(self, "temperature", 1e-3, 1e3)
        check_choice(self, "class_means", get_args(ClassMeans))
        settle_int(self, "match_steps", 1, 10_000)
        settle_float(self, "match_rate", 1e-9, 1e3)
        if not isinstance(self.architecture, Embedding):
            raise ConfigError(
                "fedhpro pulls embeddings, and a linear model has none; pass --architecture mlp or "
                "convnet"
            )
        if not self.contrast and not self.alignment:
            raise ConfigError("contrast and alignment are both 0, which is fedavg; choose that")

    @property
    def state_reveals_total(self) -> bool:
        """Never: the C × C statistic does not follow from the state."""
        return False

    def carried(self, task: Task, parameters: Floats) -> tuple[Floats, ...]:
        """Return the server's moments, and prototypes drawn from N(0, 1)."""
        shape = len(task.classes), self.prototypes, self._network.width(task)
        drawn = np.random.default_rng([self.seed, 1]).standard_normal(shape)
        return (*super().carried(task, parameters), drawn)

    def sensitivity(self, public: AveragingPublic, privacy: Privacy) -> Sensitivity:
        """Bound a client's update with its class means, each of a quarter of the update's μ.

        With C classes, a client's mean softmax rows have norm ≤ √C·2^k, and so have its counts.

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
        longest = math.sqrt(len(public.task.classes)) * (1 << self._share_bits(public.task))
        relative = longest / (_STATISTIC_WEIGHT * bound)
        return Sensitivity(joint, (*update.relative, (SHARES, relative), (PRESENCE, relative)))

    def blocks_beside(self, public: AveragingPublic) -> tuple[Block, ...]:
        """Return the blocks of summed softmax rows by class, and of counts."""
        task = public.task
        classes, bits = len(task.classes), self._share_bits(task)
        by_rows = self.class_means == "rows"
        most, own = (task.total_rows, task.client_rows) if by_rows else (task.clients, 1)
        scale = 1 / (1 << bits)
        return (
            Block(SHARES, classes * classes, 0, most << bits, scale, 0, own << bits),
            Block(PRESENCE, classes, 0, most << bits, scale, 0, own << bits),
        )

    def beside(
        self,
        public: AveragingPublic,
        data: ClientData,
        memory: Memory,
        integers: Integers,
        entropy: bytes,
    ) -> Integers:
        """Return softmax rows at the received model, summed or averaged by class, and counts."""
        classes = len(public.task.classes)
        scale = 1 << self._share_bits(public.task)

        def summed() -> Integers:
            inputs = self.architecture.inputs(public.task, data.features)
            shares = softmax(self._network.scores(public.parameters, inputs))
            counts = np.bincount(data.labels, minlength=classes)
            sums = np.zeros((classes, classes), dtype=np.int64)
            for place in np.flatnonzero(counts):
                own = shares[data.labels == place]
                if self.class_means == "rows":
                    sums[place] = np.floor(scale * own).astype(np.int64).sum(axis=0)
                else:
                    sums[place] = np.floor(scale * own.mean(axis=0)).astype(np.int64)
            if self.class_means == "clients":
                counts = np.minimum(counts, 1)
            return np.concatenate([sums.ravel(), scale * counts]).astype(np.int64)

        return np.asarray(self.once(public, memory, SHARES, summed), dtype=np.int64)

    def slope(self, public: AveragingPublic, inputs: Inputs, labels: Integers) -> Slope:
        """Return the gradient of cross-entropy with the pull of the prototypes.

        A client's margin is that of its rows at the received model.
        """
        network, classes = self._network, len(public.task.classes)
        margin = 0.0
        if self.margin:
            margin = margin_of(network, public.parameters, inputs, labels, classes)
        pull = Pull(public.carried[-1], self.contrast, self.alignment, self.temperature, margin)
        return lambda parameters, rows, own: pulled_gradient(network, parameters, rows, own, pull)

    def step(
        self, public: AveragingPublic, mean: Floats, total: Mapping[str, Integers]
    ) -> tuple[Floats, tuple[Floats, ...]]:
        """Step by the mean update, and match the prototypes to the classes' gradients.

        Softmax rows and gradients are those of the model that the clients received.
        """
        parameters, carried = super().step(public, mean, total)
        task, prototypes = public.task, public.carried[-1]
        unit = 1 << self._share_bits(task)
        counts = total[PRESENCE] / unit
        # Noise may leave less than one.
        present = np.flatnonzero(counts >= 1)
        classes, width = len(task.classes), prototypes.shape[2]
        sums = total[SHARES].reshape(classes, classes) / unit
        shares = sums[present] / counts[present, None]
        means = np.eye(classes)
        means[present] = shares
        weight = public.parameters[-(classes * width + classes) : -classes].reshape(classes, width)
        moved = matched(
            prototypes,
            self._network,
            public.parameters,
            class_gradients(weight, means),
            present,
            steps=self.match_steps,
            rate=self.match_rate,
        )
        return parameters, (*carried[:-1], moved)

    @property
    def _network(self) -> Embedding:
        assert isinstance(self.architecture, Embedding), "checked when the method was made"
        return self.architecture

    def _share_bits(self, task: Task) -> int:
        """Return k: softmax rows and counts are in units of 2^-k, and their sums below 2^31."""
        return min(SHARE_BITS, max(1, 30 - task.total_rows.bit_length()))
