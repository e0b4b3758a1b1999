"""Ranges of columns that have no public one: powers of two, which sites find together.

A column whose range is open holds value / 2^64. Floats are divided by powers of two exactly: the
features of a range [−2^e, 2^e] follow from these bit for bit, whichever e is found.
"""

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np

from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.data.columns import GREATEST, LEAST, Column, Columns, Floats
from secure_afl.errors import DataError

SHARE = 0.99
"""Of a site's values other than 0: the quantile whose exponent counts."""

_FEWEST = 5
"""Values of a column that a range must leave, where a site's own range leaves as many."""


def open_columns(columns: Columns | None) -> tuple[Column, ...]:
    """List the columns whose range is open: features in order, then the target."""
    if columns is None:
        return ()
    target = () if columns.target is None else (columns.target,)
    return tuple(column for column in (*columns.columns, *target) if column.open)


def completed(columns: Columns, exponents: Sequence[int]) -> Columns:
    """Return columns with ranges [−2^e, 2^e] in the place of open ones.

    Args:
        exponents: e of each of `open_columns`.
    """
    left = iter(exponents)

    def closed(column: Column) -> Column:
        if not column.open:
            return column
        return Column(column.name, 0.0, 2.0 ** next(left), column.unit)

    found = tuple(closed(column) for column in columns.columns)
    target = None if columns.target is None else closed(columns.target)
    return Columns(found, target)


def exponents(columns: Columns, data: ClientData) -> tuple[int | None, ...]:
    """Return the exponent of a site's values in each open column; None where all are 0.

    It is the least e, from -32 to 64, with 2^e ≥ the 99 % quantile of |value|, zeros left out: 0 is
    in every range, and a column with few other values would get none that holds them.
    """
    found: list[int | None] = []
    for values, unit in _open_values(columns, data):
        sizes = np.abs(values[values != 0])
        if not sizes.size:
            found.append(None)
            continue
        size = float(np.quantile(sizes, SHARE, method="inverted_cdf"))
        # Fractions decide, which are exact: a quotient would round to another power of two.
        (fraction, exponent), (one, zero) = np.frexp(size), np.frexp(unit)
        least = GREATEST + int(exponent) - int(zero) + int(fraction > one)
        found.append(min(max(least, LEAST), GREATEST))
    return tuple(found)


def rescaled(columns: Columns | None, found: Columns | None, data: ClientData) -> ClientData:
    """Return rows in ranges that were found; values out of them are cut.

    Args:
        columns: of the rows as they are.
        found: the same, completed.

    Returns:
        Bit for bit the rows of a dictionary that declares these ranges.
    """
    if columns is None or found is None or not open_columns(columns):
        return data
    factors = columns.halves / found.halves  # powers of two, and 1 where nothing was open
    most = _unit(columns)
    features = np.asarray(data.features, dtype=np.float64)
    features = np.where(factors == 1, features, np.clip(features * factors, -most, most))
    targets = data.targets
    if targets is not None and columns.target is not None and found.target is not None:
        factor = columns.target.half / found.target.half
        targets = targets if factor == 1 else np.clip(targets * factor, -1.0, 1.0)
    return replace(data, features=features, targets=targets)


def check_seen(
    columns: Columns | None, data: ClientData, scaled: ClientData, quantiser: Quantiser
) -> None:
    """Refuse ranges in which but a few of a site's values are not rounded to 0.

    The sum would show these few alone. In the range of the site's own 99 % quantile it has more:
    whoever says that two sites reach so wide a range may lie.

    Args:
        columns: of the rows as they are.
        data: those rows.
        scaled: the same, as `rescaled` returns them.

    Raises:
        DataError: 1 to 4 values of a column are left of 5 or more.
    """
    if columns is None:
        return
    opened = open_columns(columns)
    before = _open_values(columns, data)
    after = _open_values(columns, scaled)
    steps = quantiser.steps(len(columns.columns))
    for column, own, (values, unit), (found, _) in zip(
        opened, exponents(columns, data), before, after, strict=True
    ):
        if own is None:
            continue
        scale = quantiser.label_scale if column is columns.target else steps
        widened = values * 2.0 ** (GREATEST - own)
        there = int((np.rint(np.clip(widened, -unit, unit) * scale) != 0).sum())
        left = int((np.rint(found * scale) != 0).sum())
        if 0 < left < _FEWEST <= there:
            raise DataError(
                f"client '{data.name}': the range that was found for column {column.name!r} would "
                f"round all values but {left} to 0, and show these alone; {there} are left in the "
                "range of its own values. Declare a range in the dictionary, or take no part"
            )


def cut_values(columns: Columns, found: Columns, data: ClientData) -> dict[str, int]:
    """Count the values of each open column that are out of the range that was found.

    Args:
        columns, found: as `rescaled` takes them.
        data: rows as they were before.
    """
    halves = [column.half for column in (*found.columns, found.target) if column is not None]
    opened = [column for column in (*columns.columns, columns.target) if column is not None]
    pairs = [(column, half) for column, half in zip(opened, halves, strict=True) if column.open]
    return {
        column.name: int((np.abs(values) > unit * (half / column.half)).sum())
        for (column, half), (values, unit) in zip(pairs, _open_values(columns, data), strict=True)
    }


class FoundRange(msgspec.Struct, frozen=True):
    """A column's range that sites found together.

    Attributes:
        name: of the column.
        low, high: −2^e and 2^e, in its own unit.
        cut: values in the sum that are out of it, and were cut; null where nobody knows.
    """

    name: str
    low: float
    high: float
    cut: int | None = None

    @property
    def text(self) -> str:
        """The column and its key in a dictionary, to the last bit."""
        return f"{self.name}: range = [{float(self.low)!r}, {float(self.high)!r}]"


def found_ranges(columns: Columns | None, found: Columns | None) -> tuple[FoundRange, ...]:
    """List the ranges that were found.

    Args:
        columns, found: as `rescaled` takes them.
    """
    names = {column.name for column in open_columns(columns)}
    if found is None or not names:
        return ()
    every = (*found.columns, *([] if found.target is None else [found.target]))
    return tuple(FoundRange(c.name, c.low, c.high) for c in every if c.name in names)


def _unit(columns: Columns) -> float:
    """Return the feature of a value at the end of its range, as `Columns.features` makes it."""
    return float(1.0 / np.sqrt(len(columns.columns)))


def _open_values(columns: Columns, data: ClientData) -> list[tuple[Floats, float]]:
    """List each open column's values (n,), and the number that the end of its range became."""
    features, unit = np.asarray(data.features, dtype=np.float64), _unit(columns)
    found = [
        (features[:, place], unit) for place, column in enumerate(columns.columns) if column.open
    ]
    if columns.target is not None and columns.target.open:
        assert data.targets is not None, "a numeric target has values"
        found.append((np.asarray(data.targets, dtype=np.float64), 1.0))
    return found
