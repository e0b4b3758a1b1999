"""The nearest class mean, which needs no Gram matrix."""

import numpy as np

from secure_afl.analytic.heads.head import HEADS, Fit, Fitted, Head
from secure_afl.analytic.moments import Moments


@HEADS.register
class Means(Head, frozen=True):
    """Assigns a row to the class of the nearest mean: scores fᵀμ̂_c − ½‖μ̂_c‖²."""

    name = "means"
    summary = "nearest class mean"
    rank = None
    needs_gram = False

    def fit(self, moments: Moments, classes: tuple[str, ...]) -> Fit:
        """Divide class sums by counts; a class without rows is never predicted."""
        means = moments.means
        offset = np.where(moments.seen, 0.5 * (means**2).sum(axis=0), np.inf)
        return Fit(Fitted(means, offset, head=self.name))
