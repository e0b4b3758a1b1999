"""The points of a sweep: what is to be run, and what forbids it."""

import importlib.util
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from protocols.protocol import PROTOCOLS
from protocols.registry import options_of
from secure_afl.errors import ConfigError
from secure_afl.journal import key_of
from secure_afl.methods.method import METHODS
from secure_afl.privacy.mechanism import Mechanism
from secure_afl.runs.choose import make_terms
from secure_afl.runs.config import RunConfig
from secure_afl.runs.prepare import Prepared
from secure_afl.runs.settings import check_ranges, flag
from secure_afl.tuning.audit import Cohort
from secure_afl.tuning.dpsgd import (
    MAX_DELTA,
    MAX_EPSILON,
    MIN_DELTA,
    MIN_EPSILON,
    SWEEP,
    DpSgdSettings,
)
from secure_afl.tuning.settings import Sweep

Kind = Literal["private", "exact", "dp-sgd", "audit"]


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
        """Make what tells this point from all others, over restarts and edits of the code.

        Args:
            data: digest of the prepared rows.
        """
        things = (METHODS[self.config.method], PROTOCOLS[self.config.protocol])
        code = ("secure_afl.tuning.sweep", *(thing.__module__ for thing in things))
        return key_of(msgspec.to_builtins(self), data, code=code)


def points(config: RunConfig, sweep: Sweep) -> list[Point]:
    """List all that a sweep runs, cheapest to judge first: exact runs, then by ε.

    Raises:
        ConfigError: settings that a sweep has no use for.
    """
    if config.epsilon is not None:
        raise ConfigError("tune varies ε; pass --epsilons instead of --epsilon")
    if config.ledger is not None or config.new_ledger or config.budget is not None:
        raise ConfigError(
            "ledger and budget are settings of run: every point of a sweep is a release, and tune "
            "accounts for none. Leave them out, and tune on data that are your own or public"
        )
    if not sweep.epsilons or min(sweep.epsilons) <= 0 or sweep.seeds < 1:
        raise ConfigError("tune needs at least one ε > 0 and one seed")
    _check_effect(config, sweep)
    config = config.replaced(out=None)
    found = []
    exact = _of(config, "afl") if METHODS[config.method].wants_noise else config
    for seed in range(config.seed, config.seed + sweep.seeds):
        found.append(Point("exact", exact.replaced(seed=seed, dimension=0, public=None)))
    for epsilon in sweep.epsilons:
        for setting in _settings(config, sweep):
            for seed in range(config.seed, config.seed + sweep.seeds):
                found.append(Point("private", setting.replaced(epsilon=epsilon, seed=seed)))
        for dpsgd in _baselines(config, sweep):
            for seed in range(config.seed, config.seed + sweep.seeds):
                found.append(Point("dp-sgd", config.replaced(epsilon=epsilon, seed=seed), dpsgd))
        if sweep.audit_tests and _auditable(config):
            found.append(Point("audit", config.replaced(epsilon=epsilon), None, sweep.audit_tests))
    # A value that is named twice is run once, and counts once.
    return list(dict.fromkeys(found))


def _check_effect(config: RunConfig, sweep: Sweep) -> None:
    """Refuse what a sweep of this method does not look at."""
    unknown = [name for name in sweep.methods if name not in METHODS]
    if unknown:
        raise ConfigError(f"--methods {unknown[0]}; allowed: {', '.join(sorted(METHODS))}")
    method = METHODS[config.method]
    idle = [] if "ridge" in options_of(method) else ["ridges"]
    idle += ["bits"] if "feature_bits" in method.ignores else []
    idle += ["cross_weights"] if "cross_weight" in method.ignores else []
    idle += [] if _methods_of_rounds(config, sweep) else ["sums"]
    for name in idle:
        if getattr(sweep, name):
            raise ConfigError(f"{flag(name)} has no effect with {config.method}; leave it out")
    for name in ("keys", "holdout", "evaluate", "scale", "out"):
        if getattr(config, name):
            raise ConfigError(f"{name} is a setting of run, which tune does without; leave it out")


def check_settings(wanted: Sequence[Point]) -> None:
    """Refuse what shows without data: ranges, and what is not installed.

    Raises:
        ConfigError: naming the setting and what it may be.
    """
    for point in wanted:
        config = point.config
        check_ranges(config)
        make_terms(config).declared_rows((), config.max_rows)
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
    """Refuse what shows with the rows.

    That is: no test set, too many dimensions, nobody to add noise.

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
    """Return the cohort among which a run of so many clients spreads its noise.

    None where no client adds any.

    Raises:
        ConfigError: nobody is left to add it.
    """
    terms = make_terms(config)
    if terms.privacy is None or terms.privacy.placement == "central":
        return None
    least = config.min_cohort or terms.default_cohort(clients)
    colluders = terms.colluders(clients, least, config.corrupt)
    Mechanism(terms.privacy, 1, clients, clients - least, colluders)
    return Cohort(clients, clients - least, colluders)


def _settings(config: RunConfig, sweep: Sweep) -> Iterator[RunConfig]:
    """Yield the configured setting, and each other value of each thing that is varied."""
    yield config
    for bits in sweep.bits:
        yield config.replaced(feature_bits=bits)
    for ridge in sweep.ridges:
        yield config.replaced(ridge=ridge)
    for weight in sweep.cross_weights:
        yield config.replaced(cross_weight=weight)
    for dimension in sweep.dimensions:
        yield config.replaced(dimension=dimension)
    for method in sweep.methods:
        yield _of(config, method)
    for method in _methods_of_rounds(config, sweep):
        for sums in sweep.sums:
            yield _of(config, method).replaced(rounds=sums)


def _methods_of_rounds(config: RunConfig, sweep: Sweep) -> list[str]:
    """List the tuned methods whose number of sums is a setting."""
    tuned = dict.fromkeys((config.method, *sweep.methods))
    return [name for name in tuned if "rounds" in options_of(METHODS[name])]


def _of(config: RunConfig, method: str) -> RunConfig:
    """Return the configuration of another method, without settings that it does not have."""
    known = {*options_of(METHODS[method]), *options_of(PROTOCOLS[config.protocol])}
    foreign = {name: None for name, _ in config.options if name not in known}
    return config.replaced(method=method, **foreign)


def _baselines(config: RunConfig, sweep: Sweep) -> Sequence[DpSgdSettings]:
    if sweep.baseline == "none" or config.unit != "example":
        return ()
    return SWEEP if sweep.baseline == "sweep" else (DpSgdSettings(),)


def _auditable(config: RunConfig) -> bool:
    """Say whether the audit is of this kind of run.

    That is: blind sums of rows or patients, noise of clients.
    """
    return (
        METHODS[config.method].auditable
        and PROTOCOLS[config.protocol].hides_vectors
        and config.unit != "client"
        and config.noise == "distributed"
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
