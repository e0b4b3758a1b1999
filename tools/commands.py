"""All commands and their flags, as docs/commands.md.

    python -m tools.commands            # writes the page
    python -m tools.commands --check    # fails unless it is up to date

The page is what `--help` says, from the command line itself.
"""

import re
import sys
import textwrap
from collections.abc import Iterator

import click
import typer.main

from secure_afl.cli.main import OWN, app
from tools.documents import ROOT

PAGE = ROOT / "docs" / "commands.md"

_INTRODUCTION = """# Commands and flags

`make commands` writes this page from the command line, which says the same with `--help`. A flag
of `run` is a key of `run.toml`, too. Where the text begins with names of methods or protocols, the
flag is theirs. With any other it is refused. [running.md](running.md) shows the commands at work.

"""
_EXAMPLE = re.compile(r"^ +secure-afl ")


def main() -> None:
    """Write the page anew, or check it."""
    if sys.argv[1:] == ["--check"]:
        if PAGE.read_text(encoding="utf-8") != page():
            sys.exit(f"{PAGE} is not what the command line says; write it anew: make commands")
        return
    PAGE.write_text(page(), encoding="utf-8", newline="\n")


def page() -> str:
    """Render the page from the project's own commands."""
    root = typer.main.get_command(app)
    contexts = list(_commands(click.Context(root, info_name="secure-afl")))
    (run,) = (_rows(context) for context in contexts if context.info_name == "run")
    return _INTRODUCTION + "\n".join(_section(context, run) for context in contexts)


def _commands(context: click.Context) -> Iterator[click.Context]:
    """Yield a context for each command, and for each that is in a group."""
    group = context.command
    assert isinstance(group, click.Group)
    for name in (*OWN, "attack") if context.parent is None else group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        inner = click.Context(command, info_name=name, parent=context)
        yield inner
        if isinstance(command, click.Group):
            yield from _commands(inner)


def _section(context: click.Context, of_run: dict[str, str]) -> str:
    """Render a command; flags that are `run`'s are told there."""
    command = context.command
    text = f"## `{context.command_path}`\n\n{_help(command.help or '')}"
    if isinstance(command, click.Group):
        return text.rstrip() + "\n"
    usage = f"{context.command_path} {' '.join(command.collect_usage_pieces(context))}"
    text += f"```text\n{usage}\n```\n"
    rows = _rows(context)
    as_run = [] if context.info_name == "run" else [n for n in rows if rows[n] == of_run.get(n)]
    if own := [row for name, row in rows.items() if name not in as_run]:
        text += "\n| flag | value | what it does |\n|---|---|---|\n" + "".join(own)
    if as_run:
        first = " ".join(names.split(",")[0].strip("`") for names in as_run)
        text += "\nThese mean what they mean for [`run`](#secure-afl-run):\n\n"
        text += f"```text\n{textwrap.fill(first, 100, break_on_hyphens=False)}\n```\n"
    return text


def _help(text: str) -> str:
    """Return a help text as paragraphs, and its examples as shell."""
    parts = []
    for part in re.split(r"\n\s*\n", text.strip()):
        lines = part.splitlines()
        words = [line.strip() for line in lines if not _EXAMPLE.match(line)]
        examples = [line.strip() for line in lines if _EXAMPLE.match(line)]
        if words:
            parts.append(_plain(" ".join(words)))
        if examples:
            parts.append("\n".join(["```sh", *examples, "```"]))
    return "\n\n".join(parts).replace("\n```\n\n```sh\n", "\n") + "\n\n"


def _rows(context: click.Context) -> dict[str, str]:
    """Render the arguments and flags of a command: a row of the table for each, by its names."""
    return {_names(one) or (one.name or ""): _row(context, one) for one in context.command.params}


def _row(context: click.Context, one: click.Parameter) -> str:
    is_switch = isinstance(one, click.Option) and one.is_flag
    value = "" if is_switch else f"`{one.make_metavar(context)}`".replace("|", "\\|")
    record = one.get_help_record(context)
    words = "" if record is None else record[1].replace("\\[", "[")
    return f"| {_names(one)} | {value} | {_plain(words)} |\n"


def _names(one: click.Parameter) -> str:
    """Return a flag's names; empty for an argument."""
    if not isinstance(one, click.Option):
        return ""
    return ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))


def _plain(text: str) -> str:
    """Return a text that Markdown shows as it is."""
    text = re.sub(r"\s+", " ", text)
    return re.sub(r"([*|\[\]])", r"\\\1", text.replace("<", "&lt;"))


if __name__ == "__main__":
    main()
