"""The closed-form solver: where floating point returns."""

import numpy as np

from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError


def ridge(gram: Floats, cross: Floats, regularisation: float) -> Floats:
    """Return W = (G + λI)⁻¹Q by Cholesky.

    Args:
        gram: (d, d) symmetric, of rows of norm ≤ 1.
        cross: (d, C).
        regularisation: λ ≥ 0, in squared norms of such rows.

    Returns:
        (d, C) float64.

    Raises:
        ConfigError: G + λI is not positive definite, to working precision.
    """
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    if not 0 <= regularisation < np.inf:
        raise ConfigError(f"ridge is {regularisation}, allowed: finite and ≥ 0")
    regularised = gram + regularisation * np.eye(len(gram))
    try:
        factor, lower = cho_factor(regularised)
    except LinAlgError:
        factor, lower = None, False
    if factor is None or _condition(factor, regularised) < len(gram) * np.finfo(float).eps:
        raise ConfigError(
            f"the Gram matrix is singular at ridge {regularisation}; allowed: > 0 when there are "
            "fewer independent rows than dimensions. Pass a larger --ridge."
        )
    return np.asarray(cho_solve((factor, lower), cross))


def _condition(factor: Floats, matrix: Floats) -> float:
    """Estimate of the reciprocal condition number, from the Cholesky factor (LAPACK dpocon)."""
    from scipy.linalg.lapack import dpocon

    reciprocal, _ = dpocon(factor, float(np.abs(matrix).sum(axis=0).max()))
    return float(reciprocal)
