"""Where commands print, and how they show progress."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from rich.console import Console

from secure_afl.progress import Progress

# Without a terminal a line is printed so often, in seconds.
LINE_EVERY = 15.0
_LINES = 3


def printer(**options: Any) -> Console:
    """Make a console that prints text as it is.

    Class names and paths come from data: brackets are no markup, and colons no emoji.
    """
    return Console(markup=False, emoji=False, highlight=False, **options)


@cache
def errors() -> Console:
    """Return the console of standard error."""
    return printer(stderr=True)


def people(json_file: str | None = None) -> Console:
    """Return where people read: JSON on standard output is for programs, and leaves them errors."""
    return errors() if json_file == "-" else printer()


def few_lines(console: Console, lines: Sequence[str], rest: str) -> None:
    """Print warnings, the first ones first, in three lines at most.

    Args:
        rest: where the others are to be read.
    """
    shown = lines if len(lines) <= _LINES else lines[: _LINES - 1]
    for line in shown:
        console.print(line, style="yellow", soft_wrap=True)
    if more := len(lines) - len(shown):
        console.print(f"… and {more} more: {rest}.", style="yellow", soft_wrap=True)


@contextmanager
def progress() -> Iterator[Progress]:
    """Show progress on standard error: bars on a terminal, a line now and then elsewhere."""
    if errors().is_terminal:
        with _bars() as advance:
            yield advance
    else:
        yield _Lines()


class _Lines:
    """Lines on how far work is, printed every `LINE_EVERY` seconds.

    Work that is quicker prints none.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._last >= LINE_EVERY:
            self._last = time.monotonic()
            amount = f"{done} of {total}" if _is_counted(what) else f"{done / max(total, 1):.0%}"
            errors().print(f"{what}: {amount}", highlight=False)


@contextmanager
def _bars() -> Iterator[Progress]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Task,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Done(TaskProgressColumn):
        def render(self, task: Task) -> Text:
            """Render done of total where the number may be shown, a percentage elsewhere."""
            if _is_counted(task.description):
                return MofNCompleteColumn().render(task)
            return super().render(task)

    columns = (TextColumn("{task.description}"), BarColumn(), Done())
    with Bars(*columns, TimeRemainingColumn(), console=errors(), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield advance


def _is_counted(what: str) -> bool:
    """Say whether the number may be shown: numbers of rows may be private."""
    return what in ("points", "canaries", "cells")
