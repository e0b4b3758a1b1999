"""Words to numbers and categories, or one clear line on the first that is neither."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from secure_afl.data.mapping import composed, shorten
from secure_afl.data.tables.dictionary import DROP, REFUSE, Category, Number
from secure_afl.data.tables.raw import RawTable
from secure_afl.data.tables.words import MissingWords, as_number, is_date, is_written_as_number
from secure_afl.errors import DataError

_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_EITHER = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)
_GROUPED = re.compile(r"[+-]?\d{1,3}([ ,.'’_\u00a0\u202f]\d{3})+([.,]\d+)?", re.ASCII)


class Cells(NamedTuple):
    """A column as numbers.

    Attributes:
        values: (n,) float64 in own units, or the places of categories.
        missing: whether a cell was empty, (n,).
        cut: how many values were out of their range.
    """

    values: NDArray[np.float64]
    missing: NDArray[np.bool_]
    cut: int = 0


def read_cells(table: RawTable, name: str, spec: Number | Category, words: Sequence[str]) -> Cells:
    """Read a column of a table.

    Args:
        words: that stand for a missing value; numbers by their value.

    Raises:
        DataError: a cell that is no value of this column; it names the line, the cell and the fix.
    """
    cells = table.cells(name)
    absent = MissingWords(words)
    known = {cell: cell in absent for cell in set(cells)}
    missing = np.array([known[cell] for cell in cells])
    if missing.any() and spec.missing == REFUSE:
        row = int(missing.argmax())
        raise DataError(
            f"{table.line(row)}: column {name!r} is empty, and in {int(missing.sum())} of "
            f"{len(cells)} rows; in the dictionary declare 'missing': '{DROP}' leaves such rows "
            "out, a value stands for them"
        )
    if isinstance(spec, Category):
        return Cells(_places(table, name, spec, cells, missing), missing)
    return _numbers(table, name, spec, cells, missing)


def _numbers(
    table: RawTable,
    name: str,
    spec: Number,
    cells: Sequence[str],
    missing: NDArray[np.bool_],
) -> Cells:
    assert spec.range is not None, "a run has ranges"
    low, high = spec.range
    stands = low if isinstance(spec.missing, str) else spec.missing
    values = np.empty(len(cells))
    for row, cell in enumerate(cells):
        if missing[row]:
            values[row] = stands
        elif (number := as_number(cell)) is not None:
            values[row] = number
        else:
            raise DataError(
                f"{table.line(row)}: {cell[:60]!r} in column {name!r} {_why_no_number(cell)}"
            )
    inside = (values >= low) & (values <= high)
    return Cells(np.clip(values, low, high), missing, int((~inside).sum()))


def _why_no_number(cell: str) -> str:
    if _COMMA.fullmatch(cell):
        point = cell.replace(",", ".")
        if _EITHER.fullmatch(cell):
            whole = cell.replace(",", "")
            return f"is no number: write {whole} if its comma parts thousands, {point} if decimals"
        return f"is no number: write the decimal comma as a point, {point}"
    if _GROUPED.fullmatch(cell):
        return "is no number: write it without signs between thousands"
    if is_date(cell):
        return "is a date, which is no number: export an age or a duration, or ignore the column"
    if cell.lower().lstrip("+-") in ("inf", "infinity", "nan"):
        return "is no finite number: leave the cell empty, or list the word under 'missing'"
    if is_written_as_number(cell):
        return "is too large a number; allowed: up to 1e308. Correct it, or leave the cell empty"
    return (
        "is no number: correct it, list it under 'missing', or give the column type category or "
        "ignore"
    )


def _places(
    table: RawTable,
    name: str,
    spec: Category,
    cells: Sequence[str],
    missing: NDArray[np.bool_],
) -> NDArray[np.float64]:
    places = {category: float(place) for place, category in enumerate(spec.categories)}
    stands = places.get(spec.missing, 0.0)
    found = np.empty(len(cells))
    for row, cell in enumerate(cells):
        place = stands if missing[row] else places.get(composed(cell))
        if place is None:
            others = len({other for other in cells if other and composed(other) not in places})
            raise DataError(
                f"{table.line(row)}: {cell[:60]!r} is no category of column {name!r}, nor are "
                f"{others - 1} other words here; declared: {shorten(spec.categories)}. Correct the "
                "cell, or add the category to all sites' dictionary"
                if others > 1
                else f"{table.line(row)}: {cell[:60]!r} is no category of column {name!r}; "
                f"declared: {shorten(spec.categories)}. Correct the cell, or add the category to "
                "all sites' dictionary"
            )
        found[row] = place
    return found
