"""Wheel and sdist in clean environments: each Python that is found, each extra, lowest versions.

    python -m tools.matrix
    python -m tools.matrix --cells core,lowest --pythons 3.12

Each cell is an environment of its own, in a temporary folder that goes away. It is outside of what
every change runs: extras with PyTorch are gigabytes.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.documents import ROOT
from tools.project import requirements

PYTHONS = ("3.11", "3.12", "3.13")
EXTRAS = {
    "vision": "import timm, torch, torchvision",
    "dicom": "import pydicom",
    "tables": "import formulaic, pandas, pyarrow",
    "tune": "import dp_accounting, matplotlib, opacus",
    "lattice": "import fpylll",
    "flower": "import flwr",
    "docs": "import mkdocs, material, mkdocstrings",
    "bench": "import river",
    "dev": "import hypothesis, mypy, nbclient, opendp, pytest",
}
CELLS = ("core", "sdist", "lowest", *EXTRAS)
# What a user does first, with the installed package alone.
TRIED = (
    "secure-afl --version",
    "secure-afl demo --json demo.json",
    "secure-afl keygen north south west",
    "secure-afl keygen university --role collector",
    "secure-afl keygen clinic --role aggregator",
    "secure-afl roster show keys/roster.json",
    "secure-afl params 16",
    "secure-afl schema",
    "secure-afl attack --list",
)
_EXACT = (
    "import json; runs = json.load(open('demo.json'))['runs']; "
    "assert runs and all(run['exact'] for run in runs)"
)


class Failed(Exception):
    """A command in a cell that ended badly; its output is the message."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Try all chosen cells; returns how many failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.matrix", description=__doc__)
    parser.add_argument("--cells", default=",".join(CELLS), help="of %(default)s")
    parser.add_argument("--pythons", default=",".join(PYTHONS), help="of %(default)s")
    chosen = parser.parse_args(arguments)
    cells, pythons = chosen.cells.split(","), chosen.pythons.split(",")
    if unknown := set(cells) - set(CELLS):
        parser.error(f"no cell {min(unknown)}; there are {', '.join(CELLS)}")
    found = {version: interpreter(version) for version in pythons}
    failed = 0
    with tempfile.TemporaryDirectory(prefix="secure-afl-matrix-") as name:
        folder = Path(name)
        wheel, sdist = build(folder / "dist")
        print(f"built {wheel.name}, {sdist.name}", flush=True)
        for version, python in found.items():
            if python is None:
                print(f"{version:5} left out: no such interpreter here", flush=True)
                continue
            for cell in cells:
                begun = time.monotonic()
                try:
                    tried = "ok" if try_cell(cell, python, wheel, sdist, folder) else "no wheels"
                except Failed as error:
                    failed += 1
                    tried = f"FAILED\n{error}"
                seconds = time.monotonic() - begun
                print(f"{version:5} {cell:8} {seconds:5.0f} s  {tried}", flush=True)
    return failed


def interpreter(version: str) -> Path | None:
    """Find a Python of a version on the path or among pyenv's; None where there is none."""
    for path in _candidates(version):
        code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
        try:
            said = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
        except OSError:
            continue
        if said.stdout.strip() == version:
            return Path(path)
    return None


def _candidates(version: str) -> Iterator[str]:
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        yield sys.executable
    if on_path := shutil.which(f"python{version}"):
        yield on_path
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python")))


def build(folder: Path) -> tuple[Path, Path]:
    """Build the sdist, and the wheel from it: (wheel, sdist)."""
    run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], folder.parent)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def lowest() -> list[str]:
    """List the core's dependencies, each at the lowest version that is declared."""
    pins = []
    for requirement in requirements():
        least = [s.version for s in requirement.specifier if s.operator == ">="]
        pins.append(f"{requirement.name}=={least[0]}" if least else str(requirement))
    return pins


def try_cell(cell: str, python: Path, wheel: Path, sdist: Path, folder: Path) -> bool:
    """Install one cell in a new environment, and use it.

    Returns:
        Whether it was tried: the lowest versions have no wheels for the newest Pythons.

    Raises:
        Failed: something ended badly.
    """
    home = folder / "cell"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    run([str(python), "-m", "venv", str(home / "venv")], home)
    programs = home / "venv" / ("Scripts" if os.name == "nt" else "bin")
    install = [str(programs / "python"), "-m", "pip", "install", "--quiet"]
    install += ["--disable-pip-version-check"]
    if cell == "lowest":
        try:
            run([*install, "--only-binary", ":all:", *lowest()], home)
        except Failed as error:
            if "No matching distribution" in str(error):
                return False
            raise
        run([*install, "--no-deps", str(wheel)], home)
        run([str(programs / "python"), "-m", "pip", "check"], home)
    else:
        package = str(sdist if cell == "sdist" else wheel)
        run([*install, package if cell not in EXTRAS else f"{package}[{cell}]"], home)
    if cell in EXTRAS:
        run([str(programs / "python"), "-c", EXTRAS[cell]], home)
        run([str(programs / "secure-afl"), "doctor"], home)
        return True
    for command in TRIED:
        program, *rest = command.split()
        run([str(programs / program), *rest], home)
    run([str(programs / "python"), "-c", _EXACT], home)
    return True


def run(command: list[str], folder: Path) -> None:
    """Run a command in a folder, without this tree on its path.

    Raises:
        Failed: it ended badly.
    """
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(f"{' '.join(command)}\n{done.stdout}")


if __name__ == "__main__":
    sys.exit(main())
