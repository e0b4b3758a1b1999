"""`secure-afl keygen`, `params`, `doctor` and `schema`: keys, and what this machine can do."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from protocols.schemes.pairwise.parameters import describe, find_parameters
from secure_afl.cli.main import app
from secure_afl.cli.options import _flag
from secure_afl.errors import ConfigError
from secure_afl.federation import keys as keyfiles
from secure_afl.federation.task import majority
from secure_afl.runs import doctor as checks
from secure_afl.runs.config import json_schema, make_config


@app.command()
def keygen(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="One or more party names.")],
    role: Annotated[
        str, typer.Option(metavar="ROLE", help="client, or a coordinator's: aggregator, server.")
    ] = "client",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the keys.")] = Path("keys"),
) -> None:
    """Make identity keys, and add their public halves to DIR/roster.json.

    Each DIR/NAME.identity is private and belongs on that party's machine alone. Compare roster.json
    with everybody over another channel: parties refuse whoever is not in it.

      secure-afl keygen north south west

      secure-afl keygen university clinic --role aggregator
    """
    roster = keyfiles.generate(names, role, out)
    for line in roster.members:
        typer.echo(f"{line.name}  {line.role}  {line.verify_key}")


@app.command()
def params(
    clients: Annotated[
        int, typer.Argument(metavar="N", help="Number of clients.", min=2, max=100_000)
    ],
    corrupt_fraction: Annotated[float | None, _flag("corrupt_fraction", "SHARE")] = None,
    dropout_fraction: Annotated[float | None, _flag("dropout_fraction", "SHARE")] = None,
    server_trust: Annotated[str | None, _flag("server_trust", "TRUST")] = None,
    min_cohort: Annotated[int | None, _flag("min_cohort", "N")] = None,
) -> None:
    """Print neighbours, threshold and guarantees of the pairwise protocol for a cohort."""
    given = {name: value for name, value in locals().items() if value is not None}
    config = make_config({name: given[name] for name in given if name != "clients"})
    if config.min_cohort is not None and config.min_cohort > clients:
        raise ConfigError(f"minimum cohort {config.min_cohort}, allowed: ≤ {clients} clients")
    found = find_parameters(
        clients,
        config.corrupt_fraction,
        config.dropout_fraction,
        config.server_trust,
        config.min_cohort,
    )
    least = majority(clients) if config.min_cohort is None else config.min_cohort
    if least < found.corrupt + 2:
        raise ConfigError(
            f"a minimum cohort of {least} with {found.corrupt} corrupt clients; allowed: "
            f"≥ {found.corrupt + 2}. Lower --corrupt-fraction, or raise --min-cohort"
        )
    table = Table("pairwise", "", box=None)
    for name, value in describe(found, config.min_cohort).items():
        table.add_row(name, value)
    Console(soft_wrap=True).print(table)


@app.command()
def doctor(
    backbone: Annotated[str | None, _flag("backbone", "SPEC")] = None,
    checkpoint: Annotated[str | None, _flag("checkpoint", "FILE")] = None,
    image_size: Annotated[int | None, _flag("image_size", "N")] = None,
) -> None:
    """Check this machine: versions, GPU, AES, cache, a small sum and, if named, a backbone."""
    found = checks.checks()
    if backbone is None and (checkpoint, image_size) != (None, None):
        raise ConfigError("--checkpoint and --image-size go with --backbone")
    if backbone is not None:
        found.append(checks.backbone(backbone, checkpoint, image_size))
    table = Table("check", "found", box=None)
    for check in found:
        table.add_row(check.name, check.found, style=None if check.good else "bold red")
    Console().print(table)
    if not all(check.good for check in found):
        raise ConfigError("this machine is not fit to run; see the red lines")


@app.command()
def schema() -> None:
    """Print the JSON Schema of run.toml, for editors that check as you type."""
    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
