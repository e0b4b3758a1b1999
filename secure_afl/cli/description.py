"""Table 1 on a terminal."""

import math

from rich.console import Console
from rich.table import Table

from secure_afl.analytic.describe import Summary
from secure_afl.errors import ConfigError
from secure_afl.federation.result import Result
from secure_afl.runs.description import TABLE, Line, gram_notes, notes, table_lines

_MOST_CLASSES, _MOST_LINES = 4, 60


def show_description(console: Console, result: Result) -> None:
    """Print Table 1 where rows have columns, or say why there is none."""
    try:
        summary = result.summary
    except ConfigError as error:
        console.print(str(error), style="yellow")
        return
    if summary is not None:
        show_summary(console, summary)


def show_summary(console: Console, summary: Summary) -> None:
    """Print Table 1, and what a reader should know of it and of the files beside it."""
    lines = table_lines(summary)
    shown = len(summary.classes) if len(summary.classes) <= _MOST_CLASSES else 0
    table = Table("", "all", *summary.classes[:shown], title="Table 1", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    previous = ""
    for line in lines[:_MOST_LINES]:
        name = f"{line.name}, {line.unit}" if line.unit else line.name
        label = line.figure if line.name == previous or not name else f"{name}: {line.figure}"
        previous = line.name
        table.add_row(label, *_cells(line)[: 1 + shown])
    console.print(table)
    said = notes(summary)
    if len(lines) > _MOST_LINES or not shown:
        said.append(f"All of it is in {TABLE}, in --out.")
    for note in [*said, *gram_notes(summary)]:
        console.print(note, style="dim", soft_wrap=True)


def _cells(line: Line) -> list[str]:
    cells = []
    for place, value in enumerate(line.values):
        if not line.told and place > 0:
            cells.append("")
            continue
        noise = math.nan if line.errors is None else line.errors[place]
        around = "" if math.isnan(noise) else f" ± {noise:.3g}"
        cells.append("–" if math.isnan(value) else f"{_short(value, line.figure)}{around}")
    return cells


def _short(value: float, figure: str) -> str:
    """Write counts whole, per cent to a tenth, and other figures to four digits."""
    if figure == "per cent":
        return f"{value:.1f}"
    return f"{value:,.0f}" if figure in ("count", "rows", "patients") else f"{value:.4g}"
