"""Attacks × methods × protocols × adversaries × ε over a data set: who learns what, measured.

Every cell is the claim of one attack from the view of one adversary on one recorded run, judged
against the truth. Runs are shared by the adversaries and attacks on them, and one at a time is in
memory; finished cells are on disk, and are not done again.
"""

import hashlib
import logging
import math
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from attacks.attack import Known, Measure
from attacks.measures.metrics import simultaneous
from attacks.suite.adversaries import Adversary
from attacks.suite.cells import RESULTS, Cell, CellFile, gallery
from attacks.suite.config import AttackConfig
from attacks.suite.plan import AnyAttack, Registry, Setting, _run_config, make_plan
from attacks.suite.pool import (
    Draw,
    Pool,
    draw,
    load_pool,
    sequel,
    with_extra,
)
from attacks.suite.results import Results, _results, _version
from attacks.views.run import Record, RunView
from protocols.files import write_durably
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData
from secure_afl.data.dataset import Dataset
from secure_afl.errors import ConfigError
from secure_afl.runs.choose import make_federation, make_method
from secure_afl.runs.config import RunConfig
from secure_afl.runs.prepare import Progress, check_parties, choose_backbone, load
from secure_afl.runs.saving import check_folder

# Kept of a curve of true against false positives.
ROC_POINTS = 60


log = logging.getLogger("secure_afl")


class Interrupted(Exception):
    """The run was stopped; what is done is on disk, and in `results`."""

    def __init__(self, results: Results) -> None:
        super().__init__("stopped")
        self.results = results


def run(
    config: AttackConfig,
    registry: Registry,
    out: Path,
    progress: Progress | None = None,
    command: str = "",
) -> Results:
    """Fill the matrix, going on where an earlier run into the same folder stopped.

    Args:
        registry: the attacks by name.
        out: folder of the cells, made if need be; `results.json` is written there at the end, and
            when the run is interrupted.
        progress: called with what is under way, how much is done, and of how much.
        command: as reports quote it.

    Raises:
        SecureAflError: settings or data that cannot be used, before anything is run. What goes
            wrong in a single run or attack is written into its cells.
        Interrupted: in place of KeyboardInterrupt.
    """
    check_folder(out)
    datasets, _ = load(config.run)
    check_parties(datasets)
    plan = make_plan(config, registry, datasets)
    file = CellFile(out)
    pools = _load_pools(config, datasets, progress)
    confidence = simultaneous(config.confidence, plan.cells)
    cells: list[Cell] = []

    def finish() -> Results:
        results = _results(config, plan, pools, cells, command)
        write_durably(out / RESULTS, msgspec.json.format(msgspec.json.encode(results)) + b"\n")
        return results

    try:
        for setting, adversaries in plan.settings.items():
            stage = _Stage(config, setting, pools[setting.method])
            for adversary in adversaries:
                for attack in plan.of(adversary):
                    if progress is not None:
                        progress("cells", len(cells), plan.cells)
                    key = stage.key(adversary, attack)
                    cell = file.find(key, confidence)
                    if cell is None:
                        # The matrices are small: threads would wait more than they work, and far
                        # more where other programs run.
                        with threadpool_limits(1):
                            cell = stage.cell(key, adversary, attack, confidence)
                        file.add(cell)
                        log.info("%s: %s", cell.attack, cell.error or cell.measures[:1])
                    cells.append(cell)
    except KeyboardInterrupt:
        raise Interrupted(finish()) from None
    if progress is not None:
        progress("cells", len(cells), plan.cells)
    return finish()


# Adversaries that have whole sums at most; over plain every vector has all of the noise.
_SEE_SUMS = (
    "outsider",
    "client",
    "server",
    "first-aggregator",
    "all-but-one-aggregator",
    "key-holder",
)


class _Stage:
    """One run, made when its first view is wanted, and the second sessions that go with it."""

    def __init__(self, config: AttackConfig, setting: Setting, pool: Pool) -> None:
        self.config = config
        self.setting = setting
        self.pool = pool
        self.run_config = _run_config(config, setting)
        self._given: dict[str, tuple[RunView, Known]] = {}
        self._failed: str | None = None

    def key(self, adversary: Adversary, attack: type[AnyAttack]) -> str:
        """SHA-256 of all that a cell depends on, but the confidence of its intervals."""
        config = self.config
        depends = (
            _version("secure-afl"),
            msgspec.to_builtins(self.run_config),
            self.pool.digest,
            self.setting.rows,
            self.setting.repeat,
            config.colluders,
            config.candidates,
            adversary.name,
            attack.name,
        )
        return hashlib.sha256(msgspec.json.encode(depends)).hexdigest()

    def cell(
        self, key: str, adversary: Adversary, attack: type[AnyAttack], confidence: float
    ) -> Cell:
        """Attack, and judge; what goes wrong becomes the cell's error."""
        setting = self.setting
        cell = Cell(
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
        begin = time.perf_counter()
        try:
            view, known = self._view(adversary)
            rng = np.random.default_rng([self.config.run.seed, setting.repeat, int(key[:16], 16)])
            instance = attack()
            begin = time.perf_counter()
            try:
                claim = instance.claim(view, known, rng)
            except ConfigError as error:
                return msgspec.structs.replace(cell, refused=True, error=str(error))
            seconds = time.perf_counter() - begin
            truth = self._draw.truth
            # Twice: the first time tells how many intervals have to share the cell's confidence.
            shared = len(instance.judge(claim, truth, confidence))
            measures = instance.judge(claim, truth, simultaneous(confidence, max(1, shared)))
            measures = [_bounded(measure) for measure in measures]
            pictures = instance.pictures(claim, truth)
        except Exception as error:
            # Whatever an attack stumbles over, the other cells are still to be had.
            log.debug("%s failed", attack.name, exc_info=True)
            seconds = time.perf_counter() - begin
            message = f"{type(error).__name__}: {error}"
            return msgspec.structs.replace(cell, seconds=seconds, error=message)
        return msgspec.structs.replace(
            cell,
            coalition=view.coalition,
            claimed=claim is not None,
            measures=tuple(measures),
            roc=_thinned(instance.roc(claim, truth)),
            seconds=seconds,
            images=tuple(gallery(picture) for picture in pictures),
            mu=_mu(self._record, adversary.name),
        )

    @cached_property
    def _draw(self) -> Draw:
        setting = self.setting
        return draw(
            self.pool, setting.rows, self.config.run.seed, setting.repeat, self.config.candidates
        )

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
        known = self._draw.known
        if adversary.sequel is not None:
            # The same integers for the same rows: bits are otherwise chosen by their number.
            bits = record.result.report.feature_bits
            config = msgspec.structs.replace(self.run_config, feature_bits=bits)
            second = self._run(sequel(self._draw, adversary.sequel), config).view(coalition)
            known = with_extra(known, "other", second)
        return record.view(coalition), known

    def _run(self, clients: Sequence[ClientData], config: RunConfig) -> Record:
        federation = make_federation(config, self.pool.backbone.digest)
        max_rows = config.max_rows
        if config.epsilon is not None and max_rows is None:
            # A bound that everybody could have declared.
            max_rows = 1 << (max(len(client) for client in self._draw.clients) - 1).bit_length()
        result = federation.run(clients, classes=self.pool.classes, max_rows=max_rows, record=True)
        return Record(federation.method, federation.protocol, result)


def _mu(record: Record, adversary: str) -> float | None:
    """μ of all sums of a run together, if they have noise and the adversary sees no more of it.

    Coalitions that open single vectors, or know more shares than was declared, have less noise
    before them than the promise is about.
    """
    privacy = record.result.report.privacy
    if privacy is None or adversary not in _SEE_SUMS:
        return None
    return math.sqrt(privacy.rounds) / privacy.noise_multiplier


def _load_pools(
    config: AttackConfig, datasets: Sequence[Dataset], progress: Progress | None
) -> dict[str, Pool]:
    """The pool of each method: they share it, unless one of them learns from pixels."""
    pools: dict[str, Pool] = {}
    by_backbone: dict[bytes, Pool] = {}
    for method in config.methods:
        run_config = msgspec.structs.replace(config.run, method=method)
        make_method(run_config)  # refuses what it cannot use, before features are made
        digest = choose_backbone(run_config, datasets[0]).digest
        if digest not in by_backbone:
            by_backbone[digest] = load_pool(run_config, datasets, progress)
        pools[method] = by_backbone[digest]
    return pools


def _thinned(curve: tuple[Floats, Floats] | None) -> tuple[tuple[float, float], ...]:
    """At most `ROC_POINTS` points of a ROC curve, spread over the logarithm of the FPR."""
    if curve is None:
        return ()
    fpr, tpr = curve
    at = np.append(0.0, np.geomspace(1e-3, 1.0, ROC_POINTS - 1))
    kept = np.unique(np.searchsorted(fpr, at, "right") - 1)
    return tuple((float(fpr[i]), float(tpr[i])) for i in kept)


def _bounded(measure: Measure) -> Measure:
    """The same with numbers that JSON has: a bound that is nowhere is as far out as floats go."""
    if not np.isfinite([measure.value, measure.chance, measure.best]).all():
        raise ValueError(f"the measure {measure.metric!r} is no number: {measure}")
    low, high = np.nan_to_num([measure.low, measure.high])
    return msgspec.structs.replace(measure, low=float(low), high=float(high))
