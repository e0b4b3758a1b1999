"""`secure-afl attack`, which an entry point of the group `secure_afl.commands` announces."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.padding import Padding
from rich.table import Table

from secure_afl.cli.console import errors, people, progress
from secure_afl.cli.options import run_settings, with_flags
from secure_afl.errors import ConfigError

if TYPE_CHECKING:
    from protocols.registry import Option

# Of a run's settings those that a suite leaves to people.
_OF_THE_RUN = (
    "clients",
    "mapping",
    "id",
    "dictionary",
    "target",
    "formula",
    "row_mode",
    "partition",
    "backbone",
    "checkpoint",
    "image_size",
    "feature_bits",
    "max_rows",
    "min_cohort",
    "corrupt",
    "seed",
)


def _settings() -> "list[Option]":
    from attacks.suite.config import AttackConfig
    from protocols.registry import options_of
    from secure_afl.runs.settings import declared_options, with_default

    return [
        *(with_default(own) for own in options_of(AttackConfig).values()),
        *run_settings(*_OF_THE_RUN, *declared_options()),
    ]


@with_flags(_settings)
def attack(
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the cells, results.json and report.html."),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="AFL alone, plain and additive alone, no curves; unless named."
        ),
    ] = False,
    list_attacks: Annotated[
        bool, typer.Option("--list", help="Print the attacks, and what they want and assume.")
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            metavar="N",
            help="Processes that attack side by side, each with all rows. Default: one a core.",
        ),
    ] = None,
    **settings: Any,
) -> None:
    """Attack recorded runs over a data set, and report what every party could have learned.

    Stopped or killed, the same command goes on where it was. Half of each client's rows stay out
    of the sums, for comparison.

      secure-afl attack --out leakage --quick

      secure-afl attack --clients 'sites/*' --backbone timm:resnet18 --out leakage
    """
    from attacks.attack import ATTACKS
    from attacks.report import page as leakage
    from attacks.suite import run as suite
    from attacks.suite.config import AttackConfig, make_config
    from attacks.suite.results import describe
    from protocols.registry import options_of

    if list_attacks:
        _list_attacks([describe(kind) for kind in ATTACKS.values()])
        return
    if out is None:
        raise ConfigError("--out is missing; name a folder for the cells and the report")
    own = {name: value for name, value in settings.items() if name in options_of(AttackConfig)}
    of_runs = {name: value for name, value in settings.items() if name not in own}
    config = make_config(of_runs, own, quick)
    command = shlex.join(["secure-afl", *sys.argv[1:]])
    page = out / "report.html"
    try:
        with progress() as advance:
            results = suite.run(
                config, ATTACKS, out, advance, command, processes or min(os.cpu_count() or 1, 64)
            )
    except suite.Interrupted as interrupted:
        page.write_text(leakage.render(interrupted.results), encoding="utf-8", newline="\n")
        errors().print(f"Stopped; the same command goes on. So far: {page}", highlight=False)
        sys.exit(130)
    page.write_text(leakage.render(results), encoding="utf-8", newline="\n")
    _show(results)
    typer.echo(f"Report: {page}")


def _list_attacks(cards: Sequence[Any]) -> None:
    for card in cards:
        summary = " ".join(card.summary.split("\n\n")[0].split())
        given = "; ".join(card.assumes) or "nothing"
        people().print(f"{card.name} (costly)" if card.costly else card.name)
        for line in (summary, f"Wants of its view: {card.wants}.", f"Is given besides: {given}."):
            people().print(Padding(line, (0, 0, 0, 4), expand=False))


def _show(results: Any) -> None:
    from attacks.report import matrix

    for panel in matrix.panels(results):
        _show_matrix(matrix.panel_title(panel), *matrix.compact(results, panel))
    if results.unopened:
        errors().print(
            f"Warning: nothing here opens uploads of {', '.join(results.unopened)}: attacks on "
            "single uploads were not tried there, and their guessing says nothing. What opens them "
            "is a module attacks/views/open_….",
            highlight=False,
        )
    failed = sum(cell.error is not None and not cell.refused for cell in results.cells)
    people().print(
        "*: the whole interval is above guessing; (?): one trial, nothing is sure; ·: nothing to "
        "attack; –: could not be tried"
        + (f"; !: failed, {failed} of {len(results.cells)} cells" if failed else ""),
        style="dim",
        highlight=False,
    )


def _show_matrix(title: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Show a matrix in which attacks are columns under numbers, for their names are long."""
    console = people()
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column(header[0], no_wrap=True)
    table.add_column(header[1])
    for number in range(1, len(header) - 1):
        table.add_column(str(number), justify="right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    console.print(table)
    names = (f"{number} {name}" for number, name in enumerate(header[2:], 1))
    console.print(", ".join(names), "\n", style="dim", highlight=False)
