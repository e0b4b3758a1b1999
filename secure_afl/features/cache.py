"""A cache of what a frozen backbone made of an image, so that it is computed once.

It also holds the digests of networks, see `remembered`.
"""

import hashlib
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from secure_afl.errors import DataError
from secure_afl.features.remembered import Remembered

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS features (
    backbone BLOB NOT NULL,
    image BLOB NOT NULL,
    row BLOB NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (backbone, image)
)
"""
# A table that files of earlier versions lack, and that these versions do not look at.
_NETWORKS = """
CREATE TABLE IF NOT EXISTS networks (
    key BLOB NOT NULL PRIMARY KEY,
    digest BLOB NOT NULL,
    width INTEGER NOT NULL,
    checksum BLOB NOT NULL
)
"""


def default_path() -> Path:
    """Return the path of this user's cache file.

    It is `$SECURE_AFL_CACHE`, or a file in the user's cache directory.
    """
    if chosen := os.environ.get("SECURE_AFL_CACHE"):
        return Path(chosen)
    return user_cache_path("secure-afl", appauthor=False) / "features.sqlite"


class FeatureCache:
    """Feature rows by backbone and image, in a SQLite file that its owner alone reads.

    The file (mode 0600) and its folder (mode 0700) are made if they are missing. Several processes
    may use it at a time.

    Raises:
        DataError: a file that is not a feature cache, that is damaged, or that cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise DataError(
                f"the feature cache {self.path} cannot be written ({error}); "
                "set SECURE_AFL_CACHE to a file that can"
            ) from error
        with self._connect() as connection:
            connection.execute("BEGIN IMMEDIATE")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if tables == 0:
                connection.execute(_SCHEMA)
                connection.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise self._corrupt(f"it has version {version}, not {_VERSION}")
            connection.execute(_NETWORKS)

    def get(
        self, backbone_digest: bytes, image_digests: Iterable[bytes]
    ) -> dict[bytes, NDArray[np.float32]]:
        """Return the known rows, float32 (d,), by image digest; the others are left out.

        Raises:
            DataError: the file is damaged or cannot be used.
        """
        found: dict[bytes, NDArray[np.float32]] = {}
        query = "SELECT row, checksum FROM features WHERE backbone = ? AND image = ?"
        with self._connect() as connection:
            for digest in image_digests:
                hit = connection.execute(query, (backbone_digest, digest)).fetchone()
                if hit is None:
                    continue
                row, checksum = hit
                if len(row) % 4 or zlib.crc32(row) != checksum:
                    raise self._corrupt("the checksum of a row is wrong")
                found[digest] = np.frombuffer(row, dtype="<f4").astype(np.float32)
        return found

    def put(self, backbone_digest: bytes, rows: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Store rows, float32 (d,), by image digest, all or none; known ones are replaced.

        Raises:
            DataError: the file is damaged or cannot be written.
        """
        encoded = [(digest, row.astype("<f4").tobytes()) for digest, row in rows.items()]
        with self._connect() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?)",
                [(backbone_digest, digest, row, zlib.crc32(row)) for digest, row in encoded],
            )

    def recall(self, key: bytes) -> Remembered | None:
        """Return what is remembered of a network, by `network_key`; None for an unknown one.

        Raises:
            DataError: the file is damaged or cannot be used.
        """
        query = "SELECT digest, width, checksum FROM networks WHERE key = ?"
        with self._connect() as connection:
            hit = connection.execute(query, (key,)).fetchone()
        if hit is None:
            return None
        digest, width, checksum = hit
        if checksum != _checksum(key, digest, width):
            raise self._corrupt("the checksum of a network's digest is wrong")
        return Remembered(digest, width)

    def remember(self, key: bytes, known: Remembered) -> None:
        """Remember a network's digest and width, whole or not at all.

        Raises:
            DataError: the file is damaged or cannot be written.
        """
        with self._connect() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO networks VALUES (?, ?, ?, ?)",
                (key, known.digest, known.width, _checksum(key, known.digest, known.width)),
            )

    def forget(self, key: bytes) -> None:
        """Forget a network.

        Raises:
            DataError: the file is damaged or cannot be written.
        """
        with self._connect() as connection:
            connection.execute("DELETE FROM networks WHERE key = ?", (key,))

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        """Yield one transaction on a connection of its own."""
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
                yield connection
        except sqlite3.OperationalError as error:
            raise DataError(
                f"the feature cache {self.path} cannot be used ({error}); make room, wait for "
                "other runs to end, or set SECURE_AFL_CACHE to another file"
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._corrupt(str(error)) from error

    def _corrupt(self, reason: str) -> DataError:
        return DataError(
            f"the feature cache {self.path} cannot be read ({reason}); delete it: "
            "its rows are computed again"
        )


def _checksum(key: bytes, digest: object, width: object) -> bytes:
    """Hash a record with its key: one that was moved to another key is damaged, too."""
    return hashlib.sha256(repr((key, digest, width)).encode()).digest()
