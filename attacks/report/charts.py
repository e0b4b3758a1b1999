"""This module lays out line charts: it places their points, ticks and bars.

The templates draw them as inline SVG, which takes its colours from the page.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

# Styles repeat after these; each has a colour, a dash pattern and a marker of its own, so that no
# two are told apart by colour alone.
STYLES = 6
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "", "5 2")
_SHAPES = ("circle", "square", "triangle", "diamond")


class Frame(NamedTuple):
    """A frame says how large a chart is, and between which edges its lines lie."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int


FRAME = Frame(width=460, height=300, left=58, right=446, top=12, bottom=254)


@dataclass(frozen=True)
class Series:
    """A series is one line before it is laid out.

    Attributes:
        label: in the legend.
        points: (x, y), in the order of x.
        bounds: (low, high) of each y, or none.
        style: 0 to `STYLES` − 1.
        marked: with a marker at each point; theory has none.
        quiet: in the background, as guessing is.
    """

    label: str
    points: Sequence[tuple[float, float]]
    bounds: Sequence[tuple[float, float]] = field(default=())
    style: int = 0
    marked: bool = True
    quiet: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis maps values to their places between its ends.

    Attributes:
        label: what and in which unit.
        low, high: its ends, low < high; above 0 where `log`.
    """

    label: str
    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """Place a value, from 0 at the low end to 1; cut off beyond."""
        value = min(max(value, self.low), self.high)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Choose about five round numbers."""
        if self.log:
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)))
            steps = (1, 2, 5) if math.log10(self.high / self.low) < 2.5 else (1,)
            found = [m * 10.0**e for e in [*exponents, exponents.stop] for m in steps]
        else:
            span = (self.high - self.low) / 5
            power = 10.0 ** math.floor(math.log10(span))
            step = next(m * power for m in (1, 2, 5, 10) if m * power >= span * 0.99)
            first = math.ceil(self.low / step - 1e-9)
            found = [step * i for i in range(first, math.floor(self.high / step + 1e-9) + 1)]
        slack = 1e-9
        return [t for t in found if self.low * (1 - slack) - slack <= t <= self.high * (1 + slack)]


class Tick(NamedTuple):
    """A tick has a place along its axis, and a number beside it."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A line is a series laid out on the canvas.

    Attributes:
        kind: its class in the page's style.
        dashes: of its stroke, "" for none.
        shape: of its markers; null where it has none.
        points: where its markers are.
        path, bars: path data of the line, and of its intervals, "" for none.
    """

    label: str
    kind: str
    dashes: str
    shape: str | None
    points: tuple[tuple[float, float], ...]
    path: str
    bars: str


@dataclass(frozen=True)
class Chart:
    """A chart is all that a template draws.

    Attributes:
        name: read out in place of the picture.
        x_label, y_label: of the axes.
        chance: where the level of guessing lies, drawn as a thin line; null for none.
    """

    name: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    chance: float | None = None
    frame: Frame = FRAME


def lay_out(
    name: str, x: Axis, y: Axis, series: Sequence[Series], chance: float | None = None
) -> Chart:
    """Lay out a chart.

    Args:
        name: read out in place of the picture.
        chance: the level of guessing, in the unit of y; left out where the axis does not reach it.
    """
    return Chart(
        name=name,
        x_label=x.label,
        y_label=y.label,
        x_ticks=tuple(Tick(_across(x, tick), _say_number(tick)) for tick in x.ticks()),
        y_ticks=tuple(Tick(_down(y, tick), _say_number(tick)) for tick in y.ticks()),
        lines=tuple(_lay_out_line(x, y, line) for line in series),
        chance=_down(y, chance) if chance is not None and y.low <= chance <= y.high else None,
    )


def _lay_out_line(x: Axis, y: Axis, line: Series) -> Line:
    points = tuple((_across(x, a), _down(y, b)) for a, b in line.points)
    bars = ""
    if line.bounds:
        bars = "".join(
            f"M{across + line.style - 2:.1f} {_down(y, low):.1f}V{_down(y, high):.1f}"
            for (across, _), (low, high) in zip(points, line.bounds, strict=True)
        )
    return Line(
        label=line.label,
        kind="quiet" if line.quiet else f"k{line.style}",
        dashes=_DASHES[line.style],
        shape=_SHAPES[line.style % len(_SHAPES)] if line.marked else None,
        points=points,
        path="M" + "L".join(f"{across:.1f} {down:.1f}" for across, down in points),
        bars=bars,
    )


def _across(axis: Axis, value: float) -> float:
    return FRAME.left + axis.at(value) * (FRAME.right - FRAME.left)


def _down(axis: Axis, value: float) -> float:
    return FRAME.bottom - axis.at(value) * (FRAME.bottom - FRAME.top)


def _say_number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
