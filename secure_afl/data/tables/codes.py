"""Numbers that look like codes for a missing value: 999 among ages, -9 among lengths."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from secure_afl.data.tables.raw import RawTable
from secure_afl.data.tables.words import MissingWords, as_number

# Two values of one kind stand further apart than these shares of the width of all others.
_FAR, _FAR_FOR_CODE = 2.0, 0.5


class Code(NamedTuple):
    """A number that looks like a code for a missing value.

    Attributes:
        value: as it is written most often.
        cells: how many have it.
    """

    value: str
    cells: int


def missing_codes(cells: Sequence[str]) -> list[Code]:
    """List the numbers of a column that look like codes for a missing value, the least first.

    Each is far from all other numbers, and there twice or made of the digits that codes are made
    of: -9, 99, 888. A column of less than two other numbers has none.

    Args:
        cells: those that are no missing value already; words that are no number are passed over.
    """
    counts, written = Counter[float](), dict[float, str]()
    for cell, count in Counter(cells).most_common():
        number = as_number(cell)
        if number is not None:
            counts[number] += count
            written.setdefault(number, cell)
    ordered = sorted(counts)
    typical = [value for value in ordered if _is_typical(value)]
    plain = [value for value in ordered if not _is_typical(value)]
    # Two codes, as 888 and 999, are near each other.
    found = [value for value in typical if _is_far_for_code(value, plain)]
    ends = ((ordered[0], ordered[1:]), (ordered[-1], ordered[:-1])) if ordered else ()
    for value, rest in ends:
        if counts[value] > 1 and not _is_typical(value) and _is_far(value, rest):
            found.append(value)
    return [Code(written[value], counts[value]) for value in sorted(found)]


def suspected(table: RawTable, missing: Sequence[str]) -> dict[str, list[Code]]:
    """List such numbers by column, of columns that have some.

    Args:
        missing: words that stand for a missing value already.
    """
    absent = MissingWords(missing)
    found = {
        name: missing_codes([cell for cell in cells if cell not in absent])
        for name, cells in table.columns.items()
    }
    return {name: codes for name, codes in found.items() if codes}


def _is_far(value: float, rest: Sequence[float], share: float = _FAR) -> bool:
    """Say whether a value is further from all others, sorted, than a share of their width."""
    return len(rest) >= 2 and max(rest[0] - value, value - rest[-1]) > share * (rest[-1] - rest[0])


def _is_far_for_code(value: float, rest: Sequence[float]) -> bool:
    """Say whether a value that people write for missing ones is far, or has a sign of its own."""
    return _is_far(value, rest, _FAR_FOR_CODE) or (len(rest) >= 2 and value < 0 <= rest[0])


def _is_typical(value: float) -> bool:
    """Say whether people write a missing value so: -7, -8, -9, 77, 88, 99, and longer ones."""
    if not value.is_integer() or abs(value) >= 1e9:
        return False
    digits = str(abs(int(value)))
    return set(digits) in ({"7"}, {"8"}, {"9"}) and (value < 0 or len(digits) > 1)
