"""What of Table 1 is not printed, and why no subtraction finds it: `withheld` has the rules."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from secure_afl.analytic.moments import Bools
from secure_afl.analytic.quantise import Floats, Integers
from secure_afl.analytic.withheld import table_groups, withheld_classes, withheld_rows

if TYPE_CHECKING:
    from secure_afl.analytic.describe import Summary


class Hidden(NamedTuple):
    """What of a table is not printed.

    Attributes:
        everything: there are fewer rows than the least count.
        classes: of which nothing is printed, (C,).
        indicators: columns that are counted and have no mean, (d,).
        derived: columns that are left out, (d,).
        ones, ones_each: counts over all rows and by class that are withheld, (d,).
        few, few_each: numbers whose mean and deviation may be those of a few rows, over all rows
            (d,) and in a class (d, C).
    """

    everything: bool
    classes: Bools
    indicators: Bools
    derived: Bools
    ones: Bools
    ones_each: Bools
    few: Bools
    few_each: Bools


def hide(summary: "Summary") -> Hidden:
    """Choose what is not printed; it follows from the sums alone."""
    derived = np.array([column.derived for column in summary.columns.columns])
    indicators = summary.indicators & ~derived
    classes = withheld_classes(summary.rows, summary.least)
    in_all, by_class = _counts(summary, indicators, classes)
    sums = summary.statistics
    few = _few(summary, sums.gram.diagonal(), sums.cross.sum(axis=1), summary.total)
    few_each = np.zeros((len(summary.names), len(summary.classes)), dtype=bool)
    if summary.squares is not None:
        for place, rows in enumerate(summary.rows):
            few_each[:, place] = _few(
                summary, summary.squares[:, place], sums.cross[:, place], rows
            )
    return Hidden(
        summary.total < summary.least, classes, indicators, derived, in_all, by_class, few, few_each
    )


def _counts(summary: "Summary", indicators: Bools, classes: Bools) -> tuple[Bools, Bools]:
    """Choose the indicators whose counts over all rows, and by class, are withheld, (d,) each."""
    ones, rows = summary.ones, summary.rows[~classes]
    shown = ones[:, ~classes]
    if classes.any():
        shown = np.hstack([shown, ones[:, classes].sum(axis=1, keepdims=True)])
        rows = np.append(rows, summary.rows[classes].sum())
    total_hidden = np.zeros(len(ones), dtype=bool)
    each_hidden = np.zeros(len(ones), dtype=bool)
    for group in table_groups(summary.names, indicators):
        apart = _apart(summary, group)
        table = apart @ ones.sum(axis=1)[group][:, None]
        table = np.vstack([summary.total - table.sum(axis=0), table])
        in_all = withheld_rows(np.rint(table), summary.least)
        cells = apart @ shown[group]
        cells = np.vstack([rows - cells.sum(axis=0), cells])
        by_class = withheld_rows(np.rint(cells), summary.least, in_all)
        total_hidden[group] |= in_all[1:]
        each_hidden[group] |= by_class[1:]
    return total_hidden, each_hidden | total_hidden


def _apart(summary: "Summary", group: list[int]) -> Floats:
    """Return what makes disjoint counts of a group's, (k, k).

    Where a category stands for missing values, their rows are among its rows, and subtraction
    would show the others of these.
    """
    apart = np.eye(len(group))
    missing = [at for at, p in enumerate(group) if summary.names[p].endswith("[missing]")]
    if not summary.is_exact or len(missing) != 1 or len(group) == 1:
        return apart
    (last,), ones = missing, summary.ones.sum(axis=1)[group]
    both = summary.both(np.array(group))[last]
    among = (np.rint(both) == ones[last]) & (ones[last] > 0)
    among[last] = False
    apart[among, last] = -1.0
    return apart


def _few(summary: "Summary", squares: Integers, sums: Integers, rows: float) -> Bools:
    """Say of which columns mean and deviation may be those of a few rows, (d,).

    All rows but k may be at one end of the range. Let y be the distance from there: k numbers other
    than 0 have (Σy)² ≤ k·Σy², so that this quotient below the least count shows it. Or all may be
    at the ends and in the middle: both sums are then multiples of end and end², as those of others
    hardly ever are, and tell the three counts.

    Args:
        squares, sums: ΣF² and ΣF of these rows, (d,).
    """
    if not summary.is_exact:
        return np.zeros(len(sums), dtype=bool)
    count, least, b = int(rows), summary.least, summary.end
    tails, out = squares // b**2, sums // b
    counts = np.stack([tails + out, tails - out, 2 * (count - tails)]) / 2
    small = ((counts > 0) & (counts < least)).any(axis=0)
    found: Bools = small & (squares % b**2 == 0) & (sums % b == 0)
    for end in (-b, b):
        from_end = sums - end * count
        away = squares - 2 * end * sums + b**2 * count
        found |= (from_end.astype(np.float64) ** 2 < least * away) & (away > 0)
    return found
