"""Newton's method for logistic regression, from sums of integers at points that are public."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from protocols.layout import Block, Integers, Layout
from secure_afl.analytic.least_squares import LeftOut, combinations
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.residuals import WEIGHT_SCALE
from secure_afl.analytic.rounding import at_ends, coarse_columns
from secure_afl.analytic.statistics import Statistics

GRADIENT, CURVATURE, LIKELIHOOD = "gradient", "curvature", "log_likelihood"

FINE = 1 << 20
"""Steps of 1 in residuals and log-likelihoods of rows, which are rounded one by one."""

COARSE = 1 << 16
"""Steps of 1 in their weights, which the maximum does not turn on."""

# A row less likely than e^-2^14 counts as one of that.
_LEAST_LOG = 1 << 14


def newton_layout(
    parameters: int, outcomes: int, scale: int, total_rows: int, client_rows: int
) -> Layout:
    """Lay out gradient, curvature and log-likelihood over at most `total_rows` rows.

    Entries of a row are of size ≤ s, residuals ≤ 1, weights ≤ ¼.

    Args:
        parameters: p, those of one outcome, the intercept among them.
        outcomes: K ≥ 1, classes but for the reference.
        scale: s = 2^bits.
        total_rows, client_rows: bounds on the rows of all clients, and of one.

    Raises:
        WouldOverflow: no ring holds that many rows.
    """

    def block(name: str, length: int, each: int, unit: float) -> Block:
        most, own = total_rows * each, client_rows * each
        return Block(name, length, -most, most, unit, -own, own)

    pairs, entries = outcomes * (outcomes + 1) // 2, parameters * (parameters + 1) // 2
    most, own = total_rows * _LEAST_LOG * FINE, client_rows * _LEAST_LOG * FINE
    return Layout(
        (
            block(GRADIENT, parameters * outcomes, scale * FINE, 1 / (scale * FINE)),
            block(CURVATURE, pairs * entries, scale**2 * COARSE // 4, 1 / (scale**2 * COARSE)),
            Block(LIKELIHOOD, 1, -most, 0, 1 / FINE, -own, 0),
        )
    )


def newton_vector(
    rows: Floats,
    places: Integers,
    point: Floats,
    scale: int,
    *,
    fine: int = FINE,
    coarse: int = COARSE,
) -> Integers:
    """Sum up Σx̃(y − P)ᵀ, ΣP_a(δ_ab − P_b)x̃x̃ᵀ for a ≤ b, and Σlog P_y of some rows.

    Residuals and logarithms of each row are rounded to 2^-20, weights to 2^-16, so that all sums
    are exact, and those of two clients' rows are the sums of theirs.

    Args:
        rows: x̃ = (2^bits, F), (n, p) whole numbers; n ≤ 4,096, that products stay below 2^53.
        places: of the rows' classes: 0 for the reference, 1 to K; −1 for a class that is in no
            model.
        point: (p, K), from `on_grid`.
        scale: 2^bits.
        fine, coarse: steps of 1 in residuals and logarithms, and in weights.

    Returns:
        int64, as `newton_layout` has it.
    """
    n, outcomes = len(rows), point.shape[1]
    scores = np.zeros((n, outcomes + 1))
    scores[:, 1:] = (rows @ np.rint(point * WEIGHT_SCALE)) / (scale * WEIGHT_SCALE)
    scores -= scores.max(axis=1, keepdims=True)
    shares = np.exp(scores)
    sums = np.add.reduce(shares, axis=1, keepdims=True)
    shares /= sums
    known = np.flatnonzero(places >= 0)
    of_labels = scores[known, places[known]] - np.log(sums[known, 0])
    likelihood = np.rint(fine * np.maximum(of_labels, -_LEAST_LOG)).sum()
    residuals = -shares
    residuals[known, places[known]] += 1.0
    parts = [(rows.T @ np.rint(fine * residuals[:, 1:])).ravel()]
    upper = np.triu_indices(rows.shape[1])
    for a in range(1, outcomes + 1):
        for b in range(a, outcomes + 1):
            weights = np.rint(coarse * shares[:, a] * (float(a == b) - shares[:, b]))
            parts.append((rows.T @ (rows * weights[:, None]))[upper])
    return np.concatenate([*parts, [likelihood]]).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Slope:
    """Log-likelihood ℓ at a point, with its gradient and curvature there.

    Attributes:
        point: (p, K).
        value: ℓ ≤ 0, less the penalty.
        bare: ℓ without it.
        gradient: of `value`, (K·p,): those of one outcome are neighbours.
        curvature: −∂²ℓ, (K·p, K·p), without the penalty's part.
        penalty: that part.
    """

    point: Floats
    value: float
    bare: float
    gradient: Floats
    curvature: Floats
    penalty: Floats

    def __repr__(self) -> str:
        return f"<Slope {self.point.shape}>"

    def used(self, kept: Integers) -> Integers:
        """Return places in the gradient of the parameters that are fitted."""
        p, outcomes = self.point.shape
        found: Integers = (np.arange(outcomes)[:, None] * p + kept).ravel()
        return found

    def step(self, kept: Integers) -> Floats:
        """Return Newton's step (p, K); zero for parameters that are not fitted."""
        used = self.used(kept)
        moved = np.zeros(self.point.size)
        moved[used] = self._inverse(used) @ self.gradient[used]
        return moved.reshape(self.point.shape[::-1]).T

    def along(self, step: Floats) -> float:
        """Return the curvature along a step (p, K), without the penalty's part."""
        flat = step.T.ravel()
        return float(flat @ self.curvature @ flat)

    def covariance(self, kept: Integers) -> Floats:
        """Return (H + Λ)⁻¹H(H + Λ)⁻¹ of the fitted parameters, zeros for others, (K·p, K·p)."""
        used = self.used(kept)
        return self._through(kept, self.curvature[np.ix_(used, used)])

    def rounding(self, kept: Integers, gram: Floats, rows: float) -> float:
        """Bound how far rounding of residuals moves any weight, in its standard errors.

        Residuals are off by ½ step at most, e with |e_i| ≤ ½/2^20. To first order weights then move
        by (H + Λ)⁻¹Σx̃e, and |Σ_i a_i·e_i| ≤ √N·‖a‖·max|e| for a_i = ((H + Λ)⁻¹x̃_i)_j.

        Args:
            gram: Σx̃x̃ᵀ, (p, p).
            rows: N.
        """
        used = self.used(kept)
        spread = self._through(kept, self._every(kept, gram))
        moved = np.sqrt(np.maximum(spread[used, used], 0))
        errors = np.sqrt(np.maximum(self.covariance(kept)[used, used], np.finfo(float).tiny))
        return float((moved / errors).max()) * math.sqrt(rows) / (2 * FINE)

    def blur(self, kept: Integers, gram: Floats) -> Floats:
        """Bound by how much rounding of weights changes the covariance, (K·p, K·p), to first order.

        Weights are off by half a step at most, ½/2^16. With K outcomes the curvature is then off by
        no more than K times that of I ⊗ Σx̃x̃ᵀ, whichever way one looks.

        Args:
            gram: Σx̃x̃ᵀ, (p, p).
        """
        return self._through(kept, self._every(kept, gram)) / (2 * COARSE)

    def _every(self, kept: Integers, gram: Floats) -> Floats:
        """Return K·(I ⊗ Σx̃x̃ᵀ) of the fitted parameters."""
        used, outcomes = self.used(kept), self.point.shape[1]
        return np.asarray(np.kron(np.eye(outcomes), gram)[np.ix_(used, used)] * outcomes)

    def _through(self, kept: Integers, middle: Floats) -> Floats:
        """Return (H + Λ)⁻¹M(H + Λ)⁻¹ of the fitted parameters, zeros for others, (K·p, K·p)."""
        used = self.used(kept)
        inverse = self._inverse(used)
        found = np.zeros_like(self.curvature)
        found[np.ix_(used, used)] = inverse @ middle @ inverse
        return found

    def _inverse(self, used: Integers) -> Floats:
        """Invert what is fitted of H + Λ; directions without any curvature are left alone."""
        whole = (self.curvature + self.penalty)[np.ix_(used, used)]
        scale = np.sqrt(np.maximum(whole.diagonal(), np.finfo(float).tiny))
        inverse = np.linalg.pinv(whole / np.outer(scale, scale), 1e-14, hermitian=True)
        return np.asarray(inverse / np.outer(scale, scale), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Start:
    """The first sum of (G, Q, n), as logistic regression sees it.

    Attributes:
        gram: Σx̃x̃ᵀ, (p, p), in units of rows of norm 1.
        cross: Σx̃y of each class that has rows, (p, K + 1).
        counts: rows of these classes, (K + 1,).
        ridge: λ.
        left_out: columns that are in no fit.
    """

    gram: Floats
    cross: Floats
    counts: Floats
    ridge: float
    left_out: tuple[LeftOut, ...]

    def __repr__(self) -> str:
        return f"<Start of {len(self.counts)} classes>"

    @classmethod
    def of(cls, statistics: Statistics, quantiser: Quantiser, ridge: float) -> "Start":
        """Read the sum; classes without rows are in no model.

        With a penalty all columns are fitted; else one that is a combination of earlier ones is
        not, as in `least_squares`.
        """
        gram, cross = statistics.floats(quantiser)
        present = np.flatnonzero(statistics.counts)
        counts, cross = statistics.counts[present].astype(np.float64), cross[:, present]
        whole = np.empty((len(gram) + 1, len(gram) + 1))
        whole[0, 0], whole[1:, 1:] = counts.sum(), gram
        whole[0, 1:] = whole[1:, 0] = cross.sum(axis=1)
        left_out: tuple[LeftOut, ...] = ()
        if ridge == 0:
            rows, sums = statistics.rows, statistics.cross.sum(axis=1).astype(object)
            moments = rows * statistics.gram.astype(object) - np.outer(sums, sums)
            left_out = combinations(moments, rows)
        return cls(whole, np.vstack([counts, cross]), counts, ridge, left_out)

    @cached_property
    def kept(self) -> Integers:
        """Places of parameters that are fitted, ascending: the intercept 0, columns 1 to d."""
        every = np.arange(len(self.gram), dtype=np.int64)
        return np.setdiff1d(every, [column.place + 1 for column in self.left_out])

    def coarse(self, quantiser: Quantiser) -> Integers:
        """List the columns, from 0, of whose own variance rounding is a hundredth or more."""
        rows, squares = self.gram[0, 0], self.gram.diagonal()[1:] * quantiser.scale**2
        used = self.kept[self.kept > 0]
        sums = self.gram[0, used]
        centred = (self.gram[np.ix_(used, used)] - np.outer(sums, sums) / rows) * quantiser.scale**2
        scale = np.sqrt(np.maximum(centred.diagonal(), np.finfo(float).tiny))
        own = np.linalg.pinv(centred / np.outer(scale, scale), 1e-14, hermitian=True).diagonal()
        inverse = np.full(len(squares), np.nan)
        inverse[used - 1] = own / scale**2
        return coarse_columns(inverse, rows, at_ends(squares, rows, quantiser))

    @cached_property
    def null_value(self) -> float:
        """Log-likelihood of the class shares alone."""
        return float((self.counts * np.log(self.counts / self.counts.sum())).sum())

    def slope(self) -> Slope:
        """Return ℓ at the class shares, where the sum of statistics gives all of it."""
        shares = self.counts / self.counts.sum()
        point = np.zeros((len(self.gram), len(shares) - 1))
        point[0] = np.log(shares[1:] / shares[0])
        gradient = (self.cross - np.outer(self.gram[0], shares))[:, 1:].T.ravel()
        weights = np.diag(shares[1:]) - np.outer(shares[1:], shares[1:])
        curvature = np.kron(weights, self.gram)
        value = self.null_value
        return Slope(point, value, value, gradient, curvature, self._penalty(point.shape))

    def slope_at(self, point: Floats, total: Integers, scale: int) -> Slope:
        """Return ℓ at a point, from the total of `newton_vector` there."""
        p, outcomes = point.shape
        sizes = np.cumsum([p * outcomes, len(total) - p * outcomes - 1])
        gradient, curvature, likelihood = np.split(total, sizes)
        slope = (gradient.reshape(p, outcomes) / (scale * FINE)).T.ravel()
        whole, upper, at = np.zeros((outcomes, outcomes, p, p)), np.triu_indices(p), 0
        for a in range(outcomes):
            for b in range(a, outcomes):
                part = curvature[at : at + len(upper[0])] / (scale**2 * COARSE)
                matrix = np.zeros((p, p))
                matrix[upper] = part
                whole[a, b] = matrix + np.triu(matrix, 1).T
                whole[b, a] = whole[a, b]
                at += len(upper[0])
        curved = whole.transpose(0, 2, 1, 3).reshape(outcomes * p, outcomes * p)
        penalty, flat = self._penalty(point.shape), point.T.ravel()
        pulled = penalty @ flat
        bare = float(likelihood[0]) / FINE
        return Slope(
            point, bare - 0.5 * float(flat @ pulled), bare, slope - pulled, curved, penalty
        )

    def _penalty(self, shape: tuple[int, ...]) -> Floats:
        """Return Λ: λ on the columns' weights; of more than two classes on those less their mean.

        So it does not matter which class is the reference.
        """
        p, outcomes = shape
        between = np.eye(outcomes)
        if outcomes > 1:
            between -= 1 / (outcomes + 1)
        each = np.diag([0.0] + [self.ridge] * (p - 1))
        return np.asarray(np.kron(between, each), dtype=np.float64)


def fell(before: Slope, after: Slope, rows: float) -> bool:
    """Say whether a step made ℓ smaller.

    Rounding changes the difference of two values of ℓ by up to a step a row. Where it may have
    made all of the difference, the mean of the slopes at either end decides.

    Args:
        rows: N.
    """
    change = after.value - before.value
    if abs(change) > rows / FINE:
        return change < 0
    step = (after.point - before.point).T.ravel()
    return float((before.gradient + after.gradient) @ step) < 0


def shorter(before: Slope, after: Slope) -> float:
    """Return by how much to shorten a step that made ℓ smaller, 0.1 to 0.5.

    It is where the cubic through values and slopes at either end is greatest.
    """
    step = (after.point - before.point).T.ravel()
    first, last = float(before.gradient @ step), float(after.gradient @ step)
    bent = first + last - 3 * (after.value - before.value)
    inside = bent * bent - first * last
    if first <= 0 or inside < 0:
        return 0.5
    root = math.sqrt(inside)
    below = 2 * root - last + first
    best = 1 - (root - last + bent) / below if below > 0 else 0.5
    # A number that is none, for values that overflow, is half.
    return min(0.5, max(0.1, best)) if math.isfinite(best) else 0.5
