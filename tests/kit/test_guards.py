"""Guards are found, switched off without a trace, and those without a test survive."""

import ast
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kit.mutants import find_guards, has_noticed, without_guard

ROOT = Path(__file__).parents[2]

SOURCE = '''\
def size(text: str, strict: bool) -> int:
    """Guards of every kind."""
    if not text:
        raise ValueError("nothing")
    elif text == "no":
        raise KeyError(
            "no"
        )
    elif (length := len(text)) > 5:
        if strict:
            length += 1
            raise OverflowError("long")
    else:
        raise_it = text == "three"
        if raise_it and strict: raise RuntimeError
    if text.isalpha():
        pass
    else:
        length = -1
        raise TypeError("letters")
    try:
        int(text)
    except ValueError:
        if text == "again":
            raise
        return length
    if strict:
        for _ in text:
            raise LookupError("not the branch's last")
    return 0
'''
# The raise's line, its error, and arguments that meet it.
GUARDS: dict[int, tuple[str, tuple[Any, ...]]] = {
    4: ("ValueError", ("", False)),
    6: ("KeyError", ("no", False)),
    12: ("OverflowError", ("longer", True)),
    15: ("RuntimeError", ("three", True)),
    20: ("TypeError", ("12", False)),
    25: ("", ("again", False)),
}


def test_the_finder_finds_every_branch_that_ends_in_raise() -> None:
    found = find_guards(SOURCE, "some/module.py")
    assert [(guard.line, guard.error) for guard in found] == [
        (line, error) for line, (error, _) in GUARDS.items()
    ]
    assert str(found[0]) == "some/module.py:4"
    assert found[2].condition == "strict"
    assert found[4].condition == "else of text.isalpha()"


def line_that_raises(function: Callable[..., Any], *arguments: Any) -> int | None:
    try:
        function(*arguments)
    except Exception as error:
        return traceback.extract_tb(error.__traceback__)[-1].lineno
    return None


@pytest.mark.parametrize("line", GUARDS)
def test_a_mutant_lacks_one_guard_and_keeps_the_others(line: int) -> None:
    for other, (_, arguments) in GUARDS.items():
        names: dict[str, Any] = {}
        exec(compile(without_guard(SOURCE, line), "mutant", "exec"), names)
        raised = line_that_raises(names["size"], *arguments)
        # A bare `raise` keeps the line of what it raises again.
        met = 22 if other == 25 else other
        assert (raised == met) is (line != other)


@pytest.mark.parametrize("line", GUARDS)
def test_a_mutant_keeps_its_lines(line: int) -> None:
    def lines(tree: ast.Module) -> dict[str, int]:
        return {ast.unparse(n): n.lineno for n in ast.walk(tree) if isinstance(n, ast.Return)}

    assert lines(without_guard(SOURCE, line)) == lines(ast.parse(SOURCE))


class SecureAflError(Exception):
    """Stands for the project's, which is known by its name."""


class Typed(SecureAflError):
    """One of the project's errors."""


@pytest.mark.parametrize(
    ("error", "noticed"),
    [
        (Typed(), True),
        (KeyError(), False),
        (ExceptionGroup("both", [KeyError(), Typed()]), True),
        (ExceptionGroup("both", [KeyError(), TypeError()]), False),
    ],
)
def test_a_test_notices_by_typed_errors(error: Exception, noticed: bool) -> None:
    assert has_noticed(error, ROOT / "protocols") is noticed


def test_a_test_notices_by_its_own_assertions_only() -> None:
    def impossible() -> None:
        raise AssertionError

    with pytest.raises(AssertionError) as caught:
        impossible()
    assert has_noticed(caught.value, ROOT / "protocols")
    assert not has_noticed(caught.value, ROOT / "tests")
    with pytest.raises(pytest.fail.Exception) as failed, pytest.raises(KeyError):
        pass
    assert has_noticed(failed.value, ROOT / "tests")


CODE = """\
def root(value):
    if value is None:
        raise ValueError("none")
    if value < 0:
        raise ValueError("negative")
    if value > 100:
        raise ValueError("large")
    if value == 50:
        raise ValueError("unloved")
    return value**0.5
"""
TESTS = """\
import pytest
from tiny.code import root

@pytest.mark.parametrize("value", [None, -1])
def test_refused(value):
    with pytest.raises(ValueError):
        root(value)

def test_any():
    try:
        root(200)
    except ValueError:
        pass
"""


@pytest.mark.slow
def test_the_script_tells_tested_guards_from_others(tmp_path: Path) -> None:
    """The real one, on a package of one module."""
    for name, text in {"tiny/code.py": CODE, "checks/test_tiny.py": TESTS}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text, "utf-8")
    files = set(tmp_path.rglob("*.py"))
    command = [sys.executable, "-m", "tests.kit.guards", "--package", "tiny", "--tests", "checks"]
    done = subprocess.run(
        [*command, "--jobs", "1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout
    said = [line.split(maxsplit=3) for line in done.stdout.splitlines() if "tiny/code.py" in line]
    assert [(outcome, where) for outcome, where, *_ in said] == [
        ("WEAK", "tiny/code.py:3"),
        ("killed", "tiny/code.py:5"),
        ("SURVIVED", "tiny/code.py:7"),
        ("SURVIVED", "tiny/code.py:9"),
    ]
    assert [why for *_, why in said] == [
        "checks/test_tiny.py::test_refused[None] (TypeError), 1 in all",
        "checks/test_tiny.py::test_refused[-1] (Failed)",
        "1 tests make it raise: checks/test_tiny.py::test_any",
        "no test makes it raise",
    ]
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == files
