"""Sums over the rows that have a value: without what stands for missing ones, in exact sums.

The indicator of a column's missing values is in the sum beside it. Let m be ±b of a row, and x its
entry in the column. Then Σx + Σxm/b is twice the sum of what stands for n missing values, all of
which have the same entry v. So v and n follow, and each sum less nv, or nv², is that of the rows
that have a value.
"""

from typing import NamedTuple

import numpy as np

from secure_afl.analytic.moments import Bools
from secure_afl.analytic.quantise import Integers
from secure_afl.analytic.table_sums import TableSums
from secure_afl.data.columns import MISSING, Columns, is_of_missing


class StandIn(NamedTuple):
    """A column in which a value stands for missing ones.

    Attributes:
        place: of the column.
        missing: place of the indicator of its missing values.
        level: v, the value in integer steps; None where the sum does not tell.
    """

    place: int
    missing: int
    level: int | None = None


class Known(NamedTuple):
    """Sums over the rows that have a value, of each column apart, in integer steps.

    Attributes:
        counts: rows, in the unit of `Statistics.counts`, (d, C) int64.
        sums: ΣF, (d, C) int64.
        squares: ΣF², (d,) int64.
        squares_each: the same by class, (d, C) int64; None where they were not summed.
        taken: columns that what stood for missing values was taken out of.
        left: columns that it is left in: how many rows it stands for is withheld, or in noise.
    """

    counts: Integers
    sums: Integers
    squares: Integers
    squares_each: Integers | None
    taken: tuple[StandIn, ...]
    left: tuple[StandIn, ...]


def stand_ins(columns: Columns) -> tuple[StandIn, ...]:
    """Pair columns with the indicators of their missing values, as a design names them.

    A category's columns are all paired. Interactions, powers and functions are not: Table 1 has
    none of them.
    """
    found = []
    for missing, indicator in enumerate(columns.columns):
        if not (indicator.indicator and is_of_missing(indicator.name)):
            continue
        base = indicator.name.removesuffix(MISSING)
        for place, column in enumerate(columns.columns):
            word = column.indicator and column.name.startswith(f"{base}[")
            own = word and not is_of_missing(column.name)
            if not column.derived and (own or column.name == base):
                found.append(StandIn(place, missing))
    return tuple(found)


def known_sums(summary: TableSums, shown: Bools) -> Known:
    """Take what stands for missing values out of the sums, where all may know how many rows lack.

    Figures of the others would tell that number: a mean is a quotient of whole numbers.

    Args:
        shown: indicators whose counts over all rows are printed, (d,).
    """
    statistics, squares_each = summary.statistics, summary.squares
    counts = np.tile(statistics.counts, (len(summary.names), 1))
    sums, squares = statistics.cross.copy(), statistics.gram.diagonal().copy()
    squares_each = None if squares_each is None else squares_each.copy()
    taken, left = [], []
    for pair in stand_ins(summary.columns):
        level = _level(summary, pair) if summary.is_exact and shown[pair.missing] else None
        if level is None:
            left.append(pair)
            continue
        place, missing = pair.place, summary.ones[pair.missing].astype(np.int64)
        counts[place] -= missing
        sums[place] -= level * missing
        squares[place] -= level**2 * missing.sum()
        if squares_each is not None:
            squares_each[place] -= level**2 * missing
        taken.append(pair._replace(level=level))
    return Known(counts, sums, squares, squares_each, tuple(taken), tuple(left))


def _level(summary: TableSums, pair: StandIn) -> int | None:
    """Return what stands for missing values; None where names alone make these columns a pair."""
    statistics, end = summary.statistics, summary.end
    rows = int(summary.ones[pair.missing].sum())
    total = int(statistics.cross[pair.place].sum())
    twice, rest = divmod(int(statistics.gram[pair.place, pair.missing]) + end * total, end)
    if not rows or rest or twice % (2 * rows):
        return None
    level = twice // (2 * rows)
    ends = summary.columns.columns[pair.place].indicator
    return level if abs(level) == end or (abs(level) < end and not ends) else None
