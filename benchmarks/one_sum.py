"""One noisy sum: LDA beside the floored ridge, and where the difference comes from.

    SECURE_AFL_DATA=… python -m benchmarks.one_sum [SET …]

Ten clients, real sums over `additive`, integers, the noise of drop-outs and colluders; ε from 0.1
to 8 at δ = 1e-5, unit example, add-remove. *ridge, rows as they are* is what an `afl` run was
before: random signs alone, w = 0.8. *ridge* takes each row less its own mean. *as it comes* is
`afl` with nothing set: LDA where its public rule holds, else that ridge. *lda* is LDA everywhere.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import private_sets
from benchmarks.private import EPSILONS, Run, dimension, summaries
from benchmarks.private_sets import Case
from benchmarks.record import POINTS, write
from benchmarks.splits import CLIENTS
from protocols import Additive
from secure_afl.analytic.quantise import Floats
from secure_afl.features.reduction import Reduction, random_reduction, reduction_at_random
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL
from secure_afl.methods.model import Model
from secure_afl.methods.task_sums import Promised
from secure_afl.privacy.mechanism import Privacy
from secure_afl.runs.reduce import unfold

SEEDS = 10
SETS = ("PneumoniaMNIST", "digits", "hand signs", "breast cancer")
BEFORE, RIDGE, AUTO, LDA = "ridge, rows as they are", "ridge", "as it comes", "lda"
ARMS = {BEFORE: AFL(head="ridge"), RIDGE: AFL(head="ridge"), AUTO: AFL(), LDA: AFL(head="lda")}


def main() -> None:
    """Measure the named sets, or those of `SETS`, and write `results/one_sum.json`."""
    wanted = sys.argv[1:] or list(SETS)
    POINTS.mkdir(exist_ok=True)
    sets = {}
    with threadpool_limits(1):
        for name in private_sets.CASES:
            file = POINTS / f"one_sum {name}.json"
            if name in wanted and not file.exists():
                measured = [at(private_sets.CASES[name], epsilon) for epsilon in EPSILONS]
                file.write_bytes(msgspec.json.encode(measured))
            if file.exists():
                sets[name] = {
                    "epsilons": msgspec.json.decode(file.read_bytes()),
                }
    write("one_sum", {"seeds": SEEDS, "clients": CLIENTS, "sets": sets})


def at(case: Callable[[int], Case], epsilon: float) -> dict[str, Any]:
    """Train every arm with every seed at one ε, and summarise."""
    cases = [case(seed) for seed in range(SEEDS)]
    arms: dict[str, Any] = {}
    for name in ARMS:
        runs, heads, dims = zip(
            *(federated(name, cases[seed], epsilon, seed) for seed in range(SEEDS)), strict=True
        )
        assert len({*heads}) == len({*dims}) == 1, "public numbers choose head and dimension"
        arms[name] = {
            "head": heads[0],
            "dimension": dims[0],
            "upload": runs[0].upload,
            "tests": list(summaries(list(runs), cases)),
        }
    print(f"{cases[0].name}, ε = {epsilon:g} done", file=sys.stderr, flush=True)
    return {"epsilon": epsilon, "rule": rule(cases[0], epsilon), "arms": arms}


def rule(case: Case, epsilon: float) -> float:
    """Return the relative noise that the public rule compares with 0.45."""
    bounds = [case.max_rows] * len(case.clients)
    promised = Promised(Privacy(epsilon), 1, sum(bounds), max(bounds))
    kept = dimension(AFL(head="lda"), case, Privacy(epsilon))
    return promised.relative_noise(kept, len(case.classes))


def federated(arm: str, case: Case, epsilon: float, seed: int) -> tuple[Run, str, int]:
    """Run a federation with noise, as `secure-afl run` would; return its head and dimension."""
    method, privacy = ARMS[arm], Privacy(epsilon)
    reduction = _reduction(arm, case, privacy, seed)
    clients = case.clients
    if reduction is not None:
        clients = [replace(data, features=reduction.apply(data.features)) for data in clients]
    result = Federation(method, Additive(), privacy=privacy).run(
        clients, classes=case.classes, max_rows=case.max_rows
    )
    assert result.report.exact, "the sums are those of one place"
    assert result.report.head is not None, "one was fitted"
    run = Run(
        scores_of(unfold(reduction, result.model), case),
        len(result.rounds),
        result.report.bytes.upload_per_client,
    )
    return run, result.report.head.name, result.report.feature_dim


def scores_of(model: Model, case: Case) -> dict[str, dict[str, Floats]]:
    """Score every test set, under equal priors and under observed ones where the head has any."""
    models = {"": model}
    if model.has_prior and model.observed is not None:
        models = {
            "uniform": model.with_prior(np.ones(len(case.classes))),
            "observed": model.with_prior(model.observed),
        }
    return {
        name: {prior: other.scores(test.features) for prior, other in models.items()}
        for name, test in case.tests.items()
    }


def _reduction(arm: str, case: Case, privacy: Privacy, seed: int) -> Reduction | None:
    width, wanted = _width(case), dimension(ARMS[arm], case, privacy)
    if arm == BEFORE:
        return random_reduction(width, wanted, seed) if wanted < width else None
    return reduction_at_random(width, wanted, seed, centred=True)


def _width(case: Case) -> int:
    return int(case.clients[0].features.shape[1])


if __name__ == "__main__":
    main()
