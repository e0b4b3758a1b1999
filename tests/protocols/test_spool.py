"""Spools: what is put is there after a restart, or was never taken."""

import errno
import os
import stat
from pathlib import Path

import pytest

from protocols.errors import BadSavedState, MessageRejected, NotStored
from protocols.files import PARTIAL_PREFIX, PARTIAL_SUFFIX
from protocols.spool import FileSpool, MemorySpool, Spool


@pytest.fixture(params=["memory", "file"])
def spool(request: pytest.FixtureRequest, tmp_path: Path) -> Spool:
    return MemorySpool() if request.param == "memory" else FileSpool(tmp_path / "spool")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "spool"


def test_what_is_put_can_be_had(spool: Spool) -> None:
    contents = {"a": b"", "b": b"one", "c": bytes(range(256)) * 1000}
    for sender, content in contents.items():
        spool.put(sender, content)
    for sender, content in contents.items():
        assert spool.get(sender) == content
        assert spool.get(sender) == content


def test_the_latest_message_of_a_sender_counts(spool: Spool) -> None:
    spool.put("a", b"a longer first message")
    spool.put("b", b"b")
    spool.put("a", b"second")
    assert (spool.get("a"), spool.get("b")) == (b"second", b"b")


def test_names_that_a_file_system_confuses_are_kept_apart(spool: Spool) -> None:
    names = ["client", "Client", "CLIENT", "client.", "con", "a" * 64, "..", "x.message"]
    for name in names:
        spool.put(name, name.encode())
    assert [spool.get(name) for name in names] == [name.encode() for name in names]


def test_what_was_never_put_is_missing(spool: Spool) -> None:
    spool.put("a", b"1")
    with pytest.raises(BadSavedState, match="'b'"):
        spool.get("b")


def test_a_fresh_process_finds_what_the_last_one_put(folder: Path) -> None:
    FileSpool(folder).put("a", b"1")
    again = FileSpool(folder)
    assert again.get("a") == b"1"
    again.put("a", b"2")
    assert FileSpool(folder).get("a") == b"2"


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_only_the_owner_can_read_it(folder: Path) -> None:
    before = os.umask(0)
    try:
        FileSpool(folder).put("a", b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_message_that_cannot_be_kept_is_not_taken(folder: Path) -> None:
    spool = FileSpool(folder)
    folder.rmdir()
    with pytest.raises(NotStored, match="'a' cannot be written") as caught:
        spool.put("a", b"1")
    assert isinstance(caught.value, MessageRejected)
    folder.mkdir()
    spool.put("a", b"1")
    assert spool.get("a") == b"1"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_keeps_the_earlier_message_and_no_rest(
    folder: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operating system's calls fail; the spool is as it was, byte for byte."""
    spool = FileSpool(folder)
    spool.put("a", b"earlier")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os if call == "fsync" else Path, call, full)
        for sender in ("a", "b"):
            with pytest.raises(NotStored, match="No space left"):
                spool.put(sender, b"later")
    assert spool.get("a") == b"earlier"
    with pytest.raises(BadSavedState):
        spool.get("b")
    assert len(list(folder.iterdir())) == 1


def test_a_file_half_written_before_a_crash_is_never_read(folder: Path) -> None:
    spool = FileSpool(folder)
    spool.put("a", b"whole")
    (file,) = folder.iterdir()
    partial = folder / f"{PARTIAL_PREFIX}x{PARTIAL_SUFFIX}"
    file.rename(partial)
    with pytest.raises(BadSavedState):
        FileSpool(folder).get("a")
    spool.put("a", b"again")
    assert spool.get("a") == b"again"


def test_what_a_crash_left_half_written_goes_when_the_spool_is_opened(folder: Path) -> None:
    FileSpool(folder).put("a", b"1")
    partial = folder / f"{PARTIAL_PREFIX}x{PARTIAL_SUFFIX}"
    partial.write_bytes(b"half")
    FileSpool(folder)
    assert partial.exists()  # it may be another process's
    os.utime(partial, (0, 0))
    assert FileSpool(folder).get("a") == b"1"
    assert not partial.exists()
