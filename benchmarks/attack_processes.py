"""`secure-afl attack --quick` in one process and in two: wall, CPU and memory, and the same cells.

python -m benchmarks.attack_processes

The embedded digits, each count of processes once, into a folder of its own. CPU is user and system
time of all processes; memory is the greatest of any one of them. Wall time is what it was, on a
machine whose load stands beside it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.record import write

HERE = Path(__file__).parents[1]
PROCESSES = (1, 2)
# It tests the masks themselves, which each run draws afresh.
FRESH = {"uniformity"}


def main() -> None:
    """Run each count, compare what was found, and write `results/attack_processes.json`."""
    figures: dict[str, Any] = {}
    found: list[list[dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as folder:
        for processes in PROCESSES:
            out = Path(folder) / str(processes)
            figures[f"{processes} processes"] = attacked(processes, out)
            cells = json.loads((out / "results.json").read_text(encoding="utf-8"))["cells"]
            # Seconds are of the machine; all else is of the data and the seed.
            found.append([{**cell, "seconds": 0.0} for cell in cells])
    differ = {one["attack"] for one, two in zip(*found, strict=True) if one != two}
    assert differ <= FRESH, f"two processes found something else than one: {differ - FRESH}"
    write(
        "attack_processes",
        {
            "what": "secure-afl attack --quick on the embedded digits",
            "cells": len(found[0]),
            "differ": sorted(differ),
            **figures,
        },
    )


def attacked(processes: int, out: Path) -> dict[str, Any]:
    """One run of the command, and what it took."""
    command = [sys.executable, "-m", "secure_afl", "attack", "--quick"]
    command += ["--processes", str(processes), "--out", str(out)]
    cache = {"SECURE_AFL_CACHE": str(out.with_suffix(".sqlite")), "PYTHONPATH": str(HERE)}
    load, begin = os.getloadavg()[0], time.perf_counter()
    process = subprocess.Popen(
        command, env=os.environ | cache, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed with {process.returncode}")
    return {
        "wall_seconds": wall,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_megabytes_of_a_process": used.ru_maxrss / 1024,
        "load_average": [load, os.getloadavg()[0]],
    }


if __name__ == "__main__":
    main()
