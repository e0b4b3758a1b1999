"""What all tables of the documents are made with."""

import json
from typing import Any

from benchmarks.record import RESULTS


def read_results(name: str) -> dict[str, Any]:
    """Read `results/<name>.json`."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """Render a table whose first column is of words, all others of numbers."""
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
