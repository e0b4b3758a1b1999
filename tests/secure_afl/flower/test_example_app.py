"""The example app on Flower's own engine, with ten nodes in processes of Ray."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra 'flower'")
pytest.importorskip("ray", reason="needs flwr[simulation]")

APP = Path(__file__).parents[3] / "examples" / "flower_app"
NODES, ROUNDS = 10, 3

SIMULATE = f"""
import os
os.environ["RAY_DISABLE_DASHBOARD"] = "1"
from flwr.simulation import run_simulation
from blind_app.client_app import app as client
from blind_app.server_app import app as server
run_simulation(server, client, num_supernodes={NODES},
               backend_config={{"client_resources": {{"num_cpus": 1.0, "num_gpus": 0.0}}}})
"""


@pytest.mark.slow
def test_unchanged_fedavg_over_a_blind_sum_is_numpys_fedavg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(APP))
    from blind_app.task import accuracy, initial, rows_of, train  # type: ignore[import-not-found]

    done = subprocess.run(
        [sys.executable, "-c", SIMULATE],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{APP}:{Path(__file__).parents[3]}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(tmp_path / "model.npz") as found:
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
