"""Rows out of sums: what Gram matrix and cross term say about single examples.

The recoveries are functions of statistics alone; the attacks apply them to every set of clients
whose statistics a coalition has. Coalitions and protocols share sums, of which each attack makes a
recovery once in a process.
"""

import hashlib
from abc import abstractmethod
from functools import lru_cache
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from attacks.attack import ATTACKS, Attack, Known, Measure, Truth
from attacks.measures.metrics import centred_cosine, match_rows, mean_of, share
from attacks.statistics.lattice import factor_gram
from attacks.views.knowledge import targets
from attacks.views.run import RunView
from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.statistics import Statistics, one_hot

# More rows than these are not told apart by non-negativity in any reasonable time.
MAX_NON_NEGATIVE_ROWS = 320
# Whoever sees every client's statistics could go on with the others, for some seconds each.
MOST_SUMS = 3
# Multiplications in one recovery, about ten seconds on one core.
_BUDGET = 4e10
# Recoveries that are kept for who asks next, of at most 3 MB each.
_KEPT = 16
_STARTS, _ITERATIONS, _CHECK_EVERY = 5, 2000, 50
# Of the largest eigenvalue: what is below is the rounding of a smaller rank.
_RANK_TOLERANCE = 1e-10


class Recovered(NamedTuple):
    """Rows (n, d) in integer units, and their labels (n,), in no particular order."""

    rows: Floats
    labels: Integers


class Recovery(NamedTuple):
    """Rows claimed to be of these clients; their order within a class is not known.

    `quantiser` is how rows became integers, for the judge.
    """

    clients: frozenset[str]
    recovered: Recovered
    quantiser: Quantiser


def small_classes(statistics: Statistics) -> Recovered | None:
    """Return the rows of classes with one example, or of one with two.

    The rows of a class with two are found if all others have one.

    Q_c = Σ_{y=c} f is the row itself where class c has one. Without these rows, of two rows g, h
    the Gram matrix is ggᵀ + hhᵀ and the cross term q = g + h, so that
    2(ggᵀ + hhᵀ) − qqᵀ = (g − h)(g − h)ᵀ: all rows are known when there is one more than classes.
    """
    counts = statistics.counts
    single = np.flatnonzero(counts == 1)
    rows = [statistics.cross[:, label] for label in single]
    labels = single.tolist()
    if counts.min() >= 0 and counts.sum() == np.count_nonzero(counts) + 1:
        (double,) = np.flatnonzero(counts == 2)
        both = statistics.cross[:, double]
        rest = statistics.gram - sum((np.outer(row, row) for row in rows), 0)
        square = 2 * rest - np.outer(both, both)
        at = int(square.diagonal().argmax())
        root = max(round(float(np.sqrt(max(square[at, at], 0)))), 1)
        difference = square[at] // root
        rows += [(both + difference) // 2, (both - difference) // 2]
        labels += [int(double)] * 2
    if not rows:
        return None
    return Recovered(np.array(rows, dtype=np.float64), np.array(labels, dtype=np.int64))


def non_negative_rows(statistics: Statistics, rng: np.random.Generator) -> Recovered | None:
    """Recover all n ≤ d rows of non-negative features, by their labels and their signs.

    G = VΛVᵀ leaves F = O·Λ^½Vᵀ with an orthogonal O. Labels are known up to an order within each
    class, so that FᵀY = Q fixes O on the span of Y; what remains is a rotation R of n − C
    dimensions. Of all R it wants one for which no feature is negative: alternating projections
    onto the non-negative matrices and, by Procrustes' solution, onto those with this G and Q; with
    new beginnings, until the integers next to a solution have G exactly or there were enough.

    None where the rows are dependent, more than `MAX_NON_NEGATIVE_ROWS`, or not counted.
    """
    counts = np.maximum(statistics.counts, 0)
    total, dim = int(counts.sum()), len(statistics.gram)
    if not 1 <= total <= min(dim, MAX_NON_NEGATIVE_ROWS):
        return None
    gram = statistics.gram.astype(np.float64)
    eigenvalues, vectors = np.linalg.eigh(gram)
    top, axes = eigenvalues[-total:], vectors[:, -total:]
    if top[0] <= _RANK_TOLERANCE * top[-1]:
        return None
    labels = np.repeat(np.arange(len(counts)), counts)
    present = np.flatnonzero(counts)
    lengths = np.sqrt(counts[present])
    # Orthonormal bases: of the span of Y where O is known, and of its complement where it is not.
    from_labels = one_hot(labels, len(counts))[:, present] / lengths
    from_cross = (axes.T @ statistics.cross[:, present]) / np.sqrt(top)[:, None] / lengths
    root = np.sqrt(top)[:, None] * axes.T
    fixed = from_labels @ (from_cross.T @ root)
    left, right = _complement(from_labels, rng), _complement(from_cross, rng)
    free = right.T @ root
    if len(free) == 0:
        return Recovered(fixed, labels)

    def nearest(rows: Floats) -> Floats:
        u, _, v = np.linalg.svd(left.T @ (rows - fixed) @ free.T)
        turned: Floats = fixed + left @ ((u @ v) @ free)
        return turned

    best, least = fixed, np.inf
    remaining = min(_STARTS * _ITERATIONS, int(_BUDGET / (total * total * dim)))
    while remaining > 0:
        rows = nearest(fixed + left @ rng.standard_normal((left.shape[1], dim)) * gram.max() ** 0.5)
        for iteration in range(min(remaining, _ITERATIONS)):
            rows = nearest(np.maximum(rows, 0.0))
            if iteration % _CHECK_EVERY == 0 and _is_exact(rows, statistics):
                return Recovered(np.rint(rows), labels)
        remaining -= _ITERATIONS
        violation = float(np.linalg.norm(np.minimum(rows, 0.0)))
        if violation < least:
            best, least = rows, violation
    return Recovered(best, labels)


def lattice_rows(statistics: Statistics, rng: np.random.Generator) -> Recovered | None:
    """Recover all n < d rows, exactly, because they are integers: see `lattice.factor_gram`.

    Of F so found, up to signs, (FFᵀ)⁻¹FQ is Y up to the same signs, which are thereby known; where
    a row occurs several times it counts how often with each label.

    None where different rows are dependent, too many for a reduction, or nothing came of it.

    Raises:
        ConfigError: fpylll is not installed.
    """
    factor = factor_gram(statistics.gram, rng)
    if factor is None:
        return None
    inner = (factor.rows @ factor.rows.T).astype(np.float64)
    signed = np.rint(np.linalg.solve(inner, factor.rows @ statistics.cross)).astype(np.int64)
    rows = factor.rows * np.where(signed.sum(axis=1) < 0, -1, 1)[:, None]
    # Each row as often as it has each label.
    row, label = (np.repeat(places, np.abs(signed).ravel()) for places in _places(signed.shape))
    return Recovered(rows[row].astype(np.float64), label)


class RowAttack(Attack[list[Recovery]]):
    """Base of the attacks that recover rows from each set of clients' statistics.

    Attributes:
        most_sums: how many sums are attacked, the first by name; None for all.
    """

    wants = "a sum of statistics"
    most_sums: ClassVar[int | None] = None

    @abstractmethod
    def recover(self, statistics: Statistics, rng: np.random.Generator) -> Recovered | None:
        """Recover rows and labels, or None."""

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> list[Recovery] | None:
        """Recover rows from each of the first `most_sums` sums that the coalition has.

        A sum that yields nothing gives a Recovery of no rows, (0, d). Return None where there is no
        sum. A recovery's draws follow from attack and sum alone, so that it does not matter who
        asks first; `rng` goes unused.
        """
        found = targets(view)[: self.most_sums]
        if not found:
            return None
        nothing = np.empty((0, len(found[0].statistics.gram)))
        empty = Recovered(nothing, np.empty(0, dtype=np.int64))
        return [
            Recovery(
                target.clients,
                _recovered(type(self), _Sum(target.statistics)) or empty,
                target.quantiser,
            )
            for target in found
        ]

    def judge(
        self, claim: list[Recovery] | None, truth: Truth, confidence: float = 0.95
    ) -> list[Measure]:
        """Return the share of rows that are exactly right, and their mean centred cosine.

        The share is of all rows in the sums.

        Recovered rows are compared with true ones of the same label, in the order that fits best.
        A row that was not recovered counts as cosine 0.
        """
        exact: list[bool] = []
        cosines: list[float] = []
        for clients, recovered, quantiser in claim or []:
            rows, labels = true_rows(truth, clients, quantiser)
            right, near = compare(recovered, rows, labels)
            exact += right.tolist()
            cosines += near.tolist()
        return [
            share(sum(exact), len(exact), 0.0, confidence=confidence, metric="exact rows"),
            mean_of(
                cosines, 0.0, confidence=confidence, metric="centred cosine", bounds=(-1.0, 1.0)
            ),
        ]


class _Sum:
    """Statistics by their content: two with equal numbers are one."""

    def __init__(self, statistics: Statistics) -> None:
        self.statistics = statistics
        parts = (statistics.gram, statistics.cross, statistics.counts)
        hashed = hashlib.sha256(repr([part.shape for part in parts]).encode())
        for part in parts:
            hashed.update(part.astype("<i8").tobytes())
        self.digest = hashed.digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Sum) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


@lru_cache(maxsize=_KEPT)
def _recovered(attack: type[RowAttack], sum_: _Sum) -> Recovered | None:
    """Make an attack's recovery of a sum; its generator is seeded by both."""
    seed = hashlib.sha256(attack.name.encode() + b"\0" + sum_.digest).digest()
    return attack().recover(sum_.statistics, np.random.default_rng(list(seed)))


@ATTACKS.register
class SingleRows(RowAttack):
    """Rows of classes with one example, read off the cross term: `small_classes`."""

    name = "single-rows"

    def recover(self, statistics: Statistics, rng: np.random.Generator) -> Recovered | None:
        """Read the rows off Q, exactly; return None where `small_classes` finds none."""
        return small_classes(statistics)

    def judge(
        self, claim: list[Recovery] | None, truth: Truth, confidence: float = 0.95
    ) -> list[Measure]:
        """Measure also how many of the classes with one example are exactly right."""
        right = trials = 0
        for clients, recovered, quantiser in claim or []:
            rows, labels = true_rows(truth, clients, quantiser)
            for label in np.flatnonzero(np.bincount(labels) == 1):
                trials += 1
                claimed = recovered.rows[recovered.labels == label]
                right += len(claimed) == 1 and np.array_equal(claimed[0], rows[labels == label][0])
        alone = share(
            right, trials, 0.0, confidence=confidence, metric="exact rows of single-row classes"
        )
        return [*super().judge(claim, truth, confidence), alone]


@ATTACKS.register
class NonNegativeRows(RowAttack):
    """All rows of a small sum, by labels and non-negativity: `non_negative_rows`.

    Works on what any backbone gives that ends in a rectifier, up to about 80 rows, all different.
    """

    name = "rows-non-negative"
    most_sums = MOST_SUMS
    assumes = ("features are non-negative, as after a rectifier",)

    def recover(self, statistics: Statistics, rng: np.random.Generator) -> Recovered | None:
        """Search for the rotation that leaves no feature negative.

        Rows are (n, d), integers where the solution is exact. Return None where rows are dependent,
        more than `MAX_NON_NEGATIVE_ROWS`, or not counted.
        """
        return non_negative_rows(statistics, rng)


@ATTACKS.register
class LatticeRows(RowAttack):
    """All rows of a small sum, exactly, because they are integers: `lattice_rows`."""

    name = "rows-lattice"
    most_sums = MOST_SUMS

    def recover(self, statistics: Statistics, rng: np.random.Generator) -> Recovered | None:
        """Factor the Gram matrix over the integers into rows (n, d) and their labels.

        Return None where different rows are dependent, too many for a reduction, or nothing came of
        it.

        Raises:
            ConfigError: fpylll is not installed.
        """
        return lattice_rows(statistics, rng)


def true_rows(
    truth: Truth, clients: frozenset[str], quantiser: Quantiser
) -> tuple[Floats, Integers]:
    """Return the integer rows of these clients, and their labels."""
    data = [truth.clients[name] for name in sorted(clients)]
    rows = [quantiser.integers(client.features) for client in data]
    return np.concatenate(rows), np.concatenate([client.labels for client in data])


def compare(
    recovered: Recovered, rows: Floats, labels: Integers
) -> tuple[NDArray[np.bool_], Floats]:
    """Say of each true row (n,) whether it was recovered exactly, and its cosine.

    The cosine is the centred one of its match. A true row without a match counts as not recovered,
    with cosine 0.
    """
    exact = np.zeros(len(rows), dtype=np.bool_)
    placed = np.tile(rows.mean(axis=0), (len(rows), 1))
    for label in np.intersect1d(labels, recovered.labels):
        ours, theirs = np.flatnonzero(labels == label), recovered.rows[recovered.labels == label]
        which, where = match_rows(theirs, rows[ours])
        placed[ours[where]] = theirs[which]
        exact[ours[where]] = (np.rint(theirs[which]) == rows[ours[where]]).all(axis=1)
    return exact, centred_cosine(placed, rows)


def _complement(basis: Floats, rng: np.random.Generator) -> Floats:
    """Return an orthonormal basis of the complement of (n, C) orthonormal columns.

    The basis is (n, n − C).
    """
    rows, columns = basis.shape
    filled = np.hstack([basis, rng.standard_normal((rows, rows - columns))])
    return np.linalg.qr(filled)[0][:, columns:]


def _places(shape: tuple[int, ...]) -> tuple[Integers, Integers]:
    """Return row and column of every entry of a matrix, flat."""
    rows, columns = np.indices(shape, dtype=np.int64)
    return rows.ravel(), columns.ravel()


def _is_exact(rows: Floats, statistics: Statistics) -> bool:
    """Say whether the nearest integers have this Gram matrix, and so are the rows."""
    rounded = np.rint(rows)
    if not np.array_equal((rounded**2).sum(axis=0), statistics.gram.diagonal()):
        return False
    return np.array_equal(rounded.T @ rounded, statistics.gram)
