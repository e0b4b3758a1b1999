"""What pyproject.toml, the Makefile, CITATION.cff and the hooks say of one thing is the same."""

import re
import subprocess
import sys

from tools.documents import ROOT
from tools.matrix import CELLS, EXTRAS, lowest
from tools.project import EXTRAS_OF_USERS, PROJECT


def test_the_version_stands_in_one_place_and_is_repeated_right() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (\S+)$", citation, re.MULTILINE) == [PROJECT["version"]]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0] == PROJECT["version"]


def test_every_extra_is_in_the_matrix() -> None:
    assert set(EXTRAS) == set(PROJECT["optional-dependencies"]) >= set(EXTRAS_OF_USERS)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"\nCELLS ?= {','.join(CELLS)}\n" in makefile


def test_lowest_versions_are_those_declared() -> None:
    pins = lowest()
    assert len(pins) == len(PROJECT["dependencies"])
    assert "numpy==1.26" in pins
    assert all("==" in pin for pin in pins)


def test_the_matrix_refuses_a_cell_that_is_none() -> None:
    command = [sys.executable, "-m", "tools.matrix", "--cells", "core,all"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no cell all; there are core, sdist, lowest" in done.stderr


def test_hooks_need_no_network() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"repo: (\S+)", text) == ["local"]
    assert re.findall(r"id: (\S+)", text) == ["ruff-format", "ruff", "mypy"]
    assert set(re.findall(r"language: (\S+)", text)) == {"system"}


def test_all_results_are_made_by_make_bench_but_those_that_need_an_earlier_version() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^BENCHMARKS := (.*)$", makefile, re.MULTILINE)
    results = {path.stem for path in (ROOT / "benchmarks" / "results").glob("*.json")}
    assert results - set(listed.split()) == {"speed_wire"}
    for name in listed.split():
        assert (ROOT / "benchmarks" / f"{name}.py").exists()
