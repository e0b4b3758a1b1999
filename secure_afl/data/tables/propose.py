"""A draft of a data dictionary, from one site's own table, for people to edit.

Ranges are rounded outwards to one digit, for the least and the greatest value are single rows'. A
draft is still made of the data: what goes to other sites is what people know without them.
"""

import math
from collections import Counter
from collections.abc import Sequence

from secure_afl.data.tables.codes import Code, missing_codes
from secure_afl.data.tables.raw import RawTable
from secure_afl.data.tables.words import as_number, is_date

# Words that are a missing value in most files.
_MISSING = ("NA", "N/A", "na", "n/a", "NaN", "nan", "NULL", "null", "None", ".", "-", "?")
_MOST_CATEGORIES = 20
# Whole numbers of so few values are codes more often than not.
_CODES = 6
# A category of fewer rows than this is not written into a draft.
_LEAST_ROWS = 5


def propose(table: RawTable, target: str | None = None) -> str:
    """Draft the text of a dictionary.toml.

    Args:
        target: the column that is to be predicted, if it is known.
    """
    missing = missing_words(table)
    lines = [
        "# Drafted from one site's table. Edit it, then give all sites the same file.",
        "# Ranges are rounded outwards; replace them by what is known without looking at data.",
        "",
    ]
    if target is not None:
        lines.append(f"target = {_quoted(target)}")
    if missing:
        lines.append(f"missing = [{', '.join(map(_quoted, missing))}]")
    for name, cells in table.columns.items():
        lines += ["", f"[columns.{_quoted(name)}]", *_column(cells, {"", *missing})]
    return "\n".join(lines) + "\n"


def missing_words(table: RawTable) -> list[str]:
    """List the words in a table that are a missing value in most files."""
    there = {cell for cells in table.columns.values() for cell in cells}
    return [word for word in _MISSING if word in there]


def _column(cells: Sequence[str], absent: set[str]) -> list[str]:
    known = [cell for cell in cells if cell not in absent]
    empty = len(cells) - len(known)
    note = [] if not empty else ['missing = "drop"   # or a value that stands for empty cells']
    if not known:
        return ['type = "ignore"   # all cells are empty']
    numbers = [as_number(cell) for cell in known]
    counts = Counter(known)
    found = [number for number in numbers if number is not None]
    if len(found) == len(known):
        if len(counts) == len(known) and all(number.is_integer() for number in found):
            return ['type = "ignore"   # every row has a number of its own: type = "id"?']
        whole = all(number.is_integer() for number in found)
        if len(counts) == 2 and whole:
            return ['type = "category"', f"categories = [{_words(sorted(counts))}]", *note]
        hint = []
        if len(counts) <= _CODES and whole:
            hint = [f'# or: type = "category", categories = [{_words(sorted(counts))}]']
        return [*_number(known, found), *hint, *note]
    if all(is_date(cell) for cell in known):
        return ['type = "ignore"   # dates; export an age or a duration instead']
    if len(counts) == len(known):
        return ['type = "ignore"   # every row has a word of its own: type = "id"?']
    if 2 * len(found) > len(known):
        # A few dirty cells should not take a column away.
        return [
            *_number(known, found),
            f"# {len(known) - len(found)} cells are no numbers: inspect --dictionary names them",
            *note,
        ]
    if len(counts) == 1:
        return ['type = "ignore"   # all cells are one word']
    if len(counts) <= _MOST_CATEGORIES:
        common = sorted(word for word, count in counts.items() if count >= _LEAST_ROWS)
        rare = len(counts) - len(common)
        kept = common if len(common) >= 2 else sorted(counts)
        lines = ['type = "category"', f"categories = [{_words(kept)}]"]
        if rare and kept is common:
            lines.append(f"# {rare} words have fewer than {_LEAST_ROWS} rows; add what is meant")
        return [*lines, *note]
    return [f'type = "ignore"   # {len(counts)} different words: free text?']


def _number(cells: Sequence[str], found: Sequence[float]) -> list[str]:
    """Draft a column of numbers, in whose range no code for a missing value is.

    Args:
        cells: that are there.
        found: numbers among them.
    """
    codes = missing_codes(cells)
    values = {as_number(code.value) for code in codes}
    rest = [number for number in found if number not in values]
    low, high = outwards(min(rest), max(rest))
    return ['type = "number"', f"range = [{low:g}, {high:g}]", *map(_about_code, codes)]


def _about_code(code: Code) -> str:
    return (
        f"# {code.value} is far from all others, and out of this range: a missing code? then "
        f"missing = [{_quoted(code.value)}] above all columns"
    )


def outwards(low: float, high: float) -> tuple[float, float]:
    """Round both ends outwards to one digit of the width; equal ends are spread."""
    width = high - low or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(width))
    return math.floor(low / step) * step, (math.floor(high / step) + 1) * step


def _words(words: Sequence[str]) -> str:
    return ", ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """Write a TOML string."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'
