"""Python in the documents runs as it is printed, each document from top to bottom like a notebook.

docs/methods.md has tests of its own.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_afl.federation.result import Result
from tests.kit.samples import make_client, make_clients

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
SNIPPETS = {
    path.relative_to(ROOT).as_posix(): found
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if path.name != "methods.md" and (found := FENCE.findall(path.read_text(encoding="utf-8")))
}


def data() -> dict[str, Any]:
    """Return what documents take as given: clients of three classes, and rows to predict."""
    clients = make_clients([60, 50, 40])
    return {
        "clients": clients,
        "hospitals": [(client.name, client.features, client.labels) for client in clients],
        "features": make_client("new", 5).features,
    }


@pytest.mark.parametrize("document", SNIPPETS)
def test_a_documents_python_runs_as_printed(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space = data()
    for snippet in SNIPPETS[document]:
        exec(compile(snippet, document, "exec"), space)
    result = space.get("result")
    assert result is None or (isinstance(result, Result) and result.report.exact)
    if document == "docs/privacy.md":
        assert result is not None
        assert result.report.privacy is not None
        assert (tmp_path / "ledger.json").exists()


def test_documents_with_python_are_these() -> None:
    assert set(SNIPPETS) >= {"README.md", "docs/privacy.md", "docs/deployment.md"}
    # A fence that is indented or named otherwise would not be found.
    for name in SNIPPETS:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert len(SNIPPETS[name]) == len(re.findall(r"```\s*(?:python|py)\b", text))


def test_the_given_rows_are_of_all_classes() -> None:
    given = data()
    labels = np.concatenate([client.labels for client in given["clients"]])
    assert set(labels.tolist()) == {0, 1, 2}
