"""Filters that tell classes and places apart best: canonical directions of patches and labels."""

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
class Canonical(FilterKind):
    """Filters w_j = Va_j, with a_j the left singular vectors of VᵀS̄ of the largest values.

    V whitens the centred patches, and S̄ holds their contrasts between classes by region. A code of
    classes alone has rank C − 1; regions lift it to (C − 1)·R.
    """

    name = "canonical"
    summary = "directions in which patches tell class and region apart best"

    @classmethod
    def most(cls, shape: LayerShape, classes: int) -> int:
        """Return the rank of the contrasts, and of a patch, at most."""
        return min(shape.patch, max(1, classes - 1) * shape.regions**2)

    @classmethod
    def filters(
        cls,
        shape: LayerShape,
        moments: LayerMoments | None,
        count: int,
        ridge: float,
        rng: np.random.Generator,
    ) -> Floats:
        """Take the singular vectors; `rng` goes unused."""
        assert moments is not None, "canonical filters are made of sums"
        whitened = whitening(moments, ridge)
        contrasts = moments.contrasts.reshape(len(whitened), -1)
        left, _, _ = np.linalg.svd(whitened.T @ contrasts, full_matrices=True)
        return of_variance_one(whitened @ left[:, :count], moments)
