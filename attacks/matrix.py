"""Cells in their places: which matrices there are, their lines and columns, and their figures."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import msgspec

from attacks.attack import Measure
from attacks.cells import Cell, above_chance, averaged
from attacks.suite import AdversaryCard, AttackCard, Results

# Bounds further out than this are nowhere.
NOWHERE = 1e300


class Spot(msgspec.Struct, frozen=True):
    """A place in a matrix: repeats of it are averaged."""

    attack: str
    method: str
    protocol: str
    adversary: str
    epsilon: float | None
    rows: int

    @classmethod
    def of(cls, cell: Cell) -> "Spot":
        """Where a cell belongs."""
        return cls(*(getattr(cell, name) for name in cls.__struct_fields__))


class Panel(msgspec.Struct, frozen=True):
    """One matrix."""

    method: str
    epsilon: float | None
    rows: int


def by_spot(cells: Iterable[Cell]) -> dict[Spot, list[Cell]]:
    """Cells by where they belong, in their order."""
    spots: dict[Spot, list[Cell]] = defaultdict(list)
    for cell in cells:
        spots[Spot.of(cell)].append(cell)
    return dict(spots)


def spot_of(panel: Panel, attack: str, protocol: str, adversary: str) -> Spot:
    """A place in a matrix."""
    return Spot(attack, panel.method, protocol, adversary, panel.epsilon, panel.rows)


def panels_of(results: Results, spots: Mapping[Spot, object]) -> list[Panel]:
    """The matrices that there are cells of: few rows first, then by method and ε."""
    there = {(spot.method, spot.epsilon, spot.rows) for spot in spots}
    config = results.config
    axes = product(results.matrix_rows, config.methods, (None, *config.epsilons))
    return [Panel(m, e, rows) for rows, m, e in axes if (m, e, rows) in there]


def lines_of(
    results: Results, panel: Panel, spots: Mapping[Spot, object]
) -> list[tuple[str, AdversaryCard]]:
    """A matrix's lines: protocol and adversary."""
    there = {
        (spot.protocol, spot.adversary)
        for spot in spots
        if (spot.method, spot.epsilon, spot.rows) == (panel.method, panel.epsilon, panel.rows)
    }
    pairs = product(results.config.protocols, results.adversaries)
    return [(p, adversary) for p, adversary in pairs if (p, adversary.name) in there]


def columns_of(
    results: Results,
    panel: Panel,
    lines: Sequence[tuple[str, AdversaryCard]],
    spots: Mapping[Spot, Sequence[Cell]],
) -> tuple[list[tuple[AttackCard, Measure | None]], dict[str, list[AttackCard]]]:
    """The attacks that had something to attack, with their main measure; why the others had not."""
    shown, idle = [], defaultdict(list)
    for card in results.attacks:
        cells = [c for p, a in lines for c in spots.get(spot_of(panel, card.name, p, a.name), [])]
        if any(cell.claimed or (cell.error and not cell.refused) for cell in cells):
            shown.append((card, next((c.measures[0] for c in cells if c.measures), None)))
        elif cells:
            reason = next((cell.error for cell in cells if cell.error), None)
            what = f"Not tried here ({reason})" if reason else "Nothing to attack here for anybody"
            idle[what].append(card)
    return shown, idle


def claimed_measure(cells: Sequence[Cell]) -> Measure | None:
    """The main measure over repeats; None where there was nothing to attack."""
    done = [cell for cell in cells if cell.claimed and cell.measures]
    return averaged(cell.measures[0] for cell in done) if done else None


def panels(results: Results) -> list[Panel]:
    """The matrices of a report, in its order."""
    return panels_of(results, by_spot(results.cells))


def compact(results: Results, panel: Panel) -> tuple[list[str], list[list[str]]]:
    """A matrix for a terminal: its header, and its lines.

    A line is an adversary under its protocol; attacks that have nothing to attack in any are left
    out. Cells are the main measure, * where its whole interval is above guessing.
    """
    spots = by_spot(results.cells)
    lines = lines_of(results, panel, spots)
    shown, _ = columns_of(results, panel, lines, spots)
    header = ["protocol", "adversary", *(card.name for card, _ in shown)]
    return header, [
        [
            protocol,
            adversary.title,
            *(
                _short(spots.get(spot_of(panel, card.name, protocol, adversary.name), []))
                for card, _ in shown
            ),
        ]
        for protocol, adversary in lines
    ]


def panel_title(panel: Panel) -> str:
    """What a matrix is of."""
    privacy = "exact sums" if panel.epsilon is None else f"ε = {panel.epsilon:g}"
    return f"{panel.method}, {privacy}, {panel.rows:,} rows in the sum"


def _short(cells: Sequence[Cell]) -> str:
    done = [cell for cell in cells if cell.error is None and cell.measures]
    if not cells:
        return ""
    if not done:
        return "–" if cells[0].refused else "!"
    measure = averaged(cell.measures[0] for cell in done)
    if not any(cell.claimed for cell in done):
        return "·"
    return figure(measure.value) + ("*" if above_chance(measure) else "")


def figure(value: float) -> str:
    """A number as reports print it; what is not complete success is not rounded to it."""
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
    """A measure's interval as reports print it."""
    if max(abs(measure.low), abs(measure.high)) >= NOWHERE:
        return "no interval"
    return f"{_bound(measure.low)}–{_bound(measure.high)}"


def _bound(value: float) -> str:
    text = f"{value:.2f}" if abs(value) < 10 else f"{value:,.0f}"
    return text.replace("-", "−")


def said(measure: Measure) -> str:
    """A measure in words, to read out."""
    return (
        f"{measure.metric} {figure(measure.value)}, interval {interval(measure)}, guessing "
        f"{figure(measure.chance)}, best {figure(measure.best)}, {measure.trials:,} trials"
    )
