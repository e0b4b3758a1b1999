"""The plan of a suite: which runs there are to be, and who attacks each of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

import msgspec

from attacks.attack import Attack
from attacks.suite.adversaries import ADVERSARIES, Adversary
from attacks.suite.config import FEW_ROWS, FIRST_OF_SWEEP, METHODS, PROTOCOLS, AttackConfig
from attacks.suite.pool import available, check_rows_in_sum
from secure_afl.data.dataset import Dataset
from secure_afl.errors import ConfigError
from secure_afl.runs.choose import make_protocol
from secure_afl.runs.config import RunConfig
from secure_afl.runs.prepare import GRADIENT_METHODS

# Who has more under FedHiP than under AFL, in the joint reading.
BROADCAST_TO = ("client",)


# Whose successes make the curves: who has the sum, and who has the model only.
SWEPT = ("outsider", "server", "first-aggregator", "key-holder")


AnyAttack = Attack[Any]


Registry = Mapping[str, type[AnyAttack]]


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


def _run_config(config: AttackConfig, setting: Setting) -> RunConfig:
    run = msgspec.structs.replace(config.run, method=setting.method, protocol=setting.protocol)
    if setting.method in GRADIENT_METHODS:
        # The first update tells the most; more rounds only if they are asked for.
        run = msgspec.structs.replace(run, rounds=run.rounds or 1)
    if setting.epsilon is not None:
        run = msgspec.structs.replace(run, epsilon=setting.epsilon)
    return run


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
