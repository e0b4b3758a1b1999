"""How a measurement is taken and written down."""

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"
# What long measurements go on from, and pictures of the data; not kept.
POINTS = Path(__file__).parent / "points"
# Of the last minute before the measurement, its own load not in it.
_LOAD = os.getloadavg()[0]


def data_folder() -> Path:
    """The folder of real data that `SECURE_AFL_DATA` names."""
    folder = os.environ.get("SECURE_AFL_DATA")
    if folder is None:
        sys.exit("set SECURE_AFL_DATA to the folder with sign_digits, pneumoniamnist and backbones")
    return Path(folder)


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Time of one call, by default wall time."""
    begin = clock()
    work()
    return clock() - begin


def peak_bytes() -> int:
    """Return the greatest resident memory of this process so far.

    Linux has it in /proc: what `getrusage` counts begins with the peak of the parent process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def paired(
    ours: Callable[[], object],
    peer: Callable[[], object],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Run both in turn, after one warm-up each, and compare pair by pair.

    Args:
        clock: in seconds; `time.process_time` counts those of all threads, and no others.

    Returns:
        Median seconds of each, and the median of the ratios ours/peer with their range: a ratio
        holds where the machine's speed drifts.
    """
    ours(), peer()
    pairs = [(seconds(ours, clock), seconds(peer, clock)) for _ in range(repeats)]
    ratios = [a / b for a, b in pairs]
    return {
        "ours_seconds": median(a for a, _ in pairs),
        "peer_seconds": median(b for _, b in pairs),
        "ratio": median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "repeats": repeats,
    }


def write(name: str, figures: dict[str, Any]) -> None:
    """Write `results/<name>.json`, with the command, the machine and its load, and print it."""
    module = f"benchmarks.{name}"
    content = {
        "command": " ".join(["python", "-m", module, *sys.argv[1:]]),
        "machine": {
            "cores": os.cpu_count(),
            "processor": _processor(),
            "python": platform.python_version(),
            "load_average": {"before": _LOAD, "after": os.getloadavg()[0]},
        },
        **figures,
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text, encoding="utf-8")
    print(text)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()
