"""Models of clients' own, in every way, beside the global model and each client alone.

    python -m benchmarks.personal

Every client keeps three tenths of its rows out; `auto` chooses on one half of these, and all ways
are reported on the other. Means over clients, then over five deals; nothing is chosen on the
reported rows.
"""

import json
from collections.abc import Iterator
from statistics import mean
from typing import Any

import numpy as np

from benchmarks import splits
from benchmarks.record import POINTS, write
from benchmarks.splits import Rows
from protocols import Additive
from secure_afl.analytic.heads.ridge import Ridge
from secure_afl.analytic.moments import Moments
from secure_afl.analytic.quantise import MAX_BITS, Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.federation.simulation import Federation
from secure_afl.intervals import student_reach
from secure_afl.methods import AFL, AnyMethod, FedHiP
from secure_afl.methods.model import LinearModel
from secure_afl.methods.personal.personal import halves

DEALS, CLIENTS, KEPT = 5, 10, 0.3
UNIT = Quantiser(MAX_BITS)
WAYS: dict[str, AnyMethod] = {
    "prior": AFL(personal="prior"),
    "auto": AFL(personal="auto"),
    "proximal": AFL(personal="proximal"),
    "joint": FedHiP(),
    "ridge, prior": AFL(head="ridge", personal="prior"),
}


def main() -> None:
    """Measure all deals and write `results/personal.json`."""
    signs, _ = splits.signs()
    train, val, _ = splits.pneumonia()
    digits = splits.digits()
    sets = {
        "digits, Dirichlet 0.1": (digits, 0.1),
        "digits, Dirichlet 0.5": (digits, 0.5),
        "pneumonia, Dirichlet 0.1": (splits.joined(train, val), 0.1),
        "pneumonia, Dirichlet 0.5": (splits.joined(train, val), 0.5),
        "signs, 16 sites": (signs, None),
    }
    POINTS.mkdir(exist_ok=True)
    figures = {}
    for name, (rows, alpha) in sets.items():
        # A set that is measured is not measured again.
        file = POINTS / f"personal {name}.json"
        if not file.exists():
            runs = [measured(clients) for clients in dealt(rows, alpha)]
            file.write_text(json.dumps(summary(runs)), encoding="utf-8")
        figures[name] = json.loads(file.read_text(encoding="utf-8"))
    write("personal", {"deals": DEALS, "kept_out": KEPT, "sets": figures})


def dealt(rows: Rows, alpha: float | None) -> Iterator[list[tuple[ClientData, ClientData]]]:
    """Clients by Dirichlet shares of every class, or by site, with rows in the sum and kept out."""
    for seed in range(DEALS):
        rng = np.random.default_rng(seed)
        if alpha is None:
            owner = rows.sites
        else:
            owner = np.empty(len(rows.labels), dtype=np.int64)
            for c in range(rows.classes):
                places = rng.permutation(np.flatnonzero(rows.labels == c))
                shares = rng.dirichlet([alpha] * CLIENTS)
                cuts = np.round(np.cumsum(shares)[:-1] * len(places)).astype(int)
                for client, part in enumerate(np.split(places, cuts)):
                    owner[part] = client
        clients = []
        for client in np.unique(owner):
            places = rng.permutation(np.flatnonzero(owner == client))
            cut = round(KEPT * len(places))
            if cut >= 2:
                parts = [
                    ClientData(f"c{client:02d}", rows.features[part], rows.labels[part])
                    for part in (places[cut:], places[:cut])
                ]
                clients.append((parts[0], parts[1]))
        yield clients


def measured(clients: list[tuple[ClientData, ClientData]]) -> dict[str, list[float]]:
    """Accuracy of every way at every client, on the reported half of its kept-out rows."""
    train = [own for own, _ in clients]
    names = tuple(str(c) for c in range(int(max(d.labels.max() for d in train)) + 1))
    found: dict[str, list[float]] = {}
    for way, method in WAYS.items():
        result = Federation(method, Additive()).run(
            train, classes=names, holdout=[kept for _, kept in clients]
        )
        assert result.report.exact, "the sum is that of the pooled rows"
        reported = [halves(kept)[1] for _, kept in clients]
        found[way] = [
            result.personal[rows.name].accuracy(rows.features, rows.labels) for rows in reported
        ]
        if way == "prior":
            found["global"] = [
                result.model.accuracy(rows.features, rows.labels) for rows in reported
            ]
    alone = {own.name: model_of(own, names) for own in train}
    found["each alone"] = [
        alone[rows.name].accuracy(rows.features, rows.labels) for rows in reported
    ]
    return found


def model_of(own: ClientData, names: tuple[str, ...]) -> LinearModel:
    """Ridge on a client's own rows, λ = 0.1."""
    moments = Moments.of_rows(UNIT.scaled(own.features), own.labels, len(names))
    return LinearModel.fitted(Ridge(ridge=0.1).fit(moments, names).fitted, names, UNIT)


def summary(runs: list[dict[str, list[float]]]) -> dict[str, Any]:
    """Mean accuracy of each way, and its difference to the global model over deals."""
    table = {}
    for way in runs[0]:
        means = [100 * mean(run[way]) for run in runs]
        gains = [m - 100 * mean(run["global"]) for m, run in zip(means, runs, strict=True)]
        hurt = [sum(a < b for a, b in zip(run[way], run["global"], strict=True)) for run in runs]
        table[way] = {
            "accuracy": mean(means),
            "gain": mean(gains),
            "reach": student_reach(gains),
            "clients_hurt": mean(hurt),
            "clients": mean(len(run[way]) for run in runs),
        }
    return table


if __name__ == "__main__":
    main()
