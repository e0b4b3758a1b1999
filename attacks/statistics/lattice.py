"""Integer rows out of their Gram matrix, by lattice reduction.

The columns of F (n × d, d > n) are d integer vectors in n dimensions of which G = FᵀF has all inner
products. Some more than n of them generate Zⁿ, as integer vectors of no particular kind do, and a
reduced basis of Zⁿ, found from inner products alone, is the unit vectors up to order and sign; the
inner products of a unit vector with all columns are a row of F.
"""

from typing import Any, NamedTuple

import numpy as np

from protocols.layout import Integers
from secure_afl.errors import ConfigError

# LLL takes three seconds for 80 rows, and minutes for 160.
MAX_LATTICE_ROWS = 100
# Of the largest eigenvalue: what is below is rounding.
_RANK_TOLERANCE = 1e-10
# Generators beyond n, one attempt after the other.
_SPARE = (12, 24, 48)


class Factor(NamedTuple):
    """Distinct integer rows (r, d), each up to its sign, and their multiplicities (r,)."""

    rows: Integers
    times: Integers


def factor_gram(gram: Integers, rng: np.random.Generator) -> Factor | None:
    """Find F with FᵀF = G, up to the order and the signs of rows.

    Two reductions (Lenstra, Lenstra and Lovász 1982). The first turns generators into a basis: the
    rows of G between the generators S span the lattice of F_S, whose reduction B = U·F_S has a
    unimodular U. The second reduces UUᵀ, of which it knows but the entries, to the identity. A row
    that occurs m times makes its unit vectors one of length √m, and nothing else changes.

    Args:
        gram: (d, d) int64, of at most `MAX_LATTICE_ROWS` different rows, which are independent.

    Returns:
        Verified to have this Gram matrix. None where G has noise, rank 0 or too high a rank, or
        none of three choices of S led there.

    Raises:
        ConfigError: fpylll is not installed.
    """
    _fpylll()  # refuse at once, also what would need no reduction
    eigenvalues = np.linalg.eigvalsh(gram.astype(np.float64))
    tolerance = _RANK_TOLERANCE * float(eigenvalues[-1])
    rank = int(np.count_nonzero(eigenvalues > tolerance))
    if eigenvalues[0] < -tolerance or not 0 < rank <= MAX_LATTICE_ROWS:
        return None
    for spare in _SPARE:
        chosen = rng.choice(len(gram), min(len(gram), rank + spare), replace=False)
        units, times = _unit_vectors(gram[np.ix_(chosen, chosen)], rank)
        if (times < 1).any():
            continue
        rows = ((units @ gram[chosen].astype(object)) // times[:, None]).astype(np.int64)
        times = times.astype(np.int64)
        if np.array_equal((rows * times[:, None]).T @ rows, gram):
            return Factor(rows, times)
    return None


def _unit_vectors(gram: Integers, rank: int) -> tuple[Any, Any]:
    """Return short vectors as combinations of the generators, and their squared lengths.

    The combinations are (r, generators).

    Both of Python's integers. Lengths of 0 say that the reduction failed.
    """
    fpylll = _fpylll()
    failed = np.zeros((rank, len(gram)), dtype=object), np.zeros(rank, dtype=object)
    lattice = fpylll.IntegerMatrix.from_matrix(gram.tolist())
    steps = fpylll.IntegerMatrix.identity(len(gram))
    fpylll.LLL.reduction(lattice, steps)
    # Reduction puts the relations among the generators first, as zeros.
    basis = _objects(steps)[len(gram) - rank :]
    inner = basis @ gram.astype(object) @ basis.T
    if any(inner[i, i] <= 0 for i in range(rank)):
        return failed
    form = fpylll.IntegerMatrix.from_matrix(inner.tolist())
    steps = fpylll.IntegerMatrix.identity(rank)
    geometry = fpylll.GSO.Mat(form, U=steps, gram=True, float_type="ld")
    try:
        fpylll.LLL.Reduction(geometry)()
    except fpylll.ReductionError:
        return failed
    units = _objects(steps) @ basis
    return units, ((units @ gram.astype(object)) * units).sum(axis=1)


def _objects(matrix: Any) -> Any:
    """Return an integer matrix as an array of Python's own integers.

    Its entries may have any size.
    """
    rows = [[int(entry) for entry in row] for row in matrix]
    return np.array(rows, dtype=object)


def _fpylll() -> Any:
    try:
        import fpylll
    except ImportError:
        raise ConfigError(
            "lattice reduction needs fpylll; install it with: pip install 'secure-afl[lattice]'"
        ) from None
    return fpylll
