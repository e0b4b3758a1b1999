"""CPU time and memory of start-up, cached runs, statistics and noise, before and after.

python -m benchmarks.speed --before FOLDER    # a checkout of the version to compare with

Commands are run in turn, one of each version, with one thread of BLAS and with bytecode that is
cached, as an installed package has it; the figures are medians of user and system time of the
processes, or of calls within one. Without --before, the figures of the
earlier version are those on record. The cached run needs SECURE_AFL_DATA; without it, the figures
on record stay.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.record import RESULTS, write

HERE = Path(__file__).parents[1]
PROBE = Path(__file__).parent / "speed_probe.py"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
REPEATS, LONG_REPEATS = 9, 5

IMPORTED = "import secure_afl.sites.process, secure_afl.sites.party"
TERMS = (
    "from secure_afl.runs.choose import make_terms; from secure_afl.runs.config import RunConfig; "
    "make_terms(RunConfig(method='afl', protocol='additive'))"
)
FLOOR = "import numpy, msgspec, cryptography.hazmat.primitives.hpke"
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "help": ("-m", "secure_afl", "--help"),
    "run_help": ("-m", "secure_afl", "run", "--help"),
    "party": ("-c", IMPORTED),
    "party_terms": ("-c", f"{IMPORTED}; {TERMS}"),
    "floor": ("-c", FLOOR),
}
PROBES: Mapping[str, tuple[str, ...]] = {
    "statistics_100_8": ("statistics", "100", "8"),
    "statistics_100_12": ("statistics", "100", "12"),
    "statistics_25000_8": ("statistics", "25000", "8"),
    "noise_2": ("noise", "2"),
    "noise_1000": ("noise", "1000"),
    "noise_1e9": ("noise", "1e9"),
    "federation": ("federation",),
}


def main() -> None:
    """Measure every item with both versions, and write them side by side."""
    before = None
    if sys.argv[1:2] == ["--before"]:
        before = Path(sys.argv[2]).resolve()
        sys.argv[2] = "FOLDER"  # as the command is written down
    with tempfile.TemporaryDirectory() as bytecode:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = bytecode
        _measure(before)


def _measure(before: Path | None) -> None:
    recorded = _recorded()
    versions = {"after": HERE} if before is None else {"before": before, "after": HERE}
    found: dict[str, dict[str, Any]] = {}
    for name, arguments in COMMANDS.items():
        command = [sys.executable, *arguments]
        found[name] = _commands(versions, command, REPEATS, {})
    found |= {name: _probes(versions, arguments) for name, arguments in PROBES.items()}
    data = os.environ.get("SECURE_AFL_DATA")
    if data is not None:
        found["cached_run"] = _cached_runs(versions, Path(data))
    items = {
        name: recorded.get("items", {}).get(name, {}) | found.get(name, {})
        for name in (*COMMANDS, "cached_run", *PROBES)
    }
    write(
        "speed",
        {
            "what": "median user + system seconds of a process, or of a call; one BLAS thread",
            "before": recorded.get("before") if before is None else _commit(before),
            "repeats": {"commands": REPEATS, "cached_run": LONG_REPEATS, "processes a probe": 3},
            "items": items,
        },
    )


def _recorded() -> dict[str, Any]:
    path = RESULTS / "speed.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def _commit(folder: Path) -> str:
    said = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    return subprocess.run(said, capture_output=True, text=True, check=True).stdout.strip()


def _commands(
    versions: Mapping[str, Path], command: Sequence[str], repeats: int, more: dict[str, str]
) -> dict[str, Any]:
    """Run a command with every version in turn, after one time each that is not counted."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in versions}
    for repeat in range(repeats + 1):
        for name, folder in versions.items():
            usage = _usage(command, folder, more)
            if repeat:
                taken[name].append(usage)
    return {
        name: {
            "cpu_seconds": median(seconds for seconds, _ in usages),
            "peak_megabytes": median(size for _, size in usages),
        }
        for name, usages in taken.items()
    }


def _usage(command: Sequence[str], folder: Path, more: dict[str, str]) -> tuple[float, float]:
    """Return user and system seconds of a process, and its greatest memory in MB."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, cwd=folder, env=_environment(folder) | more, stdout=said, stderr=said
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.exit(f"{' '.join(command)} in {folder} failed:\n{said.read().decode()[-2000:]}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def _environment(folder: Path) -> dict[str, str]:
    return os.environ | ONE_THREAD | {"PYTHONPATH": str(folder)}


def _probes(versions: Mapping[str, Path], arguments: Sequence[str]) -> dict[str, Any]:
    """Run a probe in three processes of every version, in turn; the median of their medians."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in versions}
    for _ in range(3):
        for name, folder in versions.items():
            # -P: not the folder of the probe, whose modules have names of other packages.
            command = [sys.executable, "-P", str(PROBE), *arguments]
            said = subprocess.run(
                command, cwd=folder, env=_environment(folder), capture_output=True, check=True
            )
            found[name].append(json.loads(said.stdout))
    return {
        name: {key: median(point[key] for point in points) for key in points[0]}
        for name, points in found.items()
    }


def _cached_runs(versions: Mapping[str, Path], data: Path) -> dict[str, Any]:
    """A whole run over features that are cached: 16 sites, 1,633 images, a network of 13 MB."""
    command = [
        *(sys.executable, "-m", "secure_afl", "run"),
        *("--clients", f"{data}/sign_digits/train/*", "--test", f"{data}/sign_digits/test"),
        *("--backbone", "timm:mobilenetv1_100,pad_type=same", "--image-size", "128"),
        *("--checkpoint", f"{data}/backbones/mobilenetv1_100.safetensors"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        # The first time of each version fills what the later ones find.
        cache = {"SECURE_AFL_CACHE": f"{folder}/features.sqlite"}
        return _commands(versions, command, LONG_REPEATS, cache)


if __name__ == "__main__":
    main()
