"""`secure-afl ledger`: look into a ledger, and change by hand what only its owner may change."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from protocols.errors import ProtocolError
from secure_afl.cli.console import people
from secure_afl.cli.plain import Group
from secure_afl.errors import ConfigError, LedgerRefusal

if TYPE_CHECKING:
    from secure_afl.privacy.ledger import Budget, Ledger

# So much of an id tells sessions apart, for people.
_SHOWN = 8


class _Commands(TyperGroup):
    """The commands, and a word for those who knew another `secure-afl ledger`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the arguments name.

        Raises:
            ConfigError: there is none of this name.
        """
        if args and args[0] not in self.list_commands(ctx) and not args[0].startswith("-"):
            raise ConfigError(
                f"'{args[0]}' is no command of secure-afl ledger; allowed: "
                f"{', '.join(self.list_commands(ctx))}. To look into a file: "
                f"secure-afl ledger show {args[0]}"
            )
        return super().resolve_command(ctx, args)


ledger = Group(
    "Show what was released about each lineage of data, raise a budget, give sessions back.",
    cls=_Commands,
)

_File = Annotated[Path, typer.Argument(metavar="FILE", help="A ledger of run --ledger.")]
_Keys = Annotated[
    Path | None,
    typer.Option(
        "--keys",
        metavar="DIR",
        help="The folder of run --keys, in which the ledger's head is kept, too.",
    ),
]


@ledger.command("show")
def show(
    file: _File,
    json_out: Annotated[bool, typer.Option("--json", help="Print JSON, with all ids.")] = False,
) -> None:
    """Print each run's releases about each lineage of data, and the budget spent on them.

    A lineage is a folder or file and all that becomes of it. ε is that of all releases up to the
    run's last, at the budget's δ.

      secure-afl ledger show ledger.json
    """
    from secure_afl.privacy.ledger import Ledger

    book = Ledger.look(file)
    if json_out:
        text = msgspec.json.format(msgspec.json.encode(_content(book)), indent=2)
        typer.echo(text.decode())
    else:
        _print(book)


@ledger.command("raise-budget")
def raise_budget(
    file: _File,
    budget: Annotated[float, typer.Option(metavar="ε", help="The new ε that is allowed in all.")],
    delta: Annotated[
        float | None, typer.Option(metavar="δ", help="The new δ. Default: the old one.")
    ] = None,
    keys: _Keys = None,
) -> None:
    """Allow more from now on. That weakens a promise: ask those whose data it is.

    The promise was made about what is released already, too.

      secure-afl ledger raise-budget ledger.json --budget 4
    """
    from secure_afl.privacy.ledger import Ledger

    book = Ledger.open(file, anchor=keys)
    old = book.budget
    if old is None:
        raise ConfigError(
            f"{book.path} keeps no budget that could be raised; set one with run --ledger --budget"
        )
    most = old.delta if delta is None else delta
    if not (budget > old.epsilon or most > old.delta):
        raise ConfigError(
            f"--budget {budget:g} --delta {most:g} raises nothing; allowed: above the old, "
            f"{old.epsilon:g} and {old.delta:g}"
        )
    new = msgspec.structs.replace(old, epsilon=budget, delta=most)
    book.raise_budget(new)
    typer.echo(f"Old budget: {old}\nNew budget: {new}")


@ledger.command("void")
def void(
    file: _File,
    session: Annotated[
        str, typer.Argument(metavar="SESSION", help="Id of the session, or its first 8 characters.")
    ],
    evidence: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The parties' voids, as a program of one's own has them; no command writes them.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Give it back without evidence, on your own word.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing; for scripts.")] = False,
    keys: _Keys = None,
) -> None:
    """Give a session back that failed: it costs nothing any more, to no lineage here.

    --force is your own word that no sum came out. Sites that are shown the voids that the parties
    signed give it back by themselves. A program that has them (protocols.void.Evidence, encoded)
    may write them to a file for --evidence; --keys has the roster then.

      secure-afl ledger void ledger.json 3f9a01c2 --force
    """
    from secure_afl.privacy.ledger import Ledger

    book = Ledger.open(file, anchor=keys)
    found = _session(book, session)
    proof = _read_evidence(evidence)
    if not force:
        _check_evidence(proof, found, keys)
        book.void(bytes.fromhex(found), "given back by its parties", proof)
        typer.echo("Given back by its parties.")
        return
    lineages = [name for name in book.lineages if book.knows(bytes.fromhex(found), name)]
    typer.echo(
        f"Session {found}, about {', '.join(lineages)}\n"
        "If its sum did come out after all, whoever has it will have two: an exact second one "
        "tells everything that changed in between, and noise protects less than the budget says. "
        "Nobody can take that back. Ask whoever receives the sums first."
    )
    if not yes:
        typed = typer.prompt(f"Type the session's id ({_SHOWN} characters or all) to go on")
        if typed.strip() not in (found, found[:_SHOWN]):
            raise ConfigError("that is not the session's id; nothing was changed")
    reason = "by hand, without evidence" if evidence is None else "by hand, evidence unchecked"
    book.void(bytes.fromhex(found), reason, proof)
    typer.echo("Given back.")


@ledger.command("import")
def import_(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A ledger of format 1.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The file to make.")],
    keys: _Keys = None,
) -> None:
    """Copy a ledger of an earlier version into a new file that is authenticated.

    Nobody can tell whether the old one was edited: its releases are marked as imported.
    """
    from secure_afl.privacy.ledger.imports import import_ledger

    book = import_ledger(old, new, keys)
    count = sum(len(book.entries(lineage)) for lineage in book.lineages)
    typer.echo(f"{count} releases are in {book.path}; use that file from now on.")


def _session(book: "Ledger", given: str) -> str:
    """Return the whole id of a session of the ledger."""
    ids = {entry.session for lineage in book.lineages for entry in book.entries(lineage)}
    found = [own for own in ids if own == given or (len(given) >= _SHOWN and own.startswith(given))]
    if len(found) != 1:
        raise ConfigError(
            f"{len(found)} sessions of {book.path} are '{given}'; wanted one whole id, or ≥ "
            f"{_SHOWN} characters of one: secure-afl ledger show --json lists them"
        )
    return found[0]


def _check_evidence(proof: bytes, session: str, keys: Path | None) -> None:
    """Raise LedgerRefusal unless parties that are pinned have given this session back."""
    from protocols.protocol import check_given_back
    from secure_afl.federation.keys import load_roster

    if not proof or keys is None:
        raise LedgerRefusal(
            "no evidence that the session failed. If you know it, pass --force; a program that has "
            "its parties' voids may write them for --evidence, with --keys for their roster"
        )
    try:
        given_back = check_given_back(proof, load_roster(keys)).hex()
    except ProtocolError as error:
        raise LedgerRefusal(f"that is no evidence that the session failed: {error}") from None
    if given_back != session:
        raise LedgerRefusal(f"the evidence is about session {given_back[:16]}, not this one")


def _read_evidence(file: Path | None) -> bytes:
    if file is None:
        return b""
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}); name a file") from None


def _content(book: "Ledger") -> dict[str, Any]:
    """Return what JSON tells of a ledger."""
    budget: Budget | None = book.budget
    lineages = []
    for name in book.lineages:
        spent = book.spent(name)
        runs = [run._asdict() for run in book.runs(name)]
        lineages.append(
            {
                "name": name,
                "shares_rows_with": book.shares(name),
                "releases": spent.releases,
                "epsilon": spent.epsilon,
                "runs": runs,
            }
        )
    return {"ledger": str(book.path), "budget": budget, "lineages": lineages}


def _print(book: "Ledger") -> None:
    from secure_afl.cli.tables import finite

    console, budget = people(), book.budget
    for lineage in book.lineages:
        title = Text(lineage)
        if shares := book.shares(lineage):
            title.append(f"  (counts as one with {', '.join(shares)}: they share rows)")
        table = Table(title=title, title_justify="left", box=None)
        for name in ("run", "rounds", "sessions", "void", "μ", "ε so far", "last"):
            table.add_column(name, no_wrap=True)
        for run in book.runs(lineage):
            table.add_row(
                run.run[:_SHOWN],
                f"{run.used} of {run.rounds}",
                _latest(run.sessions),
                _latest(run.void),
                "exact" if run.mu is None else f"{run.mu:.3g}",
                finite(run.epsilon),
                f"{run.when:%Y-%m-%d}",
            )
        console.print(table)
        spent = book.spent(lineage)
        words = f"Releases: {spent.releases}"
        if budget is not None and spent.epsilon is not None:
            words += f"; spent: ε = {finite(spent.epsilon)} of {budget.epsilon:g}"
        console.print(words, "\n", highlight=False)
    if not book.lineages:
        console.print("Nothing was released.", highlight=False)
    console.print(
        "There is no budget: releases are recorded, and none but a second exact sum is refused."
        if budget is None
        else f"Budget: ε = {budget.epsilon:g} at δ = {budget.delta:g} for one {budget.unit}, "
        f"{budget.neighbours}.",
        highlight=False,
    )


def _latest(sessions: Sequence[str]) -> str:
    """Write the last of some sessions, and how many came before it."""
    words = sessions[-1][:_SHOWN] if sessions else ""
    return f"{words} +{len(sessions) - 1}" if len(sessions) > 1 else words
