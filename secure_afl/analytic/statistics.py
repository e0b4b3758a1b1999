"""What a client's rows add up to: Gram matrix, cross term and class counts, exact in int64."""

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Secret
from protocols.layout import Block, Integers, Layout
from secure_afl.analytic.gram import GramSum, block_rows, cross_term, pack_upper, unpack_upper
from secure_afl.analytic.patients import rooted
from secure_afl.analytic.quantise import MAX_BITS, Floats, Quantiser
from secure_afl.analytic.rows import check_rows
from secure_afl.errors import DataError

# Rows are rounded in slices that stay in cache, and multiplied in blocks that keep BLAS busy.
_SLICE_ROWS = 128

SQUARES = "squares"
"""Block of sums of squares by class, beside the statistics where a method asks for it."""

# A sum over this many rows stays below 2^53, where float64 is exact in any order of addition.
MAX_CLIENT_ROWS = 2**53 // 2 ** (2 * MAX_BITS)


class Statistics(Secret, frozen=True, eq=False):
    """The sufficient statistics of ridge regression over integer rows F and one-hot labels Y.

    Where rows have weights, each of the m rows of a patient has norm ≤ 2^bits/√m, and its label is
    a = ⌊A/√m⌋ instead of 1: all three then hold it with the weight 1/m.

    Attributes:
        gram: FᵀF, (d, d) int64, symmetric.
        cross: FᵀY, (d, C) int64.
        counts: YᵀY's diagonal, (C,) int64: rows of each class, or their weights times A².
    """

    gram: Integers
    cross: Integers
    counts: Integers

    @classmethod
    def of(
        cls,
        features: NDArray[np.floating],
        labels: Integers,
        classes: int,
        quantiser: Quantiser,
        rows_each: Integers | None = None,
    ) -> "Statistics":
        """Quantise rows and sum them up, block by block.

        Args:
            features: (n, d), n ≥ 1, finite; may be memory-mapped.
            labels: (n,) int64 in 0..classes−1.
            rows_each: m, (n,): rows of the patient that each row is of; None gives no weights.

        Raises:
            DataError: no rows or more than 2^29, lengths that differ, a label out of range, or
                features not finite.
        """
        gram, cross, counts = _add_up(features, labels, classes, quantiser, rows_each)
        return cls(gram.symmetric(), cross, counts)

    def __add__(self, other: "Statistics") -> "Statistics":
        return Statistics(
            self.gram + other.gram, self.cross + other.cross, self.counts + other.counts
        )

    @property
    def rows(self) -> int:
        """Number of rows in the sum, where they have no weights."""
        return int(self.counts.sum())

    def floats(self, quantiser: Quantiser, label_scale: int = 1) -> tuple[Floats, Floats]:
        """Return Gram (d, d) and cross term (d, C) in units of the float features.

        The rows have norm ≤ 1.

        Args:
            label_scale: A, where rows have weights.
        """
        scale = float(quantiser.scale)
        return self.gram / scale**2, self.cross / (scale * label_scale)

    def pack(self, *, counts: bool = True, count_scale: int = 1) -> Integers:
        """Pack into one int64 vector.

        It holds the Gram's diagonal, its strict upper triangle, cross, and counts times their
        scale.
        """
        parts = [self.gram.diagonal(), pack_upper(self.gram), self.cross.ravel()]
        return np.concatenate([*parts, self.counts * count_scale] if counts else parts)

    @classmethod
    def unpack(cls, vector: Integers, layout: Layout) -> "Statistics":
        """Unpack a packed vector of a layout made by `statistics_layout`: the inverse of `pack`.

        Counts that were not packed are zero. Those with noise, on a finer grid, are rounded.
        """
        blocks = layout.split(vector)
        dim = len(blocks["gram_diagonal"])
        classes = len(blocks["cross"]) // dim
        gram = unpack_upper(blocks.get("gram_upper", np.empty(0, dtype=np.int64)), dim)
        np.fill_diagonal(gram, blocks["gram_diagonal"])
        counts = blocks.get("counts", np.zeros(classes, dtype=np.int64)).copy()
        if (scale := _count_scale(layout)) > 1:
            counts = np.rint(counts / scale).astype(np.int64)
        return cls(gram, blocks["cross"].reshape(dim, classes), counts)


def packed_statistics(
    features: NDArray[np.floating],
    labels: Integers,
    classes: int,
    quantiser: Quantiser,
    rows_each: Integers | None = None,
    *,
    counts: bool = True,
    count_scale: int = 1,
) -> Integers:
    """Sum rows up and pack the sums: `Statistics.of(…).pack(…)` without the whole matrix.

    Arguments and errors are those of `Statistics.of` and `Statistics.pack`.
    """
    gram, cross, counted = _add_up(features, labels, classes, quantiser, rows_each)
    dim = features.shape[1]
    triangle, length = dim * (dim + 1) // 2, cross.size + (classes if counts else 0)
    vector = np.empty(triangle + length, dtype=np.int64)
    gram.pack_into(vector[:triangle])
    vector[triangle : triangle + cross.size] = cross.ravel()
    if counts:
        vector[triangle + cross.size :] = counted * count_scale
    return vector


def class_squares(
    features: NDArray[np.floating],
    labels: Integers,
    classes: int,
    quantiser: Quantiser,
    rows_each: Integers | None = None,
) -> Integers:
    """Sum the squares of integer rows by class, ΣF² as (d, C) int64.

    Arguments are those of `Statistics.of`.

    Raises:
        DataError: as `Statistics.of`.
    """
    check_rows(features, labels, classes)
    squares = np.zeros((features.shape[1], classes), dtype=np.int64)
    for start in range(0, len(features), _SLICE_ROWS):
        several = None if rows_each is None else rows_each[start : start + _SLICE_ROWS]
        rows = quantiser.integers(features[start : start + _SLICE_ROWS], start, several)
        one_hots = one_hot(labels[start : start + len(rows)], classes)
        # Whole numbers below 2^53 are added exactly in any order.
        squares += np.rint(np.square(rows).T @ one_hots).astype(np.int64)
    return squares


def _add_up(
    features: NDArray[np.floating],
    labels: Integers,
    classes: int,
    quantiser: Quantiser,
    rows_each: Integers | None,
) -> tuple[GramSum, Integers, Integers]:
    """Add up the Gram matrix, the cross term (d, C) and the counts (C,) of rows."""
    check_rows(features, labels, classes)
    rows, dim = features.shape
    if rows > MAX_CLIENT_ROWS:
        raise DataError(f"{rows} rows at one client; allowed: ≤ {MAX_CLIENT_ROWS}")
    marks = None if rows_each is None else rooted(quantiser.label_scale, rows_each)
    gram, cross = GramSum(dim), np.zeros((dim, classes), dtype=np.int64)
    most = block_rows(quantiser.bits)
    buffer = np.empty((min(rows, most), dim), dtype=np.float32)
    for start in range(0, rows, most):
        block = buffer[: min(most, rows - start)]
        for at in range(0, len(block), _SLICE_ROWS):
            part = features[start + at : start + min(at + _SLICE_ROWS, len(block))]
            several = None if rows_each is None else rows_each[start + at :][: len(part)]
            block[at : at + len(part)] = quantiser.integers(part, start + at, several)
        gram.add(block)
        one_hots = one_hot(labels[start : start + len(block)], classes)
        if marks is not None:
            one_hots *= marks[start : start + len(block), None]
        cross += cross_term(block, one_hots, quantiser.scale)
    return gram, cross, count_labels(labels, classes, marks)


def one_hot(labels: Integers, classes: int) -> Floats:
    """Turn (n,) labels into (n, C) rows of zeros with a one at the label."""
    rows = np.zeros((len(labels), classes))
    rows[np.arange(len(labels)), labels] = 1.0
    return rows


def count_labels(labels: Integers, classes: int, marks: Integers | None = None) -> Integers:
    """Count the rows of each class, (C,) int64; a row with mark a counts a² times.

    Args:
        marks: a ≥ 0, (n,); by default 1.
    """
    if marks is None:
        return np.bincount(labels, minlength=classes).astype(np.int64)
    counts = np.zeros(classes, dtype=np.int64)
    np.add.at(counts, labels, marks**2)
    return counts


def statistics_layout(
    dim: int,
    classes: int,
    quantiser: Quantiser,
    max_rows: int,
    client_rows: int | None = None,
    *,
    counts: bool = True,
    squares: bool = False,
    label_scale: int = 1,
    count_scale: int = 1,
) -> Layout:
    """Lay out packed statistics, with or without counts, over at most `max_rows` rows.

    Of these at most `client_rows`, by default all, are one client's. A row of integer norm ≤ s and
    label A adds 0..s² to a diagonal entry, at most s²/2 in size to any other entry of the Gram, at
    most s·A to an entry of the cross term, A² to a count, and 0..s² to a sum of squares by class.
    Where rows have weights, `max_rows` and `client_rows` are patients: all rows of a patient add no
    more than one row of weight 1 may.

    Args:
        squares: with sums of squares by class, as `class_squares` makes them.
        label_scale: A, 1 where rows have no weights.
        count_scale: what counts are multiplied by, so that little noise has steps enough.

    Raises:
        WouldOverflow: no ring holds that many rows at these bits.
    """
    s = quantiser.scale
    gram_unit = 1.0 / s**2
    one = max_rows if client_rows is None else client_rows

    def signed(name: str, length: int, halves: int, unit: float) -> Block:
        """Lay out entries to which a row adds at most `halves`/2 in size."""
        bound, addend = max_rows * halves // 2, one * halves // 2
        return Block(name, length, -bound, bound, unit, -addend, addend)

    blocks = [Block("gram_diagonal", dim, 0, max_rows * s**2, gram_unit, 0, one * s**2)]
    if dim > 1:
        blocks.append(signed("gram_upper", dim * (dim - 1) // 2, s**2, gram_unit))
    blocks.append(signed("cross", dim * classes, 2 * s * label_scale, 1.0 / (s * label_scale)))
    if counts:
        mass = label_scale**2 * count_scale
        blocks.append(Block("counts", classes, 0, max_rows * mass, 1.0 / mass, 0, one * mass))
    if squares:
        most, own = max_rows * s**2, one * s**2
        blocks.append(Block(SQUARES, dim * classes, 0, most, gram_unit, 0, own))
    return Layout(tuple(blocks))


def _count_scale(layout: Layout) -> int:
    """Return what counts of a layout made by `statistics_layout` are multiplied by."""
    units = layout.units
    if "counts" not in units:
        return 1
    # Units are 1/s² of the Gram, 1/(s·A) of the cross term, and 1/(A²·scale) of the counts.
    return round(units["cross"] ** 2 / (units["gram_diagonal"] * units["counts"]))
