"""A fit of least squares in the own units of columns and target, with what is inferred of it."""

import math
from typing import NamedTuple

import numpy as np

from protocols.codec import Wire
from secure_afl.analytic.coefficients import INTERCEPT, Coefficient, Fit
from secure_afl.analytic.least_squares import LeastSquares
from secure_afl.analytic.noisy_least_squares import NoisyFit
from secure_afl.analytic.quantise import Floats, Integers, Quantiser
from secure_afl.analytic.rounding import about_left_out, at_ends, coarse_columns, rounding_bound
from secure_afl.data.columns import Columns
from secure_afl.intervals import t_tests


class Units(NamedTuple):
    """What integers stand for: value = centre + step · integer.

    Attributes:
        centres, steps: of the columns, (d,).
        target_centre, target_step: of the target.
    """

    centres: Floats
    steps: Floats
    target_centre: float
    target_step: float

    @classmethod
    def of(cls, columns: Columns | None, dim: int, quantiser: Quantiser) -> "Units":
        """Return the units of rows that this quantiser rounds; without columns those of features.

        A target of 1 is `label_scale` steps.
        """
        feature = 1 / quantiser.steps(dim)
        if columns is None:
            own = np.zeros(dim), np.full(dim, feature)
        else:
            own = columns.centres, columns.halves * math.sqrt(dim) * feature
        target = None if columns is None else columns.target
        centre, half = (0.0, 1.0) if target is None else (target.centre, target.half)
        return cls(*own, centre, half / quantiser.label_scale)


class RegressionFit(Wire, frozen=True, eq=False):
    """A fitted regression, as everybody is given it.

    Attributes:
        weights: of the features, (d,), in the target's own unit.
        offset: of the prediction, likewise.
        estimates, errors, statistics, p, low, high: of the intercept and each column, (d + 1,), in
            own units; NaN for what there is not.
        rounding: the most by which rounding of rows moved each estimate, likewise.
        figures: names and values.
        left_out: places of columns that are in no fit, each with those that it is a combination of.
        coarse: places of columns of whose own variance rounding is a hundredth or more.
    """

    weights: Floats
    offset: float
    estimates: Floats
    errors: Floats
    statistics: Floats
    p: Floats
    low: Floats
    high: Floats
    rounding: Floats
    figures: tuple[tuple[str, float], ...]
    left_out: tuple[tuple[int, tuple[int, ...]], ...] = ()
    coarse: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"<RegressionFit of {len(self.weights)} columns>"

    def coefficients(self, names: tuple[str, ...]) -> tuple[Coefficient, ...]:
        """List the coefficients, the intercept first; names are those of the d columns."""
        parts = (self.estimates, self.errors, self.statistics, self.p, self.low, self.high)
        found = []
        for place, name in enumerate((INTERCEPT, *names)):
            estimate, error, t, p, low, high = (_number(part[place]) for part in parts)
            rounding = _number(self.rounding[place])
            found.append(Coefficient(name, estimate, error, t, p, low, high, rounding))
        return tuple(found)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def report_fit(
    fit: LeastSquares, units: Units, quantiser: Quantiser, level: float
) -> RegressionFit:
    """Bring a fit of exact sums to own units, with errors, t, p and intervals.

    A ridge's errors are those of its spread about a mean that is not the true value, so that it has
    neither t nor p nor interval.
    """
    penalised = fit.effective < len(fit.kept)
    estimates, spread = _own(fit, units)
    variance = max(fit.residual, 0.0) / fit.freedom * units.target_step**2
    errors = np.sqrt(variance * spread)
    nothing = np.full(len(errors), np.nan)
    statistics, p, low, high = nothing, nothing, nothing, nothing
    if not penalised:
        statistics, p, low, high = t_tests(estimates, errors, fit.freedom, level)
    figures = _figures(fit, units, penalised=penalised)
    rounding = nothing
    if not penalised:
        rounding = _rounding(fit, units, quantiser, estimates)
        known = errors > 0
        if known.any():
            figures["rounding_in_errors"] = float((rounding[known] / errors[known]).max())
    scale = quantiser.reach
    weights = fit.weights * units.target_step * scale
    mean = units.target_centre + units.target_step * fit.target_mean
    offset = math.fsum([mean, *(-weights * fit.means / scale)])
    return RegressionFit(
        weights=weights,
        offset=offset,
        estimates=estimates,
        errors=errors,
        statistics=statistics,
        p=p,
        low=low,
        high=high,
        rounding=rounding,
        figures=tuple(figures.items()),
        left_out=tuple((column.place, column.of) for column in fit.left_out),
        coarse=tuple(_coarse(fit, quantiser).tolist()),
    )


def _coarse(fit: LeastSquares, quantiser: Quantiser) -> Integers:
    """List the columns that rounding has drawn to 0."""
    inverse = np.full(len(fit.weights), np.nan)
    varies = fit.squares[fit.kept] > 0
    inverse[fit.kept[varies]] = fit.factor.diagonal()[varies] / fit.squares[fit.kept[varies]]
    exact = at_ends(fit.squares + fit.rows * fit.means**2, fit.rows, quantiser)
    return coarse_columns(inverse, fit.rows, exact)


def report_noisy(fit: NoisyFit, units: Units, quantiser: Quantiser, level: float) -> RegressionFit:
    """Bring a fit of noisy sums to own units, with errors, tests and intervals where there are any.

    A row of norm 1 is 2^bits steps there, and a target of 1 `label_scale` of them.
    """
    half = units.target_step * quantiser.label_scale
    widths = units.steps * quantiser.scale
    slopes = half * fit.weights / widths
    # The constant of own units is at a row of −centre/width.
    zero = np.append(1.0, -units.centres / widths)
    beta = np.append(fit.intercept, fit.weights)
    estimates = np.append(units.target_centre + half * float(zero @ beta), slopes)
    errors = np.full(len(estimates), np.nan)
    if fit.covariance is not None:
        slope_variances = np.maximum(fit.covariance.diagonal()[1:], 0.0)
        errors[0] = half * math.sqrt(max(float(zero @ fit.covariance @ zero), 0.0))
        errors[1:] = half * np.sqrt(slope_variances) / widths
    freedom = max(fit.rows - len(slopes) - 1, 1.0)
    statistics, p, low, high = t_tests(estimates, errors, freedom, level)
    figures = {
        "rows": fit.rows,
        "df": freedom,
        "residual_standard_error": half * math.sqrt(fit.variance),
    }
    if fit.total is not None and fit.covariance is not None:
        share = fit.variance * freedom / (fit.total * fit.rows)
        figures["r_squared"] = min(max(1 - share, 0.0), 1.0)
    return RegressionFit(
        weights=half * fit.weights * quantiser.reach / quantiser.scale,
        offset=units.target_centre + half * fit.intercept,
        estimates=estimates,
        errors=errors,
        statistics=statistics,
        p=p,
        low=low,
        high=high,
        rounding=np.full(len(estimates), np.nan),
        figures=tuple(figures.items()),
    )


def _own(fit: LeastSquares, units: Units) -> tuple[Floats, Floats]:
    """Return estimates in own units, and their variances over σ² of the target in its own unit."""
    dim = len(fit.weights)
    slopes = np.full(dim, np.nan)
    slopes[fit.kept] = fit.weights[fit.kept] * units.target_step / units.steps[fit.kept]
    means = units.centres + units.steps * fit.means
    mean = units.target_centre + units.target_step * fit.target_mean
    kept = fit.kept
    intercept = math.fsum([mean, *(-slopes[kept] * means[kept])])
    covariance = fit.covariance[np.ix_(kept, kept)] / np.outer(units.steps[kept], units.steps[kept])
    spread = np.full(dim + 1, np.nan)
    spread[0] = 1 / fit.rows + float(means[kept] @ covariance @ means[kept])
    spread[1 + kept] = covariance.diagonal()
    return np.concatenate([[intercept], slopes]), spread


def _rounding(fit: LeastSquares, units: Units, quantiser: Quantiser, estimates: Floats) -> Floats:
    """Bound what rounding moved, (d + 1,), in own units.

    The intercept is ȳ − Σb·x̄; its parts are off by what means and slopes are.
    """
    found = np.empty(len(estimates))
    slopes = rounding_bound(fit, quantiser) * units.target_step / units.steps
    kept, most = fit.kept, 0.5 if len(slopes) <= 4 else 1.0
    means = np.abs(units.centres + units.steps * fit.means)[kept] + most * units.steps[kept]
    moved = slopes[kept] * means + np.abs(estimates[1:][kept]) * most * units.steps[kept]
    found[0] = units.target_step / 2 + float(moved.sum())
    found[1:] = slopes
    return found


def _figures(fit: LeastSquares, units: Units, *, penalised: bool) -> dict[str, float]:
    from scipy.special import fdtrc

    residual, total = (value * units.target_step**2 for value in (fit.residual, fit.total))
    found = {
        "rows": float(fit.rows),
        "df": fit.freedom,
        "residual_standard_error": math.sqrt(max(residual, 0.0) / fit.freedom),
        "residual_deviance": residual,
        "null_deviance": total,
    }
    if total <= 0:
        return found
    unexplained = residual / total
    found["r_squared"] = 1 - unexplained
    found["adjusted_r_squared"] = 1 - unexplained * (fit.rows - 1) / fit.freedom
    columns = len(fit.kept)
    if residual > 0:
        # Independent roundings, each of variance 1/12, add this to the errors.
        rounded = math.sqrt((1 + float(fit.weights @ fit.weights)) / 12)
        found["rounding_spread"] = rounded / math.sqrt(max(fit.residual, 0.0) / fit.freedom)
    if not penalised and columns and residual > 0:
        ratio = (total - residual) / columns / (residual / fit.freedom)
        found["f_statistic"] = ratio
        found["f_df"] = float(columns)
        found["f_p"] = float(fdtrc(columns, fit.freedom, ratio))
    return found


def name_fit(
    fit: RegressionFit, columns: Columns | None, target: str, level: float, notes: tuple[str, ...]
) -> Fit:
    """Make what a statistician reads of a fit."""
    dim = len(fit.weights)
    names = tuple(f"x{place}" for place in range(dim)) if columns is None else columns.names
    known = None if columns is None else columns.target
    unit = "" if known is None or not known.unit else f" [{known.unit}]"
    return Fit(
        family="linear",
        outcome=(target if known is None else known.name) + unit,
        coefficients=fit.coefficients(names),
        figures=dict(fit.figures),
        level=level,
        notes=(*about_left_out(fit.left_out, columns, "--ridge"), *notes),
    )
