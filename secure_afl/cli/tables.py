"""What commands print: tables, progress, warnings and JSON files."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from secure_afl.errors import ConfigError
from secure_afl.federation.report import Report
from secure_afl.runs.prepare import Progress

_errors = Console(stderr=True)


@contextmanager
def _progress() -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), _Done())
    with Bars(*columns, TimeRemainingColumn(), console=_errors, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield advance


class _Done(TaskProgressColumn):
    """How much is done: in percent, since numbers of rows may be private, or of what is counted."""

    def render(self, task: Task) -> Text:
        counted = task.description in ("points", "canaries", "cells")
        return MofNCompleteColumn().render(task) if counted else super().render(task)


def _people(json_file: str | None) -> Console:
    """Where people read: JSON on standard output is for programs, and leaves standard error."""
    return _errors if json_file == "-" else Console()


def _features(advance: Progress) -> Callable[[int, int], None]:
    return lambda done, total: advance("features", done, total)


def _show(report: Report, json_file: str | None) -> None:
    console = _people(json_file)
    table = Table("", f"{report.method} / {report.protocol}", title="secure-afl")
    table.columns[1].justify = "right"
    for name, value in _lines(report).items():
        table.add_row(name, value)
    console.print(table)
    _show_trust(console, [report])


def _finite(epsilon: float | None) -> str:
    if epsilon is None:
        return "–"
    return "∞" if epsilon == math.inf else f"{epsilon:.4g}"


def _compare(reports: Sequence[Report], json_file: str | None) -> None:
    console = _people(json_file)
    table = Table("method", "protocol", title="secure-afl", title_justify="left")
    for name in ("exact", "accuracy", "own rows", "upload", "seconds"):
        table.add_column(name, justify="right")
    for report in reports:
        seconds = report.seconds
        spent = seconds.statistics + seconds.protect + seconds.aggregate + seconds.solve
        table.add_row(
            report.method,
            report.protocol,
            "yes" if report.exact else "NO",
            _percent(report.accuracy.federated),
            _percent(report.accuracy.personal_mean),
            f"{report.bytes.upload_per_client / 1e6:.2f} MB",
            f"{spent:.2f}",
        )
    console.print(table)
    included, total = reports[0].clients.included, reports[0].clients.total
    console.print(
        f"{included} of {total} clients in each sum; accuracy: one model, on test rows; own rows: "
        "each client's own model, on its own held-out rows (fedhip's is personal); upload: a "
        "client's; seconds: of all parties, on this machine",
        style="dim",
        highlight=False,
    )
    _show_trust(console, reports)


def _show_trust(console: Console, reports: Sequence[Report]) -> None:
    for name, protects in {report.protocol: report.protects for report in reports}.items():
        if not protects.startswith("nothing"):  # of which a warning speaks
            console.print(f"Protocol '{name}' protects {protects}.", markup=False, highlight=False)
    for trusts in dict.fromkeys(r.privacy.trusts for r in reports if r.privacy is not None):
        console.print(f"Privacy rests on this: {trusts}.", markup=False, highlight=False)
    for warning in dict.fromkeys(w for report in reports for w in report.warnings):
        console.print(f"Warning: {warning}", style="yellow", markup=False, highlight=False)


def _lines(report: Report) -> dict[str, str]:
    accuracy, seconds = report.accuracy, report.seconds
    upload, plain = report.bytes.upload_per_client, report.bytes.plain_float64_per_client
    return {
        "clients in the sum": f"{report.clients.included} of {report.clients.total}",
        "rounds": f"{report.rounds}",
        "rows": "private" if report.examples is None else f"{report.examples:,}",
        "features × classes": f"{report.feature_dim} × {report.classes}",
        "feature bits / ring bits": f"{report.feature_bits} / {report.ring_bits}",
        "exact": "yes" if report.exact else "NO",
        "accuracy": _percent(accuracy.federated),
        "  centralised, float": _percent(accuracy.centralised_float),
        "  each client alone": _percent(accuracy.local_mean),
        "own rows: personal model": _percent(accuracy.personal_mean),
        "  federated model": _percent(accuracy.holdout_federated_mean),
        "  own data alone": _percent(accuracy.holdout_local_mean),
        **_privacy_lines(report),
        "upload per client": f"{upload / 1e6:.3f} MB",
        "  of AFL in float64": f"{upload / plain:.1%}",
        "seconds: features": f"{seconds.features:.2f}",
        "seconds: statistics": f"{seconds.statistics:.2f}",
        "seconds: protect": f"{seconds.protect:.2f}",
        "seconds: aggregate": f"{seconds.aggregate:.2f}",
        "seconds: solve": f"{seconds.solve:.2f}",
    }


def _privacy_lines(report: Report) -> dict[str, str]:
    privacy = report.privacy
    if privacy is None:
        return {}
    return {
        "privacy": f"ε = {privacy.epsilon:g}, δ = {privacy.delta:g}",
        "  unit, neighbours": f"{privacy.unit}, {privacy.neighbours}",
        "  noise multiplier": f"{privacy.noise_multiplier:.4g} × {privacy.rounds} sums",
        "  may vanish, may collude": f"{privacy.dropouts}, {privacy.colluders} clients",
    }


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _check_writable(json_file: str | None) -> None:
    if json_file in (None, "-"):
        return
    assert json_file is not None
    if not Path(json_file).absolute().parent.is_dir():
        raise ConfigError(f"--json {json_file}: its folder does not exist; make it first")
    try:
        with Path(json_file).open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise ConfigError(
            f"--json {json_file} cannot be written ({error.strerror}); name another file"
        ) from None


def _write_json(file: str | None, content: Any) -> None:
    if file is None:
        return
    text = msgspec.json.format(msgspec.json.encode(content)).decode() + "\n"
    if file == "-":
        sys.stdout.write(text)
    else:
        Path(file).write_text(text, encoding="utf-8")
