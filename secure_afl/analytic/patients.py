"""Whose each row is: rows of each patient, their weights in whole numbers, sums by patient.

A patient with m rows at a client weighs as much as one row: each of the m weighs 1/m. In whole
numbers a row's weight is rounded down, so that the weights of a patient never exceed one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from protocols.layout import Integers
from secure_afl.errors import DataError


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
