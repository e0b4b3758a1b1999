"""Accuracy against ε on real data, beside Opacus' DP-SGD on the same features.

    python -m benchmarks.tune

Each case is one `secure-afl tune`; points already there are not run again.
"""

import sys
from typing import Any

import msgspec

from benchmarks.record import POINTS, RESULTS, data_folder, write
from secure_afl.runs.config import RunConfig
from secure_afl.tuning import outcomes as tuning_outcomes
from secure_afl.tuning import picture as tuning_picture
from secure_afl.tuning import sweep as tuning
from secure_afl.tuning.settings import Baseline, Sweep

SEEDS = 5
AUDIT_TESTS = 100_000


def main() -> None:
    """Run what is missing and write `results/tune.json` and one picture a case."""
    figures: dict[str, Any] = {}
    for name, config in cases().items():
        # An audit is of the cohort, which is the same in all cases; only noise differs by ε. DP-SGD
        # has the backbone's own features, with public data or without.
        tests = AUDIT_TESTS if name == "pneumonia" else 0
        baseline: Baseline = "none" if config.public else "sweep"
        sweep = Sweep(seeds=SEEDS, baseline=baseline, audit_tests=tests)
        outcomes = tuning.tune(config, sweep, POINTS / name, _progress)
        tuning_picture.draw(outcomes, RESULTS / f"tune_{name}.png")
        audits = [o for o in outcomes if o.lower_bound is not None]
        figures[name] = {
            "read_first": tuning_outcomes.statement(config, outcomes),
            "summaries": msgspec.to_builtins(tuning_outcomes.summarise(outcomes)),
            "audits": [
                {
                    "epsilon": o.point.config.epsilon,
                    "lower_bound": o.lower_bound,
                    "cohort": msgspec.to_builtins(o.cohort),
                }
                for o in audits
            ],
        }
    write("tune", {"cases": figures})


def cases() -> dict[str, RunConfig]:
    """The runs that are tuned."""
    data = data_folder()
    pneumonia = RunConfig(
        clients=str(data / "pneumoniamnist.npz"),
        partition="iid:10",
        backbone="timm:mobilenetv1_100,pad_type=same",
        checkpoint=str(data / "backbones" / "mobilenetv1_100.safetensors"),
        image_size=96,
        max_rows=512,
    )
    signs = str(data / "sign_digits" / "train")
    return {
        "pneumonia": pneumonia,
        # Hand signs are unlike chest X-rays, which is what whitening is for.
        "pneumonia_public": msgspec.structs.replace(pneumonia, public=signs, whiten=0.25),
        "digits": RunConfig(backbone="projection:512", partition="iid:10", max_rows=256),
    }


def _progress(what: str, done: int, total: int) -> None:
    print(f"\r{what}: {done} of {total} ", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
