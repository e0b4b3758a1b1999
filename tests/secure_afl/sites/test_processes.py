"""Federations between sites as people run them: a process a party, killed at any moment."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from protocols import Additive, Ckks, Plain, Protocol
from secure_afl.analytic.rows import ClientData
from secure_afl.data import dataset, files
from secure_afl.features.backbone import parse_backbone
from secure_afl.features.cache import FeatureCache
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL
from secure_afl.methods.model import LinearModel
from secure_afl.privacy.ledger import Ledger
from secure_afl.sites.convene import ConvenedReport
from tests.kit.samples import make_clients
from tests.kit.sites import Sites

ROOT = Path(__file__).parents[3]
BACKBONE = "timm:mobilenetv1_100,pad_type=same,mean=0.50196,std=0.50196"
IMAGE_SIZE = 128
MAX_ROWS = 150
KILLS = 6
LONGEST = 300.0  # seconds
COMMAND = "from secure_afl.cli.main import main; main()"

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_power_cuts() -> None:
    """Flush everything: these are the processes of real sites."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for features that are made once."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = folder / "features.sqlite"
    monkeypatch.setenv("SECURE_AFL_CACHE", str(path))
    return path


class Processes:
    """The processes of all sites, of which some are killed and started again.

    Attributes:
        killed: how many times.
    """

    def __init__(self, sites: Sites) -> None:
        self._sites = sites
        self._logs = sites.folder / "logs"
        self._logs.mkdir()
        self._alive: dict[str, subprocess.Popen[bytes]] = {}
        self.killed = 0
        for name in sites.roles:
            self.start(name)

    def start(self, name: str) -> None:
        folder = self._sites.folder / name
        command = [sys.executable, "-c", COMMAND, "party", "--site", str(folder / "site.toml")]
        command += ["--post", f"folder:{self._sites.folder / 'post'}"]
        if name == self._sites.convener:
            command += ["--config", str(folder / "run.toml")]
        elif name in self._sites.clients and not (folder / "ledger.json").exists():
            command += ["--new-ledger"]
        with (self._logs / name).open("ab") as log:
            self._alive[name] = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )

    def kill_one(self, chance: random.Random) -> None:
        """Kill a process by its own id, unless its run is over, and start it again."""
        name = chance.choice(sorted(self._sites.roles))
        process = self._alive[name]
        been = self._sites.folder / name / "state" / "runs"
        if process.poll() is None and not (been.is_dir() and any(been.iterdir())):
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            self.killed += 1
            self.start(name)

    @property
    def over(self) -> bool:
        return all(process.poll() is not None for process in self._alive.values())

    def told(self) -> str:
        """Everything that the processes have told their people."""
        return "\n".join(
            f"{path.name}: {path.read_text()[-1500:]}" for path in sorted(self._logs.iterdir())
        )

    def check(self) -> None:
        """Look whether every process ended well."""
        assert {p.returncode for p in self._alive.values()} == {0}, self.told()

    def close(self) -> None:
        for process in self._alive.values():
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            process.wait()


def hand_signs(sites: Sites, data: Path, cache: Path) -> tuple[list[ClientData], tuple[str, ...]]:
    """Let the sites have real images; returns the rows that they will make of these."""
    checkpoint = data / "backbones" / "mobilenetv1_100.safetensors"
    settings = f'backbone = "{BACKBONE}"\ncheckpoint = "{checkpoint}"\nimage-size = {IMAGE_SIZE}\n'
    folders = {name: data / "sign_digits" / "train" / f"site_0{name[1:]}" for name in sites.clients}
    found = {name: files.load(folder, "train") for name, folder in folders.items()}
    classes = tuple(sorted({label for one in found.values() for label in one.classes}))
    for name, folder in folders.items():
        path = sites.folder / name / "site.toml"
        text = path.read_text().replace('data = "data.npz"', f'data = "{folder}"')
        text = text.replace('backbone = "identity"\n', settings)
        path.write_text(text.replace("max-rows = 32", f"max-rows = {MAX_ROWS}"))
    path = sites.folder / sites.convener / "run.toml"
    lines = [line for line in path.read_text().splitlines() if "classes" not in line]
    kept = [line for line in lines if "width" not in line and "backbone" not in line]
    path.write_text("\n".join(kept) + f"\nclasses = {list(classes)}\n" + settings)
    backbone = parse_backbone(BACKBONE, checkpoint, IMAGE_SIZE, 0)
    rows = []
    for name, one in zip(found, dataset.align(list(found.values()), classes), strict=True):
        features = backbone.extract(one, FeatureCache(cache))
        rows.append(ClientData(name, features, np.asarray(one.labels)))
    return rows, classes


@pytest.mark.parametrize("protocol", [Additive(3), Ckks()], ids=repr)
def test_processes_that_are_killed_at_any_moment_make_the_model_of_their_rows_in_one_place(
    protocol: Protocol, tmp_path: Path, cache: Path
) -> None:
    clients = {client.name: client for client in make_clients((20, 25, 30))}
    sites = Sites(tmp_path / "sites", protocol, clients, site='out = "results"\n', wait=(600, 600))
    rows = [ClientData(c.name, c.features.astype(np.float32), c.labels) for c in clients.values()]
    classes: tuple[str, ...] = ("0", "1", "2")
    bound = 32
    if folder := os.environ.get("SECURE_AFL_DATA"):
        rows, classes = hand_signs(sites, Path(folder), cache)
        bound = MAX_ROWS
    path = sites.folder / sites.convener / "run.toml"
    path.write_text(path.read_text().replace('out = "results"\n', ""))
    chance = random.Random(7)
    processes, end = Processes(sites), time.monotonic() + LONGEST
    try:
        while not processes.over:
            assert time.monotonic() < end, processes.told()
            time.sleep(chance.uniform(0.5, 3.0))
            if processes.killed < KILLS:
                processes.kill_one(chance)
        processes.check()
    finally:
        processes.close()
    assert processes.killed
    results = sites.folder / sites.convener / "results"
    report = msgspec.json.decode((results / "report.json").read_bytes(), type=ConvenedReport)
    assert report.included == tuple(sorted(clients))
    assert report.max_rows == bound * len(clients)
    oracle = Federation(AFL(), Plain(), feature_bits=report.feature_bits)
    expected = oracle.run(rows, classes=classes, max_rows=bound).model.weights
    for name in (sites.convener, *clients):
        model, _ = LinearModel.load(sites.folder / name / "results" / "model.safetensors")
        assert np.array_equal(model.weights, expected)
    for name in clients:
        ledger = Ledger.look(sites.folder / name / "ledger.json")
        entries = [entry for lineage in ledger.lineages for entry in ledger.entries(lineage)]
        assert [(entry.counts, entry.released) for entry in entries] == [(True, True)]
