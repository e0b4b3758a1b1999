"""A fitted logistic regression in its columns' own units: odds, errors, and notes."""

import math
from collections.abc import Sequence

import numpy as np

from protocols.codec import Wire
from secure_afl.analytic.coefficients import INTERCEPT, Coefficient, Fit
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.data.columns import Columns
from secure_afl.intervals import t_tests

LEVEL = 0.95

MOST_BLUR = 0.1
"""An error is given where rounding of weights changes its square by no more than this share."""


class LogisticFit(Wire, frozen=True, eq=False):
    """What the sums gave, as everybody is given it.

    Attributes:
        weights: (p, K) float64: log-odds against the reference, the intercept first, for rows of
            norm ≤ 1.
        estimates, errors: the same in the columns' own units; zeros where there is no estimate, and
            NaN for an error that rounding of weights hides.
        likelihood, null: log-likelihood at `weights`' last sum, and of the class shares alone.
        rows: N.
        gain: what one more step could add to the log-likelihood, at most about.
        rounding: the most by which rounding of residuals moved an estimate, in standard errors.
        ended: why there was no further sum: `converged`, `rounds`, `separable`,
            `separable in part` or `one class`.
        coarse: places of columns of whose own variance rounding is a hundredth or more.
        left_out: places of columns that are in no fit, each with those that it is a combination of.
        rarest: the class that is too rare for weights that are rounded, and its rows.
    """

    weights: Floats
    estimates: Floats
    errors: Floats
    likelihood: float
    null: float
    rows: int
    gain: float
    rounding: float
    ended: str
    coarse: tuple[int, ...] = ()
    left_out: tuple[tuple[int, tuple[int, ...]], ...] = ()
    rarest: tuple[int, int] | None = None

    def __repr__(self) -> str:
        return f"<LogisticFit {self.ended}>"


def in_own_units(
    weights: Floats, covariance: Floats, columns: Columns | None, quantiser: Quantiser
) -> tuple[Floats, Floats]:
    """Return estimates and standard errors, (p, K) each.

    A column's value is centre + half·√d times its feature. Without columns units are those of
    features.

    Args:
        weights: (p, K), of X/2^bits.
        covariance: of them, (K·p, K·p).
    """
    p, outcomes = weights.shape
    turn = np.eye(p)
    per = quantiser.steps(p - 1) / quantiser.scale
    units, centres = np.full(p - 1, per), np.zeros(p - 1)
    if columns is not None:
        units, centres = per / (columns.halves * math.sqrt(p - 1)), columns.centres
    turn[1:, 1:] = np.diag(units)
    turn[0, 1:] = -units * centres
    blocks = covariance.reshape(outcomes, p, outcomes, p)
    errors = [
        np.sqrt(np.maximum((turn @ blocks[k, :, k] @ turn.T).diagonal(), 0))
        for k in range(outcomes)
    ]
    return turn @ weights, np.array(errors).reshape(outcomes, p).T


def fits_of(
    found: LogisticFit,
    classes: tuple[str, ...],
    present: tuple[int, ...],
    kept: tuple[int, ...],
    columns: Columns,
    notes: tuple[str, ...],
) -> tuple[Fit, ...]:
    """Make a table of coefficients for each class that has rows, but for the first of these."""
    names = (INTERCEPT, *columns.names)
    places, per = list(kept), told_per(columns)
    deviance, null = -2 * found.likelihood, -2 * found.null
    figures = {
        "rows": float(found.rows),
        "log_likelihood": found.likelihood,
        "deviance": deviance,
        "null_deviance": null,
        "pseudo_r_squared": 1 - deviance / null if null > 0 else 0.0,
        "rounding_in_errors": found.rounding,
    }
    tables = []
    for k, index in enumerate(present[1:]):
        named, estimates = [names[place] for place in places], found.estimates[places, k]
        errors = found.errors[places, k]
        tested = wald_coefficients(named, estimates, errors, per[places])
        bare = bare_coefficients(named, estimates, per[places])
        hidden = np.isnan(errors).tolist()
        rows = tuple(b if no else t for t, b, no in zip(tested, bare, hidden, strict=True))
        tables.append(Fit("logistic", classes[index], rows, figures, level=LEVEL, notes=notes))
    return tuple(tables)


def about_ending(found: LogisticFit, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Say what is doubtful of the last sum; nothing where the run has converged."""
    if found.rarest is not None and found.ended in ("converged", "rounds"):
        place, rows = found.rarest
        return (
            f"{classes[place]!r} has {rows:,} of {found.rows:,} rows. That is too rare: weights of "
            "rows are rounded to 2^-16, and hardly anything is left of those that count here. "
            "Estimates may be off, those without errors above all, and more rounds do not help. "
            "Take all rows of that class and a part of the others: slopes stay the same, and only "
            "the intercept is then of another share.",
        )
    known = _ENDINGS.get(found.ended)
    said = [] if known is None else [known.format(gain=found.gain)]
    if np.isnan(found.errors).any():
        said.append(
            "Weights of rows are rounded to 2^-16, which hides how certain some estimates are: "
            "these have no errors."
        )
    return tuple(said)


_ENDINGS = {
    "separable": (
        "The classes are separable: a plane has all rows on their own sides, and the likelihood "
        "has no maximum. Estimates and errors mean nothing; give a penalty (--penalty 1), or "
        "fewer columns."
    ),
    "separable in part": (
        "Some class is separable in part: steps go on without an end, and hardly add "
        "to the likelihood, which has no maximum. Estimates and errors of the columns concerned "
        "mean nothing; give a penalty (--penalty 1), or fewer columns."
    ),
    "rounds": (
        "Not converged after all sums: another step might add {gain:.3g} to the "
        "log-likelihood. Take more (--rounds). Where a plane separates the classes, or all but a "
        "few rows, none are enough, and estimates mean little: take a penalty (--penalty 1)."
    ),
    "one class": "All rows are of one class: nothing is learned.",
}


def told_per(columns: Columns) -> Floats:
    """Return for how many units of each column an odds ratio is told, (1 + d,).

    That is 1 for the intercept and a column as wide as 1 to 1,000 units. For others one unit is all
    of the range or more, or next to nothing of it. There it is the power of ten that fits one to
    ten times into a narrower range, and ten to a hundred times into a wider one.
    """
    widths = 2 * columns.halves
    power = np.floor(np.log10(widths) + 1e-9)
    per = np.where(widths < 1, 10.0**power, np.where(widths < 1000, 1.0, 10.0 ** (power - 1)))
    return np.append(1.0, per)


def bare_coefficients(
    names: Sequence[str], estimates: Floats, per: Floats
) -> tuple[Coefficient, ...]:
    """List coefficients of which nothing but the estimate is known; as `wald_coefficients`."""
    nothing = (None,) * 5
    return tuple(
        Coefficient(name, estimate, *nothing, per=units)
        for name, estimate, units in zip(names, estimates.tolist(), per.tolist(), strict=True)
    )


def wald_coefficients(
    names: Sequence[str], estimates: Floats, errors: Floats, per: Floats
) -> tuple[Coefficient, ...]:
    """List coefficients with z, p and Wald's intervals; one without an error has z = 0.

    Args:
        names: of the k coefficients.
        estimates, errors: (k,), in own units.
        per: units for which odds ratios are told, (k,).
    """
    statistics, p, low, high = t_tests(estimates, errors, math.inf, LEVEL)
    none = errors <= 0
    parts = estimates, errors, np.where(none, 0.0, statistics), np.where(none, 1.0, p), low, high
    columns = (part.tolist() for part in (*parts, per))
    return tuple(
        Coefficient(name, estimate, error, z, chance, least, most, per=units)
        for name, estimate, error, z, chance, least, most, units in zip(
            names, *columns, strict=True
        )
    )
