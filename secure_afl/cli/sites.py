"""`secure-afl party` and `secure-afl site`: federations between sites."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from secure_afl.cli.plain import Group

if TYPE_CHECKING:
    from secure_afl.sites.convene import ConvenedReport

SiteFile = Annotated[
    Path, typer.Option("--site", metavar="FILE", help="This site's settings, a site.toml.")
]


def party(
    site: SiteFile = Path("site.toml"),
    post: Annotated[
        str | None,
        typer.Option(
            metavar="folder:PATH",
            help="What reaches the others: a folder that is shared, synchronised, or carried by "
            "hand.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The run's settings, at the site that receives the sums."
        ),
    ] = None,
    new_ledger: Annotated[
        bool, typer.Option("--new-ledger", help="Begin this site's ledger.")
    ] = False,
    leave: Annotated[
        bool,
        typer.Option(
            "--leave", help="Leave the run that this site is in. What was released stays charged."
        ),
    ] = False,
) -> None:
    """Take part in one federation between sites, as the party of this site, to its end.

    A process that was stopped goes on where it was when it is started again.

      secure-afl party --site site.toml --post folder:/mnt/federation

    Whoever receives the sums forms the sessions, from the settings of the run:

      secure-afl party --site site.toml --post folder:/mnt/federation --config run.toml
    """
    from secure_afl.cli.console import errors, progress
    from secure_afl.errors import ConfigError
    from secure_afl.sites import process

    def tell(what: str) -> None:
        errors().print(what, markup=False, highlight=False, soft_wrap=True)

    if leave:
        process.leave(site, tell)
        return
    if post is None:
        raise ConfigError("no --post; name what reaches the others: --post folder:PATH")
    with progress() as advance:
        report = process.take_part(
            site,
            post,
            tell,
            config=config,
            new_ledger=new_ledger,
            progress=advance,
        )
    if report is not None:
        _show(report)


def _show(report: "ConvenedReport") -> None:
    """Print what came of a run, at its convener."""
    from secure_afl.cli.console import people
    from secure_afl.cli.fits import show_fits
    from secure_afl.runs.fits import numeric_lines

    said = [
        f"{report.method} over {report.protocol}: {len(report.included)} of {report.clients} "
        f"clients in the last sum, {report.rounds} in all"
    ]
    if report.accuracy is not None:
        said.append(f"{report.accuracy:.1%} on the test data")
    if report.pooled is not None and report.pooled.accuracy is not None:
        share, rows = report.pooled.accuracy.value, report.pooled.examples
        said.append(f"{share:.1%} on {rows:,} rows that all sites kept out")
    typer.echo("; ".join(said))
    if report.numeric is not None:
        lines = ", ".join(f"{name} {text}" for name, text in numeric_lines(report.numeric).items())
        typer.echo(f"on {report.numeric.examples:,} rows of test data: {lines}")
    show_fits(people(None), report.fits)


site = Group(
    "Write and check a site's settings: all that protects the site stands in one file.",
)


@site.command()
def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The party, as keygen named it.")],
    role: Annotated[
        str, typer.Option(metavar="ROLE", help="client, or a coordinator's role.")
    ] = "client",
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file.")] = Path("site.toml"),
) -> None:
    """Write a site.toml to be edited, with every key and what it means."""
    from protocols.files import create_durably
    from protocols.protocol import roles
    from secure_afl.errors import ConfigError
    from secure_afl.sites.settings import template

    if role not in roles():
        raise ConfigError(f"role {role!r}, allowed: {', '.join(roles())}")
    try:
        create_durably(out, template(role, name).encode())
    except FileExistsError:
        raise ConfigError(f"{out} exists; move it away") from None
    except OSError as error:
        raise ConfigError(f"{out} cannot be written ({error.strerror})") from None
    typer.echo(f"{out} written; edit it, then: secure-afl site check --site {out}")


@site.command()
def prepare(
    site: SiteFile = Path("site.toml"),
    new_ledger: Annotated[
        bool, typer.Option("--new-ledger", help="Begin this site's ledger.")
    ] = False,
) -> None:
    """Make this site's features once, so that no session waits for a network to be loaded."""
    from secure_afl.cli.console import progress
    from secure_afl.sites.process import prepare_site

    told: list[str] = []
    with progress() as advance:
        prepared = prepare_site(site, told.append, new_ledger=new_ledger, progress=advance)
    for what in told:
        typer.echo(what, err=True)
    about = prepared.about
    typer.echo(f"{len(prepared.labels)} rows of {prepared.width} features by {about.spec}, kept")


@site.command()
def check(
    site: SiteFile = Path("site.toml"),
    flwr_home: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The SuperNode's FLWR_HOME, where Flower runs this site."),
    ] = None,
    superlink: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="What the SuperNode connects to."),
    ] = None,
    root_certificates: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The SuperLink's authority.")
    ] = None,
) -> None:
    """Check everything that a run would need here, before any run: most dangerous first.

    Where Flower runs this site, as the SuperNode's user:

      secure-afl site check --flwr-home /var/lib/blind-sum/flwr --superlink HOST:443
    """
    from secure_afl.errors import ConfigError
    from secure_afl.sites.check import check_site

    findings = check_site(site, ledger_begun=flwr_home is not None)
    if flwr_home is not None:
        from itertools import chain

        from secure_afl.flower.check import Node, check_node

        node = Node(flwr_home, superlink, root_certificates)
        findings = chain(check_node(node), findings)
    elif superlink is not None or root_certificates is not None:
        flag = "--root-certificates" if superlink is None else "--superlink"
        raise ConfigError(f"{flag} has no effect without --flwr-home; leave it out")
    failed = 0
    for finding in findings:
        typer.echo(f"{'ok  ' if finding.fine else 'FAIL'} {finding.what}: {finding.words}")
        failed += not finding.fine
    if failed:
        raise typer.Exit(1)
