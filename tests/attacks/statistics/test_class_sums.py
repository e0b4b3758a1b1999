"""Rows and members out of sums by class, from real runs."""

from typing import Any

import numpy as np
import pytest

from attacks.attack import ATTACKS, Attack, Known, Truth
from attacks.statistics.class_sums import ClassMembership, ClassRows, class_sums
from attacks.views.run import Record, RunView
from protocols import Additive, Plain
from protocols.protocol import Protocol
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL, AnyMethod, ClassMeans, FedHPro, FedProto, Mlp
from tests.kit.runs import by_metric, membership_game, relu_clients, relu_rows

DIM = 32
HPRO = FedHPro(rounds=1, architecture=Mlp(units=16), local_epochs=1, class_means="rows")


def seen(
    clients: list[ClientData],
    method: AnyMethod | None = None,
    protocol: Protocol | None = None,
    coalition: tuple[str, ...] = (),
) -> RunView:
    """What the receiver of a run has, together with a coalition of clients."""
    method, protocol = method or ClassMeans(), protocol or Additive()
    result = Federation(method, protocol, min_cohort=2).run(
        clients, classes=("0", "1", "2"), record=True
    )
    return Record(method, protocol, result).view([protocol.receiver, *coalition])


def one_alone(sizes: tuple[int, ...] = (30, 20)) -> list[ClientData]:
    """Clients of which the first has the only row of class 0."""
    first, *others = relu_clients(sizes, DIM)
    keep = [np.flatnonzero(client.labels != 0) for client in (first, *others)]
    keep[0] = np.append(np.flatnonzero(first.labels == 0)[:1], keep[0])
    return [
        ClientData(client.name, client.features[rows], client.labels[rows])
        for client, rows in zip((first, *others), keep, strict=True)
    ]


def measured(attack: Attack[Any], view: RunView, known: Known, truth: Truth) -> dict[str, float]:
    claim = attack.claim(view, known, np.random.default_rng(0))
    return {name: one.value for name, one in by_metric(attack.judge(claim, truth)).items()}


def test_they_are_attacks_of_the_suite() -> None:
    assert ATTACKS["class-rows"] is ClassRows
    assert ATTACKS["membership-class-mean"] is ClassMembership


def test_class_sums_hand_over_the_row_that_is_alone_in_its_class() -> None:
    clients = one_alone()
    truth = Truth({client.name: client for client in clients})
    found = measured(ClassRows(), seen(clients), Known(), truth)
    assert found["exact rows of single-row classes"] == 1.0
    assert found["cosine of single-row classes"] == pytest.approx(1.0)


def test_softmax_rows_show_less_of_it_than_the_row() -> None:
    clients = one_alone()
    truth = Truth({client.name: client for client in clients})
    public, _ = relu_rows(400, DIM, 3)
    view = seen(clients, HPRO)
    found = measured(ClassRows(), view, Known(public=public), truth)
    assert found["exact rows of single-row classes"] == 0.0
    assert 0.2 < found["cosine of single-row classes"] < 0.99
    assert ClassRows().claim(view, Known(), np.random.default_rng(0)) is None


def test_a_judged_row_that_nobody_claimed_counts_as_nothing() -> None:
    clients = one_alone()
    truth = Truth({client.name: client for client in clients})
    attack, known = ClassRows(), Known(public=relu_rows(50, DIM, 3)[0])
    # By clients: a class that one client has counts one, and both have classes 1 and 2.
    view = seen(clients, FedProto(rounds=1, architecture=Mlp(units=16), local_epochs=1))
    claim = attack.claim(view, known, np.random.default_rng(0))
    assert claim is not None
    assert claim[0].recovered.labels.tolist() == [0]
    none = [claim[0]._replace(recovered=claim[0].recovered._replace(labels=np.array([1])))]
    judged = by_metric(attack.judge(none, truth))
    assert judged["cosine of single-row classes"].value == 0.0
    assert judged["cosine of single-row classes"].trials == 1
    assert by_metric(attack.judge(None, truth))["cosine of single-row classes"].trials == 0


@pytest.mark.parametrize("method", [ClassMeans(), HPRO], ids=lambda method: method.name)
def test_members_are_told_the_better_the_fewer_clients_are_in_the_sum(method: AnyMethod) -> None:
    clients = relu_clients((12, 12, 12, 12, 12, 12), DIM)
    known, truth = membership_game(clients, DIM, 72, 300)
    alone = seen(clients, method, Plain())
    blind = seen(clients, method)
    assert len(class_sums(alone)) == 6
    (together,) = class_sums(blind)
    assert together.clients == {client.name for client in clients}
    # One client's rows and as many strangers, by its own sum: the others collude with the server.
    first = clients[0]
    few = Known(
        np.concatenate([first.features, known.candidates[-72:]]),  # type: ignore[index]
        np.concatenate([first.labels, known.candidate_labels[-72:]]),  # type: ignore[index]
        known.public,
        extra=known.extra,
    )
    others = tuple(client.name for client in clients[1:])
    view = seen(clients, method, Plain(), others)
    single = measured(ClassMembership(), view, few, Truth({}, np.arange(84) < 12))["AUC"]
    many = measured(ClassMembership(), blind, known, truth)["AUC"]
    assert single > many > 0.5


def test_there_is_nothing_where_a_gram_matrix_is_summed_and_nothing_for_outsiders() -> None:
    clients = one_alone()
    result = Federation(ClassMeans(), Additive(), min_cohort=2).run(
        clients, classes=("0", "1", "2"), record=True
    )
    assert class_sums(seen(clients, AFL())) == []
    outsider = Record(ClassMeans(), Additive(), result).view([])
    assert class_sums(outsider) == []
    attack = ClassMembership()
    known, _ = membership_game(clients, DIM, 5, 30)
    assert attack.claim(outsider, known, np.random.default_rng(0)) is None


def test_membership_wants_labels_public_rows_and_candidates() -> None:
    clients = one_alone()
    view, attack = seen(clients), ClassMembership()
    known, _ = membership_game(clients, DIM, 5, 30)
    rng = np.random.default_rng(0)
    assert attack.claim(view, Known(known.candidates, known.candidate_labels), rng) is None
    missing = Known(None, known.candidate_labels, known.public, extra=known.extra)
    with pytest.raises(ConfigError, match=r"Known\.candidates"):
        attack.claim(view, missing, rng)
