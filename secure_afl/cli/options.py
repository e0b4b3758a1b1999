"""Flags of the command line, made from the structs of settings."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from attacks.suite import config as suite_config
from secure_afl.errors import ConfigError
from secure_afl.runs.config import description

Describe = Callable[[str], str]


_JSON_HELP = "Write the report as JSON to FILE; - for standard output."


JsonFile = Annotated[str | None, typer.Option("--json", metavar="FILE", help=_JSON_HELP)]


def _flag(field: str, metavar: str | None = None, describe: Describe = description) -> Any:
    return typer.Option(
        "--" + field.replace("_", "-"), metavar=metavar, help=describe(field), show_default=False
    )


def _suite_flag(field: str, metavar: str) -> Any:
    return _flag(field, metavar, suite_config.description)


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"{flag} {text!r}; allowed: numbers with commas between") from None


def _whole_numbers(flag: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"{flag} {text!r}; allowed: whole numbers with commas between") from None
