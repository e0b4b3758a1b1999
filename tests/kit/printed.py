"""Documents that are followed as they are printed: commands, files and what the commands say."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tools.documents import ROOT

_FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_GAP = re.compile(r"[\s│┃]+")
_NAME = re.compile(r"# (\S+\.(?:py|toml))\n")


def blocks(text: str) -> list[tuple[str, str]]:
    """List a document's fenced blocks, each with its language."""
    return _FENCE.findall(text)


def follow(text: str, folder: Path) -> list[str]:
    """Do in a folder what a document prints, from its first block to its last.

    A block of `sh` is run by bash, where the one before it ended. One of `python` or `toml` that
    begins with a comment of a file's name is written to that file; other Python is run. A block of
    `text` is what the block before it prints, line by line, where `…` stands for anything. Blocks
    of other languages are not run.

    Args:
        text: the document, in Markdown.
        folder: where commands run; `examples` and `tests` of the repository are there.

    Returns:
        What each run block said.

    Raises:
        AssertionError: a command failed, or did not print what the document says.
    """
    said: list[str] = []
    environment = _environment(folder)
    end, place = folder / ".end", folder
    for language, block in blocks(text):
        if language == "text":
            _compare(block, said[-1])
            continue
        named = _NAME.match(block)
        if language in ("python", "toml") and named:
            (place / named[1]).write_text(block, encoding="utf-8")
        elif language in ("sh", "python"):
            shell = ["bash", "-euo", "pipefail", "-c", f"{block}\npwd > {end}"]
            done = subprocess.run(
                shell if language == "sh" else [sys.executable, "-c", block],
                cwd=place,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{block}\n{done.stdout}"
            said.append(done.stdout)
            place = Path(end.read_text().strip()) if language == "sh" else place
    return said


def _environment(folder: Path) -> dict[str, str]:
    """Variables under which `secure-afl` and `python` are this tree's, as in its environment.

    Importable are the packages that an installation has, and no others: `tests` is none of them.
    """
    for name in ("examples", "tests"):
        (folder / name).symlink_to(ROOT / name)
    packages = folder / ".packages"
    packages.mkdir()
    for name in ("attacks", "protocols", "secure_afl"):
        (packages / name).symlink_to(ROOT / name)
    programs = folder / ".programs"
    programs.mkdir()
    python = sys.executable
    code = "import sys; sys.argv[0] = 'secure-afl'; from secure_afl.cli.main import main; main()"
    for name, command in (("python", ""), ("secure-afl", f' -c "{code}"')):
        (programs / name).write_text(f'#!/bin/sh\nexec {python}{command} "$@"\n')
        (programs / name).chmod(0o755)
    # Whoever follows a page has no data sets beside the embedded ones.
    own = {name: value for name, value in os.environ.items() if name != "SECURE_AFL_DATA"}
    return {
        **own,
        "PATH": f"{programs}:{Path(python).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(packages),
        "COLUMNS": "100",
        "XDG_CACHE_HOME": str(folder / ".cache"),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _compare(printed: str, said: str) -> None:
    """Assert that a command said each printed line, in this order, whatever frames and spaces."""
    at = 0
    flat = " ".join(_GAP.split(said))
    for line in printed.splitlines():
        if not line.strip(" …"):
            continue
        parts = (re.escape(part) for part in " ".join(line.split()).split("…"))
        found = re.compile(".*?".join(parts)).search(flat, at)
        assert found, f"not said: {line}\n{said}"
        at = found.end()
