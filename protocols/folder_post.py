"""A post that is a folder: shared, synchronised, or carried by hand.

Each party has an inbox in it, a folder of its name, and each piece of mail is a file whose name is
its hash: to send it again changes only its time, and what has been carried twice is there once.
Mail is sealed and signed; whoever can write here can delay, delete or repeat it, and no more. Files
are readable for all: where parties are different users, the folder says who may look.
"""

import hashlib
import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from protocols.errors import NotStored
from protocols.files import PARTIAL_PREFIX, make_folder, open_regular, write_durably
from protocols.roster import check_name

SUFFIX = ".mail"
# Mail is sealed, and for another user.
_FOR_ALL = 0o644
_TOUCHES_OPEN_FILES = os.utime in os.supports_fd


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
            # Whoever exchanges the inbox after this look has sealed mail, under its hash, written
            # elsewhere: over nothing that was there.
            make_folder(path.parent)
            if not _touched(path, mail):
                write_durably(path, mail, _FOR_ALL)
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
        with open_regular(path) as file:
            found = os.fstat(file.fileno())
            mark = found.st_mtime_ns, found.st_size
            if found.st_size > self._most or self._collected.get(path) == mark:
                return None
            mail = file.read(self._most + 1)
        self._collected[path] = mark
        # Another hash is of mail that is still on its way, and will have another time or size.
        return mail if hashlib.sha256(mail).hexdigest() == path.stem else None

    def _inbox(self, recipient: str) -> Path:
        check_name(recipient)
        return self._folder / recipient


def _touched(path: Path, mail: bytes) -> bool:
    """Touch a file that is this mail, whole, as one that a broken sync left is not; say if it is.

    What cannot be read or touched is none: it is written again.
    """
    with suppress(OSError), open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size == len(mail) and file.read(size + 1) == mail:
            os.utime(file.fileno() if _TOUCHES_OPEN_FILES else path)
            return True
    return False
