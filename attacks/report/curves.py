"""This module draws the report's curves: measures against rows, and ROC curves."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from attacks.attack import Measure
from attacks.measures.metrics import gaussian_tradeoff
from attacks.report.charts import STYLES, Axis, Chart, Series, lay_out
from attacks.report.matrix import (
    NOWHERE,
    Condition,
    Conditions,
    Panel,
    claimed_measure,
    panels_of,
)
from attacks.suite.results import Results
from protocols.protocol import PROTOCOLS
from secure_afl.analytic.quantise import Floats

# Where the axis of false positives begins.
LEAST_FPR = 1e-3

# Measures by the rows in the sum, and those by the label of their line.
ByRows = dict[int, Measure]
ByLabel = Mapping[str, ByRows]


@dataclass(frozen=True)
class AttackCurves:
    """The curves of one attack, against the rows in the sum."""

    attack: str
    chart: Chart


@dataclass(frozen=True)
class Roc:
    """A ROC has one curve for what each adversary of a panel had."""

    attack: str
    panel: Panel
    chart: Chart


def draw_membership(results: Results, conditions: Conditions) -> Chart | None:
    """Draw the strongest attack by AUC: from the sum, from the model, with privacy."""
    best: dict[str, ByRows] = defaultdict(dict)
    for condition, cells in conditions.items():
        measure = claimed_measure(cells)
        if not _is_swept(results, condition) or measure is None or measure.metric != "AUC":
            continue
        by_rows = best[_setting_label(condition, results)]
        held = by_rows.get(condition.rows)
        if held is None or measure.value > held.value:
            by_rows[condition.rows] = measure
    return _draw_against_rows(best, lambda metric: f"membership: {metric} against rows")


def draw_attacks(results: Results, conditions: Conditions) -> list[AttackCurves]:
    """Draw the curves of every attack that has any."""
    drawn = []
    for card in results.attacks:
        chart = _draw_attack(results, card.name, conditions)
        if chart is not None:
            drawn.append(AttackCurves(card.name, chart))
    return drawn


def draw_rocs(results: Results, conditions: Conditions) -> list[Roc]:
    """Draw the ROC curves of every attack in every panel."""
    # Methods whose releases are the same have the same curves: shown once, of the first.
    drawn: dict[tuple[str, ...], Roc] = {}
    for card in results.attacks:
        for panel in panels_of(results, conditions):
            chart = _draw_roc(results, card.name, panel, conditions)
            if chart is not None:
                looks = (text for line in chart.lines for text in (line.label, line.path))
                drawn.setdefault((card.name, *looks), Roc(card.name, panel, chart))
    return list(drawn.values())


def _draw_attack(results: Results, attack: str, conditions: Conditions) -> Chart | None:
    found: dict[str, dict[str, ByRows]] = defaultdict(lambda: defaultdict(dict))
    titles = {card.name: card.title for card in results.adversaries}
    for condition, cells in conditions.items():
        measure = claimed_measure(cells)
        if condition.attack == attack and measure is not None and _is_swept(results, condition):
            what = f"{condition.protocol}, {titles[condition.adversary]}"
            label = _add_privacy(what, condition.epsilon)
            found[label][condition.method][condition.rows] = measure
    return _draw_against_rows(_merge(found), lambda metric: f"{attack}: {metric} against rows")


def _is_swept(results: Results, condition: Condition) -> bool:
    swept = {adversary.name for adversary in results.adversaries if adversary.swept}
    return condition.protocol in results.swept and condition.adversary in swept


def _merge(found: Mapping[str, Mapping[str, ByRows]]) -> dict[str, ByRows]:
    """Turn lines by label and method into lines by label: methods that agree share one."""
    lines: dict[str, ByRows] = {}
    for label, by_method in found.items():
        shapes = {
            tuple((rows, round(m.value, 9)) for rows, m in sorted(points.items()))
            for points in by_method.values()
        }
        if len(shapes) == 1:
            lines[label] = next(iter(by_method.values()))
        else:
            lines |= {f"{label}, {method}": points for method, points in by_method.items()}
    return lines


def _draw_against_rows(found: ByLabel, name: Callable[[str], str]) -> Chart | None:
    """Draw the lines of two points or more; None where there is none.

    Args:
        name: makes the chart's name of that of its metric.
    """
    lines = []
    for style, (label, by_rows) in enumerate(found.items()):
        if len(by_rows) < 2:
            continue
        ordered = sorted(by_rows.items())
        points = [(float(rows), m.value) for rows, m in ordered]
        bounds = [(m.low, m.high) for _, m in ordered]
        lines.append(Series(label, points, bounds, style % STYLES))
    if not lines:
        return None
    metric = next(iter(found[lines[0].label].values())).metric
    measures = [m for by_rows in found.values() for m in by_rows.values()]
    rows = [x for line in lines for x, _ in line.points]
    x = Axis("rows in the sum", min(rows) / 1.15, max(rows) * 1.15, log=True)
    ends = [end for m in measures for end in (m.value, m.chance, m.best) if abs(end) < NOWHERE]
    low, high = min(ends), max(ends)
    room = 0.08 * (high - low or 1.0)
    y = Axis(metric, low - room, high + room)
    return lay_out(name(metric), x, y, lines, measures[0].chance)


def _setting_label(condition: Condition, results: Results) -> str:
    """Say what an adversary of the curves had, in a few words."""
    titles = {card.name: card.title for card in results.adversaries}
    if condition.adversary == "outsider":
        what = "the model W alone"
    else:
        hidden = PROTOCOLS[condition.protocol].hides_vectors
        seen = "the sum (G, Q)" if hidden else "every client's (G, Q)"
        what = f"{seen}: {condition.protocol}, {titles[condition.adversary]}"
    return _add_privacy(what, condition.epsilon)


def _add_privacy(what: str, epsilon: float | None) -> str:
    return what if epsilon is None else f"{what}, ε = {epsilon:g}"


def _draw_roc(results: Results, attack: str, panel: Panel, conditions: Conditions) -> Chart | None:
    grid = np.geomspace(LEAST_FPR, 1.0, 60)
    curves: dict[str, list[tuple[float, float]]] = {}
    mu = None
    for condition, cells in conditions.items():
        if condition.attack != attack or condition.panel != panel:
            continue
        if _is_swept(results, condition) and cells[0].roc:
            label = _setting_label(condition, results)
            curves.setdefault(label, _resample(cells[0].roc, grid))
            mu = mu if cells[0].mu is None else cells[0].mu
    if not curves:
        return None
    if panel.epsilon is not None and mu is not None:
        bound = gaussian_tradeoff(mu, grid)
        curves[f"bound at ε = {panel.epsilon:g}"] = _pair(grid, bound)
    lines = [
        Series(label, points, style=style % STYLES, marked=False)
        for style, (label, points) in enumerate(curves.items())
    ]
    lines.append(Series("guessing", _pair(grid, grid), style=2, marked=False, quiet=True))
    x = Axis("false positive rate", LEAST_FPR, 1.0, log=True)
    y = Axis("true positive rate", 0.0, 1.0)
    return lay_out(f"{attack}: true against false positives", x, y, lines)


def _resample(points: Sequence[tuple[float, float]], grid: Floats) -> list[tuple[float, float]]:
    """Take a ROC curve at given FPR; between thresholds an attacker tosses a coin."""
    fpr, tpr = np.array(points).T
    return _pair(grid, np.interp(grid, fpr, tpr))


def _pair(fpr: Floats, tpr: Floats) -> list[tuple[float, float]]:
    return [(float(f), float(t)) for f, t in zip(fpr, tpr, strict=True)]
