"""Tuning: accuracy against ε, from many real runs, beside DP-SGD and beside no privacy at all.

A point is one run with one setting and one seed. Points are written as they are done, so that an
interrupted sweep goes on where it stopped, unless the data have changed.
"""

import dataclasses
import hashlib
import importlib.util
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from scipy.stats import t as student

from secure_afl.audit import Audit, Cohort, audit
from secure_afl.clients import pooled
from secure_afl.config import RunConfig, make_config
from secure_afl.data import Dataset
from secure_afl.errors import ConfigError
from secure_afl.methods.fedavg import Averaging
from secure_afl.prepare import Prepared, Progress, prepare
from secure_afl.privacy.dpsgd import (
    MAX_DELTA,
    MAX_EPSILON,
    MIN_DELTA,
    MIN_EPSILON,
    SWEEP,
    DpSgdSettings,
    train_dpsgd,
)
from secure_afl.privacy.mechanism import Mechanism
from secure_afl.run import (
    check_folder,
    check_terms,
    federate,
    make_method,
    make_privacy,
    make_protocol,
)
from secure_afl.simulation import declared_rows, default_cohort

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

    def key(self, data: str) -> str:
        """What tells this point from all others, over restarts; see `data_digest`."""
        return hashlib.sha256(msgspec.json.encode((self, data))).hexdigest()[:24]


class Outcome(msgspec.Struct, frozen=True):
    """What came out of a point.

    Attributes:
        accuracy: on the test rows, 0 to 1; null for audits.
        noise_multiplier: σ/Δ of a sum, or of a step of DP-SGD.
        dimension: of the rows as they were summed.
        lower_bound: on ε, of audits.
        seconds: to train, from features to model; for federations of all parties together.
        data: digest of the prepared rows, hexadecimal.
        cohort: among which shares of noise were spread; null where there were none.
    """

    point: Point
    accuracy: float | None
    noise_multiplier: float | None
    dimension: int | None
    lower_bound: float | None
    seconds: float
    data: str
    cohort: Cohort | None = None


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
    """Everything that a sweep runs, cheapest to judge first: exact runs, then by ε.

    Raises:
        ConfigError: settings that a sweep has no use for.
    """
    if config.epsilon is not None:
        raise ConfigError("tune varies ε; pass --epsilons instead of --epsilon")
    if config.ledger is not None or config.budget is not None:
        raise ConfigError(
            "ledger and budget are settings of run: every point of a sweep is a release, and tune "
            "accounts for none. Leave them out, and tune on data that are your own or public"
        )
    if not sweep.epsilons or min(sweep.epsilons) <= 0 or sweep.seeds < 1:
        raise ConfigError("tune needs at least one ε > 0 and one seed")
    config = replace(config, out=None)
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
        if sweep.audit_tests and _auditable(config):
            found.append(Point("audit", replace(config, epsilon=epsilon), None, sweep.audit_tests))
    # A value that is named twice is run once, and counts once.
    return list(dict.fromkeys(found))


def tune(
    config: RunConfig, sweep: Sweep, out: Path, progress: Progress | None = None
) -> list[Outcome]:
    """Run what is not yet done, and return everything.

    Args:
        config: the run that is tuned.
        out: folder; `points.jsonl` in it keeps what is done.

    Raises:
        ConfigError: a setting of any point that cannot be used, before the first is run.
        SecureAflError, ProtocolError: of the first point that cannot be run.
    """
    check_folder(out)
    wanted = points(config, sweep)
    check_settings(wanted)
    prepared: dict[int, Prepared] = {}

    def check(clients: Sequence[Dataset]) -> None:
        for point in wanted:
            check_terms(point.config, len(clients))

    for seed in range(config.seed, config.seed + sweep.seeds):
        prepared[seed] = prepare(replace(config, seed=seed), progress, check)
        if seed == config.seed:
            check_data(wanted, prepared[seed])
    data = {seed: data_digest(rows) for seed, rows in prepared.items()}
    keys = [point.key(data[point.config.seed]) for point in wanted]
    file = out / "points.jsonl"
    done = {outcome.point.key(outcome.data): outcome for outcome in load_outcomes(file)}
    for index, (point, key) in enumerate(zip(wanted, keys, strict=True)):
        if progress is not None:
            progress("points", index, len(wanted))
        if key in done:
            continue
        seed = point.config.seed
        done[key] = run_point(point, prepared[seed], data[seed], progress)
        with file.open("ab") as stream:
            # The line break comes first: the line before may have been cut off.
            stream.write(b"\n" + msgspec.json.encode(done[key]))
    if progress is not None:
        progress("points", len(wanted), len(wanted))
    return [done[key] for key in keys]


def check_settings(wanted: Sequence[Point]) -> None:
    """Refuse what shows without data: ranges, and what is not installed.

    Raises:
        ConfigError: naming the setting and what it may be.
    """
    for point in wanted:
        config = make_config(msgspec.to_builtins(point.config))
        make_method(config)
        make_protocol(config)
        declared_rows((), config.max_rows, make_privacy(config))
        if point.kind == "dp-sgd":
            _check_dpsgd(config)
    needed = ["matplotlib"]
    if any(point.kind == "dp-sgd" for point in wanted):
        needed += ["opacus", "dp_accounting"]
    for module in needed:
        if importlib.util.find_spec(module) is None:
            raise ConfigError(
                f"tune needs {module.replace('_', '-')}; install 'secure-afl[tune]'"
                + ("" if module == "matplotlib" else ", or pass --baseline none")
            )


def check_data(wanted: Sequence[Point], prepared: Prepared) -> None:
    """Refuse what shows with the rows: no test set, too many dimensions, nobody to add noise.

    Raises:
        ConfigError: naming the setting and what it may be.
    """
    if prepared.test is None:
        raise ConfigError("tune compares accuracies on test rows; pass --test")
    dim, clients = prepared.clients[0].features.shape[1], len(prepared.clients)
    for point in wanted:
        config = point.config
        if config.dimension is not None and config.dimension > dim:
            raise ConfigError(
                f"dimension {config.dimension} of features with {dim}; allowed: ≤ {dim}"
            )
        noise_cohort(config, clients)


def noise_cohort(config: RunConfig, clients: int) -> Cohort | None:
    """Among whom a run of so many clients spreads its noise; None where no client adds any.

    Raises:
        ConfigError: nobody is left to add it.
    """
    privacy = make_privacy(config)
    if privacy is None or privacy.placement == "central":
        return None
    dropouts = clients - (config.min_cohort or default_cohort(clients, privacy))
    colluders = max(1, config.corrupt)
    Mechanism(privacy, 1, clients, dropouts, colluders)
    return Cohort(clients, dropouts, colluders)


def data_digest(prepared: Prepared) -> str:
    """A digest of all that figures come from: names, rows, labels, classes, what made them."""
    digest = hashlib.sha256(prepared.backbone.digest)
    digest.update(msgspec.json.encode(prepared.classes))
    test = [] if prepared.test is None else [prepared.test]
    for part in (prepared.clients, prepared.holdout, test):
        digest.update(b"%d" % len(part))
        for rows in part:
            _update(digest, rows.name, rows.features, rows.labels)
    if prepared.public is not None:
        _update(digest, "public", prepared.public)
    return digest.hexdigest()


def run_point(
    point: Point, prepared: Prepared, data: str, progress: Progress | None = None
) -> Outcome:
    """Run one point on prepared rows with this digest."""
    config = point.config
    if point.kind == "audit":
        return _run_audit(point, prepared, data, progress)
    if point.kind == "dp-sgd":
        return _run_dpsgd(point, prepared, data)
    if point.kind == "exact":
        # Without noise there is nothing that fewer dimensions would help against.
        prepared = dataclasses.replace(prepared, public=None)
    report = federate(config, prepared).report
    spent = report.seconds
    return Outcome(
        point,
        report.accuracy.federated,
        report.privacy.noise_multiplier if report.privacy else None,
        report.feature_dim,
        None,
        spent.statistics + spent.protect + spent.aggregate + spent.solve,
        data,
        noise_cohort(config, len(prepared.clients)),
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
        if settings == DpSgdSettings():
            return "DP-SGD"
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
    kinds = {outcome.point.kind for outcome in outcomes}
    lines = [
        f"Unit: {config.unit}; neighbours: {config.neighbours}; δ = {config.delta:g}.",
        _clipping(config),
        *_noise(config, outcomes),
    ]
    if "exact" in kinds:
        lines.append(
            "The line without privacy is from exact sums, a release of its own that no ε covers."
        )
    if "dp-sgd" in kinds and config.neighbours == "add-remove":
        lines.append(
            "DP-SGD takes sampling rate, steps and learning rate from the number of rows, as is "
            "customary: that number is a release of its own, which its ε does not cover."
        )
    lines.append(
        "Choosing a setting by the accuracies below is itself a release about the rows that they "
        "were measured on; choose on data that are public, or spend part of ε on the choice."
    )
    return lines


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


def _auditable(config: RunConfig) -> bool:
    """Whether the audit is of this kind of run: blind sums of single rows, noise of clients."""
    return (
        make_method(config).row_additive
        and (config.unit, config.noise) == ("example", "distributed")
        and config.protocol != "plain"
    )


def _check_dpsgd(config: RunConfig) -> None:
    assert config.epsilon is not None, "DP-SGD is for privacy"
    for name, value, low, high in (
        ("epsilons", config.epsilon, MIN_EPSILON, MAX_EPSILON),
        ("delta", config.delta, MIN_DELTA, MAX_DELTA),
        ("seed", config.seed, 0, 2**32 - 1),
    ):
        if not low <= value <= high:
            raise ConfigError(
                f"{name} {value:g} of DP-SGD; allowed: {low:g}..{high:g}, or more with "
                "--baseline none"
            )


def _update(digest: "hashlib._Hash", name: str, *arrays: NDArray[Any]) -> None:
    for array in arrays:
        # The shape first, so that no rows can pass for other rows.
        digest.update(msgspec.json.encode((name, array.dtype.str, array.shape)))
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _run_audit(point: Point, prepared: Prepared, data: str, progress: Progress | None) -> Outcome:
    privacy = make_privacy(point.config)
    cohort = noise_cohort(point.config, len(prepared.clients))
    assert privacy is not None, "audits are of a promise"
    assert cohort is not None, "audits are of clients' noise"

    def advance(done: int, total: int) -> None:
        if progress is not None:
            progress("canaries", done, total)

    found: Audit = audit(
        privacy,
        tests=point.tests,
        cohort=cohort,
        protocol=make_protocol(point.config),
        corrupt=point.config.corrupt,
        progress=advance,
    )
    return Outcome(point, None, None, None, found.lower_bound, found.seconds, data, cohort)


def _run_dpsgd(point: Point, prepared: Prepared, data: str) -> Outcome:
    privacy, test = make_privacy(point.config), prepared.test
    assert privacy is not None, "DP-SGD is for privacy"
    assert test is not None, "checked before"
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
        seed=point.config.seed,
    )
    seconds = perf_counter() - begin
    accuracy = trained.model.accuracy(test.features, test.labels)
    dim = rows.features.shape[1]
    return Outcome(point, accuracy, trained.noise_multiplier, dim, None, seconds, data)


def _clipping(config: RunConfig) -> str:
    method = make_method(config)
    if isinstance(method, Averaging):
        return (
            f"Clipping: every client's update has norm ≤ {method.clip:g} (--update-clip) before it "
            "is rounded."
        )
    return "Clipping: every row has norm 1 before it is rounded, and 2^bits at most after."


def _noise(config: RunConfig, outcomes: Sequence[Outcome]) -> list[str]:
    multipliers = {
        f"{outcome.point.config.epsilon:g}": outcome.noise_multiplier
        for outcome in outcomes
        if outcome.point.kind == "private" and outcome.noise_multiplier is not None
    }
    noise = ", ".join(f"{z:.3g} at ε = {epsilon}" for epsilon, z in multipliers.items())
    lines = [f"Noise multiplier of a sum (σ over its joint sensitivity): {noise}."]
    if config.noise == "central":
        return [*lines, "Noise: whoever decodes the sum sees it exactly, and adds all of it."]
    for cohort in dict.fromkeys(outcome.cohort for outcome in outcomes):
        if cohort is None:
            continue
        left = cohort.clients - cohort.dropouts - cohort.colluders
        lines.append(
            f"Noise shares: of {cohort.clients} clients {cohort.dropouts} may drop out and "
            f"{cohort.colluders} may tell their shares; those of the other {left} are the noise "
            "that is promised."
        )
    if any(outcome.point.kind == "audit" for outcome in outcomes):
        lines.append(
            f"The audit is of AFL's sums over {config.protocol}, in that cohort, with those "
            "clients gone and those shares known."
        )
    else:
        lines.append("No audit was made.")
    return lines


def _setting_key(point: Point) -> bytes:
    return msgspec.json.encode(replace(point, config=replace(point.config, seed=0)))


def _half_width(values: Sequence[float]) -> float:
    """Of Student's 95 % interval for the mean; none from a single value."""
    if len(values) < 2:
        return 0.0
    quantile = float(student.ppf(0.975, len(values) - 1))
    return quantile * stdev(values) / math.sqrt(len(values))
