import os
import sqlite3
import stat
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from secure_afl.errors import DataError
from secure_afl.features.cache import FeatureCache, default_path

ROW = np.arange(300, dtype=np.float32)
digests = st.binary(min_size=32, max_size=32)


@settings(max_examples=25, deadline=None)
@given(
    entries=st.dictionaries(
        digests, arrays(np.float32, st.integers(1, 20), elements=st.floats(width=32)), max_size=8
    )
)
def test_what_is_put_is_got_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, entries: dict[bytes, np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("cache") / "features.sqlite"
    FeatureCache(path).put(b"b" * 32, entries)
    found = FeatureCache(path).get(b"b" * 32, [*entries, b"unknown"])
    assert found.keys() == entries.keys()
    for digest, row in entries.items():
        assert found[digest].tobytes() == row.tobytes()
    assert FeatureCache(path).get(b"c" * 32, entries) == {}


def test_rows_are_replaced_and_backbones_kept_apart(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features.sqlite")
    cache.put(b"one", {b"image": ROW})
    cache.put(b"two", {b"image": ROW + 1})
    cache.put(b"one", {b"image": ROW + 2})
    np.testing.assert_array_equal(cache.get(b"one", [b"image"])[b"image"], ROW + 2)
    np.testing.assert_array_equal(cache.get(b"two", [b"image"])[b"image"], ROW + 1)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no POSIX modes")
def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "features.sqlite"
    FeatureCache(path).put(b"backbone", {b"image": ROW})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "features.sqlite"
    path.write_bytes(b"not a database, but longer than SQLite's header of a hundred bytes" * 3)
    with pytest.raises(DataError, match=r"features\.sqlite cannot be read .* delete it"):
        FeatureCache(path)


def test_another_sqlite_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE mine (value)")
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"other\.sqlite cannot be read .* version 0"):
        FeatureCache(path)
    assert path.read_bytes() == before


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "features.sqlite"
    images = [bytes([number]) * 32 for number in range(100)]
    FeatureCache(path).put(b"backbone", dict.fromkeys(images, ROW))
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match=r"features\.sqlite cannot be read .* delete it"):
        FeatureCache(path).get(b"backbone", images)


def test_a_flipped_bit_in_a_row_is_found(tmp_path: Path) -> None:
    path = tmp_path / "features.sqlite"
    FeatureCache(path).put(b"backbone", {b"image": ROW})
    content = bytearray(path.read_bytes())
    content[content.index(ROW.tobytes()) + 400] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="checksum of a row is wrong"):
        FeatureCache(path).get(b"backbone", [b"image"])


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written .* SECURE_AFL_CACHE"):
        FeatureCache(tmp_path / "file" / "features.sqlite")
    with pytest.raises(DataError, match=r"cannot be written .* SECURE_AFL_CACHE"):
        FeatureCache(tmp_path)


def test_the_place_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECURE_AFL_CACHE", str(tmp_path / "mine.sqlite"))
    assert default_path() == tmp_path / "mine.sqlite"
    monkeypatch.delenv("SECURE_AFL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert default_path() == tmp_path / "secure-afl" / "features.sqlite"
