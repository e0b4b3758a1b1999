"""Reliability diagrams: how often predictions of a confidence come true."""

from collections.abc import Sequence
from dataclasses import dataclass

from secure_afl.evaluation.calibration import Calibration

SIDE, LEFT, TOP = 240, 44, 14


@dataclass(frozen=True)
class Point:
    """A bin of a diagram, in pixels, with what it says."""

    x: float
    y: float
    radius: float
    title: str


@dataclass(frozen=True)
class Diagram:
    """A reliability diagram: points of both axes 0 to 1, and ticks.

    Attributes:
        side, left, top: of the square, in pixels.
        points: from the least confidence to the greatest; their area grows with rows.
        path: through the points, as SVG has it.
        ticks: label and distance from the origin, in pixels.
    """

    side: int
    left: int
    top: int
    points: Sequence[Point]
    path: str
    ticks: Sequence[tuple[str, float]]


def draw_reliability(calibration: Calibration) -> Diagram:
    """Draw the bins of a calibration."""
    most = max(part.examples for part in calibration.bins)
    points = [
        Point(
            x=LEFT + SIDE * part.confidence,
            y=TOP + SIDE * (1 - part.accuracy),
            radius=2.5 + 4.5 * (part.examples / most) ** 0.5,
            title=f"{part.examples:,} rows, mean confidence {part.confidence:.1%}, "
            f"right {part.accuracy:.1%}",
        )
        for part in calibration.bins
    ]
    path = " ".join(f"{'L' if i else 'M'}{p.x:.1f},{p.y:.1f}" for i, p in enumerate(points))
    ticks = [(f"{tenth / 10:.1f}", SIDE * tenth / 10) for tenth in range(0, 11, 2)]
    return Diagram(SIDE, LEFT, TOP, points, path, ticks)
