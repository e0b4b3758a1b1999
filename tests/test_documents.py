"""What the documents say is what the code does."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.tables import DOCUMENTS, render

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_has_the_tables_of_the_results_and_the_registry(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert "<!-- table: " in text
    assert render(text) == text


def test_the_quickstart_runs() -> None:
    command = [sys.executable, str(ROOT / "examples" / "quickstart.py")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "exact: True" in said.stdout
    assert "protects each client's vector" in said.stdout
    assert "warning: 1500 rows in the sum" in said.stdout


def test_the_example_of_joining_and_leaving_runs() -> None:
    command = [sys.executable, str(ROOT / "examples" / "join_and_leave.py")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "refused: 'north'" in said.stdout
    assert "equal to retraining, byte for byte: True" in said.stdout


@pytest.mark.slow
def test_the_adapters_run() -> None:
    command = [sys.executable, str(ROOT / "examples" / "adapters.py")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert said.stdout.count("4,746 parameters travel") == 3
    assert said.stdout.count("exact: True") == 3
