"""Clients and rows singled out by opening, subtraction and differences; and by nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from attacks.attack import Known
from attacks.statistics.singling_out import ClientStatistics, Differencing, FedHiPSubtraction
from attacks.views.run import Record
from protocols.protocol import Protocol
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import ConfigError
from secure_afl.methods import AFL, FedHiP
from tests.kit.runs import (
    ADDITIVE,
    CKKS,
    PAIRWISE,
    PLAIN,
    by_metric,
    record,
    relu_clients,
    truth_of,
)

CLIENTS = relu_clients([30, 40, 50, 60], dim=20)
TRUTH = truth_of(CLIENTS)
RNG = np.random.default_rng(0)
ALL_AGGREGATORS = ["collector", "aggregator_1", "aggregator_2"]


@pytest.mark.parametrize(
    ("protocol", "coalition", "exact", "others"),
    [
        (PLAIN, ["server"], 4, 4),
        (PLAIN, ["c0"], 0, 3),
        (ADDITIVE, ["collector"], 0, 4),
        (ADDITIVE, ["collector", "aggregator_2"], 0, 4),
        (ADDITIVE, ALL_AGGREGATORS, 4, 4),
        (PAIRWISE, ["server"], 0, 4),
        (PAIRWISE, ["server", "c1"], 0, 3),
        (PAIRWISE, ["server", "c1", "c2", "c3"], 1, 1),
        (CKKS, ["server"], 0, 4),
        (CKKS, ["key_holder"], 0, 4),
        (CKKS, ["server", "key_holder"], 4, 4),
        (CKKS, ["key_holder", "c0", "c1", "c3"], 1, 1),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_client_statistics(
    protocol: Protocol, coalition: list[str], exact: int, others: int
) -> None:
    claim = ClientStatistics().claim(record(CLIENTS, protocol).view(coalition), Known(), RNG)
    (measure,) = ClientStatistics().judge(claim, TRUTH)
    assert (measure.value, measure.trials) == (exact / others, others)


def test_client_statistics_of_an_outsider_and_of_another_truth() -> None:
    run = record(CLIENTS, PLAIN)
    assert ClientStatistics().claim(run.view([]), Known(), RNG) is None
    claim = ClientStatistics().claim(run.view(["server"]), Known(), RNG)
    others = truth_of(relu_clients([30, 40, 50, 60], dim=20, seed=3))
    assert ClientStatistics().judge(claim, others)[0].value == 0.0


@pytest.mark.parametrize(
    ("colluding", "of_others", "of_one"),
    [(["c0"], (1.0, 1), (0.0, 3)), (["c0", "c1", "c2"], (1.0, 1), (1.0, 1))],
)
def test_fedhip_joint(
    colluding: list[str], of_others: tuple[float, int], of_one: tuple[float, int]
) -> None:
    view = record(CLIENTS, ADDITIVE, FedHiP()).view(colluding)
    claim = FedHiPSubtraction().claim(view, Known(), RNG)
    measures = by_metric(FedHiPSubtraction().judge(claim, TRUTH))
    others = measures["exact statistics of the others"]
    assert (others.value, others.trials) == of_others
    one = measures["exact statistics of a client"]
    assert (one.value, one.trials) == of_one


def test_fedhip_with_two_clients_gives_each_the_other() -> None:
    view = record(CLIENTS[:2], ADDITIVE, FedHiP()).view(["c1"])
    claim = FedHiPSubtraction().claim(view, Known(), RNG)
    assert by_metric(FedHiPSubtraction().judge(claim, TRUTH))["exact statistics of a client"].value


@pytest.mark.parametrize("method", [FedHiP(personal="proximal"), AFL()])
def test_no_broadcast_no_subtraction(method: FedHiP | AFL) -> None:
    view = record(CLIENTS, ADDITIVE, method).view(["c0"])
    attack = FedHiPSubtraction()
    assert attack.claim(view, Known(), RNG) is None
    assert all(m.trials == 0 for m in attack.judge(None, TRUTH))


def without_a_row() -> Record:
    last = CLIENTS[-1]
    return record(
        [*CLIENTS[:-1], ClientData(last.name, last.features[:-1], last.labels[:-1])], PAIRWISE
    )


@pytest.mark.parametrize("differs", ["row", "client"])
def test_two_blind_sums_give_their_difference(differs: str) -> None:
    second = without_a_row() if differs == "row" else record(CLIENTS[1:], PAIRWISE)
    first = record(CLIENTS, PAIRWISE).view(["server"])
    known = Known(extra={"other": second.view(["server"])})
    claim = Differencing().claim(first, known, RNG)
    (measure,) = Differencing().judge(claim, TRUTH)
    assert (measure.value, measure.trials) == (1.0, 1)
    assert claim is not None
    assert claim.statistics.counts.sum() == (1 if differs == "row" else 30)


def test_sums_that_differ_by_more_are_nothing_of_anybodys() -> None:
    first = record(CLIENTS, PAIRWISE).view(["server"])
    two_fewer = record(CLIENTS[2:], PAIRWISE).view(["server"])
    claim = Differencing().claim(first, Known(extra={"other": two_fewer}), RNG)
    assert Differencing().judge(claim, TRUTH)[0].value == 0.0
    assert Differencing().judge(None, TRUTH)[0].trials == 0


def test_a_row_of_another_label_is_not_it() -> None:
    first = record(CLIENTS, PAIRWISE).view(["server"])
    known = Known(extra={"other": without_a_row().view(["server"])})
    claim = Differencing().claim(first, known, RNG)
    relabelled = [replace(data, labels=(data.labels + 1) % 3) for data in CLIENTS]
    assert Differencing().judge(claim, truth_of(relabelled))[0].value == 0.0


def test_differencing_wants_two_sums() -> None:
    view = record(CLIENTS, PAIRWISE).view(["server"])
    with pytest.raises(ConfigError, match="other"):
        Differencing().claim(view, Known(), RNG)
    outsider = record(CLIENTS, PAIRWISE).view([])
    assert Differencing().claim(view, Known(extra={"other": outsider}), RNG) is None
