"""One process at a site: from its settings to its part in one run.

What only the convener needs, and what only the end of a run needs, is imported then: a client's
process starts quickly.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from protocols.roster import CLIENT
from protocols.seats.seats import Seats
from secure_afl.errors import ConfigError
from secure_afl.federation.keys import pinned_identity, pinned_roster
from secure_afl.progress import Progress
from secure_afl.sites.mailroom import open_mailroom
from secure_afl.sites.party import SiteParty, check_bound, open_site_ledger, site_rows
from secure_afl.sites.settings import read_run, read_site
from secure_afl.sites.state import State

if TYPE_CHECKING:
    from secure_afl.sites.convene import ConvenedReport
    from secure_afl.sites.prepared import Prepared


def take_part(
    file: Path,
    post: str,
    tell: Callable[[str], None],
    *,
    config: Path | None = None,
    new_ledger: bool = False,
    progress: Progress | None = None,
) -> "ConvenedReport | None":
    """Take part in one run, to its end; a process that was killed goes on where it was.

    Args:
        file: the site's settings.
        post: that reaches the others, `folder:PATH`.
        tell: is told in words what happens.
        config: the run's settings, at the one site that convenes it.
        new_ledger: begin the ledger of the site's file.

    Returns:
        At the convener, the report.

    Raises:
        SecureAflError: settings, keys, data or state that cannot be used, before anything is said.
        RunFailed: the run is over without a model.
    """
    site = read_site(file)
    mailroom = open_mailroom(post)
    out = None if site.place.out is None else Path(site.place.out)
    if out is not None:
        from secure_afl.runs.saving import check_folder, check_replaceable

        check_folder(out)
        check_replaceable(out, personal=False)
    party = SiteParty(site, tell, new_ledger=new_ledger, progress=progress)
    try:
        if party.convenes != (config is not None):
            raise ConfigError(
                f"'{party.name}' receives the sums and so forms the sessions: name the run's "
                "settings, --config run.toml"
                if party.convenes
                else f"--config has no effect for '{party.name}', which forms no sessions; leave "
                "it out"
            )
        if config is None:
            party.attend(mailroom)

            from secure_afl.sites.ending import finish

            finish(party)
            return None

        from secure_afl.sites.convene import Convention
        from secure_afl.sites.ending import convened

        convention = Convention(party, *read_run(config, site))
        party.attend(mailroom, convention.convening)
        report = convened(party, convention)
        party.forget()
        return report
    finally:
        party.close()


def leave(file: Path, tell: Callable[[str], None]) -> None:
    """Leave the run that a site's party is in; what was charged for its sums stays charged.

    Neither ledger nor data are wanted for that, and its memory may be damaged.

    Raises:
        SecureAflError: settings or keys that cannot be used, or a folder that cannot be written.
        Busy: another process is in the run.
    """
    place = read_site(file).place
    roster = pinned_roster(Path(place.roster))
    identity = pinned_identity(Path(place.identity), roster, role=place.role)
    state = State(Path(place.state), identity.name)
    try:
        seats = Seats(state.seats, identity)
        seats.end_all()
        if state.leave():
            seats.clear()
            tell(f"'{identity.name}' is in no run")
        else:
            tell(
                f"'{identity.name}' has left a run whose memory is damaged: its letters may be "
                "heard again, so take them out of the post"
            )
    finally:
        state.close()


def prepare_site(
    file: Path,
    tell: Callable[[str], None],
    *,
    new_ledger: bool = False,
    progress: Progress | None = None,
) -> "Prepared":
    """Make a client's features, and its ledger if asked, so that a session finds both.

    Args:
        file: the site's settings.
        tell: is told what looks wrong with the data.
        new_ledger: begin the ledger, which must not exist.

    Raises:
        SecureAflError: settings, keys, data or a ledger that cannot be used.
    """
    site = read_site(file)
    if site.place.role != CLIENT:
        raise ConfigError(f"{file} is of a {site.place.role}, which has no data to prepare")
    roster = pinned_roster(Path(site.place.roster))
    name = pinned_identity(Path(site.place.identity), roster, role=CLIENT).name
    rows = site_rows(site, name, tell, progress)
    check_bound(rows, site)
    ledger = open_site_ledger(site, new=new_ledger)
    if new_ledger:
        # It is on the disk now, not with the first release.
        ledger.take_over(None, ())
    return rows.prepared
