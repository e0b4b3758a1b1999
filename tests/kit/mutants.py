"""Guards, sources without one of them, and a pytest plugin that imports such a source.

A guard is a branch of an `if` that ends in `raise`; its line is that of the `raise`. The plugin
does nothing unless `tests.kit.guards` starts pytest. No file is changed.
"""

import ast
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

# What `tests.kit.guards` sets: a guard as `path:line` or nothing, and where to write the report.
MUTANT, REPORT = "GUARDS_MUTANT", "GUARDS_REPORT"


@dataclass(frozen=True)
class Guard:
    """A branch that ends in `raise`, at this line."""

    path: str
    line: int
    error: str
    condition: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


def find_guards(source: str, path: str) -> list[Guard]:
    """Find all guards of a source, in its order."""
    found = []
    for node, branch, last in _guarding(ast.parse(source)):
        error = last.exc.func if isinstance(last.exc, ast.Call) else last.exc
        otherwise = "else of " if branch is node.orelse else ""
        condition = otherwise + ast.unparse(node.test)
        found.append(Guard(path, last.lineno, ast.unparse(error) if error else "", condition))
    return sorted(found, key=lambda guard: guard.line)


def without_guard(source: str, line: int) -> ast.Module:
    """Parse the source without the guard that raises at this line; all lines stay."""
    tree = ast.parse(source)
    ((node, branch),) = (
        (node, branch) for node, branch, last in _guarding(tree) if last.lineno == line
    )
    if branch is node.orelse:
        node.orelse = []
    else:
        # The condition is still computed: it may bind a name that the code below uses.
        never = ast.BoolOp(ast.And(), [node.test, ast.Constant(False)])
        node.test = ast.fix_missing_locations(ast.copy_location(never, node.test))
    return tree


def _guarding(tree: ast.Module) -> Iterator[tuple[ast.If, list[ast.stmt], ast.Raise]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If):
            for branch in (node.body, node.orelse):
                if branch and isinstance(last := branch[-1], ast.Raise):
                    yield node, branch, last


class Mutant(MetaPathFinder):
    """An importer of one module without one guard."""

    def __init__(self, path: str, line: int) -> None:
        self._path = str(Path(path).resolve())
        self._code = compile(without_guard(Path(path).read_text("utf-8"), line), path, "exec")
        self._name = ".".join(Path(path).with_suffix("").parts).removesuffix(".__init__")
        assert self._name not in sys.modules, f"{self._name} is imported too early"

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        loader = _Loader(self._code, fullname, self._path)
        return spec_from_file_location(fullname, self._path, loader=loader)


class _Loader(SourceFileLoader):
    def __init__(self, code: CodeType, name: str, path: str) -> None:
        super().__init__(name, path)
        self._code = code

    def get_code(self, fullname: str) -> CodeType:
        """Return the mutant; the cache of compiled modules is neither read nor written."""
        return self._code


class Watch:
    """A record of how long tests took and how they failed; the first that notices is the last."""

    def __init__(self, report: Path, package: Path) -> None:
        self._report = report
        self._package = package
        self._seconds: dict[str, float] = defaultdict(float)
        self._failures: list[tuple[str, str, bool]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration

    def pytest_exception_interact(self, node: Any, call: pytest.CallInfo[Any]) -> None:
        assert call.excinfo is not None
        error = call.excinfo.value
        noticed = has_noticed(error, self._package)
        self._failures.append((node.nodeid, type(error).__name__, noticed))
        if noticed:
            node.session.shouldfail = "a test has noticed"

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not hasattr(session.config, "workerinput"):
            said = {"seconds": self._seconds, "failures": self._failures}
            self._report.write_text(json.dumps(said), "utf-8")


def has_noticed(error: BaseException, package: Path) -> bool:
    """Tell whether a test failed by its own assertion, or by an error of the project."""
    if isinstance(error, BaseExceptionGroup):
        return any(has_noticed(inner, package) for inner in error.exceptions)
    if isinstance(error, AssertionError):
        # One in the package itself is a state that the package thinks impossible.
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        return where is None or package not in Path(where.tb_frame.f_code.co_filename).parents
    # By name: the package must not be imported ahead of its mutant.
    typed = any(kind.__name__ == "SecureAflError" for kind in type(error).__mro__)
    return typed or isinstance(error, pytest.fail.Exception)


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Put the mutant in place ahead of all imports."""
    if REPORT in os.environ:
        path, _, line = os.environ[MUTANT].rpartition(":")
        if path:
            sys.meta_path.insert(0, Mutant(path, int(line)))
        package = Path(path.partition("/")[0]).resolve()
        early_config.pluginmanager.register(Watch(Path(os.environ[REPORT]), package))


def pytest_configure() -> None:
    """Let hypothesis try the same examples each time, keep none, and look for no smaller ones."""
    if REPORT in os.environ:
        from hypothesis import HealthCheck, Phase, settings

        settings.register_profile(
            "guards",
            derandomize=True,
            database=None,
            phases=(Phase.explicit, Phase.generate),
            report_multiple_bugs=False,
            # Under coverage everything is slow.
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        settings.load_profile("guards")
