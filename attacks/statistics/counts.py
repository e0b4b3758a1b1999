"""How many examples of each class the clients have."""

from dataclasses import dataclass

import numpy as np

from attacks.attack import ATTACKS, Attack, Known, Measure, Truth
from attacks.measures.metrics import share
from attacks.views.knowledge import Target, targets
from attacks.views.run import RunView
from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.statistics import Statistics

# Of the largest eigenvalue: what is below is rounding.
_RANK_TOLERANCE = 1e-10

Counts = list[tuple[frozenset[str], Integers]]


def counts_from_products(statistics: Statistics) -> Floats:
    """Count rows of each class (C,), from the Gram matrix and the cross term alone.

    The regression of a constant 1 on the rows has the weights w = G⁺Q1, and class c then counts
    Q_cᵀw = Σ_{y=c} fᵀw. Exact while the rows are independent; with more rows than dimensions, as
    near as the features come to a constant.
    """
    gram = statistics.gram.astype(np.float64)
    cross = statistics.cross.astype(np.float64)
    eigenvalues, vectors = np.linalg.eigh(gram)
    # A noisy Gram matrix has negative eigenvalues, as large as those that are nothing but noise.
    floor = max(_RANK_TOLERANCE * float(eigenvalues.max()), -float(eigenvalues.min()), 1e-300)
    inverse = np.where(eigenvalues > floor, 1 / np.maximum(eigenvalues, floor), 0.0)
    projected = vectors.T @ cross
    counts: Floats = projected.T @ (inverse * projected.sum(axis=1))
    return counts


@ATTACKS.register
class ClassCounts(Attack[Counts]):
    """Each client's examples of each class.

    A sum of statistics has the classes' counts as a block of their own; where it has none, as
    under differential privacy, they follow from Q and G: `counts_from_products`. Of a sum over
    several clients the attacker guesses that each has an equal part.
    """

    name = "class-counts"
    wants = "a sum of statistics"

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Counts | None:
        """Read or estimate the counts (C,) int64 of each of the finest sums.

        Return None where the coalition has no statistics.
        """
        found = targets(view)
        return [(target.clients, _counts(target)) for target in found] or None

    def judge(self, claim: Counts | None, truth: Truth, confidence: float = 0.95) -> list[Measure]:
        """Measure the share of classes counted exactly, over all sums and their clients.

        Chance is what a guess of as many rows in every class as in every other would get.
        """
        classes = 1 + max(int(data.labels.max()) for data in truth.clients.values())
        nothing = np.zeros(classes, dtype=np.int64)
        of_sums, of_clients = _Tally(), _Tally()
        for clients, counts in claim or [(frozenset({name}), nothing) for name in truth.clients]:
            true = [_true_counts(truth, name, len(counts)) for name in clients]
            of_sums.add(counts, np.sum(true, axis=0))
            for each in true:
                of_clients.add(np.rint(counts / len(clients)), each)
        tallies = {"exact counts of a sum": of_sums, "exact counts of a client": of_clients}
        return [
            share(
                tally.right if claim else 0,
                tally.trials if claim else 0,
                tally.guessed / tally.trials,
                confidence=confidence,
                metric=metric,
            )
            for metric, tally in tallies.items()
        ]


@dataclass
class _Tally:
    """Classes counted, those right, and those that a guess would have had right."""

    trials: int = 0
    right: int = 0
    guessed: int = 0

    def add(self, claimed: Floats | Integers, true: Integers) -> None:
        self.trials += len(true)
        self.right += int((claimed == true).sum())
        self.guessed += int((np.rint(true.mean()) == true).sum())


def _counts(target: Target) -> Integers:
    if target.statistics.counts.any():
        return target.statistics.counts
    return np.rint(counts_from_products(target.statistics)).astype(np.int64)


def _true_counts(truth: Truth, name: str, classes: int) -> Integers:
    return np.bincount(truth.clients[name].labels, minlength=classes).astype(np.int64)
