"""The page of what is stable names the versions that the code has."""

import importlib
import re

import pytest

from tools.documents import ROOT

TEXT = (ROOT / "docs" / "stability.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (.+?) \| (\d+) \| `([\w.]+)` \|", TEXT, re.MULTILINE)


@pytest.mark.parametrize(("what", "version", "name"), ROWS, ids=[row[0] for row in ROWS])
def test_a_format_has_the_version_that_the_page_says(what: str, version: str, name: str) -> None:
    module, _, constant = name.rpartition(".")
    assert getattr(importlib.import_module(module), constant) == int(version)


def test_the_page_has_all_formats_that_others_read() -> None:
    assert len(ROWS) == 6
