"""Commands and groups of commands as typer makes them, with help in plain text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import typer
from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command that says where arguments too many come from."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as click does; paths that no parameter takes are a pattern without quotes."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            paths = [text for text in given if not text.startswith("-") and Path(text).exists()]
            if "unexpected extra argument" not in error.message or len(paths) < 2:
                raise
            hint = (
                f"if a pattern stands for {paths[0]}, {paths[1]} and others, quote it: "
                f"--clients '{Path(paths[0]).parent}/*'"
            )
            raise click.UsageError(f"{error.message}; {hint}", ctx) from None

    def get_help(self, ctx: Any) -> str:
        """Return the help, without the backslashes that typer writes before [required]."""
        return super().get_help(ctx).replace("\\[", "[")


class Group(typer.Typer):
    """A group of commands, each of which is a `Command`.

    Args:
        help: of the group.
        cls: its class.
    """

    def __init__(self, help: str, cls: type[TyperGroup] = TyperGroup) -> None:
        super().__init__(
            cls=cls,
            help=help,
            no_args_is_help=True,
            add_completion=False,
            rich_markup_mode=None,
        )

    def command(
        self, name: str | None = None, *, cls: type[TyperCommand] | None = Command, **options: Any
    ) -> Callable[[Any], Any]:
        """Add a command."""
        return super().command(name, cls=cls, **options)
