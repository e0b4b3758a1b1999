"""A post that is a folder: shared, synchronised, or carried by hand.

Each party has an inbox in it, a folder of its name, and each piece of mail is a file whose name is
its hash: to send it again changes only its time, and what has been carried twice is there once.
Mail is sealed and signed; whoever can write here can delay, delete or repeat it, and no more. Files
are readable for all: where parties are different users, the folder says who may look.
"""

import hashlib
import os
import stat
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from protocols.errors import NotStored
from protocols.files import PARTIAL_PREFIX, write_durably
from protocols.roster import check_name

SUFFIX = ".mail"


class FolderPost:
    """A post in a folder, which may lie on a network.

    A post remembers what it has collected while it lives. One that is made anew collects everything
    again, which parties do not mind.

    Args:
        folder: an existing folder.
        most: bytes of one piece of mail; longer files are left alone.

    Raises:
        NotStored: there is no such folder.
    """

    def __init__(self, folder: Path, *, most: int = 2**31) -> None:
        if not folder.is_dir():
            raise NotStored(f"{folder} is no folder", fix="make the post's folder first")
        self._folder = folder
        self._most = most
        self._collected: dict[Path, tuple[int, int]] = {}

    def send(self, recipient: str, mail: bytes) -> None:
        """Put mail into a party's inbox, or touch it where it lies already.

        Raises:
            InvalidSession: no party can have that name.
            NotStored: it cannot be written.
        """
        path = self._inbox(recipient) / (hashlib.sha256(mail).hexdigest() + SUFFIX)
        try:
            path.parent.mkdir(exist_ok=True)
            if _holds(path, mail):
                os.utime(path)
            else:
                write_durably(path, mail)
                path.chmod(0o644)  # sealed, and for another user
        except OSError as error:
            raise NotStored(
                f"mail for '{recipient}' cannot be put into the post: {error.strerror}",
                fix="see whether the folder is there, and has room",
            ) from None

    def collect(self, names: Collection[str]) -> Iterable[tuple[str, bytes]]:
        """Yield mail that has come for these parties, or come again, since the last time."""
        for name in tuple(names):
            for mail in self._inbox_of(name):
                yield name, mail

    def _inbox_of(self, recipient: str) -> Iterable[bytes]:
        inbox, paths = self._inbox(recipient), []
        with suppress(OSError):  # a folder that is away comes back
            paths = sorted(inbox.iterdir())
        for path in paths:
            if path.suffix != SUFFIX or path.name.startswith(PARTIAL_PREFIX):
                continue
            with suppress(OSError):
                mail = self._read(path)
                if mail is not None:
                    yield mail

    def _read(self, path: Path) -> bytes | None:
        """Return a file's content if it is new, whole, and no link to elsewhere."""
        # Neither a link to elsewhere nor a pipe that nobody writes to.
        flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(path, os.O_RDONLY | flags)
        try:
            found = os.fstat(descriptor)
            mark = found.st_mtime_ns, found.st_size
            if not stat.S_ISREG(found.st_mode) or found.st_size > self._most:
                return None
            if self._collected.get(path) == mark:
                return None
            with os.fdopen(os.dup(descriptor), "rb") as file:
                mail = file.read(self._most + 1)
        finally:
            os.close(descriptor)
        self._collected[path] = mark
        # Another hash is of mail that is still on its way, and will have another time or size.
        return mail if hashlib.sha256(mail).hexdigest() == path.stem else None

    def _inbox(self, recipient: str) -> Path:
        check_name(recipient)
        return self._folder / recipient


def _holds(path: Path, mail: bytes) -> bool:
    """Say whether a file is this mail, whole: a sync that broke off may leave one that is not."""
    try:
        found = path.lstat()
        same = stat.S_ISREG(found.st_mode) and found.st_size == len(mail)
        return same and path.read_bytes() == mail
    except OSError:
        return False
