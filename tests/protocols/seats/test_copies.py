"""A copy of a seat is none, however it was made and wherever it is put."""

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from protocols import Additive, Plain
from protocols.errors import BadSavedState, MovedSeat, SeatEnded
from protocols.seats import birthplace
from protocols.seats.birthplace import Birthplace
from protocols.seats.seat import Seat
from tests.kit.seats import Table

Put = Callable[[Path, Path], None]


def anew(backup: Path, folder: Path) -> None:
    """The folder was lost. On ext4 the new one has the numbers that the old one has set free."""
    shutil.rmtree(folder)
    shutil.copytree(backup, folder)


def over(backup: Path, folder: Path) -> None:
    """Into the folder that is there, and into its files."""
    (folder / "journal").unlink()
    shutil.copytree(backup, folder, dirs_exist_ok=True)


def as_a_mirror(backup: Path, folder: Path) -> None:
    """Into the folder that is there, with new files where these have changed."""
    (folder / "journal").unlink()
    (folder / "enrolment").unlink()
    shutil.copy(backup / "enrolment", folder)


@pytest.mark.parametrize("put_back", [anew, over, as_a_mirror])
@pytest.mark.parametrize("name", ["aggregator_1", "client3"])
def test_a_backup_from_before_the_session_begins_no_second_time(
    name: str, put_back: Put, tmp_path: Path
) -> None:
    """It has no journal: the party once signed a second set, or masked a second vector alike."""
    table = Table(Additive(), tmp_path / "seats")
    folder, backup = seat_of(table, name), tmp_path / "backup"
    shutil.copytree(folder, backup)
    table.act(name)
    put_back(backup, folder)
    with pytest.raises(BadSavedState, match=f"{name}: this seat has ended: .* was copied"):
        Seat.open(folder)
    with pytest.raises(SeatEnded, match="was copied"):
        table.seats[name].hello(table.roles[name], table.nonce)


@pytest.mark.parametrize("copy_function", [os.link, shutil.copy2])
@pytest.mark.parametrize("joined", [False, True])
def test_a_copy_is_refused_and_its_original_goes_on(
    joined: bool, copy_function: Callable[[str, str], object], tmp_path: Path
) -> None:
    """Hard links share their files with the original, and two processes once had one seat."""
    table = Table(Additive(), tmp_path / "seats")
    folder, copy = seat_of(table, "aggregator_1"), tmp_path / "copy"
    first = table.act("aggregator_1") if joined else []
    shutil.copytree(folder, copy, copy_function=copy_function)
    with Seat.open(folder) as seat:
        table.join(seat)
        with pytest.raises(BadSavedState, match="copy was copied"):
            Seat.open(copy)
        assert sorted(path.name for path in copy.iterdir()) == ["ended"]
    again = table.act("aggregator_1")
    assert not joined or again == first


def test_a_seat_that_was_moved_or_given_another_mode_goes_on(tmp_path: Path) -> None:
    table = Table(Plain(), tmp_path)
    first = table.act("client0")
    folder = seat_of(table, "client0")
    moved = folder.rename(tmp_path / "elsewhere")
    for path in (moved, *moved.iterdir()):
        path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o070)
        os.utime(path, (1, 1))
    with Seat.open(moved) as seat:
        table.join(seat)
    moved.rename(folder)
    assert table.act("client0") == first


def test_a_file_system_with_another_number_ends_no_seat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XFS and FAT are numbered by their devices, which a reboot may shuffle."""
    table = Table(Plain(), tmp_path)
    first = table.act("client0")
    with table.seats["client0"].open(table.nonce) as seat, monkeypatch.context() as patch:
        patch.setattr(birthplace, "_filesystem", lambda where: 7)
        with pytest.raises(MovedSeat, match=r"client0: .*journal has another number"):
            table.join(seat)
        seat.close()
        with pytest.raises(MovedSeat, match=r"client0: .*another number.* has not ended"):
            table.seats["client0"].open(table.nonce)
    assert table.act("client0") == first


@pytest.mark.parametrize("field", ["inode", "born"])
def test_another_file_at_its_place_is_known(field: str, tmp_path: Path) -> None:
    """A number that was set free is given away again; the time of birth is not."""
    here = Birthplace.of(tmp_path)
    here.check(tmp_path)
    other = structs.replace(here, **{field: getattr(here, field) + 1})
    with pytest.raises(BadSavedState, match="was copied"):
        other.check(tmp_path)
    with pytest.raises(BadSavedState, match="was copied"):
        structs.replace(other, filesystem=here.filesystem + 1).check(tmp_path)


def test_an_open_file_and_its_path_are_one_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        assert Birthplace.of(file.fileno()) == Birthplace.of(path)
        monkeypatch.setattr(birthplace, "_statx", lambda: None)
        untold = Birthplace.of(file.fileno())
    assert untold == Birthplace.of(path)
    assert untold.born == 0


def seat_of(table: Table, name: str) -> Path:
    return table.folder / name / table.nonce.hex()
