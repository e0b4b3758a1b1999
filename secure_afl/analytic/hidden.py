"""What of Table 1 is not printed, and why no subtraction finds it: `withheld` has the rules."""

from typing import NamedTuple

import numpy as np

from secure_afl.analytic.known import Known, known_sums, stand_ins
from secure_afl.analytic.moments import Bools
from secure_afl.analytic.quantise import Floats, Integers
from secure_afl.analytic.table_sums import TableSums
from secure_afl.analytic.withheld import table_groups, withheld_classes, withheld_rows
from secure_afl.data.columns import is_of_missing


class Hidden(NamedTuple):
    """What of a table is not printed.

    Attributes:
        everything: there are fewer rows than the least count.
        classes: of which nothing is printed, (C,).
        indicators: columns that are counted and have no mean, (d,).
        derived: columns that are left out, (d,).
        ones, ones_each: counts over all rows and by class that are withheld, (d,).
        few, few_each: numbers whose mean and deviation may be those of a few rows, over all rows
            and in a class, (d,) each. The latter have no figure by class: one would follow from
            the others.
        known_each: columns of which it is withheld how many rows of a class have a value, (d,).
        known: the sums of the rows that have a value, as far as all this lets them be known.
    """

    everything: bool
    classes: Bools
    indicators: Bools
    derived: Bools
    ones: Bools
    ones_each: Bools
    few: Bools
    few_each: Bools
    known_each: Bools
    known: Known


def hide(summary: TableSums) -> Hidden:
    """Choose what is not printed; it follows from the sums alone."""
    derived = np.array([column.derived for column in summary.columns.columns])
    indicators = summary.indicators & ~derived
    classes = withheld_classes(summary.rows, summary.least)
    in_all, by_class = _counts(summary, indicators, classes)
    known = known_sums(summary, ~in_all)
    few, few_each = _numbers(summary, known, classes)
    known_each = np.zeros(len(few), dtype=bool)
    for pair in known.taken:
        known_each[pair.place] |= by_class[pair.missing]
    return Hidden(
        summary.total < summary.least,
        classes,
        indicators,
        derived,
        in_all,
        by_class,
        few,
        # A mean by class would tell how many rows of the class it is of.
        few_each | known_each,
        known_each,
        known,
    )


def _numbers(summary: TableSums, known: Known, classes: Bools) -> tuple[Bools, Bools]:
    """Choose the numbers that a few rows may make up, over all rows and in a class, (d,) each."""
    groups = [np.array([place]) for place in np.flatnonzero(~classes)]
    if classes.any():  # whoever subtracts has those withheld together
        groups.append(np.flatnonzero(classes))
    few = _few(summary, known.squares, known.sums.sum(axis=1), known.counts.sum(axis=1))
    few_each = np.zeros(len(few), dtype=bool)
    for group in groups:
        own, rows = known.sums[:, group].sum(axis=1), known.counts[:, group].sum(axis=1)
        if known.squares_each is not None:
            few_each |= _few(summary, known.squares_each[:, group].sum(axis=1), own, rows)
        else:
            few_each |= _perhaps_few(summary, known, own, rows)
    for pair in stand_ins(summary.columns) if summary.is_exact else ():
        there = summary.rows - summary.ones[pair.missing]
        few[pair.place] |= there.sum() < summary.least
        few_each[pair.place] |= any(0 < there[group].sum() < summary.least for group in groups)
    return few, few_each


def _counts(summary: TableSums, indicators: Bools, classes: Bools) -> tuple[Bools, Bools]:
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


def _apart(summary: TableSums, group: list[int]) -> Floats:
    """Return what makes disjoint counts of a group's, (k, k).

    Where a category stands for missing values, their rows are among its rows, and subtraction
    would show the others of these.
    """
    apart = np.eye(len(group))
    missing = [at for at, p in enumerate(group) if is_of_missing(summary.names[p])]
    if not summary.is_exact or len(missing) != 1 or len(group) == 1:
        return apart
    (last,), ones = missing, summary.ones.sum(axis=1)[group]
    both = summary.both(np.array(group))[last]
    among = (np.rint(both) == ones[last]) & (ones[last] > 0)
    among[last] = False
    apart[among, last] = -1.0
    return apart


def _few(summary: TableSums, squares: Integers, sums: Integers, rows: Integers) -> Bools:
    """Say of which columns mean and deviation may be those of a few rows, (d,).

    All rows but k may be at one end of the range. Let y be the distance from there: k numbers other
    than 0 have (Σy)² ≤ k·Σy², so that this quotient below the least count shows it. Where 0 is the
    middle, all but k may be 0, likewise, and Σy² is at most k·b², too. Or all may be at the ends
    and in the middle: both sums are then multiples of b and b², as those of others hardly ever are,
    and tell the three counts.

    Args:
        squares, sums, rows: ΣF², ΣF and the number of these rows, (d,) each.
    """
    if not summary.is_exact:
        return np.zeros(len(sums), dtype=bool)
    least, b = summary.least, summary.end
    tails, out = squares // b**2, sums // b
    counts = np.stack([tails + out, tails - out, 2 * (rows - tails)]) / 2
    small = ((counts > 0) & (counts < least)).any(axis=0)
    found: Bools = small & (squares % b**2 == 0) & (sums % b == 0)
    for end in (-b, b):
        from_end, away = _from(end, squares, sums, rows)
        found |= (from_end**2 < least * away) & (away > 0)
    around = summary.columns.centres == 0
    found |= around & (sums.astype(np.float64) ** 2 < least * squares) & (squares < least * b**2)
    return found & (squares > 0)


def _perhaps_few(summary: TableSums, known: Known, sums: Integers, rows: Integers) -> Bools:
    """Say of which columns all rows of a class but a few may be at an end, (d,).

    Without its sum of squares: k numbers that are not there add up to at most 2b·k. And the others
    of the class would be zeros among all N rows: (Σy)² ≤ (N − n + k)·Σy².

    Args:
        sums, rows: ΣF of the class, and n, (d,) each.
    """
    found = np.zeros(len(sums), dtype=bool)
    if not summary.is_exact:
        return found
    least, b, every = summary.least, summary.end, known.counts.sum(axis=1)
    for end in (-b, b):
        distance = np.abs(sums - end * rows)
        from_end, away = _from(end, known.squares, known.sums.sum(axis=1), every)
        heap = from_end**2 <= (every - rows + least) * away
        found |= heap & (distance > 0) & (distance < 2 * b * least)
    return found


def _from(end: int, squares: Integers, sums: Integers, rows: Integers) -> tuple[Floats, Floats]:
    """Return Σy and Σy² of the distances y from an end, (d,) each."""
    moved = squares - 2 * end * sums + end**2 * rows
    return (sums - end * rows).astype(np.float64), moved.astype(np.float64)
