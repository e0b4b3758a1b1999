"""Files that outlast crashes, and of which two writers at a time do no harm."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from protocols.files import (
    PARTIAL_PREFIX,
    PARTIAL_SUFFIX,
    claim,
    create_durably,
    flush_folder,
    locked,
    make_folder,
    open_regular,
    remove_partials,
    write_durably,
)

ROOT = Path(__file__).parents[2]
Write = Callable[[Path, bytes], None]
BOTH = pytest.mark.parametrize("write", [write_durably, create_durably])


def start(code: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def ended(*racers: "subprocess.Popen[str]") -> list[list[str]]:
    said = [racer.communicate(timeout=60)[0].split() for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * len(racers)
    return said


@BOTH
def test_what_is_written_is_there_and_nothing_else(tmp_path: Path, write: Write) -> None:
    for name, content in {"a": b"", "b" * 200: bytes(range(256)) * 5000}.items():
        write(tmp_path / name, content)
        assert (tmp_path / name).read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 2


@BOTH
@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_only_the_owner_can_read_it(tmp_path: Path, write: Write) -> None:
    before = os.umask(0)
    try:
        write(tmp_path / "a", b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_a_file_that_is_written_replaces_the_old_one(tmp_path: Path) -> None:
    write_durably(tmp_path / "a", b"a longer first content")
    write_durably(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"second"


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_a_file_is_never_created_over_another(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    if kind == "file":
        path.write_bytes(b"first")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError) as caught:
        create_durably(path, b"second")
    assert caught.value.filename == str(path)
    assert caught.value.filename2 is None
    assert list(tmp_path.iterdir()) == [path]
    assert kind != "file" or path.read_bytes() == b"first"


@pytest.mark.parametrize(
    ("write", "owner", "call"),
    [
        (write_durably, os, "fsync"),
        (write_durably, Path, "replace"),
        (create_durably, os, "fsync"),
        (create_durably, os, "link"),
    ],
)
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_errors_leave_nothing_behind(
    tmp_path: Path,
    write: Write,
    owner: object,
    call: str,
    error: BaseException,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise error

    (tmp_path / "a").write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, fail)
        for name in ("a", "b"):
            with pytest.raises(type(error)):
                write(tmp_path / name, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


@BOTH
@pytest.mark.skipif(os.name != "posix", reason="folders of POSIX")
def test_the_folder_is_flushed_after_the_name_is_there(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = []

    def watch(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        flushed.append((kind, (tmp_path / "a").exists()))

    monkeypatch.setattr(os, "fsync", watch)
    write(tmp_path / "a", b"1")
    assert flushed == [("file", False), ("folder", True)]


@BOTH
def test_a_missing_folder_is_an_os_error(tmp_path: Path, write: Write) -> None:
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "nowhere" / "a", b"1")


DIES = """
import os, sys
from pathlib import Path
from protocols import files
def die(*_):
    os._exit(0)
setattr(*((Path, "replace", die) if sys.argv[1] == "write_durably" else (os, "link", die)))
getattr(files, sys.argv[1])(Path(sys.argv[2]), b"new")
"""


@pytest.mark.parametrize("function", ["write_durably", "create_durably"])
def test_what_a_crash_leaves_is_known_by_its_name_and_removed_when_old(
    tmp_path: Path, function: str
) -> None:
    ended(start(DIES, function, tmp_path / "a"))
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(PARTIAL_PREFIX)
    assert left.name.endswith(PARTIAL_SUFFIX)
    for other in ("a", f"{PARTIAL_PREFIX}a", f"a{PARTIAL_SUFFIX}"):
        (tmp_path / other).write_bytes(b"kept")
        os.utime(tmp_path / other, (0, 0))
    assert remove_partials(tmp_path) == 0
    assert left.exists()
    assert remove_partials(tmp_path, older_than=-1) == 1
    assert len(list(tmp_path.iterdir())) == 3
    assert not left.exists()


WRITER = """
import sys
from pathlib import Path
from protocols.files import write_durably
path, mine = Path(sys.argv[1]), sys.argv[2].encode() * 50_000
for _ in range(100):
    write_durably(path, mine)
    found = path.read_bytes()
    assert len(found) == 50_000 and len(set(found)) == 1
"""


def test_two_processes_write_one_file_and_both_succeed(tmp_path: Path) -> None:
    ended(*(start(WRITER, tmp_path / "a", name) for name in "xy"))
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() in (b"x" * 50_000, b"y" * 50_000)


CREATOR = """
import sys, time
from pathlib import Path
from protocols.files import create_durably
folder, me = Path(sys.argv[1]), sys.argv[2]
(folder.parent / f"ready-{me}").touch()
while len(list(folder.parent.glob("ready-*"))) < 3:
    time.sleep(0.001)
for number in range(100):
    try:
        create_durably(folder / str(number), me.encode())
        print(number)
    except FileExistsError:
        pass
"""


def test_of_processes_that_create_one_file_exactly_one_succeeds(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    won = ended(*(start(CREATOR, folder, name) for name in "abc"))
    for number in range(100):
        winners = [name for name, wins in zip("abc", won, strict=True) if str(number) in wins]
        assert [(folder / str(number)).read_text(encoding="utf-8")] == winners
    assert len(list(folder.iterdir())) == 100


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_a_lock_holds_among_threads_and_processes(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("0", encoding="utf-8")

    def count(_: int) -> None:
        with locked(path):
            write_durably(path, str(int(path.read_bytes()) + 1).encode())

    code = (
        "import sys; from pathlib import Path\n"
        "from protocols.files import locked, write_durably\n"
        "path = Path(sys.argv[1])\n"
        "for _ in range(100):\n"
        "    with locked(path):\n"
        "        write_durably(path, str(int(path.read_bytes()) + 1).encode())\n"
    )
    racers = [start(code, path) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(100)))
    ended(*racers)
    assert path.read_bytes() == b"300"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["count", "count.lock"]
    with pytest.raises(FileNotFoundError), locked(tmp_path / "nowhere" / "a"):
        pass


# Where others may write


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_mode_is_the_files_own_before_it_has_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    replace = Path.replace

    def replaced(partial: Path, path: Path) -> Path:
        modes.append(stat.S_IMODE(partial.stat().st_mode))
        return replace(partial, path)

    monkeypatch.setattr(Path, "replace", replaced)
    before = os.umask(0o077)
    try:
        write_durably(tmp_path / "a", b"1", 0o644)
    finally:
        os.umask(before)
    assert modes == [0o644]


@pytest.mark.parametrize("exchanged", [False, True], ids=["before", "after it was looked at"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_of_its_own_is_not_read(
    kind: str, exchanged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it waited for, as for whoever writes into a pipe."""
    path, other = tmp_path / "a", tmp_path / "private"
    other.write_bytes(b"private")
    lay = {"link": lambda: path.symlink_to(other), "pipe": lambda: os.mkfifo(path)}
    look = Path.lstat

    def looked(place: Path) -> os.stat_result:
        found = look(place)
        place.unlink()
        lay.get(kind, place.mkdir)()
        return found

    if exchanged:
        path.write_bytes(b"1")
        monkeypatch.setattr(Path, "lstat", looked)
    else:
        lay.get(kind, path.mkdir)()
    with pytest.raises(OSError, match=r"not a regular file|symbolic links"):
        open_regular(path)


def test_a_pipe_in_a_folders_place_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "folder"
    os.mkfifo(pipe)
    for use in (flush_folder, claim, make_folder):
        with pytest.raises(NotADirectoryError):
            use(pipe)


def test_a_lock_is_no_link_to_another_file(tmp_path: Path) -> None:
    (tmp_path / "a.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"), locked(tmp_path / "a"):
        pass
    assert not (tmp_path / "elsewhere").exists()
