"""Made-up rows and their moments."""

from typing import NamedTuple

import numpy as np

from protocols.layout import Integers
from secure_afl.analytic.moments import Moments
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.statistics import Statistics

QUANTISER = Quantiser(12)


class Sample(NamedTuple):
    """Rows as the integers stand for them, (n, d), labels, and what was summed of them."""

    rows: Floats
    labels: Integers
    moments: Moments

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(str(index) for index in range(self.moments.classes))


def sample(
    sizes: tuple[int, ...] = (60, 40, 20),
    dim: int = 7,
    spread: float = 0.6,
    seed: int = 0,
    empty: int = 0,
) -> Sample:
    """Normal rows around a centre for each class, of these sizes, and some classes without rows."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((len(sizes), dim))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    features = centres[labels] + spread * rng.standard_normal((len(labels), dim))
    rows = QUANTISER.integers(features) / QUANTISER.scale
    classes = len(sizes) + empty
    statistics = Statistics.of(features, labels, classes, QUANTISER)
    return Sample(rows, labels, Moments.of(statistics, QUANTISER))
