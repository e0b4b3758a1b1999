"""What a ledger knows a table's rows by, whatever a formula or a range makes of them."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from secure_afl.data.tables.cells import as_number
from secure_afl.data.tables.raw import RawTable

Marks = NDArray[np.float32]

# Numbers of 24 bits, which float32 holds exactly.
_NUMBERS, _BYTES = 4, 3


def row_marks(table: RawTable, names: Iterable[str]) -> Marks:
    """Mark each row by its cells in these columns, those that the table has, (n, 4) float32.

    A number is one however it is written. Equal rows have equal marks, others by a chance of 2⁻⁹⁶.
    """
    there = sorted(name for name in names if name in table.columns)
    columns = [[_plain(cell) for cell in table.columns[name]] for name in there]
    rows = zip(*columns, strict=True) if columns else (() for _ in table.lines)
    return _marks(
        "\0".join(f"{name}\1{cell}" for name, cell in zip(there, row, strict=True)) for row in rows
    )


def patient_marks(patients: Sequence[str]) -> Marks:
    """Mark each patient that has a name, (p, 4) float32."""
    return _marks(f"patient\2{name}" for name in sorted(set(patients) - {""}))


def _plain(cell: str) -> str:
    number = as_number(cell)
    return cell if number is None else repr(number + 0.0)


def _marks(texts: Iterable[str]) -> Marks:
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    found = np.zeros((len(digests), _NUMBERS), dtype=np.float32)
    for place, digest in enumerate(digests):
        for at in range(_NUMBERS):
            found[place, at] = int.from_bytes(digest[at * _BYTES : (at + 1) * _BYTES], "big")
    return found
