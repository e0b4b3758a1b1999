"""Whether every guard has a test: without it, some test has to fail.

python -m tests.kit.guards [--only PATTERN] [--jobs N] [--list] [--package P] [--tests T …]

All tests run once under coverage, to learn which of them make which guard raise. Those run again,
quickest first, in a process that imports the guard's module without it. What a test starts in yet
another process is seen by neither. A guard is

  killed    when a test notices: by an assertion, by `pytest.raises`, or by another typed error;
  WEAK      when tests fail only by accident: by a TypeError, a KeyError, a crash;
  SURVIVED  when all tests pass without it, or none makes it raise.
"""

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from coverage import CoverageData

from tests.kit.mutants import MUTANT, REPORT, Guard, find_guards

# Guards that no test can miss, as (path, condition): the reason.
EQUIVALENT: dict[tuple[str, str], str] = {}

# The registry's guards and those of lazy imports have their tests outside of `tests/protocols`.
TESTS = ("tests/protocols", "tests/toys/test_toys.py", "tests/test_exports.py")

# Beyond three times what the tests took with the guard in place.
TIMEOUT_SECONDS = 120
KILLED, WEAK, SURVIVED, LISTED = "killed", "WEAK", "SURVIVED", "listed"


class Tests(NamedTuple):
    """The tests that make each guard raise, quickest first, and how long each takes."""

    raising: dict[Guard, list[str]]
    seconds: dict[str, float]


class Verdict(NamedTuple):
    """What became of a guard's mutant, and by which test."""

    guard: Guard
    outcome: str
    why: str

    def __str__(self) -> str:
        return f"{self.outcome:8}  {self.guard}  {self.guard.error}  {self.why}"


class CannotRun(Exception):
    """The tests do not run, or do not pass even with every guard in place."""


class Runner:
    """Pytest in processes of its own, which keep their files in one scratch folder."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._environment = {
            **os.environ,
            "COVERAGE_FILE": str(scratch / "coverage"),
            "HYPOTHESIS_STORAGE_DIRECTORY": str(scratch / "hypothesis"),
        }

    def learn(
        self, guards: Sequence[Guard], package: str, paths: Sequence[str], jobs: int
    ) -> Tests:
        """Run all tests once, with all guards in place."""
        coverage = [f"--cov={package}", "--cov-context=test", "--cov-report=", "--cov-fail-under=0"]
        arguments = [
            "-m",
            "not slow and not nightly",
            f"--numprocesses={jobs if jobs > 1 else 0}",
            *coverage,
        ]
        status, said, report = self._pytest("all", [*arguments, *paths])
        if status != 0:
            raise CannotRun(said)
        data = CoverageData(self._environment["COVERAGE_FILE"])
        data.read()
        seconds: dict[str, float] = report["seconds"]
        raising = {}
        for guard in guards:
            contexts = data.contexts_by_lineno(str(Path(guard.path).resolve())).get(guard.line, [])
            # A context is a test and its phase; without either while modules are imported.
            names = {context.rpartition("|")[0] for context in contexts} - {""}
            raising[guard] = sorted(names, key=lambda name: seconds[name])
        return Tests(raising, seconds)

    def judge(self, tests: Tests, guard: Guard) -> Verdict:
        """Run a guard's tests without it."""
        if reason := EQUIVALENT.get((guard.path, guard.condition)):
            return Verdict(guard, LISTED, reason)
        names = tests.raising[guard]
        if not names:
            return Verdict(guard, SURVIVED, "no test makes it raise")
        limit = TIMEOUT_SECONDS + 3 * sum(tests.seconds[name] for name in names)
        try:
            label = str(guard).replace("/", "_")
            status, said, report = self._pytest(label, names, mutant=str(guard), limit=limit)
        except subprocess.TimeoutExpired:
            return Verdict(guard, KILLED, f"no end after {limit:.0f} s")
        failures = report.get("failures", [])
        for name, error, noticed in failures:
            if noticed:
                return Verdict(guard, KILLED, f"{name} ({error})")
        if failures:
            name, error, _ = failures[0]
            return Verdict(guard, WEAK, f"{name} ({error}), {len(failures)} in all")
        if status < 0:
            return Verdict(guard, WEAK, f"signal {-status} in one of {', '.join(names)}")
        if status != 0:
            raise CannotRun(f"without {guard}:\n{said}")
        return Verdict(guard, SURVIVED, f"{len(names)} tests make it raise: {', '.join(names[:3])}")

    def _pytest(
        self, label: str, arguments: list[str], *, mutant: str = "", limit: float | None = None
    ) -> tuple[int, str, dict[str, Any]]:
        report = self._scratch / f"{label}.json"
        plugins = ["-p", "tests.kit.mutants", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--quiet", *plugins, *arguments],
            env=self._environment | {MUTANT: mutant, REPORT: str(report)},
            capture_output=True,
            text=True,
            timeout=limit,
        )
        # A process that a signal ended has written none.
        said = json.loads(report.read_text("utf-8")) if report.exists() else {}
        return done.returncode, (done.stdout + done.stderr)[-4000:], said


def guards_of(package: str, only: str) -> list[Guard]:
    """Find the package's guards that have the pattern somewhere in `path:line`."""
    found = []
    for path in sorted(Path(package).rglob("*.py")):
        found += find_guards(path.read_text("utf-8"), path.as_posix())
    return [guard for guard in found if fnmatch.fnmatch(str(guard), f"*{only}*")]


def run(guards: Sequence[Guard], package: str, paths: Sequence[str], jobs: int) -> int:
    """Print each guard's verdict; return the exit status."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        runner = Runner(Path(scratch))
        tests = runner.learn(guards, package, paths, jobs)
        said = f"{len(tests.seconds)} tests in {time.monotonic() - begin:.0f} s"
        say(f"{said}, then {len(guards)} guards")
        pool = ThreadPoolExecutor(jobs)
        try:
            verdicts = []
            for verdict in pool.map(partial(runner.judge, tests), guards):
                verdicts.append(verdict)
                say(str(verdict))
        finally:
            pool.shutdown(cancel_futures=True)
    counts = Counter(verdict.outcome for verdict in verdicts)
    say(", ".join(f"{counts[outcome]} {outcome}" for outcome in (KILLED, WEAK, SURVIVED, LISTED)))
    say(f"in {time.monotonic() - begin:.0f} s")
    return int(counts[SURVIVED] > 0)


def say(line: str) -> None:
    """Print at once, also into a pipe."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge what the options name; return 1 if a guard survives, 2 if the tests do not run."""
    parser = argparse.ArgumentParser(description="Show whether every guard has a test.")
    parser.add_argument("--only", default="", metavar="PATTERN", help="of path:line; * is anything")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--list", action="store_true", help="list the guards, run nothing")
    parser.add_argument("--package", default="protocols", help="the folder of a package")
    parser.add_argument("--tests", nargs="+", default=TESTS, metavar="PATH")
    options = parser.parse_args(arguments)
    guards = guards_of(options.package, options.only)
    if options.list:
        for guard in guards:
            say(f"{guard}  {guard.error}  {guard.condition}")
        return 0
    try:
        return run(guards, options.package, options.tests, options.jobs)
    except CannotRun as error:
        say(str(error))
        return 2


if __name__ == "__main__":
    sys.exit(main())
