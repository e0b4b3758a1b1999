"""Words of a table's cells: which write a number, and which say that a value is missing."""

import re
from collections.abc import Iterable

import numpy as np

from secure_afl.data.mapping import composed

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DATE = re.compile(r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}([T ].*)?", re.ASCII)


def as_number(cell: str) -> float | None:
    """Return the number that a word writes, None for all else; 1e999 is none."""
    if not is_written_as_number(cell):
        return None
    number = float(cell)
    return number if np.isfinite(number) else None


def is_written_as_number(cell: str) -> bool:
    """Say whether a word is written as a number, of any size."""
    return _NUMBER.fullmatch(cell) is not None


def is_date(cell: str) -> bool:
    """Say whether a word looks like a date."""
    return _DATE.fullmatch(cell) is not None


class MissingWords:
    """Words that stand for a missing value, beside the empty one.

    A number stands for itself however it is written: -9 is -9.0 too.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._words = {"", *map(composed, words)}
        numbers = map(as_number, self._words)
        self._numbers = {number for number in numbers if number is not None}

    def __contains__(self, cell: str) -> bool:
        """Say whether a cell is one of them."""
        if not cell or composed(cell) in self._words:
            return True
        return bool(self._numbers) and as_number(cell) in self._numbers
