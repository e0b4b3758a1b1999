"""The columns of a table as features: public scales, by which results return to own units."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Wire
from secure_afl.errors import ConfigError

Floats: TypeAlias = NDArray[np.float64]

LEAST, GREATEST = -32, 64
"""Ends of the interval of e, where sites find a range [−2^e, 2^e] together: `analytic.scales`."""


MISSING = "[missing]"
"""How the indicator of a column's missing values is called, after that column."""


def base_of(name: str) -> str:
    """Return the table's column that an indicator is of: `sex` of `sex[male]`."""
    return name.partition("[")[0]


def is_of_missing(name: str) -> bool:
    """Say whether an indicator is that of missing values."""
    return name.endswith(MISSING)


class Column(Wire, frozen=True):
    """A number with a public range, and its map to [−1, 1]: (value − centre) / half.

    Attributes:
        name: of the column, or of what was made of columns: `age`, `sex[female]`, `age:bmi`.
        centre: middle of the range, in the column's own unit.
        half: half of the range's width, > 0, in the same unit.
        unit: for people; may be empty.
        open: the range is yet to be found, see `analytic.scales`; until
            then [−2^64, 2^64] stands for it.
        derived: it was made of other columns, or of another by a power or a function.
        indicator: it is 1 where a category is there, or a value is missing, and 0 elsewhere.

    Raises:
        ConfigError: a range that is empty or not finite.
    """

    name: str
    centre: float
    half: float
    unit: str = ""
    open: bool = False
    derived: bool = False
    indicator: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite([self.centre, self.half]).all() and self.half > 0):
            raise ConfigError(
                f"column {self.name!r} ranges over {self.centre} ± {self.half}; allowed: a finite "
                "range of more than one value"
            )

    @classmethod
    def over(
        cls,
        name: str,
        low: float,
        high: float,
        unit: str = "",
        *,
        open: bool = False,
        derived: bool = False,
        indicator: bool = False,
    ) -> "Column":
        """Make the column of a range."""
        return cls(name, (low + high) / 2, (high - low) / 2, unit, open, derived, indicator)

    @property
    def low(self) -> float:
        """Least value of the range."""
        return self.centre - self.half

    @property
    def high(self) -> float:
        """Greatest value of the range."""
        return self.centre + self.half

    def scaled(self, values: Floats) -> Floats:
        """Map values (n,) to [−1, 1]; those out of the range are cut."""
        return np.clip((values - self.centre) / self.half, -1.0, 1.0)

    def own(self, scaled: Floats) -> Floats:
        """Map numbers in [−1, 1] back to the column's own unit."""
        return self.centre + self.half * scaled


class Columns(Wire, frozen=True):
    """What the features of a table's rows are: the same for all parties of a task.

    Feature k of a row is the scaled value of column k over √d, so that a row has norm ≤ 1. Such
    rows are rounded with the row mode `columns`, which takes ends of ranges to whole steps.

    Attributes:
        columns: of the d features, in order.
        target: of the number that is to be predicted, in [−1, 1]; None where rows have classes.
    """

    columns: tuple[Column, ...]
    target: Column | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the d features."""
        return tuple(column.name for column in self.columns)

    @property
    def centres(self) -> Floats:
        """Middles of the ranges, (d,)."""
        return np.array([column.centre for column in self.columns])

    @property
    def halves(self) -> Floats:
        """Halves of the ranges' widths, (d,)."""
        return np.array([column.half for column in self.columns])

    def features(self, values: Floats) -> Floats:
        """Map values (n, d) in own units to features of norm ≤ 1; those out of range are cut."""
        scaled = np.clip((values - self.centres) / self.halves, -1.0, 1.0)
        features: Floats = scaled / np.sqrt(len(self.columns))
        return features

    def values(self, features: Floats) -> Floats:
        """Map features (n, d) back to own units."""
        values: Floats = self.centres + self.halves * np.sqrt(len(self.columns)) * features
        return values
