"""The ramp from guessing to complete success, as style rules for light and dark pages."""

from collections.abc import Sequence

LEVELS = 11

# Anchors in sRGB: one hue whose lightness goes one way, so that it reads the same to the
# colour-blind and in grey.
_LIGHT = ("#eef0f2", "#fbe0bd", "#f6b26b", "#dd6b20", "#8f2d04")
_DARK = ("#262a30", "#4b3420", "#8a531d", "#d07c2c", "#ffcf8f")


def ramp_style() -> str:
    """CSS of the classes s0 to s10: background, and the text that is best read on it."""
    light = _ramp_rules(_LIGHT)
    dark = _ramp_rules(_DARK)
    return f"{light}@media screen and (prefers-color-scheme: dark) {{\n{dark}}}\n"


def _ramp_rules(anchors: Sequence[str]) -> str:
    rules = []
    for level in range(LEVELS):
        colour = _mixed(anchors, level / (LEVELS - 1))
        ink = max(("#111111", "#ffffff"), key=lambda text: _contrast(text, colour))
        rules.append(f".s{level} {{ background: {colour}; color: {ink}; }}\n")
    return "".join(rules)


def _mixed(anchors: Sequence[str], share: float) -> str:
    at = share * (len(anchors) - 1)
    first = min(int(at), len(anchors) - 2)
    pairs = zip(_channels(anchors[first]), _channels(anchors[first + 1]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (at - first)):02x}" for a, b in pairs)


def _channels(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2."""
    lights = sorted((_luminance(one), _luminance(other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def _luminance(colour: str) -> float:
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (channel / 255 for channel in _channels(colour))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
