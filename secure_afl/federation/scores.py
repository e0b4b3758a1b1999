"""How good the models of a run are, and what its reader should be warned of."""

from collections.abc import Mapping, Sequence
from statistics import mean

import msgspec
import numpy as np

from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.ridge import ridge
from secure_afl.analytic.rows import ClientData, check_data
from secure_afl.analytic.statistics import one_hot
from secure_afl.errors import DataError
from secure_afl.federation.report import Accuracy
from secure_afl.methods.model import LinearModel, Model


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
    """Score a run's models by accuracy, beside centralised and local ridge on float features.

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
    """Score a private model on test rows, which are not the clients'.

    Baselines on the clients' rows, and scores on rows that they held out, would be releases of
    their own.
    """
    return Accuracy(federated=None if test is None else model.accuracy(test.features, test.labels))


def _float_statistics(
    client: ClientData, classes: int, quantiser: Quantiser
) -> tuple[Floats, Floats]:
    rows = quantiser.scaled(client.features)
    return rows.T @ rows, rows.T @ one_hot(client.labels, classes)
