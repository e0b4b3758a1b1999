"""What the documents say is what the code does."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.tables import DOCUMENTS, render
from tools.documents import documents

ROOT = Path(__file__).parents[1]
PAGES = documents()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_has_the_tables_of_the_results_and_the_registry(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert "<!-- table: " in text
    assert render(text) == text


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings: lower case, dashes, no punctuation."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    text = re.sub(r"`[^`\n]+`", "", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert there.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(there), target


def test_the_readmes_python_runs_and_is_exact() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    space: dict[str, Any] = {}
    exec(compile(snippet, "README.md", "exec"), space)
    assert space["result"].report.exact
    assert space["result"].report.clients.included == 3


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
