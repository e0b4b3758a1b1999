"""The lock of a folder, which one process has at a time; a forked child has none of its parent's.

On Windows nothing is locked.
"""

import os
from contextlib import suppress
from pathlib import Path

from protocols.errors import Busy, NotStored
from protocols.files import claim

_held: set[int] = set()


def lock_folder(folder: Path) -> int:
    """Lock the folder itself, which nobody replaces unnoticed; `unlock` lets it go.

    Raises:
        Busy: another process has it.
        NotStored: it cannot be opened.
    """
    try:
        descriptor = claim(folder)
    except BlockingIOError:
        raise Busy(
            "another process has this seat", fix="wait until it is done, or stop it"
        ) from None
    except OSError as error:
        raise NotStored(f"the seat's folder cannot be opened: {error.strerror}") from None
    _held.add(descriptor)
    return descriptor


def unlock(descriptor: int) -> None:
    """Let a folder go that `lock_folder` locked."""
    _held.discard(descriptor)
    with suppress(OSError):
        os.close(descriptor)


def _let_go() -> None:
    """Close what a fork has copied: the lock would outlast the parent with its child."""
    while _held:
        with suppress(OSError):
            os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
