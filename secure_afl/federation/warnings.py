"""What the reader of a run's report should know before trusting its protection."""

from collections.abc import Sequence

import numpy as np

from protocols.protocol import Protocol
from secure_afl.analytic.rows import ClientData
from secure_afl.federation.task import Terms
from secure_afl.methods.method import AnyMethod, Task

# Below about this many rows a dimension, membership shows in an exact sum.
ROWS_PER_DIMENSION = 40


def warnings(terms: Terms, task: Task, clients: Sequence[ClientData]) -> tuple[str, ...]:
    """List what a reader should know before trusting a run's protection, and what helps.

    Sums with noise give no warning that depends on the rows: their number and labels are private.

    Args:
        clients: those in the sum.
    """
    method = terms.method
    of_rows = []
    if method.releases_statistics:
        of_rows += [] if method.numeric else _bare_clients(clients)
        of_rows += _several_rows_a_patient(clients, errors=method.fine_rows)
    rows = sum(len(data) for data in clients)
    few = few_rows(rows, method.widest(task), columns=task.columns is not None)
    return _listed(method, terms.protocol, task, few, of_rows, len(clients))


def session_warnings(method: AnyMethod, protocol: Protocol, task: Task) -> tuple[str, ...]:
    """List what a party can know of a session before its sum: how many rows are declared at most.

    Whether a sum is over fewer shows to nobody.
    """
    few = few_rows(
        task.total_rows, method.widest(task), columns=task.columns is not None, declared=True
    )
    return _listed(method, protocol, task, few, [], task.clients)


def _listed(
    method: AnyMethod,
    protocol: Protocol,
    task: Task,
    few: list[str],
    of_rows: list[str],
    clients: int,
) -> tuple[str, ...]:
    found = []
    if not protocol.hides_vectors:
        found.append(f"Protocol '{protocol.name}' protects {protocol.protects}.")
    found += protocol.advice(task.clients)
    found += method.doubts(task)
    if task.mechanism is not None:
        return tuple(found)
    found += few + of_rows
    found += method.advice(clients, few_rows=bool(few))
    told = not protocol.hides_vectors or method.broadcasts_statistics
    # Not capitalize(), which would make small letters of all others.
    receiver = protocol.receiver_title[:1].upper() + protocol.receiver_title[1:]
    if method.liar_reads and protocol.hides_vectors:
        found.append(
            f"{receiver} could read {method.liar_reads}, if it lies about the state between the "
            "sums: nobody else can check that. Let somebody receive them whom all clients would "
            "trust with so much, or take a method of one sum."
        )
    if few and method.releases_statistics and not told:
        found.append(
            f"{receiver} receives (G, Q), which show whose rows are in the sum where the model W, "
            "all that is needed of them, hardly does. Let somebody receive the sum whom the "
            "clients trust with it, and give the others W."
        )
    return tuple(found)


def few_rows(rows: int, width: int, *, columns: bool, declared: bool = False) -> list[str]:
    """Warn of an exact sum over fewer rows than hide whose they are; empty for enough.

    Args:
        rows: in the sum.
        width: dimensions of its Gram matrix.
        columns: dimensions are a table's columns.
        declared: no more rows are declared, and there may be fewer.
    """
    enough = ROWS_PER_DIMENSION * width
    if rows >= enough:
        return []
    fewer = "fewer columns" if columns else "fewer dimensions (--dimension)"
    most = "at most " if declared else ""
    return [
        f"{most}{rows} rows in the sum for {width} dimensions: whoever receives the exact sum can "
        f"tell whose rows are in it, and with very few rows rebuild them. Safer: ≥ {enough} rows, "
        f"{fewer}, or noise (--epsilon)."
    ]


def warn_of_groups(counted: Sequence[ClientData]) -> tuple[str, ...]:
    """Warn of rows in groups, whose counts have intervals that take rows for independent ones.

    Args:
        counted: rows that clients keep out and count.
    """
    rows, patients = _patients(counted)
    if rows <= patients:
        return ()
    return (
        f"{rows} rows that sites kept out are of {patients} patients: intervals of their figures "
        "take rows for independent, and are too narrow. On a test set (--test) intervals draw "
        "patients.",
    )


def _patients(clients: Sequence[ClientData]) -> tuple[int, int]:
    """Return how many rows say whose they are, and of how many patients they are."""
    known = [names for data in clients if (names := data.people) is not None]
    return sum(map(len, known)), sum(len(set(names)) for names in known)


def _several_rows_a_patient(clients: Sequence[ClientData], *, errors: bool) -> list[str]:
    """Warn of rows in groups, which what follows from the sum takes for independent ones.

    Args:
        errors: of coefficients follow, and no shrinkage or λ.
    """
    rows, patients = _patients(clients)
    if rows <= patients:
        return []
    if errors:
        return [
            f"{rows} rows are of {patients} patients: errors of coefficients take rows for "
            "independent, and are too small. Give one row a patient."
        ]
    return [
        f"{rows} rows are of {patients} patients: a shrinkage or λ that the sum chooses takes rows "
        "for independent, and is too small. Set --shrinkage or --ridge, or give one row a patient."
    ]


def _bare_clients(clients: Sequence[ClientData]) -> list[str]:
    """Warn of clients with hardly more rows than classes."""
    bare = [data.name for data in clients if len(data) - len(np.unique(data.labels)) <= 1]
    if not bare:
        return []
    named = f"'{bare[0]}'" + (f" and {len(bare) - 1} more clients" if len(bare) > 1 else "")
    return [
        f"{named}: hardly more rows than classes among them, so that the client's statistics are "
        "its rows, for whoever gets them alone. More rows of a class, or leaving the client out, "
        "would help."
    ]
