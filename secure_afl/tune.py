"""Tuning: accuracy against ε, from many real runs, beside DP-SGD and beside no privacy at all.

A point is one run with one setting and one seed. Points are written as they are done, so that an
interrupted sweep goes on where it stopped.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter
from typing import Literal

import msgspec
from msgspec.structs import replace
from scipy.stats import t as student

from secure_afl.audit import Audit, audit
from secure_afl.clients import pooled
from secure_afl.config import RunConfig
from secure_afl.errors import ConfigError
from secure_afl.prepare import Prepared, prepare
from secure_afl.privacy.dpsgd import SWEEP, DpSgdSettings, train_dpsgd
from secure_afl.run import check_folder, federate, make_privacy

DEFAULT_EPSILONS = (0.1, 0.5, 1.0, 2.0, 8.0)

Baseline = Literal["none", "default", "sweep"]
Kind = Literal["private", "exact", "dp-sgd", "audit"]


class Sweep(msgspec.Struct, frozen=True):
    """What is varied.

    Attributes:
        epsilons: each > 0.
        seeds: runs of each setting, ≥ 1; a seed also governs the partition.
        feature_bits, ridges, cross_weights, dimensions: values to try beside the configured one.
        baseline: `default` runs DP-SGD with its data-free settings, `sweep` with some more.
        audit_tests: canaries per ε, 0 for no audit.
    """

    epsilons: tuple[float, ...] = DEFAULT_EPSILONS
    seeds: int = 3
    feature_bits: tuple[int, ...] = ()
    ridges: tuple[float, ...] = ()
    cross_weights: tuple[float, ...] = ()
    dimensions: tuple[int, ...] = ()
    baseline: Baseline = "default"
    audit_tests: int = 100_000


class Point(msgspec.Struct, frozen=True):
    """One thing to run.

    Attributes:
        kind: a private federation, one without noise, DP-SGD, or an audit of the promise.
        config: all settings of the run.
        dpsgd: of DP-SGD.
        tests: of an audit.
    """

    kind: Kind
    config: RunConfig
    dpsgd: DpSgdSettings | None = None
    tests: int = 0

    @property
    def key(self) -> str:
        """What tells this point from all others, over restarts."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:24]


class Outcome(msgspec.Struct, frozen=True):
    """What came out of a point.

    Attributes:
        accuracy: on the test rows, 0 to 1; null for audits.
        noise_multiplier: σ/Δ of a sum, or of a step of DP-SGD.
        dimension: of the rows as they were summed.
        lower_bound: on ε, of audits.
        seconds: to train, from features to model; for federations of all parties together.
    """

    point: Point
    accuracy: float | None
    noise_multiplier: float | None
    dimension: int | None
    lower_bound: float | None
    seconds: float


class Summary(msgspec.Struct, frozen=True):
    """A setting over its seeds: mean accuracy and a 95 % interval (Student's t)."""

    kind: Kind
    label: str
    epsilon: float | None
    accuracy: float
    low: float
    high: float
    noise_multiplier: float | None
    dimension: int | None
    seconds: float
    seeds: int


def points(config: RunConfig, sweep: Sweep) -> list[Point]:
    """Everything that a sweep runs, cheapest to judge first: exact runs, then by ε."""
    if config.epsilon is not None:
        raise ConfigError("tune varies ε; pass --epsilons instead of --epsilon")
    if not sweep.epsilons or min(sweep.epsilons) <= 0 or sweep.seeds < 1:
        raise ConfigError("tune needs at least one ε > 0 and one seed")
    config = replace(config, out=None, ledger=None, budget=None)
    found = []
    for seed in range(config.seed, config.seed + sweep.seeds):
        found.append(Point("exact", replace(config, seed=seed, dimension=0, public=None)))
    for epsilon in sweep.epsilons:
        for setting in _settings(config, sweep):
            for seed in range(config.seed, config.seed + sweep.seeds):
                found.append(Point("private", replace(setting, epsilon=epsilon, seed=seed)))
        for dpsgd in _baselines(config, sweep):
            for seed in range(config.seed, config.seed + sweep.seeds):
                found.append(Point("dp-sgd", replace(config, epsilon=epsilon, seed=seed), dpsgd))
        if sweep.audit_tests and (config.unit, config.noise) == ("example", "distributed"):
            found.append(Point("audit", replace(config, epsilon=epsilon), None, sweep.audit_tests))
    return found


def tune(
    config: RunConfig,
    sweep: Sweep,
    out: Path,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Outcome]:
    """Run what is not yet done, and return everything.

    Args:
        config: the run that is tuned.
        out: folder; `points.jsonl` in it keeps what is done.

    Raises:
        SecureAflError: of the first point that cannot be run.
    """
    check_folder(out)
    wanted = points(config, sweep)
    file = out / "points.jsonl"
    done = {outcome.point.key: outcome for outcome in load_outcomes(file)}
    prepared: dict[int, Prepared] = {}
    for index, point in enumerate(wanted):
        if progress is not None:
            progress("points", index, len(wanted))
        if point.key in done:
            continue
        seed = point.config.seed
        if seed not in prepared and point.kind != "audit":
            prepared[seed] = prepare(point.config, progress)
        outcome = run_point(point, prepared.get(seed))
        done[point.key] = outcome
        with file.open("ab") as stream:
            # The line break comes first: the line before may have been cut off.
            stream.write(b"\n" + msgspec.json.encode(outcome))
    if progress is not None:
        progress("points", len(wanted), len(wanted))
    return [done[point.key] for point in wanted]


def run_point(point: Point, prepared: Prepared | None) -> Outcome:
    """Run one point; audits need no data."""
    config = point.config
    privacy = make_privacy(config)
    if point.kind == "audit":
        assert privacy is not None, "audits are of a promise"
        found: Audit = audit(privacy, tests=point.tests)
        return Outcome(point, None, None, None, found.lower_bound, found.seconds)
    assert prepared is not None, "a run needs rows"
    if prepared.test is None:
        raise ConfigError("tune compares accuracies on test rows; pass --test")
    if point.kind == "dp-sgd":
        assert privacy is not None, "DP-SGD is for privacy"
        assert point.dpsgd is not None, "DP-SGD has settings"
        rows = pooled(list(prepared.clients))
        begin = perf_counter()
        trained = train_dpsgd(
            rows.features,
            rows.labels,
            prepared.classes,
            epsilon=privacy.epsilon,
            delta=privacy.delta,
            neighbours=privacy.neighbours,
            settings=point.dpsgd,
            seed=config.seed,
        )
        seconds = perf_counter() - begin
        accuracy = trained.model.accuracy(prepared.test.features, prepared.test.labels)
        dim = rows.features.shape[1]
        return Outcome(point, accuracy, trained.noise_multiplier, dim, None, seconds)
    report = federate(config, prepared).report
    spent = report.seconds
    return Outcome(
        point,
        report.accuracy.federated,
        report.privacy.noise_multiplier if report.privacy else None,
        report.feature_dim,
        None,
        spent.statistics + spent.protect + spent.aggregate + spent.solve,
    )


def load_outcomes(file: Path) -> list[Outcome]:
    """What an earlier, perhaps interrupted, sweep has written."""
    if not file.exists():
        return []
    outcomes = []
    for line in file.read_bytes().splitlines():
        try:
            outcomes.append(msgspec.json.decode(line, type=Outcome))
        except (msgspec.DecodeError, ConfigError):
            continue  # cut off when the sweep was, or of another version: runs again
    return outcomes


def summarise(outcomes: Sequence[Outcome]) -> list[Summary]:
    """Means over seeds, in the order of the points."""
    summaries = []
    scored = [outcome for outcome in outcomes if outcome.accuracy is not None]
    keyed = sorted(enumerate(scored), key=lambda pair: _setting_key(pair[1].point))
    groups = itertools.groupby(keyed, key=lambda pair: _setting_key(pair[1].point))
    for first, group in sorted((members[0][0], members) for _, g in groups if (members := list(g))):
        runs = [outcome for _, outcome in group]
        accuracies = [run.accuracy for run in runs if run.accuracy is not None]
        half = _half_width(accuracies)
        middle = mean(accuracies)
        head = scored[first]
        summaries.append(
            Summary(
                head.point.kind,
                label(head.point),
                head.point.config.epsilon,
                middle,
                max(0.0, middle - half),
                min(1.0, middle + half),
                head.noise_multiplier,
                head.dimension,
                mean(run.seconds for run in runs),
                len(runs),
            )
        )
    return summaries


def label(point: Point) -> str:
    """A setting in words, without ε and seed; points of one label make one curve."""
    config = point.config
    if point.kind == "exact":
        return "without privacy"
    if point.dpsgd is not None:
        settings = point.dpsgd
        return (
            f"DP-SGD, {settings.epochs} epochs, rate {settings.learning_rate:g}, clip "
            f"{settings.clip:g}, momentum {settings.momentum:g}"
        )
    parts = [f"{config.method}, {config.protocol}"]
    if config.feature_bits is not None:
        parts.append(f"{config.feature_bits} bits")
    if config.ridge is not None:
        parts.append(f"λ = {config.ridge:g}")
    if config.cross_weight != RunConfig().cross_weight:
        parts.append(f"w = {config.cross_weight:g}")
    if config.dimension is not None:
        parts.append(f"dimension {config.dimension or 'as it is'}")
    return ", ".join(parts)


def statement(config: RunConfig, outcomes: Sequence[Outcome]) -> list[str]:
    """What a reader of the figures has to know."""
    multipliers = {
        f"{outcome.point.config.epsilon:g}": outcome.noise_multiplier
        for outcome in outcomes
        if outcome.point.kind == "private" and outcome.noise_multiplier is not None
    }
    noise = ", ".join(f"{z:.3g} at ε = {epsilon}" for epsilon, z in multipliers.items())
    return [
        f"Unit: {config.unit}; neighbours: {config.neighbours}; δ = {config.delta:g}.",
        "Clipping: every row has norm 1 before it is rounded, and 2^bits at most after.",
        f"Noise multiplier of a sum (σ over its joint sensitivity): {noise}.",
        "Choosing a setting by the accuracies below is itself a release about the rows that they "
        "were measured on; choose on data that are public, or spend part of ε on the choice.",
    ]


def draw(outcomes: Sequence[Outcome], file: Path) -> None:
    """The picture: accuracy against ε with 95 % bands, and the audited lower bounds.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise ConfigError("the picture needs matplotlib: pip install 'secure-afl[tune]'") from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    audits = [outcome for outcome in outcomes if outcome.lower_bound is not None]
    panels = 2 if audits else 1
    figure, axes = plt.subplots(
        1,
        panels,
        figsize=(9.6 if audits else 6.4, 4.4),
        width_ratios=(3, 2)[:panels],
        squeeze=False,
    )
    accuracy = axes[0, 0]
    curves: dict[str, list[Summary]] = {}
    for summary in summarise(outcomes):
        curves.setdefault(summary.label, []).append(summary)
    for name, curve in curves.items():
        if curve[0].epsilon is None:
            accuracy.axhspan(100 * curve[0].low, 100 * curve[0].high, color="0.9")
            accuracy.axhline(100 * curve[0].accuracy, color="0.4", linestyle="--", label=name)
            continue
        epsilons = [summary.epsilon for summary in curve]
        middle = [100 * summary.accuracy for summary in curve]
        style = "s:" if curve[0].kind == "dp-sgd" else "o-"
        (line,) = accuracy.plot(epsilons, middle, style, markersize=4, label=name)
        accuracy.fill_between(
            epsilons,
            [100 * summary.low for summary in curve],
            [100 * summary.high for summary in curve],
            color=line.get_color(),
            alpha=0.15,
            linewidth=0,
        )
    accuracy.set(xscale="log", xlabel="ε", ylabel="accuracy on test rows, %")
    accuracy.legend(fontsize="small")
    accuracy.set_title("accuracy, mean and 95 % interval over seeds", fontsize="medium")
    if audits:
        promised = [outcome.point.config.epsilon for outcome in audits]
        audited = axes[0, 1]
        ends = [min(e for e in promised if e), max(e for e in promised if e)]
        audited.plot(ends, ends, color="0.4", linestyle="--", label="promised")
        bounds = [outcome.lower_bound for outcome in audits]
        audited.plot(promised, bounds, "v", label="shown by the audit")
        audited.set(xscale="log", yscale="log", xlabel="ε", ylabel="ε")
        audited.legend(fontsize="small")
        audited.set_title("audited lower bound, 99.9 %", fontsize="medium")
    for panel in axes[0]:
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, dpi=150)
    plt.close(figure)


def save(config: RunConfig, sweep: Sweep, outcomes: Sequence[Outcome], out: Path) -> None:
    """Write `tune.json`, with every point, and `tune.png` into a folder."""
    content = {
        "settings": msgspec.to_builtins(config),
        "sweep": msgspec.to_builtins(sweep),
        "read_first": statement(config, outcomes),
        "summaries": msgspec.to_builtins(summarise(outcomes)),
        "points": msgspec.to_builtins(list(outcomes)),
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (out / "tune.json").write_text(text, encoding="utf-8")
    draw(outcomes, out / "tune.png")


def _settings(config: RunConfig, sweep: Sweep) -> Iterator[RunConfig]:
    """The configured setting, and each other value of each thing that is varied."""
    yield config
    for bits in sweep.feature_bits:
        yield replace(config, feature_bits=bits)
    for ridge in sweep.ridges:
        yield replace(config, ridge=ridge)
    for weight in sweep.cross_weights:
        yield replace(config, cross_weight=weight)
    for dimension in sweep.dimensions:
        yield replace(config, dimension=dimension)


def _baselines(config: RunConfig, sweep: Sweep) -> Sequence[DpSgdSettings]:
    if sweep.baseline == "none" or config.unit != "example":
        return ()
    return SWEEP if sweep.baseline == "sweep" else (DpSgdSettings(),)


def _setting_key(point: Point) -> bytes:
    return msgspec.json.encode(replace(point, config=replace(point.config, seed=0)))


def _half_width(values: Sequence[float]) -> float:
    """Of Student's 95 % interval for the mean; none from a single value."""
    if len(values) < 2:
        return 0.0
    quantile = float(student.ppf(0.975, len(values) - 1))
    return quantile * stdev(values) / math.sqrt(len(values))
