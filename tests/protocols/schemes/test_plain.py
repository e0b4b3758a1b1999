"""The protocol without protection passes the shared suite, and some tests of its own."""

import numpy as np
import pytest

from protocols import Block, Fault, FaultPlan, Layout, Plain
from protocols.codec import decode, encode
from protocols.errors import BelowThreshold, Malformed, Replayed, UnexpectedStep
from protocols.schemes.plain import ClearVector
from tests.kit.protocols import ProtocolSuite
from tests.kit.worlds import World, make_world, run

LAYOUT = Layout((Block("free", 1, -(2**31), 2**31 - 1), Block("tight", 2, -10, 10)))


class TestPlain(ProtocolSuite):
    protocol = Plain()


@pytest.fixture
def world() -> World:
    vectors = [np.array([k, -1, 1]) for k in range(4)]
    return make_world(Plain(), vectors, LAYOUT, min_cohort=2)


def test_the_server_waits_for_everybody_or_its_deadline(world: World) -> None:
    server, *clients = world.parties()
    assert server.awaits is None
    assert server.start() == []
    for client in clients[:-1]:
        (upload,) = client.start()
        assert client.awaits is None
        assert server.awaits == "upload"
        assert server.receive(upload) == []
        assert server.result is None
    (upload,) = clients[-1].start()
    server.receive(upload)
    assert server.awaits is None
    assert server.result is not None
    assert np.array_equal(server.result.total, [6, -4, 4])
    assert server.result.included == ("client0", "client1", "client2", "client3")


def test_the_deadline_releases_at_the_minimum_cohort(world: World) -> None:
    server, *clients = world.parties()
    server.start()
    for client in clients[:2]:
        server.receive(client.start()[0])
    server.deadline("upload")
    assert server.result is not None
    assert server.result.included == ("client0", "client1")
    with pytest.raises(UnexpectedStep, match="uploads are closed"):
        server.receive(clients[2].start()[0])


def test_the_deadline_below_the_minimum_cohort_aborts_for_good(world: World) -> None:
    server, *clients = world.parties()
    server.start()
    server.receive(clients[0].start()[0])
    with pytest.raises(BelowThreshold, match="1 clients contributed, wanted ≥ 2"):
        server.deadline("upload")
    assert server.deadline("upload") == []
    for client in clients:
        with pytest.raises(UnexpectedStep, match="server at step 'upload': uploads are closed"):
            server.receive(client.start()[0])
    assert server.result is None


def test_a_second_upload_of_one_client_is_replayed_even_with_new_content(world: World) -> None:
    server, client, *_ = world.parties()
    server.start()
    server.receive(client.start()[0])
    before = server.save()
    other = encode(ClearVector(bytes(LAYOUT.packed_bytes)))
    forged = world.forge(world.enrolments["client0"], "server", "upload", other)
    with pytest.raises(Replayed, match="'client0' has uploaded before"):
        server.receive(forged)
    assert server.save() == before


@pytest.mark.parametrize("length", [0, 1, 11, 13, 24])
def test_an_upload_of_another_length_is_malformed(world: World, length: int) -> None:
    forged = world.forge(
        world.enrolments["client1"], "server", "upload", encode(ClearVector(bytes(length)))
    )
    fault = Fault("tamper", sender="client1", tamper=lambda _: encode(forged))
    outcome = run(world, FaultPlan((fault,)))
    (refused,) = outcome.rejections_at("server")
    assert isinstance(refused, Malformed)
    assert f"'client1': packed vector has {length} bytes, wanted 12" in str(refused)
    assert outcome.included == ("client0", "client2", "client3")


def test_a_liar_beyond_the_bounds_is_counted_and_ends_nothing(world: World) -> None:
    """In the ring nobody can tell who it was; who receives the sum can tell that it was."""
    for lie, where in (
        ([0, 11 + 3, 0], 1),
        ([0, 0, -11 - 3], 1),
        ([0, 2**30, 2**30], 2),
        ([0, -(2**31), 0], 1),
    ):
        vector = np.array(lie, dtype=np.int64).astype(np.uint32)
        said = encode(ClearVector(LAYOUT.pack(vector)))
        forged = world.forge(world.enrolments["client1"], "server", "upload", said)
        fault = Fault("tamper", sender="client1", tamper=lambda _, f=forged: encode(f))  # type: ignore[misc]
        outcome = run(world, FaultPlan((fault,)), exact=False)
        assert outcome.total is not None
        assert outcome.total.outside == (("tight", where),)
        honest = world.truth(name for name in outcome.included if name != "client1")
        assert np.array_equal(LAYOUT.embed(outcome.total.total - honest), vector)


def test_the_server_sees_every_vector(world: World) -> None:
    """What `protects` says: nothing. The baseline of leakage has to leak."""
    assert Plain.protects.startswith("nothing")
    outcome = run(world)
    seen = [
        decode(world.content(data), ClearVector) for data in outcome.transcript["server"].received
    ]
    for upload, name in zip(seen, world.session.clients, strict=True):
        assert np.array_equal(
            LAYOUT.decode(LAYOUT.unpack(upload.vector)).total, world.vectors[name]
        )
