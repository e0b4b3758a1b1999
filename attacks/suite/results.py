"""The results of a suite: all that its report is made from."""

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from inspect import getdoc

import msgspec

from attacks.suite.adversaries import known_adversaries
from attacks.suite.cells import Cell
from attacks.suite.config import AttackConfig
from attacks.suite.plan import AnyAttack, Plan
from attacks.suite.pool import Pool
from attacks.views.openings import can_open
from secure_afl.runs.choose import make_protocol


class AttackCard(msgspec.Struct, frozen=True):
    """Description of an attack in a report: its docstring, and what it declares."""

    name: str
    summary: str
    wants: str
    assumes: tuple[str, ...]
    costly: bool


class AdversaryCard(msgspec.Struct, frozen=True):
    """Description of an adversary in a report; `swept` ones make the curves."""

    name: str
    title: str
    meaning: str
    swept: bool = False


class DataCard(msgspec.Struct, frozen=True):
    """Description of the data in a report.

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
        unopened: protocols whose uploads no code opens, so that guessing shows nothing there.
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
    unopened: tuple[str, ...]
    planned: int
    cells: tuple[Cell, ...]


def describe(attack: type[AnyAttack]) -> AttackCard:
    """Describe an attack as a report and `--list` do."""
    return AttackCard(
        attack.name, getdoc(attack) or "", attack.wants, attack.assumes, attack.costly
    )


def make_results(
    config: AttackConfig,
    plan: Plan,
    pools: Mapping[str, Pool],
    cells: Sequence[Cell],
    command: str,
) -> Results:
    """Gather all that the report is made from."""
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
        adversaries=tuple(
            AdversaryCard(a.name, a.title, a.meaning, a.swept) for a in known_adversaries().values()
        ),
        protocols={
            name: make_protocol(config.run.replaced(protocol=name)).protects
            for name in config.protocols
        },
        matrix_rows=plan.matrix_rows,
        sweep_rows=plan.sweep_rows,
        swept=plan.swept,
        unopened=tuple(name for name in config.protocols if not can_open(name)),
        planned=plan.cells,
        cells=tuple(cells),
    )


def _versions() -> dict[str, str]:
    packages = ("secure-afl", "numpy", "scipy", "cryptography", "tenseal")
    return {"python": platform.python_version()} | {name: version_of(name) for name in packages}


def version_of(package: str) -> str:
    """Return the version of an installed package, in words where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
