"""Checks of the numbers that people and programs set."""

import math
import sys
from numbers import Real
from typing import Any

from msgspec.structs import force_setattr

from secure_afl.errors import ConfigError

_LARGEST = sys.float_info.max


def number(name: str, value: Any, low: float, high: float) -> float:
    """Return a number in low..high as a plain float.

    Raises:
        ConfigError: another type, a truth value, NaN, or out of range; naming what it is.
    """
    if not _is_number(value) or not low <= value <= high:
        raise ConfigError(f"{name} is {_short(value)}, allowed: {low:g}..{high:g}")
    return float(value)


def positive(name: str, value: Any) -> float:
    """Return a finite number above 0 as a plain float.

    Raises:
        ConfigError: anything else, naming what it is.
    """
    if not _is_number(value) or not 0 < value < math.inf:
        raise ConfigError(f"{name} is {_short(value)}, allowed: finite numbers above 0")
    return float(value)


def whole(name: str, value: Any, low: int, high: int = 2**63 - 1) -> int:
    """Return a whole number in low..high as a plain int.

    Raises:
        ConfigError: another type, a truth value, a fraction, or out of range; naming what it is.
    """
    words = f"whole numbers {low}..{high}" if high < 2**63 - 1 else f"whole numbers ≥ {low}"
    if not _is_number(value) or not low <= value <= high or int(value) != value:
        raise ConfigError(f"{name} is {_short(value)}, allowed: {words}")
    return int(value)


def _is_number(value: Any) -> bool:
    """Say whether a value is a number that a float can hold: no truth value, and not NaN."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    # Whole numbers of Python's own have no bound, and floats do.
    size: Any = abs(value)
    return bool(size <= _LARGEST) or size == math.inf


def _short(value: Any) -> str:
    """Return a value as it is written, if that fits into a line."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**30 else "a huge number"
    return text if len(text) <= 200 else f"{text[:200]}…"


def settle_float(owner: Any, field: str, low: float, high: float) -> None:
    """Make a frozen struct's field a plain float, so that equal settings encode alike.

    Raises:
        ConfigError: not a number in low..high, naming the field.
    """
    force_setattr(owner, field, number(field, getattr(owner, field), low, high))


def settle_int(owner: Any, field: str, low: int, high: int) -> None:
    """Make a frozen struct's field a plain int, so that equal settings encode alike.

    Raises:
        ConfigError: not a whole number in low..high, naming the field.
    """
    force_setattr(owner, field, whole(field, getattr(owner, field), low, high))


def check_type(name: str, value: Any, kind: type) -> None:
    """Raise ConfigError unless a value is of this kind."""
    if not isinstance(value, kind):
        raise ConfigError(f"{name} is {_short(value)}, allowed: a {kind.__name__}")


def check_choice(owner: Any, field: str, choices: tuple[str, ...]) -> None:
    """Raise ConfigError unless a field is one of the choices."""
    value = getattr(owner, field)
    if value not in choices:
        raise ConfigError(f"{field} is {value!r}, allowed: {', '.join(choices)}")
