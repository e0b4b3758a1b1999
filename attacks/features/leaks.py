"""The features that a view gives away, and which of them are single rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attacks.statistics.rows import Recovered, non_negative_rows, small_classes
from attacks.views.knowledge import SubsetSum, Target, finest, subset_sums, targets
from attacks.views.run import RunView
from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.statistics import Statistics
from secure_afl.methods import FedSGD, Linear
from secure_afl.methods.averaging import AveragingPublic
from secure_afl.methods.update import UPDATE

# Of more rows, non-negativity gives mixtures; the figure is measured.
MAX_ROWS = 40

# Rows have norm 1. The sum of two that are not negative has norm √2 at least.
_SINGLE_NORM = 1.2
_MIN_NORM = 1e-9


@dataclass(frozen=True)
class Leak:
    """A direction in feature space that a view gave away.

    Attributes:
        feature: (d,) float64 of norm 1.
        label: the class that it is of, 0..C−1.
        clients: those that it may be of.
        single: it is one row; else the sum of a class's rows, a blend.
    """

    feature: Floats
    label: int
    clients: frozenset[str]
    single: bool

    def __repr__(self) -> str:
        return f"<Leak of class {self.label}, of {len(self.clients)} clients>"


def find_leaks(view: RunView, rng: np.random.Generator) -> list[Leak]:
    """Find the features in the finest sums that the coalition has.

    Of statistics: all rows where there are few of them, by `small_classes` or, up to `MAX_ROWS`
    rows, by `non_negative_rows`; elsewhere the columns of the cross term Q = FᵀY, each the sum of
    its class's rows. Of the first round of FedSGD on a linear head the same columns, by
    `cross_of_gradient`. Nothing of other methods, and nothing of a view without a sum.
    """
    if statistics := targets(view):
        return [leak for target in statistics for leak in _of_statistics(target, rng)]
    public, method = view.publics[0] if view.publics else None, view.method
    if (
        isinstance(method, FedSGD)
        and isinstance(method.architecture, Linear)
        and isinstance(public, AveragingPublic)
        and not public.parameters.any()
    ):
        return [
            leak
            for subset in finest(subset_sums(view))
            for leak in _of_gradient(view, method, public, subset)
        ]
    return []


def cross_of_gradient(gradient: Floats) -> Floats:
    """Return Q = FᵀY, (d, C), of rows F ≥ 0 from a gradient.

    The gradient (d, C) is that of a softmax head at zero. There the shares are 1/C each, and the
    gradient summed over rows is S/C − Q, with S the sum of all rows. Where a feature is 0 in all
    rows of at least one class, Q is 0 there, and the largest entry of the gradient's line is S/C:
    Q is what the others lack of it. Exact for every client that lacks a class, and for features
    that some class never has; too small elsewhere. The mean over rows gives Q/n.
    """
    cross: Floats = gradient.max(axis=1, keepdims=True) - gradient
    return cross


def _of_statistics(target: Target, rng: np.random.Generator) -> list[Leak]:
    statistics = target.statistics
    # Counts may not have been released, or with noise.
    counted = bool(statistics.counts.any() and statistics.counts.min() >= 0)
    rows = _rows(statistics, rng) if counted else None
    whole = _columns(statistics, target)
    if rows is None:
        return whole
    labels = rows.labels.tolist()
    singles = [
        Leak(row / np.linalg.norm(row), label, target.clients, True)
        for row, label in zip(rows.rows, labels, strict=True)
        if np.linalg.norm(row) > _MIN_NORM
    ]
    return singles + [leak for leak in whole if leak.label not in labels]


def _rows(statistics: Statistics, rng: np.random.Generator) -> Recovered | None:
    """Return all rows where they can be told apart, else those of classes with one."""
    alone = small_classes(statistics)
    if alone is not None and len(alone.rows) == statistics.rows:
        return alone
    if statistics.rows <= MAX_ROWS:
        return non_negative_rows(statistics, rng) or alone
    return alone


def _columns(statistics: Statistics, target: Target) -> list[Leak]:
    cross = statistics.cross / target.quantiser.scale
    counts: Integers | None = statistics.counts if statistics.counts.any() else None
    return _leaks_of(cross, counts, target.clients)


def _of_gradient(
    view: RunView, method: FedSGD, public: AveragingPublic, subset: SubsetSum
) -> list[Leak]:
    # Clients upload what takes the loss down, times their weight: weighted by rows, the sum over
    # their rows. Otherwise a column's length says nothing about how many rows are in it.
    step = method.quantiser(public.task).step
    update = view.rounds[0].session.layout.split(subset.vector)[UPDATE].astype(np.float64)
    cross = cross_of_gradient(-step * update.reshape(-1, len(public.task.classes)))
    # Classes without rows hold what rounding left, of one step at most for each client.
    noise = 2 * step * np.sqrt(len(cross)) * len(subset.clients)
    cross[:, np.linalg.norm(cross, axis=0) <= noise] = 0.0
    counts = None if method.weighted else np.zeros(cross.shape[1], dtype=np.int64)
    return _leaks_of(cross, counts, subset.clients)


def _leaks_of(cross: Floats, counts: Integers | None, clients: frozenset[str]) -> list[Leak]:
    """Return the columns that hold rows.

    Without counts, a column no longer than one row is taken for one.
    """
    lengths: NDArray[np.float64] = np.linalg.norm(cross, axis=0)
    single = counts == 1 if counts is not None else lengths < _SINGLE_NORM
    return [
        Leak(cross[:, label] / lengths[label], int(label), clients, bool(single[label]))
        for label in np.flatnonzero(lengths > _MIN_NORM)
    ]
