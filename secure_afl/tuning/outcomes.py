"""The outcomes of a sweep: what came out of its points, summarised and put into words."""

import itertools
from collections.abc import Sequence
from statistics import mean

import msgspec
from msgspec import structs

from secure_afl.intervals import student_reach
from secure_afl.runs.choose import make_method
from secure_afl.runs.config import RunConfig
from secure_afl.tuning.audit import Cohort
from secure_afl.tuning.dpsgd import DpSgdSettings
from secure_afl.tuning.points import Kind, Point


class Outcome(msgspec.Struct, frozen=True):
    """The outcome of a point.

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
    """A setting over its seeds: mean accuracy and a 95 % interval (Student's t).

    Attributes:
        low, high: ends of the interval; null of one seed, which tells nothing of others.
    """

    kind: Kind
    label: str
    epsilon: float | None
    accuracy: float
    low: float | None
    high: float | None
    noise_multiplier: float | None
    dimension: int | None
    seconds: float
    seeds: int


def summarise(outcomes: Sequence[Outcome]) -> list[Summary]:
    """Return means over seeds, in the order of the points."""
    summaries = []
    scored = [outcome for outcome in outcomes if outcome.accuracy is not None]
    keyed = sorted(enumerate(scored), key=lambda pair: _setting_key(pair[1].point))
    groups = itertools.groupby(keyed, key=lambda pair: _setting_key(pair[1].point))
    for first, group in sorted((members[0][0], members) for _, g in groups if (members := list(g))):
        runs = [outcome for _, outcome in group]
        accuracies = [run.accuracy for run in runs if run.accuracy is not None]
        middle = mean(accuracies)
        low, high = _interval(accuracies)
        head = scored[first]
        summaries.append(
            Summary(
                head.point.kind,
                label(head.point),
                head.point.config.epsilon,
                middle,
                low,
                high,
                head.noise_multiplier,
                head.dimension,
                mean(run.seconds for run in runs),
                len(runs),
            )
        )
    return summaries


def _interval(accuracies: Sequence[float]) -> tuple[float, float] | tuple[None, None]:
    """Return the 95 % interval of a mean accuracy, within 0 and 1; none of a single seed."""
    if len(accuracies) < 2:
        return None, None
    middle, half = mean(accuracies), student_reach(accuracies)
    return max(0.0, middle - half), min(1.0, middle + half)


def label(point: Point) -> str:
    """Put a setting into words, without ε and seed.

    The points of one label make one curve.
    """
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
    if (ridge := config.option("ridge")) is not None:
        parts.append(f"λ = {ridge:g}")
    if config.cross_weight != RunConfig().cross_weight:
        parts.append(f"w = {config.cross_weight:g}")
    if (sums := config.option("rounds")) is not None:
        parts.append(f"{sums} sums")
    if config.dimension is not None:
        parts.append(f"dimension {config.dimension or 'as it is'}")
    return ", ".join(parts)


def statement(config: RunConfig, outcomes: Sequence[Outcome]) -> list[str]:
    """Say what a reader of the figures has to know."""
    kinds = {outcome.point.kind for outcome in outcomes}
    lines = [
        f"Unit: {config.unit}; neighbours: {config.neighbours}; δ = {config.delta:g}.",
        f"Clipping of {config.method}: {make_method(config.replaced(epsilon=1.0)).clipping}.",
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
        "Choosing a setting by these accuracies is itself a release about the rows that they "
        "were measured on; choose on data that are public, or spend part of ε on the choice."
    )
    return lines


def _noise(config: RunConfig, outcomes: Sequence[Outcome]) -> list[str]:
    multipliers: dict[str, dict[str, float]] = {}
    for outcome in outcomes:
        own = outcome.point.config
        if outcome.point.kind == "private" and outcome.noise_multiplier is not None:
            multipliers.setdefault(own.method, {})[f"{own.epsilon:g}"] = outcome.noise_multiplier
    lines = []
    for method, found in multipliers.items():
        noise = ", ".join(f"{z:.3g} at ε = {epsilon}" for epsilon, z in found.items())
        lines.append(
            f"Noise multiplier of a sum of {method} (σ over its joint sensitivity): {noise}."
        )
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
            f"The audit is of {config.method}'s sums over {config.protocol}, in that cohort, with "
            "those clients gone and those shares known."
        )
    else:
        lines.append("No audit was made.")
    return lines


def _setting_key(point: Point) -> bytes:
    return msgspec.json.encode(structs.replace(point, config=point.config.replaced(seed=0)))
