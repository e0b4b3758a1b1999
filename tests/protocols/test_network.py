"""The in-process network does to messages what its plan says, and records what happened."""

from typing import Any

import numpy as np
import pytest

from protocols import Block, Fault, FaultPlan, Layout, Network, Party, Plain
from protocols.codec import decode, encode
from protocols.errors import (
    BadSeal,
    BelowThreshold,
    Malformed,
    Replayed,
    SessionAborted,
    UnexpectedStep,
)
from protocols.message import Message
from protocols.network import PartyRecord, flip_a_bit
from protocols.party import Aborted, Fresh, State
from tests.kit.worlds import make_world, run

LAYOUT = Layout((Block("all", 4, -1000, 1000),))
WORLD = make_world(
    Plain(), [np.arange(4) * (k + 1) for k in range(5)], LAYOUT, min_cohort=2, corrupt=0
)
CLIENTS = WORLD.session.clients
EVERYBODY = tuple(sorted(CLIENTS))


def but(*names: str) -> tuple[str, ...]:
    return tuple(name for name in EVERYBODY if name not in names)


def test_a_clean_run_is_recorded_in_full() -> None:
    outcome = run(WORLD)
    assert outcome.included == EVERYBODY
    assert outcome.network.rejections == []
    assert outcome.network.aborts == {}
    sent = [data for name in CLIENTS for data in outcome.transcript[name].sent]
    assert outcome.transcript["server"].received == sent
    assert outcome.transcript["server"].sent == []
    assert len(sent) == 5
    for name, record in outcome.transcript.items():
        assert outcome.network.sent_bytes.get(name, 0) == sum(map(len, record.sent))
        assert outcome.network.seconds[name] > 0
        # One state after the start, and one after every message.
        assert len(record.held) == 1 + len(record.received)
        assert record.keys == WORLD.enrolments[name].save()
    included = [WORLD.load("server", held).result for held in outcome.transcript["server"].held]
    assert [result is None for result in included] == [True] * 5 + [False]


def test_without_record_nothing_is_kept() -> None:
    network = Network(WORLD.parties())
    assert network.run().included == EVERYBODY
    assert network.transcript is None


def test_a_lost_message_was_sent_and_never_arrives() -> None:
    outcome = run(WORLD, FaultPlan((Fault("lose", sender="client1"),)))
    assert outcome.included == but("client1")
    assert len(outcome.transcript["client1"].sent) == 1
    assert len(outcome.transcript["server"].received) == 4
    assert outcome.network.sent_bytes["client1"] > 0
    assert outcome.network.rejections == []


def test_a_vanished_party_has_sent_nothing() -> None:
    outcome = run(WORLD, FaultPlan(vanish={"client1": "upload"}))
    assert outcome.included == but("client1")
    assert outcome.transcript["client1"].sent == []
    assert "client1" not in outcome.network.sent_bytes
    assert len(outcome.transcript["server"].received) == 4


def test_vanishing_at_a_step_that_never_comes_changes_nothing() -> None:
    outcome = run(WORLD, FaultPlan(vanish={"client1": "no such step", "server": "upload"}))
    assert outcome.included == EVERYBODY


def test_a_delayed_message_arrives_after_the_deadline() -> None:
    outcome = run(WORLD, FaultPlan((Fault("delay", sender="client1"),)))
    assert outcome.included == but("client1")
    assert len(outcome.transcript["server"].received) == 5
    (refused,) = outcome.rejections_at("server")
    assert isinstance(refused, UnexpectedStep)


def test_a_duplicate_arrives_twice() -> None:
    outcome = run(WORLD, FaultPlan((Fault("duplicate", sender="client1"),)))
    received = outcome.transcript["server"].received
    assert len(received) == 6
    assert received[1] == received[2]
    assert len(outcome.transcript["client1"].sent) == 1
    (refused,) = outcome.rejections_at("server")
    assert isinstance(refused, Replayed)
    assert "client1" in str(refused)


def test_a_tampered_message_arrives_as_it_was_made() -> None:
    outcome = run(WORLD, FaultPlan((Fault("tamper", sender="client1", tamper=lambda _: b"!"),)))
    assert outcome.transcript["server"].received[1] == b"!"
    assert len(outcome.transcript["client1"].sent[0]) > 1000
    (refused,) = outcome.rejections_at("server")
    assert isinstance(refused, Malformed)
    assert outcome.included == but("client1")


def test_the_default_tampering_flips_a_bit() -> None:
    for length in (1, 2, 9):
        data = bytes(range(length))
        flipped = flip_a_bit(data)
        assert len(flipped) == length
        assert sum((a ^ b).bit_count() for a, b in zip(data, flipped, strict=True)) == 1
    outcome = run(WORLD, FaultPlan((Fault("tamper", sender="client1"),)))
    assert outcome.included == but("client1")


def test_faults_add_up_in_their_order() -> None:
    faults = (
        Fault("duplicate", sender="client0"),
        Fault("tamper", sender="client0", tamper=lambda data: data[:-1]),
        Fault("tamper", sender="client0", tamper=lambda data: data[:-1]),
    )
    outcome = run(WORLD, FaultPlan(faults))
    first, second, *_ = outcome.transcript["server"].received
    assert second == first[:-2]
    assert outcome.included == EVERYBODY


@pytest.mark.parametrize(
    ("fault", "struck"),
    [
        (Fault("lose"), True),
        (Fault("lose", sender="a"), True),
        (Fault("lose", recipient="b"), True),
        (Fault("lose", step="s"), True),
        (Fault("lose", "a", "b", "s"), True),
        (Fault("lose", sender="b"), False),
        (Fault("lose", "a", "a", "s"), False),
        (Fault("lose", "a", "b", "t"), False),
        (Fault("lose", sender=""), False),
    ],
)
def test_a_fault_strikes_what_matches(fault: Fault, struck: bool) -> None:
    assert fault.matches("a", "b", "s") is struck


def test_a_shuffle_is_an_order_and_its_seed_repeats_it() -> None:
    def arrivals(seed: int | None) -> list[str]:
        received = run(WORLD, FaultPlan(shuffle=seed)).transcript["server"].received
        return [decode(data, Message).header.sender for data in received]

    orders = [arrivals(seed) for seed in range(8)]
    assert orders == [arrivals(seed) for seed in range(8)]
    assert len({tuple(order) for order in orders}) > 1
    assert all(sorted(order) == list(EVERYBODY) for order in orders)
    assert arrivals(None) == list(CLIENTS)


def test_messages_to_nobody_are_dropped() -> None:
    network = Network([party for party in WORLD.parties() if party.name != "server"])
    with pytest.raises(SessionAborted, match="no party has a sum"):
        network.run()


def test_an_abort_keeps_its_type_and_is_recorded() -> None:
    network = Network(WORLD.parties(), FaultPlan((Fault("lose"),)))
    with pytest.raises(BelowThreshold, match="0 clients contributed, wanted ≥ 2") as caught:
        network.run()
    assert network.aborts == {"server": caught.value}


class Deaf(Party):
    """Awaits a step for ever."""

    role = "server"
    states = Fresh | Aborted

    def _begin(self, secret: bytes) -> State:
        return Fresh()

    @property
    def awaits(self) -> str | None:
        return "upload"


def test_a_party_that_waits_for_ever_ends_the_run() -> None:
    deaf = Deaf(WORLD.session, WORLD.enrolments["server"])
    with pytest.raises(SessionAborted, match="deadlines passed and changed nothing"):
        Network([deaf]).run()


def test_reloaded_parties_are_other_objects_and_end_alike() -> None:
    parties = WORLD.parties()
    network = Network(parties, FaultPlan(reload=True))
    assert network.run().included == EVERYBODY
    assert all(party.result is None for party in parties)


def test_forged_content_is_refused_and_named() -> None:
    forged = WORLD.forge(WORLD.enrolments["client1"], "server", "upload", b"\x91\xc4\x00")
    broken = encode(Message(forged.header_bytes, forged.signature, b"other"))
    for data, wanted in ((encode(forged), Malformed), (broken, BadSeal)):
        fault = Fault("tamper", sender="client1", tamper=lambda _, data=data: data)  # type: ignore[misc]
        outcome = run(WORLD, FaultPlan((fault,)))
        (refused,) = outcome.rejections_at("server")
        assert isinstance(refused, wanted)
        assert "client1" in str(refused)
        assert outcome.included == but("client1")


def test_records_hide_what_they_hold() -> None:
    outcome = run(WORLD)
    record = outcome.transcript["server"]
    assert repr(record) == "<PartyRecord: 0 sent, 5 received>"
    assert repr(PartyRecord(b"keys")) == "<PartyRecord: 0 sent, 0 received>"


@pytest.mark.parametrize("action", ["lose", "delay", "tamper", "duplicate"])
def test_a_fault_on_other_steps_strikes_nothing(action: Any) -> None:
    outcome = run(WORLD, FaultPlan((Fault(action, step="no such step"),)))
    assert outcome.included == EVERYBODY
    assert outcome.network.rejections == []
