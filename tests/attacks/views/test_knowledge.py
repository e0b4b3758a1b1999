"""A coalition knows exactly the sums that its records open, and they are right to the last bit."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import msgspec
import numpy as np
import pytest

from attacks.measures.metrics import uniformity
from attacks.views.knowledge import (
    SubsetSum,
    finest,
    masked_uploads,
    statistics_of,
    subset_sums,
    targets,
    task_of,
)
from attacks.views.opened import centred
from attacks.views.openings import openings
from attacks.views.run import Record
from protocols.layout import Block, Layout
from protocols.network import Fault, FaultPlan
from protocols.primitives.masks import MaskStream
from protocols.protocol import Protocol
from protocols.schemes.encrypted.protocol import Bfv, Ckks
from protocols.schemes.pairwise import client as pairwise_client
from protocols.schemes.pairwise import messages as pairwise_wire
from protocols.schemes.pairwise.protocol import Pairwise
from protocols.schemes.pairwise.server import CollectingUploads, PairwiseServer
from protocols.session import Session
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.statistics import Statistics
from secure_afl.errors import ConfigError
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL, FedAvg, FedHiP
from tests.kit.runs import (
    ADDITIVE,
    CKKS,
    DROPPING,
    PAIRWISE,
    PLAIN,
    record,
    relu_clients,
    vector_of,
)

CLIENTS = relu_clients([5, 6, 7, 8], dim=40)
ALL = {"c0", "c1", "c2", "c3"}
HOLDERS = ["server", "key_holder"]
AGGREGATORS = ["collector", "aggregator_1", "aggregator_2"]


@cache
def run_of(protocol: Protocol, method: AFL | FedHiP | None = None, drop: str = "") -> Record:
    dropped = [drop] if drop else []
    return record(CLIENTS, protocol, method, drop=dropped, min_cohort=3)


def known_sets(run: Record, coalition: Sequence[str]) -> list[set[str]]:
    """The clients of each sum, once its vector is found to be right."""
    sums = subset_sums(run.view(coalition))
    for found in sums:
        wanted = vector_of(run, [data for data in CLIENTS if data.name in found.clients])
        np.testing.assert_array_equal(found.vector, wanted)
    return [set(found.clients) for found in sums]


def singles(*names: str) -> list[set[str]]:
    return [{name} for name in names]


@pytest.mark.parametrize(
    ("protocol", "coalition", "wanted"),
    [
        (PLAIN, ["server"], [*singles("c0", "c1", "c2", "c3"), ALL]),
        (PLAIN, ["server", "c1"], [*singles("c0", "c2", "c3"), ALL - {"c1"}]),
        (PLAIN, ["c1"], []),
        (ADDITIVE, AGGREGATORS[:1], [ALL]),
        (ADDITIVE, AGGREGATORS[1:], []),
        (ADDITIVE, AGGREGATORS[:2], [ALL]),
        (ADDITIVE, AGGREGATORS, [*singles("c0", "c1", "c2", "c3"), ALL]),
        (ADDITIVE, ["collector", "c0", "c1"], [{"c2", "c3"}]),
        (ADDITIVE, ["collector", "c0", "c1", "c3"], [{"c2"}]),
        (PAIRWISE, ["server"], [ALL]),
        (PAIRWISE, ["server", "c2"], [ALL - {"c2"}]),
        (PAIRWISE, ["server", "c2", "c0", "c1"], [{"c3"}]),
        (PAIRWISE, ["c2", "c0", "c1"], []),
        (CKKS, ["server"], []),
        (CKKS, ["key_holder"], [ALL]),
        (CKKS, HOLDERS, [*singles("c0", "c1", "c2", "c3"), ALL]),
        (CKKS, ["key_holder", "c0", "c1"], [{"c2", "c3"}]),
        (CKKS, ["key_holder", "c0", "c1", "c3"], [{"c2"}]),
        (Ckks(verify=False), HOLDERS, [*singles("c0", "c1", "c2", "c3"), ALL]),
        (Ckks(verify=False), ["key_holder", "c0", "c1", "c3"], [{"c2"}]),
        (Bfv(), HOLDERS, [*singles("c0", "c1", "c2", "c3"), ALL]),
        (Bfv(), ["key_holder", "c0", "c1", "c3"], [{"c2"}]),
        (PLAIN, [], []),
        (PLAIN, ["server", *ALL], []),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_a_coalition_knows(
    protocol: Protocol, coalition: list[str], wanted: list[set[str]]
) -> None:
    assert known_sets(run_of(protocol), coalition) == wanted


@pytest.mark.parametrize("protocol", [PLAIN, ADDITIVE, DROPPING, CKKS], ids=lambda p: p.name)
def test_with_a_client_that_vanished(protocol: Protocol) -> None:
    run = run_of(protocol, drop="c1")
    sees_all = [name for name in run.result.rounds[0].transcript or () if name not in ALL]
    assert known_sets(run, sees_all)[-1] == {"c0", "c2", "c3"}
    assert known_sets(run, [*sees_all, "c0", "c2"])[0] == {"c3"}
    # The one that vanished adds nothing to what the others know.
    assert known_sets(run, [*sees_all, "c1"]) == known_sets(run, sees_all)


def test_the_server_opens_by_itself_what_it_releases() -> None:
    """With the mask key of the one that vanished, and before anything was released to it."""
    seen = run_of(DROPPING, drop="c1").view(["server"]).rounds[0]
    (clients,) = openings(seen).sums
    assert clients == {"c0", "c2", "c3"}
    assert seen.released is not None
    np.testing.assert_array_equal(openings(seen).sums[clients], seen.released.total)


def test_before_the_unmasking_the_server_has_nothing() -> None:
    seen = run_of(PAIRWISE).view(["server"]).rounds[0]
    steps = [header.step for header, _ in seen.received("server")]
    earlier = steps.index(pairwise_wire.UNMASK)
    whole = seen.records["server"]
    cut = replace(whole, received=whole.received[:earlier])
    unfinished = replace(seen, records={"server": cut}, released=None)
    assert openings(unfinished).sums == {}
    assert len(openings(unfinished).left) == 4


def test_a_part_of_a_sum_may_be_out_of_the_sums_bounds() -> None:
    layout = Layout((Block("weights", 2, 5, 2**20), Block("losses", 1, -(2**20), -5)))
    part = np.array([0, 3, -1])
    np.testing.assert_array_equal(centred(layout, layout.embed(part)), part)


def test_colluders_around_a_client_open_it_beyond_subtraction() -> None:
    """In a sparse graph a victim's neighbours are enough, if nobody else masks with it."""
    clients = relu_clients([2] * 60, dim=3)
    protocol = Pairwise(corrupt_fraction=0.05, dropout_fraction=0.0, server_trust="curious")
    run = record(clients, protocol)
    names = [data.name for data in clients]
    server = run.view(["server"]).rounds[0]
    state = server.held("server", PairwiseServer, CollectingUploads)
    assert state is not None
    assert pairwise_wire.parameters_of(server.session).neighbours < len(names) - 1
    around = next(node.holders for node in state.nodes if node.name == "c7")
    sums = subset_sums(run.view(["server", *around]))
    assert sums[0].clients == {"c7"}
    np.testing.assert_array_equal(sums[0].vector, vector_of(run, [clients[7]]))
    assert all(len(found.clients) > 1 for found in subset_sums(run.view(["server", *around[1:]])))


@pytest.mark.parametrize(
    ("reading", "coalition", "wanted"),
    [
        ("joint", ["c0"], [ALL - {"c0"}]),
        ("joint", ["c0", "c1", "c3"], [{"c2"}]),
        ("joint", ["aggregator_1"], [ALL]),
        ("proximal", ["c0"], []),
        ("proximal", ["c0", "c1", "c3"], []),
    ],
)
def test_fedhip_broadcast(reading: str, coalition: list[str], wanted: list[set[str]]) -> None:
    method = FedHiP() if reading == "joint" else FedHiP(personal="proximal")
    assert known_sets(run_of(ADDITIVE, method), coalition) == wanted


def test_a_pairwise_client_knows_who_is_in_the_broadcast_sum() -> None:
    assert known_sets(run_of(DROPPING, FedHiP(), drop="c1"), ["c0"]) == [{"c2", "c3"}]


@pytest.mark.parametrize("bits", [4, 12])
def test_own_vectors_in_every_ring(bits: int) -> None:
    """Wide rings, and bounds that ciphertexts hold in limbs only."""
    clients = relu_clients([3, 4], dim=6)
    for protocol in (PLAIN, ADDITIVE, PAIRWISE, CKKS, Bfv()):
        run = record(clients, protocol, bits=bits, max_rows=2**20)
        own = openings(run.view(["c0"]).rounds[0]).own
        np.testing.assert_array_equal(own["c0"], vector_of(run, clients[:1]))


def test_duplicated_and_reloaded_messages_change_nothing() -> None:
    plan = FaultPlan((Fault("duplicate"),), reload=True, shuffle=3)
    federation = Federation(AFL(), ADDITIVE, feature_bits=8)
    run = Record(AFL(), ADDITIVE, federation.run(CLIENTS, plan=plan, record=True))
    assert known_sets(run, AGGREGATORS) == [*singles("c0", "c1", "c2", "c3"), ALL]


def test_a_damaged_message_is_not_known() -> None:
    plan = FaultPlan((Fault("tamper", "c1", "aggregator_2"),))
    federation = Federation(AFL(), ADDITIVE, feature_bits=8, min_cohort=3)
    run = Record(AFL(), ADDITIVE, federation.run(CLIENTS, plan=plan, record=True))
    assert known_sets(run, AGGREGATORS) == [*singles("c0", "c2", "c3"), ALL - {"c1"}]


@pytest.mark.parametrize(
    ("protocol", "coalition"),
    [
        (ADDITIVE, AGGREGATORS[:1]),
        (ADDITIVE, AGGREGATORS[:2]),
        (PAIRWISE, ["server"]),
        (PAIRWISE, ["server", "c0", "c1"]),
        (CKKS, ["server"]),
        (Bfv(), ["server"]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_masked_uploads_look_at_random(protocol: Protocol, coalition: list[str]) -> None:
    uploads = masked_uploads(run_of(protocol).view(coalition))
    assert [name for name, _ in uploads] == sorted(ALL - set(coalition))
    # Each would fail once in a million times.
    assert all(uniformity(data) > 1e-6 for _, data in uploads)


def test_seeds_at_the_other_aggregators() -> None:
    uploads = masked_uploads(run_of(ADDITIVE).view(AGGREGATORS[1:]))
    assert [len(data) for _, data in uploads] == [64] * 4
    assert len({data for _, data in uploads}) == 4


@pytest.mark.parametrize(
    ("protocol", "coalition"),
    [
        (PLAIN, ["server"]),
        (ADDITIVE, AGGREGATORS),
        (PAIRWISE, ["server", "c0", "c1", "c2"]),
        (CKKS, HOLDERS),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_opened_uploads_do_not(protocol: Protocol, coalition: list[str]) -> None:
    uploads = masked_uploads(run_of(protocol).view(coalition))
    assert uploads
    assert all(uniformity(data) < 1e-12 for _, data in uploads)


def test_a_mask_that_is_missing_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted failure: clients that forget the masks between each other."""
    monkeypatch.setattr(pairwise_client, "MaskStream", lambda masks: MaskStream(masks[:1]))
    run = record(CLIENTS, PAIRWISE)
    uploads = masked_uploads(run.view(["server"]))
    assert all(uniformity(data) < 1e-12 for _, data in uploads)


def test_statistics_and_targets() -> None:
    run = run_of(PLAIN)
    view = run.view(["server"])
    sums = subset_sums(view)
    statistics = statistics_of(view, sums[0])
    data, task = CLIENTS[0], task_of(view)
    wanted = Statistics.of(data.features, data.labels, 3, task.quantiser)
    np.testing.assert_array_equal(statistics.pack(), wanted.pack())
    found = targets(view)
    assert [set(target.clients) for target in found] == singles("c0", "c1", "c2", "c3")
    assert found[0].quantiser == Quantiser(8)
    assert targets(run.view([])) == []
    with pytest.raises(ConfigError, match="outsider"):
        task_of(run.view([]))


def test_sums_of_something_else_are_no_statistics() -> None:
    run = record(CLIENTS, PLAIN, FedAvg(rounds=2, seed=1))
    view = run.view(["server"])
    assert targets(view) == []
    second = subset_sums(view, 1)
    assert [set(found.clients) for found in second[:4]] == singles("c0", "c1", "c2", "c3")
    total = np.sum([found.vector for found in second[:4]], axis=0)
    np.testing.assert_array_equal(total, run.result.rounds[1].released.total)
    with pytest.raises(ConfigError, match="summed update, weight"):
        statistics_of(view, second[0], 1)


def test_finest_keeps_no_client_twice() -> None:
    vector = np.zeros(1, dtype=np.int64)
    sums = [SubsetSum(frozenset(names), vector) for names in ("a", "bc", "abc", "de")]
    assert [set(found.clients) for found in finest(sums)] == [{"a"}, {"b", "c"}, {"d", "e"}]


def test_another_protocol_opens_nothing() -> None:
    view = run_of(PLAIN).view(["server"]).rounds[0]
    header = msgspec.structs.replace(view.session.header, protocol="other")
    foreign = replace(view, session=Session(header, view.session.roster))
    assert openings(foreign).sums == {}


def test_reprs_show_no_secrets() -> None:
    view = run_of(PLAIN).view(["server"])
    shown = f"{subset_sums(view)} {openings(view.rounds[0])} {targets(view)}"
    assert "array" not in shown
    assert "b'" not in shown
