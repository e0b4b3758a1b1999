"""Newton's step for logistic regression from a gradient and a curvature with noise in them."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from secure_afl.analytic.moments import Bools
from secure_afl.analytic.quantise import Floats

# Curvature is clear where the least of it is so many times its noise's norm.
_CLEAR = 5.0

# A step is more than noise where it is so many of its own standard deviations.
_NOTICED = 2.0


@dataclass(frozen=True, eq=False)
class NoisySlope:
    """Gradient and curvature of the log-likelihood of two classes, as noise leaves them.

    Attributes:
        point: β, (p,), the intercept first, for rows x̃ = (1, x) with ‖x‖ ≤ 1.
        gradient: at the point, (p,).
        curvature: −∂²ℓ there, (p, p), symmetric.
        gradient_std: σ_g of an entry's noise.
        curvature_std: σ_H, of a diagonal entry's noise; of others it is √½ of that.
    """

    point: Floats
    gradient: Floats
    curvature: Floats
    gradient_std: float
    curvature_std: float

    def __repr__(self) -> str:
        return f"<NoisySlope of {len(self.point)} parameters>"

    def at_shares(self) -> "NoisySlope":
        """Move from zeros to the log-odds of the class shares, which needs no other sum.

        At zeros all weights are ¼ and all residuals ±½. The curvature is then X̃ᵀX̃/4, and holds N
        and Σx; the gradient holds the classes' rows. With P the share of the second class, the
        gradient at its log-odds is g − (P − ½)Σx̃, and the curvature 4P(1 − P) times as large. A
        class has at least as many rows as its count has noise.
        """
        rows = 4 * max(float(self.curvature[0, 0]), 0.0)
        least = self.gradient_std / rows if rows > 2 * self.gradient_std else 0.5
        share = 0.5 if least == 0.5 else 0.5 + float(self.gradient[0]) / rows
        share = min(max(share, least), 1 - least)
        aside, factor = 4 * share - 2, 4 * share * (1 - share)
        point = np.zeros_like(self.point)
        point[0] = math.log(share / (1 - share))
        return replace(
            self,
            point=point,
            gradient=self.gradient - aside * self.curvature[:, 0],
            curvature=factor * self.curvature,
            gradient_std=math.hypot(self.gradient_std, aside * self.curvature_std),
            curvature_std=factor * self.curvature_std,
        )

    @property
    def weak(self) -> int:
        """Directions in which the curvature is not clear of its noise."""
        return int((self._values < _CLEAR * self._norm).sum())

    def step(self, *, last: bool) -> Floats:
        """Return Newton's step, (p,).

        Eigenvalues of the curvature are raised to its noise's norm σ_H√p. Before the last step that
        norm is added to all, so that noise makes no step too long.
        """
        raised = self._raised if last else np.maximum(self._values, 0.0) + self._norm
        step: Floats = self._axes @ ((self._axes.T @ self.gradient) / raised)
        return step

    def covariance(self, step: Floats) -> Floats:
        """Return that of the point after the last step, H⁻¹(H + (σ_g² + σ_H²|e|²)I)H⁻¹, (p, p)."""
        spread = (self._raised + self._noise(step)) / self._raised**2
        found: Floats = (self._axes * spread) @ self._axes.T
        return found

    def unsettled(self, step: Floats, earlier_std: float, reach: float, indicators: Bools) -> float:
        """Return how many standard errors the last step went, where another is wanted; else 0.

        A Newton step e leaves less than −log(1 − r)/r − 1 of itself to go, if it changes the
        log-odds of no row by more than r < 1: no weight then changes by more than a factor of e^r
        on the way. The bound is looked at for a mean row, and for each column by itself: an
        indicator changes by its whole range, however rare its category is; a number by three
        deviations of what no other column explains. Another step is wanted where a standard error
        or more may be left.

        The bound is a wide one for numbers. Where noise explains their step, another would be as
        long, and none is wanted.

        Args:
            step: the last one, (p,).
            earlier_std: σ_g of the sum before, whose noise the step makes up for; 0 if none was.
            reach: the most that a row's entry of a column can be, in size.
            indicators: which columns are indicators, (p − 1,).
        """
        looks = np.eye(len(step))
        looks[0] = (self._axes[0] * self._raised) @ self._axes.T
        total = looks[0, 0]
        looks[0] /= total
        own = (self._axes**2 / self._raised).sum(axis=1)[1:]
        widths = np.where(indicators, np.inf, 3 / np.sqrt(own * total))
        widths = np.append(1.0, np.minimum(widths, 2 * reach))
        moved = np.abs(looks @ step)
        errors = self._along(looks, self._raised + self._noise(step))
        changes = np.minimum(widths * moved, 1.0)
        with np.errstate(divide="ignore"):
            left = -np.log1p(-changes) - changes
        noise = self._along(looks, self._noise(step) + earlier_std**2)
        noise[0], noise[1:][indicators] = 0.0, 0.0
        wanted = (left > widths * errors) & (moved > _NOTICED * noise)
        return float((moved / errors)[wanted].max(initial=0.0))

    def _noise(self, step: Floats) -> float:
        """Return the variance of an entry of Ee + ν, with E and ν the noise of this sum."""
        return self.gradient_std**2 + self.curvature_std**2 * float(step @ step)

    def _along(self, looks: Floats, middle: Floats | float) -> Floats:
        """Return deviations of H⁻¹MH⁻¹ along rows of `looks`, M having H's axes, (k,)."""
        turned = (looks @ self._axes) / self._raised
        found: Floats = np.sqrt((turned**2 * middle).sum(axis=1))
        return found

    @cached_property
    def _eigen(self) -> tuple[Floats, Floats]:
        values, axes = np.linalg.eigh(self.curvature)
        return values, axes

    @property
    def _values(self) -> Floats:
        return self._eigen[0]

    @property
    def _axes(self) -> Floats:
        return self._eigen[1]

    @property
    def _norm(self) -> float:
        """The norm of the curvature's noise."""
        return self.curvature_std * math.sqrt(len(self.point))

    @property
    def _raised(self) -> Floats:
        return np.maximum(self._values, self._norm)
