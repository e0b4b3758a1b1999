"""The journal of a seat: what happened to it, in order, and nothing of it twice.

Records are sealed and chained: each is bound to the seals of all before it. A record whose write
was cut off is dropped, for nothing was said because of it; any other damage ends the seat.
"""

import hashlib
import os
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from protocols.codec import Wire, decode, encode
from protocols.errors import BadSavedState, Malformed, NotStored
from protocols.files import create_durably
from protocols.seats.birthplace import Birthplace
from protocols.seats.vault import SEAL_BYTES, Vault, edges

_PURPOSE, _HEAD = "journal", "journal record's length"
# A record's length, sealed: nobody but a cut-off write makes a record look longer than it is.
_HEAD_BYTES = 4 + SEAL_BYTES
# What a cut-off write leaves where bytes did not come.
_UNWRITTEN = bytes(16)


class Birth(Wire, frozen=True):
    """The first record: where the journal was made, and what for.

    Attributes:
        place: of the file, which a copy does not have.
        content: opaque here.
    """

    place: Birthplace
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
            return b"".join(journal._sealed(encode(Birth(Birthplace.of(file), content))))

        try:
            create_durably(path, birth)
        except FileExistsError:
            raise
        except OSError as error:
            raise NotStored(f"the journal cannot be made: {error.strerror}") from None
        return cls.open(path, vault)

    @classmethod
    def open(cls, path: Path, vault: Vault) -> "Journal":
        """Open a journal at its first record; `replay` reads the others.

        Raises:
            BadSavedState: damaged, without its first record, or a copy.
            MovedSeat: on a file system of another number.
        """
        journal = cls(path, vault)
        records = journal._read()
        try:
            _, first = next(records)
            journal.birth = decode(first, Birth)
            journal.birth.place.check(path)
        except StopIteration:
            raise BadSavedState("the journal has no first record") from None
        except (OSError, Malformed) as error:
            raise BadSavedState(f"the journal cannot be read: {error}") from None
        finally:
            records.close()
        return journal

    def replay(self) -> Iterator[tuple[Place, bytes]]:
        """Yield the records after the first; then the journal may be appended to.

        A torn last record is cut off: nobody has answered to it.

        Raises:
            BadSavedState: damaged, or it cannot be read.
        """
        try:
            yield from self._read()
            if self._end < self._path.stat().st_size:
                os.truncate(self._path, self._end)
        except OSError as error:
            raise BadSavedState(f"the journal cannot be read: {error.strerror}") from None

    birth: Birth

    def append(self, record: bytes) -> Place:
        """Add a record; on return it is on the disk.

        Raises:
            NotStored: it cannot be written, and the journal is as it was.
        """
        head, body = sealed = self._sealed(record)
        place = Place(self._end, len(body), self._chain)
        try:
            with self._path.open("r+b") as file:
                file.seek(self._end)
                file.writelines(sealed)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                os.truncate(self._path, self._end)
            raise NotStored(
                f"the seat's journal cannot be written: {error.strerror}",
                fix="free space in the seat's folder; the sender may send it again",
            ) from None
        self._end += len(head) + len(body)
        self._chain = _next(self._chain, body)
        return place

    def read(self, place: Place) -> bytes:
        """Read a record again.

        Raises:
            BadSavedState: it is damaged, or cannot be read.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(place.offset + _HEAD_BYTES)
                sealed = file.read(place.length)
        except OSError as error:
            raise BadSavedState(f"the journal cannot be read: {error.strerror}") from None
        return self._vault.open(_PURPOSE, sealed, place.chain)

    def _sealed(self, record: bytes) -> tuple[bytes, bytes]:
        """Return a record as it is written: its head and its body."""
        body = self._vault.seal(_PURPOSE, record, self._chain)
        head = self._vault.seal(_HEAD, len(body).to_bytes(4, "little"), self._chain)
        return head, body

    def _read(self) -> Generator[tuple[Place, bytes], None, None]:
        """Yield the records from here on, up to the end or a torn one."""
        with self._path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            while True:
                file.seek(self._end)
                head = file.read(_HEAD_BYTES)
                if len(head) < _HEAD_BYTES or not (head.strip(b"\0") or file.read().strip(b"\0")):
                    return
                length = int.from_bytes(self._vault.open(_HEAD, head, self._chain), "little")
                file.seek(self._end + _HEAD_BYTES)
                body = file.read(length)
                last = self._end + _HEAD_BYTES + length >= size
                if last and (len(body) < length or body.endswith(_UNWRITTEN)):
                    return
                record = self._vault.open(_PURPOSE, body, self._chain)
                place = Place(self._end, length, self._chain)
                self._end += _HEAD_BYTES + length
                self._chain = _next(self._chain, body)
                yield place, record


def _next(chain: bytes, sealed: bytes) -> bytes:
    """Go on by a record's nonce and tag: nobody without the key makes another record of them.

    To hash all of it would take as long as everything else that an upload costs a seat.
    """
    return hashlib.sha256(chain + edges(sealed)).digest()
