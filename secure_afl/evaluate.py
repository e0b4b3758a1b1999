"""How good the models of a run are, and what its reader should be warned of."""

from collections.abc import Mapping, Sequence
from statistics import mean

import msgspec
import numpy as np

from protocols.pairwise import Pairwise
from protocols.protocol import Protocol
from secure_afl.clients import ClientData, check_data
from secure_afl.errors import DataError
from secure_afl.methods import AFL, AnyMethod, FedHiP, Task
from secure_afl.model import LinearModel, Model
from secure_afl.quantise import Floats, Quantiser
from secure_afl.report import Accuracy
from secure_afl.ridge import ridge
from secure_afl.statistics import one_hot

# Whoever has the sum in the clear, of each protocol.
RECEIVERS = {"additive": "the first aggregator", "ckks": "the key holder", "bfv": "the key holder"}

# Below about this many rows a dimension, membership shows in an exact sum.
ROWS_PER_DIMENSION = 40


def check_scored(sets: Sequence[ClientData], like: ClientData, classes: int) -> None:
    """Raise DataError unless rows to score on fit the clients' features and classes."""
    for data in sets:
        check_data(f"test rows '{data.name}'", data, classes)
        if data.features.shape[1] != like.features.shape[1]:
            raise DataError(
                f"test rows '{data.name}' have {data.features.shape[1]} features a row, clients "
                f"have {like.features.shape[1]}; use the same backbone for both"
            )


def score(
    model: Model,
    personal: Mapping[str, Model],
    clients: Sequence[ClientData],
    quantiser: Quantiser,
    regularisation: float,
    test: ClientData | None,
    holdout: Sequence[ClientData],
) -> Accuracy:
    """Accuracy of a run's models beside centralised and local ridge on float features.

    Args:
        model, personal: the run's models.
        clients: those in the sum.
        quantiser: brings float rows to norm ≤ 1 as the run did, without rounding.
        regularisation: λ of the baselines.
        test, holdout: rows that no model was made from; those of clients not in the sum are left
            out.
    """
    names = {client.name for client in clients}
    held = {data.name: data for data in holdout if data.name in names}
    width, classes = clients[0].features.shape[1], len(model.classes)
    gram, cross = np.zeros((width, width)), np.zeros((width, classes))
    local: dict[str, LinearModel] = {}
    for client in clients:
        own_gram, own_cross = _float_statistics(client, classes, quantiser)
        gram += own_gram
        cross += own_cross
        if regularisation > 0:
            weights = ridge(own_gram, own_cross, regularisation)
            local[client.name] = LinearModel(weights, model.classes)
    central = LinearModel(ridge(gram, cross, regularisation), model.classes)

    def over_holdout(models: Mapping[str, Model]) -> float | None:
        scores = [models[n].accuracy(d.features, d.labels) for n, d in held.items() if n in models]
        return mean(scores) if scores else None

    on_holdout = Accuracy(
        personal_mean=over_holdout(personal),
        holdout_federated_mean=over_holdout(dict.fromkeys(held, model)),
        holdout_local_mean=over_holdout(local),
    )
    if test is None:
        return on_holdout
    features, labels = test.features, test.labels
    return msgspec.structs.replace(
        on_holdout,
        federated=model.accuracy(features, labels),
        centralised_float=central.accuracy(features, labels),
        local_mean=mean(m.accuracy(features, labels) for m in local.values()) if local else None,
        agreement=float((model.predict(features) == central.predict(features)).mean()),
    )


def score_private(model: Model, test: ClientData | None) -> Accuracy:
    """What may be told of a private model: its accuracy on test rows, which are not the clients'.

    Baselines on the clients' rows, and scores on rows that they held out, would be releases of
    their own.
    """
    return Accuracy(federated=None if test is None else model.accuracy(test.features, test.labels))


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


def _float_statistics(
    client: ClientData, classes: int, quantiser: Quantiser
) -> tuple[Floats, Floats]:
    rows = quantiser.scaled(client.features)
    return rows.T @ rows, rows.T @ one_hot(client.labels, classes)
