"""The wire format is what the test vectors say: old messages open, and the same bytes come out."""

import hashlib
import json
from typing import Any

import msgspec
import numpy as np
import pytest

from protocols import Block, Enrolment, Layout, Member, Plain, Roster, Session
from protocols import message as messages
from protocols.codec import WIRE_VERSION, decode, encode
from protocols.errors import BadKey, BadSavedState, InvalidSession, Malformed
from protocols.message import Message
from protocols.release import Release, commit, next_context, release_salt
from protocols.session import SessionHeader
from tests.kit.worlds import Route, World, make_world, messages_of, run
from tests.protocols.make_vectors import FOLDER, PROTOCOLS, RINGS, STATE, VECTORS, shortened


def load(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


NAMES = [protocol.name for protocol in PROTOCOLS]
CASES: dict[str, dict[str, Any]] = {name: load(name) for name in NAMES}
RING_CASES: list[dict[str, Any]] = load("rings")["rings"]
OLD: dict[str, Any] = json.loads((VECTORS / "v1" / "protocols.json").read_text(encoding="utf-8"))

SESSIONS = pytest.mark.parametrize("case", CASES.values(), ids=NAMES)
OLD_SESSIONS = pytest.mark.parametrize("case", OLD["sessions"], ids=lambda case: case["protocol"])


def the_world(case: dict[str, Any]) -> World:
    (protocol,) = (p for p in PROTOCOLS if encode(p).hex() == case["parameters"])
    enrolments = {n: Enrolment.load(bytes.fromhex(e)) for n, e in case["enrolments"].items()}
    vectors = {n: np.array(v, dtype=np.int64) for n, v in case["vectors"].items()}
    roster = decode(bytes.fromhex(case["roster"]), Roster)
    members = [decode(bytes.fromhex(member), Member) for member in case["members"]]
    session = Session.read(bytes.fromhex(case["header"]), roster, members=members)
    return World(protocol, session, enrolments, vectors)


def said_again(case: dict[str, Any]) -> tuple[World, Any, dict[Route, bytes]]:
    """The run that the file records, from the parties' saved states."""
    world = the_world(case)
    parties = [world.load(name, bytes.fromhex(case["begun"][name])) for name in case["order"]]
    for party in parties:
        assert party.save().hex() == case["begun"][party.name]
    outcome = run(world, None, parties)
    (release,) = (party.release for party in parties if party.release is not None)
    return world, (outcome, release), messages_of(outcome.transcript)


def test_the_files_cover_every_protocol_and_ring() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {*NAMES, "rings"}
    assert [case["protocol"] for case in CASES.values()] == NAMES
    assert {load(name)["wire_version"] for name in (*NAMES, "rings")} == {WIRE_VERSION}
    assert [case["ring_bits"] for case in RING_CASES] == list(RINGS)
    assert all(path.stat().st_size < 2**18 for path in FOLDER.iterdir())


@pytest.mark.parametrize("case", RING_CASES, ids=lambda case: str(case["ring_bits"]))
def test_rings(case: dict[str, Any]) -> None:
    encoding = bytes.fromhex(case["layout"])
    layout = decode(encoding, Layout)
    assert encode(layout) == encoding
    assert layout == Layout(RINGS[case["ring_bits"]])
    for vector, packed in zip(case["vectors"], case["packed"], strict=True):
        assert layout.pack(layout.embed(np.array(vector, dtype=np.int64))).hex() == packed
    total = layout.unpack(bytes.fromhex(case["packed_total"]))
    assert layout.pack(total).hex() == case["packed_total"]
    decoded = layout.decode(total)
    assert np.array_equal(decoded.total, case["total"])
    assert decoded.outside == ()
    assert [sum(column) for column in zip(*case["vectors"], strict=True)] == case["total"]
    anything = layout.decode(layout.unpack(bytes.fromhex(case["packed_anything"])))
    assert anything.total.tolist() == case["anything"]
    assert [list(count) for count in anything.outside] == case["outside"]


@SESSIONS
def test_sessions(case: dict[str, Any]) -> None:
    world = the_world(case)
    session = world.session
    assert encode(session.header).hex() == case["header"]
    assert session.thin.hex() == case["roster"]
    assert session.id.hex() == case["id"]
    # The ids once more, from the encodings and without this package's help.
    tagged = b"\x92" + msgspec.msgpack.encode("secure-afl/2 session")
    assert hashlib.sha256(tagged + bytes.fromhex(case["header"])).hexdigest() == case["id"]
    roster = hashlib.sha256(b"secure-afl/2 roster" + bytes.fromhex(case["roster"]))
    assert roster.digest() == session.header.roster
    enrolled = hashlib.sha256(b"secure-afl/2 enrolments" + bytes.fromhex("".join(case["members"])))
    assert enrolled.digest() == session.header.enrolments
    for name, enrolment in world.enrolments.items():
        assert enrolment.save().hex() == case["enrolments"][name]
        assert enrolment.member == session.member(name)
    # A client, which has no enrolments, is in the same session.
    assert Session.read(bytes.fromhex(case["header"]), session.roster).id == session.id
    # Fields at rest would hide how they are written.
    header = session.header
    assert (session.clients, header.participants) == (("client0", "client1", "client2"), b"\x0b")
    assert (header.round, header.attempt, header.same_set) == (2, 1, b"\x0b")
    assert [session.member(name).bound for name in session.clients] == [2**63 - 1, 100, 0]


@SESSIONS
def test_messages_open(case: dict[str, Any]) -> None:
    world, _, again = said_again(case)
    assert case["messages"]
    for entry in case["messages"]:
        written = entry["message"]
        route = Route(entry["sender"], entry["recipient"], entry["step"])
        data = bytes.fromhex(written) if isinstance(written, str) else again[route]
        message = decode(data, Message)
        assert encode(message) == data
        assert encode(message.header) == message.header_bytes
        header = messages.check(world.session, entry["recipient"], message)
        assert (header.sender, header.step) == (entry["sender"], entry["step"])
        content = messages.unseal(
            world.session, world.enrolments[entry["recipient"]], header, message.body
        )
        assert shortened(content) == entry["content"]
        recipient = type(world.party(entry["recipient"]))
        assert encode(decode(content, recipient.steps[entry["step"]].content)) == content


@SESSIONS
def test_parties_go_on_from_where_they_were(case: dict[str, Any]) -> None:
    """Saved states load, and say to the byte what they said when the file was written."""
    world, (outcome, release), again = said_again(case)
    assert {tuple(route): shortened(data) for route, data in again.items()} == {
        (e["sender"], e["recipient"], e["step"]): e["message"] for e in case["messages"]
    }
    for name, record in outcome.transcript.items():
        assert shortened(record.held[-1]) == case["ended"][name]
    assert list(outcome.included) == case["included"]
    assert np.array_equal(outcome.total.total, case["total"])
    assert encode(release).hex() == case["release"]
    assert decode(bytes.fromhex(case["release"]), Release) == release
    release.check(world.session.line(world.protocol.receiver))
    salt = release_salt(world.session, world.enrolments[world.protocol.receiver].identity)
    assert release.total == commit(np.array(case["total"]), salt)
    assert next_context(world.session.context, release, STATE).hex() == case["next_context"]


# Version 1, of which nothing is understood


def test_the_old_file_is_of_version_1() -> None:
    assert OLD["wire_version"] == 1
    assert len(OLD["sessions"]) == 3


@OLD_SESSIONS
def test_sessions_of_version_1_are_refused_with_both_versions_named(case: dict[str, Any]) -> None:
    pinned = Roster.of([])
    for roster in (pinned, None):
        with pytest.raises(InvalidSession, match=r"^wire version 1, wanted 2\. .* same version"):
            Session.read(bytes.fromhex(case["session"]), roster, thin=encode(pinned))
    with pytest.raises(Malformed, match="not a SessionHeader"):
        decode(bytes.fromhex(case["session"]), SessionHeader)


@OLD_SESSIONS
def test_messages_of_version_1_are_refused_with_both_versions_named(case: dict[str, Any]) -> None:
    layout = Layout((Block("all", 3, -100, 100),))
    party = make_world(Plain(), [np.arange(3)] * 3, layout, min_cohort=2).party("server")
    party.start()
    before = party.save()
    assert case["messages"]
    for entry in case["messages"]:
        data = bytes.fromhex(entry["message"])
        with pytest.raises(Malformed, match=r"^server: wire version 1, wanted 2\. .* same version"):
            party.take(data)
        with pytest.raises(Malformed, match="wire version 1, wanted 2"):
            _ = decode(data, Message).header
    assert party.save() == before


@OLD_SESSIONS
def test_keys_and_states_of_version_1_are_refused(case: dict[str, Any]) -> None:
    for saved in case["enrolments"].values():
        with pytest.raises(BadKey, match="not a saved enrolment"):
            Enrolment.load(bytes.fromhex(saved))
    world = the_world(CASES[case["protocol"]])
    for kind in ("begun", "ended"):
        for name, state in case[kind].items():
            if name in world.enrolments:
                with pytest.raises(BadSavedState, match=name):
                    world.load(name, bytes.fromhex(state))
