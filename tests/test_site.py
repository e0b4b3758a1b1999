"""The documents as a site: whole, and without anything from other hosts."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import secure_afl
from tests.test_documents import ROOT, anchors
from tools.documents import documents
from tools.site import slug


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(out),
    ]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return out


@pytest.mark.slow
def test_every_document_is_a_page(site: Path) -> None:
    for path in documents():
        page = path.relative_to(ROOT).with_suffix(".html").as_posix()
        assert (site / page.replace("README", "index")).is_file()


@pytest.mark.slow
def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(documents())
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loads = re.findall(r"<(?:script|img|iframe|source)\b[^>]*?\bsrc=\"?([^\s\">]+)", text)
        loads += re.findall(r"<link\b[^>]*?\bhref=\"?([^\s\">]+)", text)
        assert loads
        assert not [load for load in loads if load.startswith(("http:", "https:", "//"))], page
        if page.name == "404.html":  # its paths are from the host's root
            continue
        # What is not there is no broken link to mkdocs: the page merely looks like nothing.
        files = [page.parent / load.split("?")[0] for load in loads if not load.startswith("data:")]
        assert not [file for file in files if not file.exists()], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\"?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


@pytest.mark.slow
def test_the_reference_has_every_export_and_command(site: Path) -> None:
    names = (site / "docs" / "reference" / "secure_afl.html").read_text(encoding="utf-8")
    for name in secure_afl.__all__:
        assert re.search(rf'id="[\w.]+\.{name}"', names), name
    commands = (site / "docs" / "commands.html").read_text(encoding="utf-8")
    for command in ("run", "ledger-raise-budget", "deploy-demo", "attack"):
        assert f'id="secure-afl-{command}"' in commands


def test_anchors_are_githubs(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("## What `ckks` – and “bfv” – gives: a_b\n", encoding="utf-8")
    assert anchors(page) == {slug("What ckks – and “bfv” – gives: a_b", "-")}
    assert slug("Ups & downs", "-") == "ups--downs"
