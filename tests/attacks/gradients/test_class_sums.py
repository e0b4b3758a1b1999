import numpy as np
import pytest

from attacks.attack import Known, Truth
from attacks.gradients.analytic import class_sums_of_head
from attacks.gradients.inversion import GradientLinear
from attacks.views.run import Record
from protocols.schemes.additive.protocol import Additive
from secure_afl import ClientData, Federation, FedSGD
from secure_afl.analytic.quantise import Floats
from secure_afl.methods import Linear
from secure_afl.methods.averaging import AveragingPublic

CLASSES, DIM = 10, 60


def one_row_clients(labels: list[int]) -> list[ClientData]:
    rng = np.random.default_rng(0)
    return [
        ClientData(f"client{i}", rng.random((1, DIM)) + 0.1, np.array([label], dtype=np.int64))
        for i, label in enumerate(labels)
    ]


def true_sums(clients: list[ClientData]) -> Floats:
    rows = np.concatenate([client.features for client in clients])
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    one_hot = np.eye(CLASSES)[np.concatenate([client.labels for client in clients])]
    sums: Floats = rows.T @ one_hot
    return sums


def sums_from_blind_sum(clients: list[ClientData]) -> Floats:
    method = FedSGD(rounds=1)
    names = [str(label) for label in range(CLASSES)]
    first = Federation(method, Additive()).run(clients, classes=names).rounds[0]
    public = first.public
    assert isinstance(public, AveragingPublic)
    assert isinstance(method.architecture, Linear)
    assert not public.parameters.any()
    mean = method.quantiser(public.task).mean(first.released.total, first.session.layout)
    return class_sums_of_head(-mean.reshape(DIM, CLASSES), len(clients))


def test_a_blind_sum_with_an_absent_class_gives_the_sums_of_all_classes() -> None:
    clients = one_row_clients([0, 1, 2, 3, 4, 5, 5, 6, 6, 6, 7, 8])
    found, true = sums_from_blind_sum(clients), true_sums(clients)
    # Twelve updates rounded to steps of about 1e-7 each, and a factor of C in the mean row.
    assert found == pytest.approx(true, abs=1e-5)
    # So a class of one row hands it over.
    row = clients[3].features[0] / np.linalg.norm(clients[3].features[0])
    assert found[:, 3] == pytest.approx(row, abs=1e-5)


def test_with_all_classes_present_what_they_have_in_common_is_missing() -> None:
    clients = one_row_clients(list(range(CLASSES)))
    found, true = sums_from_blind_sum(clients), true_sums(clients)
    common = true.min(axis=1)
    assert common.min() > 0.01
    assert found == pytest.approx(true - common[:, None], abs=1e-5)


def test_the_attack_reads_rows_off_a_blind_sum_with_an_absent_class() -> None:
    clients = one_row_clients([0, 1, 2, 3, 4, 5, 6, 7, 8])
    method = FedSGD(rounds=1)
    names = [str(label) for label in range(CLASSES)]
    result = Federation(method, Additive()).run(clients, classes=names, record=True)
    view = Record(method, Additive(), result).view(["collector"])
    claim = GradientLinear().claim(view, Known(), np.random.default_rng(0))
    truth = Truth({client.name: client for client in clients})
    assert claim is not None
    rows = np.concatenate([client.features for client in clients])
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    (found,) = claim.found
    assert found.rows is not None
    cosines = (found.rows / np.linalg.norm(found.rows, axis=1, keepdims=True)) @ rows.T
    assert np.sort(cosines.max(axis=1))[0] > 1 - 1e-8
    assert GradientLinear().judge(claim, truth)
