"""Where a seat's folder and files were made, by what no copy of them shares.

A folder or file keeps its inode when it is renamed or moved within one file system. A copy has
another, or a number that was set free when the original was deleted, which ext4 gives to the very
next file. So the time of birth counts too, where the system tells it (Linux): nobody sets that. A
copy of hard links shares its files, and has a folder of its own.
"""

import ctypes
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any, Self

from msgspec import structs

from protocols.codec import Wire
from protocols.errors import BadSavedState, MovedSeat

# Numbers of 64 bits, of which a canonical integer holds 63.
_MOST = 2**63
# statx(2), which Python has from 3.15 on: its flags, and where its answer has the time of birth.
_AT_FDCWD, _AT_EMPTY_PATH, _STATX_BTIME = -100, 0x1000, 0x800
_STATX_BYTES, _SECONDS, _NANOSECONDS = 256, 80, 88


class Birthplace(Wire, frozen=True):
    """One folder or file, and no copy of it.

    Attributes:
        inode: its number.
        filesystem: number of the file system that it is on.
        born: nanoseconds since 1970; 0 where the system does not tell.
    """

    inode: int
    filesystem: int
    born: int

    @classmethod
    def of(cls, where: Path | int) -> Self:
        """Look at a path, or at an open file; raises OSError."""
        return cls(_stat(where).st_ino % _MOST, _filesystem(where), _born(where))

    def check(self, path: Path) -> None:
        """Compare with what is at a path now.

        Raises:
            MovedSeat: the same, on a file system of another number.
            BadSavedState: another, such as a copy.
            OSError: nothing that could be looked at.
        """
        here = Birthplace.of(path)
        if here == self:
            return
        if here == structs.replace(self, filesystem=here.filesystem):
            raise MovedSeat(
                f"the file system of {path} has another number than when this seat was made, as "
                "XFS and FAT may have after a reboot",
                fix="mount it as it was, or take part in a new session; the seat has not ended",
            )
        raise BadSavedState(
            f"{path} was copied, and its original may go on elsewhere",
            fix="use the folder that the seat was made in, or take part in a new session",
        )


def _stat(where: Path | int) -> os.stat_result:
    return where.stat() if isinstance(where, Path) else os.fstat(where)


def _filesystem(where: Path | int) -> int:
    if hasattr(os, "statvfs"):
        return os.statvfs(where).f_fsid % _MOST
    return _stat(where).st_dev % _MOST


def _born(where: Path | int) -> int:
    """Return the time of birth, which neither chmod nor chown changes; 0 for none."""
    statx = _statx()
    if statx is None:
        return 0
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    at, name, flags = (
        (where, b"", _AT_EMPTY_PATH)
        if isinstance(where, int)
        else (_AT_FDCWD, os.fsencode(where), 0)
    )
    failed = statx(at, name, flags, _STATX_BTIME, answer)
    found = answer.raw
    if failed or not _number(found, 0, 4) & _STATX_BTIME:
        return 0
    return _number(found, _SECONDS, 8) * 10**9 + _number(found, _NANOSECONDS, 4)


def _number(found: bytes, offset: int, length: int) -> int:
    return int.from_bytes(found[offset : offset + length], sys.byteorder)


@cache
def _statx() -> Any:
    """Return the C library's function, where it has one."""
    return getattr(ctypes.CDLL(None), "statx", None) if sys.platform == "linux" else None
