"""A site's party, from its settings to its process: what is opened, kept, and made in the end."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from protocols.carrier import Patience
from protocols.files import write_durably
from protocols.roster import CLIENT
from protocols.seats.seats import Seats
from secure_afl.errors import DataError
from secure_afl.federation.attending import Attending, convener_of
from secure_afl.federation.client import FederationClient
from secure_afl.federation.keys import pinned_identity, pinned_roster
from secure_afl.federation.participant import Participant
from secure_afl.federation.rounds.half import Half
from secure_afl.privacy.ledger import Budget, Ledger
from secure_afl.progress import Progress
from secure_afl.runs.choose import make_terms
from secure_afl.sites.drive import Driver
from secure_afl.sites.mailroom import Mailroom
from secure_afl.sites.rows import SiteRows
from secure_afl.sites.settings import Site
from secure_afl.sites.state import State

if TYPE_CHECKING:
    from secure_afl.data.account import Account
    from secure_afl.federation.convening import Convening
    from secure_afl.methods.model import Model

UNJOINED_SECONDS = 30 * 24 * 3600.0
"""After so long an enrolment ends that no session came of: a post may be carried by hand."""

# The account of what a client holds, in its state; for its owner alone (0600).
ACCOUNT = "account.json"
_TOLD = 3


def site_rows(
    site: Site, name: str, tell: Callable[[str], None], progress: Progress | None = None
) -> SiteRows:
    """Return a client's rows, by its site's settings.

    Args:
        tell: is told what looks wrong with the data, when features are made of them; the whole
            account is kept in the site's state.
    """
    assert site.place.data is not None, "a client's settings have data"
    state = Path(site.place.state)
    method = make_terms(site.run).method

    def account_for(account: "Account") -> None:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = msgspec.json.format(msgspec.json.encode(account), indent=2) + b"\n"
        write_durably(state / ACCOUNT, content)
        doubtful = [found for found in account.findings if found.rank != "note"]
        for found in doubtful[:_TOLD]:
            tell(f"warning: {found.what}: {found.fix}")
        if len(doubtful) > _TOLD:
            tell(f"… and {len(doubtful) - _TOLD} more: {state / ACCOUNT}")

    store = state / "features"
    return SiteRows(name, Path(site.place.data), site.run, method, store, progress, account_for)


def check_bound(rows: SiteRows, site: Site) -> str:
    """Return a client's rows, or patients where these are hidden, and their bound, in words.

    Raises:
        DataError: more than it declares, rows that do not say whose they are, or an example of
            another class than the site names.
    """
    assert site.run.max_rows is not None, "a client's settings have a bound"
    terms, prepared = make_terms(site.run), rows.prepared
    if site.place.classes is not None:
        rows.check_classes(site.place.classes)
    found = terms.units(rows.name, len(prepared.labels), prepared.patients)
    what = "patients" if terms.by_patient else "rows"
    if found > site.run.max_rows:
        raise DataError(
            f"this site has {found} {what}, more than max-rows {site.run.max_rows}, the bound "
            "that it declares; declare more"
        )
    return f"{found} {what}, bound {site.run.max_rows}"


def open_site_ledger(site: Site, *, new: bool = False) -> Ledger:
    """Open a client's ledger; a new one is written with the first release.

    Raises:
        LedgerRefusal: no such file, one that exists and is to be new, or one that is not as it was
            written.
    """
    run = site.run
    assert run.ledger is not None, "a client's settings have a ledger"
    budget = None
    if run.budget is not None:
        budget = Budget(run.budget, run.delta, run.unit, run.neighbours)
    anchor = Path(site.place.identity).parent
    return Ledger.open(Path(run.ledger), budget, anchor=anchor, new=new)


class SiteParty:
    """One site's party over a post.

    Args:
        site: its settings.
        new_ledger: begin the ledger, which must not exist.
        tell: is told in words what happens.
        progress: of features, as they are made.

    Raises:
        SecureAflError: keys, roster, ledger, state or data that cannot be used, before anything is
            said to anybody.
    """

    def __init__(
        self,
        site: Site,
        tell: Callable[[str], None],
        *,
        new_ledger: bool = False,
        progress: Progress | None = None,
    ) -> None:
        place = site.place
        self.site = site
        self.tell = tell
        self.roster = pinned_roster(Path(place.roster))
        self.identity = pinned_identity(Path(place.identity), self.roster, role=place.role)
        self.terms = make_terms(site.run)
        convener_of(self.terms.protocol, self.roster)
        self.state = State(Path(place.state), self.name)
        self.rows: SiteRows | None = None
        try:
            self.half = self._half(new_ledger, progress)
            kept = self.state.run()
            if kept is not None:
                self.half.restore(kept.saved)
        except BaseException:
            self.state.close()
            raise
        self.seats = Seats(self.state.seats, self.identity)
        self.seats.sweep(UNJOINED_SECONDS)
        self.participant = Participant(
            self.half,
            self.identity,
            place.role,
            bound=site.run.max_rows or 0 if place.role == CLIENT else 0,
            seats=self.seats,
            keep=self._keep,
        )
        self.attending = Attending(
            self.participant, tell, self.state.has_been, self.state.keep_letter
        )
        if kept is not None:
            self.attending.run = kept.run
        for letter in self.state.letters():
            self.attending.hear(letter)

    @property
    def name(self) -> str:
        """Name of the party."""
        return self.identity.name

    @property
    def convenes(self) -> bool:
        """Whether this site forms the sessions."""
        return convener_of(self.terms.protocol, self.roster).name == self.name

    def attend(self, mailroom: Mailroom, convening: "Convening | None" = None) -> None:
        """Take part until the run is over."""
        if convening is None and not self.attending.run:
            convener = convener_of(self.terms.protocol, self.roster).name
            self.tell(f"waiting for '{convener}', which forms the sessions")
        self.driver(mailroom, convening).run()

    def driver(
        self,
        mailroom: Mailroom,
        convening: "Convening | None" = None,
        clock: Callable[[], float] = time.time,
    ) -> Driver:
        """Make the loop of this party's process."""
        step = self.site.place.deadline
        patience = Patience(step, min(5.0, step / 4), min(60.0, step / 2))
        return Driver(
            self.attending,
            mailroom,
            clock,
            time.sleep,
            patience,
            self.tell,
            self.state,
            convening,
        )

    def model(self) -> "Model | None":
        """Return this client's own model of the run that is over; None without one.

        Raises:
            DataError: this client's rows cannot be loaded any more.
        """
        from secure_afl.runs.reduce import unfold

        public = self.attending.public
        if public is None or self.rows is None:
            return None
        assert isinstance(self.half, FederationClient), "who has rows"
        model = self.half.personalise(public).model
        width = self.rows.prepared.width
        return unfold(self.rows.reductions.of(width, public.task.feature_dim), model)

    def _half(self, new_ledger: bool, progress: Progress | None) -> Half:
        run, place = self.site.run, self.site.place
        same_set = bool(run.same_set)
        if place.role != CLIENT:
            from secure_afl.federation.server import FederationCoordinator

            return FederationCoordinator(self.name, self.terms, self.roster, same_set=same_set)
        if run.same_set is None:
            same_set = self.terms.keeps_same_set(len(self.roster.clients))
        assert place.data is not None, "a client's settings have data"
        assert run.max_rows is not None, "and a bound"
        rows = site_rows(self.site, self.name, self.tell, progress)
        self.rows = rows
        if self.state.run() is None:
            # What is wrong with the data shows before anybody hears of this party.
            check_bound(rows, self.site)
        return FederationClient(
            self.terms,
            rows,
            run.max_rows,
            self.roster,
            classes=place.classes,
            min_cohort=run.min_cohort,
            corrupt=run.corrupt,
            same_set=same_set,
            ledger=open_site_ledger(self.site, new=new_ledger),
            lineage=str(Path(place.data).resolve()),
        )

    def _keep(self, saved: bytes) -> None:
        if self.attending.run:
            self.state.keep_run(self.attending.run, saved)

    def forget(self) -> None:
        """Forget the run that is over, but that it has been."""
        if self.attending.run:
            self.state.forget(self.attending.run)
            self.seats.clear()

    def close(self) -> None:
        """Let go of all folders; another process may go on."""
        for hearing in self.participant.hearings.values():
            hearing.close()
        self.state.close()
