"""This module makes the leakage report: one HTML file that asks for nothing from anywhere.

It shows who could learn what, as matrices with an interval in every cell; how that changes with
the rows in the sum; what was rebuilt, beside what was there; and what every figure assumes.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jinja2
import msgspec

from attacks.attack import Measure
from attacks.report.charts import Chart
from attacks.report.colours import LEVELS, Ramp, mix_ramp
from attacks.report.curves import AttackCurves, Roc, draw_attacks, draw_membership, draw_rocs
from attacks.report.matrix import (
    Condition,
    Conditions,
    Matrix,
    Panel,
    Summary,
    by_condition,
    figure,
    fill_matrix,
    interval,
    panel_title,
    panels_of,
    said,
    summarise,
)
from attacks.suite.cells import Cell, Gallery, above_chance, is_one_trial, success
from attacks.suite.results import AdversaryCard, DataCard, Results
from secure_afl.runs.config import RunConfig

PICTURES_OF_AN_ATTACK = 8

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Rebuilt:
    """The pictures that one attack rebuilt in one panel.

    Attributes:
        views: adversaries from whose views they were rebuilt, by protocol.
    """

    attack: str
    panel: Panel
    views: Mapping[str, Sequence[str]]
    images: Sequence[Gallery]


@dataclass(frozen=True)
class Coalition:
    """A coalition is an adversary with the parties that it was made of, by protocol."""

    adversary: AdversaryCard
    parties: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Findings:
    """All measures of one panel."""

    panel: Panel
    found: Sequence[tuple[Condition, Summary]]


@dataclass(frozen=True)
class Page:
    """A page is all that its templates draw, but for the results themselves.

    Attributes:
        failed: how many cells have no result because something failed.
        titles: of adversaries, by name.
        settings: JSON of those that are not what they are by default.
    """

    facts: Mapping[str, str]
    failed: int
    titles: Mapping[str, str]
    matrices: Sequence[Matrix]
    membership: Chart | None
    curves: Sequence[AttackCurves]
    rocs: Sequence[Roc]
    rebuilt: Sequence[Rebuilt]
    coalitions: Sequence[Coalition]
    findings: Sequence[Findings]
    settings: str
    ramp: Ramp


def render(results: Results) -> str:
    """Render the report as HTML."""
    template = _environment().get_template("page.html.j2")
    return template.render(page=_prepare(results), results=results)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        # The style is a template too, so that what is included is never marked as safe by hand.
        loader=jinja2.FileSystemLoader((_HERE / "templates", _HERE)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "digits": _group_digits,
        "figure": figure,
        "interval": interval,
        "level": _choose_level,
        "panel_title": panel_title,
        "paragraphs": _split_paragraphs,
        "pixels": _print_pixels,
        "said": said,
        "split_at_code": _split_at_code,
        "percent": _print_percent,
    }
    environment.tests |= {"above_chance": above_chance, "one_trial": is_one_trial}
    return environment


def _prepare(results: Results) -> Page:
    conditions = by_condition(results.cells)
    return Page(
        facts=_list_facts(results.data, results),
        failed=sum(cell.error is not None and not cell.refused for cell in results.cells),
        titles={card.name: card.title for card in results.adversaries},
        matrices=[
            fill_matrix(results, panel, conditions) for panel in panels_of(results, conditions)
        ],
        membership=draw_membership(results, conditions),
        curves=draw_attacks(results, conditions),
        rocs=draw_rocs(results, conditions),
        rebuilt=_collect_pictures(results),
        coalitions=_list_coalitions(results),
        findings=_list_findings(conditions),
        settings=_print_settings(results),
        ramp=mix_ramp(),
    )


def _list_facts(data: DataCard, results: Results) -> dict[str, str]:
    least, most = f"{data.least_rows:,}", f"{data.most_rows:,}"
    return {
        "data": data.source,
        "clients": f"{data.clients}",
        "rows, in and out of sums": f"{data.rows:,}",
        "rows of a client": least if least == most else f"{least} – {most}",
        "features × classes": " / ".join(
            f"{dim:,} × {data.classes}" for dim in dict.fromkeys(data.dims.values())
        ),
        "backbone": " / ".join(dict.fromkeys(data.backbones.values())),
        "cells": f"{len(results.cells):,}",
        "intervals hold together at": _print_percent(results.config.confidence),
    }


def _collect_pictures(results: Results) -> list[Rebuilt]:
    titles = {card.name: card.title for card in results.adversaries}
    # Views that hold the same yield the same pictures: shown once, under all their names.
    alike: dict[tuple[str, Panel, tuple[Gallery, ...]], list[Cell]] = defaultdict(list)
    first_method: dict[tuple[str, tuple[Gallery, ...]], str] = {}
    for cell in results.cells:
        if cell.images and cell.repeat == 0 and cell.rows in results.matrix_rows:
            method = first_method.setdefault((cell.attack, cell.images), cell.method)
            alike[cell.attack, Panel(method, cell.epsilon, cell.rows), cell.images].append(cell)
    collected = []
    for (attack, panel, images), cells in alike.items():
        views: dict[str, dict[str, None]] = defaultdict(dict)
        for cell in cells:
            views[cell.protocol][titles[cell.adversary]] = None
        methods = " and ".join(dict.fromkeys(cell.method for cell in cells))
        collected.append(
            Rebuilt(
                attack,
                msgspec.structs.replace(panel, method=methods),
                {protocol: tuple(names) for protocol, names in views.items()},
                images[:PICTURES_OF_AN_ATTACK],
            )
        )
    return collected


def _list_coalitions(results: Results) -> list[Coalition]:
    coalitions = []
    for card in results.adversaries:
        parties = {
            cell.protocol: cell.coalition
            for cell in results.cells
            if cell.adversary == card.name and cell.error is None
        }
        if parties:
            coalitions.append(Coalition(card, parties))
    return coalitions


def _list_findings(conditions: Conditions) -> list[Findings]:
    by_panel: dict[Panel, list[tuple[Condition, Summary]]] = defaultdict(list)
    for condition, cells in conditions.items():
        by_panel[condition.panel].append((condition, summarise(cells)))
    return [Findings(panel, found) for panel, found in by_panel.items()]


def _print_settings(results: Results) -> str:
    config = msgspec.to_builtins(results.config)
    defaults = msgspec.to_builtins(RunConfig())
    config["run"] = {k: v for k, v in config["run"].items() if v != defaults[k]}
    return msgspec.json.format(msgspec.json.encode(config)).decode()


# What the templates print with


def _group_digits(number: float) -> str:
    return f"{number:,.0f}"


def _print_percent(share: float) -> str:
    return f"{share:.0%}"


def _print_pixels(place: float) -> str:
    return f"{place:.1f}"


def _choose_level(measure: Measure) -> int:
    """Choose the level of the ramp that a measure is coloured by."""
    return round(success(measure) * (LEVELS - 1))


def _split_paragraphs(docstring: str) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in docstring.split("\n\n")]


def _split_at_code(text: str) -> list[str]:
    """Split a docstring's text where backticks are: every second part is code."""
    return re.split(r"`([^`]+)`", text)
