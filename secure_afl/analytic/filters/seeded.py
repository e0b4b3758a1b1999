"""Filters of a seed alone."""

import math

import numpy as np

from secure_afl.analytic.filters.kind import FILTERS, FilterKind, LayerMoments
from secure_afl.analytic.layers.patches import LayerShape
from secure_afl.analytic.quantise import Floats


@FILTERS.register
class Seeded(FilterKind):
    """Gaussian filters of variance 1/p, drawn from a public seed: no sum before the head's."""

    name = "random"
    summary = "drawn from the seed; one sum in all"
    needs_sum = False

    @classmethod
    def filters(
        cls,
        shape: LayerShape,
        moments: LayerMoments | None,
        count: int,
        ridge: float,
        rng: np.random.Generator,
    ) -> Floats:
        """Draw the filters; sums and ν go unused."""
        drawn: Floats = rng.standard_normal((shape.patch, count)) / math.sqrt(shape.patch)
        return drawn
