"""`secure-afl`: the command line, and the one place that knows all packages."""

import io
import logging
import sys
from typing import Annotated

import typer
from rich.logging import RichHandler

from protocols.errors import ProtocolError
from secure_afl.cli.tables import _errors
from secure_afl.errors import SecureAflError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="One-shot federated learning over sums that nobody can look into.\n\n"
    "Start with `secure-afl demo`; then point `run` at your own folders:\n\n"
    "  secure-afl run --clients 'sites/*' --test test --backbone timm:resnet18",
)


def main() -> None:
    """Entry point: errors end in one line and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show ≥ shows something else; the run is not lost for it.
            stream.reconfigure(errors="replace")
    try:
        app()
    except (SecureAflError, ProtocolError, OSError, MemoryError) as error:
        _errors.print(
            f"Error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(2)


@app.callback()
def options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log what happens, to standard error.")
    ] = False,
) -> None:
    """Options before any command."""
    if verbose:
        handler = RichHandler(console=_errors, show_path=False)
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])


# The commands register themselves.
from attacks import cli as _attack  # noqa: E402, F401
from secure_afl.cli import ledger, machine, models, run, tune  # noqa: E402, F401
