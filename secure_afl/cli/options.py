"""Flags of the command line, made from the structs of settings."""

import functools
import inspect
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

from protocols.errors import BrokenExtension

if TYPE_CHECKING:
    from protocols.registry import Option

JsonFile = Annotated[
    str | None,
    typer.Option(
        "--json", metavar="FILE", help="Write the report as JSON to FILE; - for standard output."
    ),
]


def run_settings(*names: str) -> list["Option"]:
    """Describe settings of a run; without names all of them, and all options."""
    from secure_afl.runs.config import FIELDS
    from secure_afl.runs.settings import declared_options, setting

    return [setting(name) for name in names or (*FIELDS, *declared_options())]


@dataclass(frozen=True)
class Flagged:
    """A command with flags for settings, which are made when the command is asked for.

    Attributes:
        command: takes the settings as keyword arguments.
        settings: of each flag.
    """

    command: Callable[..., None]
    settings: Callable[[], Iterable["Option"]]

    def function(self) -> Callable[..., None]:
        """Make the function that typer reads: a flag for each setting."""
        command = self.command
        flags = [_parameter(option) for option in self.settings()]
        taken = {"help", "version", *inspect.signature(command).parameters}
        for parameter in flags:
            if parameter.name in taken:
                raise BrokenExtension(
                    f"two settings are called '{parameter.name}', of which one is a command's own",
                    fix="rename the option of the class that declares it",
                )
            taken.add(parameter.name)
        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        generated = {parameter.name for parameter in flags}

        @functools.wraps(command)
        def called(**values: Any) -> None:
            given = {
                name: value
                for name, value in values.items()
                if name not in generated or value is not None
            }
            command(**given)

        # What typer reads.
        called.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[p.replace(kind=p.KEYWORD_ONLY) for p in own] + flags
        )
        called.__annotations__ = {
            **{name: kind for name, kind in command.__annotations__.items() if name != "settings"},
            **{parameter.name: parameter.annotation for parameter in flags},
        }
        return called


def with_flags(
    settings: Callable[[], Iterable["Option"]],
) -> Callable[[Callable[..., None]], Flagged]:
    """Give a command a flag for each setting, in the place of its `**settings`.

    The command is called with the settings that were given, and with no others.

    Args:
        settings: lists them when the command is asked for, and not when it is imported.
    """
    return lambda command: Flagged(command, settings)


def _parameter(option: "Option") -> inspect.Parameter:
    from secure_afl.runs.settings import flag

    kind, choices = _plain(option.type)
    name = flag(option.name)
    declaration = f"{name}/--no-{name[2:]}" if kind is bool else name
    described = typer.Option(
        declaration,
        metavar=None if kind is bool else option.metavar or "|".join(choices) or None,
        help=option.description,
        show_default=False,
        parser=_number_or_word if kind is object else None,
    )
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, described],
    )


def _number_or_word(text: str) -> Any:
    """Return the number that a text is, or the text; what is allowed is checked with the others."""
    try:
        return float(text)
    except ValueError:
        return text


def _plain(annotation: Any) -> tuple[Any, tuple[str, ...]]:
    """Return the type of a flag's value, and the words that it may be.

    Lists are words with commas; `object` is a number or a word.
    """
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [_plain(kind) for kind in get_args(annotation) if kind is not types.NoneType]
        words = tuple(word for _, choices in kinds for word in choices)
        # A number or one of a few words: neither type of typer's takes both.
        return (object, words) if words and kinds[0][0] is float else kinds[0]
    if get_origin(annotation) is Literal:
        return str, get_args(annotation)
    return (annotation if annotation in (bool, int, float) else str), ()
