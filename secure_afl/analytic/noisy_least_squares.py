"""Least squares from noisy sums, and what the noise adds to its errors."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from secure_afl.analytic.private_ridge import noise_floor, raise_eigenvalues
from secure_afl.analytic.quantise import Floats

# Below this many times the noise's spectral norm the least eigenvalue of a noisy Gram matrix is
# too uncertain for an interval: benchmarks/regression.py has the coverage.
LEAST_SIGNAL = 1.0


class RegressionNoise(NamedTuple):
    """Standard deviations of the noise on each kind of entry, in units of rows of norm ≤ 1.

    Attributes:
        gram: on the diagonal of the Gram matrix; off it, 1/√2 of that.
        cross, sums, rows, target_sum, target_squares: on an entry of each.
    """

    gram: float
    cross: float
    sums: float
    rows: float
    target_sum: float
    target_squares: float


@dataclass(frozen=True, eq=False)
class NoisyMoments:
    """Noisy second moments of rows of norm ≤ 1, a constant, and targets in [−1, 1].

    Attributes:
        gram: (d, d), symmetric.
        cross, sums: (d,).
        rows, target_sum, target_squares: noisy N, Σt and Σt².
        noise: that they carry.
    """

    gram: Floats
    cross: Floats
    sums: Floats
    rows: float
    target_sum: float
    target_squares: float
    noise: RegressionNoise

    def __repr__(self) -> str:
        return f"<NoisyMoments of {len(self.sums)} columns>"


@dataclass(frozen=True, eq=False)
class NoisyFit:
    """A fit of noisy sums.

    Attributes:
        rows: noisy N, at least 1.
        intercept: a.
        weights: w, (d,).
        covariance: of (a, w), noise counted in, (d + 1, d + 1); None where it says nothing.
        variance: σ² of a target about its prediction; no less than its own noise.
        total: variance of the targets, likewise; None where noise leaves none.
    """

    rows: float
    intercept: float
    weights: Floats
    covariance: Floats | None
    variance: float
    total: float | None

    def __repr__(self) -> str:
        return f"<NoisyFit of {len(self.weights)} columns>"


def noisy_least_squares(moments: NoisyMoments, penalty: float = 0.0) -> NoisyFit:
    """Fit targets to noisy sums; it looks at nothing else.

    Let M β = v be the normal equations of rows with a constant, E_M and E_v the noise on them, and
    β_N the solution without noise. Then β̂ − β_N = M̂⁻¹(E_v − E_M·β_N), exactly. So

        cov(β̂) ≈ M̂⁻¹(σ²M̂ + V(β̂))M̂⁻¹,  V(β) = cov(E_v − E_M·β),

    where V follows from the noise of each block, and the residual sum of squares at β̂ falls short
    by tr(M̂⁻¹V) on average. That holds while noise is small beside the least eigenvalue of the
    centred Gram matrix. Where it is not, eigenvalues are raised to a floor that public numbers
    give, and there is no covariance. Nor is there with ridge, whose bias it lacks.

    Args:
        penalty: ≥ 0, in squared norms of rows.
    """
    noise, dim = moments.noise, len(moments.sums)
    rows = max(moments.rows, 1.0)
    mean, target_mean = moments.sums / rows, moments.target_sum / rows
    gram = moments.gram - rows * np.outer(mean, mean)
    cross = moments.cross - rows * mean * target_mean
    gram = (gram + gram.T) / 2
    # Twice the standard deviation off the diagonal, times √d; of few columns three on it.
    strongest = max(math.sqrt(2 * dim), 3.0) * noise.gram
    clear = (
        float(np.linalg.eigvalsh(gram)[0]) > LEAST_SIGNAL * strongest
        and moments.rows > dim + 2 + 4 * noise.rows
    )
    if penalty > 0:
        floored = raise_eigenvalues(gram, 0.0) + penalty * np.eye(dim)
    else:
        floored = gram if clear else raise_eigenvalues(gram, noise_floor(noise.gram, dim))
    weights = np.asarray(np.linalg.solve(floored, cross), dtype=np.float64)
    intercept = float(target_mean - mean @ weights)
    beta = np.append(intercept, weights)
    spread = noise_covariance(beta, noise)
    whole = np.empty((dim + 1, dim + 1))
    whole[0, 0], whole[1:, 1:] = rows, floored + rows * np.outer(mean, mean)
    whole[0, 1:] = whole[1:, 0] = moments.sums
    inverse = np.linalg.inv(whole)
    total = moments.target_squares - rows * target_mean**2
    residual = total - 2 * float(weights @ cross) + float(weights @ gram @ weights)
    residual += float(np.sum(inverse * spread))
    freedom = max(rows - dim - 1, 1.0)
    uncertain = _residual_noise(beta, noise)
    variance = max(residual, uncertain) / freedom
    known = clear and penalty == 0
    return NoisyFit(
        rows=rows,
        intercept=intercept,
        weights=weights,
        covariance=inverse @ (variance * whole + spread) @ inverse if known else None,
        variance=variance,
        total=total / rows if total > 2 * uncertain else None,
    )


def noise_covariance(beta: Floats, noise: RegressionNoise) -> Floats:
    """Return V(β), the covariance of E_v − E_M·β for β = (a, w), (d + 1, d + 1).

    A row of it for the constant has the noise of Σt, N and Σx; that of a column the noise of its
    entry of Xᵀt, of its sum and of its line of the Gram matrix. Each number off the diagonals of
    M is in two rows, which couples them.
    """
    constant, weights = beta[0], beta[1:]
    half = noise.gram**2 / 2
    spread = np.empty((len(beta), len(beta)))
    norm = float(weights @ weights)
    spread[0, 0] = noise.target_sum**2 + (noise.rows * constant) ** 2 + noise.sums**2 * norm
    spread[0, 1:] = spread[1:, 0] = noise.sums**2 * constant * weights
    # On the diagonal the variance is twice that off it, which makes w_i·w_k hold there too.
    spread[1:, 1:] = half * np.outer(weights, weights)
    one = noise.cross**2 + (noise.sums * constant) ** 2 + half * norm
    spread[1:, 1:] += one * np.eye(len(weights))
    return spread


def _residual_noise(beta: Floats, noise: RegressionNoise) -> float:
    """Return the standard deviation of the noise on Σ(t − a − xᵀw)² at a given β."""
    constant, norm = beta[0], float(beta[1:] @ beta[1:])
    linear = (noise.target_sum * constant) ** 2 + noise.cross**2 * norm
    squares = (noise.rows * constant**2) ** 2 + 4 * (noise.sums * constant) ** 2 * norm
    return math.sqrt(noise.target_squares**2 + 4 * linear + squares + (noise.gram * norm) ** 2)
