"""This module mixes the ramp from guessing to complete success, for light and dark pages."""

from collections.abc import Sequence
from dataclasses import dataclass

LEVELS = 11

# Anchors in sRGB: one hue whose lightness goes one way, so that it reads the same to the
# colour-blind and in grey.
_LIGHT = ("#eef0f2", "#fbe0bd", "#f6b26b", "#dd6b20", "#8f2d04")
_DARK = ("#262a30", "#4b3420", "#8a531d", "#d07c2c", "#ffcf8f")

_INKS = ("#111111", "#ffffff")


@dataclass(frozen=True)
class Shade:
    """A shade is one level of the ramp, and the ink that suits it."""

    level: int
    background: str
    ink: str


@dataclass(frozen=True)
class Ramp:
    """A ramp has a shade for each level, on light pages and on dark ones."""

    light: tuple[Shade, ...]
    dark: tuple[Shade, ...]


def mix_ramp() -> Ramp:
    """Mix the shades of all levels."""
    return Ramp(_shades_of(_LIGHT), _shades_of(_DARK))


def _shades_of(anchors: Sequence[str]) -> tuple[Shade, ...]:
    shades = []
    for level in range(LEVELS):
        background = _mix(anchors, level / (LEVELS - 1))
        contrasts = {ink: _contrast(ink, background) for ink in _INKS}
        shades.append(Shade(level, background, max(_INKS, key=contrasts.__getitem__)))
    return tuple(shades)


def _mix(anchors: Sequence[str], share: float) -> str:
    at = share * (len(anchors) - 1)
    first = min(int(at), len(anchors) - 2)
    pairs = zip(_channels(anchors[first]), _channels(anchors[first + 1]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (at - first)):02x}" for a, b in pairs)


def _channels(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2.2."""
    lights = sorted((_luminance(one), _luminance(other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def _luminance(colour: str) -> float:
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (channel / 255 for channel in _channels(colour))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
