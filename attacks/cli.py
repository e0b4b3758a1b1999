"""`secure-afl attack`."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from attacks.suite import config as suite_config
from attacks.suite import results as suite_results
from attacks.suite.config import AttackConfig
from secure_afl.cli.main import app
from secure_afl.cli.options import _flag, _suite_flag
from secure_afl.cli.tables import _errors, _progress
from secure_afl.errors import ConfigError
from secure_afl.runs.config import RunConfig


@app.command()
def attack(
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the cells, results.json and report.html."),
    ] = None,
    clients: Annotated[str | None, _flag("clients", "GLOB")] = None,
    partition: Annotated[str | None, _flag("partition", "SPEC")] = None,
    backbone: Annotated[str | None, _flag("backbone", "SPEC")] = None,
    checkpoint: Annotated[str | None, _flag("checkpoint", "FILE")] = None,
    image_size: Annotated[int | None, _flag("image_size", "N")] = None,
    feature_bits: Annotated[int | None, _flag("feature_bits", "N")] = None,
    max_rows: Annotated[int | None, _flag("max_rows", "N")] = None,
    ridge: Annotated[float | None, _flag("ridge", "λ")] = None,
    alpha: Annotated[float | None, _flag("alpha", "α")] = None,
    reading: Annotated[str | None, _flag("reading", "joint|proximal")] = None,
    architecture: Annotated[str | None, _flag("architecture", "linear|convnet")] = None,
    rounds: Annotated[
        int | None,
        typer.Option(metavar="N", help="fedavg, fedsgd: blind sums. Default: 1."),
    ] = None,
    learning_rate: Annotated[float | None, _flag("learning_rate", "η")] = None,
    local_epochs: Annotated[int | None, _flag("local_epochs", "N")] = None,
    batch_size: Annotated[int | None, _flag("batch_size", "N")] = None,
    update_clip: Annotated[float | None, _flag("update_clip", "NORM")] = None,
    aggregators: Annotated[int | None, _flag("aggregators", "M")] = None,
    corrupt_fraction: Annotated[float | None, _flag("corrupt_fraction", "SHARE")] = None,
    dropout_fraction: Annotated[float | None, _flag("dropout_fraction", "SHARE")] = None,
    server_trust: Annotated[str | None, _flag("server_trust", "TRUST")] = None,
    min_cohort: Annotated[int | None, _flag("min_cohort", "N")] = None,
    corrupt: Annotated[int | None, _flag("corrupt", "N")] = None,
    seed: Annotated[int | None, _flag("seed", "N")] = None,
    attacks: Annotated[str | None, _suite_flag("attacks", "NAME,…")] = None,
    methods: Annotated[str | None, _suite_flag("methods", "NAME,…")] = None,
    protocols: Annotated[str | None, _suite_flag("protocols", "NAME,…")] = None,
    adversaries: Annotated[str | None, _suite_flag("adversaries", "NAME,…")] = None,
    epsilons: Annotated[str | None, _suite_flag("epsilons", "ε,…")] = None,
    rows: Annotated[str | None, _suite_flag("rows", "N,…|all")] = None,
    sweep: Annotated[str | None, _suite_flag("sweep", "N,…|none")] = None,
    repeats: Annotated[int | None, _suite_flag("repeats", "N")] = None,
    colluders: Annotated[int | None, _suite_flag("colluders", "N")] = None,
    candidates: Annotated[int | None, _suite_flag("candidates", "N")] = None,
    confidence: Annotated[float | None, _suite_flag("confidence", "SHARE")] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="AFL alone, plain and additive alone, no curves; unless named."
        ),
    ] = False,
    list_attacks: Annotated[
        bool, typer.Option("--list", help="Print the attacks, and what they want and assume.")
    ] = False,
) -> None:
    """Attack recorded runs over a data set, and report what every party could have learned.

    Stopped or killed, the same command goes on where it was. Half of each client's rows stay out
    of the sums, for comparison.

      secure-afl attack --out leakage --quick

      secure-afl attack --clients 'sites/*' --backbone timm:resnet18 --out leakage
    """
    given = {name: value for name, value in locals().items() if value is not None}
    # Here and not above: they take half a second, which no other command needs.
    from attacks.registry import ATTACKS
    from attacks.report import matrix
    from attacks.report import page as leakage
    from attacks.suite import run as suite

    if list_attacks:
        _list_attacks([suite_results.describe(kind) for kind in ATTACKS.values()])
        return
    if out is None:
        raise ConfigError("--out is missing; name a folder for the cells and the report")
    config = suite_config.make_config(
        {name: given[name] for name in RunConfig.__struct_fields__ if name in given}
        | {"out": None},
        {name: given[name] for name in AttackConfig.__struct_fields__ if name in given},
        quick,
    )
    command = shlex.join(["secure-afl", *sys.argv[1:]])
    page = out / "report.html"
    try:
        with _progress() as advance:
            results = suite.run(config, ATTACKS, out, advance, command)
    except suite.Interrupted as interrupted:
        page.write_text(leakage.render(interrupted.results), encoding="utf-8")
        _errors.print(f"Stopped; the same command goes on. So far: {page}", highlight=False)
        sys.exit(130)
    page.write_text(leakage.render(results), encoding="utf-8")
    for panel in matrix.panels(results):
        _show_matrix(matrix.panel_title(panel), *matrix.compact(results, panel))
    failed = sum(cell.error is not None and not cell.refused for cell in results.cells)
    Console().print(
        "*: the whole interval is above guessing; ·: nothing to attack; –: could not be tried"
        + (f"; !: failed, {failed} of {len(results.cells)} cells" if failed else ""),
        style="dim",
        highlight=False,
    )
    typer.echo(f"Report: {page}")


def _list_attacks(cards: Sequence[Any]) -> None:
    table = Table()
    table.add_column("attack", no_wrap=True)
    for title in ("what it does", "wants of its view", "is given besides"):
        table.add_column(title)
    for card in cards:
        summary = " ".join(card.summary.split("\n\n")[0].split())
        name = f"{card.name} (costly)" if card.costly else card.name
        table.add_row(name, summary, card.wants, "; ".join(card.assumes) or "–")
    Console().print(table)


def _show_matrix(title: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Attacks are columns under numbers, for their names are long."""
    console = Console()
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
