"""The pages of a run and of an evaluation."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from protocols.protocol import PROTOCOLS
from secure_afl.evaluation.bootstrap import Interval
from secure_afl.evaluation.figures import Figures
from secure_afl.evaluation.pooled import PooledClass, PooledFigures
from secure_afl.federation.report import NumericReport, Report
from secure_afl.methods.method import METHODS
from secure_afl.runs.fits import fit_table, numeric_lines
from secure_afl.runs.page.reliability import draw_reliability

_HERE = Path(__file__).parent

# What a coalition's records open, in words.
_OPENS = {
    "nothing": "nothing of the clients' statistics",
    "sum": "the sum over all clients, and no single client's part of it",
    "vectors": "every single client's statistics",
}


def write_run(path: Path, report: Report) -> None:
    """Write the page of a run."""
    path.write_text(render_run(report), encoding="utf-8")


def write_evaluation(
    path: Path, results: Sequence[Figures], model: Path, data: str, about: Mapping[str, str]
) -> None:
    """Write the page of an evaluation: figures of a saved model on named data.

    Args:
        about: what the model's card says of how it was made, for the head of the page.
    """
    facts = {"model": model.name, "data": Path(data).name, **_figure_facts(results), **about}
    page = _environment().get_template("evaluation.html.j2")
    text = page.render(facts=facts, results=results, unlike=_unlike(results))
    path.write_text(text, encoding="utf-8")


def render_run(report: Report) -> str:
    """Render the page of a run as HTML."""
    method, protocol = METHODS[report.method], PROTOCOLS[report.protocol]
    coalitions = [
        (coalition.title, coalition.meaning, _OPENS[coalition.opens])
        for coalition in protocol().coalitions()
    ]
    return (
        _environment()
        .get_template("run.html.j2")
        .render(
            report=report,
            facts=_run_facts(report),
            results=report.results,
            numeric=report.numeric,
            numeric_rows=_numeric_rows(report.numeric),
            fits=[fit_table(fit) for fit in report.fits],
            unlike=_unlike(report.results),
            pooled=report.pooled,
            kept_out=report.settings.get("evaluate") or 0.0,
            sums=report.rounds - (report.pooled is not None),
            receiver=protocol.receiver_title,
            hides=protocol.hides_vectors,
            coalitions=coalitions,
            statistics=method.releases_statistics,
            updates=method.releases_updates,
            broadcast=report.settings.get("personal") == "joint",
            shown=_shows_sums(report),
        )
    )


def _numeric_rows(numeric: NumericReport | None) -> Sequence[tuple[str, Mapping[str, str]]]:
    """List who predicted a number and how well, the global model first."""
    if numeric is None:
        return []
    scored = [
        ("this model", numeric.federated),
        ("all rows in one place", numeric.centralised_float),
        *((f"{site.name} alone", site.test) for site in numeric.sites),
    ]
    return [(name, numeric_lines(figures)) for name, figures in scored if figures is not None]


def _shows_sums(report: Report) -> bool:
    """Say whether sites were sent the noisy sums, of which they compute the states themselves."""
    if report.privacy is None or report.privacy.placement == "central":
        return False
    method = METHODS[report.method].configured({}, private=True, seed=0)
    return method.state_reveals_total


def _run_facts(report: Report) -> Mapping[str, str]:
    head, privacy = report.head, report.privacy
    facts = {
        "method": report.method,
        "protocol": report.protocol,
        "clients in the sum": f"{report.clients.included} of {report.clients.total}",
        "rows in the sum": "private" if report.examples is None else f"{report.examples:,}",
        "features × classes" if report.numeric is None else "features": (
            f"{report.feature_dim:,}" + (f" × {report.classes}" if report.numeric is None else "")
        ),
        "sum checked bit for bit": "yes" if report.exact else "NO",
    }
    if head is not None:
        value = "" if head.value is None else f", {head.setting} {head.value:.3g}"
        facts["head"] = head.name + value + (", chosen from the sum" if head.chosen else "")
    facts["privacy"] = (
        "exact sum, no noise"
        if privacy is None
        else f"ε = {privacy.epsilon:g}, δ = {privacy.delta:g}, unit {privacy.unit}"
    )
    return facts | _figure_facts(report.results) | _pooled_facts(report)


def _figure_facts(results: Sequence[Figures]) -> dict[str, str]:
    if not results:
        return {}
    first = results[0]
    whose = "" if first.patients is None else f" of {first.patients:,} patients"
    return {
        "rows scored": f"{first.examples:,}{whose}",
        "accuracy": _ranged(first.accuracy),
        "balanced accuracy": _ranged(first.balanced_accuracy),
        "AUC": _ranged(first.auc),
    }


def _unlike(results: Sequence[Figures]) -> Sequence[Figures]:
    """Return the figures in use, and those under other priors where predictions are others."""
    return [*results[:1], *(r for r in results[1:] if r.confusion != results[0].confusion)]


def _pooled_facts(report: Report) -> dict[str, str]:
    pooled = report.pooled
    if pooled is None:
        return {}
    by_patient = report.privacy is not None and report.privacy.unit == "patient"
    return {
        f"{'patients' if by_patient else 'rows'} that all sites kept out": f"{pooled.examples:,}",
        "accuracy on kept-out rows": _ranged(pooled.accuracy),
    }


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
    filters: dict[str, Callable[[Any], object]] = {
        "ranged": _ranged,
        "percent": lambda share: "–" if share is None else f"{share:.1%}",
        "binned": _binned,
        "digits": lambda number: f"{number:,.0f}",
        "reliability": draw_reliability,
    }
    environment.filters |= filters
    return environment


def _ranged(figure: Interval | None) -> str:
    """Write a figure in percent with its interval; a dash for what there is not.

    Narrow columns break before the interval, and not within.
    """
    if figure is None:
        return "–"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.1%} (–)"
    bounds = f"({100 * figure.low:.1f} to {100 * figure.high:.1f})"
    return f"{figure.value:.1%} " + bounds.replace(" ", "\N{NO-BREAK SPACE}")


def _binned(figures: PooledFigures | PooledClass) -> str:
    """Write an AUC with the most by which its bins put it off; a dash where there is none."""
    if figures.auc is None or figures.auc_error is None:
        return "–"
    return f"{figures.auc:.1%} ± {100 * figures.auc_error:.2f}"
