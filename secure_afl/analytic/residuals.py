"""Residuals of softmax regression over integer rows, alike on all machines but for a last bit."""

import numpy as np

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats

# Weights are on this grid: scores are then sums of products of integers below 2^53, and the
# residual of a row does not turn on its neighbours.
WEIGHT_SCALE = 1 << 16
MAX_WEIGHT = 1 << 12


def residuals(
    rows: Floats, labels: Integers, point: Floats, scale: int, offset: Floats | None = None
) -> Floats:
    """Return softmax(FV + b) − Y, (n, C) float64.

    Scores are exact in any order of addition; what follows is elementwise or adds up one row, so
    that a row's residual is the same whoever holds it.

    Args:
        rows: F·scale, (n, d) whole numbers of norm ≤ scale ≤ 2^12.
        labels: (n,) of 0 to C − 1.
        point: V, (d, C), from `on_grid`.
        offset: b, (C,), finite; None for zeros.
    """
    scores = (rows @ np.rint(point * WEIGHT_SCALE)) / (scale * WEIGHT_SCALE)
    if offset is not None:
        scores += offset
    scores -= scores.max(axis=1, keepdims=True)
    shares = np.exp(scores)
    shares /= np.add.reduce(shares, axis=1, keepdims=True)
    shares[np.arange(len(labels)), labels] -= 1.0
    found: Floats = shares
    return found


def on_grid(weights: Floats) -> Floats:
    """Return weights in steps of 2^-16, within ±2^12."""
    grid: Floats = np.rint(np.clip(weights, -MAX_WEIGHT, MAX_WEIGHT) * WEIGHT_SCALE) / WEIGHT_SCALE
    return grid


def is_on_grid(weights: Floats) -> bool:
    """Say whether weights are such as `on_grid` returns: finite, within range, and on the grid."""
    return bool((np.abs(weights) <= MAX_WEIGHT).all() and (on_grid(weights) == weights).all())
