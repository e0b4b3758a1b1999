"""`secure-afl params`, `doctor` and `schema`: parameters, and what this machine can do."""

import json
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.table import Table

from secure_afl.cli.console import people, printer
from secure_afl.cli.options import run_settings, with_flags
from secure_afl.errors import ConfigError


@with_flags(
    lambda: run_settings("corrupt_fraction", "dropout_fraction", "server_trust", "min_cohort")
)
def params(
    clients: Annotated[
        int, typer.Argument(metavar="N", help="Number of clients.", min=2, max=100_000)
    ],
    **settings: Any,
) -> None:
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
