"""Attacks × methods × protocols × adversaries × ε over a data set: who learns what, measured.

Every cell is the claim of one attack from the view of one adversary on one recorded run, judged
against the truth. Runs are shared by the adversaries and attacks on them, and one at a time is in
memory; finished cells are on disk, and are not done again.
"""

import hashlib
import logging
import math
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from inspect import getdoc
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from attacks.adversaries import ADVERSARIES, Adversary
from attacks.attack import Attack, Known, Measure
from attacks.cells import RESULTS, Cell, CellFile, gallery
from attacks.config import FEW_ROWS, FIRST_OF_SWEEP, METHODS, PROTOCOLS, AttackConfig
from attacks.metrics import simultaneous
from attacks.pool import (
    Draw,
    Pool,
    available,
    check_rows_in_sum,
    draw,
    load_pool,
    sequel,
    with_extra,
)
from attacks.record import Record, RunView
from protocols.files import write_durably
from secure_afl.clients import ClientData
from secure_afl.config import RunConfig
from secure_afl.data import Dataset
from secure_afl.errors import ConfigError
from secure_afl.prepare import (
    GRADIENT_METHODS,
    Progress,
    check_parties,
    choose_backbone,
    load,
)
from secure_afl.quantise import Floats
from secure_afl.run import (
    check_folder,
    make_federation,
    make_method,
    make_protocol,
)

# Kept of a curve of true against false positives.
ROC_POINTS = 60

# Who has more under FedHiP than under AFL, in the joint reading.
BROADCAST_TO = ("client",)

# Whose successes make the curves: who has the sum, and who has the model only.
SWEPT = ("outsider", "server", "first-aggregator", "key-holder")

log = logging.getLogger("secure_afl")

AnyAttack = Attack[Any]
Registry = Mapping[str, type[AnyAttack]]


class AttackCard(msgspec.Struct, frozen=True):
    """What a report says of an attack: its docstring, and what it declares."""

    name: str
    summary: str
    wants: str
    assumes: tuple[str, ...]
    costly: bool


class AdversaryCard(msgspec.Struct, frozen=True):
    """What a report says of an adversary."""

    name: str
    title: str
    meaning: str


class DataCard(msgspec.Struct, frozen=True):
    """What a report says of the data.

    Attributes:
        source: the path, as in the settings.
        backbones: of each method.
        rows: of all clients, in and out of the sums.
    """

    source: str
    clients: int
    rows: int
    least_rows: int
    most_rows: int
    dims: dict[str, int]
    classes: int
    backbones: dict[str, str]


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """All that the report is made from.

    Attributes:
        cells: in the order of the plan; without those that were not reached.
        protocols: name to what it protects.
        planned: how many cells there are to be.
        matrix_rows, sweep_rows: rows in the sums of the matrices and of the curves.
        swept: the protocols of the curves.
    """

    config: AttackConfig
    command: str
    when: str
    versions: dict[str, str]
    data: DataCard
    attacks: tuple[AttackCard, ...]
    adversaries: tuple[AdversaryCard, ...]
    protocols: dict[str, str]
    matrix_rows: tuple[int, ...]
    sweep_rows: tuple[int, ...]
    swept: tuple[str, ...]
    planned: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Setting:
    """One run, which its adversaries and attacks share."""

    method: str
    protocol: str
    epsilon: float | None
    rows: int
    repeat: int


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        settings: of each run, which adversaries attack it.
        attacks: by those with two sessions the attacks on two, by the others the others.
    """

    settings: dict[Setting, tuple[Adversary, ...]]
    attacks: tuple[type[AnyAttack], ...]
    matrix_rows: tuple[int, ...]
    sweep_rows: tuple[int, ...]
    swept: tuple[str, ...]

    @property
    def cells(self) -> int:
        """How many cells there are."""
        return sum(len(self.of(who)) for found in self.settings.values() for who in found)

    def of(self, adversary: Adversary) -> list[type[AnyAttack]]:
        """The attacks of an adversary."""
        two = adversary.sequel is not None
        return [attack for attack in self.attacks if attack.two_sessions == two]


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


def make_plan(config: AttackConfig, registry: Registry, datasets: Sequence[Dataset]) -> Plan:
    """All cells, a run's own together.

    Raises:
        ConfigError: a name or number that cannot be used, with those that can.
    """
    chosen = _chosen("attacks", config.attacks, registry)
    if not config.attacks:
        chosen = tuple(name for name in chosen if not registry[name].costly)
    attacks = tuple(registry[name] for name in chosen)
    methods = _chosen("methods", config.methods, METHODS)
    protocols = _chosen("protocols", config.protocols, PROTOCOLS)
    names = _chosen("adversaries", config.adversaries, ADVERSARIES)
    matrix, sweep = _rows_in_sums(config, datasets)
    clients = [dataset.name for dataset in datasets]
    # One protocol that protects nothing and one that does make the curves.
    blind = [p for p in protocols if p != "plain"]
    swept = tuple(p for p in protocols if p in ("plain", *blind[:1]))

    settings = {}
    axes = product(range(config.repeats), _unique((*matrix, *sweep)), methods)
    for repeat, rows, method in axes:
        wanted = names if rows in matrix else [name for name in names if name in SWEPT]
        if method == "fedhip" and "afl" in methods:
            # Its sums are AFL's, and so is its model; its broadcast is its own.
            wanted = [name for name in wanted if name in BROADCAST_TO]
        under = protocols if rows in matrix else swept
        for protocol, epsilon in product(under, (None, *config.epsilons)):
            setting = Setting(method, protocol, epsilon, rows, repeat)
            terms = make_protocol(_run_config(config, setting))
            settings[setting] = tuple(
                ADVERSARIES[name]
                for name in wanted
                if ADVERSARIES[name].parties(terms, clients, config.colluders) is not None
            )
    plan = Plan(settings, attacks, matrix, sweep, swept)
    if not plan.cells:
        raise ConfigError(
            f"adversaries {', '.join(names)} do not exist under {', '.join(protocols)} with "
            f"{len(clients)} clients, or have no use for these attacks; choose others"
        )
    return plan


def _rows_in_sums(
    config: AttackConfig, datasets: Sequence[Dataset]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rows in the sums of the matrices, and of the curves."""
    most = available(datasets)
    few = max(FEW_ROWS, 2 * len(datasets))
    default = (few, 0) if few < most else (0,)
    matrix = [check_rows_in_sum(datasets, n, "--rows") for n in config.rows or default]
    if config.sweep is None:
        sweep = list(_doubling(max(FIRST_OF_SWEEP, len(datasets)), most))
    else:
        sweep = [check_rows_in_sum(datasets, n, "--sweep") for n in config.sweep]
    return _unique(matrix), _unique(sweep)


def describe(attack: type[AnyAttack]) -> AttackCard:
    """What a report and `--list` say of an attack."""
    return AttackCard(
        attack.name, getdoc(attack) or "", attack.wants, attack.assumes, attack.costly
    )


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


def _run_config(config: AttackConfig, setting: Setting) -> RunConfig:
    run = msgspec.structs.replace(config.run, method=setting.method, protocol=setting.protocol)
    if setting.method in GRADIENT_METHODS:
        # The first update tells the most; more rounds only if they are asked for.
        run = msgspec.structs.replace(run, rounds=run.rounds or 1)
    if setting.epsilon is not None:
        run = msgspec.structs.replace(run, epsilon=setting.epsilon)
    return run


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


def _chosen(what: str, wanted: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    allowed = list(known)
    if unknown := [name for name in wanted if name not in allowed]:
        raise ConfigError(f"--{what} {unknown[0]!r}; allowed: {', '.join(allowed) or 'none yet'}")
    if not (wanted or allowed):
        raise ConfigError(f"there are no {what}")
    return _unique(wanted or allowed)


Item = TypeVar("Item")


def _unique(items: Iterable[Item]) -> tuple[Item, ...]:
    return tuple(dict.fromkeys(items))


def _doubling(first: int, most: int) -> Iterator[int]:
    rows = first
    while rows < most:
        yield rows
        rows *= 2
    yield most


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


def _results(
    config: AttackConfig,
    plan: Plan,
    pools: Mapping[str, Pool],
    cells: Sequence[Cell],
    command: str,
) -> Results:
    pool = next(iter(pools.values()))
    sizes = [len(client) for client in pool.rows]
    return Results(
        config=config,
        command=command,
        when=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        versions=_versions(),
        data=DataCard(
            source=config.run.clients or "scikit-learn's handwritten digits",
            clients=len(sizes),
            rows=sum(sizes),
            least_rows=min(sizes),
            most_rows=max(sizes),
            dims={method: pool.rows[0].features.shape[1] for method, pool in pools.items()},
            classes=len(pool.classes),
            backbones={method: pool.backbone.name for method, pool in pools.items()},
        ),
        attacks=tuple(describe(attack) for attack in plan.attacks),
        adversaries=tuple(AdversaryCard(a.name, a.title, a.meaning) for a in ADVERSARIES.values()),
        protocols={
            name: make_protocol(msgspec.structs.replace(config.run, protocol=name)).protects
            for name in config.protocols
        },
        matrix_rows=plan.matrix_rows,
        sweep_rows=plan.sweep_rows,
        swept=plan.swept,
        planned=plan.cells,
        cells=tuple(cells),
    )


def _versions() -> dict[str, str]:
    packages = ("secure-afl", "numpy", "scipy", "cryptography", "tenseal")
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
