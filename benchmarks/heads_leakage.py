"""What a model of each head gives away: membership from (W, b), and a class of a single row.

    python -m benchmarks.heads_leakage

A third of a data set's rows are members, a third are not, and a third are public. The attack is
`membership-model` with shadow models of the head under attack. For the single row, one class keeps
one row; the figure is the cosine of the row, less the mean of all, with its class's weights, less
the mean of those: what somebody sees of it who knows nothing else.
"""

import json
from statistics import mean
from typing import Any

import numpy as np

from attacks.attack import Known, Truth
from attacks.statistics.membership import ModelMembership
from attacks.views.run import Record
from benchmarks import splits
from benchmarks.record import POINTS, write
from benchmarks.splits import Rows
from protocols import Additive
from secure_afl.analytic.quantise import MAX_BITS, Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.federation.simulation import Federation
from secure_afl.intervals import student_reach
from secure_afl.methods import AFL
from secure_afl.methods.model import LinearModel

REPEATS = 5
HEADS = {"ridge 0.1": AFL(ridge=0.1), "ridge gcv": AFL(head="ridge"), "lda": AFL()}


def main() -> None:
    """Attack every head on every data set and write `results/heads_leakage.json`."""
    signs, _ = splits.signs()
    train, _, _ = splits.pneumonia()
    sets = {"signs": signs, "digits": splits.digits(), "pneumonia": train}
    POINTS.mkdir(exist_ok=True)
    figures: dict[str, Any] = {}
    for name, rows in sets.items():
        # A set that is measured is not measured again.
        file = POINTS / f"heads_leakage {name}.json"
        if not file.exists():
            heads = {head: attacked(rows, method) for head, method in HEADS.items()}
            found = {"members": len(rows.labels) // 3, "heads": heads}
            file.write_text(json.dumps(found), encoding="utf-8")
        figures[name] = json.loads(file.read_text(encoding="utf-8"))
    write("heads_leakage", {"repeats": REPEATS, "sets": figures})


def attacked(rows: Rows, method: AFL) -> dict[str, Any]:
    """Attack models of a head on several thirds of the rows."""
    aucs, tprs, cosines = [], [], []
    for seed in range(REPEATS):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(rows.labels))
        members, others, public = np.array_split(order, 3)
        measures = membership(rows, method, members, others, public, rng)
        aucs.append(measures["AUC"])
        tprs.append(measures["TPR at 1 % FPR"])
        cosines.append(single_row(rows, method, members))
    return {
        "auc": mean(aucs),
        "auc_reach": student_reach(aucs),
        "tpr_at_1_percent": mean(tprs),
        "single_row_cosine": mean(cosines),
    }


def membership(
    rows: Rows,
    method: AFL,
    members: np.ndarray,
    others: np.ndarray,
    public: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Tell members from others by the model, as an outsider with public rows."""
    federation = Federation(method, Additive())
    names = [str(c) for c in range(rows.classes)]
    clients = _dealt(rows, members)
    record = Record(method, Additive(), federation.run(clients, classes=names, record=True))
    asked = np.concatenate([members, others[: len(members)]])
    known = Known(
        rows.features[asked],
        rows.labels[asked],
        rows.features[public],
        extra={"public_labels": rows.labels[public]},
    )
    inside = np.arange(len(asked)) < len(members)
    truth = Truth({client.name: client for client in clients}, members=inside)
    attack = ModelMembership()
    claim = attack.claim(record.view([]), known, rng)
    return {measure.metric: measure.value for measure in attack.judge(claim, truth)}


def single_row(rows: Rows, method: AFL, members: np.ndarray) -> float:
    """The cosine of a class's only row with the class's weights."""
    alone = members[rows.labels[members] == 0][0]
    kept = np.append(members[rows.labels[members] != 0], alone)
    names = [str(c) for c in range(rows.classes)]
    model = Federation(method, Additive()).run(_dealt(rows, kept), classes=names).model
    assert isinstance(model, LinearModel)
    units = Quantiser(MAX_BITS).scaled(rows.features[kept])
    row = units[-1] - units.mean(axis=0)
    weights = model.weights[:, 0] - model.weights.mean(axis=1)
    return float(abs(row @ weights) / np.linalg.norm(row) / np.linalg.norm(weights))


def _dealt(rows: Rows, places: np.ndarray) -> list[ClientData]:
    return [
        ClientData(f"c{i}", rows.features[places[i::4]], rows.labels[places[i::4]])
        for i in range(4)
    ]


if __name__ == "__main__":
    main()
