"""What docs/methods.md says: its snippets run, their sums are exact, and its ways are there."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from attacks.attack import ATTACKS
from protocols import Additive, Pairwise, Protocol
from protocols.registry import options_of
from secure_afl.federation.result import Result
from secure_afl.methods.method import METHODS

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
    "protocol",
    [Additive(), pytest.param(Pairwise(dropout_fraction=0.25), marks=pytest.mark.slow)],
    ids=lambda protocol: protocol.name,
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


SYSTEMS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.partition("## Other systems")[2].splitlines()
    if line.startswith("| ") and not line.startswith("| system ")
]


@pytest.mark.parametrize("cells", SYSTEMS, ids=lambda cells: cells[0].split(" (")[0])
def test_a_system_has_a_verdict_and_a_way_that_is_there(cells: list[str]) -> None:
    _, sends, verdict, here, read = cells
    assert sends
    assert verdict.startswith(("yes", "no", "in part", "a platform", "how ", "which ", "–"))
    assert read in ("code", "abstract", "abstract; LoGo's code", "–")
    anchors = {re.sub(r"\W+", "-", name.lower()): name for name in SNIPPETS}
    assert set(re.findall(r"\(#(.+?)\)", here)) <= set(anchors)
    for quoted in re.findall(r"`(.+?)`", here):
        name, *flags = quoted.split()
        if name.startswith("--"):
            continue
        assert name in METHODS or name in ATTACKS or name in ("Training", "personal"), quoted
        for flag in flags:
            if flag.startswith("--"):
                assert flag[2:].replace("-", "_") in options_of(METHODS[name]), quoted
    if verdict.startswith("no"):
        assert here == "–" or "not built" in here or "variant" in here


def test_each_system_is_there_once() -> None:
    names = [cells[0] for cells in SYSTEMS]
    assert len(names) == len(set(names)) >= 55
