"""The command line as a person meets it, but in this process."""

import sys
import warnings
from typing import NamedTuple

import pytest

with warnings.catch_warnings():
    # typer uses names that click means to remove.
    warnings.simplefilter("ignore", DeprecationWarning)
    import click
    import typer

    from secure_afl.cli import main as cli


class Outcome(NamedTuple):
    """What a command ended with."""

    code: int
    out: str
    err: str


class Command:
    """Runs `secure-afl` with the given arguments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Outcome:
        self._monkeypatch.setattr(sys, "argv", ["secure-afl", *map(str, arguments)])
        self._capsys.readouterr()
        code: int | str | None = 0
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*click", category=DeprecationWarning)
            try:
                cli.main()
            except SystemExit as exit_:
                code = exit_.code
        out, err = self._capsys.readouterr()
        assert isinstance(code, int | None)
        return Outcome(code or 0, out, err)

    def well(self, *arguments: object) -> Outcome:
        """Run a command that must end well."""
        outcome = self(*arguments)
        assert outcome.code == 0, outcome.err
        return outcome

    def badly(self, *arguments: object) -> str:
        """Run a command that must be refused, in one line without a traceback: that line."""
        outcome = self(*arguments)
        assert outcome.code == 2, outcome
        (line,) = outcome.err.strip().splitlines()
        assert line.startswith("Error: ")
        assert outcome.out == ""
        return line


def run_flags() -> dict[str, tuple[str | None, str]]:
    """The flags of `secure-afl run`: the argument that each sets, and its help."""
    group = typer.main.get_group(cli.app)
    parser = group.get_command(click.Context(group), "run")
    assert parser is not None
    return {
        flag: (parameter.name, getattr(parameter, "help", None) or "")
        for parameter in parser.params
        for flag in parameter.opts
    }
