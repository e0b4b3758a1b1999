"""`secure-afl keygen` and `secure-afl roster`: keys of parties, and the list that all pin."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from secure_afl.cli.plain import Group

if TYPE_CHECKING:
    from protocols.roster import Line, Roster
    from secure_afl.federation.rosters import Change

RosterFile = Annotated[Path, typer.Argument(metavar="FILE", help="A roster.")]


def keygen(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="One or more party names.")],
    role: Annotated[
        str,
        typer.Option(
            metavar="ROLE",
            help="client, or a coordinator's: collector, aggregator, server, key_holder.",
        ),
    ] = "client",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the keys.")] = Path("keys"),
) -> None:
    """Make a party's private key, and the public line that it sends to the others.

    DIR/NAME.identity is private and stays on the party's machine. Send DIR/NAME.public.json to
    whoever merges the roster, and read its fingerprint aloud to them.

      secure-afl keygen north

      secure-afl keygen university --role collector

    For a simulation, several names make a folder of everybody's keys, with their roster.json; later
    keys of that folder are added to it:

      secure-afl keygen north south west
    """
    from secure_afl.federation.keys import ROSTER, identity_path, public_path
    from secure_afl.federation.keys import keygen as make

    made = make(names, role, out)
    for line in made.lines:
        typer.echo(_words(line))
        typer.echo(f"  private, stays here:     {identity_path(out, line.name)}")
        typer.echo(f"  public, send to others:  {public_path(out, line.name)}")
    if made.roster is not None:
        typer.echo(f"{out / ROSTER} is now {_edition(made.roster)}")


roster = Group(
    "Merge, show and change the roster: the list of parties that all of them pin.\n\n"
    "Every party makes its key (secure-afl keygen) and sends its public line. One of them merges "
    "the lines and sends the roster to all, who compare its fingerprint over another channel.",
)


@roster.command()
def merge(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE…", help="Public lines (NAME.public.json) and rosters."),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The roster; one that is there is merged too.")
    ] = Path("roster.json"),
) -> None:
    """Merge public lines and rosters into one roster.

    The roster gets the next number. Lines that contradict each other are refused. If one of the
    rosters is the latest and has exactly the merged lines, its number stays.

      secure-afl roster merge north.public.json south.public.json --out roster.json
    """
    from secure_afl.federation.rosters import merge

    _tell(out, merge(out, files))


@roster.command()
def show(
    file: RosterFile,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Print a roster, with fingerprints to read aloud.

    FILE may be a public line too.

      secure-afl roster show roster.json
    """
    from secure_afl.federation.rosters import read

    edition = read(file)
    shown = edition.roster
    if as_json:
        members, revoked = (
            [
                {
                    "name": line.name,
                    "role": line.role,
                    "verify_key": line.verify_key.hex(),
                    "fingerprint": line.fingerprint,
                }
                for line in lines
            ]
            for lines in (shown.lines, edition.revoked)
        )
        said = {
            "number": shown.number,
            "digest": shown.digest.hex(),
            "fingerprint": shown.fingerprint,
            "members": members,
            "revoked": revoked,
        }
        typer.echo(msgspec.json.format(msgspec.json.encode(said), indent=2).decode())
        return
    if shown.number:
        typer.echo(f"number       {shown.number}")
        typer.echo(f"digest       {shown.digest.hex()}")
        typer.echo(f"fingerprint  {shown.fingerprint}")
    for line in shown.lines:
        typer.echo(_words(line))
    for line in edition.revoked:
        typer.echo(f"revoked: {_words(line)}")


@roster.command()
def replace(
    file: RosterFile,
    public: Annotated[
        Path, typer.Argument(metavar="PUBLIC", help="The party's new line: NAME.public.json.")
    ],
) -> None:
    """Put a party's new key in its old one's place.

    Use it where a key was lost, leaked or rotated. The old key is revoked: no file brings it back.

      secure-afl roster replace roster.json north.public.json
    """
    from secure_afl.federation.rosters import replace

    _tell(file, replace(file, public))


@roster.command()
def revoke(
    file: RosterFile,
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="One or more parties.")],
) -> None:
    """Take parties out of a roster.

    Their keys are revoked: no file brings them back.

      secure-afl roster revoke roster.json west
    """
    from secure_afl.federation.rosters import revoke

    _tell(file, revoke(file, names))


def _tell(file: Path, change: "Change") -> None:
    """Say what a change did, and what everybody has to do now."""
    for line in change.removed:
        typer.echo(f"taken out: {_words(line)}")
    for line in change.added:
        typer.echo(f"added:     {_words(line)}")
    for line in change.refused:
        typer.echo(f"left out:  {_words(line)} (revoked)")
    edition = change.edition.roster
    if not change.changed:
        typer.echo(f"{file} has all of it already, and stays {_edition(edition)}")
        return
    typer.echo(f"{file} is now {_edition(edition)}")
    typer.echo(
        f"All parties have to exchange number {edition.number}: send them {file}, and compare its "
        "fingerprint over another channel (secure-afl roster show). Until then each party goes by "
        "the roster that it has."
    )


def _words(line: "Line") -> str:
    return f"{line.name}  {line.role}  {line.fingerprint}"


def _edition(roster: "Roster") -> str:
    return f"number {roster.number}, fingerprint {roster.fingerprint}"
