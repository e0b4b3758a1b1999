"""The example app as its README runs it: on Flower's own engine, ten nodes in processes of Ray."""

import os
import signal
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra 'flower'")
pytest.importorskip("ray", reason="needs flwr[simulation]")

from secure_afl.flower.deploy.processes import free_port
from tests.kit.printed import follow
from tools.documents import ROOT

APP = ROOT / "examples" / "flower_app"
NODES, ROUNDS = 10, 3


def runs(process: int) -> bool:
    """Say whether a process is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def followed(folder: Path) -> Path:
    """Do what the README prints, and return where its files are; no SuperLink stays."""
    text = (APP / "README.md").read_text(encoding="utf-8")
    assert text.count("39195") == 3
    files = folder / "out" / "flower_app"
    try:
        follow(text.replace("39195", str(free_port())), folder)
        superlink = int((files / "superlink.pid").read_text())
        end = time.monotonic() + 30
        while runs(superlink) and time.monotonic() < end:
            time.sleep(0.2)
        assert not runs(superlink)
    finally:
        if (files / "superlink.pid").exists():
            left = int((files / "superlink.pid").read_text())
            if runs(left):
                os.kill(left, signal.SIGTERM)
    return files


def test_no_index_is_asked_for_this_project() -> None:
    project = tomllib.loads((APP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert not [one for one in project["dependencies"] if "afl" in one]


@pytest.mark.slow
def test_unchanged_fedavg_over_a_blind_sum_is_numpys_fedavg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(APP))
    from blind_app.task import accuracy, initial, rows_of, train  # type: ignore[import-not-found]

    files = followed(tmp_path)
    assert {path.name for path in files.iterdir()} == {
        *("home", "model.npz", "superlink.log", "superlink.pid"),
    }
    with np.load(files / "model.npz") as found:
        got = {name: found[name] for name in found.files}
    model = initial()
    parts = [rows_of(node, NODES) for node in range(NODES)]
    for _ in range(ROUNDS):
        trained = [train(model, rows, labels, 1.0) for rows, labels in parts]
        weights = [len(rows) for rows, _ in parts]
        model = {
            name: np.average([t[name] for t in trained], axis=0, weights=weights).astype(v.dtype)
            for name, v in model.items()
        }
    for name, values in model.items():
        assert np.abs(got[name] - values).max() < 1e-6
    rows, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    assert accuracy(got, rows, labels) > 0.85
