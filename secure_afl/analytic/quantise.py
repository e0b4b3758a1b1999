"""From float features to integer rows whose norm never exceeds 2^bits."""

import math
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Wire
from secure_afl.checks import check_choice, settle_float, settle_int
from secure_afl.errors import ConfigError, DataError

MAX_BITS = 12
RowMode: TypeAlias = Literal["normalise", "clip", "columns"]

# Squares of larger numbers overflow, of smaller ones vanish.
MAX_FEATURE = 1e150
MIN_NORM = 1e-150

# The least that stands for a label where rows have weights: it is rounded, too.
_LEAST_LABEL = 64

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Quantiser(Wire, frozen=True):
    """The rule by which a row becomes integers; part of what all clients agree on.

    Attributes:
        bits: the integer norm bound is 2^bits, 1 to 12.
        mode: `normalise` scales every row to norm 1, `clip` only those above norm `clip`, all
            being divided by `clip`. A row of norm below 1e-150 has no direction and stays zero.
            `columns` is for rows of d features of at most 1/√d each, as `Columns` makes them: it
            clips at 1, and ±1/√d is a whole number of steps, see `end`.
        clip: the norm at which `clip` mode cuts, 1e-100 to 1e100; 1 in other modes.

    Raises:
        ConfigError: a value out of range.
    """

    bits: int
    mode: RowMode = "normalise"
    clip: float = 1.0

    def __post_init__(self) -> None:
        settle_int(self, "bits", 1, MAX_BITS)
        check_choice(self, "mode", get_args(RowMode))
        settle_float(self, "clip", 1e-100, 1e100)
        if self.mode != "clip" and self.clip != 1.0:
            raise ConfigError(
                f"clip is {self.clip:g} in row mode {self.mode!r}, where it has no effect; "
                "allowed: 1, or row mode 'clip'"
            )

    @property
    def scale(self) -> int:
        """2^bits: what the value 1.0 becomes, and the bound on a row's integer norm."""
        return 1 << self.bits

    @property
    def label_scale(self) -> int:
        """A: what the label of a patient's only row becomes, where rows have weights; ≥ 64."""
        return max(self.scale, _LEAST_LABEL)

    @property
    def of_floats(self) -> "Quantiser":
        """The rule for a model, whose rows stay floats: bits matter in mode `columns` alone."""
        return self if self.mode == "columns" else Quantiser(MAX_BITS, self.mode, self.clip)

    def end(self, dim: int) -> int:
        """Return b, what a feature of 1/√d becomes in mode `columns`.

        It is the greatest whole number with d·b² ≤ 4^bits. A row whose features are all at most
        1/√d has integers of at most b, so that none is too long and truncated: rounding moves each
        of its entries by half a step at most, and those of ±1/√d not at all.

        Raises:
            ConfigError: d > 4^bits, where b would be 0.
        """
        end = math.isqrt(self.scale**2 // dim)
        if end == 0:
            raise ConfigError(
                f"{dim} columns at {self.bits} bits, where every entry would be rounded to 0; "
                f"allowed: at most {self.scale**2} columns. Take more bits, fewer clients or rows "
                "in one sum, or fewer columns"
            )
        return end

    def steps(self, dim: int) -> float:
        """Return what a feature of 1 becomes, before rounding, in rows of d features."""
        if self.mode == "columns":
            return self.end(dim) * math.sqrt(dim)
        return (self.scale - 1) / self.clip

    @property
    def reach(self) -> int:
        """What an entry of 1 in a `scaled` row becomes."""
        return self.scale if self.mode == "columns" else self.scale - 1

    def scaled(self, features: NDArray[np.floating]) -> Floats:
        """Return rows of norm ≤ 1 as float64: what the integers approximate, for float baselines.

        Args:
            features: (n, d), any float dtype.

        Raises:
            DataError: a NaN, an infinity, or a row whose norm overflows, naming the row.
        """
        rows = _copy(features)
        rows *= self._factors(rows)[:, None]
        return rows

    def integers(
        self,
        features: NDArray[np.floating],
        first_row: int = 0,
        rows_each: Integers | None = None,
    ) -> Floats:
        """Return integer rows of integer norm ≤ `scale`, or ≤ `scale`/√m.

        They are float64 so that BLAS can multiply them.

        Rows are scaled by `reach`, with m by 2^bits/√m − 1, and rounded to nearest; the few whose
        rounded norm still exceeds 2^bits/√m are truncated toward zero instead, which cannot
        lengthen them. Norms are compared as whole numbers: m·‖f‖² ≤ 2^(2·bits) holds for every row.

        Args:
            features: (n, d), any float dtype.
            first_row: what errors call the first of these rows.
            rows_each: m ≥ 1, (n,): rows of the patient that each row is of; by default 1.

        Returns:
            (n, d) float64 holding integers. A row's integers do not depend on its neighbours.

        Raises:
            DataError: as `scaled`.
        """
        rows = _copy(features)
        reach: Floats | int = self.reach
        longest: Integers | int = self.scale**2
        if rows_each is not None:
            reach = np.maximum(self.scale / np.sqrt(rows_each) - 1, 0.0)
            longest = self.scale**2 // rows_each
        rows *= (reach * self._factors(rows, first_row))[:, None]
        rounded = np.rint(rows)
        too_long = _squared_norms(rounded) > longest
        rounded[too_long] = np.trunc(rows[too_long])
        return rounded

    def _factors(self, rows: Floats, first_row: int = 0) -> Floats:
        squared = _squared_norms(rows)
        unusable = ~(squared < MAX_FEATURE**2)
        if unusable.any():
            raise bad_row(first_row + int(unusable.argmax()))
        norms = np.sqrt(squared)
        if self.mode == "clip":
            return 1.0 / np.maximum(norms, self.clip)
        if self.mode == "columns":
            dim = rows.shape[1]
            kept: Floats = self.steps(dim) / self.scale / np.maximum(norms, 1.0)
            return kept
        return 1.0 / np.where(norms > MIN_NORM, norms, 1.0)


def bad_row(row: int) -> DataError:
    """Make the error for a row that is no row of numbers."""
    return DataError(
        f"features of row {row} are NaN, infinite or too large; allowed: finite numbers below "
        f"{MAX_FEATURE:g}. Remove the row or repair the backbone that made it."
    )


def _copy(features: NDArray[np.floating]) -> Floats:
    with np.errstate(over="ignore"):  # a longer float may become infinite, and is then refused
        return np.array(features, dtype=np.float64, order="C")


def _squared_norms(rows: Floats) -> Floats:
    # The sum over a row takes the same order of additions however many rows there are, which
    # einsum's does not.
    with np.errstate(over="ignore", invalid="ignore"):
        norms: Floats = np.square(rows).sum(axis=1)
    return norms
