"""FedAvg and FedSGD: the mean of the clients' clipped updates, a sum a round.

McMahan et al., AISTATS 2017, algorithm 1; the proximal term is FedProx's (Li et al., MLSys 2020,
eq. 2), the server's steps are those of `optimisers`.
"""

import math
from collections.abc import Callable
from typing import Annotated, TypeAlias

import numpy as np
from msgspec import Meta

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData
from secure_afl.checks import settle_float, settle_int
from secure_afl.methods.averaging import (
    MAX_RATE,
    MAX_ROUNDS,
    Averaging,
    AveragingPublic,
    Clip,
    Rate,
)
from secure_afl.methods.memory import Memory
from secure_afl.methods.method import METHODS
from secure_afl.methods.networks.architecture import Inputs
from secure_afl.methods.stepping import Stepping

LocalEpochs: TypeAlias = Annotated[
    int,
    Meta(
        ge=1,
        le=MAX_ROUNDS,
        description="passes over its rows that a client makes in a round.",
        extra={"metavar": "N"},
    ),
]
BatchSize: TypeAlias = Annotated[
    int, Meta(ge=1, le=2**31, description="rows of a client's step.", extra={"metavar": "N"})
]
# From parameters (p,), inputs and labels of some rows to a gradient (p,), all as an architecture's.
Slope: TypeAlias = Callable[[Floats, Inputs, Integers], Floats]


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

    def update(
        self, public: AveragingPublic, data: ClientData, memory: Memory | None = None
    ) -> Floats:
        """Return minus the gradient of mean cross-entropy over all rows, (p,) float64."""
        inputs = self.architecture.inputs(public.task, data.features)
        return -self.architecture.gradient(public.parameters, inputs, data.labels)

    @property
    def _server_rate(self) -> float:
        return self.learning_rate


@METHODS.register
class FedAvg(Stepping, frozen=True, tag="fedavg"):
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
    local_epochs: LocalEpochs = 5
    batch_size: BatchSize = 16
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

    def update(
        self, public: AveragingPublic, data: ClientData, memory: Memory | None = None
    ) -> Floats:
        """Train `local_epochs` of minibatch SGD; return how far parameters moved, (p,) float64.

        The order of rows derives from `seed`, round and client name. A diverged run returns NaN or
        infinity, which `contribute` refuses.
        """
        rng = np.random.default_rng([self.seed, public.round, *data.name.encode()])
        inputs = self.architecture.inputs(public.task, data.features)
        start, parameters = public.parameters, public.parameters.copy()
        drift = self.drift(public, memory or {})
        slope = self.slope(public, inputs, data.labels)
        # Training that diverges is refused when its update is clipped.
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(self.local_epochs):
                order = rng.permutation(len(data))
                for first in range(0, len(data), self.batch_size):
                    batch = order[first : first + self.batch_size]
                    gradient = slope(parameters, inputs[batch], data.labels[batch])
                    gradient += self.proximal * (parameters - start) + drift
                    parameters -= self.learning_rate * gradient
        return parameters - start

    def slope(self, public: AveragingPublic, inputs: Inputs, labels: Integers) -> Slope:
        """Return the gradient that a client's steps go along.

        Args:
            inputs, labels: all of the client's, in a round that begins with `public`.
        """
        return self.architecture.gradient

    def drift(self, public: AveragingPublic, memory: Memory) -> Floats | float:
        """Return what is added to every gradient of the round."""
        return 0.0

    def local_steps(self, rows: int) -> int:
        """Count the steps that a client of so many rows makes in a round."""
        return self.local_epochs * math.ceil(rows / self.batch_size)
