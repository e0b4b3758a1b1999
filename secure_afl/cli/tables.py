"""What commands print about runs: tables, warnings and JSON files."""

import math
import secrets
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from protocols.protocol import PROTOCOLS
from secure_afl.cli.console import few_lines, people
from secure_afl.cli.fits import show_fits
from secure_afl.errors import ConfigError
from secure_afl.evaluation.bootstrap import Interval
from secure_afl.evaluation.figures import Figures
from secure_afl.federation.report import HeadReport, NumericReport, PersonalReport, Report
from secure_afl.runs.fits import NOTHING, numeric_lines


def show_report(report: Report, json_file: str | None) -> None:
    """Print one run's report as a table, with what it protects and warns of."""
    console = people(json_file)
    table = Table("", f"{report.method} / {report.protocol}", title="secure-afl")
    table.columns[1].justify = "right"
    for name, value in _told(_lines(report)).items():
        table.add_row(name, value)
    console.print(table)
    show_fits(console, report.fits)
    if report.ranges:
        console.print("Ranges that sites found; a dictionary that has them needs no such sum:")
    for one in report.ranges:
        console.print(f"  {one.text}  # {one.cut} cut", markup=False, highlight=False)
    _show_trust(console, [report], "--json FILE, or report.json in --out")


def finite(epsilon: float | None) -> str:
    """Write an ε, which may be infinite, or not there."""
    if epsilon is None:
        return NOTHING
    return "∞" if epsilon == math.inf else f"{epsilon:.4g}"


def compare_reports(reports: Sequence[Report], json_file: str | None) -> None:
    """Print several runs' reports side by side."""
    console = people(json_file)
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
            percent(report.accuracy.federated),
            percent(report.accuracy.personal_mean),
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
    _show_trust(console, reports, "--json FILE")


def _show_trust(console: Console, reports: Sequence[Report], where: str) -> None:
    for name, protects in {report.protocol: report.protects for report in reports}.items():
        if PROTOCOLS[name].hides_vectors:  # otherwise a warning speaks of it
            console.print(f"Protocol '{name}' protects {protects}.", markup=False, highlight=False)
    for trusts in dict.fromkeys(r.privacy.trusts for r in reports if r.privacy is not None):
        console.print(f"Privacy rests on this: {trusts}.", markup=False, highlight=False)
    warned = dict.fromkeys(warning for report in reports for warning in report.warnings)
    lines = [f"Warning: {warning}" for warning in warned]
    few_lines(console, lines, f"the report has them ({where})")


def _told(lines: dict[str, str]) -> dict[str, str]:
    """Leave out lines that have nothing, but for the heading of one that has something."""
    kept: dict[str, str] = {}
    heading = ""
    for name, value in lines.items():
        nested = name.startswith("  ")
        heading = heading if nested else name
        if value == NOTHING:
            continue
        if nested:
            kept.setdefault(heading, lines[heading])
        kept[name] = value
    return kept


def _lines(report: Report) -> dict[str, str]:
    seconds = report.seconds
    upload, plain = report.bytes.upload_per_client, report.bytes.plain_float64_per_client
    return {
        "clients in the sum": f"{report.clients.included} of {report.clients.total}",
        "rounds": f"{report.rounds}",
        "rows": "private" if report.examples is None else f"{report.examples:,}",
        **_width_line(report),
        "feature bits / ring bits": f"{report.feature_bits} / {report.ring_bits}",
        "exact": _exact(report),
        **(_class_lines(report) if report.numeric is None else _numeric_lines(report.numeric)),
        **_privacy_lines(report),
        "upload per client": f"{upload / 1e6:.3f} MB",
        "  of AFL in float64": f"{upload / plain:.1%}",
        "seconds: features": f"{seconds.features:.2f}",
        "seconds: statistics": f"{seconds.statistics:.2f}",
        "seconds: protect": f"{seconds.protect:.2f}",
        "seconds: aggregate": f"{seconds.aggregate:.2f}",
        "seconds: solve": f"{seconds.solve:.2f}",
    }


def _exact(report: Report) -> str:
    """Say whether the sum is that of all integers; with a promise these have noise in them."""
    if not report.exact:
        return "NO"
    return "yes" if report.privacy is None else "yes, of integers with noise"


def _width_line(report: Report) -> dict[str, str]:
    if report.numeric is not None:
        return {"features": f"{report.feature_dim}"}
    return {"features × classes": f"{report.feature_dim} × {report.classes}"}


def _class_lines(report: Report) -> dict[str, str]:
    """Write how well classes are told apart."""
    accuracy = report.accuracy
    # A method without a head has another model to compare with, which its line names.
    ridge = "" if report.head is not None else "ridge, "
    return {
        **_head_lines(report.head),
        "accuracy": percent(accuracy.federated),
        **_prior_lines(report.results),
        **_pooled_lines(report),
        f"  {ridge}centralised, float": percent(accuracy.centralised_float),
        f"  {ridge}each client alone": percent(accuracy.local_mean),
        "own rows: personal model": percent(accuracy.personal_mean),
        "  federated model": percent(accuracy.holdout_federated_mean),
        "  own data alone": percent(accuracy.holdout_local_mean),
        **_personal_lines(report.personal),
    }


def _numeric_lines(numeric: NumericReport) -> dict[str, str]:
    """Write how well a number is predicted."""
    found = {} if numeric.federated is None else numeric_lines(numeric.federated)
    if numeric.centralised_float is not None:
        found["  RMSE centralised, float"] = numeric_lines(numeric.centralised_float)["RMSE"]
    alone = [site.test.rmse.value for site in numeric.sites if site.test is not None]
    if alone:
        found["  RMSE each client alone"] = f"{min(alone):.4g} to {max(alone):.4g}"
    return found


def _head_lines(head: HeadReport | None) -> dict[str, str]:
    if head is None:
        return {}
    value = "" if head.value is None else f", {head.setting} {head.value:.4g}"
    return {"head": f"{head.name}{value}" + (" (chosen)" if head.chosen else "")}


def _prior_lines(results: Sequence[Figures]) -> dict[str, str]:
    """Write accuracy and balanced accuracy under each prior; nothing of models without one."""
    return {
        f"  {found.prior} prior, balanced": f"{found.accuracy.value:.1%}, "
        f"{found.balanced_accuracy.value:.1%}"
        for found in results
        if found.prior
    }


def _pooled_lines(report: Report) -> dict[str, str]:
    pooled = report.pooled
    if pooled is None:
        return {}
    by_patient = report.privacy is not None and report.privacy.unit == "patient"
    auc = NOTHING
    if pooled.auc is not None and pooled.auc_error is not None:
        auc = f"{pooled.auc:.1%} ± {100 * pooled.auc_error:.2f}"
    return {
        f"{'patients' if by_patient else 'rows'} kept out by all": f"{pooled.examples:,}",
        # Whose rows are counted does not show in the sum.
        f"  accuracy{'' if by_patient else ', by row'}": ranged(pooled.accuracy),
        "  balanced": percent(pooled.balanced_accuracy),
        "  AUC ± its bins": auc,
    }


def _personal_lines(personal: PersonalReport | None) -> dict[str, str]:
    if personal is None or not personal.sites:
        return {}
    return {"  personal model hurt": f"{len(personal.hurt)} of {len(personal.sites)} clients"}


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


def show_figures(results: Sequence[Figures], console: Console, title: str) -> None:
    """Print figures with intervals: a table for the first prior, a line for each other."""
    first, *others = results
    table = Table(
        "class", "rows", "sensitivity", "specificity", "PPV", "NPV", "AUC",
        title=title, title_justify="left",
    )  # fmt: skip
    for column in table.columns[1:]:
        column.justify, column.overflow = "right", "fold"
    for own in first.classes:
        figures = (own.sensitivity, own.specificity, own.ppv, own.npv, own.auc)
        # On two lines, that it fits a terminal of 80 columns.
        cells = (ranged(figure).replace(" (", "\n").rstrip(")") for figure in figures)
        table.add_row(own.name, f"{own.examples:,}", *cells)
    console.print(table)
    for found in (first, *others):
        under = f" under the {found.prior} prior" if found.prior else ""
        console.print(
            f"{found.examples:,} rows{under}: accuracy {ranged(found.accuracy)}, balanced "
            f"{ranged(found.balanced_accuracy)}, AUC {ranged(found.auc)}",
            markup=False,
            highlight=False,
        )
    console.print(f"Predicted is {first.rule}; ranges hold 95 %.", markup=False, highlight=False)


def ranged(figure: Interval | None) -> str:
    """Write a figure in percent with its interval; a dash for what there is not."""
    if figure is None:
        return NOTHING
    if figure.low is None or figure.high is None:
        return f"{figure.value:.1%} ({NOTHING})"
    return f"{figure.value:.1%} ({100 * figure.low:.1f}–{100 * figure.high:.1f})"


def percent(share: float | None) -> str:
    """Write a share in percent; a dash where there is none."""
    return NOTHING if share is None else f"{share:.1%}"


def check_writable(json_file: str | None) -> None:
    """Raise ConfigError unless the file can be written, before any work is done.

    It is neither made nor changed.
    """
    if json_file in (None, "-"):
        return
    assert json_file is not None
    path = Path(json_file).absolute()
    if not path.parent.is_dir():
        raise ConfigError(f"--json {json_file}: its folder does not exist; make it first")
    try:
        if path.exists():
            with path.open("ab"):
                pass
        else:
            with tempfile.TemporaryFile(dir=path.parent):
                pass
    except OSError as error:
        raise _unwritable(json_file, error) from None


def write_json(file: str | None, content: Any) -> None:
    """Write content as JSON into a file, or for - to standard output.

    None writes nothing. A file that cannot be written whole is left as it was.

    Raises:
        ConfigError: it cannot be written.
    """
    if file is None:
        return
    text = msgspec.json.format(msgspec.json.encode(content)).decode() + "\n"
    if file == "-":
        sys.stdout.write(text)
        return
    path = Path(file)
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8", newline="\n")  # a device or a pipe
        else:
            _replace(path.resolve(), text)
    except OSError as error:
        raise _unwritable(file, error) from None


def _replace(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        aside.write_text(text, encoding="utf-8", newline="\n")
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _unwritable(json_file: str, error: OSError) -> ConfigError:
    return ConfigError(
        f"--json {json_file} cannot be written ({error.strerror}); name another file"
    )
