"""Rows as noisy gradient descent sees them: less their own mean, projected, less a direction.

From one client's rows to another's nothing is shared but public numbers. Sums of integers come
first and are exact, so that a row's integers do not turn on its neighbours or the machine.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.features.reduction import Reduction, random_reduction

# Directions are integers of about this norm: inner products with rows of norm ≤ 2^12 are exact.
DIRECTION_SCALE = 1 << 20


def centred(
    features: NDArray[np.floating], quantiser: Quantiser, signs: Floats | None, first_row: int = 0
) -> Floats:
    """Return rows f/‖f‖ less the mean of their own entries, projected, of integer norm ≤ 2^bits.

    Args:
        features: (n, d), d ≥ 2.
        signs: (d, k) of ±1, see `projection`; None for k = d.
        first_row: what errors call the first of these rows.

    Returns:
        (n, k) float64 holding integers. A row of equal entries becomes zeros.

    Raises:
        DataError: features that are not finite.
    """
    rows = quantiser.integers(features, first_row)
    # d·f − Σf, exact integers below 2^53, as are their sums with signs.
    rows *= rows.shape[1]
    rows -= (rows.sum(axis=1) / rows.shape[1])[:, None]
    return quantiser.integers(rows if signs is None else rows @ signs)


def projected(
    features: NDArray[np.floating], quantiser: Quantiser, signs: Floats | None, first_row: int = 0
) -> Floats:
    """Return rows f/‖f‖, projected, of integer norm ≤ 2^bits; arguments as for `centred`."""
    rows = quantiser.integers(features, first_row)
    return rows if signs is None else quantiser.integers(rows @ signs)


def without(rows: Floats, direction: Floats, quantiser: Quantiser) -> Floats:
    """Return rows less their part along a direction, of integer norm ≤ 2^bits again.

    Args:
        rows: (n, k) integers of norm ≤ 2^bits.
        direction: (k,) integers, see `direction_of`; zeros take nothing off.
    """
    squared = float((direction**2).sum())
    if squared == 0:
        return rows
    return quantiser.integers(rows - ((rows @ direction) / squared)[:, None] * direction)


def direction_of(total: Integers) -> Floats:
    """Return a sum of rows (k,) as integers of norm about 2^20; zeros for a sum of zeros."""
    squared = sum(int(entry) ** 2 for entry in total)
    if squared == 0:
        return np.zeros(len(total))
    # A root of an integer, rounded as IEEE 754 has it, is the same everywhere.
    found: Floats = np.rint(total * (DIRECTION_SCALE / math.sqrt(squared)))
    return found


def is_direction(direction: Floats) -> bool:
    """Say whether this is such as `direction_of` returns: whole numbers of norm about 2^20."""
    whole = bool((np.rint(direction) == direction).all())
    return whole and float((direction**2).sum()) <= (2.0 * DIRECTION_SCALE) ** 2


@lru_cache(maxsize=4)
def projection(dim: int, k: int, seed: int) -> Floats | None:
    """Return public random signs (d, k), or None where k = d."""
    return None if k >= dim else random_reduction(dim, k, seed).basis


def row_map(dim: int, signs: Floats | None, direction: Floats, *, centre: bool) -> Reduction:
    """Return the linear map whose results, brought to norm 1, are `without` of `centred` rows.

    It is B = (I − 11ᵀ/d)·S·(I − uuᵀ), for norms between do not turn a row; without the first factor
    for `projected` rows.

    Args:
        dim: d.
        signs: S, (d, k), or None for the identity.
        direction: (k,) integers.
    """
    basis = np.eye(dim) if signs is None else signs.copy()
    if centre:
        basis -= basis.mean(axis=0)
    squared = float((direction**2).sum())
    if squared:
        basis -= np.outer(basis @ direction, direction) / squared
    return Reduction(np.zeros(dim), basis)
