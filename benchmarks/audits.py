"""The audit of runs of many sums, and what it says of broken ones.

python -m benchmarks.audits
"""

from typing import Any

from threadpoolctl import threadpool_limits

from benchmarks.record import write
from secure_afl.methods import AFL
from secure_afl.privacy.mechanism import Privacy
from secure_afl.tuning.audit import Audit, audit
from tests.secure_afl.tuning.test_audit import (
    SHORT,
    BareCounts,
    EachAPatient,
    HalvedNoise,
    SameNoise,
    SilentRound,
    UnclippedResiduals,
)

PROMISES = {
    "ε = 2": (Privacy(2.0), 100_000),
    "ε = 4": (Privacy(4.0), 100_000),
    "ε = 8": (Privacy(8.0), 50_000),
    "replace-one, ε = 4": (Privacy(4.0, neighbours="replace-one"), 100_000),
    "unit patient, ε = 4": (Privacy(4.0, unit="patient"), 50_000),
}
MUTATIONS = {
    "one sum of five without noise": SilentRound,
    "the same noise in all sums": SameNoise,
    "residuals not clipped": UnclippedResiduals,
    "counts without noise": BareCounts,
    "noise halved": HalvedNoise,
}
BROKEN = Privacy(8.0)
BROKEN_TESTS = 1_500


def main() -> None:
    """Audit private-gradient, and write `results/audits.json`."""
    with threadpool_limits(1):
        promises = {
            name: _told(audit(privacy, tests=tests, method=SHORT))
            for name, (privacy, tests) in PROMISES.items()
        }
        broken = {
            name: _told(audit(BROKEN, tests=BROKEN_TESTS, method=SHORT, member=member))
            for name, member in MUTATIONS.items()
        }
        patients = Privacy(8.0, unit="patient")
        for method in (AFL(), SHORT):
            found = audit(patients, tests=BROKEN_TESTS, method=method, member=EachAPatient)
            broken[f"patients not weighted, {method.name}"] = _told(found)
    write("audits", {"sums": SHORT.sums, "promises": promises, "broken": broken})


def _told(found: Audit) -> dict[str, Any]:
    return {
        "promised": found.epsilon,
        "lower_bound": found.lower_bound,
        "share": found.lower_bound / found.epsilon,
        "shown_by": found.shown_by,
        "tests": found.tests,
        "flagged": not found.holds,
        "seconds": found.seconds,
    }


if __name__ == "__main__":
    main()
