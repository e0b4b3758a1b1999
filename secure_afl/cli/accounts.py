"""What commands print about the data that they read; and `secure-afl inspect`."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from secure_afl.cli.console import errors, few_lines, people, progress
from secure_afl.errors import ConfigError, DataError

if TYPE_CHECKING:
    from secure_afl.data.account import Account, Finding, Read
    from secure_afl.data.mapping import Mapping
    from secure_afl.data.tables.design import Design
    from secure_afl.runs.prepare import Accounts

# Sites in a run's table, and classes, sizes and modes in a line.
_SITES, _SHOWN = 20, 8


def inspect(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH…", help="Folders <class>/<image>, .npz files, tables, or patterns."
        ),
    ],
    test: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="The site's test set: rows in both are counted."),
    ] = None,
    mapping: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="TOML file of names, as for run."),
    ] = None,
    ids: Annotated[
        str | None,
        typer.Option("--id", metavar="ARRAY|PATTERN", help="Whose each example is, as for run."),
    ] = None,
    dictionary: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The data dictionary of CSV or Parquet files."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Of a table: the column that is predicted."),
    ] = None,
    formula: Annotated[
        str | None, typer.Option(metavar="FORMULA", help="Of a table: columns, as for run.")
    ] = None,
    propose: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draft a data dictionary from one table into FILE, to be edited; it must not be "
            "there.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Which split of a MedMNIST .npz.")] = "train",
    json_file: Annotated[
        str | None,
        typer.Option(
            "--json",
            metavar="FILE",
            help="Write the account as JSON to FILE, for its owner alone; - for standard output.",
        ),
    ] = None,
) -> None:
    """Say what a site's data hold and what looks wrong, before any federation.

    Every image is decoded. Nothing leaves this machine; numbers of rows are private, so keep the
    account at the site.

      secure-afl inspect site_0 --test test --json account.json
      secure-afl inspect site_0.csv --propose dictionary.toml
      secure-afl inspect site_0.csv --dictionary dictionary.toml
    """
    from secure_afl.data import account as accounting
    from secure_afl.data.files import client_paths, load
    from secure_afl.data.ids import parse_ids
    from secure_afl.data.mapping import read_mapping
    from secure_afl.texts import at_home

    if propose is not None:
        _propose(paths, target, propose)
        return
    names = read_mapping(None if mapping is None else Path(at_home(mapping)))
    design = None if dictionary is None else _design(dictionary, target, formula, ids)
    whose = None if design is not None else parse_ids(ids)
    found = [path for pattern in paths for path in client_paths(pattern)]
    with progress() as advance:

        def read(path: str | Path, part: str) -> "Read":
            dataset = load(path, part, names, whose, design)
            return accounting.read(dataset, pixels=True, progress=advance)

        tested = None if test is None else read(test, "test")
        reads = [read(path, split) for path in found]
    accounts = [accounting.account(one, tested) for one in reads]
    together = _together(reads, tested, names)
    _write(json_file, accounts, together)
    console = people(json_file)
    for account in accounts:
        console.print(_table(account, tested=tested is not None))
    show_all(console, [finding for one in accounts for finding in one.findings] + together)


def _design(file: Path, target: str | None, formula: str | None, ids: str | None) -> "Design":
    """Read a dictionary in which ranges may be left open."""
    from secure_afl.data.tables.design import read_design

    # Ranges that a run is to find are none here: nothing is known to be out of them.
    design = read_design(file, target, formula, ids, open=True)
    if design.open:
        without = ", ".join(design.open)
        errors().print(f"without a range, for --scale federated: {without}", markup=False)
    return design


def _together(reads: "Sequence[Read]", tested: "Read | None", names: "Mapping") -> "list[Finding]":
    """Return what looks wrong of several sites together, and of their test set."""
    from secure_afl.data.account import Finding
    from secure_afl.data.compare import compare
    from secure_afl.data.dataset import align
    from secure_afl.data.files import check_classes

    found: list[Finding] = []
    datasets = [one.dataset for one in (*reads, *([] if tested is None else [tested]))]
    try:
        check_classes(datasets, names)
    except DataError as error:
        words, _, fix = str(error).partition("; ")
        found.append(Finding("wrong", words, len(datasets), fix))
    if len(reads) > 1:
        every = tuple(dict.fromkeys(name for data in datasets for name in data.classes))
        for one, dataset in zip(reads, align(datasets[: len(reads)], every), strict=True):
            one.dataset = dataset
        found += compare(reads, names.meant)
    return found


def _propose(paths: Sequence[str], target: str | None, file: Path) -> None:
    """Draft a dictionary from one table."""
    from protocols.files import create_durably
    from secure_afl.data.files import client_paths
    from secure_afl.data.tables.codes import suspected
    from secure_afl.data.tables.propose import missing_words, propose
    from secure_afl.data.tables.raw import is_table, read_table

    found = [path for pattern in paths for path in client_paths(pattern)]
    if len(found) != 1 or not is_table(found[0]):
        raise ConfigError("--propose drafts from one table; give one CSV or Parquet file")
    table = read_table(found[0])
    if target is not None:
        table.cells(target)
    try:
        create_durably(file, propose(table, target).encode())
    except FileExistsError:
        raise ConfigError(f"{file} exists; move it away, or name another") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be written ({error.strerror})") from None
    typer.echo(
        f"{file} written from {len(table)} rows of {len(table.columns)} columns: edit it, for its "
        "ranges and words are this site's; then give all sites the same file"
    )
    for name, codes in suspected(table, missing_words(table)).items():
        for code in codes:
            typer.echo(
                f"{name}: {code.value} in {code.cells} cells is far from all others; a missing "
                "code? then list it under 'missing'"
            )


def show_findings(console: Console, findings: Sequence["Finding"]) -> None:
    """Print the worst findings of a run's data, in three lines at most."""
    lines = [f"Warning: {_words(finding)}" for finding in findings if finding.rank != "note"]
    few_lines(console, lines, "secure-afl inspect PATH… says all")


def show_all(console: Console, findings: Iterable["Finding"]) -> None:
    """Print all findings, the worst first."""
    from secure_afl.data.account import ranked

    styles = {"wrong": "bold red", "doubtful": "yellow", "note": "dim"}
    there = ranked(findings)
    for finding in there:
        console.print(
            f"{finding.rank}: {_words(finding)}", style=styles[finding.rank], soft_wrap=True
        )
    if not there:
        console.print("Nothing looks wrong.")


def show_accounts(console: Console, accounts: "Accounts") -> None:
    """Print what a run read: a line a client, or their sum where they are many."""
    table = Table("read", title="what was read", title_justify="left")
    sites, whole = accounts.sites, _numbers(accounts.sites)
    if not whole["classes"]:  # numbers are predicted
        del whole["classes"]
    if not accounts.tested:
        del whole["in the test set"]
    for name in whole:
        table.add_column(name, justify="right")
    for site in sites if len(sites) <= _SITES else ():
        own = _numbers([site])
        table.add_row(site.site, *(str(own[name]) for name in whole))
    if len(sites) > 1:
        table.add_row(f"all {len(sites)}", *map(str, whole.values()), style="bold")
    console.print(table)


def _left_out(site: "Account") -> int:
    """Count files, and rows of a table, that are not read."""
    rows = 0 if site.table is None else site.table.dropped
    return rows + sum(kind.files for kind in site.left_out)


def _numbers(sites: Sequence["Account"]) -> dict[str, int]:
    return {
        "files": sum(site.files for site in sites),
        "left out": sum(map(_left_out, sites)),
        "rows": sum(site.rows for site in sites),
        "classes": len({name for site in sites for name in site.classes}),
        "equal rows": sum(site.duplicates for site in sites),
        "in the test set": sum(site.in_test for site in sites),
    }


def _table(account: "Account", *, tested: bool) -> Table:
    """Lay out an account: lines that are of its kind of data.

    Args:
        tested: there is a test set to compare with.
    """
    table = Table("", account.site, title=account.path, title_justify="left")
    left_out = [f"{kind.files} {kind.kind}" for kind in account.left_out]
    if account.table is not None and account.table.dropped:
        left_out.append(f"{account.table.dropped} rows with a missing value")
    images = bool(account.sizes or account.unreadable)
    rows = {}
    if images:
        rows["files read"] = f"{account.files:,}"
    if images or account.table is not None:
        rows["left out"] = "; ".join(left_out) or "none"
    rows["rows"] = f"{account.rows:,}"
    if account.classes:
        rows["rows of each class"] = _counted(account.classes)
    if images:
        rows |= {
            "sizes": _counted(account.sizes),
            "pixels": _counted(account.modes),
            "turned upright": str(account.turned),
            "of one colour": str(account.zero_rows),
            "unreadable": str(len(account.unreadable)),
        }
    elif account.table is None:
        rows["rows of zeros"] = str(account.zero_rows)
    rows["rows equal to an earlier one"] = f"{account.duplicates:,}"
    if account.classes:
        rows["  with another label"] = f"{account.contradictions:,}"
    if tested:
        rows["rows in the test set"] = f"{account.in_test:,}"
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _counted(counts: dict[str, int]) -> str:
    shown = [f"{name}: {count:,}" for name, count in list(counts.items())[:_SHOWN]]
    more = len(counts) - len(shown)
    return ", ".join([*shown, *([f"and {more} more"] if more else [])]) or "–"


def _words(finding: "Finding") -> str:
    joined = " " if finding.what.endswith("?") else ": "
    return f"{finding.what}{joined}{finding.fix}."


def _write(file: str | None, accounts: Sequence["Account"], together: Sequence["Finding"]) -> None:
    """Write the accounts as JSON, for their owner alone."""
    from protocols.files import write_durably
    from secure_afl.data.account import VERSION

    if file is None:
        return
    content = {"version": VERSION, "sites": accounts, "together": together}
    text = msgspec.json.format(msgspec.json.encode(content)) + b"\n"
    if file == "-":
        typer.echo(text.decode(), nl=False)
        return
    try:
        write_durably(Path(file), text)
    except OSError as error:
        raise ConfigError(
            f"--json {file} cannot be written ({error.strerror}); name another file"
        ) from None
