"""Counts of labelled rows that add up over sites: a confusion table, and scores in bins."""

from typing import NamedTuple

import numpy as np

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.errors import DataError

LEAST_ROWS = 10
"""Classes with fewer rows are not shown: one patient would be a large part of their figures."""

HIDDEN = -(2**62)
"""Stands in every count of a class that is hidden; no noise comes near it."""

_BINS, _FEWER_BINS, _MANY_CLASSES = 256, 64, 100
_REACH = 1000.0


class Tally(NamedTuple):
    """Counts of labelled rows of C classes; of two sets of rows they add up.

    Attributes:
        confusion: rows by true class, then by predicted class, (C, C) int64; `HIDDEN` in the rows
            of classes that are hidden.
        own: rows of each class by the bin of their margin for it, (C, B), or `HIDDEN`. None where
            scores are not counted.
        others: all other rows by the bin of their margin for the class, (C, B).
        step: counts are in steps, so many to a row.
        noise_std: of each count, in rows; 0 for exact ones.
        sites: whose rows are counted; 0 where it is not known.
    """

    confusion: Integers
    own: Integers | None = None
    others: Integers | None = None
    step: int = 1
    noise_std: float = 0.0
    sites: int = 0


def bins_for(classes: int) -> int:
    """Return the number of bins B: fewer where there are many classes."""
    return _BINS if classes <= _MANY_CLASSES else _FEWER_BINS


def edges_of(bins: int, unit: float) -> Floats:
    """Return the edges between bins, (B − 1,) ascending and symmetric about 0.

    They are even in asinh(margin / unit): near 0 a bin is a seventeenth of the unit wide (of 256),
    further out a seventeenth of the margin, and the outermost begin at about 1,000 units.
    """
    inner = np.arange(1, bins) / bins
    edges: Floats = unit * np.sinh((2 * inner - 1) * np.arcsinh(_REACH))
    return edges


def confusion(scores: Floats, labels: Integers, weights: Integers) -> Tally:
    """Count rows by class and prediction, each by its weight.

    Args:
        scores, labels: as `tally` takes them.
        weights: (n,) int64 ≥ 0.

    Raises:
        DataError: scores that are no numbers.
    """
    if np.isnan(scores).any():
        raise DataError("scores are not numbers, so that no row can be counted; train anew")
    classes = scores.shape[1]
    found = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(found, (labels, scores.argmax(axis=1)), weights)
    return Tally(found)


def tally(scores: Floats, labels: Integers, unit: float) -> Tally:
    """Count rows by class, prediction and score.

    Args:
        scores: (n, C), n ≥ 1; −∞ is a class that is never predicted.
        labels: (n,) int64 in 0..C−1.
        unit: of scores, as `edges_of` takes it.

    Raises:
        DataError: scores that are no numbers.
    """
    counted = confusion(scores, labels, np.ones(len(labels), dtype=np.int64))
    classes = scores.shape[1]
    bins = bins_for(classes)
    own, others = (np.zeros((classes, bins), dtype=np.int64) for _ in range(2))
    edges = edges_of(bins, unit)
    for place in range(classes):
        at = np.searchsorted(edges, margin(scores, place), side="right")
        mine = labels == place
        own[place] = np.bincount(at[mine], minlength=bins)
        others[place] = np.bincount(at[~mine], minlength=bins)
    return counted._replace(own=own, others=others)


def hide_small(found: Tally) -> Tally:
    """Return the counts without those of small classes, or such as their noise drowns."""
    classes = len(found.confusion)
    # Twice the noise of a class's number of rows, a sum of C counts.
    least = max(LEAST_ROWS, 2 * found.noise_std * classes**0.5)
    small = found.confusion.sum(axis=1) < least * found.step
    shown = found.confusion.copy()
    shown[small] = HIDDEN
    own = None if found.own is None else found.own.copy()
    if own is not None:
        own[small] = HIDDEN
    return found._replace(confusion=shown, own=own)


def margin(scores: Floats, place: int) -> Floats:
    """Return by how much each row's score of a class exceeds its best other, (n,)."""
    if scores.shape[1] == 1:
        return scores[:, 0]
    others = np.delete(scores, place, axis=1).max(axis=1)
    with np.errstate(invalid="ignore"):
        found: Floats = scores[:, place] - others
    return np.nan_to_num(found, nan=-np.inf)
