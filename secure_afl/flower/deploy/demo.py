"""`secure-afl deploy demo`: one run over Flower on this machine, beside its oracle."""

import logging
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError, RunFailed
from secure_afl.federation.simulation import Federation
from secure_afl.flower.deploy.engine import Engine, check_installed
from secure_afl.flower.deploy.layout import SITES, Laid, lay_out
from secure_afl.flower.deploy.processes import Processes
from secure_afl.methods import AFL
from secure_afl.methods.model import LinearModel
from secure_afl.progress import Progress
from secure_afl.runs.saving import MODEL, REPORT
from secure_afl.sites.convene import ConvenedReport
from secure_afl.sites.party import site_rows
from secure_afl.sites.settings import read_site

log = logging.getLogger("secure_afl")

PATIENCE = 1800.0


@dataclass(frozen=True)
class Shown:
    """What a demo came to.

    Attributes:
        protocol: its name.
        data: what the rows were.
        clients: in the sum.
        supernodes: processes that took part.
        accuracy: of the model on the convener's test data, 0 to 1.
        equal: the convener's model and all sites' are that of the rows in one place, bit for bit.
        seconds: from keys to the end of the run.
        run_seconds: of the run alone.
    """

    protocol: str
    data: str
    clients: int
    supernodes: int
    accuracy: float | None
    equal: bool
    seconds: float
    run_seconds: float


def demonstrate(
    protocol: str,
    keep: Path | None,
    tell: Callable[[str], None],
    progress: Progress | None = None,
) -> Shown:
    """Run one federation over Flower, and compare its model with that of the rows in one place.

    Every process that is begun here is ended here, whatever happens.

    Args:
        protocol: its name.
        keep: folder for all files, which is kept; none or empty before.
        tell: is told what happens.

    Raises:
        ConfigError: no Flower, or a folder that is in use.
        RunFailed: no model, or another one.
    """
    check_installed()
    begun = time.monotonic()

    def say(what: str) -> None:
        tell(f"{time.monotonic() - begun:5.0f} s  {what}")

    with ExitStack() as stack:
        folder = _folder(keep, stack)
        laid = lay_out(folder / "parties", protocol, progress)
        say(f"keys, rosters, settings, ledgers and features of {laid.rows.what}")
        processes = stack.enter_context(Processes(folder / "logs"))
        engine = Engine(folder / "flower", processes)
        engine.superlink()
        say(f"a SuperLink at https://127.0.0.1:{engine.port}, which knows its SuperNodes by keys")
        nodes = [name for name in laid.roles if name != laid.convener]
        for name in nodes:
            engine.register(name)
            engine.supernode(name, laid.site(name))
        say(f"{len(nodes)} SuperNodes: {', '.join(nodes)}")
        started = time.monotonic()
        run = engine.run(laid.site(laid.convener), laid.run)
        say(f"flwr run: number {run}, convened by {laid.convener}")
        status = engine.wait(run, PATIENCE)
        took = time.monotonic() - started
        if status != "finished:completed":
            raise RunFailed(f"Flower says {status}:\n{engine.log(run)[-3000:]}")
        say("the run is over")
        shown = _compared(laid, protocol, len(nodes), time.monotonic() - begun, took)
        processes.end()
        say("all processes are ended")
    return shown


def oracle(laid: Laid, report: ConvenedReport) -> LinearModel:
    """Make the model of all rows in one place, of one process and without any protection."""
    from protocols import Plain

    clients = []
    for name in SITES:
        rows = site_rows(read_site(laid.site(name)), name, log.info)
        loaded = rows.load(report.feature_dim, laid.rows.classes)
        clients.append(ClientData(name, np.asarray(loaded.features), loaded.labels))
    federation = Federation(AFL(), Plain(), feature_bits=report.feature_bits)
    result = federation.run(clients, classes=laid.rows.classes, max_rows=laid.rows.max_rows)
    assert isinstance(result.model, LinearModel), "AFL's"
    return result.model


def _compared(laid: Laid, protocol: str, nodes: int, seconds: float, took: float) -> Shown:
    text = (laid.out(laid.convener) / REPORT).read_bytes()
    report = msgspec.json.decode(text, type=ConvenedReport)
    expected = oracle(laid, report).weights
    equal = all(
        np.array_equal(LinearModel.load(laid.out(name) / MODEL)[0].weights, expected)
        for name in (laid.convener, *SITES)
    )
    return Shown(
        protocol,
        laid.rows.what,
        len(report.included),
        nodes,
        report.accuracy,
        equal,
        seconds,
        took,
    )


def _folder(keep: Path | None, stack: ExitStack) -> Path:
    if keep is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="secure-afl-demo-")))
    keep.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(keep.iterdir()):
        raise ConfigError(f"{keep} is not empty; name a new folder")
    return keep.resolve()
