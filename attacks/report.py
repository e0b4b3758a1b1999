"""The leakage report: one HTML file that asks for nothing from anywhere.

Who could learn what, as matrices with an interval in every cell; how that changes with the rows in
the sum; what was rebuilt, beside what was there; and what every figure assumes.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

import msgspec
import numpy as np

from attacks.attack import Measure
from attacks.cells import Cell, Gallery, above_chance, averaged, success
from attacks.charts import STYLES, Axis, Series, chart, key
from attacks.colours import LEVELS, ramp_style
from attacks.matrix import (
    NOWHERE,
    Panel,
    Spot,
    by_spot,
    claimed_measure,
    columns_of,
    figure,
    interval,
    lines_of,
    panel_title,
    panels_of,
    said,
    spot_of,
)
from attacks.metrics import gaussian_tradeoff
from attacks.suite import SWEPT, Results
from secure_afl.config import RunConfig
from secure_afl.quantise import Floats

PICTURES_OF_AN_ATTACK = 8


def render(results: Results) -> str:
    """The report as HTML."""
    spots = by_spot(results.cells)
    sections = [
        _head(results),
        _section("matrix", "Leakage matrix", _matrices(results, spots)),
        _section("curves", "How it changes with the rows in the sum", _curves(results, spots)),
        _section("roc", "Membership: true against false positives", _rocs(results, spots)),
        _section("pictures", "What was rebuilt", _galleries(results)),
        _section("attacks", "The attacks, and what they assume", _attacks(results)),
        _section("adversaries", "The adversaries", _adversaries(results)),
        _section("measures", "Every measure", _measures(results, spots)),
        _section("made", "How this was made", _made(results)),
    ]
    style = files("attacks").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Leakage report: {escape(results.data.source)}</title>\n"
        f"<style>\n{style}{ramp_style()}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


# Sections


def _section(anchor: str, title: str, content: str) -> str:
    if not content:
        return ""
    return f'<section id="{anchor}">\n<h2>{escape(title)}</h2>\n{content}\n</section>'


def _head(results: Results) -> str:
    data = results.data
    spread = (
        f"{data.least_rows:,}"
        if data.least_rows == data.most_rows
        else f"{data.least_rows:,} – {data.most_rows:,}"
    )
    facts = {
        "data": data.source,
        "clients": f"{data.clients}",
        "rows, in and out of sums": f"{data.rows:,}",
        "rows of a client": spread,
        "features × classes": " / ".join(
            f"{dim:,} × {data.classes}" for dim in dict.fromkeys(data.dims.values())
        ),
        "backbone": " / ".join(dict.fromkeys(data.backbones.values())),
        "cells": f"{len(results.cells):,}",
        "intervals hold together at": f"{results.config.confidence:.0%}",
    }
    listed = "".join(
        f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in facts.items()
    )
    notices = ""
    if len(results.cells) < results.planned:
        notices += (
            f'<p class="notice">Interrupted: {len(results.cells):,} of {results.planned:,} cells '
            "are here. The same command goes on where it stopped.</p>"
        )
    if failed := sum(cell.error is not None and not cell.refused for cell in results.cells):
        notices += (
            f'<p class="notice">{failed:,} cells have no result because something failed; they are '
            'marked ! and <a href="#measures">say why</a>.</p>'
        )
    return (
        f"<header>\n<h1>Leakage report</h1>\n<p class=lead>What each party, and each coalition of "
        "parties, could learn from what it really saw. Every figure is the success of an attack "
        "that was given the record of a real run — the messages, states and keys of its coalition "
        "— and nothing else but what the list of attacks names.</p>\n"
        f"<dl class=facts>{listed}</dl>{notices}\n</header>"
    )


def _matrices(results: Results, spots: Mapping[Spot, Sequence[Cell]]) -> str:
    panels = panels_of(results, spots)
    if not panels:
        return ""
    return _legend(results) + "".join(_matrix(results, panel, spots) for panel in panels)


def _legend(results: Results) -> str:
    ramp = "".join(f'<i class="s{level}"></i>' for level in range(LEVELS))
    return (
        "<p>A line is who attacks, under which protocol; a column is an attack, with its main "
        "measure and what guessing gives. A cell is coloured by success over guessing, "
        "(value − guessing) / (best − guessing).</p>\n"
        f'<div class="legend"><span>guessing <span class="ramp">{ramp}</span> complete success'
        '</span><span><span class="swatch s9"><b>0.93</b></span> bold: the whole interval is above '
        'guessing</span><span><span class="swatch s3">0.66</span> plain: it may be guessing</span>'
        '<span><span class="swatch none">(0.50)</span> nothing to attack in this view: guessing'
        '</span><span><span class="swatch none">–</span> could not be tried</span>'
        '<span><span class="swatch failed">!</span> failed</span></div>\n'
        f"<p class=soft>Small print in a cell is its interval. All {results.planned:,} cells' "
        f"intervals hold together at {results.config.confidence:.0%} confidence (Bonferroni); each "
        "by itself is wider than usual for that. They are about this run and this choice of rows. "
        "A cell leads to all its measures. Attacks on two sessions are by those who have two, all "
        "others by those who have one.</p>"
    )


def _matrix(results: Results, panel: Panel, spots: Mapping[Spot, Sequence[Cell]]) -> str:
    lines = lines_of(results, panel, spots)
    shown, idle = columns_of(results, panel, lines, spots)
    header = "".join(_column(card.name, measure) for card, measure in shown)
    body, group = [], None
    for protocol, adversary in lines:
        if protocol != group:
            group = protocol
            protects = results.protocols.get(protocol, "")
            body.append(
                f'<tr class="group"><th colspan="{len(shown) + 1}" scope="rowgroup"><span>'
                f"<b>{escape(protocol)}</b> protects {escape(protects)}</span></th></tr>"
            )
        across = "".join(
            _matrix_cell(spots.get(spot_of(panel, card.name, protocol, adversary.name), []))
            for card, _ in shown
        )
        name = f'<a href="#who-{adversary.name}">{escape(adversary.title)}</a>'
        body.append(f'<tr><th scope="row">{name}</th>{across}</tr>')
    left_out = ""
    if panel.method == "fedhip" and "afl" in results.config.methods:
        left_out = (
            "<p class=soft>The sums and the global model are those of afl; only what a client is "
            "given afterwards differs.</p>"
        )
    for what, cards in idle.items():
        named = ", ".join(f'<a href="#attack-{c.name}">{escape(c.name)}</a>' for c in cards)
        left_out += f"<p class=soft>{escape(what)}: {named}.</p>"
    return (
        f"<h3>{escape(panel_title(panel))}</h3>\n<div class=wide><table class=matrix><thead><tr>"
        f"<td></td>{header}</tr></thead><tbody>{''.join(body)}</tbody></table></div>{left_out}\n"
    )


def _column(attack: str, measure: Measure | None) -> str:
    note = ""
    if measure is not None:
        note = f"<br><small>{escape(measure.metric)}, guessing {figure(measure.chance)}</small>"
    return (
        f'<th class="attack" scope="col"><a href="#attack-{attack}">{escape(attack)}{note}</a></th>'
    )


def _matrix_cell(cells: Sequence[Cell]) -> str:
    if not cells:
        return "<td></td>"
    anchor = f"#c-{cells[0].key[:12]}"
    done = [cell for cell in cells if cell.error is None and cell.measures]
    if not done:
        reason = escape(next((cell.error for cell in cells if cell.error), "no measure"))
        mark, kind = ("–", "none") if cells[0].refused else ("!", "failed")
        return f'<td class="{kind}"><a href="{anchor}" title="{reason}">{mark}</a></td>'
    measure = averaged(cell.measures[0] for cell in done)
    if not any(cell.claimed for cell in done):
        title = "nothing to attack; guessing"
        return (
            f'<td class="none"><a href="{anchor}" title="{title}">({figure(measure.chance)})</a>'
            "</td>"
        )
    sure = " sure" if above_chance(measure) else ""
    return (
        f'<td class="s{_level(measure)}{sure}"><a href="{anchor}" title="{escape(said(measure))}">'
        f"<b>{figure(measure.value)}</b><small>{interval(measure)}</small></a></td>"
    )


def _curves(results: Results, spots: Mapping[Spot, Sequence[Cell]]) -> str:
    figures = [_membership_curves(results, spots)]
    figures += [_attack_curves(results, card.name, spots) for card in results.attacks]
    figures = [figure for figure in figures if figure]
    if not figures:
        return ""
    return (
        "<p>The main measure of each attack against the number of rows in the sum, for those who "
        "receive the sum and for an outsider who has the model. Bars are the intervals of the "
        "matrix.</p>\n"
        f'<div class="figures">{"".join(figures)}</div>'
    )


def _membership_curves(results: Results, spots: Mapping[Spot, Sequence[Cell]]) -> str:
    """The strongest of the attacks by AUC, from the sum, from the model, and with privacy."""
    best: dict[str, dict[int, Measure]] = defaultdict(dict)
    for spot, cells in spots.items():
        measure = claimed_measure(cells)
        if not _is_swept(results, spot) or measure is None or measure.metric != "AUC":
            continue
        label = _had(spot, results)
        held = best[label].get(spot.rows)
        if held is None or measure.value > held.value:
            best[label][spot.rows] = measure
    lines = _series(best)
    if not lines:
        return ""
    caption = "<b>Membership</b>: the strongest attack by AUC at each point, by what it had."
    return _figure_of("membership: AUC against rows", "AUC", lines, best, caption)


def _attack_curves(results: Results, attack: str, spots: Mapping[Spot, Sequence[Cell]]) -> str:
    found: dict[str, dict[str, dict[int, Measure]]] = defaultdict(lambda: defaultdict(dict))
    titles = {card.name: card.title for card in results.adversaries}
    for spot, cells in spots.items():
        measure = claimed_measure(cells)
        if spot.attack == attack and measure is not None and _is_swept(results, spot):
            label = f"{spot.protocol}, {titles[spot.adversary]}"
            label += "" if spot.epsilon is None else f", ε = {spot.epsilon:g}"
            found[label][spot.method][spot.rows] = measure
    merged = _merged(found)
    lines = _series(merged)
    if not lines:
        return ""
    metric = next(iter(merged[lines[0].label].values())).metric
    caption = f'<b><a href="#attack-{attack}">{escape(attack)}</a></b>'
    return _figure_of(f"{attack}: {metric} against rows", metric, lines, merged, caption)


def _is_swept(results: Results, spot: Spot) -> bool:
    return spot.protocol in results.swept and spot.adversary in SWEPT


def _merged(found: Mapping[str, Mapping[str, dict[int, Measure]]]) -> dict[str, dict[int, Measure]]:
    """Lines by label and method as lines by label: methods that agree share one."""
    lines: dict[str, dict[int, Measure]] = {}
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


def _series(found: Mapping[str, dict[int, Measure]]) -> list[Series]:
    lines = []
    for style, (label, by_rows) in enumerate(found.items()):
        if len(by_rows) < 2:
            continue
        ordered = sorted(by_rows.items())
        points = [(float(rows), m.value) for rows, m in ordered]
        bounds = [(m.low, m.high) for _, m in ordered]
        lines.append(Series(label, points, bounds, style % STYLES))
    return lines


def _figure_of(
    name: str,
    metric: str,
    lines: Sequence[Series],
    found: Mapping[str, dict[int, Measure]],
    caption: str,
) -> str:
    measures = [m for by_rows in found.values() for m in by_rows.values()]
    rows = [x for line in lines for x, _ in line.points]
    x = Axis("rows in the sum", min(rows) / 1.15, max(rows) * 1.15, log=True)
    ends = [end for m in measures for end in (m.value, m.chance, m.best) if abs(end) < NOWHERE]
    low, high = min(ends), max(ends)
    room = 0.08 * (high - low or 1.0)
    drawn = chart(name, x, Axis(metric, low - room, high + room), lines, measures[0].chance)
    return f"<figure>{drawn}{_keys(lines)}<figcaption>{caption}</figcaption></figure>"


def _rocs(results: Results, spots: Mapping[Spot, Sequence[Cell]]) -> str:
    # Methods whose releases are the same have the same curves: shown once, of the first.
    figures: dict[str, str] = {}
    for card in results.attacks:
        for panel in panels_of(results, spots):
            if drawn := _roc(results, card.name, panel, spots, panel.epsilon):
                caption = f"<b>{escape(card.name)}</b>, {escape(panel_title(panel))}"
                figures.setdefault(drawn, f"<figcaption>{caption}</figcaption></figure>")
    if not figures:
        return ""
    return (
        "<p>Share of the rows in the sum that an attack finds, against the share of other rows "
        "that it takes for them. With differential privacy no attack on one row from a blind "
        "sum can lie above the exact trade-off curve of the Gaussian mechanism, TPR = "
        "Φ(Φ⁻¹(FPR) + μ) (Dong, Roth and Su 2022), but by chance.</p>\n"
        f'<div class="figures">{"".join(a + b for a, b in figures.items())}</div>'
    )


def _had(spot: Spot, results: Results) -> str:
    """What an adversary of the curves had, in a few words."""
    titles = {card.name: card.title for card in results.adversaries}
    if spot.adversary == "outsider":
        what = "the model W alone"
    elif spot.protocol == "plain":
        what = "every client's (G, Q): plain, server"
    else:
        what = f"the sum (G, Q): {spot.protocol}, {titles[spot.adversary]}"
    return what if spot.epsilon is None else f"{what}, ε = {spot.epsilon:g}"


def _roc(
    results: Results,
    attack: str,
    panel: Panel,
    spots: Mapping[Spot, Sequence[Cell]],
    epsilon: float | None,
) -> str:
    least = 1e-3
    grid = np.geomspace(least, 1.0, 60)
    curves: dict[str, tuple[tuple[float, float], ...]] = {}
    theory: dict[float, float] = {}
    for spot, cells in spots.items():
        fits = (spot.attack, spot.method, spot.rows) == (attack, panel.method, panel.rows)
        if not fits or not _is_swept(results, spot) or not cells[0].roc:
            continue
        if spot.epsilon == epsilon:
            curves.setdefault(_had(spot, results), cells[0].roc)
            if epsilon is not None and cells[0].mu is not None:
                theory[epsilon] = cells[0].mu
    if not curves:
        return ""
    lines = [
        Series(label, _resampled(points, grid), style=style % STYLES, marked=False)
        for style, (label, points) in enumerate(curves.items())
    ]
    for style, (epsilon, mu) in enumerate(theory.items(), len(curves)):
        curve = gaussian_tradeoff(mu, grid)
        points = [(float(f), float(t)) for f, t in zip(grid, curve, strict=True)]
        label = f"bound at ε = {epsilon:g}"
        lines.append(Series(label, points, style=style % STYLES, marked=False))
    guess = [(float(f), float(f)) for f in grid]
    lines.append(Series("guessing", guess, style=2, marked=False, quiet=True))
    x, y = Axis("false positive rate", least, 1.0, log=True), Axis("true positive rate", 0.0, 1.0)
    drawn = chart(f"{attack}: true against false positives", x, y, lines)
    return f"<figure>{drawn}{_keys(lines)}"


def _resampled(points: Sequence[tuple[float, float]], grid: Floats) -> list[tuple[float, float]]:
    """A ROC curve at the FPR of a grid; between two thresholds an attacker can toss a coin."""
    fpr, tpr = np.array(points).T
    return [(float(f), float(t)) for f, t in zip(grid, np.interp(grid, fpr, tpr), strict=True)]


def _keys(lines: Sequence[Series]) -> str:
    listed = "".join(f"<li>{key(line)}{escape(line.label)}</li>" for line in lines)
    return f'<ul class="keys">{listed}</ul>'


def _galleries(results: Results) -> str:
    titles = {card.name: card.title for card in results.adversaries}
    # Views that hold the same yield the same pictures: shown once, under all their names.
    views: dict[tuple[str, Panel, tuple[Gallery, ...]], list[Cell]] = defaultdict(list)
    first_method: dict[tuple[str, tuple[Gallery, ...]], str] = {}
    for cell in results.cells:
        if cell.images and cell.repeat == 0 and cell.rows in results.matrix_rows:
            method = first_method.setdefault((cell.attack, cell.images), cell.method)
            views[cell.attack, Panel(method, cell.epsilon, cell.rows), cell.images].append(cell)
    parts = []
    for (attack, panel, images), found in views.items():
        by_protocol: dict[str, dict[str, None]] = defaultdict(dict)
        for cell in found:
            by_protocol[cell.protocol][titles[cell.adversary]] = None
        seen_by = "; ".join(
            f"<b>{escape(protocol)}</b> {escape(', '.join(names))}"
            for protocol, names in by_protocol.items()
        )
        figures = "".join(_picture(image) for image in images[:PICTURES_OF_AN_ATTACK])
        methods = " and ".join(dict.fromkeys(cell.method for cell in found))
        title = panel_title(msgspec.structs.replace(panel, method=methods))
        parts.append(
            f'<h3><a href="#attack-{attack}">{escape(attack)}</a>: {escape(title)}</h3>\n'
            f'<p class="soft by">From the views of {seen_by}.</p>\n'
            f'<div class="gallery">{figures}</div>'
        )
    if not parts:
        return ""
    lead = (
        "<p>Left the true image, right what the attack made of the view. The first images of an "
        "attack are shown, not the best.</p>"
    )
    return "\n".join([lead, *parts])


def _picture(image: Gallery) -> str:
    caption = escape(image.caption)
    source = "data:image/png;base64,"
    return (
        f'<figure><div class="pair"><img src="{source}{image.true}" alt="true image, {caption}">'
        f'<img src="{source}{image.rebuilt}" alt="rebuilt image, {caption}">'
        f"<span>true</span><span>rebuilt</span></div><figcaption>{caption}</figcaption></figure>"
    )


def _attacks(results: Results) -> str:
    rows = []
    for card in results.attacks:
        paragraphs = [" ".join(p.split()) for p in card.summary.split("\n\n")]
        text = "".join(f"<p>{_marked_up(p)}</p>" for p in paragraphs)
        assumes = "".join(f"<p>{escape(a)}</p>" for a in card.assumes) or "nothing else"
        rows.append(
            f'<tr id="attack-{card.name}"><th scope="row">{escape(card.name)}</th><td>{text}</td>'
            f"<td>{escape(card.wants)}</td><td>{assumes}</td></tr>"
        )
    return _table(("attack", "what it does", "wants of its view", "is given besides"), rows)


def _marked_up(text: str) -> str:
    """A docstring's text, in which backticks are code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _adversaries(results: Results) -> str:
    rows = []
    for card in results.adversaries:
        members = {
            cell.protocol: ", ".join(cell.coalition) or "nobody"
            for cell in results.cells
            if cell.adversary == card.name and cell.error is None
        }
        if not members:
            continue
        listed = "".join(
            f"<p><b>{escape(protocol)}</b>: {escape(names)}</p>"
            for protocol, names in members.items()
        )
        rows.append(
            f'<tr id="who-{card.name}"><th scope="row">{escape(card.title)}</th>'
            f"<td>{escape(card.meaning)}</td><td>{listed}</td></tr>"
        )
    return _table(("adversary", "who it is", "parties in these runs"), rows)


def _measures(results: Results, spots: Mapping[Spot, Sequence[Cell]]) -> str:
    parts = [
        "<p>Seconds are those of the attack, on the machine that made this report; trials are what "
        "was counted or scored.</p>"
    ]
    by_panel: dict[Panel, list[tuple[Spot, Sequence[Cell]]]] = defaultdict(list)
    for spot, cells in spots.items():
        by_panel[Panel(spot.method, spot.epsilon, spot.rows)].append((spot, cells))
    titles = {card.name: card.title for card in results.adversaries}
    header = ("attack", "protocol", "adversary", "measure", "value", "interval", "guessing", "best")
    for panel, found in by_panel.items():
        rows = "".join(_measure_rows(spot, cells, titles) for spot, cells in found)
        table = _table((*header, "trials", "seconds"), [rows], "list tight")
        parts.append(
            f"<details><summary>{escape(panel_title(panel))} ({len(found):,} cells)</summary>"
            f"{table}</details>"
        )
    return "\n".join(parts)


def _measure_rows(spot: Spot, cells: Sequence[Cell], titles: Mapping[str, str]) -> str:
    where = (
        f"<td>{escape(spot.attack)}</td><td>{escape(spot.protocol)}</td>"
        f"<td>{escape(titles[spot.adversary])}</td>"
    )
    anchor = f' id="c-{cells[0].key[:12]}"'
    done = [cell for cell in cells if cell.error is None and cell.measures]
    if not done:
        reason = escape(next((cell.error for cell in cells if cell.error), "no measure"))
        what = "not tried" if cells[0].refused else "failed"
        return f'<tr{anchor}>{where}<td colspan="7">{what}: {reason}</td></tr>'
    if not any(cell.claimed for cell in done):
        measure = done[0].measures[0]
        return (
            f'<tr{anchor}>{where}<td>{escape(measure.metric)}</td><td colspan="3">nothing to attack'
            f'</td><td class="number">{figure(measure.chance)}</td><td class="number">'
            f'{figure(measure.best)}</td><td colspan="2"></td></tr>'
        )
    rows = []
    seconds = float(np.mean([cell.seconds for cell in done]))
    for i, metric in enumerate(m.metric for m in done[0].measures):
        measure = averaged(c.measures[i] for c in done if len(c.measures) > i)
        figures = (
            figure(measure.value),
            interval(measure),
            figure(measure.chance),
            figure(measure.best),
            f"{measure.trials:,}",
            f"{seconds:.2f}" if i == 0 else "",
        )
        numbers = "".join(f'<td class="number">{figure}</td>' for figure in figures)
        rows.append(f"<tr{anchor if i == 0 else ''}>{where}<td>{escape(metric)}</td>{numbers}</tr>")
    return "".join(rows)


def _made(results: Results) -> str:
    config = msgspec.to_builtins(results.config)
    defaults = msgspec.to_builtins(RunConfig())
    config["run"] = {k: v for k, v in config["run"].items() if v != defaults[k]}
    settings = msgspec.json.format(msgspec.json.encode(config)).decode()
    versions = ", ".join(f"{name} {number}" for name, number in results.versions.items())
    seconds = sum(cell.seconds for cell in results.cells)
    return (
        f"<p>{escape(results.when)}; {escape(versions)}; {seconds:,.0f} seconds of attacks.</p>\n"
        f"<pre>{escape(results.command)}</pre>\n"
        "<p>Settings that differ from the defaults of a run, and those of the suite:</p>\n"
        f"<pre>{escape(settings)}</pre>\n"
        "<footer>The figures are in <code>results.json</code> beside this file. An attack that "
        "fails shows that this attack failed, not that none can succeed; the protocols' guarantees "
        "are in their documentation.</footer>"
    )


def _table(header: Sequence[str], rows: Sequence[str], kind: str = "list") -> str:
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in header)
    return (
        f'<div class=wide><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


# Figures and colours


def _level(measure: Measure) -> int:
    return round(success(measure) * (LEVELS - 1))
