"""Tutorials and how-tos are followed to their end, and do what they say."""

from pathlib import Path

import pytest

from tests.kit.printed import blocks, follow
from tools.documents import ROOT

# What waits for Flower has a test of its own: tests/secure_afl/flower/test_demo.py.
LATE = {"federation-over-flower.md"}
FOLDERS = ("tutorials", "how-to")
# A page of files, which tests/toys/test_toys.py installs.
OF_FILES = ROOT / "docs" / "how-to" / "package.md"
PAGES = sorted(
    page for folder in FOLDERS for page in (ROOT / "docs" / folder).glob("*.md") if page != OF_FILES
)


def test_a_page_of_files_has_nothing_to_follow() -> None:
    languages = {language for language, _ in blocks(OF_FILES.read_text(encoding="utf-8"))}
    assert not {"sh", "python"} & languages


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page, marks=pytest.mark.nightly if page.name in LATE else pytest.mark.slow, id=page.name
        )
        for page in PAGES
    ],
)
def test_a_page_can_be_followed(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(follow(text, tmp_path)) >= 2
    assert {"sh", "python"} & {language for language, _ in blocks(text)}


def test_what_a_page_prints_is_compared(tmp_path: Path) -> None:
    good = "```sh\necho one two; echo three\n```\n\n```text\none …\nthree\n```\n"
    assert follow(good, tmp_path) == ["one two\nthree\n"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("```sh\necho one\n```\n\n```text\ntwo\n```\n", "not said: two"),
        ("```sh\necho one; echo two\n```\n\n```text\ntwo\none\n```\n", "not said: one"),
        ("```sh\nfalse\n```\n", "false"),
        ("```python\nraise ValueError('no')\n```\n", "ValueError: no"),
    ],
)
def test_a_page_that_is_wrong_is_found(wrong: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=said):
        follow(wrong, tmp_path)


def test_a_page_imports_what_is_installed_and_nothing_else(tmp_path: Path) -> None:
    page = "```sh\nmkdir work && cd work\npython -c 'import {}'\n```\n"
    for name in ("attacks", "protocols", "secure_afl", "tests"):
        (tmp_path / name).mkdir()
    for installed in ("attacks", "protocols", "secure_afl"):
        follow(page.format(installed), tmp_path / installed)
    with pytest.raises(AssertionError, match="No module named 'tests'"):
        follow(page.format("tests"), tmp_path / "tests")
