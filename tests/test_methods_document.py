"""Every snippet of docs/methods.md runs, and its sums are exact whatever carries them."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from protocols import Additive, Pairwise, Protocol
from secure_afl.federation.result import Result

TEXT = (Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")
# By their headings.
SNIPPETS = dict(
    re.findall(r"^### (.+?)\n[^#]*?^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
)
PROTOCOL = re.compile(r"^protocol = (\w+\(\))$", re.MULTILINE)


def run(snippet: str, protocol: Protocol | None = None) -> dict[str, Any]:
    """Run a snippet, over another protocol than its own if one is given."""
    if protocol is not None:
        snippet = PROTOCOL.sub("protocol = given", snippet)
    space: dict[str, Any] = {"given": protocol}
    exec(compile(snippet, "docs/methods.md", "exec"), space)
    return space


def test_the_document_has_a_snippet_for_each_family() -> None:
    assert TEXT.count("```python") == len(SNIPPETS) >= 8
    assert TEXT.count("### ") == len(SNIPPETS)


@pytest.mark.parametrize(
    "protocol", [Additive(), Pairwise(dropout_fraction=0.25)], ids=lambda protocol: protocol.name
)
@pytest.mark.parametrize("family", SNIPPETS)
def test_a_family_sums_exactly_over(family: str, protocol: Protocol) -> None:
    snippet = SNIPPETS[family]
    assert len(PROTOCOL.findall(snippet)) == 1
    assert snippet.rstrip().endswith("assert result.report.exact")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = run(snippet, protocol)["result"]
    finally:
        torch.set_num_threads(threads)
    assert isinstance(result, Result)
    assert result.report.protocol == protocol.name
    assert all(one.exact and one.released.total.dtype.kind == "i" for one in result.rounds)


def test_an_adapters_sum_is_exact_over_its_own_protocol() -> None:
    result = run(SNIPPETS["An adapter of an embedding model"])["result"]
    assert result.report.protocol == "ckks"
