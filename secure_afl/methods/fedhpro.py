"""FedHPro under blind sums: hyper-prototypes from a C × C statistic beside the update."""

from typing import Annotated

import numpy as np
from msgspec import Meta

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.checks import settle_float, settle_int
from secure_afl.methods.averaging import AveragingPublic
from secure_afl.methods.method import METHODS, Task
from secure_afl.methods.networks.architecture import Inputs
from secure_afl.methods.prototypes import class_gradients, matched, softmax
from secure_afl.methods.pulled import Pulled


@METHODS.register
class FedHPro(Pulled, frozen=True, tag="fedhpro"):
    """FedAvg whose clients are pulled to prototypes that no average of embeddings made.

    Wang et al., ICML 2026. A client's vector is its update, and for each class the mean of softmax
    rows at the received model: C² + C numbers in the place of C gradients. The published code sends
    gradients of the last layer too, which hold class means, and refits that layer with them: this
    does not. It also divides the contrast by the batch's size a second time: this does not.

    Attributes:
        prototypes: m of each class.
        match_steps, match_rate: of the server's gradient matching.
    """

    name = "fedhpro"
    summary = "fedavg whose clients are pulled to hyper-prototypes"
    signed = False
    prototypes: Annotated[
        int,
        Meta(ge=1, le=1000, description="prototypes of each class.", extra={"metavar": "N"}),
    ] = 5
    match_steps: int = 30
    match_rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        settle_int(self, "prototypes", 1, 1000)
        settle_int(self, "match_steps", 1, 10_000)
        settle_float(self, "match_rate", 1e-9, 1e3)

    def carried(self, task: Task, parameters: Floats) -> tuple[Floats, ...]:
        """Return the server's moments, and prototypes drawn from N(0, 1)."""
        shape = len(task.classes), self.prototypes, self.network.width(task)
        drawn = np.random.default_rng([self.seed, 1]).standard_normal(shape)
        return (*super().carried(task, parameters), drawn)

    def statistic(self, public: AveragingPublic, inputs: Inputs) -> Floats:
        """Return softmax rows, (n, C)."""
        return softmax(self.network.scores(public.parameters, inputs))

    def statistic_width(self, task: Task) -> int:
        """Return C."""
        return len(task.classes)

    def prototypes_after(self, public: AveragingPublic, means: Floats, present: Integers) -> Floats:
        """Match the prototypes to the classes' gradients, by the model that clients received."""
        prototypes = public.carried[-1]
        classes, _, width = prototypes.shape
        weight = public.parameters[-(classes * width + classes) : -classes].reshape(classes, width)
        return matched(
            prototypes,
            self.network,
            public.parameters,
            class_gradients(weight, means),
            present,
            steps=self.match_steps,
            rate=self.match_rate,
        )
