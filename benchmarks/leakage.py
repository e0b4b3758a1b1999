"""What every party can learn on the hand-sign sites, without noise and with it.

    python -m benchmarks.leakage

Runs `secure-afl attack` with its default selection, and again with ε = 8 for membership; cells
already there are not run again.
"""

import sys
from time import perf_counter
from typing import Any

from attacks.attack import ATTACKS
from attacks.suite import run as suite
from attacks.suite.cells import Cell
from attacks.suite.config import AttackConfig
from benchmarks.record import POINTS, data_folder, write
from secure_afl.runs.config import RunConfig

MEMBERSHIP = ("membership-subspace", "membership-leverage", "membership-model")


def main() -> None:
    """Run what is missing and write `results/leakage.json`."""
    data = data_folder()
    run = RunConfig(
        clients=str(data / "sign_digits" / "train" / "site_*"),
        backbone="timm:mobilenetv1_100,pad_type=same",
        checkpoint=str(data / "backbones" / "mobilenetv1_100.safetensors"),
        image_size=128,
    )
    begin = perf_counter()
    exact = suite.run(AttackConfig(run=run), ATTACKS, POINTS / "leakage", _progress, "")
    seconds = perf_counter() - begin
    noisy = suite.run(
        AttackConfig(
            run=run,
            attacks=MEMBERSHIP,
            methods=("afl",),
            protocols=("additive",),
            epsilons=(8.0,),
        ),
        ATTACKS,
        POINTS / "leakage_noise",
        _progress,
        "",
    )
    write(
        "leakage",
        {
            "seconds": seconds,
            "attack_seconds": sum(cell.seconds for cell in exact.cells),
            "cells": [_figures(cell) for cell in exact.cells],
            "noisy": [_figures(cell) for cell in noisy.cells if cell.epsilon is not None],
        },
    )


def _figures(cell: Cell) -> dict[str, Any]:
    return {
        "attack": cell.attack,
        "method": cell.method,
        "protocol": cell.protocol,
        "adversary": cell.adversary,
        "epsilon": cell.epsilon,
        "rows": cell.rows,
        "claimed": cell.claimed,
        "measures": [
            {
                "metric": measure.metric,
                "value": round(measure.value, 4),
                "low": round(measure.low, 4),
                "high": round(measure.high, 4),
                "chance": round(measure.chance, 4),
            }
            # Of a cell with nothing to attack there is only what guessing gives.
            for measure in (cell.measures if cell.claimed else ())
        ],
    }


def _progress(what: str, done: int, total: int) -> None:
    print(f"\r{what}: {done} of {total} ", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
