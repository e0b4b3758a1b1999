"""The wire format is what the test vectors say: old messages open, and the same bytes come out."""

import hashlib
import json
from typing import Any

import msgspec
import numpy as np
import pytest

from protocols import Enrolment, Layout, Session
from protocols import message as messages
from protocols.codec import WIRE_VERSION, decode, encode
from protocols.message import Message
from tests.kit.worlds import World, messages_of, run
from tests.protocols.make_vectors import PATH, PROTOCOLS, RINGS

VECTORS: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
SESSIONS = pytest.mark.parametrize("case", VECTORS["sessions"], ids=lambda case: case["protocol"])


def the_world(case: dict[str, Any]) -> World:
    (protocol,) = (p for p in PROTOCOLS if encode(p).hex() == case["parameters"])
    enrolments = {n: Enrolment.load(bytes.fromhex(e)) for n, e in case["enrolments"].items()}
    vectors = {n: np.array(v, dtype=np.int64) for n, v in case["vectors"].items()}
    return World(protocol, decode(bytes.fromhex(case["session"]), Session), enrolments, vectors)


def test_the_file_covers_every_protocol_and_ring() -> None:
    assert VECTORS["wire_version"] == WIRE_VERSION
    assert [case["ring_bits"] for case in VECTORS["rings"]] == list(RINGS)
    assert [case["protocol"] for case in VECTORS["sessions"]] == [p.name for p in PROTOCOLS]


@pytest.mark.parametrize("case", VECTORS["rings"], ids=lambda case: str(case["ring_bits"]))
def test_rings(case: dict[str, Any]) -> None:
    encoding = bytes.fromhex(case["layout"])
    layout = decode(encoding, Layout)
    assert encode(layout) == encoding
    assert layout.ring_bits == case["ring_bits"]
    for vector, packed in zip(case["vectors"], case["packed"], strict=True):
        assert layout.pack(layout.embed(np.array(vector, dtype=np.int64))).hex() == packed
    total = layout.unpack(bytes.fromhex(case["packed_total"]))
    assert layout.pack(total).hex() == case["packed_total"]
    assert np.array_equal(layout.decode(total), case["total"])
    assert [sum(column) for column in zip(*case["vectors"], strict=True)] == case["total"]


@SESSIONS
def test_sessions(case: dict[str, Any]) -> None:
    world = the_world(case)
    assert encode(world.session).hex() == case["session"]
    assert world.session.id.hex() == case["id"]
    # The id once more, from the encoding and without this package's help.
    tagged = b"\x92" + msgspec.msgpack.encode("secure-afl/1 session")
    assert hashlib.sha256(tagged + bytes.fromhex(case["session"])).hexdigest() == case["id"]
    for name, enrolment in world.enrolments.items():
        assert enrolment.save().hex() == case["enrolments"][name]
        assert enrolment.member == world.session.member(name)


@SESSIONS
def test_messages_open(case: dict[str, Any]) -> None:
    world = the_world(case)
    assert case["messages"]
    for entry in case["messages"]:
        data = bytes.fromhex(entry["message"])
        message = decode(data, Message)
        assert encode(message) == data
        assert encode(message.header) == message.header_bytes
        header = messages.check(world.session, entry["recipient"], message)
        assert (header.sender, header.step) == (entry["sender"], entry["step"])
        content = messages.unseal(
            world.session, world.enrolments[entry["recipient"]], header, message.body
        )
        assert content.hex() == entry["content"]
        recipient = type(world.party(entry["recipient"]))
        assert encode(decode(content, recipient.steps[entry["step"]].content)) == content


@SESSIONS
def test_parties_go_on_from_where_they_were(case: dict[str, Any]) -> None:
    """Saved states load, and say to the byte what they said when the file was written."""
    world = the_world(case)
    parties = [world.load(name, bytes.fromhex(case["begun"][name])) for name in case["order"]]
    for party in parties:
        assert party.save().hex() == case["begun"][party.name]
    outcome = run(world, None, parties)
    assert outcome.total is not None
    said = {tuple(route): data.hex() for route, data in messages_of(outcome.transcript).items()}
    assert said == {
        (e["sender"], e["recipient"], e["step"]): e["message"] for e in case["messages"]
    }
    for name, record in outcome.transcript.items():
        assert record.held[-1].hex() == case["ended"][name]
    assert list(outcome.included) == case["included"]
    assert np.array_equal(outcome.total.total, case["total"])
