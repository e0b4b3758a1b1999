"""Journals of finished work: what a long command has done is not done again.

A journal is a file of JSON lines. Each line has a key, which tells what the work depends on, and
the result. A line is on disk before the next piece of work begins.
"""

import ast
import hashlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from secure_afl.errors import ConfigError

Result = TypeVar("Result")

# Whose modules are the code that a result depends on; other packages are taken as they are.
_OWN = ("protocols", "secure_afl", "attacks")


class _Line(msgspec.Struct, frozen=True):
    key: str
    result: msgspec.Raw


class Journal(Generic[Result]):
    """Results by key in a file that grows; another process may read it meanwhile.

    A last line that a crash has torn is cut off, and its work is done anew. Results that no longer
    have the wanted form stay in the file and are passed over.

    Args:
        path: of the file; it is made with the first result.
        kind: type of the results.

    Raises:
        ConfigError: a file that is no journal.
    """

    def __init__(self, path: Path, kind: type[Result]) -> None:
        self.path = path
        self._results: dict[str, Result] = {}
        whole = 0
        content = path.read_bytes() if path.exists() else b""
        for number, line in enumerate(content.splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            try:
                entry = msgspec.json.decode(line, type=_Line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ConfigError(
                    f"{path}, line {number}, is no finished work ({error}); move the file away, or "
                    "name another --out"
                ) from None
            try:
                self._results[entry.key] = msgspec.json.decode(entry.result, type=kind)
            except (msgspec.DecodeError, ValueError):
                continue  # of another version
        if whole < len(content):
            os.truncate(path, whole)

    def find(self, key: str) -> Result | None:
        """Look up the result of finished work; None if it is still to be done."""
        return self._results.get(key)

    def add(self, key: str, result: Result) -> None:
        """Keep a result; it is on disk when this returns."""
        line = msgspec.json.encode(_Line(key, msgspec.Raw(msgspec.json.encode(result))))
        with self.path.open("ab") as file:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._results[key] = result

    def __len__(self) -> int:
        """Return the number of results."""
        return len(self._results)


def key_of(*depends: Any, code: Sequence[str] = ()) -> str:
    """Make the key of a piece of work from all that it depends on.

    The key is SHA-256, hex.

    Args:
        depends: values that JSON holds, in any nesting.
        code: names of the modules that do the work: an edit in one, or in what it imports of its
            own project, makes another key.
    """
    sources = [code_digest(module).hex() for module in code]
    return hashlib.sha256(msgspec.json.encode((*depends, sources))).hexdigest()


@cache
def code_digest(module: str) -> bytes:
    """Hash the source of a module and of its imports, 32 bytes.

    The imports are those of the module's own project.
    """
    hashed = hashlib.sha256()
    for name in sorted(_reached(module)):
        source, _ = _read(name)
        hashed.update(f"{name}\0{len(source)}\0".encode() + source)
    return hashed.digest()


def _reached(module: str) -> set[str]:
    """Return the modules that one imports, directly or not, of its own project."""
    own = {*_OWN, module.split(".")[0]}
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        source, imports = _read(name)
        if source and name not in found:
            found.add(name)
            waiting += [other for other in imports if other.split(".")[0] in own]
    return found


@cache
def _read(module: str) -> tuple[bytes, tuple[str, ...]]:
    """Read a module's source, and what may be names of modules that it imports.

    Both are empty for no module.
    """
    try:
        spec = importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):
        return b"", ()  # the name of something in a module
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return b"", ()
    source = Path(spec.origin).read_bytes()
    return source, tuple(_imports(ast.parse(source)))


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
