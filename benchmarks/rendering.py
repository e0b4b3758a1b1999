"""What all tables of the documents are made with."""

import json
from typing import Any

from benchmarks.record import RESULTS


def read_results(name: str) -> dict[str, Any]:
    """Read `results/<name>.json`."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def sources_table() -> str:
    """Each file of results, with the command and the machine that made it."""
    lines = ["| file | command | cores | processor |\n", "| --- | --- | --: | --- |\n"]
    for path in sorted(RESULTS.glob("*.json")):
        found = read_results(path.stem)
        machine = found["machine"]
        lines.append(
            f"| [{path.stem}](../benchmarks/results/{path.name}) | `{found['command']}` "
            f"| {machine['cores']} | {machine['processor']} |\n"
        )
    return "".join(lines)


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """Render a table whose first column is of words, all others of numbers."""
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
