"""Gram matrices of integer rows, exact: in float32 where a certificate allows it, else float64."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from protocols.layout import Integers
from secure_afl.analytic.quantise import MAX_BITS, Floats

Singles = NDArray[np.float32]

# Float32 holds every integer up to here.
SINGLE_LIMIT = 2**24


class GramSum:
    """The Gram matrix of integer rows that come in blocks; every entry is exact.

    A block is multiplied by `ssyrk`, in half the time of `dsyrk`. The diagonal of the product then
    says whether the product is exact. If it is not certain to be, `dsyrk` multiplies this block
    and all later ones, for rows of one client are alike; sums of float64 are exact up to 2⁵³.

    **Certificate.** Let a block have rows x_i of integers of size at most 2¹², let
    D_j = Σ_i x_ij², and let D̂_j be what float32 made of D_j. If max D̂ < 2²⁴, then all entries of
    the product are exact, in whatever order BLAS added them up, with or without fused products.

    *Proof.* Products are integers of size at most 2²⁴, which float32 holds; so each x_ij·x_ik is
    exact. BLAS adds the products of an entry along some tree, whose nodes are sums over subsets
    of the rows; every addition returns the exact sum rounded, and rounding is monotone.

    (1) max D < 2²⁴. For a node of the diagonal let T ≥ 0 be the exact sum below it, and C what was
    computed. Then C ≥ min(T, 2²⁴): a leaf has C = T, and an inner node has C₁ + C₂ ≥
    min(T₁, 2²⁴) + min(T₂, 2²⁴) ≥ min(T, 2²⁴), which float32 holds, so that rounding cannot fall
    below it. A sum that has reached 2²⁴ therefore never falls back, and D̂_j < 2²⁴ at the root
    means D_j = T < 2²⁴.

    (2) For any subset S of the rows, |Σ_S x_ij·x_ik| ≤ Σ_S (x_ij² + x_ik²)/2 ≤ (D_j + D_k)/2 ≤
    max D < 2²⁴. So the exact sum at every node of every entry is an integer that float32 holds.
    From the leaves up, the addition of two exact numbers has a result that needs no rounding. ∎

    The proof takes a BLAS that adds up products of float32, as OpenBLAS, MKL and Accelerate do by
    default. It does not hold for Strassen's scheme, nor for fewer digits, which some can be told
    to use; `singles_are_exact` looks for those once in a process.

    Args:
        dim: d, numbers in a row.
        single: whether to try float32; by default where it is what it says.
    """

    def __init__(self, dim: int, *, single: bool | None = None) -> None:
        self._dim = dim
        self._single = singles_are_exact() if single is None else single
        self._first: Singles | None = None
        self._total: Floats | None = None

    @property
    def single(self) -> bool:
        """Whether all blocks so far were certified, and the next one is tried in float32."""
        return self._single

    def add(self, rows: Singles) -> None:
        """Add a block of rows, (n, d) of integers of size ≤ 2¹², C-contiguous.

        All blocks together may have as many rows as keep every sum below 2⁵³.
        """
        from scipy.linalg.blas import dsyrk, ssyrk

        if self._single:
            product = ssyrk(1.0, rows.T, lower=True)
            if is_certified(product):
                if self._first is None and self._total is None:
                    self._first = product
                else:
                    self._summed()[...] += product
                return
            self._single = False
        # Both go to SciPy's BLAS: the idle threads of NumPy's own would keep the cores from it.
        doubles = rows.astype(np.float64)
        self._total = dsyrk(
            1.0, doubles.T, beta=1.0, c=self._summed(), overwrite_c=True, lower=True
        )

    def symmetric(self) -> Integers:
        """Return the whole matrix, (d, d) int64."""
        lower = self._lower().astype(np.int64)
        whole: Integers = lower + lower.T
        np.fill_diagonal(whole, lower.diagonal())
        return whole

    def pack_into(self, vector: Integers) -> None:
        """Write the diagonal, then the strict upper triangle row by row; (d(d + 1)/2,) int64."""
        lower = self._lower()
        vector[: self._dim] = lower.diagonal()
        # A column of the lower triangle lies in one piece, and is a row of the upper one.
        _pack_rows(lower.T, vector[self._dim :])

    def _lower(self) -> Singles | Floats:
        """Return the sum in Fortran's order; the strict upper triangle is zeros."""
        if self._total is None and self._first is not None:
            return self._first
        return self._summed()

    def _summed(self) -> Floats:
        if self._total is None:
            self._total = np.zeros((self._dim, self._dim), order="F")
            if self._first is not None:
                self._total += self._first
                self._first = None
        return self._total


def cross_term(rows: Singles, targets: Floats, scale: int) -> Integers:
    """Multiply a block of integer rows F with integer targets Y, exactly: FᵀY, (d, C) int64.

    No sum over rows exceeds their number times the greatest product in size. Below 2²⁴ float32
    holds all of them, below 2⁵³ float64 does.

    Args:
        rows: (n, d), of size ≤ `scale`.
        targets: (n, C), such as one-hot labels; ≥ 0.
    """
    from scipy.linalg.blas import dgemm, sgemm

    if singles_are_exact() and len(rows) * scale * targets.max() < SINGLE_LIMIT:
        single: Singles = sgemm(1.0, rows.T, targets.astype(np.float32).T, trans_b=True)
        return single.astype(np.int64)
    double: Floats = dgemm(1.0, rows.astype(np.float64).T, targets.T, trans_b=True)
    return double.astype(np.int64)


def block_rows(bits: int) -> int:
    """Return how many rows of integer norm ≤ 2^bits a block should have.

    They keep BLAS busy; memory does not grow with the number of rows. Longer integers have shorter
    blocks, so that 1,024 features of about one size stay below the certificate's limit.
    """
    return int(min(4096, 2 ** (21 - bits)))


def is_certified(product: Singles) -> bool:
    """Say whether a float32 Gram matrix of integer rows is exact, by its diagonal."""
    return bool(product.diagonal().max() < SINGLE_LIMIT)


@cache
def singles_are_exact() -> bool:
    """Say whether BLAS multiplies float32 with all of its 24 bits in this process."""
    from scipy.linalg.blas import ssyrk

    # One row of the longest odd numbers, whose products need all bits, and a zero.
    longest = 2**MAX_BITS - 1
    row = np.append(np.arange(longest, longest - 2 * 255, -2), 0)
    product = ssyrk(1.0, row.astype(np.float32)[:, None], lower=True)
    return np.array_equal(product, np.tril(np.outer(row, row)))


def pack_upper(matrix: Integers) -> Integers:
    """Copy the strict upper triangle of (d, d), row by row: (d(d − 1)/2,) int64."""
    upper = np.empty(len(matrix) * (len(matrix) - 1) // 2, dtype=np.int64)
    _pack_rows(matrix, upper)
    return upper


def unpack_upper(upper: Integers, dim: int) -> Integers:
    """Return a symmetric (d, d) int64 with a diagonal of zeros: the inverse of `pack_upper`."""
    matrix = np.zeros((dim, dim), dtype=np.int64)
    at = 0
    for row in range(dim - 1):
        length = dim - 1 - row
        matrix[row, row + 1 :] = upper[at : at + length]
        at += length
    matrix += matrix.T
    return matrix


def _pack_rows(matrix: NDArray[np.generic], upper: Integers) -> None:
    # Rows in one piece: an index for each entry would take four times as long.
    at = 0
    for row in range(len(matrix) - 1):
        length = len(matrix) - 1 - row
        upper[at : at + length] = matrix[row, row + 1 :]
        at += length
