"""One run of a suite, its second sessions, and the cells of those who attack it."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from attacks.attack import Known, Measure, Truth
from attacks.measures.metrics import simultaneous
from attacks.suite.adversaries import Adversary
from attacks.suite.cells import Cell, gallery
from attacks.suite.config import AttackConfig
from attacks.suite.plan import AnyAttack, Setting, run_config_of
from attacks.suite.pool import Draw, Pool, draw, sequel, with_extra
from attacks.suite.results import version_of
from attacks.views.lies import stage
from attacks.views.run import Record, RunView
from protocols.protocol import PROTOCOLS
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError, SecureAflError
from secure_afl.journal import key_of
from secure_afl.methods.method import METHODS
from secure_afl.runs.choose import make_terms
from secure_afl.runs.config import RunConfig
from secure_afl.runs.run import make_federation

# Kept of a curve of true against false positives.
ROC_POINTS = 60

log = logging.getLogger("secure_afl")


class Stage:
    """One run, made when its first view is wanted, and its second sessions."""

    def __init__(self, config: AttackConfig, setting: Setting, pool: Pool) -> None:
        self.config = config
        self.setting = setting
        self.pool = pool
        self.run_config = run_config_of(config, setting)
        self._given: dict[str, tuple[RunView, Known]] = {}
        self._failed: str | None = None

    def key(self, adversary: Adversary, attack: type[AnyAttack]) -> str:
        """Return SHA-256 of all that a cell depends on, but the confidence of its intervals."""
        run = self.run_config
        things = (METHODS[run.method], PROTOCOLS[run.protocol], attack)
        return key_of(
            version_of("secure-afl"),
            *self._depends(adversary, attack),
            code=(__name__, *(thing.__module__ for thing in things)),
        )

    def _depends(self, adversary: Adversary, attack: type[AnyAttack]) -> tuple[Any, ...]:
        return (
            msgspec.to_builtins(self.run_config),
            self.pool.digest,
            self.setting.rows,
            self.setting.repeat,
            self.config.colluders,
            self.config.candidates,
            adversary.name,
            attack.name,
        )

    def cell(
        self, key: str, adversary: Adversary, attack: type[AnyAttack], confidence: float
    ) -> Cell:
        """Attack, and judge; what goes wrong becomes the cell's error."""
        cell = self._blank(key, adversary, attack, confidence)
        begin = time.perf_counter()
        try:
            try:
                view, known = self._view(adversary)
            except ConfigError as error:
                # What these rows are too few for; a run that failed is told by all its cells.
                if self._failed is not None:
                    raise
                return msgspec.structs.replace(cell, refused=True, error=str(error))
            instance = attack()
            truth = self._seen[1]
            if attack.lies:
                view, truth = self._lied_to(instance, view)
            # Not the cell's key, which knows the code: an edit would draw other numbers.
            drawn = int(key_of(*self._depends(adversary, attack))[:16], 16)
            rng = np.random.default_rng([self.config.run.seed, self.setting.repeat, drawn])
            begin = time.perf_counter()
            try:
                claim = instance.claim(view, known, rng)
            except ConfigError as error:
                return msgspec.structs.replace(cell, refused=True, error=str(error))
            seconds = time.perf_counter() - begin
            # Twice: the first time tells how many intervals have to share the cell's confidence.
            shared = len(instance.judge(claim, truth, confidence))
            measures = instance.judge(claim, truth, simultaneous(confidence, max(1, shared)))
            measures = [_bounded(measure) for measure in measures]
            return msgspec.structs.replace(
                cell,
                coalition=view.coalition,
                claimed=claim is not None,
                measures=tuple(measures),
                roc=_thinned(instance.roc(claim, truth)),
                seconds=seconds,
                images=tuple(gallery(picture) for picture in instance.pictures(claim, truth)),
                # What is told in a lie is more than the promise is about.
                mu=None if attack.lies else _mu(self._record, adversary),
            )
        except Exception as error:
            # Whatever an attack stumbles over, the other cells are still to be had.
            log.debug("%s failed", attack.name, exc_info=True)
            seconds = time.perf_counter() - begin
            message = str(error)
            if not isinstance(error, SecureAflError):
                message = f"{type(error).__name__}: {message}"
            return msgspec.structs.replace(cell, seconds=seconds, error=message)

    def _blank(
        self, key: str, adversary: Adversary, attack: type[AnyAttack], confidence: float
    ) -> Cell:
        """Return a cell that says who attacks what, and nothing of how it went."""
        setting = self.setting
        return Cell(
            key=key,
            attack=attack.name,
            method=setting.method,
            protocol=setting.protocol,
            adversary=adversary.name,
            epsilon=setting.epsilon,
            rows=setting.rows,
            repeat=setting.repeat,
            wants=attack.wants,
            assumes=attack.assumes,
            confidence=confidence,
        )

    @cached_property
    def _draw(self) -> Draw:
        setting = self.setting
        return draw(
            self.pool, setting.rows, self.config.run.seed, setting.repeat, self.config.candidates
        )

    @cached_property
    def _seen(self) -> tuple[Known, Truth]:
        """Bring rows to what the sums of statistics are of: layers before the head are public.

        Candidates and public rows as they come are `raw_candidates` and `raw_public` of
        `Known.extra`.
        """
        known, truth, record = self._draw.known, self._draw.truth, self._record
        public = record.result.public

        def rows(features: Floats | None) -> Floats | None:
            if features is None or not len(features):
                return features
            labels = np.zeros(len(features), dtype=np.int64)
            return np.asarray(record.method.seen(public, ClientData("", features, labels)).features)

        raw = with_extra(known, "raw_candidates", known.candidates)
        raw = with_extra(raw, "raw_public", known.public)
        seen = replace(
            raw,
            candidates=rows(known.candidates),
            public=rows(known.public),
            rows=None if known.rows is None else record.method.seen(public, known.rows),
        )
        clients = {name: record.method.seen(public, own) for name, own in truth.clients.items()}
        return seen, replace(truth, clients=clients)

    @cached_property
    def _record(self) -> Record:
        return self._run(self._draw.clients, self.run_config)

    def _view(self, adversary: Adversary) -> tuple[RunView, Known]:
        if self._failed is not None:
            raise ConfigError(self._failed)
        try:
            record = self._record
        except Exception as error:
            # A run that cannot be is not tried again for every adversary and attack.
            self._failed = f"the run failed: {error}"
            raise
        if adversary.name not in self._given:
            # One view for all attacks, so that what one of them opens can be kept for the next;
            # and of one adversary at a time, for it may be large.
            self._given = {adversary.name: self._give(adversary, record)}
        return self._given[adversary.name]

    def _give(self, adversary: Adversary, record: Record) -> tuple[RunView, Known]:
        names = [client.name for client in self._draw.clients]
        coalition = adversary.parties(record.protocol, names, self.config.colluders)
        assert coalition is not None, "the plan has existing adversaries only"
        known = self._seen[0]
        if adversary.sequel is not None:
            # The same integers for the same rows: bits are otherwise chosen by their number.
            bits = record.result.report.feature_bits
            config = self.run_config.replaced(feature_bits=bits)
            second = self._run(sequel(self._draw, adversary.sequel), config).view(coalition)
            known = with_extra(known, "other", second)
        return record.view(coalition), known

    def _run(self, clients: Sequence[ClientData], config: RunConfig) -> Record:
        federation = make_federation(config, make_terms(config), self.pool.backbone)
        result = federation.run(
            clients, classes=self.pool.classes, max_rows=self._max_rows, record=True
        )
        return Record(federation.terms.method, federation.terms.protocol, result)

    def _lied_to(self, attack: AnyAttack, view: RunView) -> tuple[RunView, Truth]:
        """Stage a session over the same rows in which the coalition lies."""
        config, truth = self.run_config, self._draw.truth
        federation = make_federation(config, make_terms(config), self.pool.backbone)
        first = federation.first_session(
            self._draw.clients, classes=self.pool.classes, max_rows=self._max_rows
        )
        ploy = attack.ploy(first.session, view.coalition)
        if ploy is None:
            return replace(view, rounds=()), truth
        staged = stage(first.session, first.parties, view.coalition, ploy)
        sent = {
            name: member.vector + member.added_noise
            for name, member in first.members.items()
            if hasattr(member, "vector")
        }
        lied_to = replace(view, rounds=(staged.view,), publics=(first.public,))
        return lied_to, replace(truth, vectors=sent)

    @property
    def _max_rows(self) -> int | None:
        if self.run_config.epsilon is None or self.run_config.max_rows is not None:
            return self.run_config.max_rows
        # A bound that everybody could have declared.
        return 1 << (max(len(client) for client in self._draw.clients) - 1).bit_length()


def _mu(record: Record, adversary: Adversary) -> float | None:
    """Return μ of all sums of a run together.

    None if there is no noise, or the adversary sees more of it.

    Coalitions that open single vectors, or know more shares than was declared, have less noise
    before them than the promise is about.
    """
    privacy = record.result.report.privacy
    if privacy is None or not adversary.promised(record.protocol):
        return None
    return math.sqrt(privacy.rounds) / privacy.noise_multiplier


def _thinned(curve: tuple[Floats, Floats] | None) -> tuple[tuple[float, float], ...]:
    """Return at most `ROC_POINTS` points of a ROC curve.

    They are spread over the logarithm of the FPR.
    """
    if curve is None:
        return ()
    fpr, tpr = curve
    at = np.append(0.0, np.geomspace(1e-3, 1.0, ROC_POINTS - 1))
    kept = np.unique(np.searchsorted(fpr, at, "right") - 1)
    return tuple((float(fpr[i]), float(tpr[i])) for i in kept)


def _bounded(measure: Measure) -> Measure:
    """Bring bounds to numbers that JSON has.

    A bound that is nowhere is as far out as floats go.
    """
    if not np.isfinite([measure.value, measure.chance, measure.best]).all():
        raise ValueError(f"the measure {measure.metric!r} is no number: {measure}")
    low, high = np.nan_to_num([measure.low, measure.high])
    return msgspec.structs.replace(measure, low=float(low), high=float(high))
