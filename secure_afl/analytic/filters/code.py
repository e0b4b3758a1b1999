"""Filters that predict a random code of class and region by least squares."""

import numpy as np

from secure_afl.analytic.filters.kind import (
    FILTERS,
    FilterKind,
    LayerMoments,
    of_variance_one,
    whitening,
)
from secure_afl.analytic.layers.patches import LayerShape
from secure_afl.analytic.quantise import Floats


@FILTERS.register
class Code(FilterKind):
    """Filters (Ḡ + ν·tr(Ḡ)/p·I)⁻¹S̄, to unit columns, times a seeded Gaussian code of the labels.

    The articles on analytic layers fit such a code; its exact form here is this project's.
    """

    name = "code"
    summary = "least squares onto a seeded random code of class and region"

    @classmethod
    def filters(
        cls,
        shape: LayerShape,
        moments: LayerMoments | None,
        count: int,
        ridge: float,
        rng: np.random.Generator,
    ) -> Floats:
        """Solve for the regressions, and mix them by the code."""
        assert moments is not None, "coded filters are made of sums"
        whitened = whitening(moments, ridge)
        solved = whitened @ (whitened.T @ moments.contrasts.reshape(len(whitened), -1))
        lengths = np.linalg.norm(solved, axis=0)
        solved /= np.where(lengths > 0, lengths, 1.0)
        code = rng.standard_normal((solved.shape[1], count))
        return of_variance_one(solved @ code, moments)
