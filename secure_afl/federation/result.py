"""What a simulated federation yields: its rounds, its models, and its report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import msgspec

from protocols.layout import Integers, Layout
from protocols.network import Transcript
from protocols.party import Sum
from protocols.session import Session
from secure_afl.analytic.describe import Summary
from secure_afl.analytic.heads.head import Chosen
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.scales import cut_values, found_ranges, open_columns
from secure_afl.analytic.statistics import Statistics
from secure_afl.data.columns import Columns
from secure_afl.data.tables.references import Reference
from secure_afl.errors import ConfigError
from secure_afl.evaluation.pooled import PooledFigures, figures_of
from secure_afl.federation.client import FederationClient
from secure_afl.federation.describing import summary_of
from secure_afl.federation.report import (
    Bytes,
    Clients,
    HeadReport,
    PrivacyReport,
    Report,
    Seconds,
)
from secure_afl.federation.rows import RunRows
from secure_afl.federation.scores import Scored
from secure_afl.federation.sums import this_noisy_sum
from secure_afl.federation.task import Declared, Terms
from secure_afl.federation.warnings import warn_of_groups, warnings
from secure_afl.methods.method import AnyMethod, PublicState
from secure_afl.methods.model import Model

MUCH_CUT = 0.05
"""Share of a site's values of a column from which on a cut to the range is said."""


@dataclass(frozen=True, eq=False)
class Round:
    """One blind sum, as the driver saw it.

    Attributes:
        session: its terms.
        public: the state that it began with, which everybody saw.
        released: the sum; without the noise where one party adds that afterwards (central).
        receivers: names of the parties that received it.
        exact: equal, bit for bit, to the included clients' vectors and noise added in the clear
            and, for row-additive methods, to the vector of their pooled rows and that noise.
        sent_bytes, seconds: of each party.
        transcript: of all parties, if asked for.
        noise: each client's share of it, by name, if a transcript was asked for.
    """

    session: Session
    public: PublicState
    released: Sum
    receivers: tuple[str, ...]
    exact: bool
    sent_bytes: Mapping[str, int]
    seconds: Mapping[str, float]
    transcript: Transcript | None
    noise: Mapping[str, Integers]


@dataclass(frozen=True, eq=False)
class Result:
    """The result that a federation yields.

    Attributes:
        method: what was learned.
        model: the global model.
        personal: each client's own model, by name.
        rounds: every blind sum, in order.
        public: the state after the last, which everybody is given.
        report: what the run says about itself.
        references: of tables, the categories without a column, where they are known.
    """

    method: AnyMethod
    model: Model
    personal: Mapping[str, Model]
    rounds: Sequence[Round]
    public: PublicState
    report: Report
    references: tuple[Reference, ...] = ()

    def __repr__(self) -> str:
        return f"<Result {self.report.method} over {self.report.protocol}>"

    @property
    def statistics(self) -> Statistics:
        """The last sum as Gram, cross term and counts, for methods that sum those.

        Raises:
            ConfigError: there is none, or only sums that have groups of clients apart.
        """
        last = self._last_statistics
        if last is None:
            raise ConfigError(f"{self.method.name} has no sum of all clients' statistics alone")
        return Statistics.unpack(last.released.total, last.session.layout)

    @property
    def curve(self) -> tuple[Chosen, ...]:
        """The values that the head's setting was chosen among, with what the sum says of each.

        It is a function of the summed Gram matrix, and for whoever received that alone.
        """
        if not self.method.releases_statistics or self._last_statistics is None:
            return ()
        return self.method.curve(self.public.task, self.statistics)

    @property
    def summary(self) -> Summary | None:
        """What Table 1 is made of, where rows have columns; it is the sum receiver's alone.

        Raises:
            ConfigError: there can be no table of this sum, with the reason.
        """
        last, task = self._last_statistics, self.public.task
        if last is None:
            return None
        released = last.released
        return summary_of(
            self.method, task, released.total, last.session.layout, len(released.included)
        )

    @property
    def _last_statistics(self) -> Round | None:
        found = (round_ for round_ in reversed(self.rounds) if _has_gram(round_.session.layout))
        return next(found, None)


def report_run(
    terms: Terms,
    declared: Declared,
    public: PublicState,
    rounds: Sequence[Round],
    rows: RunRows,
    scored: Scored,
    seconds: Seconds,
) -> Report:
    """Report on a run.

    Args:
        terms, declared: what the run was planned from.
        public: the state after the last round.
        rounds: all of them.
        rows: what was learned from, and what scored it.
        scored, seconds: measured before.
    """
    method, protocol, privacy = terms.method, terms.protocol, terms.privacy
    task = public.task
    head = report_head(method, public)
    # What comes after the model's own sums says nothing of how many are in it.
    last = rounds[: method.model_sums(public, len(rounds))][-1]
    clients = len(last.released.included)
    enrolled = task.clients
    hides_rows = privacy is not None and not privacy.rows_are_public
    return Report(
        method=method.name,
        protocol=protocol.name,
        protects=protocol.protects,
        session=last.session.id.hex(),
        rounds=len(rounds),
        clients=Clients(enrolled, clients, enrolled - clients),
        examples=None if hides_rows else sum(len(data) for data in rows.included),
        feature_dim=task.feature_dim,
        classes=len(task.classes),
        feature_bits=task.quantiser.bits,
        ring_bits=last.session.layout.ring_bits,
        max_rows=task.total_rows,
        min_cohort=declared.min_cohort,
        ridge=head.value if head is not None and head.setting == "ridge" else None,
        exact=all(round_.exact for round_ in rounds),
        accuracy=scored.accuracy,
        bytes=Bytes(
            upload_per_client=_upload_per_client(rounds),
            plain_float64_per_client=8 * task.feature_dim * (task.feature_dim + len(task.classes)),
        ),
        seconds=seconds,
        head=head,
        personal=scored.personal,
        results=scored.results,
        sites=scored.sites,
        pooled=report_pooled(method, public),
        row_mode=task.quantiser.mode,
        fits=method.fits(public),
        numeric=scored.numeric,
        outside=dict(last.released.outside),
        privacy=(
            None
            if privacy is None
            else PrivacyReport.of([this_noisy_sum(method, round_.public) for round_ in rounds])
        ),
        warnings=(
            *warnings(terms, task, rows.included),
            *_set_warnings(terms, rounds),
            *_head_warnings(head),
            *method.remarks(public),
            *_pooled_warnings(method, public, rows.counted),
        ),
    )


def with_ranges(
    report: Report, columns: Columns | None, found: Columns | None, clients: Sequence[ClientData]
) -> Report:
    """Add the ranges that were found to a report, and where they cut much.

    Args:
        columns, found: of the rows as they came, and the same with all ranges.
        clients: those in the sum, with all their rows as they came.
    """
    if columns is None or found is None or not open_columns(columns):
        return report
    cuts = {data.name: cut_values(columns, found, data) for data in clients}
    total = {name: sum(cut[name] for cut in cuts.values()) for name in next(iter(cuts.values()))}
    said = [
        f"'{data.name}': {count} of {len(data)} values of {name!r} are out of the range that was "
        "found and are cut to it: most often the unit is another."
        for data in clients
        for name, count in cuts[data.name].items()
        if count >= MUCH_CUT * len(data)
    ]
    ranges = tuple(
        msgspec.structs.replace(one, cut=total[one.name]) for one in found_ranges(columns, found)
    )
    return msgspec.structs.replace(report, ranges=ranges, warnings=(*report.warnings, *said))


def _has_gram(layout: Layout) -> bool:
    return any(block.name == "gram_diagonal" for block in layout.blocks)


def report_head(method: AnyMethod, public: PublicState) -> HeadReport | None:
    """Report on the head of a finished run; None for methods without one."""
    heads, fitted = method.heads(public.task), method.fitted(public)
    if not heads or fitted is None:
        return None
    return HeadReport.of(heads, fitted, public.task.classes)


def _set_warnings(terms: Terms, rounds: Sequence[Round]) -> tuple[str, ...]:
    """Warn of exact sums that nothing held to the same clients."""
    if terms.privacy is not None or all(r.session.header.same_set for r in rounds[1:]):
        return ()
    first = set(rounds[0].released.included)
    others = sum(set(r.released.included) != first for r in rounds[1:])
    return (
        f"Nothing held the {len(rounds)} sums to the same clients; {others} of them are over "
        "others than the first. Two exact sums that differ by one client give its vector away to "
        "whoever receives both. Safer: --same-set, or noise (--epsilon).",
    )


def report_pooled(method: AnyMethod, public: PublicState) -> PooledFigures | None:
    """Report on the rows that all clients kept out; None where no sum was of these."""
    found = method.counted(public)
    return None if found is None else figures_of(found, public.task.classes)


def _head_warnings(head: HeadReport | None) -> tuple[str, ...]:
    """Say which head was taken where rows were too few for the one that was to be."""
    if head is None or not head.instead_of:
        return ()
    return (
        f"The sum has too few rows for head '{head.instead_of}': this model is of head "
        f"'{head.name}' with {head.setting} {head.value:g}. More rows would help.",
    )


def _pooled_warnings(
    method: AnyMethod, public: PublicState, counted: Sequence[ClientData]
) -> tuple[str, ...]:
    """Say what is wrong with an evaluation's figures, or that it came to nothing, where it did."""
    if method.counted(public) is not None:
        # With noise nothing is said that depends on the rows.
        return warn_of_groups(counted) if public.task.mechanism is None else ()
    if not method.complete(public):
        return ()
    return (
        "The sum over the rows that sites kept out came to nothing, for too few parties were left: "
        "the model stands, and nothing is said of those rows. A new run can try again.",
    )


def _upload_per_client(rounds: Sequence[Round]) -> float:
    included = rounds[-1].released.included
    return mean(sum(round_.sent_bytes[name] for round_ in rounds) for name in included)


def measure_seconds(
    rounds: Sequence[Round], members: Mapping[str, FederationClient], solve: float
) -> Seconds:
    """Sum up where a run's time went; `solve` was measured, features are not the run's."""
    statistics = sum(member.statistics_seconds for member in members.values())
    clients = sum(round_.seconds[name] for round_ in rounds for name in members)
    everybody = sum(sum(round_.seconds.values()) for round_ in rounds)
    return Seconds(
        features=0.0,
        statistics=statistics,
        protect=clients - statistics,
        aggregate=everybody - clients,
        solve=solve,
    )
