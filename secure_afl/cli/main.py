"""`secure-afl`: the command line, whose commands are found by their names.

The project's own commands are listed here; other packages announce theirs by entry points of the
group `secure_afl.commands`, whose objects are functions or `typer.Typer` applications. A command's
module is imported when the command or the list of commands is asked for.
"""

import importlib
import inspect
import io
import logging
import sys
from importlib.metadata import entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from protocols.errors import BrokenExtension, SecureAflError
from secure_afl.cli.console import errors
from secure_afl.cli.options import Flagged
from secure_afl.cli.plain import Command
from secure_afl.texts import at_home

OWN = {
    "demo": "secure_afl.cli.run",
    "inspect": "secure_afl.cli.accounts",
    "run": "secure_afl.cli.run",
    "tune": "secure_afl.cli.tune",
    "ledger": "secure_afl.cli.ledger",
    "evaluate": "secure_afl.cli.models",
    "predict": "secure_afl.cli.models",
    "party": "secure_afl.cli.sites",
    "site": "secure_afl.cli.sites",
    "deploy": "secure_afl.cli.deploy",
    "keygen": "secure_afl.cli.keys",
    "roster": "secure_afl.cli.keys",
    "params": "secure_afl.cli.machine",
    "doctor": "secure_afl.cli.machine",
    "schema": "secure_afl.cli.machine",
}
GROUP = "secure_afl.commands"


class Commands(TyperGroup):
    """The commands by name, each imported when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """List the project's commands, then those of other packages."""
        return list(dict.fromkeys([*OWN, *(entry.name for entry in entry_points(group=GROUP))]))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Make a command; None where there is none of this name.

        Raises:
            BrokenExtension: another package's command cannot be imported.
        """
        found = _found(cmd_name)
        return None if found is None else _command(cmd_name, found)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands by their first sentences, without making their flags."""
        rows = []
        for name in self.list_commands(ctx):
            try:
                found = _found(name)
            except BrokenExtension as error:
                rows.append((name, str(error)))
                continue
            rows.append((name, (inspect.cleandoc(_help(found)).splitlines() or [""])[0]))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="One-shot federated learning over sums that nobody can look into.\n\n"
    "Start with `secure-afl demo`; then point `run` at your own folders:\n\n"
    "  secure-afl run --clients 'sites/*' --test test --backbone timm:resnet18",
)


def main() -> None:
    """Run the command that the arguments name.

    Errors end in one line and exit code 2.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # One output everywhere. What is no Unicode, as names of files may be, is spelt out.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
    try:
        app(args=[_at_home(argument) for argument in sys.argv[1:]])
    except (SecureAflError, OSError, MemoryError) as error:
        words = ". ".join([str(error), *getattr(error, "__notes__", ())])
        errors().print(
            f"Error: {words}", style="bold red", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(2)


def _at_home(argument: str) -> str:
    """Return an argument with the home directory for the ~ that no shell has seen."""
    flag, equals, value = argument.partition("=")
    if argument.startswith("--") and equals:
        return f"{flag}={at_home(value)}"
    return at_home(argument)


def _found(name: str) -> Any:
    """Find what a command's name stands for; None for nothing."""
    if name in OWN:
        return getattr(importlib.import_module(OWN[name]), name)
    for entry in entry_points(group=GROUP, name=name):
        try:
            return entry.load()
        except Exception as error:
            raise BrokenExtension(
                f"the command '{name}' of {entry.value} cannot be imported: "
                f"{type(error).__name__}: {error}",
                fix="update or uninstall the package that brings it",
            ) from error
    return None


def _help(found: Any) -> str:
    """Return the text that explains a command or a group of commands; empty for none."""
    if isinstance(found, typer.Typer):
        return found.info.help or ""
    return getattr(found.command if isinstance(found, Flagged) else found, "__doc__", "") or ""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"secure-afl {version('secure-afl')}")
        raise typer.Exit


@app.callback()
def options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log what happens, to standard error.")
    ] = False,
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_version),
    ] = False,
) -> None:
    """Set what holds for every command."""
    if verbose:
        from rich.logging import RichHandler

        handler = RichHandler(console=errors(), show_path=False)
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])


def _command(name: str, found: Any) -> Any:
    """Return a command or a group of commands as click has them."""
    if isinstance(found, typer.Typer):
        command = typer.main.get_command(found)
    else:
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(name, cls=Command)(found.function() if isinstance(found, Flagged) else found)
        command = typer.main.get_command(single)
    command.name = name
    return command
