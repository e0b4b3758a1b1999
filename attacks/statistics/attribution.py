"""Of which client is a row, and do masked uploads look at random?"""

from typing import NamedTuple

import numpy as np

from attacks.attack import ATTACKS, Attack, Known, Measure, Truth
from attacks.measures import metrics
from attacks.statistics.membership import leverage, outside
from attacks.views.knowledge import (
    SubsetSum,
    Target,
    has_statistics,
    masked_uploads,
    statistics_of,
    targets,
    task_of,
)
from attacks.views.run import RunView
from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError

_RIDGE = 1e-3
# Of a row's squared norm: sums that leave no more than this much more of it fit it as well.
_SAME_RESIDUAL = 1e-6
_NOT_UNIFORM = 1e-6


class Owners(NamedTuple):
    """The client that each candidate is claimed to be of.

    It is out of `others`, of `clients` in all.
    """

    names: list[str]
    others: frozenset[str]
    clients: int


@ATTACKS.register
class Attribution(Attack[Owners]):
    """Which client a row is of, for an attacker that has the row and wants its owner.

    Of the finest sums that it has it takes the one that the row fits best: with the least of it
    outside the row space (`membership.outside`), and of several such with the least leverage, as
    compared with other rows'. Uploads on which masks should be, but whose bytes are not uniform
    (p < 10⁻⁶), it reads as if they were vectors. Within a sum it guesses.
    """

    name = "attribution"
    wants = "anything that a party of the run saw"
    assumes = ("rows that are in the sum (the candidates), already recovered",)

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Owners | None:
        """Name an owner for each candidate, out of the clients outside the coalition.

        Return None for an outsider, and where the coalition has every client.

        Raises:
            ConfigError: `Known.candidates` is missing.
        """
        if not view.publics:
            return None
        if known.candidates is None:
            raise ConfigError("attribution needs Known.candidates, which are missing")
        clients = view.rounds[0].session.clients
        others = frozenset(clients) - set(view.coalition)
        if not others:
            return None
        seen = _unmasked(view)
        single = frozenset().union(*(target.clients for target in seen))
        found = seen + [target for target in targets(view) if target.clients.isdisjoint(single)]
        within = _within(found, known.candidates) if found else [others] * len(known.candidates)
        names = [sorted(allowed)[rng.integers(len(allowed))] for allowed in within]
        return Owners(names, others, len(clients))

    def judge(self, claim: Owners | None, truth: Truth, confidence: float = 0.95) -> list[Measure]:
        """Share of the candidates in the sum whose owner is right.

        Chance is one of the clients that are not of the coalition; where one client is left, one
        of all, for then its rows are given away with certainty.
        """
        if claim is None:
            chance = 1 / max(len(truth.clients), 1)
            return [metrics.share(0, 0, chance, 1.0, confidence, metrics.ATTRIBUTION)]
        claims = {
            row: name
            for row, name in enumerate(claim.names)
            if row < len(truth.owners) and truth.owners[row] in claim.others
        }
        guesses = len(claim.others) if len(claim.others) > 1 else claim.clients
        return [metrics.attribution(claims, truth.owners, guesses, confidence)]


@ATTACKS.register
class Uniformity(Attack[list[float]]):
    """Test of whether the masked uploads that the coalition saw are told from random bytes.

    Pearson's χ² test of the values of the bytes of what is left of every upload once all masks
    are off that the coalition can take off (`knowledge.masked_uploads`), at the level of 1 %.
    Uploads too short for a test of their own are tested together.
    """

    name = "uniformity"
    wants = "clients' uploads, masked or not"

    LEVEL = 0.01

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> list[float] | None:
        """Test the bytes of each upload for uniformity: a list of p-values in 0..1.

        Where any upload is shorter than 1280 bytes, all are joined and tested once. Return None
        where there are too few bytes for one test.
        """
        uploads = [
            data for round in range(len(view.rounds)) for _, data in masked_uploads(view, round)
        ]
        if any(len(data) < metrics.FEWEST_BYTES for data in uploads):
            uploads = [b"".join(uploads)]
        values = [metrics.uniformity(data) for data in uploads if len(data) >= metrics.FEWEST_BYTES]
        return values or None

    def judge(
        self, claim: list[float] | None, truth: Truth, confidence: float = 0.95
    ) -> list[Measure]:
        """Share of the uploads for which the test fails; chance is its level."""
        values = claim or []
        failed = sum(value < self.LEVEL for value in values)
        metric = "uploads told from random bytes"
        return [
            metrics.share(failed, len(values), self.LEVEL, confidence=confidence, metric=metric)
        ]


def _unmasked(view: RunView) -> list[Target]:
    """Return uploads as long as a vector that are not uniform.

    They are taken as their clients' statistics.
    """
    layout = view.rounds[0].session.layout
    if not has_statistics(view):
        return []
    unused = 64 - layout.ring_bits
    found = []
    for name, data in masked_uploads(view):
        testable = len(data) == layout.packed_bytes >= metrics.FEWEST_BYTES
        if testable and metrics.uniformity(data) < _NOT_UNIFORM:
            # Residues next to 0 on either side: one client's entries are small beside the ring.
            words = layout.unpack(data).astype(np.uint64) << np.uint64(unused)
            read = SubsetSum(frozenset({name}), words.view(np.int64) >> np.int64(unused))
            found.append(Target(read.clients, statistics_of(view, read), task_of(view).quantiser))
    return found


def _within(found: list[Target], candidates: Floats) -> list[frozenset[str]]:
    """Return the clients of the sum that each candidate fits best."""
    if len(found) == 1:
        return [found[0].clients] * len(candidates)
    residual = np.array([outside(target, candidates) for target in found])
    rows = found[0].quantiser.integers(candidates)
    fit = np.array([-np.log(leverage(_gram(target), rows, _RIDGE)) for target in found])
    # Large sums leave every row less leverage than small ones.
    fit -= fit.mean(axis=1, keepdims=True)
    fit /= np.maximum(fit.std(axis=1, keepdims=True), 1e-12)
    # A row outside the row space of a sum is not in it, whatever its leverage.
    possible = residual <= residual.min(axis=0) + _SAME_RESIDUAL
    return [found[place].clients for place in np.where(possible, fit, -np.inf).argmax(axis=0)]


def _gram(target: Target) -> Floats:
    return target.statistics.gram.astype(np.float64)
