"""What a statistician reads of a fitted model, in the columns' own units."""

from typing import Literal, TypeAlias

import msgspec

INTERCEPT = "(intercept)"

Family: TypeAlias = Literal["linear", "logistic"]


class Coefficient(msgspec.Struct, frozen=True):
    """A coefficient of a fitted model, in its column's own unit; null where there is none.

    Attributes:
        name: of the column; `(intercept)` for the constant.
        estimate: change of the outcome, or of its log-odds, with one unit of the column; null for a
            column that was left out.
        error: standard error.
        statistic: t of a linear fit, z of a logistic one.
        p: two-sided p value of the hypothesis that the coefficient is 0.
        low, high: ends of the confidence interval.
        rounding: the most by which the rounding of rows can have moved the estimate.
        per: units of the column, for which an odds ratio is told; all else is of one unit.
    """

    name: str
    estimate: float | None
    error: float | None
    statistic: float | None
    p: float | None
    low: float | None
    high: float | None
    rounding: float | None = None
    per: float = 1.0


class Fit(msgspec.Struct, frozen=True):
    """What a statistician reads of a fitted model.

    Attributes:
        family: `linear`, or `logistic`, whose estimates are log-odds.
        outcome: the target's name with its unit, or the class whose odds these are.
        coefficients: the intercept first.
        figures: further figures by name, as `rows`, `r_squared`; numbers for people.
        level: of the intervals, 0 to 1.
        notes: what a reader should know, in sentences.
    """

    family: Family
    outcome: str
    coefficients: tuple[Coefficient, ...]
    figures: dict[str, float] = {}
    level: float = 0.95
    notes: tuple[str, ...] = ()
