"""Blind sums hide whose a row is; broken ones do not. Masked uploads look at random."""

import numpy as np
import pytest

from attacks.attack import Known
from attacks.statistics.attribution import Attribution, Uniformity
from protocols.primitives.masks import MaskStream
from protocols.protocol import Protocol
from protocols.schemes.pairwise import client as pairwise_client
from secure_afl.errors import ConfigError
from secure_afl.methods import FedAvg
from tests.kit.runs import (
    ADDITIVE,
    CKKS,
    DROPPING,
    PAIRWISE,
    PLAIN,
    by_metric,
    membership_game,
    record,
    relu_clients,
    truth_of,
)

CLIENTS = relu_clients([30, 40, 50, 60], dim=96)
KNOWN, TRUTH = membership_game(CLIENTS, 96, 40, 40)
AGGREGATORS = ["collector", "aggregator_1", "aggregator_2"]

BLIND = [
    (ADDITIVE, AGGREGATORS[:1]),
    (ADDITIVE, AGGREGATORS[:2]),
    (ADDITIVE, AGGREGATORS[1:]),
    (PAIRWISE, ["server"]),
    (DROPPING, ["server"]),
    (CKKS, ["server"]),
    (CKKS, ["key_holder"]),
]
BROKEN = [
    (PLAIN, ["server"]),
    (ADDITIVE, AGGREGATORS),
    (CKKS, ["server", "key_holder"]),
    (PAIRWISE, ["server", "c0", "c1", "c2"]),
    (ADDITIVE, ["collector", "c0", "c1", "c2"]),
]


def rng() -> np.random.Generator:
    return np.random.default_rng(6)


def name_of(value: object) -> str | None:
    return getattr(value, "name", None)


@pytest.mark.parametrize(("protocol", "coalition"), BLIND, ids=name_of)
def test_rows_in_a_blind_sum_are_nobodys(protocol: Protocol, coalition: list[str]) -> None:
    claim = Attribution().claim(record(CLIENTS, protocol).view(coalition), KNOWN, rng())
    # An interval that misses the truth once in a million times.
    (measure,) = Attribution().judge(claim, TRUTH, 0.999999)
    assert (measure.chance, measure.trials) == (0.25, 180)
    assert measure.low < measure.chance < measure.high


@pytest.mark.parametrize(("protocol", "coalition"), BROKEN, ids=name_of)
def test_rows_in_a_broken_sum_have_owners(protocol: Protocol, coalition: list[str]) -> None:
    claim = Attribution().claim(record(CLIENTS, protocol).view(coalition), KNOWN, rng())
    (measure,) = Attribution().judge(claim, TRUTH, 0.999999)
    assert measure.value == 1.0
    assert measure.low > measure.chance


def test_a_missing_mask_gives_owners_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted failure: clients that forget the masks between each other."""
    monkeypatch.setattr(pairwise_client, "MaskStream", lambda masks: MaskStream(masks[:1]))
    claim = Attribution().claim(record(CLIENTS, PAIRWISE).view(["server"]), KNOWN, rng())
    assert Attribution().judge(claim, TRUTH)[0].value == 1.0


def test_many_rows_a_client_are_told_by_leverage() -> None:
    clients = relu_clients([60, 70, 80], dim=40)
    known, truth = membership_game(clients, 40, 10, 10)
    claim = Attribution().claim(record(clients, PLAIN).view(["server"]), known, rng())
    (measure,) = Attribution().judge(claim, truth)
    assert measure.low > 0.6


def test_colluding_clients_rule_themselves_out() -> None:
    run = record(CLIENTS, PAIRWISE)
    claim = Attribution().claim(run.view(["server", "c0", "c1"]), KNOWN, rng())
    (measure,) = Attribution().judge(claim, TRUTH, 0.999999)
    assert measure.trials == 110
    assert measure.low < 0.5 < measure.high


def test_attribution_without_a_view_or_rows() -> None:
    run = record(CLIENTS, PAIRWISE)
    assert Attribution().claim(run.view([]), KNOWN, rng()) is None
    (measure,) = Attribution().judge(None, TRUTH)
    assert (measure.value, measure.chance, measure.trials) == (0.25, 0.25, 0)
    with pytest.raises(ConfigError, match="candidates"):
        Attribution().claim(run.view(["server"]), Known(), rng())


@pytest.mark.parametrize(
    ("protocol", "coalition"),
    [case for case in BLIND if case[1] not in (AGGREGATORS[1:], ["key_holder"])],
    ids=name_of,
)
def test_masked_uploads_are_told_from_random_by_chance_only(
    protocol: Protocol, coalition: list[str]
) -> None:
    claim = Uniformity().claim(record(CLIENTS, protocol).view(coalition), Known(), rng())
    (measure,) = Uniformity().judge(claim, truth_of(CLIENTS), 0.999999)
    assert (measure.chance, measure.trials) == (0.01, 4)
    assert measure.low <= measure.chance


@pytest.mark.parametrize(("protocol", "coalition"), BROKEN[:4], ids=name_of)
def test_open_uploads_are_told_from_random(protocol: Protocol, coalition: list[str]) -> None:
    claim = Uniformity().claim(record(CLIENTS, protocol).view(coalition), Known(), rng())
    (measure,) = Uniformity().judge(claim, truth_of(CLIENTS))
    assert measure.value == 1.0


def test_uniformity_over_rounds_of_updates() -> None:
    run = record(CLIENTS, PAIRWISE, FedAvg(rounds=3, seed=1))
    claim = Uniformity().claim(run.view(["server"]), Known(), rng())
    (measure,) = Uniformity().judge(claim, truth_of(CLIENTS), 0.999999)
    assert measure.low <= measure.chance
    assert by_metric([measure])


def test_seeds_alone_are_too_short_to_test() -> None:
    run = record(CLIENTS, ADDITIVE)
    assert Uniformity().claim(run.view(["aggregator_1"]), Known(), rng()) is None
    assert Uniformity().judge(None, truth_of(CLIENTS))[0].trials == 0
