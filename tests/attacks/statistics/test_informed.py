"""Whoever knows all rows but one has that one from the model."""

from dataclasses import replace

import numpy as np
import pytest

from attacks.attack import Known
from attacks.statistics.informed import InformedRidge
from secure_afl.analytic.rows import ClientData, pooled
from secure_afl.errors import ConfigError
from secure_afl.methods import AFL
from tests.kit.runs import ADDITIVE, CKKS, by_metric, record, relu_clients, truth_of

CLIENTS = relu_clients([30, 40, 50], dim=40)
RNG = np.random.default_rng(0)


def all_but(place: int) -> ClientData:
    rows = pooled(CLIENTS)
    kept = np.arange(len(rows)) != place
    return ClientData("known", rows.features[kept], rows.labels[kept])


@pytest.mark.parametrize("place", [0, 33, 119])
@pytest.mark.parametrize("coalition", [[], ["c0"]], ids=["outsider", "client"])
@pytest.mark.parametrize("bits", [8, 12])
def test_the_missing_row_is_exact(place: int, coalition: list[str], bits: int) -> None:
    run = record(CLIENTS, ADDITIVE, AFL(ridge=0.5), bits=bits)
    claim = InformedRidge().claim(run.view(coalition), Known(rows=all_but(place)), RNG)
    (measure,) = InformedRidge().judge(claim, truth_of(CLIENTS))
    assert (measure.value, measure.trials) == (1.0, 1)
    assert claim is not None
    assert claim.label == pooled(CLIENTS).labels[place]


def test_two_classes() -> None:
    clients = [replace(data, labels=data.labels % 2) for data in CLIENTS]
    rows = pooled(clients)
    known = Known(rows=ClientData("known", rows.features[1:], rows.labels[1:]))
    run = record(clients, CKKS, classes=2)
    claim = InformedRidge().claim(run.view([]), known, RNG)
    assert by_metric(InformedRidge().judge(claim, truth_of(clients)))["exact missing row"].value


def test_who_knows_all_but_two_has_neither() -> None:
    rows = all_but(5)
    fewer = ClientData("known", rows.features[1:], rows.labels[1:])
    run = record(CLIENTS, ADDITIVE)
    claim = InformedRidge().claim(run.view(["c0"]), Known(rows=fewer), RNG)
    assert InformedRidge().judge(claim, truth_of(CLIENTS))[0].value == 0.0


def test_what_it_needs() -> None:
    run = record(CLIENTS, ADDITIVE)
    with pytest.raises(ConfigError, match="rows"):
        InformedRidge().claim(run.view([]), Known(), RNG)
    assert InformedRidge().judge(None, truth_of(CLIENTS))[0].trials == 0
