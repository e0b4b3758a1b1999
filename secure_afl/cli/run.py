"""`secure-afl run` and `secure-afl demo`."""

from pathlib import Path
from typing import Annotated

import typer

from secure_afl.cli.main import app
from secure_afl.cli.options import JsonFile, _flag
from secure_afl.cli.tables import _check_writable, _compare, _progress, _show, _write_json
from secure_afl.runs import run as runs
from secure_afl.runs.config import RunConfig, description, make_config

DEMO = (
    ("afl", "plain"),
    ("afl", "additive"),
    ("afl", "pairwise"),
    ("afl", "ckks"),
    ("afl", "bfv"),
    ("fedhip", "additive"),
)


@app.command()
def run(
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Settings as TOML, keys named like the flags; flags override it."
        ),
    ] = None,
    clients: Annotated[str | None, _flag("clients", "GLOB")] = None,
    test: Annotated[str | None, _flag("test", "PATH")] = None,
    holdout: Annotated[float | None, _flag("holdout", "FRACTION")] = None,
    partition: Annotated[str | None, _flag("partition", "SPEC")] = None,
    backbone: Annotated[str | None, _flag("backbone", "SPEC")] = None,
    checkpoint: Annotated[str | None, _flag("checkpoint", "FILE")] = None,
    image_size: Annotated[int | None, _flag("image_size", "N")] = None,
    feature_bits: Annotated[int | None, _flag("feature_bits", "N")] = None,
    max_rows: Annotated[int | None, _flag("max_rows", "N")] = None,
    method: Annotated[str | None, _flag("method", "afl|fedhip|fedavg|fedsgd")] = None,
    ridge: Annotated[float | None, _flag("ridge", "λ")] = None,
    alpha: Annotated[float | None, _flag("alpha", "α")] = None,
    reading: Annotated[str | None, _flag("reading", "joint|proximal")] = None,
    architecture: Annotated[str | None, _flag("architecture", "linear|convnet")] = None,
    rounds: Annotated[int | None, _flag("rounds", "N")] = None,
    learning_rate: Annotated[float | None, _flag("learning_rate", "η")] = None,
    local_epochs: Annotated[int | None, _flag("local_epochs", "N")] = None,
    batch_size: Annotated[int | None, _flag("batch_size", "N")] = None,
    update_clip: Annotated[float | None, _flag("update_clip", "NORM")] = None,
    proximal: Annotated[float | None, _flag("proximal", "μ")] = None,
    protocol: Annotated[str | None, _flag("protocol", "additive|pairwise|ckks|bfv|plain")] = None,
    aggregators: Annotated[int | None, _flag("aggregators", "M")] = None,
    corrupt_fraction: Annotated[float | None, _flag("corrupt_fraction", "SHARE")] = None,
    dropout_fraction: Annotated[float | None, _flag("dropout_fraction", "SHARE")] = None,
    server_trust: Annotated[str | None, _flag("server_trust", "TRUST")] = None,
    verify: Annotated[
        bool | None,
        typer.Option("--verify/--no-verify", help=description("verify"), show_default=False),
    ] = None,
    keys: Annotated[str | None, _flag("keys", "DIR")] = None,
    drop: Annotated[int | None, _flag("drop", "N")] = None,
    min_cohort: Annotated[int | None, _flag("min_cohort", "N")] = None,
    corrupt: Annotated[int | None, _flag("corrupt", "N")] = None,
    epsilon: Annotated[float | None, _flag("epsilon", "ε")] = None,
    delta: Annotated[float | None, _flag("delta", "δ")] = None,
    unit: Annotated[str | None, _flag("unit", "example|client")] = None,
    neighbours: Annotated[str | None, _flag("neighbours", "add-remove|replace-one")] = None,
    noise: Annotated[str | None, _flag("noise", "distributed|central")] = None,
    cross_weight: Annotated[float | None, _flag("cross_weight", "W")] = None,
    dimension: Annotated[int | None, _flag("dimension", "N")] = None,
    public: Annotated[str | None, _flag("public", "GLOB")] = None,
    whiten: Annotated[float | None, _flag("whiten", "POWER")] = None,
    ledger: Annotated[str | None, _flag("ledger", "FILE")] = None,
    budget: Annotated[float | None, _flag("budget", "ε")] = None,
    seed: Annotated[int | None, _flag("seed", "N")] = None,
    out: Annotated[str | None, _flag("out", "DIR")] = None,
    json_file: JsonFile = None,
) -> None:
    """Run one federation, all parties in this process, and report on it.

    Four sites with image folders, a hold-out for personal models:

      secure-afl run --clients 'sites/*' --method fedhip --holdout 0.2 --out results

    One data set cut up into ten skewed clients, two of which vanish:

      secure-afl run --clients data.npz --partition dirichlet:10:0.1 --drop 2

    With a promise about every example, and a ledger of what was released:

      secure-afl run --clients 'sites/*' --max-rows 128 --epsilon 1 --ledger ledger.json
    """
    given = {name: value for name, value in locals().items() if value is not None}
    settings = {name: given[name] for name in RunConfig.__struct_fields__ if name in given}
    _check_writable(json_file)
    with _progress() as advance:
        result = runs.run(make_config(settings, config), advance)
    _show(result.report, json_file)
    _write_json(json_file, result.report)


@app.command()
def demo(json_file: JsonFile = None) -> None:
    """Federate scikit-learn's handwritten digits among ten clients, two of which vanish.

    No download, no backbone, a few seconds.
    """
    _check_writable(json_file)
    reports = []
    for method, protocol in DEMO:
        settings = {"method": method, "protocol": protocol, "drop": 2, "holdout": 0.2}
        reports.append(runs.run(make_config(settings)).report)
    _compare(reports, json_file)
    _write_json(json_file, {"runs": reports})
