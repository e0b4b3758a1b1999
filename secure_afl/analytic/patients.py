"""Whose each row is: rows of each patient, their weights in whole numbers, sums by patient.

A patient with m rows at a client weighs as much as one row. Either each of the m weighs 1/m: in
whole numbers a row's weight is rounded down, so that the weights of a patient never exceed one. Or
what the rows add is summed up, and the sum is brought within the bound of one row.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.errors import DataError

# Numbers that are handled at a time, 16 MB.
_BATCH_NUMBERS = 1 << 21


@dataclass(frozen=True, eq=False)
class PatientGroups:
    """Rows by patient.

    Attributes:
        order: places of rows, (n,) int64: those of one patient are neighbours, in their order.
        starts: where each patient's begin in `order`, (p,) int64.
    """

    order: Integers
    starts: Integers

    def __repr__(self) -> str:
        return "<PatientGroups>"

    @classmethod
    def of(cls, patients: Sequence[str]) -> "PatientGroups":
        """Group rows by the patient that each names; a row that names none is a patient's only one.

        Patients are in the order of their first rows. Names are compared as they are.
        """
        numbers: dict[str, int] = {}
        found = np.empty(len(patients), dtype=np.int64)
        count = 0
        for place, name in enumerate(patients):
            # A row without a name shares its number with no other.
            number = numbers.setdefault(name, count) if name else count
            count += number == count
            found[place] = number
        order = np.argsort(found, kind="stable").astype(np.int64)
        starts = np.searchsorted(found[order], np.arange(count)).astype(np.int64)
        return cls(order, starts)

    def __len__(self) -> int:
        """Return the number of patients, p."""
        return len(self.starts)

    @cached_property
    def rows(self) -> Integers:
        """Rows of each patient, (p,) int64 ≥ 1."""
        counts: Integers = np.diff(np.append(self.starts, len(self.order)))
        return counts

    @cached_property
    def rows_each(self) -> Integers:
        """Rows of the patient that each row is of, m, (n,) int64 ≥ 1."""
        found = np.empty_like(self.order)
        found[self.order] = np.repeat(self.rows, self.rows)
        return found

    def batches(self, row: int, patient: int) -> Iterator[Integers]:
        """Yield places of rows, (p, m) int64: p patients of m rows each, until all were there.

        Args:
            row, patient: how many numbers a row and a patient take, for p so many as fit 16 MB, or
                one.
        """
        for several in np.unique(self.rows):
            starts = self.starts[self.rows == several]
            size = max(1, _BATCH_NUMBERS // (int(several) * row + patient))
            for at in range(0, len(starts), size):
                yield self.order[starts[at : at + size, None] + np.arange(several)]

    def sums(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Add up each patient's values: (n, …) becomes (p, …), of the same dtype.

        The order of additions turns on that patient's rows alone.
        """
        summed: NDArray[np.generic] = np.add.reduceat(values[self.order], self.starts, axis=0)
        return summed


def known_patients(name: str, patients: Sequence[str] | None) -> Sequence[str]:
    """Return whose each row is.

    Args:
        name: of the client.
        patients: as `ClientData` has them.

    Raises:
        DataError: rows do not say whose they are.
    """
    if patients is None:
        raise DataError(
            f"client '{name}' does not say whose its rows are, as unit patient needs; name the "
            "array of an .npz or give a pattern of file names with --id, or choose --unit example"
        )
    return patients


def divided(whole: int, rows_each: Integers) -> Integers:
    """Return the whole-number weight ⌊w/m⌋ of each row, (n,) int64.

    A patient's weights add up to w at most.

    Args:
        whole: w ≥ 1, the weight of a patient's only row.
        rows_each: m ≥ 1, (n,).
    """
    return whole // rows_each


def rooted(whole: int, rows_each: Integers) -> Integers:
    """Return ⌊w/√m⌋ for each row, (n,) int64.

    The squares of a patient's add up to w² at most.

    Args:
        whole: w, 1 to 2^26, what a patient's only row has.
        rows_each: m ≥ 1, (n,).
    """
    # A root of a whole number below 2^52 is never rounded up to another whole number.
    found: Integers = np.sqrt(divided(whole**2, rows_each)).astype(np.int64)
    return found


def within(vectors: Floats, longest: int) -> Floats:
    """Return integer vectors of squared norm ≤ L, exactly, near to given ones.

    They are rounded to nearest. Those whose squared norm then exceeds L are shortened to √L − 1
    first; the few of these that still exceed it are truncated toward zero, which cannot lengthen
    them.

    Args:
        vectors: (p, n), finite.
        longest: L, 1 to 2^52.

    Returns:
        (p, n) float64 holding integers. One vector's do not depend on the others.
    """
    rounded: Floats = np.rint(vectors)
    long = np.square(rounded).sum(axis=1) > longest
    if not long.any():
        return rounded
    norms = np.sqrt(np.square(vectors[long]).sum(axis=1))
    shortened = vectors[long] * np.minimum(1.0, (math.sqrt(longest) - 1) / norms)[:, None]
    whole = np.rint(shortened)
    still = np.square(whole).sum(axis=1) > longest
    whole[still] = np.trunc(shortened[still])
    rounded[long] = whole
    return rounded
