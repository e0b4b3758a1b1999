"""Files that outlast a crash, and that nobody else on the machine may read.

A file is written aside, in its own folder, under a name that nobody else has: `PARTIAL_PREFIX`,
random characters, `PARTIAL_SUFFIX`. Only a crash leaves such a file behind. `remove_partials` takes
those away that are too old to be still written.
"""

import errno
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl

PARTIAL_PREFIX = ".writing-"
PARTIAL_SUFFIX = ".partial"
# No write takes so long, in seconds.
STALE_AFTER = 3600.0

Content = bytes | Callable[[int], bytes]
"""A file's bytes, or what makes them of its descriptor: for a file that names its own inode."""

_OWN = 0o600
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
# Neither a link to elsewhere nor a pipe that nobody writes to; on Windows the bytes as they are.
_REGULAR = os.O_RDONLY | _NO_LINK | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
# A pipe that lies in a folder's place would be waited for.
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)


def write_durably(path: Path, content: Content, mode: int = _OWN) -> None:
    """Write a file, by default for its owner alone, whole even after a crash.

    After a crash the file is the old one or the new one. Of several writers at one time each
    succeeds, and the last one's content stays.

    Args:
        mode: of the new file (POSIX). It is the file's own before it has the path: whoever may
            write into the folder could put a link to another file there.

    Raises:
        OSError: it could not be written. The old file is as it was; where only the folder could
            not be flushed, the new one is there and may not outlast a power cut.
    """
    partial = _write_aside(path.parent, content, mode)
    try:
        partial.replace(path)
    except BaseException:
        _remove(partial)
        raise
    flush_folder(path.parent)


def create_durably(path: Path, content: Content) -> None:
    """Create a file for its owner alone, whole even after a crash, never over another.

    Of several processes that create one path exactly one succeeds. Wants a file system with hard
    links.

    Raises:
        FileExistsError: the path exists already, whatever it is; it is as it was.
        OSError: it could not be created; where only the folder could not be flushed, the file is
            there and may not outlast a power cut.
    """
    partial = _write_aside(path.parent, content)
    try:
        os.link(partial, path)
    except FileExistsError:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
    finally:
        _remove(partial)
    flush_folder(path.parent)


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read it, in a folder that others may write.

    Raises:
        OSError: a link, a pipe, a device or a folder lies there, or it cannot be opened.
    """
    # To open a device, only to see that it is one, may already do something.
    _check_regular(path, path.lstat())
    descriptor = os.open(path, _REGULAR)
    try:
        _check_regular(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def make_folder(path: Path) -> None:
    """Make a folder, if need be, in one that others may write.

    Raises:
        OSError: a link or a file lies there, or it cannot be made.
    """
    with suppress(FileExistsError):
        path.mkdir()
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise NotADirectoryError(
            errno.ENOTDIR, "a link or a file lies where the folder should be", str(path)
        )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock, among threads and processes; others wait.

    The lock is a file of its own beside it, `<name>.lock`, since the file itself is replaced. It is
    never removed. On Windows nothing is locked.

    Raises:
        OSError: the lock file cannot be opened.
    """
    flags = os.O_CREAT | os.O_RDWR | _NO_LINK
    descriptor = os.open(path.with_name(path.name + ".lock"), flags, _OWN)
    try:
        if sys.platform != "win32":
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Make a rename outlast a power cut, where folders can be flushed (POSIX).

    Raises:
        OSError: the folder cannot be opened or flushed.
    """
    if os.name == "posix":
        descriptor = os.open(folder, _FOLDER)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def claim(folder: Path) -> int:
    """Lock a folder without waiting; closing the descriptor lets the folder go.

    The lock is on the folder itself, which nobody replaces unnoticed. On Windows, where folders
    cannot be opened, nothing is locked.

    Raises:
        BlockingIOError: another process, or another descriptor of this one, has it.
        OSError: it cannot be opened.
    """
    if sys.platform == "win32":
        return os.open(os.devnull, os.O_RDONLY)
    descriptor = os.open(folder, _FOLDER)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def remove_partials(folder: Path, older_than: float = STALE_AFTER) -> int:
    """Remove what crashes left half-written in a folder; return how many files.

    Args:
        older_than: seconds since the last write; younger files may still be in use.

    Raises:
        OSError: a file cannot be removed.
    """
    removed = 0
    for path in folder.glob(f"{PARTIAL_PREFIX}*{PARTIAL_SUFFIX}"):
        # Its writer may finish meanwhile.
        with suppress(FileNotFoundError):
            if time.time() - path.lstat().st_mtime > older_than:
                path.unlink()
                removed += 1
    return removed


def _write_aside(folder: Path, content: Content, mode: int = _OWN) -> Path:
    """Write a file under a fresh name, flushed to the disk."""
    # For its owner alone, whatever the umask allows.
    descriptor, name = tempfile.mkstemp(PARTIAL_SUFFIX, PARTIAL_PREFIX, folder)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content(file.fileno()) if callable(content) else content)
            file.flush()
            if mode != _OWN and hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
    except BaseException:
        # A full disk must not stay full of what was not kept.
        _remove(partial)
        raise
    return partial


def _check_regular(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def _remove(partial: Path) -> None:
    with suppress(OSError):
        partial.unlink()
