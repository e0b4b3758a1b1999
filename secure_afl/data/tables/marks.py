"""What a ledger knows a table's rows by, whatever a formula or a dictionary makes of them.

A row has several marks. One is of the columns that the dictionary gives values to. The others are
each of all columns of the file less a part of them: edits of columns in one part leave its mark.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from secure_afl.data.tables.raw import RawTable
from secure_afl.data.tables.words import as_number

Marks = NDArray[np.float32]

# Numbers of 24 bits, which float32 holds exactly.
_NUMBERS, _BYTES = 4, 3

_PARTS = 3

# Words for a missing value, whichever of them a dictionary names.
_MISSING = frozenset({"na", "n/a", "nan", "null", "none", "missing", "unknown", ".", "-", "?"})


def row_marks(table: RawTable, names: Iterable[str]) -> Marks:
    """Mark each row, (n, 4, 4) float32: four marks of four numbers.

    The first is of the cells in `names`, of those that the table has. The others are of all the
    table's columns but those of one of three parts, in which columns are by a hash of their name.
    A number is one however it is written; capitals and kinds of spaces do not matter; all usual
    words for missing values are one. Equal rows have equal marks, others by a chance of 2⁻⁹⁶.
    """
    plain = {name: [_plain(cell) for cell in cells] for name, cells in table.columns.items()}
    part = {name: _part(name) for name in plain}
    kinds = [[name for name in names if name in plain]]
    kinds += [[name for name in plain if part[name] != left] for left in range(_PARTS)]
    return np.stack([_marked(kind, plain, own, len(table)) for kind, own in enumerate(kinds)], 1)


def patient_marks(patients: Sequence[str]) -> Marks:
    """Mark each patient that has a name, (p, 4) float32."""
    return _marks(f"patient\2{name}" for name in sorted(set(patients) - {""}))


def _marked(kind: int, plain: dict[str, list[str]], names: list[str], rows: int) -> Marks:
    named = sorted((_folded(name), plain[name]) for name in names)
    heads = [head for head, _ in named]
    rows_cells = zip(*(column for _, column in named), strict=True) if named else [()] * rows
    return _marks(f"row {kind}\2" + _joined(heads, cells) for cells in rows_cells)


def _joined(heads: Sequence[str], cells: Sequence[str]) -> str:
    return "\0".join(f"{head}\1{cell}" for head, cell in zip(heads, cells, strict=True))


def _part(name: str) -> int:
    return hashlib.sha256(_folded(name).encode()).digest()[0] % _PARTS


def _plain(cell: str) -> str:
    number = as_number(cell)
    if number is not None:
        return repr(number + 0.0)
    word = _folded(cell)
    return "" if word in _MISSING else word


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _marks(texts: Iterable[str]) -> Marks:
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    found = np.zeros((len(digests), _NUMBERS), dtype=np.float32)
    for place, digest in enumerate(digests):
        for at in range(_NUMBERS):
            found[place, at] = int.from_bytes(digest[at * _BYTES : (at + 1) * _BYTES], "big")
    return found
