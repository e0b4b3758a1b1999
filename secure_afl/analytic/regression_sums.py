"""What a client's rows and targets add up to: all second moments of (X | 1 | t), exact in int64."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Secret
from protocols.layout import Block, Integers, Layout
from secure_afl.analytic.gram import GramSum, block_rows, pack_upper, unpack_upper
from secure_afl.analytic.patients import rooted
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.statistics import MAX_CLIENT_ROWS
from secure_afl.errors import DataError

GRAM, UPPER, CROSS, SUMS = "gram_diagonal", "gram_upper", "cross", "sums"
ROWS, TARGET_SUM, TARGET_SQUARES = "rows", "target_sum", "target_squares"


class RegressionSums(Secret, frozen=True, eq=False):
    """The second moments of integer rows X, a constant A and integer targets t.

    Where rows have weights, each of the m rows of a patient has norm ≤ 2^bits/√m, a constant
    ⌊A/√m⌋ and a target of size ≤ ⌊T/√m⌋: every entry then holds it with the weight 1/m.

    Attributes:
        gram: XᵀX, (d, d) int64, symmetric.
        cross: Xᵀt, (d,) int64.
        sums: A·Xᵀ1, (d,) int64.
        rows: A²·N.
        target_sum: A·Σt.
        target_squares: Σt².
    """

    gram: Integers
    cross: Integers
    sums: Integers
    rows: int
    target_sum: int
    target_squares: int

    @classmethod
    def of(
        cls,
        features: NDArray[np.floating],
        targets: Floats,
        quantiser: Quantiser,
        mark: int = 1,
        rows_each: Integers | None = None,
    ) -> "RegressionSums":
        """Quantise rows and targets and sum them up, block by block.

        Args:
            features: (n, d), n ≥ 1, finite; may be memory-mapped.
            targets: (n,) in [−1, 1]; they become rint(t·T), T being `Quantiser.label_scale`.
            mark: A, 1 to 2^12.
            rows_each: m, (n,): rows of the patient that each row is of; None gives no weights.

        Raises:
            DataError: more than 2^29 rows, or features not finite.
        """
        rows, dim = features.shape
        if rows > MAX_CLIENT_ROWS:
            raise DataError(f"{rows} rows at one client; allowed: ≤ {MAX_CLIENT_ROWS}")
        summed = GramSum(dim + 2)
        # The constant and the target are as short as an entry of a row may be.
        most = block_rows(quantiser.bits)
        block = np.empty((min(rows, most), dim + 2), dtype=np.float32)
        for start in range(0, rows, most):
            part = slice(start, min(start + most, rows))
            several = None if rows_each is None else rows_each[part]
            filled = block[: part.stop - start]
            filled[:, :dim] = quantiser.integers(features[part], start, several)
            if several is None:
                filled[:, dim] = mark
                filled[:, dim + 1] = np.rint(targets[part] * quantiser.label_scale)
            else:
                filled[:, dim] = rooted(mark, several)
                filled[:, dim + 1] = np.rint(targets[part] * rooted(quantiser.label_scale, several))
            summed.add(filled)
        return cls.split(summed.symmetric())

    @classmethod
    def split(cls, moments: Integers) -> "RegressionSums":
        """Split the Gram matrix of (X | A | t), (d + 2, d + 2), into its parts."""
        inner = moments[:-2, :-2]
        return cls(
            inner,
            moments[:-2, -1],
            moments[:-2, -2],
            int(moments[-2, -2]),
            int(moments[-2, -1]),
            int(moments[-1, -1]),
        )

    def pack(self) -> Integers:
        """Pack into one int64 vector, in the order of `regression_layout`."""
        ends = np.array([self.rows, self.target_sum, self.target_squares], dtype=np.int64)
        upper = pack_upper(self.gram)
        return np.concatenate([self.gram.diagonal(), upper, self.cross, self.sums, ends])

    @classmethod
    def unpack(cls, vector: Integers, layout: Layout) -> "RegressionSums":
        """Unpack a vector of a layout made by `regression_layout`: the inverse of `pack`."""
        blocks = layout.split(vector)
        dim = len(blocks[GRAM])
        gram = unpack_upper(blocks.get(UPPER, np.empty(0, dtype=np.int64)), dim)
        np.fill_diagonal(gram, blocks[GRAM])
        ends = (int(blocks[name][0]) for name in (ROWS, TARGET_SUM, TARGET_SQUARES))
        return cls(gram, blocks[CROSS], blocks[SUMS], *ends)

    def whole(self) -> NDArray[Any]:
        """Return the Gram matrix of (X | A | t), (d + 2, d + 2), in Python's own integers."""
        dim = len(self.sums)
        moments = np.empty((dim + 2, dim + 2), dtype=object)
        moments[:dim, :dim] = self.gram.astype(object)
        moments[:dim, dim] = moments[dim, :dim] = self.sums.astype(object)
        moments[:dim, dim + 1] = moments[dim + 1, :dim] = self.cross.astype(object)
        moments[dim, dim] = self.rows
        moments[dim, dim + 1] = moments[dim + 1, dim] = self.target_sum
        moments[dim + 1, dim + 1] = self.target_squares
        return moments


def regression_layout(
    dim: int, quantiser: Quantiser, max_rows: int, client_rows: int, mark: int = 1
) -> Layout:
    """Lay out packed sums over at most `max_rows` rows, of one client at most `client_rows`.

    A row of integer norm ≤ s adds 0..s² to a diagonal entry, at most s²/2 in size to any other of
    the Gram matrix, at most s·T to an entry of the cross term and s·A to one of the sums. Where
    rows have weights both bounds are of patients, and a patient adds no more than one row may.

    Args:
        mark: A.

    Raises:
        WouldOverflow: no ring holds that many rows at these bits.
    """
    s, reach = quantiser.scale, quantiser.label_scale

    def block(name: str, length: int, low: int, high: int, unit: int) -> Block:
        """Lay out entries to which a row adds low..high, in steps of 1/unit."""
        ends = low * max_rows, high * max_rows, low * client_rows, high * client_rows
        return Block(name, length, *ends[:2], 1.0 / unit, *ends[2:])

    blocks = [block(GRAM, dim, 0, s**2, s**2)]
    if dim > 1:
        # Half of s² is a whole number, for s is even.
        blocks.append(block(UPPER, dim * (dim - 1) // 2, -(s**2) // 2, s**2 // 2, s**2))
    blocks += [
        block(CROSS, dim, -s * reach, s * reach, s * reach),
        block(SUMS, dim, -s * mark, s * mark, s * mark),
        block(ROWS, 1, 0, mark**2, mark**2),
        block(TARGET_SUM, 1, -reach * mark, reach * mark, reach * mark),
        block(TARGET_SQUARES, 1, 0, reach**2, reach**2),
    ]
    return Layout(tuple(blocks))
