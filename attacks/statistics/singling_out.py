"""Single clients and rows out of sums: by opening, by subtracting, by taking differences."""

from typing import NamedTuple

import numpy as np

from attacks.attack import ATTACKS, Attack, Known, Measure, Truth
from attacks.measures.metrics import share
from attacks.statistics.rows import small_classes, true_rows
from attacks.views.knowledge import Target, targets
from attacks.views.run import RunView
from protocols.roster import CLIENT
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.statistics import Statistics
from secure_afl.errors import ConfigError


class Singled(NamedTuple):
    """Statistics claimed to be those of single clients, out of how many that were there."""

    found: list[Target]
    others: int


@ATTACKS.register
class ClientStatistics(Attack[Singled]):
    """The exact (G_k, Q_k) of single clients, wherever the coalition's sums come down to one.

    A server in plain reads them; all aggregators, or server and key holder, open them; K − 1
    clients with whoever has the sum subtract their own vectors.
    """

    name = "client-statistics"
    wants = "a sum of statistics"

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Singled | None:
        """Keep the coalition's finest sums that hold exactly one client.

        Return None for a view without rounds or without a coalition.
        """
        if not view.rounds:
            return None
        clients = view.rounds[0].session.clients
        others = [name for name in clients if name not in view.coalition]
        found = [target for target in targets(view) if len(target.clients) == 1]
        return Singled(found, len(others)) if view.coalition else None

    def judge(self, claim: Singled | None, truth: Truth, confidence: float = 0.95) -> list[Measure]:
        """Share of the other clients whose statistics the coalition has to the last bit."""
        right = 0
        for target in claim.found if claim else []:
            (name,) = target.clients
            right += _same(target.statistics, _statistics(truth, (name,), target))
        others = claim.others if claim else 0
        metric = "exact statistics of a client"
        return [share(right, others, 0.0, confidence=confidence, metric=metric)]


@ATTACKS.register
class FedHiPSubtraction(ClientStatistics):
    """A client of joint FedHiP takes its own statistics off the sum that the server broadcasts.

    What remains is the other clients' sum, to the last bit; of two clients it is the other one's.
    """

    name = "fedhip-subtraction"
    wants = "what a client has after FedHiP's broadcast (joint reading)"

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Singled | None:
        """Subtract the coalition's own statistics from the sum that the server broadcast.

        Return None unless the method is FedHiP with the joint reading and the coalition has a
        client.
        """
        if not view.method.broadcasts_statistics:
            return None
        session = view.rounds[0].session
        clients = [name for name in view.coalition if session.line(name).role == CLIENT]
        if not clients:
            return None
        return Singled(targets(view), len(session.clients) - len(clients))

    def judge(self, claim: Singled | None, truth: Truth, confidence: float = 0.95) -> list[Measure]:
        """Measure also the share of sums over others that are right to the last bit."""
        sums = claim.found if claim else []
        right = sum(
            _same(target.statistics, _statistics(truth, tuple(target.clients), target))
            for target in sums
        )
        single = [target for target in sums if len(target.clients) == 1]
        others = claim.others if claim else 0
        return [
            share(
                right,
                len(sums),
                0.0,
                confidence=confidence,
                metric="exact statistics of the others",
            ),
            *super().judge(Singled(single, others) if claim else None, truth, confidence),
        ]


class Difference(NamedTuple):
    """The difference of two releases, and the way rows became integers."""

    statistics: Statistics
    quantiser: Quantiser


@ATTACKS.register
class Differencing(Attack[Difference]):
    """Two exact sums that differ by one row give the row; by one client, its (G_k, Q_k).

    The difference of the totals of two sessions of the same clients, of which the first has a row
    or a client that the second has not. With one row its Gram matrix is ffᵀ and its cross term f
    in the column of its label.
    """

    name = "differencing"
    wants = "sums of statistics from two sessions"
    assumes = ("the view of a second session, as extra['other']",)
    two_sessions = True

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Difference | None:
        """Subtract the second session's total (G, Q and counts) from the first one's.

        Return None where either view gives no statistics, or the two quantise differently.

        Raises:
            ConfigError: `Known.extra["other"]` is no RunView.
        """
        other = known.extra.get("other")
        if not isinstance(other, RunView):
            raise ConfigError("differencing needs a second RunView as Known.extra['other']")
        first, second = targets(view), targets(other)
        if not first or not second or first[0].quantiser != second[0].quantiser:
            return None
        with_it, without_it = _total(first), _total(second)
        difference = Statistics(
            with_it.gram - without_it.gram,
            with_it.cross - without_it.cross,
            with_it.counts - without_it.counts,
        )
        return Difference(difference, first[0].quantiser)

    def judge(
        self, claim: Difference | None, truth: Truth, confidence: float = 0.95
    ) -> list[Measure]:
        """Judge whether the difference is a client or its row, to the last bit."""
        found = 0
        if claim is not None:
            found = self._is_row(claim, truth) or self._is_client(claim, truth)
        trials = 0 if claim is None else 1
        metric = "exact row or client"
        return [share(int(found), trials, 0.0, confidence=confidence, metric=metric)]

    def _is_row(self, claim: Difference, truth: Truth) -> bool:
        if claim.statistics.counts.sum() != 1 or claim.statistics.counts.min() < 0:
            return False
        recovered = small_classes(claim.statistics)
        assert recovered is not None, "a class with one row"
        row, label = recovered.rows[0], recovered.labels[0]
        if not np.array_equal(np.outer(row, row), claim.statistics.gram):
            return False
        rows, labels = true_rows(truth, frozenset(truth.clients), claim.quantiser)
        return bool(((rows == row).all(axis=1) & (labels == label)).any())

    def _is_client(self, claim: Difference, truth: Truth) -> bool:
        target = Target(frozenset(), claim.statistics, claim.quantiser)
        return any(
            _same(claim.statistics, _statistics(truth, (name,), target)) for name in truth.clients
        )


def _total(found: list[Target]) -> Statistics:
    first, *others = found
    return sum((target.statistics for target in others), first.statistics)


def _statistics(truth: Truth, names: tuple[str, ...], target: Target) -> Statistics:
    rows, labels = true_rows(truth, frozenset(names), target.quantiser)
    classes = len(target.statistics.counts)
    gram = (rows.T @ rows).astype(np.int64)
    one_hots = np.eye(classes, dtype=np.int64)[labels]
    return Statistics(gram, rows.astype(np.int64).T @ one_hots, one_hots.sum(axis=0))


def _same(claimed: Statistics, true: Statistics) -> bool:
    return np.array_equal(claimed.gram, true.gram) and np.array_equal(claimed.cross, true.cross)
