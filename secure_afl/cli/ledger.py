"""`secure-afl ledger`."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from secure_afl.errors import ConfigError

if TYPE_CHECKING:
    from secure_afl.privacy.ledger import Ledger


def ledger(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A ledger of run --ledger.")],
    raise_budget: Annotated[
        float | None,
        typer.Option(
            metavar="ε",
            help="Allow this ε in all from now on, at the same δ. That weakens the promise which "
            "was made to those whose data it is, also about what is released already: ask them.",
        ),
    ] = None,
) -> None:
    """Print what was released about each lineage of data, and the budget spent on it.

    A lineage is a folder or file and all that becomes of it. ε so far is that of all releases up
    to a line, at the budget's δ.

      secure-afl ledger ledger.json
    """
    from secure_afl.privacy.ledger import Ledger

    if not file.is_file():
        raise ConfigError(f"{file} is no ledger; name the file of run --ledger")
    book = Ledger.open(file)
    if raise_budget is not None:
        _raise_budget(book, raise_budget)
    _show_ledger(book)


def _raise_budget(book: "Ledger", epsilon: float) -> None:
    budget = book.budget
    if budget is None:
        raise ConfigError(
            f"{book.path} keeps no budget that could be raised; set one with run --ledger --budget"
        )
    if not epsilon > budget.epsilon:
        raise ConfigError(f"--raise-budget {epsilon:g}; allowed: above {budget.epsilon:g}, the old")
    book.raise_budget(msgspec.structs.replace(budget, epsilon=epsilon))


def _show_ledger(book: "Ledger") -> None:
    from secure_afl.cli.tables import finite

    console, budget = Console(), book.budget
    # Opened, so that it is known to be a ledger.
    entries = json.loads(book.path.read_text(encoding="utf-8"))["entries"]
    for lineage in dict.fromkeys(entry["lineage"] for entry in entries):
        table = Table("when", "run", title=Text(lineage), title_justify="left", box=None)
        table.add_column("rounds", justify="right")
        table.add_column("mechanism", overflow="fold")
        table.add_column("ε so far", justify="right")
        for entry in book.entries(lineage):
            table.add_row(
                f"{entry.when:%Y-%m-%d %H:%M}",
                entry.run[:8],
                f"{entry.rounds}",
                Text(entry.mechanism),
                finite(math.inf if entry.mu is None else entry.epsilon),
            )
        console.print(table)
        spent = book.spent(lineage)
        words = f"Releases: {spent.releases}"
        if budget is not None and spent.epsilon is not None:
            words += f"; spent: ε = {finite(spent.epsilon)} of {budget.epsilon:g}"
        console.print(words, "\n", highlight=False)
    if not entries:
        console.print("Nothing was released.", highlight=False)
    console.print(
        "There is no budget: releases are recorded, and none but a second exact sum is refused."
        if budget is None
        else f"Budget: ε = {budget.epsilon:g} at δ = {budget.delta:g} for one {budget.unit}, "
        f"{budget.neighbours}.",
        highlight=False,
    )
