"""The sums of a table's rows in integer steps, as Table 1 is made of them."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from secure_afl.analytic.moments import Bools
from secure_afl.analytic.quantise import Floats, Integers
from secure_afl.analytic.statistics import Statistics
from secure_afl.analytic.withheld import LEAST_COUNT
from secure_afl.data.columns import Columns
from secure_afl.errors import ConfigError


class StepNoise(NamedTuple):
    """Standard deviations of the noise in a sum, in integer steps of `Statistics`.

    Attributes:
        diagonal, upper: of entries of the Gram matrix.
        cross, counts: of the cross term, and of counts in rows times A².
        squares: of sums of squares by class; 0 where there are none.
    """

    diagonal: float
    upper: float
    cross: float
    counts: float
    squares: float = 0.0


@dataclass(frozen=True, eq=False)
class TableSums:
    """The sums of a table's rows, and the counts that are in them.

    Attributes:
        statistics: (G, Q, n) in integer steps.
        columns: what the features are.
        classes: names of the C classes.
        end: b, what an end of a column's range becomes: ±b steps, without rounding.
        squares: ΣF² by class, (d, C) int64; None where they were not summed.
        label_scale: A; 1 where rows have no weights. With weights, rows are patients.
        least: counts below are not printed.
        noise: in the sums; None for exact ones.

    Raises:
        ConfigError: a least count below 1, or sums of no row.
    """

    statistics: Statistics
    columns: Columns
    classes: tuple[str, ...]
    end: int
    squares: Integers | None = None
    label_scale: int = 1
    least: int = LEAST_COUNT
    noise: StepNoise | None = None

    def __post_init__(self) -> None:
        if self.least < 1:
            raise ConfigError(f"least count is {self.least}, allowed: ≥ 1")
        if not self.total >= 2:
            raise ConfigError(
                f"a table of {max(self.total, 0):.0f} rows in the sum; allowed: ≥ 2. Give more "
                "rows, or a larger ε"
            )

    def __repr__(self) -> str:
        return f"<TableSums of {len(self.columns.columns)} columns, {len(self.classes)} classes>"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self.columns.names

    @cached_property
    def rows(self) -> Floats:
        """Rows of each class, (C,); patients where these have weights."""
        rows: Floats = self.statistics.counts / self.label_scale**2
        return rows

    @cached_property
    def total(self) -> float:
        """Rows of all classes."""
        return float(self.rows.sum())

    @property
    def is_exact(self) -> bool:
        """Whether the sums are whole numbers of rows, without noise or weights."""
        return self.noise is None and self.label_scale == 1

    @cached_property
    def ones(self) -> Floats:
        """Rows at the upper end of a column whose entries are all at ends, (d, C)."""
        ones = (self.statistics.cross / self.label_scale + self.end * self.rows) / (2 * self.end)
        return np.rint(ones) if self.noise is None else ones

    def both(self, at: Integers) -> Floats:
        """Return rows in which both indicators are one, of indicators at these places, (k, k)."""
        ones = self.ones.sum(axis=1)[at]
        # Σxy = b²(N − 2n_x − 2n_y + 4n_xy) of entries ±b.
        sums = self.statistics.gram[np.ix_(at, at)] / self.end**2
        both: Floats = (sums - self.total + 2 * np.add.outer(ones, ones)) / 4
        return both

    @cached_property
    def indicators(self) -> Bools:
        """Columns of words, and, as the exact sum tells, numbers that only take their ends."""
        found = np.array([column.indicator for column in self.columns.columns])
        if self.is_exact:
            found |= self.statistics.gram.diagonal() == self.end**2 * self.total
        return found
