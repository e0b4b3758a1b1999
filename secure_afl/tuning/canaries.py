"""Canaries: rows that move every sum as far as any, along axes of their own."""

from dataclasses import dataclass, replace

import numpy as np

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.methods.method import AnyMethod
from secure_afl.privacy.mechanism import Privacy

_PATIENT_ROWS = 4


@dataclass(frozen=True, eq=False)
class Canary:
    """Rows (0 to 4, d) of one person in one world and in the other, of one label."""

    present: Floats
    absent: Floats
    label: int = 0
    name: str = ""

    def labels(self, rows: Floats) -> Integers:
        """Return the label of each of these rows."""
        return np.full(len(rows), self.label, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Canaries:
    """Canaries for the sums of a method, and the task that they are for.

    Attributes:
        dim, classes: d and C.
        rows: bound that a client declares.
        each: the canaries.
    """

    dim: int
    classes: int
    rows: int
    each: tuple[Canary, ...]


def canaries_for(method: AnyMethod, privacy: Privacy) -> Canaries:
    """Make canaries of rows twice as long as allowed, so that clipping is audited too.

    Those of statistics lie along the axes; for replace-one they are the worst pairs, equal labels
    with f·g = −w²/2, each pair in a plane of its own. Those of gradients have the mean 0, which is
    taken off every row, and for replace-one they are opposite rows of one label. Their clients
    declare so many rows that no dimension is projected away.

    Where patients are the unit, a canary is a patient of four equal rows.
    """
    found = _rows_for(method, privacy)
    times = _PATIENT_ROWS if privacy.unit == "patient" else 1
    return replace(
        found,
        each=tuple(
            replace(
                canary,
                present=np.repeat(canary.present, times, axis=0),
                absent=np.repeat(canary.absent, times, axis=0),
                name=f"canary {at}",
            )
            for at, canary in enumerate(found.each)
        ),
    )


def _rows_for(method: AnyMethod, privacy: Privacy) -> Canaries:
    replaced = privacy.neighbours == "replace-one"
    if method.releases_statistics:
        made = _pairs(128, privacy) if replaced else _axes(128)
        return Canaries(128, 2, 256, made)
    dim, classes = 512, 3
    rows = np.eye(dim)[::2] - np.eye(dim)[1::2]
    each = tuple(
        Canary(2 * row[None], -2 * row[None] if replaced else np.empty((0, dim)), at % classes)
        for at, row in enumerate(rows)
    )
    return Canaries(dim, classes, 1 << 14, each)


def _axes(dim: int) -> tuple[Canary, ...]:
    return tuple(Canary(2 * row[None], np.empty((0, dim))) for row in np.eye(dim))


def _pairs(dim: int, privacy: Privacy) -> tuple[Canary, ...]:
    cosine = -min(1.0, privacy.cross_weight**2 / 2)
    axes = np.eye(dim)
    pairs = []
    for first, second in zip(axes[::2], axes[1::2], strict=True):
        other = cosine * first + np.sqrt(1 - cosine**2) * second
        pairs.append(Canary(2 * first[None], 2 * other[None]))
    return tuple(pairs)
