"""`secure-afl deploy`: federations between machines over Flower."""

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from secure_afl.cli.plain import Group

deploy = Group(
    "Federate between machines over Flower: a demo on this one, and an operator's files.",
)


@deploy.command()
def demo(
    protocol: Annotated[
        str, typer.Option(metavar="NAME", help="additive, pairwise or ckks.")
    ] = "additive",
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep all files: keys, settings, logs, models."),
    ] = None,
) -> None:
    """Run three sites over Flower on this machine, and compare their model with its oracle.

    A SuperLink with TLS, a SuperNode for each party, and one `flwr run`: hand signs if
    SECURE_AFL_DATA names a folder that has them, else the embedded digits. Takes some minutes.
    """
    from secure_afl.cli.console import progress
    from secure_afl.errors import ConfigError, RunFailed
    from secure_afl.flower.deploy.demo import demonstrate
    from secure_afl.flower.deploy.layout import PROTOCOLS

    if protocol not in PROTOCOLS:
        raise ConfigError(f"protocol {protocol!r}, allowed: {', '.join(PROTOCOLS)}")
    # Whoever ends the demo ends what the demo began.
    signal.signal(signal.SIGTERM, _leave)
    with progress() as advance:
        shown = demonstrate(protocol, keep, typer.echo, advance)
    if not shown.equal:
        raise RunFailed("the model is NOT that of the rows in one place; please report this")
    accuracy = "" if shown.accuracy is None else f", {shown.accuracy:.1%} on the test data"
    typer.echo(
        f"{shown.protocol}: {shown.clients} sites in the sum{accuracy}. The model is that of the "
        f"rows in one place, bit for bit, here and at all sites. {shown.seconds / 60:.1f} minutes, "
        f"of which the run {shown.run_seconds / 60:.1f}"
    )


@deploy.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder for all files.")],
    host: Annotated[str, typer.Option(metavar="NAME", help="By which sites reach the SuperLink.")],
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Of the proxy, to which sites connect.")
    ] = 443,
    upstream: Annotated[
        int, typer.Option(min=1, max=65535, help="Of the SuperLink, on this machine alone.")
    ] = 8000,
    user: Annotated[
        str, typer.Option(metavar="NAME", help="Unprivileged, for SuperLink and SuperNodes.")
    ] = "blind-sum",
) -> None:
    """Write an operator's files: certificates, bundle, proxy, units, and what to do next."""
    from secure_afl.errors import ConfigError
    from secure_afl.flower.deploy.operator import Plan, write_all

    if port == upstream:
        raise ConfigError(f"--port and --upstream are both {port}; the proxy needs one of its own")
    for path in write_all(Plan(folder.resolve(), host, port, upstream, user)):
        typer.echo(path)
    typer.echo(f"Next: {folder / 'README.md'}")


def _leave(number: int, frame: Any) -> None:
    sys.exit(128 + number)
