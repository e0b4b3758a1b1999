"""Files that outlast a crash, and that nobody else on the machine may read."""

import os
from contextlib import suppress
from pathlib import Path


def write_durably(path: Path, content: bytes) -> None:
    """Write a file for its owner alone, whole even after a crash.

    After a crash the file is the old one or the new one.

    Written aside, flushed to the disk, then renamed. Callers see to it that no two of them write
    one path at a time.

    Raises:
        OSError: it could not be written; the old file is as it was.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        partial.unlink(missing_ok=True)  # of a crash
        with open(partial, "xb", opener=_open_private) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _flush_folder(path.parent)
    except OSError:
        with suppress(OSError):
            partial.unlink()  # a full disk must not stay full of what was not kept
        raise


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _flush_folder(folder: Path) -> None:
    """Make a rename outlast a power cut, where folders can be flushed (POSIX)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
