"""The plan of a suite: which runs there are to be, and who attacks each of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

from attacks.attack import Attack
from attacks.suite.adversaries import Adversary, known_adversaries
from attacks.suite.config import FEW_ROWS, FIRST_OF_SWEEP, AttackConfig
from attacks.suite.pool import available, rows_in_sum
from protocols.protocol import PROTOCOLS
from protocols.registry import Registry, options_of
from secure_afl.data.dataset import Dataset
from secure_afl.errors import ConfigError
from secure_afl.methods.method import METHODS
from secure_afl.runs.choose import make_protocol
from secure_afl.runs.config import RunConfig

Item = TypeVar("Item")
AnyAttack = Attack[Any]
Attacks = Mapping[str, type[AnyAttack]] | Registry[AnyAttack]


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
    """The work that is to be done.

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
        """Number of cells."""
        return sum(len(self.of(who)) for found in self.settings.values() for who in found)

    def of(self, adversary: Adversary) -> list[type[AnyAttack]]:
        """Return the attacks of an adversary."""
        two = adversary.sequel is not None
        return [attack for attack in self.attacks if attack.two_sessions == two]


def make_plan(config: AttackConfig, registry: Attacks, datasets: Sequence[Dataset]) -> Plan:
    """Plan all cells, a run's own together.

    Raises:
        ConfigError: a name or number that cannot be used, with those that can.
    """
    chosen = _chosen("attacks", config.attacks, registry)
    if not config.attacks:
        chosen = tuple(name for name in chosen if not registry[name].costly)
    attacks = tuple(registry[name] for name in chosen)
    methods = _chosen("methods", config.methods, sorted(METHODS))
    if not config.methods:
        # What attacks know of rows is their classes.
        methods = tuple(name for name in methods if not METHODS[name].numeric)
    elif numeric := [name for name in methods if METHODS[name].numeric]:
        raise ConfigError(
            f"--methods {numeric[0]} predicts a number, and attacks know methods of classes; take "
            "afl, whose sum holds the same Gram matrix and a cross term"
        )
    protocols = _chosen("protocols", config.protocols, sorted(PROTOCOLS))
    everybody = known_adversaries()
    names = _chosen("adversaries", config.adversaries, everybody)
    matrix, sweep = _rows_in_sums(config, datasets)
    clients = [dataset.name for dataset in datasets]
    # The protocols that protect nothing and one that does make the curves.
    blind = [name for name in protocols if PROTOCOLS[name].hides_vectors]
    swept = tuple(name for name in protocols if name not in blind[1:])

    settings = {}
    axes = product(range(config.repeats), _unique((*matrix, *sweep)), methods)
    for repeat, rows, method in axes:
        wanted = names if rows in matrix else [name for name in names if everybody[name].swept]
        if METHODS[method].sums_of in methods:
            # Only what clients are given afterwards is this method's own.
            wanted = [name for name in wanted if name == "client"]
        under = protocols if rows in matrix else swept
        for protocol, epsilon in product(under, (None, *config.epsilons)):
            setting = Setting(method, protocol, epsilon, rows, repeat)
            terms = make_protocol(run_config_of(config, setting))
            settings[setting] = tuple(
                everybody[name]
                for name in wanted
                if everybody[name].parties(terms, clients, config.colluders) is not None
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
    """Return rows in the sums of the matrices, and of the curves."""
    most = available(datasets)
    few = max(FEW_ROWS, 2 * len(datasets))
    default = (few, 0) if few < most else (0,)
    matrix = [rows_in_sum(datasets, n, "--rows") for n in config.rows or default]
    if config.sweep is None:
        sweep = list(_doubling(max(FIRST_OF_SWEEP, len(datasets)), most))
    else:
        sweep = [rows_in_sum(datasets, n, "--sweep") for n in config.sweep]
    return _unique(matrix), _unique(sweep)


def run_config_of(config: AttackConfig, setting: Setting) -> RunConfig:
    """Make the configuration of one run."""
    run = config.run.replaced(method=setting.method, protocol=setting.protocol)
    if "rounds" in options_of(METHODS[setting.method]) and run.option("rounds") is None:
        # The first update tells the most; more rounds only if they are asked for.
        run = run.replaced(rounds=1)
    return run if setting.epsilon is None else run.replaced(epsilon=setting.epsilon)


def _unique(items: Iterable[Item]) -> tuple[Item, ...]:
    return tuple(dict.fromkeys(items))


def _chosen(what: str, wanted: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    allowed = list(known)
    if unknown := [name for name in wanted if name not in allowed]:
        raise ConfigError(f"--{what} {unknown[0]!r}; allowed: {', '.join(allowed) or 'none yet'}")
    if not (wanted or allowed):
        raise ConfigError(f"there are no {what}")
    return _unique(wanted or allowed)


def _doubling(first: int, most: int) -> Iterator[int]:
    rows = first
    while rows < most:
        yield rows
        rows *= 2
    yield most
