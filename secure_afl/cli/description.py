"""Table 1 and plans of runs over tables, on a terminal."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from secure_afl.analytic.describe import Summary
from secure_afl.data.tables.references import Reference
from secure_afl.errors import ConfigError
from secure_afl.federation.result import Result
from secure_afl.runs.description import (
    STAND_INS,
    TABLE,
    Line,
    gram_notes,
    notes,
    table_lines,
)
from secure_afl.runs.planner import Plan

_MOST_CLASSES, _MOST_LINES = 4, 60


def show_description(console: Console, result: Result) -> None:
    """Print Table 1 where rows have columns, or say why there is none."""
    try:
        summary = result.summary
    except ConfigError as error:
        console.print(str(error), style="yellow")
        return
    if summary is not None:
        show_summary(console, summary, result.references)


def show_summary(console: Console, summary: Summary, references: Sequence[Reference] = ()) -> None:
    """Print Table 1, and what a reader should know of it and of the files beside it.

    Args:
        references: categories without a column, as `table_lines` takes them.
    """
    lines = table_lines(summary, references)
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


def show_plan(console: Console, plan: Plan) -> None:
    """Print what a run over tables would be, by its declarations."""
    table = Table("plan", f"{plan.method} / {plan.protocol}", box=None)
    for name, value in _plan_lines(plan).items():
        table.add_row(name, value)
    console.print(table)
    sights = Table("who", "opens", "by the protocol", title="Who could see what", box=None)
    for sight in plan.sights:
        sights.add_row(sight.who, sight.opens, sight.meaning)
    console.print(sights)
    for warning in plan.warnings:
        console.print(f"Warning: {warning}", style="yellow", soft_wrap=True)
    console.print(f"A coefficient is in {plan.unit}.", style="dim", soft_wrap=True)
    console.print(f"Assumed: {plan.assumed}.", style="dim", soft_wrap=True)


def _plan_lines(plan: Plan) -> dict[str, str]:
    upload = "not tried" if plan.upload_bytes is None else f"{plan.upload_bytes:,} bytes"
    error = "–" if plan.sampling_error is None else f"{plan.sampling_error:.3g}"
    noise = "none" if plan.rows_for_noise is None else f"{plan.noise:.3g}"
    lines = {
        "sites × rows": f"{plan.sites} × {plan.rows // plan.sites} = {plan.rows:,}",
        **_width(plan),
        **({"sums, at most": f"{plan.sums}"} if plan.sums > 1 else {}),
        "bound on a site's rows": f"{plan.bound:,}",
        "the sum is received by": plan.receiver,
        "integers / ring bits": f"{plan.entries:,} / {plan.ring_bits}",
        "a site's vector, packed": f"{plan.vector_bytes:,} bytes",
        f"a site's upload{' a sum' if plan.sums > 1 else ''}, measured": upload,
        "sampling error of a coefficient": error,
        "noise in a coefficient": f"{noise}, lost in it" if plan.lost else noise,
    }
    if plan.rows_for_noise is not None:
        lines["rows for noise ≤ sampling error"] = f"{plan.rows_for_noise:,}"
    if plan.rows_for_membership is not None:
        lines["rows without a membership warning"] = f"{plan.rows_for_membership:,}"
    return lines


def _width(plan: Plan) -> dict[str, str]:
    if plan.classes is None:
        return {"columns": f"{plan.columns}"}
    return {"columns × classes": f"{plan.columns} × {plan.classes}"}


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
    whole = ("count", "rows", "patients", STAND_INS)
    return f"{value:,.0f}" if figure in whole else f"{value:.4g}"
