"""Whether models of each head can be inverted: a class's only row, looked for in (W, b).

    python -m benchmarks.heads_inversion

A third of a data set's rows are members, a third are not, and a third are public; one class keeps
one member. The row's cosine, less the mean of all, with its class's weights, less the mean of
those, is what somebody sees of it who knows nothing else. Inversion undoes the head with the public
rows: the scatter within classes is about theirs, and times the weights it is about the class's
mean, which is the row. Beside it stands the same cosine of rows of the class that are in no sum.
"""

from statistics import mean
from typing import Any

import numpy as np

from benchmarks import splits
from benchmarks.heads_leakage import HEADS, REPEATS
from benchmarks.record import write
from benchmarks.splits import Rows
from protocols import Additive
from secure_afl.analytic.moments import Moments
from secure_afl.analytic.quantise import MAX_BITS, Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.federation.simulation import Federation
from secure_afl.intervals import student_reach
from secure_afl.methods import AFL
from secure_afl.methods.model import LinearModel


def main() -> None:
    """Invert every head on every data set and write `results/heads_inversion.json`."""
    signs, _ = splits.signs()
    train, _, _ = splits.pneumonia()
    sets = {"digits": splits.digits(), "signs": signs, "pneumonia": train}
    figures = {}
    for name, rows in sets.items():
        heads = {head: inverted(rows, method) for head, method in HEADS.items()}
        figures[name] = {"members": len(rows.labels) // 3, "heads": heads}
    write("heads_inversion", {"repeats": REPEATS, "sets": figures})


def inverted(rows: Rows, method: AFL) -> dict[str, Any]:
    """Invert models of a head of several thirds of the rows."""
    found = []
    for seed in range(REPEATS):
        order = np.random.default_rng(seed).permutation(len(rows.labels))
        found.append(single_row(rows, method, *np.array_split(order, 3)))
    seen, rebuilt, strangers = (list(column) for column in zip(*found, strict=True))
    return {
        "seen_cosine": mean(seen),
        "inverted_cosine": mean(rebuilt),
        "inverted_reach": student_reach(rebuilt),
        "strangers_cosine": mean(strangers),
    }


def single_row(
    rows: Rows, method: AFL, members: np.ndarray, others: np.ndarray, public: np.ndarray
) -> tuple[float, float, float]:
    """Look for a class's only row in its weights.

    Returns:
        Its cosine with the class's weights, with what inversion makes of them, and the mean cosine
        with that of the class's rows that are in no sum.
    """
    alone = members[rows.labels[members] == 0][0]
    kept = np.append(members[rows.labels[members] != 0], alone)
    names = [str(c) for c in range(rows.classes)]
    result = Federation(method, Additive()).run(_dealt(rows, kept), classes=names)
    model, head = result.model, result.report.head
    assert isinstance(model, LinearModel)
    assert head is not None
    assert head.value is not None
    scaled = Quantiser(MAX_BITS).scaled
    known, labels = scaled(rows.features[public]), rows.labels[public]
    strange = scaled(rows.features[others[rows.labels[others] == 0]]) - known.mean(axis=0)
    undone = _undone(model.weights, head.name, head.value, known, labels)
    units = scaled(rows.features[kept])
    row, weights = units[-1] - units.mean(axis=0), _first(model.weights)
    found = _first(undone)
    return (
        abs(_cosine(row, weights)),
        _cosine(units[-1] - known.mean(axis=0), found),
        mean(_cosine(stranger, found) for stranger in strange),
    )


def _undone(
    weights: np.ndarray, head: str, value: float, known: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Multiply weights by the scatter within classes that public rows have, raised as theirs.

    For ridge too: its Gram matrix is that scatter and the class means, of which the centred weights
    are mixtures; with the Gram matrix of the public rows the cosines were at most 0.2.
    """
    within = Moments.of_rows(known, labels, weights.shape[1]).within
    unit = 1 / len(known) if head == "ridge" else np.trace(within) / len(within)
    return np.asarray(within @ weights + value * unit * weights)


def _first(columns: np.ndarray) -> np.ndarray:
    """The first class's column, less the mean of all."""
    return np.asarray(columns[:, 0] - columns.mean(axis=1))


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def _dealt(rows: Rows, places: np.ndarray) -> list[ClientData]:
    return [
        ClientData(f"c{i}", rows.features[places[i::4]], rows.labels[places[i::4]])
        for i in range(4)
    ]


if __name__ == "__main__":
    main()
