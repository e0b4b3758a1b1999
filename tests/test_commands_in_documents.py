"""Commands in the documents exist, and take the flags that they are printed with."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from secure_afl.cli.main import app
from tests.kit.printed import blocks
from tools.documents import ROOT, documents

PAGES = documents()


def commands(text: str) -> list[list[str]]:
    """The words of each `secure-afl …` in a document's shell blocks, without the program."""
    found = []
    for language, block in blocks(re.sub(r"^ {4}", "", text, flags=re.MULTILINE)):
        if language not in ("sh", "console", "bat"):
            continue
        for line in re.split(r"\n|&&|;|\||\bdo\b|\$\(", block.replace("\\\n", " ")):
            if not re.search(r"(^|[\s(/\\])secure-afl\s", line):
                continue
            words = shlex.split(line.strip(" ()&").replace("\\", "/"), comments=True)
            place = next((i for i, w in enumerate(words) if w.endswith("secure-afl")), None)
            if place is not None:
                found.append(words[place + 1 :])
    return found


def check(words: list[str]) -> None:
    """Assert that a command and its flags are there."""
    import click

    command = typer.main.get_command(app)
    context = click.Context(command)
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        inner = command.get_command(context, name)
        assert inner is not None, f"no command {name}: {words}"
        command = inner
    flags = {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)}
    for word in rest:
        if word.startswith("--"):
            assert word.partition("=")[0] in {*flags, "--help"}, f"{word}: {words}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_are_there_with_their_flags(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        check(words)


def test_commands_are_found() -> None:
    text = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
    found = commands(text)
    assert len(found) >= 30
    assert ["keygen", "university", "--role", "collector"] in found


@pytest.mark.parametrize("wrong", ["run --no-such-flag", "no-such-command", "site init --keys x"])
def test_what_is_not_there_is_noticed(wrong: str) -> None:
    with pytest.raises(AssertionError, match=r"no-such|--keys"):
        check(wrong.split())
