"""One process at a site: from its settings to its part in one run, and what that leaves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from protocols.errors import NotStored
from protocols.roster import CLIENT
from protocols.seats.seats import Seats
from secure_afl.errors import ConfigError, RunFailed
from secure_afl.evaluation.pooled import PooledFigures
from secure_afl.federation.keys import pinned_identity, pinned_roster
from secure_afl.federation.report import HeadReport, PrivacyReport
from secure_afl.federation.result import report_head, report_pooled
from secure_afl.federation.sums import this_noisy_sum
from secure_afl.methods import artefact
from secure_afl.methods.model import Model
from secure_afl.progress import Progress
from secure_afl.runs.saving import (
    MODEL,
    REPORT,
    check_folder,
    check_replaceable,
    make_card,
    write_results,
)
from secure_afl.sites.convene import ConvenedReport, Convention
from secure_afl.sites.mailroom import open_mailroom
from secure_afl.sites.party import SiteParty, check_bound, open_site_ledger, site_rows
from secure_afl.sites.prepared import Prepared
from secure_afl.sites.settings import read_run, read_site
from secure_afl.sites.state import State


def take_part(
    file: Path,
    post: str,
    tell: Callable[[str], None],
    *,
    config: Path | None = None,
    new_ledger: bool = False,
    progress: Progress | None = None,
) -> ConvenedReport | None:
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
            finish(party)
            return None
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
    file: Path, *, new_ledger: bool = False, progress: Progress | None = None
) -> Prepared:
    """Make a client's features, and its ledger if asked, so that a session finds both.

    Args:
        file: the site's settings.
        new_ledger: begin the ledger, which must not exist.

    Raises:
        SecureAflError: settings, keys, data or a ledger that cannot be used.
    """
    site = read_site(file)
    if site.place.role != CLIENT:
        raise ConfigError(f"{file} is of a {site.place.role}, which has no data to prepare")
    roster = pinned_roster(Path(site.place.roster))
    name = pinned_identity(Path(site.place.identity), roster, role=CLIENT).name
    rows = site_rows(site, name, progress)
    check_bound(rows, site)
    ledger = open_site_ledger(site, new=new_ledger)
    if new_ledger:
        # It is on the disk now, not with the first release.
        ledger.take_over(None, ())
    return rows.prepared


class ClientReport(msgspec.Struct, frozen=True):
    """What a client's card takes from its run, see `make_card`."""

    method: str
    protocol: str
    protects: str
    session: str
    feature_bits: int
    ridge: float | None
    head: HeadReport | None
    pooled: PooledFigures | None
    outside: dict[str, int]
    privacy: PrivacyReport | None


def finish(party: SiteParty) -> None:
    """Keep the model of a run that is over, where the site wants one, and forget the run.

    Raises:
        RunFailed: there is none.
    """
    out = None if party.site.place.out is None else Path(party.site.place.out)
    if party.attending.failed:
        party.forget()
        raise RunFailed(f"{party.name}: the run is over, and there is no model here")
    model = None if out is None else party.model()
    if out is not None and model is not None:
        _save(party, model, _client_card(party))
    party.forget()


def _client_card(party: SiteParty) -> dict[str, Any]:
    """Make the card of a client's model."""
    public, method, protocol = party.attending.public, party.terms.method, party.terms.protocol
    assert public is not None, "of which the model is made"
    assert party.rows is not None, "a client has rows"
    promised = None
    if party.terms.privacy is not None and not method.personalises:
        # A model of this client's own was made from its exact rows: no promise covers it.
        promised = PrivacyReport.of([this_noisy_sum(method, method.begin(public.task))])
    head = report_head(method, public)
    report = ClientReport(
        method=method.name,
        protocol=protocol.name,
        protects=protocol.protects,
        session=party.attending.session.hex(),
        feature_bits=public.task.quantiser.bits,
        ridge=head.value if head is not None and head.setting == "ridge" else None,
        head=head,
        pooled=report_pooled(method, public),
        outside={},
        privacy=promised,
    )
    about = party.rows.prepared.about
    card = make_card(report, party.attending.included, about.spec, about.digest, party.site.run)
    return card | {"client": party.name, "run": public.task.run.hex()}


def convened(party: SiteParty, convention: Convention) -> ConvenedReport:
    """Keep model and report of a run that is over, where the convener's site wants them.

    Raises:
        RunFailed: there is no model.
    """
    out = None if party.site.place.out is None else Path(party.site.place.out)
    problem = convention.convening.problem
    if problem:
        party.forget()
        raise RunFailed(f"no model: {problem}")
    model = convention.model()
    report = convention.report(model)
    if out is not None:
        config, cohort = convention.config, len(report.included)
        backbone = convention.backbone
        card = make_card(report, cohort, backbone.name, backbone.digest, config)
        written = msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
        _save(party, model, card, written)
    return report


def _save(party: SiteParty, model: Model, card: dict[str, Any], report: bytes = b"") -> None:
    """Keep a model where the site wants it, and a report beside it."""
    out = party.site.place.out
    assert out is not None, "somebody wants it"

    def write(folder: Path) -> None:
        model.save(folder / MODEL, card)
        artefact.sign(folder / MODEL, party.identity, party.site.place.role)
        if report:
            (folder / REPORT).write_bytes(report)

    try:
        write_results(Path(out), write)
    except OSError as error:
        raise NotStored(
            f"the model cannot be kept in {out}: {error.strerror}",
            party=party.name,
            fix="make room, then start this party again: it goes on where it was",
        ) from None
    party.tell(f"the model is in {out}")
