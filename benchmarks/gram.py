"""Forming integer statistics of 50,000 × 1024 rows, beside one BLAS call of the same product.

python -m benchmarks.gram

In CPU time, that of all threads together.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
from scipy.linalg.blas import dsyrk

from benchmarks.record import paired, write
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.statistics import packed_statistics

ROWS, DIM, CLASSES = 50_000, 1024, 10


def main() -> None:
    """Time it against BLAS with one thread and with all, and weigh its memory at two sizes."""
    if sys.argv[1:] == ["time"]:
        print(json.dumps(_times()))
        return
    threads = {"one thread": "1", "all cores": str(os.cpu_count())}
    write(
        "gram",
        {
            "what": "CPU time of rows to packed statistics / of one dsyrk of the integer rows",
            "rows": ROWS,
            "dim": DIM,
            "times": {name: _times_with(count) for name, count in threads.items()},
            "peak_bytes": {str(rows): _peak_bytes(rows) for rows in (5_000, 50_000)},
        },
    )


def _times_with(threads: str) -> dict[str, float]:
    """In a process of its own, for BLAS reads its number of threads once."""
    command = [sys.executable, "-m", "benchmarks.gram", "time"]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": threads}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    times: dict[str, float] = json.loads(said.stdout)
    return times


def _times() -> dict[str, float]:
    rng = np.random.default_rng(0)
    features = np.maximum(rng.standard_normal((ROWS, DIM), dtype=np.float32), 0)
    labels = rng.integers(0, CLASSES, ROWS)
    quantiser = Quantiser(8)
    integers = quantiser.integers(features)

    def ours() -> object:
        return packed_statistics(features, labels, CLASSES, quantiser)

    return paired(ours, lambda: dsyrk(1.0, integers.T), 9, time.process_time)


def _peak_bytes(rows: int) -> int:
    """Greatest allocation above the rows themselves, which are on disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, DIM))
        mapped[:] = 0.5
        labels = np.zeros(rows, dtype=np.int64)
        tracemalloc.start()
        packed_statistics(mapped, labels, CLASSES, Quantiser(8))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak


if __name__ == "__main__":
    main()
