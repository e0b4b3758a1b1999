"""Small federations on record, for attacks to look at."""

from collections.abc import Sequence

import numpy as np

from attacks.attack import Known, Measure, Truth
from attacks.views.run import Record
from protocols.layout import Integers
from protocols.protocol import Protocol
from protocols.schemes.additive.protocol import Additive
from protocols.schemes.encrypted.protocol import Ckks
from protocols.schemes.pairwise.protocol import Pairwise
from protocols.schemes.plain import Plain
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.statistics import Statistics
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL, AnyMethod

PLAIN, ADDITIVE, CKKS = Plain(), Additive(3), Ckks()
# Terms that as few as four clients can have.
PAIRWISE = Pairwise(corrupt_fraction=0.0, dropout_fraction=0.0, server_trust="lying")
DROPPING = Pairwise(corrupt_fraction=0.25, dropout_fraction=0.25, server_trust="curious")


def relu_rows(rows: int, dim: int, seed: int, classes: int = 3) -> tuple[Floats, Integers]:
    """Rows like a backbone's: non-negative, many of them zero, around one centre a class."""
    rng = np.random.default_rng(seed)
    centres = 0.3 * np.random.default_rng(9).standard_normal((classes, dim))
    labels = rng.integers(0, classes, rows)
    return np.maximum(centres[labels] + rng.standard_normal((rows, dim)), 0.0), labels


def relu_clients(
    sizes: Sequence[int], dim: int, classes: int = 3, seed: int = 0
) -> list[ClientData]:
    """Clients named c0, c1, …, each with such rows."""
    clients = []
    for index, size in enumerate(sizes):
        features, labels = relu_rows(size, dim, 1000 * seed + index, classes)
        clients.append(ClientData(f"c{index}", features, labels))
    return clients


def record(
    clients: Sequence[ClientData],
    protocol: Protocol = PLAIN,
    method: AnyMethod | None = None,
    *,
    classes: int = 3,
    bits: int = 8,
    max_rows: int | None = None,
    drop: Sequence[str] = (),
    min_cohort: int | None = None,
) -> Record:
    """A recorded run of these clients; of a ridge whose λ is known, unless a method is given."""
    method = AFL(ridge=0.1) if method is None else method
    federation = Federation(method, protocol, feature_bits=bits, min_cohort=min_cohort)
    names = [str(index) for index in range(classes)]
    result = federation.run(clients, classes=names, max_rows=max_rows, drop=drop, record=True)
    return Record(method, protocol, result)


def truth_of(clients: Sequence[ClientData]) -> Truth:
    """Only who has which rows."""
    return Truth({data.name: data for data in clients})


def vector_of(run: Record, clients: Sequence[ClientData]) -> Integers:
    """The clients' vectors, added in the clear."""
    task = run.result.public.task
    parts = [
        Statistics.of(data.features, data.labels, len(task.classes), task.quantiser).pack()
        for data in clients
    ]
    total: Integers = np.sum(parts, axis=0)
    return total


def membership_game(
    clients: Sequence[ClientData], dim: int, outsiders: int, public: int, classes: int = 3
) -> tuple[Known, Truth]:
    """All clients' rows and as many strangers as asked for, as candidates; public rows besides."""
    strangers, labels = relu_rows(outsiders, dim, 777_001, classes)
    shown, shown_labels = relu_rows(public, dim, 777_002, classes)
    inside = sum(map(len, clients))
    owners = [data.name for data in clients for _ in range(len(data))]
    known = Known(
        candidates=np.concatenate([*(data.features for data in clients), strangers]),
        candidate_labels=np.concatenate([*(data.labels for data in clients), labels]),
        public=shown,
        extra={"public_labels": shown_labels},
    )
    truth = Truth(
        {data.name: data for data in clients},
        np.arange(inside + outsiders) < inside,
        [*owners, *[""] * outsiders],
    )
    return known, truth


def by_metric(measures: Sequence[Measure]) -> dict[str, Measure]:
    """By name."""
    return {measure.metric: measure for measure in measures}
