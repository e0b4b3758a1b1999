"""What a ledger knows a table's rows by, whatever a formula or a dictionary makes of them.

A row has several marks. One is of the columns that the dictionary gives values to, and one of all
columns of the file. These fall into five parts by a hash of their names, and the other marks are of
two parts each: edits leave the marks of parts that have none of the edited columns.
"""

import hashlib
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from secure_afl.data.tables.raw import RawTable
from secure_afl.data.tables.words import as_number

Marks = NDArray[np.float32]

# Numbers of 24 bits, which float32 holds exactly.
_NUMBERS, _BYTES = 4, 3

# Of five parts two at a time: edits of any two columns leave three pairs or more, and of three
# columns one or more. Four parts make four marks less, and lose a third of the edits of three.
_PARTS = 5
_KINDS = (tuple(range(_PARTS)), *combinations(range(_PARTS), 2))

# Marks of a row; the first so many are of all columns, the dictionary's and the file's.
KINDS = 1 + len(_KINDS)
WHOLE = 2

# Words for a missing value in files that spreadsheets, statistics packages and people write.
_MISSING = frozenset(
    [
        *("", "na", "n/a", "n.a.", "nan", "null", "none", "nil", "missing", "unknown", "unk"),
        *(".", "-", "--", "?", "<na>", "#n/a", "#na", "#nv", "#null!"),
        *("k.a.", "unbekannt", "fehlt", "leer"),
    ]
)

# Floats of more digits have errors of a conversion in the last ones.
_DIGITS = 12
_LONG = 15


def row_marks(table: RawTable, names: Iterable[str], missing: Collection[str] = ()) -> Marks:
    """Mark each row, (n, KINDS, 4) float32.

    A number is one however it is written, with a decimal comma, too, to 12 digits. Capitals and
    kinds of spaces do not matter, and all usual words for missing values are one. Equal cells have
    equal marks, others by a chance of 2⁻⁹⁶.

    Args:
        names: columns of the first mark, those of them that the table has.
        missing: the dictionary's words for a missing value, in the first mark. The others turn on
            nothing that the dictionary says.
    """
    plain = {name: [_plain(cell) for cell in cells] for name, cells in table.columns.items()}
    absent = {_plain(word) for word in missing}
    own = {n: ["" if cell in absent else cell for cell in plain[n]] for n in names if n in plain}
    parts: list[dict[str, list[str]]] = [{} for _ in range(_PARTS)]
    for name, cells in plain.items():
        parts[_part(name)][name] = cells
    hashed = [_hashed(part, len(table)) for part in parts]
    marks = [_marks(b"row 0\2" + row for row in _hashed(own, len(table)))]
    for kind, kept in enumerate(_KINDS, 1):
        rows = zip(*(hashed[part] for part in kept), strict=True)
        marks.append(_marks(b"row %d\2" % kind + b"".join(row) for row in rows))
    return np.stack(marks, axis=1)


def patient_marks(patients: Sequence[str]) -> Marks:
    """Mark each patient that has a name, (p, 4) float32; 7, 0007 and 7.0 are one patient."""
    return _marks(f"patient\2{name}".encode() for name in sorted(set(map(_plain, patients)) - {""}))


def _hashed(columns: dict[str, list[str]], rows: int) -> list[bytes]:
    """Hash each row of some columns, whatever their order."""
    named = sorted((_folded(name), cells) for name, cells in columns.items())
    heads = [f"{head}\1" for head, _ in named]
    found = []
    for row in range(rows):
        text = "\0".join([head + cells[row] for head, (_, cells) in zip(heads, named, strict=True)])
        found.append(hashlib.sha256(text.encode()).digest())
    return found


def _part(name: str) -> int:
    return hashlib.sha256(_folded(name).encode()).digest()[0] % _PARTS


def _plain(cell: str) -> str:
    word = _folded(cell)
    if len(word) > _LONG and word.isdigit():
        # Ids: as floats, two of them may be one.
        return word
    number = as_number(word)
    if number is None and word.count(",") == 1:
        number = as_number(word.replace(",", "."))
    if number is not None:
        return f"{number + 0.0:.{_DIGITS}g}"
    return "" if word in _MISSING else word


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _marks(texts: Iterable[bytes]) -> Marks:
    whole = b"".join(hashlib.sha256(text).digest()[: _NUMBERS * _BYTES] for text in texts)
    numbers = np.frombuffer(whole, dtype=np.uint8).reshape(-1, _NUMBERS, _BYTES).astype(np.float32)
    return numbers @ np.array([2**16, 2**8, 1], dtype=np.float32)
