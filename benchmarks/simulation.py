"""A whole run of many clients in one process: exact, its CPU, and its memory.

python -m benchmarks.simulation

`additive` with 1,000 and 10,000 clients of 64 features and two rows each, through `Federation` from
declarations to the model, each size in a process of its own. The oracle here keeps one running sum,
of integers that are made of each client's rows a second time.
"""

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks.record import peak_bytes, write
from protocols import Additive
from secure_afl.analytic.rows import ClientData
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL, AnyMethod

SIZES = (1_000, 10_000)
FEATURES, CLASSES, ROWS = 64, 10, 2


def main() -> None:
    """Write `results/simulation.json`, or with `--clients` run one size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, help=argparse.SUPPRESS)
    clients = parser.parse_args().clients
    if clients is not None:
        print(json.dumps(one(clients)))
        return
    figures: dict[str, Any] = {"features": FEATURES, "classes": CLASSES, "rows_a_client": ROWS}
    for size in SIZES:
        child = [sys.executable, "-m", "benchmarks.simulation", "--clients", str(size)]
        done = subprocess.run(child, check=True, capture_output=True, text=True)
        figures[f"n={size}"] = json.loads(done.stdout)
    write("simulation", figures)


def one(clients: int) -> dict[str, Any]:
    """One run, and what it took."""
    rng = np.random.default_rng(0)
    data = [
        ClientData(
            f"client{index:05}",
            rng.standard_normal((ROWS, FEATURES)).astype(np.float32),
            rng.integers(0, CLASSES, ROWS),
        )
        for index in range(clients)
    ]
    method: AnyMethod = AFL()
    imported = peak_bytes()
    begin, wall = time.process_time(), time.perf_counter()
    names = [str(label) for label in range(CLASSES)]
    result = Federation(method, Additive()).run(data, classes=names, max_rows=ROWS)
    cpu, wall = time.process_time() - begin, time.perf_counter() - wall
    peak = peak_bytes()
    (round_,) = result.rounds
    assert result.report.exact
    assert len(round_.released.included) == clients
    total = np.zeros_like(round_.released.total)
    for client in data:
        total += method.contribute(round_.public, client, {}, b"")
    assert np.array_equal(total, round_.released.total), "the running sum is another"
    parties = sum(round_.seconds.values())
    return {
        "entries": len(total),
        "exact": True,
        "cpu_seconds": cpu,
        "cpu_milliseconds_a_client": 1e3 * cpu / clients,
        "wall_seconds": wall,
        "seconds_in_parties": parties,
        "peak_bytes": peak,
        "peak_bytes_before": imported,
        "bytes_a_client": (peak - imported) / clients,
    }


if __name__ == "__main__":
    main()
