"""Checks of the numbers that people and programs set."""

import math
from typing import Any

from msgspec.structs import force_setattr

from secure_afl.errors import ConfigError


def settle_float(owner: Any, field: str, low: float, high: float) -> None:
    """Make a frozen struct's field a plain float, so that equal settings encode alike.

    Raises:
        ConfigError: not a number in low..high, naming the field.
    """
    value = getattr(owner, field)
    if isinstance(value, bool | str) or not low <= value <= high or math.isnan(value):
        raise ConfigError(f"{field} is {value!r}, allowed: {low:g}..{high:g}")
    force_setattr(owner, field, float(value))


def settle_int(owner: Any, field: str, low: int, high: int) -> None:
    """Make a frozen struct's field a plain int, so that equal settings encode alike."""
    value = getattr(owner, field)
    if isinstance(value, bool | str) or int(value) != value or not low <= value <= high:
        raise ConfigError(f"{field} is {value!r}, allowed: whole numbers {low}..{high}")
    force_setattr(owner, field, int(value))


def check_choice(owner: Any, field: str, choices: tuple[str, ...]) -> None:
    """Raise ConfigError unless a field is one of the choices."""
    value = getattr(owner, field)
    if value not in choices:
        raise ConfigError(f"{field} is {value!r}, allowed: {', '.join(choices)}")
