"""The guard of the step on many rows: 57,000 at ε = 8, with it and without.

    python -m benchmarks.private_guard

Rows are scikit-learn's digits, a random projection to 512, repeated with Gaussian noise of half a
feature's deviation; a fifth of the digits, never repeated, is scored on.
"""

from statistics import mean

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from benchmarks import splits
from benchmarks.record import write
from benchmarks.splits import CLIENTS
from protocols import Additive
from secure_afl.analytic.rows import ClientData
from secure_afl.federation.simulation import Federation
from secure_afl.methods import PrivateGradient
from secure_afl.privacy import schedule
from secure_afl.privacy.mechanism import Privacy

ROWS, EPSILON, SEEDS, BOUND = 57_000, 8.0, 3, 8192


def main() -> None:
    """Measure both, and write `results/private_guard.json`."""
    digits = splits.digits()
    order = np.random.default_rng(0).permutation(len(digits.labels))
    cut = len(order) // 5
    held, kept = order[:cut], order[cut:]
    test = ClientData("test", digits.features[held], digits.labels[held])
    figures: dict[str, list[float]] = {"with the guard": [], "without": []}
    with threadpool_limits(1):
        for seed in range(SEEDS):
            rng = np.random.default_rng(seed)
            drawn = rng.choice(kept, ROWS)
            spread = 0.5 * digits.features.std(axis=0)
            rows = digits.features[drawn] + spread * rng.standard_normal((ROWS, len(spread)))
            clients = [
                ClientData(f"c{i}", rows[i::CLIENTS], digits.labels[drawn[i::CLIENTS]])
                for i in range(CLIENTS)
            ]
            for name, found in figures.items():
                with pytest.MonkeyPatch.context() as patch:
                    if name == "without":
                        patch.setattr(schedule, "_GREATEST_RATE", np.inf)
                    result = Federation(
                        PrivateGradient(seed=seed), Additive(), privacy=Privacy(EPSILON)
                    ).run(clients, classes=tuple("0123456789"), max_rows=BOUND)
                assert result.report.exact, "the sums are those of one place"
                found.append(100 * result.model.accuracy(test.features, test.labels))
    write(
        "private_guard",
        {
            "rows": ROWS,
            "epsilon": EPSILON,
            "sums": len(result.rounds),
            "accuracy": {
                name: {"mean": mean(found), "each": found} for name, found in figures.items()
            },
        },
    )


if __name__ == "__main__":
    main()
