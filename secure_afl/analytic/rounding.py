"""How far the rounding of rows and targets can have moved the weights of least squares."""

import math
from collections.abc import Sequence

import numpy as np

from secure_afl.analytic.least_squares import LeastSquares
from secure_afl.analytic.moments import Bools
from secure_afl.analytic.quantise import Floats, Integers, Quantiser
from secure_afl.data.columns import Columns
from secure_afl.data.mapping import shorten

_COARSE = 0.01

# More columns than this that are left out are told in one sentence.
_NAMED = 8


def rounding_bound(fit: LeastSquares, quantiser: Quantiser) -> Floats:
    """Bound how far each weight is from that of rows which were not rounded, (d,) in its units.

    Let X, y be the rounded rows and targets less their means, U = X − E and v = y − g the exact
    ones, w the weights of X, y with residuals r, and w* those of U, v. Then

        w* − w = U⁺(Ew − g) − (UᵀU)⁻¹Eᵀr.

    *Proof.* w* − w = (UᵀU)⁻¹Uᵀ(v − Uw), v − Uw = r + Ew − g, and Uᵀr = −Eᵀr, for Xᵀr = 0. ∎

    Columns are divided by their lengths ‖x_j‖. Then σ is the least singular value of X, η² ≥ ‖E‖²
    the sum over columns of ‖e_j‖²/‖x_j‖², and q_j = √(XᵀX)⁻¹_jj the inverse of the distance of
    column j to the span of the others. That distance is min ‖Xa‖ over a_j = 1, so that E makes it
    shorter by the factor 1 − η/σ at most. With ω ≥ ‖Ew − g‖,

        |w*_j − w_j| ≤ q_j/(1 − η/σ) · (ω + η‖r‖/(σ − η)) / ‖x_j‖.

    Entries are off by half a step at most, or by less than one where a rounded row was too long and
    was truncated instead. Truncated rows have norm ≥ s − 3√d/2; the sum of all squared norms bounds
    their number. In mode `columns`, and up to four features, there are none.

    Args:
        fit: without ridge.
        quantiser: of the rows.

    Returns:
        (d,) float64: infinite where rounding may have made columns of combinations; NaN for a
        column that was left out.
    """
    bound = np.full(len(fit.weights), np.nan)
    kept = fit.kept
    if not len(kept):
        return bound
    truncated = _truncated(fit, quantiser)
    size = float(np.abs(fit.weights[kept]).sum())
    moved = _root(fit.rows, truncated, (size + 1) / 2, size + 0.5)
    lengths = np.sqrt(fit.squares[kept])
    eta = float(np.sqrt(np.sum((_root(fit.rows, truncated, 0.5, 1.0) / lengths) ** 2)))
    # The least singular value is the inverse's greatest; the last digits are its own rounding.
    least = (1 - 1e-9) / math.sqrt(float(np.linalg.eigvalsh(fit.factor)[-1]))
    if eta >= least:
        bound[kept] = np.inf
        return bound
    residual = math.sqrt(max(fit.residual, 0.0))
    distances = np.sqrt(fit.factor.diagonal()) / (1 - eta / least)
    bound[kept] = distances * (moved + eta * residual / (least - eta)) / lengths
    return bound


def coarse_columns(inverse: Floats, rows: float, exact: Bools) -> Integers:
    """List the columns of whose own variance rounding is more than a hundredth, ascending.

    Independent roundings, of variance 1/12 each, draw a slope to 0 by their share of what of the
    column's variance no other column explains.

    Args:
        inverse: diagonal of the inverse of Σ(x − mean)(x − mean)ᵀ in steps, (d,); NaN for a column
            that is in no fit.
        rows: N.
        exact: columns that are not rounded, as indicators, (d,).
    """
    share = np.where(exact, 0.0, inverse * rows / 12)
    found: Integers = np.flatnonzero(share > _COARSE)
    return found


def about_coarse(places: Sequence[int], columns: Columns | None) -> tuple[str, ...]:
    """Name the columns whose coefficients rounding has drawn to 0; nothing where there are none."""
    if not places:
        return ()
    names = [f"x{place}" if columns is None else columns.names[place] for place in places]
    return (
        f"Rounding is a hundredth or more of the own variance of {shorten(names)}, and draws "
        "coefficients to 0. Ranges are far wider than values need, or columns nearly repeat each "
        "other: declare narrower ranges, or leave columns out.",
    )


def about_left_out(
    left_out: Sequence[tuple[int, Sequence[int]]], columns: Columns | None, option: str
) -> tuple[str, ...]:
    """Name the columns that are in no fit, each with those that it is a combination of.

    Args:
        left_out: places of columns, as `LeastSquares` has them.
        columns: whose names are said; without, they are x0, x1 and so on.
        option: that would keep them.
    """

    def name(place: int) -> str:
        return f"'x{place}'" if columns is None else f"'{columns.names[place]}'"

    if len(left_out) > _NAMED:
        return (
            f"{shorten([name(place) for place, _ in left_out])} do not vary or are combinations "
            "of other columns, as far as rounding lets tell, and have no coefficients. Leave them "
            f"out, or set {option}.",
        )
    said = []
    for place, of in left_out:
        if not of:
            said.append(
                f"{name(place)} does not vary in the sum, as far as rounding lets tell, and has no "
                "coefficient. Leave it out, or declare a narrower range."
            )
            continue
        partners = ", ".join(name(other) for other in of)
        said.append(
            f"{name(place)} is a combination of {partners}, as far as rounding lets tell, and has "
            f"no coefficient: theirs hold its part. Leave one of them out, or set {option}."
        )
    return tuple(said)


def at_ends(squares: Floats, rows: float, quantiser: Quantiser) -> Bools:
    """Say which columns are at ends of their ranges in all rows, and not rounded, (d,).

    Args:
        squares: Σx² in steps, (d,).
    """
    if quantiser.mode != "columns":
        return np.zeros(len(squares), dtype=bool)
    ends = float(rows) * quantiser.end(len(squares)) ** 2
    found: Bools = np.abs(squares - ends) <= 1e-9 * ends
    return found


def _truncated(fit: LeastSquares, quantiser: Quantiser) -> float:
    """Bound the rows whose entries may be off by a whole step."""
    dim = len(fit.weights)
    if dim <= 4 or quantiser.mode == "columns":
        return 0.0
    energy = float(np.sum(fit.squares + fit.rows * fit.means**2))
    shortest = quantiser.scale - 1.5 * math.sqrt(dim)
    return float(fit.rows) if shortest <= 0 else min(fit.rows, energy / shortest**2)


def _root(rows: int, truncated: float, most: float, most_truncated: float) -> float:
    """Return the norm of entries of size `most`, those of some rows being larger."""
    return math.sqrt(rows * most**2 + truncated * (most_truncated**2 - most**2))
