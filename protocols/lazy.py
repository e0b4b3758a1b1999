"""Packages that import what they export when it is asked for: the command line starts quickly."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazily(package: str, homes: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Make the `__getattr__` of a package (PEP 562).

    Args:
        package: its name.
        homes: what it exports, by the module that defines it.
    """
    modules = {name: module for module, names in homes.items() for name in names}

    def look_up(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        return getattr(importlib.import_module(modules[name]), name)

    return look_up
