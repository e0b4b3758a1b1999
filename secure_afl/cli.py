"""`secure-afl`: the command line, and the one place that knows all packages."""

import csv
import io
import json
import logging
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import msgspec
import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from attacks import config as suite_config
from attacks.config import AttackConfig
from protocols.errors import ProtocolError
from protocols.secagg_parameters import describe, find_parameters
from secure_afl import doctor as checks
from secure_afl import inference
from secure_afl import keys as keyfiles
from secure_afl import run as runs
from secure_afl import tune as tuning
from secure_afl.config import RunConfig, description, json_schema, make_config
from secure_afl.errors import ConfigError, SecureAflError
from secure_afl.prepare import Progress
from secure_afl.privacy.ledger import Ledger
from secure_afl.report import Report
from secure_afl.simulation import majority
from secure_afl.tune import DEFAULT_EPSILONS

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="One-shot federated learning over sums that nobody can look into.\n\n"
    "Start with `secure-afl demo`; then point `run` at your own folders:\n\n"
    "  secure-afl run --clients 'sites/*' --test test --backbone timm:resnet18",
)
_errors = Console(stderr=True)

DEMO = (
    ("afl", "plain"),
    ("afl", "additive"),
    ("afl", "pairwise"),
    ("afl", "ckks"),
    ("afl", "bfv"),
    ("fedhip", "additive"),
)

Describe = Callable[[str], str]

_JSON_HELP = "Write the report as JSON to FILE; - for standard output."
JsonFile = Annotated[str | None, typer.Option("--json", metavar="FILE", help=_JSON_HELP)]


def main() -> None:
    """Entry point: errors end in one line and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show ≥ shows something else; the run is not lost for it.
            stream.reconfigure(errors="replace")
    try:
        app()
    except (SecureAflError, ProtocolError, OSError, MemoryError) as error:
        _errors.print(
            f"Error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(2)


@app.callback()
def options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log what happens, to standard error.")
    ] = False,
) -> None:
    """Options before any command."""
    if verbose:
        handler = RichHandler(console=_errors, show_path=False)
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])


def _flag(field: str, metavar: str | None = None, describe: Describe = description) -> Any:
    return typer.Option(
        "--" + field.replace("_", "-"), metavar=metavar, help=describe(field), show_default=False
    )


def _suite_flag(field: str, metavar: str) -> Any:
    return _flag(field, metavar, suite_config.description)


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
    if baseline not in get_args(tuning.Baseline):
        raise ConfigError(f"--baseline {baseline}; allowed: {', '.join(get_args(tuning.Baseline))}")
    sweep = tuning.Sweep(
        epsilons=_numbers("--epsilons", epsilons),
        seeds=seeds,
        feature_bits=_whole_numbers("--bits", bits),
        ridges=_numbers("--ridges", ridges),
        cross_weights=_numbers("--cross-weights", cross_weights),
        dimensions=_whole_numbers("--dimensions", dimensions),
        baseline=cast(tuning.Baseline, baseline),
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


@app.command()
def ledger(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A ledger of run --ledger.")],
    raise_budget: Annotated[
        float | None,
        typer.Option(
            metavar="ε",
            help="Allow this ε in all from now on, at the same δ. That weakens the promise which "
            "was made to those whose data it is, also about what is released already: ask them.",
        ),
    ] = None,
) -> None:
    """Print what was released about each lineage of data, and what is spent of the budget.

    A lineage is a folder or file and all that becomes of it. ε so far is that of all releases up
    to a line, at the budget's δ.

      secure-afl ledger ledger.json
    """
    if not file.is_file():
        raise ConfigError(f"{file} is no ledger; name the file of run --ledger")
    book = Ledger.open(file)
    if raise_budget is not None:
        _raise_budget(book, raise_budget)
    _show_ledger(book)


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


@app.command()
def attack(
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the cells, results.json and report.html."),
    ] = None,
    clients: Annotated[str | None, _flag("clients", "GLOB")] = None,
    partition: Annotated[str | None, _flag("partition", "SPEC")] = None,
    backbone: Annotated[str | None, _flag("backbone", "SPEC")] = None,
    checkpoint: Annotated[str | None, _flag("checkpoint", "FILE")] = None,
    image_size: Annotated[int | None, _flag("image_size", "N")] = None,
    feature_bits: Annotated[int | None, _flag("feature_bits", "N")] = None,
    max_rows: Annotated[int | None, _flag("max_rows", "N")] = None,
    ridge: Annotated[float | None, _flag("ridge", "λ")] = None,
    alpha: Annotated[float | None, _flag("alpha", "α")] = None,
    reading: Annotated[str | None, _flag("reading", "joint|proximal")] = None,
    architecture: Annotated[str | None, _flag("architecture", "linear|convnet")] = None,
    rounds: Annotated[
        int | None,
        typer.Option(metavar="N", help="fedavg, fedsgd: blind sums. Default: 1."),
    ] = None,
    learning_rate: Annotated[float | None, _flag("learning_rate", "η")] = None,
    local_epochs: Annotated[int | None, _flag("local_epochs", "N")] = None,
    batch_size: Annotated[int | None, _flag("batch_size", "N")] = None,
    update_clip: Annotated[float | None, _flag("update_clip", "NORM")] = None,
    aggregators: Annotated[int | None, _flag("aggregators", "M")] = None,
    corrupt_fraction: Annotated[float | None, _flag("corrupt_fraction", "SHARE")] = None,
    dropout_fraction: Annotated[float | None, _flag("dropout_fraction", "SHARE")] = None,
    server_trust: Annotated[str | None, _flag("server_trust", "TRUST")] = None,
    min_cohort: Annotated[int | None, _flag("min_cohort", "N")] = None,
    corrupt: Annotated[int | None, _flag("corrupt", "N")] = None,
    seed: Annotated[int | None, _flag("seed", "N")] = None,
    attacks: Annotated[str | None, _suite_flag("attacks", "NAME,…")] = None,
    methods: Annotated[str | None, _suite_flag("methods", "NAME,…")] = None,
    protocols: Annotated[str | None, _suite_flag("protocols", "NAME,…")] = None,
    adversaries: Annotated[str | None, _suite_flag("adversaries", "NAME,…")] = None,
    epsilons: Annotated[str | None, _suite_flag("epsilons", "ε,…")] = None,
    rows: Annotated[str | None, _suite_flag("rows", "N,…|all")] = None,
    sweep: Annotated[str | None, _suite_flag("sweep", "N,…|none")] = None,
    repeats: Annotated[int | None, _suite_flag("repeats", "N")] = None,
    colluders: Annotated[int | None, _suite_flag("colluders", "N")] = None,
    candidates: Annotated[int | None, _suite_flag("candidates", "N")] = None,
    confidence: Annotated[float | None, _suite_flag("confidence", "SHARE")] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="AFL alone, plain and additive alone, no curves; unless named."
        ),
    ] = False,
    list_attacks: Annotated[
        bool, typer.Option("--list", help="Print the attacks, and what they want and assume.")
    ] = False,
) -> None:
    """Attack recorded runs over a data set, and report what every party could have learned.

    Stopped or killed, the same command goes on where it was. Half of each client's rows stay out
    of the sums, for comparison.

      secure-afl attack --out leakage --quick

      secure-afl attack --clients 'sites/*' --backbone timm:resnet18 --out leakage
    """
    given = {name: value for name, value in locals().items() if value is not None}
    # Here and not above: they take half a second, which no other command needs.
    from attacks import suite
    from attacks.registry import ATTACKS
    from attacks.report import matrix
    from attacks.report import page as leakage

    if list_attacks:
        _list_attacks([suite.describe(kind) for kind in ATTACKS.values()])
        return
    if out is None:
        raise ConfigError("--out is missing; name a folder for the cells and the report")
    config = suite_config.make_config(
        {name: given[name] for name in RunConfig.__struct_fields__ if name in given}
        | {"out": None},
        {name: given[name] for name in AttackConfig.__struct_fields__ if name in given},
        quick,
    )
    command = shlex.join(["secure-afl", *sys.argv[1:]])
    page = out / "report.html"
    try:
        with _progress() as advance:
            results = suite.run(config, ATTACKS, out, advance, command)
    except suite.Interrupted as interrupted:
        page.write_text(leakage.render(interrupted.results), encoding="utf-8")
        _errors.print(f"Stopped; the same command goes on. So far: {page}", highlight=False)
        sys.exit(130)
    page.write_text(leakage.render(results), encoding="utf-8")
    for panel in matrix.panels(results):
        _show_matrix(matrix.panel_title(panel), *matrix.compact(results, panel))
    failed = sum(cell.error is not None and not cell.refused for cell in results.cells)
    Console().print(
        "*: the whole interval is above guessing; ·: nothing to attack; –: could not be tried"
        + (f"; !: failed, {failed} of {len(results.cells)} cells" if failed else ""),
        style="dim",
        highlight=False,
    )
    typer.echo(f"Report: {page}")


def _list_attacks(cards: Sequence[Any]) -> None:
    table = Table()
    table.add_column("attack", no_wrap=True)
    for title in ("what it does", "wants of its view", "is given besides"):
        table.add_column(title)
    for card in cards:
        summary = " ".join(card.summary.split("\n\n")[0].split())
        name = f"{card.name} (costly)" if card.costly else card.name
        table.add_row(name, summary, card.wants, "; ".join(card.assumes) or "–")
    Console().print(table)


def _show_matrix(title: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Attacks are columns under numbers, for their names are long."""
    console = Console()
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column(header[0], no_wrap=True)
    table.add_column(header[1])
    for number in range(1, len(header) - 1):
        table.add_column(str(number), justify="right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    console.print(table)
    names = (f"{number} {name}" for number, name in enumerate(header[2:], 1))
    console.print(", ".join(names), "\n", style="dim", highlight=False)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved model.safetensors.")],
    path: Annotated[str, typer.Argument(metavar="DATA", help="A folder <class>/*.jpg or .npz.")],
    checkpoint: Annotated[Path | None, _flag("checkpoint", "FILE")] = None,
    split: Annotated[str, typer.Option(help="Which split of a MedMNIST .npz.")] = "test",
    json_file: JsonFile = None,
) -> None:
    """Score a saved model on labelled data, with the backbone that its card names."""
    _check_writable(json_file)
    with _progress() as advance:
        saved = inference.load_model(model, checkpoint)
        result = inference.evaluate(saved, path, split, _features(advance))
    table = Table("class", "accuracy", title=f"{model} on {path}", title_justify="left")
    for name, share in result.per_class.items():
        table.add_row(name, _percent(share))
    table.add_row("all", f"{_percent(result.accuracy)} of {result.examples:,}", style="bold")
    _people(json_file).print(table)
    _write_json(json_file, result)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved model.safetensors.")],
    path: Annotated[
        str, typer.Argument(metavar="DATA", help="An image, a folder of images, or an .npz.")
    ],
    checkpoint: Annotated[Path | None, _flag("checkpoint", "FILE")] = None,
    split: Annotated[str, typer.Option(help="Which split of a MedMNIST .npz.")] = "test",
) -> None:
    """Print the predicted class of each example, and its score, as CSV."""
    with _progress() as advance:
        saved = inference.load_model(model, checkpoint)
        predictions = list(inference.predict(saved, path, split, _features(advance)))
    writer = csv.writer(sys.stdout)
    writer.writerow(["example", "class", "score"])
    for prediction in predictions:
        writer.writerow([prediction.example, prediction.predicted, f"{prediction.score:.4f}"])


@app.command()
def keygen(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="One or more party names.")],
    role: Annotated[
        str, typer.Option(metavar="ROLE", help="client, or a coordinator's: aggregator, server.")
    ] = "client",
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the keys.")] = Path("keys"),
) -> None:
    """Make identity keys, and add their public halves to DIR/roster.json.

    Each DIR/NAME.identity is private and belongs on that party's machine alone. Compare roster.json
    with everybody over another channel: parties refuse whoever is not in it.

      secure-afl keygen north south west

      secure-afl keygen university clinic --role aggregator
    """
    roster = keyfiles.generate(names, role, out)
    for line in roster.members:
        typer.echo(f"{line.name}  {line.role}  {line.verify_key}")


@app.command()
def params(
    clients: Annotated[
        int, typer.Argument(metavar="N", help="Number of clients.", min=2, max=100_000)
    ],
    corrupt_fraction: Annotated[float | None, _flag("corrupt_fraction", "SHARE")] = None,
    dropout_fraction: Annotated[float | None, _flag("dropout_fraction", "SHARE")] = None,
    server_trust: Annotated[str | None, _flag("server_trust", "TRUST")] = None,
    min_cohort: Annotated[int | None, _flag("min_cohort", "N")] = None,
) -> None:
    """Print neighbours, threshold and guarantees of the pairwise protocol for a cohort."""
    given = {name: value for name, value in locals().items() if value is not None}
    config = make_config({name: given[name] for name in given if name != "clients"})
    if config.min_cohort is not None and config.min_cohort > clients:
        raise ConfigError(f"minimum cohort {config.min_cohort}, allowed: ≤ {clients} clients")
    found = find_parameters(
        clients,
        config.corrupt_fraction,
        config.dropout_fraction,
        config.server_trust,
        config.min_cohort,
    )
    least = majority(clients) if config.min_cohort is None else config.min_cohort
    if least < found.corrupt + 2:
        raise ConfigError(
            f"a minimum cohort of {least} with {found.corrupt} corrupt clients; allowed: "
            f"≥ {found.corrupt + 2}. Lower --corrupt-fraction, or raise --min-cohort"
        )
    table = Table("pairwise", "", box=None)
    for name, value in describe(found, config.min_cohort).items():
        table.add_row(name, value)
    Console(soft_wrap=True).print(table)


@app.command()
def doctor(
    backbone: Annotated[str | None, _flag("backbone", "SPEC")] = None,
    checkpoint: Annotated[str | None, _flag("checkpoint", "FILE")] = None,
    image_size: Annotated[int | None, _flag("image_size", "N")] = None,
) -> None:
    """Check this machine: versions, GPU, AES, cache, a small sum and, if named, a backbone."""
    found = checks.checks()
    if backbone is None and (checkpoint, image_size) != (None, None):
        raise ConfigError("--checkpoint and --image-size go with --backbone")
    if backbone is not None:
        found.append(checks.backbone(backbone, checkpoint, image_size))
    table = Table("check", "found", box=None)
    for check in found:
        table.add_row(check.name, check.found, style=None if check.good else "bold red")
    Console().print(table)
    if not all(check.good for check in found):
        raise ConfigError("this machine is not fit to run; see the red lines")


@app.command()
def schema() -> None:
    """Print the JSON Schema of run.toml, for editors that check as you type."""
    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@contextmanager
def _progress() -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), _Done())
    with Bars(*columns, TimeRemainingColumn(), console=_errors, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield advance


class _Done(TaskProgressColumn):
    """How much is done: in percent, since numbers of rows may be private, or of what is counted."""

    def render(self, task: Task) -> Text:
        counted = task.description in ("points", "canaries", "cells")
        return MofNCompleteColumn().render(task) if counted else super().render(task)


def _people(json_file: str | None) -> Console:
    """Where people read: JSON on standard output is for programs, and leaves standard error."""
    return _errors if json_file == "-" else Console()


def _features(advance: Progress) -> Callable[[int, int], None]:
    return lambda done, total: advance("features", done, total)


def _show(report: Report, json_file: str | None) -> None:
    console = _people(json_file)
    table = Table("", f"{report.method} / {report.protocol}", title="secure-afl")
    table.columns[1].justify = "right"
    for name, value in _lines(report).items():
        table.add_row(name, value)
    console.print(table)
    _show_trust(console, [report])


def _show_tuning(config: RunConfig, outcomes: Sequence[tuning.Outcome], out: Path) -> None:
    console = Console()
    table = Table("setting", title="secure-afl tune", title_justify="left")
    for name in ("ε", "accuracy", "95 % interval", "dimension", "noise multiplier", "seconds"):
        table.add_column(name, justify="right")
    for summary in tuning.summarise(outcomes):
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
    for line in tuning.statement(config, outcomes):
        console.print(line, style="yellow", markup=False, highlight=False)
    console.print(f"{out / 'tune.json'}, {out / 'tune.png'}", markup=False, highlight=False)


def _numbers(flag: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"{flag} {text!r}; allowed: numbers with commas between") from None


def _whole_numbers(flag: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"{flag} {text!r}; allowed: whole numbers with commas between") from None


def _raise_budget(book: Ledger, epsilon: float) -> None:
    budget = book.budget
    if budget is None:
        raise ConfigError(
            f"{book.path} keeps no budget that could be raised; set one with run --ledger --budget"
        )
    if not epsilon > budget.epsilon:
        raise ConfigError(f"--raise-budget {epsilon:g}; allowed: above {budget.epsilon:g}, the old")
    book.raise_budget(msgspec.structs.replace(budget, epsilon=epsilon))


def _show_ledger(book: Ledger) -> None:
    console, budget = Console(), book.budget
    # Opened, so that it is known to be a ledger.
    entries = json.loads(book.path.read_text(encoding="utf-8"))["entries"]
    for lineage in dict.fromkeys(entry["lineage"] for entry in entries):
        table = Table("when", "run", title=Text(lineage), title_justify="left", box=None)
        table.add_column("rounds", justify="right")
        table.add_column("mechanism", overflow="fold")
        table.add_column("ε so far", justify="right")
        for entry in book.entries(lineage):
            table.add_row(
                f"{entry.when:%Y-%m-%d %H:%M}",
                entry.run[:8],
                f"{entry.rounds}",
                Text(entry.mechanism),
                _finite(math.inf if entry.mu is None else entry.epsilon),
            )
        console.print(table)
        spent = book.spent(lineage)
        words = f"Releases: {spent.releases}"
        if budget is not None and spent.epsilon is not None:
            words += f"; spent: ε = {_finite(spent.epsilon)} of {budget.epsilon:g}"
        console.print(words, "\n", highlight=False)
    if not entries:
        console.print("Nothing was released.", highlight=False)
    console.print(
        "There is no budget: releases are recorded, and none but a second exact sum is refused."
        if budget is None
        else f"Budget: ε = {budget.epsilon:g} at δ = {budget.delta:g} for one {budget.unit}, "
        f"{budget.neighbours}.",
        highlight=False,
    )


def _finite(epsilon: float | None) -> str:
    if epsilon is None:
        return "–"
    return "∞" if epsilon == math.inf else f"{epsilon:.4g}"


def _compare(reports: Sequence[Report], json_file: str | None) -> None:
    console = _people(json_file)
    table = Table("method", "protocol", title="secure-afl", title_justify="left")
    for name in ("exact", "accuracy", "own rows", "upload", "seconds"):
        table.add_column(name, justify="right")
    for report in reports:
        seconds = report.seconds
        spent = seconds.statistics + seconds.protect + seconds.aggregate + seconds.solve
        table.add_row(
            report.method,
            report.protocol,
            "yes" if report.exact else "NO",
            _percent(report.accuracy.federated),
            _percent(report.accuracy.personal_mean),
            f"{report.bytes.upload_per_client / 1e6:.2f} MB",
            f"{spent:.2f}",
        )
    console.print(table)
    included, total = reports[0].clients.included, reports[0].clients.total
    console.print(
        f"{included} of {total} clients in each sum; accuracy: one model, on test rows; own rows: "
        "each client's own model, on its own held-out rows (fedhip's is personal); upload: a "
        "client's; seconds: of all parties, on this machine",
        style="dim",
        highlight=False,
    )
    _show_trust(console, reports)


def _show_trust(console: Console, reports: Sequence[Report]) -> None:
    for name, protects in {report.protocol: report.protects for report in reports}.items():
        if not protects.startswith("nothing"):  # of which a warning speaks
            console.print(f"Protocol '{name}' protects {protects}.", markup=False, highlight=False)
    for trusts in dict.fromkeys(r.privacy.trusts for r in reports if r.privacy is not None):
        console.print(f"Privacy rests on this: {trusts}.", markup=False, highlight=False)
    for warning in dict.fromkeys(w for report in reports for w in report.warnings):
        console.print(f"Warning: {warning}", style="yellow", markup=False, highlight=False)


def _lines(report: Report) -> dict[str, str]:
    accuracy, seconds = report.accuracy, report.seconds
    upload, plain = report.bytes.upload_per_client, report.bytes.plain_float64_per_client
    return {
        "clients in the sum": f"{report.clients.included} of {report.clients.total}",
        "rounds": f"{report.rounds}",
        "rows": "private" if report.examples is None else f"{report.examples:,}",
        "features × classes": f"{report.feature_dim} × {report.classes}",
        "feature bits / ring bits": f"{report.feature_bits} / {report.ring_bits}",
        "exact": "yes" if report.exact else "NO",
        "accuracy": _percent(accuracy.federated),
        "  centralised, float": _percent(accuracy.centralised_float),
        "  each client alone": _percent(accuracy.local_mean),
        "own rows: personal model": _percent(accuracy.personal_mean),
        "  federated model": _percent(accuracy.holdout_federated_mean),
        "  own data alone": _percent(accuracy.holdout_local_mean),
        **_privacy_lines(report),
        "upload per client": f"{upload / 1e6:.3f} MB",
        "  of AFL in float64": f"{upload / plain:.1%}",
        "seconds: features": f"{seconds.features:.2f}",
        "seconds: statistics": f"{seconds.statistics:.2f}",
        "seconds: protect": f"{seconds.protect:.2f}",
        "seconds: aggregate": f"{seconds.aggregate:.2f}",
        "seconds: solve": f"{seconds.solve:.2f}",
    }


def _privacy_lines(report: Report) -> dict[str, str]:
    privacy = report.privacy
    if privacy is None:
        return {}
    return {
        "privacy": f"ε = {privacy.epsilon:g}, δ = {privacy.delta:g}",
        "  unit, neighbours": f"{privacy.unit}, {privacy.neighbours}",
        "  noise multiplier": f"{privacy.noise_multiplier:.4g} × {privacy.rounds} sums",
        "  may vanish, may collude": f"{privacy.dropouts}, {privacy.colluders} clients",
    }


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _check_writable(json_file: str | None) -> None:
    if json_file in (None, "-"):
        return
    assert json_file is not None
    if not Path(json_file).absolute().parent.is_dir():
        raise ConfigError(f"--json {json_file}: its folder does not exist; make it first")
    try:
        with Path(json_file).open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise ConfigError(
            f"--json {json_file} cannot be written ({error.strerror}); name another file"
        ) from None


def _write_json(file: str | None, content: Any) -> None:
    if file is None:
        return
    text = msgspec.json.format(msgspec.json.encode(content)).decode() + "\n"
    if file == "-":
        sys.stdout.write(text)
    else:
        Path(file).write_text(text, encoding="utf-8")
