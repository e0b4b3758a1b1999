"""Notebooks run from top to bottom, and are kept without what they said."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tools.documents import ROOT


def read(path: Path) -> nbformat.NotebookNode:
    notebook: nbformat.NotebookNode = nbformat.read(path, 4)  # type: ignore[no-untyped-call]
    return notebook


NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = read(path)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": path.parent}}).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_has_no_outputs(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


@pytest.mark.slow
def test_the_documents_command_keeps_what_a_notebook_said(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"`([^`]*jupyter execute [^`]*)`", text)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    search = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PATH": programs, "PYTHONPATH": search}
    subprocess.run(["bash", "-ec", command], cwd=tmp_path, env=env, check=True, capture_output=True)
    seen = read(tmp_path / "out" / "seen.ipynb")
    assert [cell.outputs for cell in seen.cells if cell.cell_type == "code" and cell.outputs]


def test_there_are_three() -> None:
    assert len(NOTEBOOKS) >= 3
