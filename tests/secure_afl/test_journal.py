"""Finished work outlasts a crash, is found by its key, and knows the code that made it."""

import sys
from pathlib import Path

import msgspec
import pytest

from secure_afl.errors import ConfigError
from secure_afl.journal import Journal, code_digest, key_of


class Work(msgspec.Struct, frozen=True):
    amount: int


def test_what_was_added_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    journal = Journal(path, Work)
    assert not path.exists()
    journal.add("a", Work(1))
    journal.add("b", Work(2))
    journal.add("a", Work(3))
    for again in (journal, Journal(path, Work)):
        assert (again.find("a"), again.find("b"), again.find("c")) == (Work(3), Work(2), None)
        assert len(again) == 2


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_a_torn_last_line_is_cut_off_and_its_work_done_anew(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "work.jsonl"
    journal = Journal(path, Work)
    journal.add("a", Work(1))
    whole = path.read_bytes()
    journal.add("b", Work(2))
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(path, Work)
    assert (again.find("a"), again.find("b")) == (Work(1), None)
    assert path.read_bytes() == whole
    again.add("b", Work(5))
    assert Journal(path, Work).find("b") == Work(5)


@pytest.mark.parametrize("line", [b"{}\n", b"[1]\n", b"\xff\xfe\n", b"half a line\n", b"\n"])
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(line)
    with pytest.raises(ConfigError, match=r"notes\.txt, line 1, is no finished work"):
        Journal(path, Work)
    assert path.read_bytes() == line


def test_results_of_another_version_stay_and_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    path.write_bytes(b'{"key": "old", "result": {"size": "large"}}\n')
    journal = Journal(path, Work)
    assert journal.find("old") is None
    journal.add("new", Work(1))
    assert path.read_bytes().startswith(b'{"key": "old"')


def test_keys_depend_on_everything_that_is_named() -> None:
    keys = {key_of("a", 1), key_of("a", 2), key_of("a1"), key_of(["a", 1]), key_of("a", 1, None)}
    assert len(keys) == 5
    assert key_of("a", {"b": 1}) == key_of("a", {"b": 1})


def test_an_edit_in_the_code_or_in_what_it_imports_makes_another_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "guest_journal"
    package.mkdir()
    files = {
        "__init__": "",
        "used": "ONE = 1\n",
        "unused": "TWO = 2\n",
        "work": "from guest_journal.used import ONE\nimport json\n",
    }
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)

    def digest() -> bytes:
        # As in the next process: sources are read once in each.
        code_digest.cache_clear()
        sys.modules["secure_afl.journal"].__dict__["_read"].cache_clear()
        return code_digest("guest_journal.work")

    first = digest()
    (package / "unused.py").write_text("TWO = 3\n")
    assert digest() == first
    (package / "used.py").write_text("ONE = 11\n")
    second = digest()
    assert second != first
    (package / "work.py").write_text(files["work"] + "# another\n")
    assert digest() not in (first, second)
