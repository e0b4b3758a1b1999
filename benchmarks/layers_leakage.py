"""What a layer's sums give away: images, and whose they are, at 1, 5 and 40 images and more.

    python -m benchmarks.layers_leakage

`secure-afl attack` on scikit-learn's digits, which five clients share: the server of `plain` has
each client's sums, of one image at five in all; the collector of `additive` has blind sums.
"""

import sys
from typing import Any

from attacks.attack import ATTACKS
from attacks.suite import run as suite
from attacks.suite.cells import Cell
from attacks.suite.config import AttackConfig
from benchmarks.leakage import _figures
from benchmarks.record import POINTS, write
from secure_afl.runs.config import RunConfig

ROWS = (5, 40, 200, 0)
NAMES = ("layer-images", "layer-membership", "membership-subspace", "membership-leverage")


def main() -> None:
    """Run what is missing and write `results/layers_leakage.json`."""
    run = RunConfig(partition="iid:5")
    exact = AttackConfig(
        run=run,
        attacks=NAMES,
        methods=("fedacnnl",),
        protocols=("plain", "additive"),
        adversaries=("server", "collector"),
        rows=ROWS,
        sweep=(),
        repeats=3,
    )
    cells = _cells(exact, "layers_leakage")
    noisy = AttackConfig(
        run=run.replaced(filters="canonical"),
        attacks=NAMES[:2],
        methods=("fedacnnl",),
        protocols=("additive",),
        adversaries=("collector",),
        epsilons=(8.0,),
        rows=ROWS,
        sweep=(),
        repeats=3,
    )
    private = [cell for cell in _cells(noisy, "layers_leakage_noise") if cell.epsilon is not None]
    write(
        "layers_leakage",
        {"cells": [_figures(cell) for cell in cells], "noisy": [_figures(c) for c in private]},
    )


def _cells(config: AttackConfig, folder: str) -> list[Cell]:
    found: Any = suite.run(config, ATTACKS, POINTS / folder, _progress, "").cells
    for cell in found:
        if cell.error is not None:
            print(cell.attack, cell.protocol, cell.adversary, cell.rows, cell.error)
    return list(found)


def _progress(what: str, done: int, total: int) -> None:
    print(f"\r{what}: {done} of {total} ", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
