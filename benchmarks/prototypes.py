"""FedHPro beside FedAvg, FedProx, class-mean prototypes and one sum of LDA, on frozen features.

    SECURE_AFL_DATA=… python -m benchmarks.prototypes

A network of one hidden layer, ten clients, 25 rounds under `additive`. Each method's learning rate
is picked by accuracy on a fifth of the training rows, with the first seed; a seed is another deal
of the rows and other first parameters. Test rows are in no choice. Accuracy is balanced over
classes.
"""

import json
from collections.abc import Iterator
from statistics import mean
from typing import Any

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks import splits
from benchmarks.record import POINTS, write
from benchmarks.splits import CLIENTS, Rows
from protocols import Additive
from protocols.layout import Integers
from secure_afl.analytic.rows import ClientData
from secure_afl.data.partition import Dirichlet
from secure_afl.federation.simulation import Federation
from secure_afl.intervals import student_reach
from secure_afl.methods import AFL, FedAvg, FedHPro, FedProto, Mlp
from secure_afl.methods.model import Model

SEEDS, ROUNDS, RATES = (0, 1, 2), 25, (0.1, 0.3, 1.0)
SHARED: dict[str, Any] = {"rounds": ROUNDS, "architecture": Mlp(), "update_clip": 10.0}
METHODS: dict[str, FedAvg] = {
    "FedAvg": FedAvg(**SHARED),
    "FedProx": FedAvg(**SHARED, proximal=0.01),
    "class means": FedProto(**SHARED),
    "FedHPro": FedHPro(**SHARED),
}
ONE_SUM = "LDA, one sum"


def main() -> None:
    """Measure every set and write `results/prototypes.json`."""
    signs, signs_test = splits.signs()
    digits, digits_test = cut(splits.digits(), 0.2, np.random.default_rng(0))
    sets = {
        "digits, Dirichlet 0.1": (digits, digits_test, False),
        "digits, long tail": (digits, digits_test, True),
        "signs, Dirichlet 0.1": (signs, signs_test, False),
        "signs, long tail": (signs, signs_test, True),
    }
    POINTS.mkdir(exist_ok=True)
    figures = {}
    with threadpool_limits(1):
        for name, (train, test, tailed) in sets.items():
            # A set that is measured is not measured again.
            file = POINTS / f"prototypes {name}.json"
            if not file.exists():
                file.write_text(json.dumps(measured(train, test, tailed)), encoding="utf-8")
            figures[name] = json.loads(file.read_text(encoding="utf-8"))
    write(
        "prototypes", {"seeds": len(SEEDS), "rounds": ROUNDS, "clients": CLIENTS, "sets": figures}
    )


def measured(train: Rows, test: Rows, tailed: bool) -> dict[str, Any]:
    """Balanced accuracy of every method, in per cent."""
    found: dict[str, list[float]] = {name: [] for name in (*METHODS, ONE_SUM)}
    rates: dict[str, float] = {}
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        rows = long_tailed(train, rng) if tailed else train
        if not rates:
            rest, held = cut(rows, 0.2, rng)
            tuning = dealt(rest, rng)
            for name, method in METHODS.items():
                scores = [scored(learn(method, tuning, rate, seed), held) for rate in RATES]
                rates[name] = RATES[int(np.argmax(scores))]
        clients = dealt(rows, rng)
        for name, method in METHODS.items():
            found[name].append(scored(learn(method, clients, rates[name], seed), test))
        one = Federation(AFL(), Additive()).run(clients, classes=names_of(train))
        found[ONE_SUM].append(scored(one.model, test))
    return {
        name: {
            "accuracy": mean(values),
            "reach": student_reach(values),
            "learning_rate": rates.get(name),
        }
        for name, values in found.items()
    }


def learn(method: FedAvg, clients: list[ClientData], rate: float, seed: int) -> Model:
    """Run a federation; return the model."""
    set_to = msgspec.structs.replace(method, learning_rate=rate, seed=seed)
    classes = int(max(data.labels.max() for data in clients)) + 1
    result = Federation(set_to, Additive()).run(
        clients, classes=tuple(str(c) for c in range(classes))
    )
    assert result.report.exact, "the sums are those of one place"
    return result.model


def scored(model: Model, rows: Rows) -> float:
    """Mean over classes of the share of right predictions, in per cent."""
    right = model.predict(rows.features) == rows.labels
    shares = [right[rows.labels == c].mean() for c in np.unique(rows.labels)]
    return 100 * float(np.mean(shares))


def cut(rows: Rows, share: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Rows without a share, and that share."""
    order = rng.permutation(len(rows.labels))
    size = round(share * len(order))
    return of(rows, order[size:]), of(rows, order[:size])


def long_tailed(rows: Rows, rng: np.random.Generator) -> Rows:
    """Classes whose rows fall from all to a fiftieth."""
    ranks = rng.permutation(rows.classes)
    shares = 50.0 ** (-ranks / (rows.classes - 1))
    least = np.bincount(rows.labels).min()
    kept = [
        rng.permutation(np.flatnonzero(rows.labels == c))[: max(2, round(least * shares[c]))]
        for c in range(rows.classes)
    ]
    return of(rows, np.concatenate(kept))


def dealt(rows: Rows, rng: np.random.Generator) -> list[ClientData]:
    """Ten clients, each class spread by Dirichlet(0.1)."""
    return list(_clients(rows, Dirichlet(CLIENTS, 0.1).assign(rows.labels, rng)))


def _clients(rows: Rows, parts: list[Integers]) -> Iterator[ClientData]:
    for number, part in enumerate(parts):
        yield ClientData(f"c{number}", rows.features[part], rows.labels[part])


def names_of(rows: Rows) -> tuple[str, ...]:
    """Names of all classes, whether or not a long tail has them."""
    return tuple(str(c) for c in range(rows.classes))


def of(rows: Rows, places: Integers) -> Rows:
    """Some of the rows."""
    return Rows(rows.features[places], rows.labels[places], rows.sites[places])


if __name__ == "__main__":
    main()
