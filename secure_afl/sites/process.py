"""One process at a site: from its settings to its part in one run, and what that leaves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from protocols.files import write_durably
from secure_afl.errors import ConfigError, RunFailed
from secure_afl.methods.model import Model
from secure_afl.progress import Progress
from secure_afl.runs.saving import check_folder, make_card
from secure_afl.sites.convene import ConvenedReport, Convention
from secure_afl.sites.mailroom import open_mailroom
from secure_afl.sites.party import SiteParty, Wait
from secure_afl.sites.settings import read_run, read_site

PATIENT = Wait()


def take_part(
    file: Path,
    post: str,
    tell: Callable[[str], None],
    *,
    config: Path | None = None,
    new_ledger: bool = False,
    wait: Wait = PATIENT,
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
            party.attend(mailroom, wait)
            _finish(party, out)
            return None
        convention = Convention(party, *read_run(config, site), wait)
        party.attend(mailroom, wait, convention.convening)
        report = _convened(party, convention, out)
        party.forget()
        return report
    finally:
        party.close()


def leave(file: Path, tell: Callable[[str], None]) -> None:
    """Leave the run that a site's party is in; what was charged for its sums stays charged."""
    party = SiteParty(read_site(file), tell)
    try:
        party.leave()
    finally:
        party.close()


def _finish(party: SiteParty, out: Path | None) -> None:
    """Make a client's model, and forget the run."""
    if party.attending.failed:
        party.forget()
        raise RunFailed(f"{party.name}: the run is over, and there is no model here")
    model = None if out is None else party.model()
    if out is not None and model is not None:
        public = party.attending.public
        assert public is not None, "of which the model is made"
        card = {
            "method": party.terms.method.name,
            "protocol": party.terms.protocol.name,
            "client": party.name,
            "run": public.task.run.hex(),
        }
        _save(model, card, out, party.tell)
    party.forget()


def _convened(party: SiteParty, convention: Convention, out: Path | None) -> ConvenedReport:
    problem = convention.convening.problem
    if problem:
        party.forget()
        raise RunFailed(f"no model: {problem}")
    model = convention.model()
    report = convention.report(model)
    if out is not None:
        config, cohort = convention.config, len(report.included)
        _save(model, make_card(report, cohort, convention.backbone, config), out, party.tell)
        written = msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
        write_durably(out / "report.json", written)
    return report


def _save(model: Model, card: dict[str, Any], out: Path, tell: Callable[[str], None]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    model.save(out / "model.safetensors", card)
    tell(f"the model is in {out}")
