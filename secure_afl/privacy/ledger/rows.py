"""Rows that are known again: keyed digests of a client's rows, and the file that keeps them.

The file only grows. The ledger's own file says how much of it is recorded, with a digest: a crash
between the two leaves bytes that nobody counts, and a change of the recorded bytes is noticed.
"""

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secure_afl.errors import ConfigError
from secure_afl.privacy.ledger.book import Mark

ROW_BYTES = 8
_CHUNK = 1024


def row_digests(features: NDArray[np.floating], key: bytes) -> tuple[bytes, ...]:
    """Hash rows under a key, so that they are known again and cannot be guessed from outside.

    A row is known by its features as float32, for a projection of other rows beside it may change
    the last bits of a float64. Labels do not matter. Rows of zeros have no digest, for they are
    nobody's.

    Args:
        features: (n, d), finite.
        key: 1 to 64 bytes.

    Returns:
        BLAKE2b digests, 8 bytes each, without repetitions and sorted.
    """
    found: set[bytes] = set()
    for start in range(0, len(features), _CHUNK):
        rows = features[start : start + _CHUNK]
        with np.errstate(over="ignore", under="ignore"):
            # A sum with zero makes one zero of the two.
            rounded = rows.astype(np.float32, order="C") + np.float32(0)
        usual = np.isfinite(rounded).all(axis=1) & rounded.any(axis=1)
        # Rows that float32 has no room for are taken as they are.
        others = rows[~usual].astype(np.float64, order="C") + 0.0
        for row in (*rounded[usual], *others[others.any(axis=1)]):
            found.add(hashlib.blake2b(row, digest_size=ROW_BYTES, key=key).digest())
    return tuple(sorted(found))


def check_digests(rows: Iterable[bytes]) -> None:
    """Raise ConfigError unless these can be digests of rows."""
    for row in rows:
        if not isinstance(row, bytes) or len(row) != ROW_BYTES:
            raise ConfigError(
                f"a row's digest is a {type(row).__name__}; wanted {ROW_BYTES} bytes each, as "
                "row_digests makes them"
            )


class Rows:
    """The rows of a ledger's lineages, on the disk and in memory.

    The file has records of a lineage's place (4 bytes), a number of digests (4 bytes) and the
    digests, all little-endian.

    Args:
        path: of the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._busy = threading.Lock()
        self._mark = Mark()
        self._hashed = hashlib.sha256()
        self._owners: dict[bytes, tuple[int, ...]] = {}
        self._sizes: Counter[int] = Counter()

    def sizes(self, mark: Mark) -> Counter[int]:
        """Count the digests of each lineage, by place; raises as `shared`."""
        with self._busy:
            self._load(mark)
            return self._sizes.copy()

    def owners(
        self, mark: Mark, place: int, rows: Iterable[bytes]
    ) -> list[tuple[bytes, tuple[int, ...]]]:
        """List each row that other lineages have with these, by place.

        Arguments and errors are those of `shared`.
        """
        with self._busy:
            owners = self._load(mark)
            others = ((row, tuple(o for o in owners.get(row, ()) if o != place)) for row in rows)
            return [(row, found) for row, found in others if found]

    def shared(self, mark: Mark, place: int, rows: Collection[bytes]) -> Counter[int]:
        """Count the rows that each other lineage has, too.

        Args:
            mark: what of the file is recorded.
            place: of the lineage that has the rows.
            rows: digests.

        Raises:
            OSError, ValueError: the file cannot be read, or is not what was recorded.
        """
        with self._busy:
            owners = self._load(mark)
            return Counter(o for row in set(rows) for o in owners.get(row, ()) if o != place)

    def unknown(self, mark: Mark, place: int, rows: Collection[bytes]) -> list[bytes]:
        """Return the rows that the lineage is not known to have, sorted; raises as `shared`."""
        with self._busy:
            owners = self._load(mark)
            return sorted(row for row in set(rows) if place not in owners.get(row, ()))

    def append(self, mark: Mark, place: int, rows: Sequence[bytes]) -> Mark:
        """Write rows of a lineage durably, and return what is to be recorded.

        Nothing counts until the mark is recorded. Callers hold the ledger's lock.

        Raises:
            OSError: the rows could not be written.
            ValueError: the file is not what was recorded.
        """
        record = place.to_bytes(4, "little") + len(rows).to_bytes(4, "little") + b"".join(rows)
        with self._busy:
            self._load(mark)
            self._write(mark.bytes, record)
            self._take(record)
            return self._mark

    def _write(self, at: int, record: bytes) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            file.truncate(at)  # of a crash
            file.seek(at)
            try:
                file.write(record)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(at)
                raise

    def _load(self, mark: Mark) -> dict[bytes, tuple[int, ...]]:
        if mark == self._mark:
            return self._owners
        content = b""
        if mark.bytes:
            with self.path.open("rb") as file:
                content = file.read(mark.bytes)
        self._mark, self._hashed = Mark(), hashlib.sha256()
        self._owners, self._sizes = {}, Counter()
        if mark.bytes:
            if hashlib.sha256(content).hexdigest() != mark.digest:
                raise ValueError("its content is not what the ledger recorded")
            self._take(content)
        return self._owners

    def _take(self, records: bytes) -> None:
        """Add records to those in memory."""
        at = 0
        while at < len(records):
            place = int.from_bytes(records[at : at + 4], "little")
            end = at + 8 + ROW_BYTES * int.from_bytes(records[at + 4 : at + 8], "little")
            alone = (place,)  # one for all, of millions
            for start in range(at + 8, end, ROW_BYTES):
                row = records[start : start + ROW_BYTES]
                self._owners[row] = (*self._owners[row], place) if row in self._owners else alone
                self._sizes[place] += 1
            at = end
        self._hashed.update(records)
        self._mark = Mark(self._mark.bytes + len(records), self._hashed.hexdigest())
