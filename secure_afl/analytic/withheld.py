"""What a table of counts must not print, so that nobody finds a small count by subtraction."""

from collections.abc import Sequence

import numpy as np

from secure_afl.analytic.moments import Bools
from secure_afl.analytic.quantise import Floats
from secure_afl.data.columns import base_of, is_of_missing

LEAST_COUNT = 5


def withheld_classes(counts: Floats, least: int) -> Bools:
    """Choose the classes of which nothing is printed, (C,).

    The total is known, so that whoever subtracts what is printed has those withheld together:
    they are two at least, of at least `least` rows, or all.

    Args:
        counts: rows of each class, (C,).
        least: the least count that is printed.
    """
    return _grown(counts[:, None], counts < least, least)


def withheld_rows(cells: Floats, least: int, forced: Bools | None = None) -> Bools:
    """Choose the rows of a table with known column sums that are not printed, (R,).

    Args:
        cells: counts of each category in each column, (R, K). The first is the category that is
            never printed and follows from the others; it counts as withheld where any row is.
        least: the least count that is printed.
        forced: rows to withhold in any case, (R,).
    """
    small = np.asarray((cells < least).any(axis=1))
    if forced is not None:
        small = small | forced
    if not small.any():
        return small
    small[0] = True
    return _grown(cells, small, least)


def withheld_pairs(both: Floats, ones: Floats, others: Floats, rows: float, least: int) -> Bools:
    """Say of which pairs of indicators a correlation would show a small count, (j, k).

    Args:
        both: rows in which both indicators are one, (j, k).
        ones: rows in which each of the first is one, (j,).
        others: rows in which each of the second is one, (k,).
    """
    first, second = np.meshgrid(ones, others, indexing="ij")
    cells = np.stack([both, first - both, second - both, rows - first - second + both])
    return np.asarray((cells < least - 0.5).any(axis=0))


def table_groups(names: Sequence[str], chosen: Bools) -> list[list[int]]:
    """Group indicator columns of one variable, as sets in which categories may add up to all.

    `bmi[missing]` may be beside the categories of `bmi` or one of them: there are sets for both.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for place in np.flatnonzero(chosen).tolist():
        name = names[place]
        base, kind = base_of(name), "missing" if is_of_missing(name) else "words"
        groups.setdefault((base, "all"), []).append(place)
        groups.setdefault((base, kind), []).append(place)
    return list({tuple(group): group for group in groups.values()}.values())


def _grown(cells: Floats, hidden: Bools, least: int) -> Bools:
    """Withhold more rows until the withheld together are two at least, and no small count."""
    hidden = hidden.copy()
    while hidden.any() and not hidden.all():
        if hidden.sum() >= 2 and (cells[hidden].sum(axis=0) >= least).all():
            break
        left = np.flatnonzero(~hidden)
        hidden[left[cells[left].min(axis=1).argmin()]] = True
    return hidden
