"""Canaries: rows that move every sum as far as any, along axes of their own."""

from dataclasses import dataclass, replace

import numpy as np

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.checks import check_type, whole
from secure_afl.errors import ConfigError
from secure_afl.methods.method import AnyMethod
from secure_afl.methods.summed import Summed
from secure_afl.methods.task_sums import Promised
from secure_afl.privacy.mechanism import Privacy

_PATIENT_ROWS = 4
# Features of the canaries of statistics, classes, and the bound that each client declares.
# Canaries of one class share the noise of its count, and are no separate tests of it.
_DIM, _CLASSES, _ROWS = 128, 16, 4096


@dataclass(frozen=True, eq=False)
class Canary:
    """Rows (0 to 4, d) of one person in one world and in the other, of one label.

    Raises:
        ConfigError: arrays that are no finite rows, or a label below 0.
    """

    present: Floats
    absent: Floats
    label: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        whole("label", self.label, 0)
        check_type("name", self.name, str)
        for world in ("present", "absent"):
            rows = getattr(self, world)
            check_type(world, rows, np.ndarray)
            if rows.ndim != 2 or rows.dtype.kind != "f" or not np.isfinite(rows).all():
                raise ConfigError(f"{world} is {rows!r}, allowed: finite rows, [n, d]")
        if self.present.shape[1] != self.absent.shape[1]:
            raise ConfigError(
                f"present and absent rows have {self.present.shape[1]} and {self.absent.shape[1]} "
                "features; allowed: as many"
            )

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

    Raises:
        ConfigError: a number out of range, or canaries of another task.
    """

    dim: int
    classes: int
    rows: int
    each: tuple[Canary, ...]

    def __post_init__(self) -> None:
        for field, least in (("dim", 1), ("classes", 2), ("rows", 1)):
            whole(field, getattr(self, field), least)
        check_type("each", self.each, tuple)
        for canary in self.each:
            check_type("each of the canaries", canary, Canary)
            whole("label", canary.label, 0, self.classes - 1)
            if canary.present.shape[1] != self.dim:
                raise ConfigError(
                    f"dim is {self.dim}, and a canary has {canary.present.shape[1]} features"
                )


def canaries_for(method: AnyMethod, privacy: Privacy, clients: int) -> Canaries:
    """Make canaries of rows twice as long as allowed, so that clipping is audited too.

    Those of statistics lie along the axes; for replace-one they are the worst pairs, equal labels
    with f·g = −w²/2, each pair in a plane of its own. Those of gradients have the mean 0, which is
    taken off every row, and for replace-one they are opposite rows of one label. Their clients
    declare so many rows that no dimension is projected away.

    Where patients are the unit, a canary is a patient of four equal rows.
    """
    found = _rows_for(method, privacy, clients)
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


def _rows_for(method: AnyMethod, privacy: Privacy, clients: int) -> Canaries:
    replaced = privacy.neighbours == "replace-one"
    if method.releases_statistics:
        weight = _cross_weight(method, privacy, clients)
        made = _pairs(_DIM, weight) if replaced else _axes(_DIM)
        return Canaries(_DIM, _CLASSES, _ROWS, made)
    dim, classes = 512, 3
    rows = np.eye(dim)[::2] - np.eye(dim)[1::2]
    each = tuple(
        Canary(2 * row[None], -2 * row[None] if replaced else np.empty((0, dim)), at % classes)
        for at, row in enumerate(rows)
    )
    return Canaries(dim, classes, 1 << 14, each)


def _axes(dim: int) -> tuple[Canary, ...]:
    return tuple(
        Canary(2 * row[None], np.empty((0, dim)), at % _CLASSES)
        for at, row in enumerate(np.eye(dim))
    )


def _cross_weight(method: AnyMethod, privacy: Privacy, clients: int) -> float:
    """Return w of the sum that canaries are for, which may turn on the head."""
    if not isinstance(method, Summed):
        return privacy.known_cross_weight
    sums = method.planned_sums(privacy, clients * _ROWS, _ROWS)
    return method.promised_weights(
        Promised(privacy, sums, clients * _ROWS, _ROWS), _DIM, _CLASSES
    ).cross


def _pairs(dim: int, weight: float) -> tuple[Canary, ...]:
    cosine = -min(1.0, weight**2 / 2)
    axes = np.eye(dim)
    pairs = []
    for at, (first, second) in enumerate(zip(axes[::2], axes[1::2], strict=True)):
        other = cosine * first + np.sqrt(1 - cosine**2) * second
        pairs.append(Canary(2 * first[None], 2 * other[None], at % _CLASSES))
    return tuple(pairs)
