"""What a finished run leaves at a site: model, card, and at the convener the report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from protocols.errors import NotStored
from secure_afl.analytic.describe import Summary
from secure_afl.analytic.quantise import RowMode
from secure_afl.analytic.scales import cut_values, found_ranges
from secure_afl.data.tables.references import Reference, references
from secure_afl.errors import ConfigError, RunFailed
from secure_afl.evaluation.pooled import PooledFigures
from secure_afl.features.table import design_behind
from secure_afl.federation.describing import summary_of
from secure_afl.federation.report import HeadReport, PrivacyReport
from secure_afl.federation.result import report_head, report_pooled
from secure_afl.federation.sums import foreseen_sums, sum_layout
from secure_afl.methods import artefact
from secure_afl.methods.model import Model
from secure_afl.runs.description import write_description
from secure_afl.runs.saving import MODEL, REPORT, make_card, write_results
from secure_afl.sites.convene import ConvenedReport, Convention
from secure_afl.sites.party import SiteParty


class ClientReport(msgspec.Struct, frozen=True):
    """What a client's card takes from its run, see `make_card`."""

    method: str
    protocol: str
    protects: str
    session: str
    feature_bits: int
    row_mode: RowMode
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
    _tell_ranges(party)
    model = None if out is None else party.model()
    if out is not None and model is not None:
        _save(party, model, _client_card(party))
    party.forget()


def _tell_ranges(party: SiteParty) -> None:
    """Say which ranges were found, and how many of this client's own values they cut."""
    public = party.attending.public
    if public is None or party.rows is None:
        return
    columns, found = public.task.columns, party.terms.method.learned(public).task.columns
    ranges = found_ranges(columns, found)
    if not ranges or columns is None or found is None:
        return
    rows = party.rows.load(public.task.feature_dim, public.task.classes)
    cut = cut_values(columns, found, rows)
    for one in ranges:
        party.tell(f"{one.text}: {cut[one.name]} of {len(rows)} values here are cut to it")


def _client_card(party: SiteParty) -> dict[str, Any]:
    """Make the card of a client's model."""
    public, method, protocol = party.attending.public, party.terms.method, party.terms.protocol
    assert public is not None, "of which the model is made"
    assert party.rows is not None, "a client has rows"
    promised = None
    if party.terms.privacy is not None and not method.personalises:
        # A model of this client's own was made from its exact rows: no promise covers it.
        promised = PrivacyReport.of(foreseen_sums(method, public.task))
    head = report_head(method, public)
    report = ClientReport(
        method=method.name,
        protocol=protocol.name,
        protects=protocol.protects,
        session=party.attending.session.hex(),
        feature_bits=public.task.quantiser.bits,
        row_mode=public.task.quantiser.mode,
        ridge=head.value if head is not None and head.setting == "ridge" else None,
        head=head,
        pooled=report_pooled(method, public),
        outside={},
        privacy=promised,
    )
    about = party.rows.prepared.about
    columns = method.learned(public).task.columns
    card = make_card(
        report, party.attending.included, about.spec, about.digest, party.site.run, columns
    )
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
        columns = convention.columns
        card = make_card(report, cohort, backbone.name, backbone.digest, config, columns)
        written = msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
        described = _summary(party, convention)
        _save(
            party, model, card, written, described, references(design_behind(convention.backbone))
        )
    return report


def _summary(party: SiteParty, convention: Convention) -> Summary | None:
    """Describe the sum that this site received; None where its rows have no columns."""
    server, method = convention.convening.convener.server, party.terms.method
    total, links = server.last_total, server.history.links
    # With the ranges that a sum before may have found.
    learner, task = method.learner, method.learned(server.public).task
    if learner.least_printed(task) is None or total is None:
        return None
    layout = sum_layout(learner, learner.begin(task))
    assert layout is not None, "of the first sum"
    try:
        if len(links) > method.model_sums(server.public, len(links)):
            raise ConfigError("no Table 1: further sums came after that of the rows")
        included = len(party.roster.names(links[-1].release.included))
        return summary_of(learner, task, total, layout, included)
    except ConfigError as error:
        party.tell(str(error))
        return None


def _save(
    party: SiteParty,
    model: Model,
    card: dict[str, Any],
    report: bytes = b"",
    summary: Summary | None = None,
    categories: Sequence[Reference] = (),
) -> None:
    """Keep a model where the site wants it, and beside it a report and Table 1."""
    out = party.site.place.out
    assert out is not None, "somebody wants it"

    def write(folder: Path) -> None:
        model.save(folder / MODEL, card)
        artefact.sign(folder / MODEL, party.identity, party.site.place.role)
        if report:
            (folder / REPORT).write_bytes(report)
        if summary is not None:
            write_description(folder, summary, categories)

    try:
        write_results(Path(out), write)
    except OSError as error:
        raise NotStored(
            f"the model cannot be kept in {out}: {error.strerror}",
            party=party.name,
            fix="make room, then start this party again: it goes on where it was",
        ) from None
    party.tell(f"the model is in {out}")
