"""What `secure-afl site check` looks at: keys, roster, state, ledger, data, in order of danger."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from protocols.errors import SecureAflError
from protocols.roster import CLIENT
from protocols.seats.media import check_local
from secure_afl.errors import DataError
from secure_afl.federation.attending import convener_of
from secure_afl.federation.keys import pinned_identity, pinned_roster
from secure_afl.runs.choose import make_terms
from secure_afl.sites.party import check_bound, open_site_ledger, site_rows
from secure_afl.sites.settings import Site, read_site


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        what: it is.
        fine: nothing has to be done about it.
        words: what was found, or what is wrong and how to mend it.
    """

    what: str
    fine: bool
    words: str


def check_site(file: Path, *, ledger_begun: bool = False) -> Iterator[Finding]:
    """Look at everything that a run would need, the most dangerous first.

    Args:
        file: the site's settings; without readable ones nothing else is looked at.
        ledger_begun: a client's ledger has to be there, for nothing that runs will begin it.
    """
    try:
        site = read_site(file)
    except SecureAflError as error:
        yield Finding("settings", False, str(error))
        return
    looks: list[tuple[str, Callable[[Site], str]]] = [
        ("identity", _identity),
        ("roster", _roster),
        ("state", _state),
    ]
    if site.place.role == CLIENT:
        looks += [("ledger", partial(_ledger, begun=ledger_begun)), ("data", _data)]
    for what, look in looks:
        try:
            yield Finding(what, True, look(site))
        except SecureAflError as error:
            yield Finding(what, False, str(error))
        except OSError as error:
            yield Finding(what, False, unusable(error))


def unusable(error: OSError) -> str:
    """Say which file cannot be used, and why."""
    return f"{error.filename} cannot be used: {error.strerror}" if error.filename else str(error)


def _identity(site: Site) -> str:
    roster = pinned_roster(Path(site.place.roster))
    identity = pinned_identity(Path(site.place.identity), roster, role=site.place.role)
    return f"'{identity.name}', {roster.by_name[identity.name].fingerprint}"


def _roster(site: Site) -> str:
    roster = pinned_roster(Path(site.place.roster))
    terms = make_terms(site.run)
    convener = convener_of(terms.protocol, roster)
    return (
        f"number {roster.number} of {len(roster.lines)} parties, {len(roster.clients)} clients; "
        f"'{convener.name}' receives the sums. Compare over another channel: {roster.fingerprint}"
    )


def _state(site: Site) -> str:
    folder = Path(site.place.state)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_local(folder)
    return f"{folder} is on a local disk"


def _ledger(site: Site, *, begun: bool) -> str:
    assert site.run.ledger is not None, "a client's settings have one"
    path = Path(site.run.ledger)
    if not path.exists() and not begun:
        return f"{path} does not exist yet; begin it with: secure-afl site prepare --new-ledger"
    ledger = open_site_ledger(site)
    return f"{path}, budget {ledger.budget or 'none'}"


def _data(site: Site) -> str:
    if not Path(site.place.data or "").exists():
        # A backbone may have to be downloaded first.
        raise DataError(f"there is no {site.place.data}; name the data of this site")
    told: list[str] = []
    bound = check_bound(site_rows(site, "here", told.append), site)
    return "; ".join([bound, *told])
