"""Line charts as inline SVG, which take their colours from the page: light, dark or printed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 46

# Styles repeat after these; each has a colour, a dash pattern and a marker of its own, so that no
# two are told apart by colour alone.
STYLES = 6
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "", "5 2")


@dataclass(frozen=True)
class Series:
    """One line.

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

    @property
    def kind(self) -> str:
        """Its class in the page's style."""
        return "quiet" if self.quiet else f"k{self.style}"


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        label: what and in which unit.
        low, high: its ends, low < high; above 0 where `log`.
    """

    label: str
    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies, 0 at the low end and 1 at the high one; cut off beyond."""
        value = min(max(value, self.low), self.high)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """About five round numbers."""
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


def chart(
    name: str, x: Axis, y: Axis, series: Sequence[Series], chance: float | None = None
) -> str:
    """An SVG figure.

    Args:
        name: read out in place of the picture.
        chance: the level of guessing, drawn as a thin line.
    """
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(name)}">'
    ]
    for tick in x.ticks():
        at = _x(x, tick)
        parts.append(f'<path class="grid" d="M{at:.1f} {_TOP}V{HEIGHT - _BOTTOM}"/>')
        parts.append(_text(at, HEIGHT - _BOTTOM + 16, _number(tick), "middle"))
    for tick in y.ticks():
        at = _y(y, tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(_text(_LEFT - 7, at + 4, _number(tick), "end"))
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 10, x.label, "middle", "axis"))
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    turn = f' transform="rotate(-90 14 {middle:.0f})"'
    parts.append(_text(14, middle, y.label, "middle", "axis", turn))
    if chance is not None and y.low <= chance <= y.high:
        at = _y(y, chance)
        parts.append(f'<path class="chance" d="M{_LEFT} {at:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(_text(WIDTH - _RIGHT - 3, at + 12, "guessing", "end", "note"))
    parts += [_bounds(x, y, line) for line in series if line.bounds]
    parts += [_line(x, y, line) for line in series]
    parts.append("</svg>")
    return "".join(parts)


def key(line: Series) -> str:
    """The legend's sample of a line, as a small SVG."""
    drawn = f'<path class="line" d="M1 6H29" stroke-dasharray="{_DASHES[line.style]}"/>'
    marker = _marker(15, 6, line.style) if line.marked else ""
    size = 'viewBox="0 0 30 12" aria-hidden="true"'
    return f'<svg class="key {line.kind}" {size}>{drawn}{marker}</svg>'


def _line(x: Axis, y: Axis, line: Series) -> str:
    points = [(_x(x, a), _y(y, b)) for a, b in line.points]
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
    drawn = f'<path class="line" d="M{path}" stroke-dasharray="{_DASHES[line.style]}"/>'
    markers = "".join(_marker(a, b, line.style) for a, b in points) if line.marked else ""
    return f'<g class="{line.kind}"><title>{escape(line.label)}</title>{drawn}{markers}</g>'


def _bounds(x: Axis, y: Axis, line: Series) -> str:
    bars = "".join(
        f"M{_x(x, a) + line.style - 2:.1f} {_y(y, low):.1f}V{_y(y, high):.1f}"
        for (a, _), (low, high) in zip(line.points, line.bounds, strict=True)
    )
    return f'<path class="bar {line.kind}" d="{bars}"/>'


def _marker(x: float, y: float, style: int) -> str:
    match style % 4:
        case 0:
            return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="3.6"/>'
        case 1:
            return (
                f'<rect class="mark" x="{x - 3.4:.1f}" y="{y - 3.4:.1f}" width="6.8" height="6.8"/>'
            )
        case 2:
            return f'<path class="mark" d="M{x:.1f} {y - 4.6:.1f}l4.4 7.6h-8.8z"/>'
        case _:
            return f'<path class="mark" d="M{x:.1f} {y - 4.8:.1f}l4.8 4.8l-4.8 4.8l-4.8 -4.8z"/>'


def _x(axis: Axis, value: float) -> float:
    return _LEFT + axis.at(value) * (WIDTH - _LEFT - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - _BOTTOM - axis.at(value) * (HEIGHT - _TOP - _BOTTOM)


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick", more: str = "") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>'
        f"{escape(text)}</text>"
    )


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
