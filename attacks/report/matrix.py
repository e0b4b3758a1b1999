"""This module puts cells in their places, in the lines and columns of matrices.

Pages and terminals show the same matrices, and print their figures alike.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import msgspec
import numpy as np

from attacks.attack import Measure
from attacks.suite.cells import Cell, above_chance, averaged, is_one_trial
from attacks.suite.results import AdversaryCard, AttackCard, Results

# Bounds further out than this are nowhere.
NOWHERE = 1e300


class Panel(msgspec.Struct, frozen=True):
    """A panel says what one matrix is of."""

    method: str
    epsilon: float | None
    rows: int


class Condition(msgspec.Struct, frozen=True):
    """A condition is one attack in one setting; its repeats are averaged."""

    attack: str
    method: str
    protocol: str
    adversary: str
    epsilon: float | None
    rows: int

    @classmethod
    def of(cls, cell: Cell) -> "Condition":
        """Return the condition that a cell is a repeat of."""
        return cls(*(getattr(cell, name) for name in cls.__struct_fields__))

    @property
    def panel(self) -> Panel:
        """The panel that the condition belongs to."""
        return Panel(self.method, self.epsilon, self.rows)


Conditions = Mapping[Condition, Sequence[Cell]]


@dataclass(frozen=True)
class Summary:
    """A summary says what the repeats of one condition found.

    Attributes:
        anchor: id of its row among all measures.
        error: why there are no measures; null where there are.
        refused: the attack could not be tried; where there is an error, it did not fail.
        claimed: there was something to attack.
        measures: means over repeats, the headline first; of guessing the headline alone.
        seconds: mean over repeats.
    """

    anchor: str
    error: str | None
    refused: bool
    claimed: bool
    measures: tuple[Measure, ...]
    seconds: float


@dataclass(frozen=True)
class Line:
    """A line of a matrix is an adversary under a protocol.

    Attributes:
        found: of each column; null where there is no cell.
    """

    protocol: str
    adversary: AdversaryCard
    found: tuple[Summary | None, ...]


@dataclass(frozen=True)
class Matrix:
    """A matrix holds adversaries against attacks.

    Attributes:
        columns: the attacks that had something to attack, with their headline.
        idle: the other attacks, by why they are left out.
    """

    panel: Panel
    columns: tuple[tuple[AttackCard, Measure | None], ...]
    lines: tuple[Line, ...]
    idle: Mapping[str, Sequence[AttackCard]]


def by_condition(cells: Iterable[Cell]) -> dict[Condition, list[Cell]]:
    """Group cells by condition, in their order."""
    conditions: dict[Condition, list[Cell]] = defaultdict(list)
    for cell in cells:
        conditions[Condition.of(cell)].append(cell)
    return dict(conditions)


def condition_of(panel: Panel, attack: str, protocol: str, adversary: str) -> Condition:
    """Return the condition at a place in a matrix."""
    return Condition(attack, panel.method, protocol, adversary, panel.epsilon, panel.rows)


def panels_of(results: Results, conditions: Iterable[Condition]) -> list[Panel]:
    """List the matrices that have cells: few rows first, then by method and ε."""
    there = {condition.panel for condition in conditions}
    config = results.config
    axes = product(results.matrix_rows, config.methods, (None, *config.epsilons))
    possible = (Panel(method, epsilon, rows) for rows, method, epsilon in axes)
    return [panel for panel in possible if panel in there]


def panels(results: Results) -> list[Panel]:
    """List the matrices of a report, in its order."""
    return panels_of(results, by_condition(results.cells))


def panel_title(panel: Panel) -> str:
    """Say what a matrix is of."""
    privacy = "exact sums" if panel.epsilon is None else f"ε = {panel.epsilon:g}"
    return f"{panel.method}, {privacy}, {panel.rows:,} rows in the sum"


def fill_matrix(results: Results, panel: Panel, conditions: Conditions) -> Matrix:
    """Fill one matrix with what its conditions found."""
    there = {(c.protocol, c.adversary) for c in conditions if c.panel == panel}
    pairs = [
        (protocol, adversary)
        for protocol, adversary in product(results.config.protocols, results.adversaries)
        if (protocol, adversary.name) in there
    ]

    def cells_at(card: AttackCard, protocol: str, adversary: AdversaryCard) -> Sequence[Cell]:
        return conditions.get(condition_of(panel, card.name, protocol, adversary.name), ())

    def found_at(card: AttackCard, protocol: str, adversary: AdversaryCard) -> Summary | None:
        cells = cells_at(card, protocol, adversary)
        return summarise(cells) if cells else None

    columns: list[tuple[AttackCard, Measure | None]] = []
    idle: dict[str, list[AttackCard]] = defaultdict(list)
    for card in results.attacks:
        cells = [cell for pair in pairs for cell in cells_at(card, *pair)]
        if any(cell.claimed or (cell.error and not cell.refused) for cell in cells):
            columns.append((card, next((c.measures[0] for c in cells if c.measures), None)))
        elif cells:
            idle[_say_why_idle(cells)].append(card)
    lines = [Line(*pair, tuple(found_at(card, *pair) for card, _ in columns)) for pair in pairs]
    return Matrix(panel, tuple(columns), tuple(lines), dict(idle))


def _say_why_idle(cells: Sequence[Cell]) -> str:
    reason = next((cell.error for cell in cells if cell.error), None)
    return f"Not tried here ({reason})" if reason else "Nothing to attack here for anybody"


def summarise(cells: Sequence[Cell]) -> Summary:
    """Summarise the repeats of a condition, of which there is one at least."""
    done = [cell for cell in cells if cell.error is None and cell.measures]
    claimed = any(cell.claimed for cell in done)
    error, count = None, 1
    if not done:
        error, count = next((cell.error for cell in cells if cell.error), "no measure"), 0
    elif claimed:
        count = len(done[0].measures)
    return Summary(
        anchor=f"c-{cells[0].key[:12]}",
        error=error,
        refused=cells[0].refused,
        claimed=claimed,
        measures=tuple(
            averaged(cell.measures[i] for cell in done if len(cell.measures) > i)
            for i in range(count)
        ),
        seconds=float(np.mean([cell.seconds for cell in done or cells])),
    )


def claimed_measure(cells: Sequence[Cell]) -> Measure | None:
    """Average the headline over repeats; None where there was nothing to attack."""
    done = [cell for cell in cells if cell.claimed and cell.measures]
    return averaged(cell.measures[0] for cell in done) if done else None


def compact(results: Results, panel: Panel) -> tuple[list[str], list[list[str]]]:
    """Return a matrix for a terminal: its header, and its lines.

    A line is an adversary under its protocol; attacks that have nothing to attack in any are left
    out. Cells are the headline: with * where its whole interval is above guessing, in brackets
    where it is of one trial.
    """
    matrix = fill_matrix(results, panel, by_condition(results.cells))
    header = ["protocol", "adversary", *(card.name for card, _ in matrix.columns)]
    return header, [
        [line.protocol, line.adversary.title, *map(_shorten, line.found)] for line in matrix.lines
    ]


def _shorten(found: Summary | None) -> str:
    if found is None:
        return ""
    if found.error is not None:
        return "–" if found.refused else "!"
    if not found.claimed:
        return "·"
    headline = found.measures[0]
    if is_one_trial(headline):
        return f"({figure(headline.value)}?)"
    return figure(headline.value) + ("*" if above_chance(headline) else "")


def figure(value: float) -> str:
    """Print a number; what is not complete success is not rounded to it."""
    if abs(value) >= NOWHERE:
        return "∞" if value > 0 else "−∞"
    if value == round(value) and abs(value) < 1e6:
        return f"{value:.0f}".replace("-", "−")
    text = f"{value:.2f}" if abs(value) < 10 else f"{value:,.1f}"
    if text in ("1.00", "0.00", "-0.00"):
        # What is not complete must not look so.
        text = f"{value:.3f}" if abs(value) > 0.5 else f"{value:.2g}"
    return text.replace("-", "−")


def interval(measure: Measure) -> str:
    """Print a measure's interval."""
    if max(abs(measure.low), abs(measure.high)) >= NOWHERE:
        return "no interval"
    return f"{_bound(measure.low)}–{_bound(measure.high)}"


def _bound(value: float) -> str:
    text = f"{value:.2f}" if abs(value) < 10 else f"{value:,.0f}"
    return text.replace("-", "−")


def said(measure: Measure) -> str:
    """Say a measure in words, to be read out."""
    return (
        f"{measure.metric} {figure(measure.value)}, interval {interval(measure)}, guessing "
        f"{figure(measure.chance)}, best {figure(measure.best)}, {count_trials(measure)}"
    )


def count_trials(measure: Measure) -> str:
    """Say how many trials a measure is of; of one it says that this is not many."""
    if is_one_trial(measure):
        return "one trial, which shows nothing surely" if measure.trials else "no trial"
    return f"{measure.trials:,} trials"
