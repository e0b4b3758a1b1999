"""The client's upload, from its vector to encoded messages, beside one AES-CTR pass and one sum.

python -m benchmarks.speed_wire --before FOLDER    # a checkout of the version to compare with

Two versions run in turn, a process for each point; the figures are medians of CPU seconds over the
processes. "settled" is the median call after blocks of 31 MiB were freed, so that the heap keeps
its pages; "first" is the one call that a process makes, which a one-shot client pays. SHA-256 of
the body is timed by itself: processors without instructions for it spend most of an upload there.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from benchmarks.record import write

HERE = Path(__file__).parents[1]
PROBE = Path(__file__).parent / "speed_wire_probe.py"
PROCESSES = 5
CASES = [
    (entries, bits, when)
    for entries, bits in ((530_000, 32), (530_000, 40), (5_000_000, 32))
    for when in ("settled", "first")
]


def main() -> None:
    """Measure each case with both versions in turn, and write them side by side."""
    if sys.argv[1:2] != ["--before"]:
        sys.exit(__doc__)
    before = Path(sys.argv[2]).resolve()
    sys.argv[2] = "FOLDER"  # as the command is written down
    said = ["git", "-C", str(before), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(said, capture_output=True, text=True, check=True).stdout.strip()
    versions = {"before": before, "after": HERE}
    cases = []
    for entries, bits, when in CASES:
        points: dict[str, list[dict[str, float]]] = {name: [] for name in versions}
        for _ in range(PROCESSES):
            for name, folder in versions.items():
                points[name].append(_probe(folder, entries, bits, when))
        figures = {
            name: {key: median(point[key] for point in found) for key in found[0]}
            for name, found in points.items()
        }
        cases.append({"entries": entries, "ring_bits": bits, "when": when, **figures})
    what = "CPU seconds of an upload to two aggregators, and of its bound"
    write("speed_wire", {"what": what, "before": commit, "processes": PROCESSES, "cases": cases})


def _probe(folder: Path, entries: int, bits: int, when: str) -> dict[str, float]:
    command = [sys.executable, "-P", str(PROBE), str(entries), str(bits), when]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment = os.environ | one_thread | {"PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
