"""Linear discriminant analysis from noisy statistics; it looks at nothing else."""

import math
import sys
from dataclasses import dataclass

import numpy as np

from secure_afl.analytic.priors import drawn_together
from secure_afl.analytic.quantise import Floats
from secure_afl.checks import number
from secure_afl.errors import ConfigError

# Where noise on a class mean is larger than this beside what is left of a row, ridge is better.
# Read off PneumoniaMNIST, hand signs and handwritten digits.
MOST_NOISE = 0.45

LEAST_DIMENSION = 128
"""Dimensions that a projection leaves for it at least; fewer hide more than they save in noise."""

CROSS_WEIGHT, COUNTS_WEIGHT = 1.2, 0.3
"""w and v, μ of cross term and counts in units of the Gram matrix's. Read off the same sets."""


@dataclass(frozen=True)
class SumNoise:
    """Standard deviations of the noise that is in a sum, in units of rows of norm ≤ 1.

    Attributes:
        gram: σ_G, on the diagonal; off it the noise has half of the variance.
        cross: σ_Q, on each entry.
        counts: σ_n, in rows.

    Raises:
        ConfigError: a number that is not finite, or negative.
    """

    gram: float
    cross: float
    counts: float

    def __post_init__(self) -> None:
        for name in ("gram", "cross", "counts"):
            number(f"noise of {name}", getattr(self, name), 0, sys.float_info.max)


@dataclass(frozen=True, eq=False)
class PrivateLDA:
    """Weights W (d, C) and biases b (C,): the score of a row f of class c is fᵀw_c + b_c.

    Attributes:
        counts: rows of each class, (C,) > 0, noise drawn together.
        floor: τ = σ_G·√d, below which eigenvalues of the scatter are noise.
        conditioning: reciprocal condition number of the scatter with its eigenvalues raised.
    """

    weights: Floats
    biases: Floats
    counts: Floats
    floor: float
    conditioning: float


def relative_noise(cross_std: float, dim: int, rows: int, classes: int) -> float:
    """Return σ_Q·√d/(N/C): how long the noise of a class mean is, beside a row of norm 1.

    Args:
        cross_std: σ_Q, in units of rows of norm ≤ 1.
        dim: d.
        rows: N, the *declared* bound on all rows, so that this looks at no data.
        classes: C.
    """
    return cross_std * math.sqrt(dim) / (rows / classes)


def private_lda(gram: Floats, cross: Floats, counts: Floats, noise: SumNoise) -> PrivateLDA:
    """Return the discriminant of noisy (G, Q, n), freed of what noise adds on average.

    With M = Q/n and S = G − M·diag(n)·Mᵀ = UΛUᵀ, eigenvalues raised to τ = σ_G·√d,
    K = N/max(Λ, τ), W = UKUᵀM and

        b_c = −½[μ_cᵀw_c − σ_Q²·tr(K)/n_c² − Σ_i max(Λ_i, 0)·K_i/(N·n_c)].

    The second term is what the noise in Q adds to a class mean's squared length, and the third is
    what the mean of n_c rows has of their spread. Without them a class of few rows never wins.

    Args:
        gram: (d, d) symmetric, with noise, of rows of norm ≤ 1.
        cross: (d, C), with noise.
        counts: (C,), with noise; they are drawn together as far as it explains them.
        noise: that is in them; σ_G > 0.

    Raises:
        ConfigError: shapes that do not fit, numbers that are not finite, or σ_G = 0.
    """
    from scipy.linalg import eigh

    dim = len(gram)
    if gram.shape != (dim, dim) or cross.ndim != 2 or cross.shape != (dim, len(counts)) or not dim:
        raise ConfigError(
            f"gram {list(gram.shape)}, cross {list(cross.shape)}, counts {list(counts.shape)}; "
            "allowed: [d, d], [d, C], [C]"
        )
    if not all(np.isfinite(array).all() for array in (gram, cross, counts)):
        raise ConfigError("statistics hold NaN or infinity; allowed: finite numbers")
    if not noise.gram > 0:
        raise ConfigError("noise of gram is 0, allowed: > 0; an exact sum has head 'lda' itself")
    rows = np.array(drawn_together(counts.tolist(), noise.counts))
    total = float(rows.sum())
    means = cross / rows
    scatter = gram - (means * rows) @ means.T
    values, vectors = eigh((scatter + scatter.T) / 2, driver="evd")
    floor = noise.gram * math.sqrt(dim)
    raised = np.maximum(values, floor)
    inverse = total / raised
    turned = vectors.T @ means
    weights: Floats = vectors @ (inverse[:, None] * turned)
    lengths = (turned * (inverse[:, None] * turned)).sum(axis=0)
    spread = float((np.maximum(values, 0.0) * inverse).sum())
    lengths -= noise.cross**2 * float(inverse.sum()) / rows**2 + spread / (total * rows)
    conditioning = float(raised[0] / raised[-1])
    return PrivateLDA(weights, -0.5 * lengths, rows, floor, conditioning)
