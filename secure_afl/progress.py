"""Progress: how long work tells whoever waits for it how far it is."""

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is under way in one word, how much of it is done, and of how much."""
