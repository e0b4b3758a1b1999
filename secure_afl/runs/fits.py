"""Fits of models as people read them: a table of coefficients, and a line of figures."""

import math
from typing import NamedTuple

from secure_afl.analytic.coefficients import Coefficient, Fit
from secure_afl.evaluation.bootstrap import Interval
from secure_afl.evaluation.numeric import NumericFigures

NOTHING = "–"


class FitTable(NamedTuple):
    """A table of coefficients.

    Attributes:
        title: what was fitted.
        head: names of its columns: those of which some coefficient has something.
        rows: cells, the intercept first.
        figures: one line of what else a reader wants.
        notes: sentences.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    figures: str
    notes: tuple[str, ...]


def fit_table(fit: Fit) -> FitTable:
    """Lay out a fit; a logistic one shows odds ratios, which are exp(estimate)."""
    logistic = fit.family == "logistic"
    last = "odds ratio" if logistic else "interval"
    head = ("", "estimate", "error", "z" if logistic else "t", "p", f"{last}, {fit.level:.4g}")
    rows = [_cells(coefficient, logistic=logistic) for coefficient in fit.coefficients]
    # Errors that are lost in noise would be columns of dashes.
    kept = [at for at in range(len(head)) if any(row[at] != NOTHING for row in rows)]
    return FitTable(
        f"{fit.family} model of {fit.outcome}",
        tuple(head[at] for at in kept),
        tuple(tuple(row[at] for at in kept) for row in rows),
        _figures(fit),
        fit.notes,
    )


def _cells(coefficient: Coefficient, *, logistic: bool) -> tuple[str, ...]:
    return (
        coefficient.name,
        number(coefficient.estimate),
        number(coefficient.error),
        number(coefficient.statistic, 3),
        probability(coefficient.p),
        _odds(coefficient) if logistic else _between(coefficient.low, coefficient.high),
    )


def _odds(coefficient: Coefficient) -> str:
    """Write exp(estimate) with its interval; an exponential that overflows is infinite.

    Where one unit of a column is no sensible step of it, the ratio is of more or less, and says so.
    """
    if coefficient.estimate is None:
        return NOTHING
    per = coefficient.per
    ends = tuple(None if e is None else _exp(per * e) for e in (coefficient.low, coefficient.high))
    between = _between(*ends)
    ratio = number(_exp(per * coefficient.estimate), 3)
    step = "" if per == 1 else f" per {per:g}"
    return f"{ratio}{step}" if between == NOTHING else f"{ratio} ({between}){step}"


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def _between(low: float | None, high: float | None) -> str:
    return NOTHING if low is None or high is None else f"{number(low, 3)} to {number(high, 3)}"


def number(value: float | None, digits: int = 4) -> str:
    """Write a number with so many digits; a dash where there is none."""
    return NOTHING if value is None else f"{value:.{digits}g}".replace("-", "−")


def probability(value: float | None) -> str:
    """Write a p value; those below 0.001 are not told apart."""
    if value is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _figures(fit: Fit) -> str:
    known, parts = dict(fit.figures), []
    if "rows" in known:
        parts.append(f"{known.pop('rows'):,.0f} rows")
    if "f_statistic" in known:
        columns, p = known.pop("f_df"), probability(known.pop("f_p"))
        sign = "" if p.startswith("<") else "= "
        ratio = known.pop("f_statistic")
        parts.append(f"F({columns:.0f}, {known['df']:.0f}) = {ratio:.4g}, p {sign}{p}")
    parts += [f"{name.replace('_', ' ')} {number(value)}" for name, value in known.items()]
    return "; ".join(parts)


def numeric_lines(figures: NumericFigures) -> dict[str, str]:
    """Write how far predictions of numbers are off, by name."""
    return {
        "RMSE": _ranged(figures.rmse),
        "mean absolute error": _ranged(figures.mae),
        "R²": _ranged(figures.r_squared),
    }


def _ranged(figure: Interval | None) -> str:
    if figure is None:
        return NOTHING
    return f"{number(figure.value)} ({_between(figure.low, figure.high)})"
