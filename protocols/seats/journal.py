"""The journal of a seat: what happened to it, in order, and nothing of it twice.

Records are sealed and chained: each is bound to the hash of all before it. A record whose write was
cut off is dropped, for nothing was said because of it; any other damage ends the seat.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from protocols.codec import Wire, decode, encode
from protocols.errors import BadSavedState, Malformed, NotStored
from protocols.files import create_durably
from protocols.seats.vault import Vault

_LENGTH_BYTES = 4
_PURPOSE = "journal"


class Birth(Wire, frozen=True):
    """The first record: where the journal was made, and what for.

    Attributes:
        inode, filesystem: of the file, which a copy does not have.
        content: opaque here.
    """

    inode: int
    filesystem: int
    content: bytes


class Place(NamedTuple):
    """Where a record lies, and the chain's value before it."""

    offset: int
    length: int
    chain: bytes


class Journal:
    """An append-only file of sealed, chained records; one process writes it at a time."""

    def __init__(self, path: Path, vault: Vault) -> None:
        self._path = path
        self._vault = vault
        self._chain = bytes(32)
        self._end = 0

    @classmethod
    def create(cls, path: Path, vault: Vault, content: bytes) -> "Journal":
        """Make the journal with its first record; of two that try, one does.

        Raises:
            FileExistsError: there is one.
            NotStored: it cannot be written.
        """
        journal = cls(path, vault)

        def birth(file: int) -> bytes:
            born = Birth(os.fstat(file).st_ino, _filesystem(path.parent), content)
            sealed, _ = journal._sealed(encode(born))
            return sealed

        try:
            create_durably(path, birth)
        except FileExistsError:
            raise
        except OSError as error:
            raise NotStored(f"the journal cannot be made: {error.strerror}") from None
        found, records = cls.open(path, vault)
        del records
        return found

    @classmethod
    def open(cls, path: Path, vault: Vault) -> tuple["Journal", list[tuple[Place, bytes]]]:
        """Read a journal; returns it, ready to be appended to, with its records after the first.

        Raises:
            BadSavedState: damaged, without its first record, or a copy.
        """
        journal = cls(path, vault)
        try:
            size = path.stat().st_size
            records = list(journal._read(size))
        except OSError as error:
            raise BadSavedState(f"the journal cannot be read: {error.strerror}") from None
        if not records:
            raise BadSavedState("the journal has no first record")
        try:
            journal.birth = decode(records[0][1], Birth)
        except Malformed:
            raise BadSavedState("the journal begins with another record") from None
        here = path.stat().st_ino, _filesystem(path.parent)
        if here != (journal.birth.inode, journal.birth.filesystem):
            raise BadSavedState(
                "the journal was copied, and its original may go on elsewhere",
                fix="use the folder that the seat was made in, or take part in a new session",
            )
        if journal._end < size:
            os.truncate(path, journal._end)  # a torn record, which nobody has answered to
        return journal, records[1:]

    birth: Birth

    def append(self, record: bytes) -> Place:
        """Add a record; on return it is on the disk.

        Raises:
            NotStored: it cannot be written, and the journal is as it was.
        """
        sealed, chain = self._sealed(record)
        place = Place(self._end, len(sealed) - _LENGTH_BYTES, self._chain)
        try:
            with self._path.open("r+b") as file:
                file.seek(self._end)
                file.write(sealed)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                os.truncate(self._path, self._end)
            raise NotStored(
                f"the seat's journal cannot be written: {error.strerror}",
                fix="free space in the seat's folder; the sender may send it again",
            ) from None
        self._end += len(sealed)
        self._chain = chain
        return place

    def read(self, place: Place) -> bytes:
        """Read a record again.

        Raises:
            BadSavedState: it is damaged, or cannot be read.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(place.offset + _LENGTH_BYTES)
                sealed = file.read(place.length)
        except OSError as error:
            raise BadSavedState(f"the journal cannot be read: {error.strerror}") from None
        return self._vault.open(_PURPOSE, sealed, place.chain)

    def _sealed(self, record: bytes) -> tuple[bytes, bytes]:
        """Return a record as it is written, and the chain's value after it."""
        sealed = self._vault.seal(_PURPOSE, record, self._chain)
        return len(sealed).to_bytes(_LENGTH_BYTES, "little") + sealed, _next(self._chain, sealed)

    def _read(self, size: int) -> Iterator[tuple[Place, bytes]]:
        with self._path.open("rb") as file:
            while True:
                head = file.read(_LENGTH_BYTES)
                length = int.from_bytes(head, "little")
                if len(head) < _LENGTH_BYTES or self._end + _LENGTH_BYTES + length > size:
                    return
                sealed = file.read(length)
                last = self._end + _LENGTH_BYTES + length == size
                if last and not sealed.strip(b"\0"):
                    return  # the file grew, and its bytes did not come
                record = self._vault.open(_PURPOSE, sealed, self._chain)
                yield Place(self._end, length, self._chain), record
                self._end += _LENGTH_BYTES + length
                self._chain = _next(self._chain, sealed)


def _next(chain: bytes, sealed: bytes) -> bytes:
    return hashlib.sha256(chain + sealed).digest()


def _filesystem(folder: Path) -> int:
    return os.statvfs(folder).f_fsid % 2**63
