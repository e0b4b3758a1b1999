"""Packages that import what they export when it is asked for: the command line starts quickly."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazily(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the `__getattr__` and the `__dir__` of a package (PEP 562).

    A name that was looked up once is an attribute of the package from then on.

    Args:
        package: its name.
        homes: what it exports, by the module that defines it.
    """
    modules = {name: module for module, names in homes.items() for name in names}

    def look_up(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        found = getattr(importlib.import_module(modules[name]), name)
        setattr(sys.modules[package], name, found)
        return found

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return look_up, names
