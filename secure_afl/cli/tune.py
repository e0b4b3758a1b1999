"""`secure-afl tune`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast, get_args

import typer
from rich.console import Console
from rich.table import Table

from secure_afl.cli.main import app
from secure_afl.cli.options import _flag, _numbers, _whole_numbers
from secure_afl.cli.tables import _errors, _percent, _progress
from secure_afl.errors import ConfigError
from secure_afl.runs.config import RunConfig, make_config
from secure_afl.tuning import outcomes as tuning_outcomes
from secure_afl.tuning import points as tuning_points
from secure_afl.tuning import sweep as tuning
from secure_afl.tuning.points import DEFAULT_EPSILONS


@app.command()
def tune(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the points, the table and the picture.")
    ],
    epsilons: Annotated[str, typer.Option(metavar="ε,…", help="Values of ε.")] = ",".join(
        f"{epsilon:g}" for epsilon in DEFAULT_EPSILONS
    ),
    seeds: Annotated[int, typer.Option(metavar="N", help="Runs of each setting.", min=1)] = 3,
    baseline: Annotated[
        str,
        typer.Option(
            metavar="none|default|sweep",
            help="DP-SGD with Opacus on the same features: not at all, with settings that look at "
            "no data, or with some others too.",
        ),
    ] = "default",
    audit_tests: Annotated[
        int, typer.Option(metavar="N", help="Canaries for the audit at each ε; 0 for none.", min=0)
    ] = 100_000,
    bits: Annotated[str, typer.Option(metavar="N,…", help="Also try these feature bits.")] = "",
    ridges: Annotated[str, typer.Option(metavar="λ,…", help="Also try these λ.")] = "",
    cross_weights: Annotated[
        str, typer.Option(metavar="W,…", help="Also try these weights of the cross term.")
    ] = "",
    dimensions: Annotated[
        str, typer.Option(metavar="N,…", help="Also try these dimensions; 0 is all.")
    ] = "",
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings as TOML, as for run.")
    ] = None,
    clients: Annotated[str | None, _flag("clients", "GLOB")] = None,
    test: Annotated[str | None, _flag("test", "PATH")] = None,
    partition: Annotated[str | None, _flag("partition", "SPEC")] = None,
    backbone: Annotated[str | None, _flag("backbone", "SPEC")] = None,
    checkpoint: Annotated[str | None, _flag("checkpoint", "FILE")] = None,
    image_size: Annotated[int | None, _flag("image_size", "N")] = None,
    max_rows: Annotated[int | None, _flag("max_rows", "N")] = None,
    method: Annotated[str | None, _flag("method", "afl|fedhip|fedavg|fedsgd")] = None,
    protocol: Annotated[str | None, _flag("protocol", "additive|pairwise|ckks|bfv|plain")] = None,
    min_cohort: Annotated[int | None, _flag("min_cohort", "N")] = None,
    corrupt: Annotated[int | None, _flag("corrupt", "N")] = None,
    delta: Annotated[float | None, _flag("delta", "δ")] = None,
    unit: Annotated[str | None, _flag("unit", "example|client")] = None,
    neighbours: Annotated[str | None, _flag("neighbours", "add-remove|replace-one")] = None,
    noise: Annotated[str | None, _flag("noise", "distributed|central")] = None,
    public: Annotated[str | None, _flag("public", "GLOB")] = None,
    seed: Annotated[int | None, _flag("seed", "N")] = None,
) -> None:
    """Sweep ε over real runs: accuracy beside DP-SGD's and beside no privacy, and an audit.

    Interrupted, it goes on where it stopped when it is called again. Every point is a release
    about the rows, and no ledger is kept: tune on data that are your own or public.

      secure-afl tune --out tuning --max-rows 512

      secure-afl tune --out tuning --clients 'sites/*' --test test --max-rows 128 --epsilons 1,2
    """
    given = {name: value for name, value in locals().items() if value is not None}
    fields = set(RunConfig.__struct_fields__) - {"out"}
    settings = {name: value for name, value in given.items() if name in fields}
    run_config = make_config(settings, config)
    if baseline not in get_args(tuning_points.Baseline):
        raise ConfigError(
            f"--baseline {baseline}; allowed: {', '.join(get_args(tuning_points.Baseline))}"
        )
    sweep = tuning_points.Sweep(
        epsilons=_numbers("--epsilons", epsilons),
        seeds=seeds,
        feature_bits=_whole_numbers("--bits", bits),
        ridges=_numbers("--ridges", ridges),
        cross_weights=_numbers("--cross-weights", cross_weights),
        dimensions=_whole_numbers("--dimensions", dimensions),
        baseline=cast(tuning_points.Baseline, baseline),
        audit_tests=audit_tests,
    )
    try:
        with _progress() as advance:
            outcomes = tuning.tune(run_config, sweep, out, advance)
        tuning.save(run_config, sweep, outcomes, out)
    except KeyboardInterrupt:
        _errors.print("Stopped; the same command goes on.", highlight=False)
        sys.exit(130)
    _show_tuning(run_config, outcomes, out)


def _show_tuning(config: RunConfig, outcomes: Sequence[tuning_outcomes.Outcome], out: Path) -> None:
    console = Console()
    table = Table("setting", title="secure-afl tune", title_justify="left")
    for name in ("ε", "accuracy", "95 % interval", "dimension", "noise multiplier", "seconds"):
        table.add_column(name, justify="right")
    for summary in tuning_outcomes.summarise(outcomes):
        table.add_row(
            summary.label,
            "∞" if summary.epsilon is None else f"{summary.epsilon:g}",
            _percent(summary.accuracy),
            f"{summary.low:.1%} – {summary.high:.1%}",
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
    for line in tuning_outcomes.statement(config, outcomes):
        console.print(line, style="yellow", markup=False, highlight=False)
    console.print(f"{out / 'tune.json'}, {out / 'tune.png'}", markup=False, highlight=False)
