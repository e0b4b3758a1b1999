"""The closed-form solver: where floating point returns."""

import numpy as np

from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError, NoModel


def ridge(gram: Floats, cross: Floats, regularisation: float) -> Floats:
    """Return W = (G + λI)⁻¹Q by Cholesky.

    Args:
        gram: (d, d) symmetric, of rows of norm ≤ 1.
        cross: (d, C).
        regularisation: λ ≥ 0, in squared norms of such rows.

    Returns:
        (d, C) float64.

    Raises:
        NoModel: G + λI is not positive definite, to working precision.
    """
    return conditioned_ridge(gram, cross, regularisation)[0]


def conditioned_ridge(gram: Floats, cross: Floats, regularisation: float) -> tuple[Floats, float]:
    """Return W as `ridge` does, and the reciprocal condition number of G + λI in the 1-norm.

    The number is LAPACK's estimate (dpocon), 0 to 1; it is above d·2⁻⁵², or W is refused.

    Raises:
        NoModel: G + λI is not positive definite, to working precision.
    """
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    if not 0 <= regularisation < np.inf:
        raise ConfigError(f"ridge is {regularisation}, allowed: finite and ≥ 0")
    regularised = gram + regularisation * np.eye(len(gram))
    try:
        factor, lower = cho_factor(regularised)
    except LinAlgError:
        factor, lower = None, False
    conditioning = 0.0 if factor is None else _condition(factor, regularised)
    if factor is None or conditioning < len(gram) * np.finfo(float).eps:
        raise NoModel(
            f"the Gram matrix is singular at ridge {regularisation}; allowed: > 0 when there are "
            "fewer independent rows than dimensions. Pass a larger --ridge."
        )
    return np.asarray(cho_solve((factor, lower), cross)), conditioning


def _condition(factor: Floats, matrix: Floats) -> float:
    """Estimate of the reciprocal condition number, from the Cholesky factor (LAPACK dpocon)."""
    from scipy.linalg.lapack import dpocon

    reciprocal, _ = dpocon(factor, float(np.abs(matrix).sum(axis=0).max()))
    return float(reciprocal)
