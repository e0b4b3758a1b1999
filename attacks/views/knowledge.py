"""From what a coalition saw to the exact sums over clients that it knows.

A protocol's records open as `openings` says; what a session released, and what a method broadcast,
come on top; and clients of the coalition take their own vectors off every sum that they are in.
"""

from dataclasses import dataclass

import numpy as np

from attacks.views.openings import openings
from attacks.views.run import RunView
from protocols.layout import Integers
from protocols.roster import CLIENT
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.statistics import Statistics
from secure_afl.errors import ConfigError
from secure_afl.methods import Task

_STATISTICS_BLOCKS = {"gram_diagonal", "cross"}


@dataclass(frozen=True, eq=False)
class SubsetSum:
    """An exact sum over a set of clients.

    Attributes:
        clients: whose vectors are in it, none of the coalition's own.
        vector: int64 of the layout's length.
    """

    clients: frozenset[str]
    vector: Integers

    def __repr__(self) -> str:
        return f"<SubsetSum over {len(self.clients)} clients>"


def subset_sums(view: RunView, round: int = 0) -> list[SubsetSum]:
    """List the exact sums over others in the coalition's record, finest first.

    They are all that the record of a round yields.

    Where the coalition was not told who is in a sum that it was given, it takes all clients to be.
    Empty for an outsider, and for whoever has nothing but what the protocol promises.
    """
    seen = view.rounds[round]
    opened = openings(seen)
    sums = dict(opened.sums)
    for clients, total in _given(view, round):
        sums.setdefault(clients, total)
    coalition = {name for name in view.coalition if seen.session.line(name).role == CLIENT}
    found: dict[frozenset[str], Integers] = {}
    for clients, total in sums.items():
        ours = clients & coalition
        if ours <= opened.own.keys() and clients - ours:
            rest = total - sum((opened.own[name] for name in ours), np.zeros_like(total))
            found.setdefault(clients - ours, rest)
    ordered = sorted(found, key=lambda clients: (len(clients), sorted(clients)))
    return [SubsetSum(clients, found[clients]) for clients in ordered]


def finest(sums: list[SubsetSum]) -> list[SubsetSum]:
    """Keep the sums, in order, that share no client with a finer one."""
    kept: list[SubsetSum] = []
    for subset_sum in sums:
        if all(subset_sum.clients.isdisjoint(finer.clients) for finer in kept):
            kept.append(subset_sum)
    return kept


def masked_uploads(view: RunView, round: int = 0) -> list[tuple[str, bytes]]:
    """Return what is left of uploads once the coalition has taken off all it can.

    While protection holds these bytes are uniform: packed ring vectors, seeds of masks, or the low
    four bytes of ciphertexts' words. Where it does not hold, as at a server in plain, they are the
    packed vectors themselves, to compare with. By client, of no client of the coalition.
    """
    left = openings(view.rounds[round]).left
    return sorted((name, data) for name, data in left.items() if name not in view.coalition)


def task_of(view: RunView) -> Task:
    """Return the task, as every party of the run knows it.

    Raises:
        ConfigError: an outsider's view, which has no public state.
    """
    if not view.publics:
        raise ConfigError("an outsider knows no task; give this attack a view of some party")
    return view.publics[0].task


def has_statistics(view: RunView, round: int = 0) -> bool:
    """Say whether the round's sums are statistics (G, Q) rather than something else."""
    names = {block.name for block in view.rounds[round].session.layout.blocks}
    return names >= _STATISTICS_BLOCKS


def statistics_of(view: RunView, subset_sum: SubsetSum, round: int = 0) -> Statistics:
    """Return a sum as Gram matrix, cross term and counts.

    Without counts in the layout the counts are zeros.

    Raises:
        ConfigError: the round summed something else.
    """
    layout = view.rounds[round].session.layout
    if not has_statistics(view, round):
        names = ", ".join(block.name for block in layout.blocks)
        raise ConfigError(f"round {round} summed {names}; wanted statistics: gram, cross, counts")
    return Statistics.unpack(subset_sum.vector, layout)


def _given(view: RunView, round: int) -> list[tuple[frozenset[str], Integers]]:
    """Return sums that the coalition was given as such.

    They are the session's, and a method's broadcast.
    """
    seen = view.rounds[round]
    given = []
    if seen.released is not None:
        given.append((frozenset(seen.released.included), seen.released.total))
    after = view.publics[round + 1] if len(view.publics) > round + 1 else None
    broadcast = None if after is None else after.broadcast
    if broadcast is not None and seen.released is None:
        counts = any(block.name == "counts" for block in seen.session.layout.blocks)
        given.append((_included(view, round), broadcast.pack(counts=counts)))
    return given


def _included(view: RunView, round: int) -> frozenset[str]:
    """Return who is in a sum that the coalition did not receive, if told.

    Without being told, all clients are.
    """
    seen = view.rounds[round]
    told = openings(seen).told
    return frozenset(seen.session.clients) if told is None else told


@dataclass(frozen=True, eq=False)
class Target:
    """Statistics of a set of clients that a coalition has exactly, to be attacked.

    Attributes:
        clients: whose rows they are of.
        statistics: in integers, as summed.
        quantiser: how rows became integers.
    """

    clients: frozenset[str]
    statistics: Statistics
    quantiser: Quantiser

    def __repr__(self) -> str:
        return f"<Target of {len(self.clients)} clients>"


def targets(view: RunView) -> list[Target]:
    """List the finest statistics that the coalition has, no client twice.

    They are of the first round with any.

    Empty for an outsider, for whoever has no sum, and where no round sums statistics.
    """
    for round in range(len(view.rounds)):
        if view.publics and has_statistics(view, round):
            quantiser = task_of(view).quantiser
            return [
                Target(found.clients, statistics_of(view, found, round), quantiser)
                for found in finest(subset_sums(view, round))
            ]
    return []
