"""Ridge regression on one-hot labels; its λ by generalised cross-validation."""

from typing import Literal

import numpy as np

from secure_afl.analytic.heads.head import AUTO, HEADS, Chosen, Fit, Fitted, Head
from secure_afl.analytic.moments import Moments, TooFewRows
from secure_afl.analytic.private_lda import SumNoise
from secure_afl.analytic.private_ridge import private_ridge
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.ridge import conditioned_ridge
from secure_afl.checks import settle_float
from secure_afl.errors import ConfigError

MAX_RIDGE = 1e12

# In squared norms of rows, which are 1: as much as a tenth of one more row in every direction.
# Looks at no data.
DEFAULT_RIDGE = 0.1

# λ = 10^-5 … 10^3 in quarters of a decade.
_GRID = 10.0 ** np.arange(-5, 3.01, 0.25)
# Where a fit has almost a parameter a row, its residuals say nothing.
_MOST_FREEDOM = 0.98


@HEADS.register
class Ridge(Head, frozen=True):
    """Minimises ‖Y − FW‖² + λ‖W‖²: W = (G + λI)⁻¹Q.

    Attributes:
        ridge: λ ≥ 0 in squared norms of rows, which are ≤ 1; for standardised features in units
            of tr(G)/d. `auto` minimises the generalised cross-validation of Golub, Heath and Wahba
            (1979, Technometrics 21, eq. 1.4), summed over the classes; in noisy sums it is the
            floor of the eigenvalues.
        intercept: rows and labels are taken less their means.
        standardise: features are divided by their standard deviations; goes with an intercept.
    """

    name = "ridge"
    summary = "ridge regression on one-hot labels"
    rank = 1
    needs_counts = False
    under_noise = True
    exact_only = ("intercept", "standardise")
    ridge: float | Literal["auto"] = AUTO
    intercept: bool = False
    standardise: bool = False

    def __post_init__(self) -> None:
        if self.ridge != AUTO:
            settle_float(self, "ridge", 0, MAX_RIDGE)

    def fit(self, moments: Moments, classes: tuple[str, ...]) -> Fit:
        """Solve for W; see `Head.fit`.

        Raises:
            ConfigError: the system is singular at this λ; with `auto` or an intercept, no more
                rows than classes.
        """
        deviations = moments.deviations() if self.standardise else np.ones(moments.dim)
        used = moments.divided(deviations) if self.standardise else moments
        centred = self.intercept or self.standardise
        solved = used.centred() if centred else used
        gram = solved.known_gram
        unit = float(np.trace(gram)) / solved.dim if self.standardise else 1.0
        curve: tuple[Chosen, ...] = ()
        if self.ridge == AUTO:
            curve = gcv_curve(solved, unit, intercept=centred)
            value = min(curve, key=lambda point: point.estimate).value
        else:
            value = float(self.ridge)
        weights, conditioning = conditioned_ridge(gram, solved.cross, value * unit)
        weights = weights / deviations[:, None]
        offset: Floats | None = None
        if centred:
            offset = moments.mean @ weights - moments.known_counts / moments.rows
        fitted = Fitted(
            weights, offset, head=self.name, setting="ridge", value=value, conditioning=conditioning
        )
        return Fit(fitted, curve)

    def fallback(self) -> "Ridge | None":
        """Return ridge at λ = 0.1, for sums of too few rows to find λ from."""
        return Ridge(ridge=DEFAULT_RIDGE) if self == Ridge() else None

    def fit_noisy(
        self, moments: Moments, floor: float, noise: SumNoise, classes: tuple[str, ...]
    ) -> Fitted:
        """Raise eigenvalues to λ, or to the floor where none is set, and solve for W."""
        if self.intercept or self.standardise:
            raise ConfigError(
                "intercept and standardise need the exact mean, which a noisy sum does not hold; "
                "leave them out"
            )
        value = floor if self.ridge == AUTO else float(self.ridge)
        if value == 0:
            raise ConfigError("ridge is 0 with privacy, allowed: > 0; leave it out to go by noise")
        weights = private_ridge(moments.known_gram, moments.cross, value)
        return Fitted(weights, head=self.name, setting="ridge", value=value)


def gcv_curve(
    moments: Moments, unit: float = 1.0, *, intercept: bool = False
) -> tuple[Chosen, ...]:
    """Return GCV(λ) = (RSS/N)/(1 − df/N)² over the grid λ = 10^-5 … 10^3, from the sum alone.

    With G = UΛUᵀ and A = UᵀQ: B = (Λ + λ)⁻¹A, RSS = Σ‖y‖² − 2⟨A, B⟩ + ⟨B, ΛB⟩ and
    df = Σ Λ/(Λ + λ). Values with df ≥ 0.98 N are left out.

    Args:
        moments: centred ones for a fit with an intercept.
        unit: what λ is a multiple of.
        intercept: one degree of freedom went into the means.

    Raises:
        TooFewRows: no more rows than classes, or than degrees of freedom at every λ.
    """
    from scipy.linalg import eigh

    rows = moments.rows
    values, vectors = eigh(moments.known_gram, driver="evd")
    values = np.maximum(values, 0.0)
    squares = ((vectors.T @ moments.cross) ** 2).sum(axis=1)
    shares = moments.known_counts**2
    left = rows - (float(shares.sum()) / rows if intercept else 0.0)
    curve = []
    for value in _GRID:
        shrunk = 1.0 / (values + value * unit)
        freedom = float((values * shrunk).sum()) + (1.0 if intercept else 0.0)
        if freedom >= _MOST_FREEDOM * rows:
            continue
        # ⟨A, B⟩ and ⟨B, ΛB⟩ are sums over eigenvectors of squared rows of A.
        residual = left - float((squares * shrunk * (2.0 - values * shrunk)).sum())
        estimate = max(residual, 0.0) / rows / (1.0 - freedom / rows) ** 2
        curve.append(Chosen(float(value), estimate))
    if not curve:
        raise TooFewRows(
            f"{rows:.0f} rows leave no degree of freedom for GCV; give more rows, or set --ridge"
        )
    return tuple(curve)
