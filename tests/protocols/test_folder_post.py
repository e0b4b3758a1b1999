"""Mail in folders: once, whole, and from nowhere else."""

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocols import Additive, Ckks, Pairwise, Protocol, Sum
from protocols.carrier import Carrier, Patience
from protocols.codec import decode, encode
from protocols.errors import InvalidSession, NotStored
from protocols.files import write_durably
from protocols.folder_post import FolderPost
from protocols.seats.seat import Seat
from tests.kit.seats import Table


def inbox(post: FolderPost, name: str = "north") -> list[bytes]:
    """What has come for a party since."""
    found = list(post.collect([name]))
    assert {recipient for recipient, _ in found} <= {name}
    return [mail for _, mail in found]


def test_mail_is_collected_once_and_again_when_it_is_sent_again(tmp_path: Path) -> None:
    post, other = FolderPost(tmp_path), FolderPost(tmp_path)
    post.send("north", b"one")
    post.send("north", b"two")
    post.send("south", b"three")
    assert sorted(inbox(other)) == [b"one", b"two"]
    assert inbox(other) == []
    time.sleep(0.01)
    post.send("north", b"one")
    assert inbox(other) == [b"one"]
    assert len(list((tmp_path / "north").iterdir())) == 2
    # Whoever comes anew hears everything.
    assert sorted(inbox(FolderPost(tmp_path))) == [b"one", b"two"]
    assert inbox(post, "west") == []


def test_what_is_not_whole_too_long_or_a_link_is_left_alone(tmp_path: Path) -> None:
    post = FolderPost(tmp_path, most=100)
    post.send("north", b"mail")
    (path,) = (tmp_path / "north").iterdir()
    path.rename(tmp_path / "kept")
    path.write_bytes(b"mai")
    assert inbox(post) == []
    path.unlink()
    path.symlink_to(tmp_path / "kept")
    assert inbox(post) == []
    path.unlink()
    shutil.copy(tmp_path / "kept", path)
    (tmp_path / "north" / "note.txt").write_text("hello")
    post.send("north", bytes(101))
    assert inbox(post) == [b"mail"]


@pytest.mark.parametrize("name", ["", "../north", "a/b", "/etc", "..", "a b"])
def test_names_that_are_no_partys_lead_nowhere(name: str, tmp_path: Path) -> None:
    post = FolderPost(tmp_path)
    for use in (lambda: post.send(name, b""), lambda: list(post.collect([name]))):
        with pytest.raises(InvalidSession, match="party name"):
            use()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_or_full_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotStored, match="is no folder"):
        FolderPost(tmp_path / "none")
    post = FolderPost(tmp_path)

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotStored, match=r"for 'north' .* No space left"):
        post.send("north", b"mail")
    assert list((tmp_path / "north").iterdir()) == []


SITE = """
import sys, time
from pathlib import Path
from protocols.carrier import Carrier, Patience
from protocols.codec import decode, encode
from protocols.folder_post import FolderPost
from tests.protocols.test_folder_post import names_at, seated

name, folder = sys.argv[1], Path(sys.argv[2])
with seated(name, folder) as seat:
    patience = Patience(deadline=20.0, repeat=0.5, most=2.0)
    carrier = Carrier({name: seat}, FolderPost(folder / "post"), time.monotonic, patience)
    carrier.begin(names_at(folder))
    while not (folder / "done").exists():
        carrier.turn()
        for result in carrier.results.values():
            (folder / "sum").write_bytes(encode(result))
            (folder / "done").touch()
        time.sleep(0.02)
"""


def seated(name: str, folder: Path) -> Seat:
    """The joined seat of one party, in this process."""
    table = Table.load((folder / "table").read_bytes())
    seat = table.seats[name].open(table.nonce)
    table.join(seat)
    return seat


def names_at(folder: Path) -> list[str]:
    """Everybody in the session."""
    return list(Table.load((folder / "table").read_bytes()).roles)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [Additive(3), Ckks(), Pairwise(dropout_fraction=0.0)], ids=str)
def test_parties_in_processes_of_their_own_meet_in_a_folder(
    protocol: Protocol, tmp_path: Path
) -> None:
    table = Table(protocol, tmp_path / "seats", clients=3)
    (tmp_path / "post").mkdir()
    (tmp_path / "table").write_bytes(table.save())
    command = [sys.executable, "-c", SITE]
    processes = [subprocess.Popen([*command, name, str(tmp_path)]) for name in [*table.roles][:-1]]
    # One comes late, is killed on its way, and comes again.
    late = [*table.roles][-1]
    first = subprocess.Popen([*command, late, str(tmp_path)])
    time.sleep(1.5)
    first.kill()
    first.wait()
    processes.append(subprocess.Popen([*command, late, str(tmp_path)]))
    for process in processes:
        assert process.wait(timeout=90) == 0
    result = decode((tmp_path / "sum").read_bytes(), Sum)
    assert set(result.included) == set(table.vectors)
    assert np.array_equal(result.total, table.truth)


def test_a_client_that_speaks_once_may_be_carried_by_hand(tmp_path: Path) -> None:
    """What a client of additive puts into an empty folder is its whole contribution."""
    table = Table(Additive(), tmp_path / "seats")
    patience = Patience()
    shared = tmp_path / "post"
    shared.mkdir()
    for name in table.vectors:
        own = tmp_path / f"stick-{name}"
        own.mkdir()
        with table.seats[name].open(table.nonce) as seat:
            table.join(seat)
            Carrier({name: seat}, FolderPost(own), time.monotonic, patience).begin()
        shutil.copytree(own, shared, dirs_exist_ok=True)
    seats = {n: table.seats[n].open(table.nonce) for n in table.protocol.coordinators()}
    for seat in seats.values():
        table.join(seat)
    carrier = Carrier(seats, FolderPost(shared), time.monotonic, patience)
    carrier.begin()
    for _ in range(20):
        carrier.turn()
    (result,) = carrier.results.values()
    assert np.array_equal(result.total, table.truth)
    assert encode(result)
    for seat in seats.values():
        seat.close()


def test_pipes_and_folders_among_the_mail_stop_nobody(tmp_path: Path) -> None:
    post = FolderPost(tmp_path)
    post.send("north", b"mail")
    os.mkfifo(tmp_path / "north" / "0.mail")
    (tmp_path / "north" / "00.mail").mkdir()
    assert inbox(post) == [b"mail"]


def test_mail_that_lies_there_damaged_is_written_again(tmp_path: Path) -> None:
    post = FolderPost(tmp_path)
    post.send("north", b"mail")
    (path,) = (tmp_path / "north").iterdir()
    path.write_bytes(b"ma")
    assert inbox(post) == []
    post.send("north", b"mail")
    assert inbox(post) == [b"mail"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_mail_that_a_broken_sync_left_is_put_there_again(tmp_path: Path) -> None:
    """Of the right name and size, but not the mail: to touch it would lose it for good."""
    post, other = FolderPost(tmp_path), FolderPost(tmp_path)
    post.send("north", b"mail")
    (path,) = (tmp_path / "north").iterdir()
    path.write_bytes(bytes(4))
    assert inbox(other) == []
    time.sleep(0.01)
    post.send("north", b"mail")
    assert inbox(other) == [b"mail"]


# Whoever else may write into the folder


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A file for its owner alone, touched long ago."""
    path = tmp_path / "north.identity"
    path.write_bytes(b"private")
    path.chmod(0o600)
    os.utime(path, (1, 1))
    return path


def is_as_it_was(private: Path) -> bool:
    found = private.stat()
    return (stat.S_IMODE(found.st_mode), found.st_mtime) == (0o600, 1)


def test_a_link_that_takes_the_place_of_new_mail_opens_no_private_file(
    tmp_path: Path, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner of an inbox once had a party make its own key readable for all."""

    def exchanged(path: Path, *rest: Any) -> None:
        write_durably(path, *rest)
        path.unlink()
        path.symlink_to(private)

    monkeypatch.setattr("protocols.folder_post.write_durably", exchanged)
    FolderPost(tmp_path).send("north", b"mail")
    assert is_as_it_was(private)


def test_a_link_that_takes_the_place_of_old_mail_touches_no_other_file(
    tmp_path: Path, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = FolderPost(tmp_path)
    post.send("north", b"mail")
    (path,) = (tmp_path / "north").iterdir()
    touch, touched = os.utime, []

    def exchanged(where: Any) -> None:
        path.unlink()
        path.symlink_to(private)
        touch(where)
        touched.append(where)

    monkeypatch.setattr(os, "utime", exchanged)
    post.send("north", b"mail")
    assert touched
    assert is_as_it_was(private)


def test_mail_takes_the_place_of_whatever_lies_there(tmp_path: Path, private: Path) -> None:
    post = FolderPost(tmp_path)
    post.send("north", b"private")
    (path,) = (tmp_path / "north").iterdir()
    lays: list[Callable[[], None]] = [lambda: path.symlink_to(private), lambda: os.mkfifo(path)]
    for lay in lays:
        path.unlink()
        lay()
        post.send("north", b"private")
        assert stat.S_ISREG(path.lstat().st_mode)
        assert stat.S_IMODE(path.lstat().st_mode) == 0o644
        assert is_as_it_was(private)


def test_an_inbox_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    own, shared = tmp_path / "own", tmp_path / "shared"
    own.mkdir()
    shared.mkdir()
    (shared / "north").symlink_to(own)
    os.mkfifo(shared / "south")
    post = FolderPost(shared)
    for name in ("north", "south"):
        with pytest.raises(NotStored, match=f"for '{name}' .* a link or a file lies"):
            post.send(name, b"mail")
    assert list(own.iterdir()) == []
