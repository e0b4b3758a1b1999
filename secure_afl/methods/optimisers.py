"""How the server steps along the mean of the clients' updates: Reddi et al., ICLR 2021, alg. 2.

All arithmetic is elementwise, by operations that IEEE 754 rounds alike everywhere: clients compute
the same steps where they are shown the sums.
"""

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from protocols.codec import Wire
from secure_afl.analytic.quantise import Floats
from secure_afl.checks import settle_float

Moments = tuple[Floats, ...]


class Optimiser(Wire, frozen=True):
    """A server's way to step.

    Attributes:
        moments: arrays of the parameters' shape that it carries from round to round.
        rate: the step's usual size, where none is set.
    """

    moments: ClassVar[int] = 0
    rate: ClassVar[float] = 1.0

    def step(self, mean: Floats, moments: Moments) -> tuple[Floats, Moments]:
        """Return the step at rate 1, (p,) float64, and the moments after it.

        Args:
            mean: of the clients' updates, (p,) float64.
            moments: those after the round before, at first zeros.
        """
        return mean, ()


class Sgd(Optimiser, frozen=True, tag="sgd"):
    """The mean itself: FedAvg's server."""


class Momentum(Optimiser, frozen=True, tag="momentum"):
    """FedAvgM's server (Hsu et al. 2019): m ← βm + mean, a step of m.

    Attributes:
        beta: β, 0 to 0.9999.
    """

    moments = 1
    beta: float = 0.9

    def __post_init__(self) -> None:
        settle_float(self, "beta", 0, 0.9999)

    def step(self, mean: Floats, moments: Moments) -> tuple[Floats, Moments]:
        """Add the mean to the momentum, and step by that."""
        first = self.beta * moments[0] + mean
        return first, (first,)


class _Adaptive(Optimiser, frozen=True):
    """Base of servers that divide the momentum by the root of a second moment.

    Attributes:
        beta1, beta2: of the first and of the second moment, 0 to 0.9999.
        adaptivity: τ, added to the root; the smaller, the more alike are the entries' steps.
    """

    moments = 2
    rate = 0.1
    beta1: float = 0.9
    beta2: float = 0.99
    adaptivity: float = 1e-3

    def __post_init__(self) -> None:
        settle_float(self, "beta1", 0, 0.9999)
        settle_float(self, "beta2", 0, 0.9999)
        settle_float(self, "adaptivity", 1e-12, 1e6)

    def step(self, mean: Floats, moments: Moments) -> tuple[Floats, Moments]:
        """Step by first moment over root of the second, without correction of their start."""
        first = self.beta1 * moments[0] + (1 - self.beta1) * mean
        second = self._second(moments[1], mean * mean)
        return first / (np.sqrt(second) + self.adaptivity), (first, second)

    @abstractmethod
    def _second(self, before: Floats, square: Floats) -> Floats:
        """Return the second moment after a mean of this square."""


class Adam(_Adaptive, frozen=True, tag="adam"):
    """FedAdam's server: the second moment is a mean of squares that forgets."""

    def _second(self, before: Floats, square: Floats) -> Floats:
        return self.beta2 * before + (1 - self.beta2) * square


class Yogi(_Adaptive, frozen=True, tag="yogi"):
    """FedYogi's server: the second moment moves toward a square by a step of that square's size."""

    def _second(self, before: Floats, square: Floats) -> Floats:
        return before - (1 - self.beta2) * square * np.sign(before - square)
