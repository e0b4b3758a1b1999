"""CPU time and memory of start-up, cached runs, statistics and noise, before and after.

python -m benchmarks.speed --before FOLDER [--only ITEM...]    # FOLDER: a checkout to compare with

Commands are run in turn, one of each version, with one thread of BLAS and with bytecode that is
cached, as an installed package has it; the figures are medians of user and system time of the
processes, or of calls within one. Without --before, the figures of the
earlier version are those on record; what --only leaves out, and the cached run without
SECURE_AFL_DATA, keep both. Ten thousand clients run once in each version.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
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
    "additive": ("additive",),
}
TEN_THOUSAND = ("-m", "benchmarks.simulation", "--clients", "10000")
ITEMS = (*COMMANDS, "cached_run", *PROBES, "ten_thousand")


def main() -> None:
    """Measure the items with both versions, and write them side by side."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=Path, help="a checkout of the version to compare with")
    parser.add_argument("--only", nargs="+", choices=ITEMS, default=ITEMS, metavar="ITEM")
    options = parser.parse_args()
    versions = {"after": HERE}
    if options.before is not None:
        versions = {"before": options.before.resolve(), "after": HERE}
        sys.argv[sys.argv.index(str(options.before))] = "FOLDER"  # as the command is written down
    with tempfile.TemporaryDirectory() as bytecode:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = bytecode
        _measure(versions, options.only)


def _measure(versions: Mapping[str, Path], only: Collection[str]) -> None:
    recorded = _recorded()
    found = {name: _item(name, versions) for name in ITEMS if name in only}
    items = {name: recorded.get("items", {}).get(name, {}) | found.get(name, {}) for name in ITEMS}
    write(
        "speed",
        {
            "what": "median user + system seconds of a process, or of a call; one BLAS thread",
            "before": _commit(versions["before"]) if "before" in versions else recorded["before"],
            "repeats": {
                "commands": REPEATS,
                "cached_run": LONG_REPEATS,
                "processes a probe": 3,
                "ten_thousand": 1,
            },
            "items": items,
        },
    )


def _item(name: str, versions: Mapping[str, Path]) -> dict[str, Any]:
    if name in COMMANDS:
        return _commands(versions, [sys.executable, *COMMANDS[name]], REPEATS, {})
    if name in PROBES:
        return _probes(versions, PROBES[name])
    if name == "cached_run":
        data = os.environ.get("SECURE_AFL_DATA")
        return {} if data is None else _cached_runs(versions, Path(data))
    return _commands(versions, [sys.executable, *TEN_THOUSAND], 1, {}, uncounted=0)


def _recorded() -> dict[str, Any]:
    path = RESULTS / "speed.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def _commit(folder: Path) -> str:
    said = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    return subprocess.run(said, capture_output=True, text=True, check=True).stdout.strip()


def _commands(
    versions: Mapping[str, Path],
    command: Sequence[str],
    repeats: int,
    more: dict[str, str],
    uncounted: int = 1,
) -> dict[str, Any]:
    """Run a command with every version in turn, after one time each that is not counted."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in versions}
    for repeat in range(repeats + uncounted):
        for name, folder in versions.items():
            usage = _usage(command, folder, more)
            if repeat >= uncounted:
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
