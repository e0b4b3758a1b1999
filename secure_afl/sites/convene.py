"""The convener's site: a run from run.toml to a model, over sums of rows that it never sees."""

import logging
import secrets
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from secure_afl.analytic.coefficients import Fit
from secure_afl.analytic.quantise import RowMode
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.scales import FoundRange, found_ranges, rescaled
from secure_afl.data import dataset as data
from secure_afl.data import files
from secure_afl.data.columns import Columns
from secure_afl.data.ids import parse_ids
from secure_afl.errors import ConfigError
from secure_afl.evaluation.numeric import NumericFigures
from secure_afl.evaluation.pooled import PooledFigures
from secure_afl.features.backbone import Backbone
from secure_afl.features.cache import FeatureCache, default_path
from secure_afl.federation.convener import Planned
from secure_afl.federation.convening import Convening
from secure_afl.federation.letters import RUN_BYTES
from secure_afl.federation.numeric_scores import measure_model
from secure_afl.federation.report import HeadReport, PrivacyReport
from secure_afl.federation.result import report_head, report_pooled
from secure_afl.federation.server import FederationServer
from secure_afl.federation.sums import foreseen_sums
from secure_afl.federation.task import Declared, majority, plan_task
from secure_afl.federation.warnings import session_warnings
from secure_afl.methods.model import Model
from secure_afl.runs.config import RunConfig
from secure_afl.runs.reduce import suggested_dimension, unfold
from secure_afl.runs.tables import design_of, row_rule
from secure_afl.sites.party import SiteParty
from secure_afl.sites.prepared import open_backbone
from secure_afl.sites.rows import Reductions
from secure_afl.sites.settings import Convened

log = logging.getLogger("secure_afl")


class ConvenedReport(msgspec.Struct, frozen=True):
    """What the convener of a run between sites can say of it.

    Attributes:
        method, protocol: names.
        protects: what the protocol hides, from whom, and under which condition.
        run: 16 bytes that tell the run from all others, hex.
        session: id of the last session of the model, hex.
        rounds: blind sums.
        clients: how many were enrolled in the first session.
        included: names of those in the last sum.
        feature_dim, classes: d and C.
        feature_bits: rows are integers of norm ≤ 2^feature_bits.
        max_rows: the declared bound on all rows together.
        ridge: λ of a ridge head; null for others.
        head: what made the classifier of the sum; null for methods that sum no statistics.
        accuracy: of the model on the convener's own test data, 0 to 1; null without.
        numeric: errors on these data, where the model predicts a number; null for others.
        pooled: figures of the model on the rows that all clients kept out; null without.
        outside: entries of the sum that break their bounds, by block.
        privacy: the promise, or null.
        settings: of the run.
        fits: coefficients and their errors, for methods that estimate them.
        ranges: of columns that the dictionary has none for, as sites found them.
        warnings: what to know before trusting the protection of a sum of so many declared rows.
    """

    method: str
    protocol: str
    protects: str
    run: str
    session: str
    rounds: int
    clients: int
    included: tuple[str, ...]
    feature_dim: int
    classes: int
    feature_bits: int
    max_rows: int
    ridge: float | None
    head: HeadReport | None
    accuracy: float | None
    numeric: NumericFigures | None
    pooled: PooledFigures | None
    outside: dict[str, int]
    privacy: PrivacyReport | None
    settings: dict[str, Any]
    row_mode: RowMode
    fits: tuple[Fit, ...]
    ranges: tuple[FoundRange, ...] = ()
    warnings: tuple[str, ...] = ()


class Convention:
    """A run that a site convenes.

    Args:
        party: the site's own, which receives the sums.
        convened: classes, the width of rows, and how long to wait.
        config: the run's settings.

    Raises:
        SecureAflError: settings that no run can have, before anybody hears of it.
    """

    def __init__(self, party: SiteParty, convened: Convened, config: RunConfig) -> None:
        self._party = party
        self._convened = convened
        self.config = config
        self._design = design_of(config)
        self._backbone = open_backbone(config, party.terms.method, self._design)
        method = party.terms.method
        self._reductions = Reductions(self._backbone.digest, config, method, self._public)
        self._width = self._features()
        self._test = self._load_test()
        kept = party.state.convener()
        self._run = secrets.token_bytes(RUN_BYTES) if kept is None else kept.run
        self.convening = Convening(
            party.terms.protocol,
            party.identity,
            party.roster,
            self._plan,
            self._run,
            outcome=party.participant.outcome,
            ended=party.participant.ended,
            wait=convened.wait,
            attempts=convened.attempts,
            keep=lambda saved: party.state.keep_convener(self._run, saved),
            tell=party.tell,
        )
        if kept is not None:
            self.convening.restore(kept.saved)

    def model(self) -> Model:
        """Return the model of the run that is over, for features as the backbone makes them."""
        server = self.convening.convener.server
        model = self._party.terms.method.model(server.public)
        dim = server.public.task.feature_dim
        return unfold(self._reductions.of(self._width, dim), model)

    def report(self, model: Model) -> ConvenedReport:
        """Report on the run that is over."""
        terms, server = self._party.terms, self.convening.convener.server
        method, protocol = terms.method, terms.protocol
        task, links = server.public.task, server.history.links
        last = links[: method.model_sums(server.public, len(links))][-1].release
        head = report_head(method, server.public)
        accuracy = numeric = None
        if self._test is not None:
            test = rescaled(task.columns, self.columns, self._test)
            if model.numeric:
                numeric = measure_model(model, self.columns, test)
            else:
                accuracy = model.accuracy(test.features, test.labels)
        return ConvenedReport(
            method=method.name,
            protocol=protocol.name,
            protects=protocol.protects,
            run=self._run.hex(),
            session=last.session.hex(),
            rounds=len(links),
            clients=task.clients,
            included=self._party.roster.names(last.included),
            feature_dim=task.feature_dim,
            classes=len(task.classes),
            feature_bits=task.quantiser.bits,
            row_mode=task.quantiser.mode,
            fits=method.fits(server.public),
            max_rows=task.total_rows,
            ridge=head.value if head is not None and head.setting == "ridge" else None,
            head=head,
            accuracy=accuracy,
            numeric=numeric,
            pooled=report_pooled(method, server.public),
            outside=dict(self.convening.convener.outside),
            privacy=(
                None if terms.privacy is None else PrivacyReport.of(foreseen_sums(method, task))
            ),
            settings=self.config.flat(),
            ranges=found_ranges(task.columns, self.columns),
            warnings=session_warnings(method, protocol, task),
        )

    @property
    def columns(self) -> Columns | None:
        """What the model's features are, where rows are those of tables; with all ranges."""
        public = self.convening.convener.server.public
        return self._party.terms.method.learned(public).task.columns

    @property
    def backbone(self) -> Backbone:
        """What makes features of examples."""
        return self._backbone

    def _plan(self, bounds: Mapping[str, int]) -> Planned:
        """Plan the task from what the clients declare."""
        config, terms = self.config, self._party.terms
        rule = row_rule(config)
        dim = self._dimension(list(bounds.values()))
        # As many as sites want by default, however few have come.
        least = majority(len(self._party.roster.clients))
        min_cohort = config.min_cohort or max(least, terms.default_cohort(len(bounds)))
        declared = Declared(
            dim=dim,
            classes=self._convened.classes,
            max_rows=tuple(sorted(bounds.items())),
            backbone=self._reductions.digest(self._width, dim),
            min_cohort=min_cohort,
            corrupt=config.corrupt,
            feature_bits=config.feature_bits,
            row_mode=rule.mode,
            clip=rule.clip,
            columns=None if self._design is None else self._design.columns,
        )
        server = FederationServer(
            terms,
            plan_task(terms, declared, self._run),
            roster=self._party.roster,
            same_set=self._same_set(len(bounds)),
            accept_outside=config.accept_outside,
        )
        return Planned(server, min_cohort, config.corrupt)

    def _dimension(self, bounds: list[int]) -> int:
        """Choose the dimensions of rows by settings and declarations."""
        wanted = self.config.dimension
        if self._design is not None:
            return self._width
        if wanted is None and self._party.terms.method.prefers_fewer_dimensions:
            wanted = suggested_dimension(
                self._party.terms, bounds, self._width, len(self._convened.classes)
            )
        return self._reductions.limit(wanted or self._width)

    def _same_set(self, clients: int) -> bool:
        chosen = self.config.same_set
        return self._party.terms.keeps_same_set(clients) if chosen is None else chosen

    def _features(self) -> int:
        """Return the width of features; raises ConfigError where nothing says it."""
        width = self._backbone.width or self._convened.width
        if width is None:
            raise ConfigError(
                f"run.toml has no 'width', and with backbone {self._backbone.name} only the sites' "
                "data have one; say how many features a row has"
            )
        if self.config.dimension is not None and self.config.dimension > width:
            raise ConfigError(
                f"dimension {self.config.dimension} of features with {width}; allowed: ≤ {width}"
            )
        return width

    def _public(self) -> NDArray[np.floating]:
        assert self.config.public is not None, "asked for where it is set"
        examples = files.load_unlabelled(self.config.public, "train")
        return self._backbone.extract(examples, FeatureCache(default_path()))

    def _load_test(self) -> ClientData | None:
        if self.config.test is None:
            return None
        ids = None if self._design is not None else parse_ids(self.config.id)
        found = files.load(self.config.test, "test", ids=ids, design=self._design)
        (test,) = data.align([found], self._convened.classes)
        return ClientData.of(test, self._backbone.extract(test, FeatureCache(default_path())))
