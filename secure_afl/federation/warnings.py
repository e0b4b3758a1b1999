"""What the reader of a run's report should know before trusting its protection."""

from collections.abc import Sequence

import numpy as np

from protocols.protocol import Protocol
from protocols.schemes.pairwise.protocol import Pairwise
from secure_afl.analytic.rows import ClientData
from secure_afl.methods import AFL, AnyMethod, FedHiP, Task

# Whoever has the sum in the clear, of each protocol.
RECEIVERS = {"additive": "the first aggregator", "ckks": "the key holder", "bfv": "the key holder"}


# Below about this many rows a dimension, membership shows in an exact sum.
ROWS_PER_DIMENSION = 40


def warnings(
    method: AnyMethod, protocol: Protocol, task: Task, clients: Sequence[ClientData]
) -> tuple[str, ...]:
    """What a reader of a run's report should know before trusting its protection, and what helps.

    Of sums with noise nothing is said that depends on the rows: their number and labels are
    private.

    Args:
        clients: those in the sum.
    """
    found = []
    if protocol.protects.startswith("nothing"):
        found.append(f"Protocol '{protocol.name}' protects {protocol.protects}.")
    enrolled = len(task.max_rows)
    if isinstance(protocol, Pairwise) and int(protocol.corrupt_fraction * enrolled) == 0:
        found.append(
            f"With {enrolled} clients and a corrupt fraction of {protocol.corrupt_fraction}, not "
            "one client may work with the server; raise --corrupt-fraction."
        )
    if task.mechanism is not None:
        return tuple(found)
    rows = sum(len(data) for data in clients)
    few = rows < ROWS_PER_DIMENSION * task.feature_dim
    if few:
        found.append(
            f"{rows} rows in the sum for {task.feature_dim} dimensions: whoever receives the exact "
            "sum can tell whose rows are in it, and with very few rows rebuild them. Safer: "
            f"≥ {ROWS_PER_DIMENSION * task.feature_dim} rows, fewer dimensions (--dimension), or "
            "noise (--epsilon)."
        )
    if isinstance(method, AFL | FedHiP):
        found += _statistics_warnings(method, protocol, clients, few)
    return tuple(found)


def _statistics_warnings(
    method: AFL | FedHiP, protocol: Protocol, clients: Sequence[ClientData], few: bool
) -> list[str]:
    """On exact sums of Gram matrices, cross terms and counts; `few` rows show in them."""
    found = []
    bare = [data.name for data in clients if len(data) - len(np.unique(data.labels)) <= 1]
    if bare:
        named = f"'{bare[0]}'" + (f" and {len(bare) - 1} more clients" if len(bare) > 1 else "")
        found.append(
            f"{named}: hardly more rows than classes among them, so that the client's statistics "
            "are its rows, for whoever gets them alone. More rows of a class, or leaving the "
            "client out, would help."
        )
    joint = isinstance(method, FedHiP) and method.reading == "joint"
    if joint and len(clients) == 2:
        found.append(
            "FedHiP's joint reading gives both clients the summed statistics, from which each can "
            "take its own: what is left is the other's. Use --reading proximal, or more clients."
        )
    if few and joint:
        found.append(
            "FedHiP's joint reading gives every client (G, Q), which show whose rows are in the "
            "sum where the model W hardly does. --reading proximal gives them W alone."
        )
    elif few and not protocol.protects.startswith("nothing"):
        receiver = RECEIVERS.get(protocol.name, "the server")
        found.append(
            f"{receiver.capitalize()} receives (G, Q), which show whose rows are in the sum where "
            "the model W, all that is needed of them, hardly does. Let somebody receive the sum "
            "whom the clients trust with it, and give the others W."
        )
    return found
