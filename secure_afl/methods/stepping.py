"""Averaging whose server steps along the mean update as one of the optimisers does."""

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from msgspec import Meta

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.checks import settle_float
from secure_afl.methods.averaging import MAX_RATE, MIN_RATE, Averaging, AveragingPublic
from secure_afl.methods.method import Task
from secure_afl.methods.optimisers import Adam, Momentum, Sgd, Yogi


class Stepping(Averaging, frozen=True):
    """Base of methods whose clients train by themselves.

    The state carries the optimiser's moments first.

    Attributes:
        server_step: how the server steps along the mean update.
        server_rate: size of that step, > 0; None is the step's own.
    """

    server_step: Annotated[
        Sgd | Momentum | Adam | Yogi,
        Meta(
            description="step by the mean update as it is, or as FedAvgM, FedAdam and FedYogi do."
        ),
    ] = Sgd()
    server_rate: Annotated[
        Annotated[float, Meta(ge=MIN_RATE, le=MAX_RATE)] | None,
        Meta(
            description="size of the server's step. Default: 1, and 0.1 with adam and yogi.",
            extra={"metavar": "η"},
        ),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.server_rate is not None:
            settle_float(self, "server_rate", MIN_RATE, MAX_RATE)

    def carried(self, task: Task, parameters: Floats) -> tuple[Floats, ...]:
        """Return the server's moments, zeros at first."""
        return tuple(np.zeros_like(parameters) for _ in range(self.server_step.moments))

    def step(
        self, public: AveragingPublic, mean: Floats, total: Mapping[str, Integers]
    ) -> tuple[Floats, tuple[Floats, ...]]:
        """Step as the server's optimiser does."""
        own = self.server_step.moments
        step, moments = self.server_step.step(mean, public.carried[:own])
        return public.parameters + self._server_rate * step, (*moments, *public.carried[own:])

    @property
    def _server_rate(self) -> float:
        return self.server_step.rate if self.server_rate is None else self.server_rate
