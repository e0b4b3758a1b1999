"""Least squares and ridge from exact integer sums, with nothing lost to cancellation.

Means are taken off in whole numbers: N·XᵀX − ssᵀ has no rounding, however large means are beside
deviations. Weights are then refined by residuals that are whole numbers too.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.regression_sums import RegressionSums
from secure_afl.errors import NoModel

Exact = NDArray[Any]
"""An array of Python's own integers."""

# Weights are multiples of 2^-128 while they are refined.
_SHIFT = 128
_MOST_STEPS = 12

# Twice the variance of a number's rounding, in squared steps.
_ROUNDING = 1 / 6


class LeftOut(NamedTuple):
    """A column that is in no fit: it is a combination of others, or does not vary if of none."""

    place: int
    of: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LeastSquares:
    """A fit with an intercept, in units of the integers.

    Attributes:
        rows: N.
        weights: (d,) float64; 0 for a column that was left out.
        covariance: of the weights, over the variance of a target about its mean, (d, d).
        means: of the columns, (d,).
        target_mean: of the targets.
        residual: Σ(t − prediction)².
        total: Σ(t − mean)².
        effective: weights that are free: the columns in the fit; fewer with ridge.
        squares: Σ(x − mean)² of each column, (d,).
        left_out: columns that are in no fit.
        factor: inverse of the columns' matrix of correlations, for those in the fit.
        kept: their places.
    """

    rows: int
    weights: Floats
    covariance: Floats
    means: Floats
    target_mean: float
    residual: float
    total: float
    effective: float
    squares: Floats
    left_out: tuple[LeftOut, ...]
    factor: Floats
    kept: Integers

    def __repr__(self) -> str:
        return f"<LeastSquares of {len(self.weights)} columns>"

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the residual, N − 1 − effective."""
        return self.rows - 1 - self.effective


@dataclass(frozen=True, eq=False)
class _Centred:
    """N times the sums of products of what deviates from means, exact."""

    rows: int
    gram: Exact
    cross: Exact
    total: int

    @classmethod
    def of(cls, sums: RegressionSums) -> "_Centred":
        moments = sums.whole()
        places = [*range(len(sums.sums)), len(sums.sums) + 1]
        values, first = moments[np.ix_(places, places)], moments[places, -2]
        centred = sums.rows * values - np.outer(first, first)
        return cls(sums.rows, centred[:-1, :-1], centred[:-1, -1], int(centred[-1, -1]))


def least_squares(sums: RegressionSums, penalty: float = 0.0) -> LeastSquares:
    """Fit targets by least squares with an intercept, from exact sums.

    With ridge it minimises Σ(t − a − xᵀw)² + penalty·‖w‖². Without, columns that are combinations
    of those before them, as far as rounding lets tell, are left out; as R's `lm` does.

    Args:
        sums: without weights, of N ≥ 1 rows.
        penalty: ≥ 0, in squared integer units.

    Raises:
        NoModel: no more rows than columns and an intercept.
    """
    dim = len(sums.sums)
    if sums.rows < dim + 2:
        raise NoModel(
            f"{sums.rows} rows for {dim} columns and an intercept; allowed: ≥ {dim + 2}, for "
            "errors take a row beyond them. Give more rows, or leave columns out"
        )
    centred = _Centred.of(sums)
    left_out = combinations(centred.gram, centred.rows) if penalty == 0 else ()
    kept = np.setdiff1d(np.arange(dim), [column.place for column in left_out])
    system = _System.of(centred, kept, penalty)
    exact = system.solve()
    weights, covariance, squares = np.zeros(dim), np.full((dim, dim), np.nan), np.zeros(dim)
    weights[kept] = [value / (1 << _SHIFT) for value in exact]
    covariance[np.ix_(kept, kept)] = system.covariance()
    squares[:] = [int(entry) / sums.rows for entry in centred.gram.diagonal()]
    return LeastSquares(
        rows=sums.rows,
        weights=weights,
        covariance=covariance,
        means=np.array([int(value) / sums.rows for value in sums.sums]),
        target_mean=sums.target_sum / sums.rows,
        residual=system.residual(exact),
        total=centred.total / sums.rows,
        effective=system.effective() if penalty > 0 else float(len(kept)),
        squares=squares,
        left_out=left_out,
        factor=system.inverse,
        kept=kept,
    )


@dataclass(frozen=True, eq=False)
class _System:
    """The normal equations of the columns in a fit, exact and as floats.

    Attributes:
        centred: of these columns.
        left: exact, times N and a whole number `scale`, with the penalty on its diagonal.
        scale: makes the penalty whole.
        lengths: roots of the diagonal, over √(N·scale), (k,).
        inverse: of the matrix divided by lengths, (k, k).
        penalised: whether there is a penalty.
    """

    centred: _Centred
    left: Exact
    scale: int
    lengths: Floats
    inverse: Floats
    penalised: bool

    @classmethod
    def of(cls, centred: _Centred, kept: Integers, penalty: float) -> "_System":
        chosen = _Centred(
            centred.rows, centred.gram[np.ix_(kept, kept)], centred.cross[kept], centred.total
        )
        whole = Fraction(penalty)
        left = chosen.gram * whole.denominator
        for place in range(len(kept)):
            left[place, place] += chosen.rows * whole.numerator
        scale = whole.denominator
        unit = chosen.rows * scale
        lengths = np.sqrt([int(entry) / unit for entry in left.diagonal()])
        matrix = _floats(left, unit) / np.outer(lengths, lengths)
        return cls(chosen, left, scale, lengths, _inverse(matrix), penalty > 0)

    def solve(self) -> Exact:
        """Return the weights times 2^128, refined by exact residuals."""
        right = self.centred.cross * (self.scale << _SHIFT)
        unit = (self.centred.rows * self.scale) << _SHIFT
        found = np.zeros(len(right), dtype=object)
        largest = 0.0
        for _ in range(_MOST_STEPS):
            residual = right - self.left.dot(found) if len(found) else right
            step = self.inverse @ (_floats(residual, unit) / self.lengths)
            size = float(np.abs(step).max(initial=0.0))
            largest = max(largest, size)
            if size <= largest * 2.0**-90:
                break
            for place, value in enumerate(step / self.lengths):
                found[place] += int(math.ldexp(value, _SHIFT))
        return found

    def residual(self, exact: Exact) -> float:
        """Return Σ(t − prediction)²; second order in what the weights are off."""
        centred = self.centred
        inner = int(exact @ (centred.gram.dot(exact))) if len(exact) else 0
        crossed = int(exact @ centred.cross) if len(exact) else 0
        whole = (centred.total << (2 * _SHIFT)) - (crossed << (_SHIFT + 1)) + inner
        return whole / (centred.rows << (2 * _SHIFT))

    def covariance(self) -> Floats:
        """Return the weights' covariance over the variance of a target, (k, k)."""
        inner = self.inverse
        if self.penalised:
            inner = inner @ self._plain() @ inner
        return np.asarray(inner / np.outer(self.lengths, self.lengths))

    def effective(self) -> float:
        """Return tr(H⁻¹G), the weights that are free."""
        return float(np.sum(self.inverse * self._plain()))

    def _plain(self) -> Floats:
        matrix = _floats(self.centred.gram, self.centred.rows)
        return np.asarray(matrix / np.outer(self.lengths, self.lengths))


def _floats(exact: Exact, unit: int) -> Floats:
    """Divide whole numbers by one, each rounded once."""
    flat = [int(value) / unit for value in exact.ravel()]
    return np.array(flat, dtype=np.float64).reshape(exact.shape)


def _inverse(matrix: Floats) -> Floats:
    """Invert a positive definite matrix with a diagonal of ones."""
    from scipy.linalg import cho_factor, cho_solve

    if not len(matrix):
        return matrix
    inverse = cho_solve(cho_factor(matrix), np.eye(len(matrix)))
    return np.asarray((inverse + inverse.T) / 2)


def combinations(gram: Exact, rows: int) -> tuple[LeftOut, ...]:
    """List the columns that are combinations of those before them, as far as rounding lets tell.

    Rounding moves each entry by up to half a step, evenly, so that a column which is Σk_i·x_i
    deviates from it by a variance of (1 + Σk²)/12 squared steps. What deviates by no more than
    twice that is taken for such a combination.

    Args:
        gram: N·XᵀX − ssᵀ of columns in steps, s being their sums, (d, d).
        rows: N.
    """
    from scipy.linalg import solve_triangular

    variances = np.array([int(entry) / rows**2 for entry in gram.diagonal()])
    lengths = np.sqrt(np.where(variances > 0, variances, 1.0))
    matrix = _floats(gram, rows**2) / np.outer(lengths, lengths)
    kept: list[int] = []
    factor = np.zeros_like(matrix)
    found: list[LeftOut] = []
    for place in range(len(matrix)):
        triangle = factor[: len(kept), : len(kept)]
        if variances[place] <= _ROUNDING:
            found.append(LeftOut(place, ()))
            continue
        row = solve_triangular(triangle, matrix[kept, place], lower=True) if kept else np.empty(0)
        rest = matrix[place, place] - float(row @ row)
        shares = solve_triangular(triangle.T, row) if kept else row
        weights = shares * lengths[place] / lengths[kept]
        if rest * variances[place] <= _ROUNDING * (1 + float(weights @ weights)):
            partners = (at for at, share in zip(kept, shares, strict=True) if abs(share) > 0.05)
            found.append(LeftOut(place, tuple(partners)))
            continue
        factor[len(kept), : len(kept)] = row
        factor[len(kept), len(kept)] = math.sqrt(rest)
        kept.append(place)
    return tuple(found)
