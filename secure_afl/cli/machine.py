"""`secure-afl params`, `doctor` and `schema`: parameters, and what this machine can do."""

import json
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.table import Table

from secure_afl.cli.console import people, printer
from secure_afl.cli.options import JsonFile, run_settings, with_flags
from secure_afl.errors import ConfigError

_PAIRWISE = ("corrupt_fraction", "dropout_fraction", "server_trust", "min_cohort")
_PLANNED = (
    "method",
    "protocol",
    "aggregators",
    "head",
    "squares",
    "epsilon",
    "delta",
    "unit",
    "neighbours",
    "noise",
    "max_rows",
    "corrupt",
    "feature_bits",
)


@with_flags(lambda: run_settings(*_PAIRWISE, *_PLANNED))
def params(
    clients: Annotated[
        int, typer.Argument(metavar="N", help="Number of clients.", min=2, max=100_000)
    ],
    columns: Annotated[
        int | None,
        typer.Option(
            metavar="D",
            help="Plan a run over tables of so many columns, an indicator being one.",
            min=1,
            max=4096,
        ),
    ] = None,
    site_rows: Annotated[
        int | None,
        typer.Option(metavar="N", help="With --columns: rows of each site.", min=1, max=2**29),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(metavar="C", help="With --columns: classes. Default: 2.", min=2, max=1024),
    ] = None,
    json_file: JsonFile = None,
    **settings: Any,
) -> None:
    """Print the pairwise protocol's parameters for a cohort, or plan a run over tables.

    How many rows do I need? No data are read, declarations alone:

      secure-afl params 5 --columns 12 --site-rows 400 --epsilon 2 --max-rows 512

    Of a number, or of odds ratios:

      secure-afl params 5 --columns 12 --site-rows 400 --method regression
      secure-afl params 5 --columns 12 --site-rows 400 --method logistic
    """
    if columns is not None:
        _show_plan(clients, columns, site_rows, classes, json_file, settings)
        return
    planned = {"site_rows": site_rows, "classes": classes, "json": json_file}
    given = [name for name, value in planned.items() if value is not None]
    given += [name for name in settings if name in _PLANNED]
    if given:
        raise ConfigError(
            f"--{given[0].replace('_', '-')} has no effect without --columns, which plans a run "
            "over tables; give that, or leave it out"
        )
    _show_pairwise(clients, settings)


def _show_plan(
    sites: int,
    columns: int,
    site_rows: int | None,
    classes: int | None,
    json_file: str | None,
    settings: dict[str, Any],
) -> None:
    """Plan a run over tables, and print what it would be."""
    from secure_afl.cli.description import show_plan
    from secure_afl.cli.tables import check_writable, write_json
    from secure_afl.runs.planner import plan_run
    from secure_afl.runs.settings import make_config

    if site_rows is None:
        raise ConfigError("--columns without --site-rows; say how many rows each site has")
    check_writable(json_file)
    config = make_config({"method": "afl", **settings})
    plan = plan_run(config, sites, site_rows, columns, classes)
    show_plan(people(json_file), plan)
    write_json(json_file, plan)


def _show_pairwise(clients: int, settings: dict[str, Any]) -> None:
    """Print neighbours, threshold and guarantees of the pairwise protocol for a cohort."""
    from protocols.schemes.pairwise import Pairwise
    from protocols.schemes.pairwise.parameters import describe, find_parameters
    from secure_afl.federation.task import majority
    from secure_afl.runs.settings import make_config

    config = make_config(settings, protocols=[Pairwise.name])
    if config.min_cohort is not None and config.min_cohort > clients:
        raise ConfigError(f"minimum cohort {config.min_cohort}, allowed: ≤ {clients} clients")
    terms = Pairwise(**config.given_to(Pairwise))
    found = find_parameters(
        clients,
        terms.corrupt_fraction,
        terms.dropout_fraction,
        terms.server_trust,
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
    printer(soft_wrap=True).print(table)


@with_flags(lambda: run_settings("backbone", "checkpoint", "image_size"))
def doctor(**settings: Any) -> None:
    """Check this machine: versions, GPU, AES, cache, a small sum and, if named, a backbone."""
    from secure_afl.runs import doctor as checks

    found = checks.checks()
    backbone = settings.pop("backbone", None)
    if backbone is None and settings:
        raise ConfigError("--checkpoint and --image-size go with --backbone")
    if backbone is not None:
        found.append(
            checks.backbone(backbone, settings.get("checkpoint"), settings.get("image_size"))
        )
    table = Table("check", "found", box=None)
    for check in found:
        table.add_row(check.name, check.found, style=None if check.good else "bold red")
    people().print(table)
    if not all(check.good for check in found):
        raise ConfigError("this machine is not fit to run; see the red lines")


def schema(
    of: Annotated[
        str, typer.Argument(metavar="[run|model|account]", help="Settings, a card, an account.")
    ] = "run",
) -> None:
    """Print the JSON Schema of run.toml, for editors that check as you type, or of a result."""
    import msgspec

    from secure_afl.data.account import Account
    from secure_afl.methods.artefact import Card
    from secure_afl.runs.settings import json_schema

    schemas: dict[str, Callable[[], dict[str, Any]]] = {
        "run": json_schema,
        "model": lambda: msgspec.json.schema(Card),
        "account": lambda: msgspec.json.schema(Account),
    }
    if of not in schemas:
        raise ConfigError(f"'{of}' has no schema; allowed: {', '.join(schemas)}")
    typer.echo(json.dumps(schemas[of](), indent=2, ensure_ascii=False))
