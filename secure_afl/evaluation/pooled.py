"""Figures of a model over the rows that all sites kept out, from the sum of their counts."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from secure_afl.analytic.tally import HIDDEN, LEAST_ROWS, Tally
from secure_afl.evaluation.bootstrap import Interval, share

# 97.5 % of a normal distribution lie below.
_NORMAL = 1.959964


class PooledClass(msgspec.Struct, frozen=True):
    """Figures of one class over the rows that all sites kept out; null where it is hidden.

    Attributes:
        name: of the class.
        examples: rows of the class, or patients where these are the unit of a promise.
        sensitivity: share of its rows that are predicted so, with a 95 % interval.
        specificity: share of the rows of other classes that are not, among those that are shown.
        auc: probability that a row of it scores higher for it than another row does, counted in
            bins.
        auc_error: the most by which that is off for the bins' width.
    """

    name: str
    examples: int | None
    sensitivity: Interval | None
    specificity: Interval | None
    auc: float | None
    auc_error: float | None


class PooledFigures(msgspec.Struct, frozen=True):
    """Figures of a model over the rows that all sites kept out, from the sum of their counts.

    Attributes:
        examples: rows, or patients, of the classes that are shown.
        sites: in the sum.
        accuracy: share of right predictions among them, with a 95 % interval. All intervals take
            rows for independent: whose they are does not show in the sum.
        balanced_accuracy: mean sensitivity of the classes that are shown.
        auc, auc_error: mean over these classes, and the most by which it is off.
        classes: one by one.
        confusion: rows by true class, then by predicted class; null for classes that are hidden.
        least: classes with fewer rows are hidden.
        noise_std: of each count, in rows; 0 for exact ones. With noise there is no AUC.
    """

    examples: int
    sites: int
    accuracy: Interval | None
    balanced_accuracy: float | None
    auc: float | None
    auc_error: float | None
    classes: tuple[PooledClass, ...]
    confusion: tuple[tuple[int, ...] | None, ...]
    least: int = LEAST_ROWS
    noise_std: float = 0.0


def figures_of(found: Tally, classes: Sequence[str]) -> PooledFigures:
    """Compute the figures of counts in which small classes are hidden.

    Args:
        found: from `hide_small`.
        classes: names of the C classes.
    """
    shown = np.flatnonzero(found.confusion[:, 0] != HIDDEN)
    table = found.confusion / found.step
    right, rows, count = table.diagonal(), table.sum(axis=1), len(classes)
    each = []
    for place, name in enumerate(classes):
        if place not in shown:
            each.append(PooledClass(name, None, None, None, None, None))
            continue
        rest = shown[shown != place]
        negatives = _Count(float(rows[rest].sum()), len(rest) * count)
        named = float(table[rest, place].sum())
        auc, error = _binned_auc(found, place)
        std = found.noise_std
        each.append(
            PooledClass(
                name,
                round(rows[place]),
                _share(_Count(float(right[place]), 1), _Count(float(rows[place]), count), std),
                _share(_Count(negatives.value - named, len(rest) * (count - 1)), negatives, std),
                auc,
                error,
            )
        )
    recalls = [own.sensitivity.value for own in each if own.sensitivity is not None]
    aucs = [(own.auc, own.auc_error or 0.0) for own in each if own.auc is not None]
    total = _Count(float(rows[shown].sum()), len(shown) * count)
    return PooledFigures(
        examples=round(total.value),
        sites=found.sites,
        accuracy=_share(_Count(float(right[shown].sum()), len(shown)), total, found.noise_std),
        balanced_accuracy=float(np.mean(recalls)) if recalls else None,
        auc=float(np.mean([auc for auc, _ in aucs])) if aucs else None,
        auc_error=float(np.mean([error for _, error in aucs])) if aucs else None,
        classes=tuple(each),
        confusion=tuple(
            tuple(round(n) for n in row) if place in shown else None
            for place, row in enumerate(table)
        ),
        noise_std=found.noise_std,
    )


def _binned_auc(found: Tally, place: int) -> tuple[float | None, float | None]:
    """Return a class's AUC with rows of one bin counted as ties, and by how much it may be off.

    Of the P·N pairs those within one bin count half, and are off by half at most.
    """
    if found.own is None or found.others is None:
        return None, None
    own, others = found.own[place].astype(float), found.others[place].astype(float)
    pairs = own.sum() * others.sum()
    if pairs == 0:
        return None, None
    below = np.cumsum(others) - others
    return float(own @ (below + 0.5 * others) / pairs), float(0.5 * (own @ others) / pairs)


class _Count(NamedTuple):
    """A number of rows, and of how many counts it is the sum."""

    value: float
    cells: int


def _share(part: _Count, whole: _Count, noise_std: float) -> Interval | None:
    """Return a share with its interval; None of no rows.

    Wilson's of exact counts. Noise adds what moves the quotient to
    first order: it is independent in all counts, and those of the part are also in the whole.
    """
    if whole.value <= 0:
        return None
    if noise_std == 0:
        return share(round(part.value), round(whole.value))
    middle = min(max(part.value / whole.value, 0.0), 1.0)
    noise = noise_std**2 * (part.cells * (1 - 2 * middle) + middle**2 * whole.cells)
    variance = middle * (1 - middle) / whole.value + noise / whole.value**2
    reach = _NORMAL * float(np.sqrt(variance))
    return Interval(middle, max(middle - reach, 0.0), min(middle + reach, 1.0))
