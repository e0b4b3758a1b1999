"""`secure-afl tune`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from secure_afl.cli.console import errors, people, progress
from secure_afl.cli.options import run_settings, with_flags

if TYPE_CHECKING:
    from protocols.registry import Option
    from secure_afl.runs.config import RunConfig
    from secure_afl.tuning.outcomes import Outcome, Summary

# What a sweep sets itself, or does without.
_WITHOUT = (
    "epsilon",
    "ledger",
    "new_ledger",
    "budget",
    "out",
    "keys",
    "holdout",
    "evaluate",
    "scale",
)


def _settings() -> "list[Option]":
    from protocols.registry import options_of
    from secure_afl.tuning.settings import Sweep

    of_runs = [option for option in run_settings() if option.name not in _WITHOUT]
    return [*options_of(Sweep).values(), *of_runs]


@with_flags(_settings)
def tune(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the points, the table and the picture.")
    ],
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings as TOML, as for run.")
    ] = None,
    **settings: Any,
) -> None:
    """Sweep ε over real runs: accuracy beside DP-SGD's and beside no privacy, and an audit.

    Interrupted, it goes on where it stopped when it is called again. Every point is a release
    about the rows, and no ledger is kept: tune on data that are your own or public.

      secure-afl tune --out tuning --max-rows 512

      secure-afl tune --out tuning --clients 'sites/*' --test test --max-rows 128 --epsilons 1,2
    """
    from protocols.registry import options_of
    from secure_afl.runs.settings import make_config
    from secure_afl.tuning import sweep as tuning
    from secure_afl.tuning.settings import Sweep, make_sweep

    own = {name: value for name, value in settings.items() if name in options_of(Sweep)}
    of_runs = {name: value for name, value in settings.items() if name not in own}
    sweep = make_sweep(own)
    run_config = make_config(of_runs, config, supplied=["epsilon"])
    try:
        with progress() as advance:
            outcomes = tuning.tune(run_config, sweep, out, advance)
        tuning.save(run_config, sweep, outcomes, out)
    except KeyboardInterrupt:
        errors().print("Stopped; the same command goes on.", highlight=False)
        sys.exit(130)
    _show(run_config, outcomes, out)


def _show(config: "RunConfig", outcomes: Sequence["Outcome"], out: Path) -> None:
    from secure_afl.cli.tables import percent
    from secure_afl.tuning.outcomes import statement, summarise

    console = people()
    table = Table("setting", title="secure-afl tune", title_justify="left")
    for name in ("ε", "accuracy", "95 % interval", "dimension", "noise multiplier", "seconds"):
        table.add_column(name, justify="right")
    for summary in summarise(outcomes):
        table.add_row(
            summary.label,
            "∞" if summary.epsilon is None else f"{summary.epsilon:g}",
            percent(summary.accuracy),
            _between(summary),
            f"{summary.dimension}",
            "–" if summary.noise_multiplier is None else f"{summary.noise_multiplier:.3g}",
            f"{summary.seconds:.2f}",
        )
    console.print(table)
    for outcome in outcomes:
        if outcome.lower_bound is not None:
            console.print(
                f"Audit: promised ε = {outcome.point.config.epsilon:g}, shown to be at least "
                f"{outcome.lower_bound:.3g} ({outcome.point.tests:,} canaries, 99.9 %).",
                highlight=False,
            )
    for line in statement(config, outcomes):
        console.print(line, style="yellow", markup=False, highlight=False)
    console.print(f"{out / 'tune.json'}, {out / 'tune.png'}", markup=False, highlight=False)


def _between(summary: "Summary") -> str:
    """Write the interval of an accuracy; a dash for one seed, which has none."""
    if summary.low is None or summary.high is None:
        return "–"
    return f"{summary.low:.1%} – {summary.high:.1%}"
