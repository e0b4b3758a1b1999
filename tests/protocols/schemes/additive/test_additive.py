"""Additive secret sharing: the shared suite, and the attacks that it must refuse."""

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import strategies as st

from protocols import (
    Block,
    Enrolment,
    Fault,
    FaultPlan,
    Identity,
    Layout,
    Network,
    Party,
    Session,
    Sum,
    enrol,
    form_session,
    new_nonce,
)
from protocols import message as messages
from protocols.codec import Wire, decode, encode
from protocols.errors import (
    BadSavedState,
    BelowThreshold,
    CoordinatorMissing,
    InconsistentSurvivors,
    InvalidSession,
    Malformed,
    MessageRejected,
    ProtocolError,
    Replayed,
    SessionAborted,
    UnexpectedStep,
)
from protocols.layout import RING_BITS, Integers
from protocols.message import Message
from protocols.party import Fresh
from protocols.roster import CLIENT, Line, Roster
from protocols.schemes.additive.aggregator import Aggregator, Collector, _agreed_set
from protocols.schemes.additive.messages import (
    AGGREGATOR,
    AGREE,
    COLLECTOR,
    PARTIAL,
    SEED_BYTES,
    UPLOAD,
    VERIFIED,
    Agree,
    Partial,
    Share,
    Verified,
)
from protocols.schemes.additive.protocol import Additive
from protocols.spool import FileSpool, MemorySpool
from protocols.uploads import Upload, Uploads
from tests.kit.protocols import ProtocolSuite
from tests.kit.worlds import (
    Outcome,
    World,
    addends,
    for_all,
    layouts,
    make_world,
    messages_of,
    resigned,
    run,
)

LAYOUT = Layout((Block("signed", 5, -(10**6), 10**6), Block("count", 3, 0, 1000)))
Seeds = st.integers(0, 2**32 - 1)


class TestTwoAggregators(ProtocolSuite):
    protocol = Additive()
    max_routes = 5


@pytest.mark.slow
class TestThreeAggregators(ProtocolSuite):
    protocol = Additive(aggregators=3)
    examples = 10
    max_routes = 6


# Worlds


def new_world(m: int = 2, clients: int = 4, min_cohort: int = 2, layout: Layout = LAYOUT) -> World:
    vectors = addends(random.Random(m * 100 + clients), layout, clients, edges=False)
    return make_world(Additive(aggregators=m), vectors, layout, min_cohort=min_cohort)


class Room:
    """Aggregators that have begun, and the uploads of honest clients, delivered by hand."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.names = list(world.protocol.coordinators())
        self.clients = list(world.session.clients)
        self.aggregators = {name: world.party(name) for name in self.names}
        self.said: list[Message] = []
        for aggregator in self.aggregators.values():
            assert aggregator.start() == []
        self.uploads = {name: by_recipient(world.party(name).start()) for name in self.clients}

    def __getitem__(self, index: int) -> Party:
        return self.aggregators[self.names[index]]

    def upload(self, clients: Iterable[str], to: Iterable[int] | None = None) -> list[Message]:
        """Deliver what these clients have for these aggregators, or for all."""
        said = []
        indices = range(len(self.names)) if to is None else list(to)
        for client in clients:
            for index in indices:
                said += self[index].receive(self.uploads[client][self.names[index]])
        self.said += said
        return said

    def close(self) -> list[Message]:
        return [m for party in self.aggregators.values() for m in party.deadline(UPLOAD)]

    def finish(self) -> None:
        """Close, and deliver all that has been said since the beginning."""
        self.deliver([*self.said, *self.close()])

    def deliver(self, said: Iterable[Message]) -> None:
        """Carry messages, and what is said because of them, until all is quiet."""
        queue = list(said)
        while queue:
            message = queue.pop(0)
            queue += self.aggregators[message.header.recipient].receive(message)

    def lie(self, sender: int, recipient: int, step: str, content: Wire) -> Message:
        enrolment = self.world.enrolments[self.names[sender]]
        return self.world.forge(enrolment, self.names[recipient], step, encode(content))

    def entry(self, client: str, said: Message | None = None) -> Upload:
        """The pair that an aggregator lists for this client's upload."""
        header = (said or self.uploads[client][self.names[0]]).header
        (listed,) = listed_after(self.world, said or self.uploads[client][header.recipient])
        return listed

    def signature(self, signer: int, uploads: Iterable[Upload]) -> Agree:
        identity = self.world.enrolments[self.names[signer]].identity
        return Agree(identity.sign(_agreed_set(self.world.session, tuple(uploads))))

    def verified(self, uploads: Iterable[Upload]) -> Verified:
        """A list of these uploads, as it travels."""
        return Verified(Uploads.of(self.world.session, uploads))

    @property
    def total(self) -> Sum:
        assert self[0].result is not None
        return self[0].result

    def holds_exactly(self, included: Iterable[str]) -> None:
        """The sum is there, over these clients, and right to the last bit."""
        assert self.total.included == tuple(sorted(included))
        assert np.array_equal(self.total.total, self.world.truth(self.total.included))


def by_recipient(said: Iterable[Message]) -> dict[str, Message]:
    return {message.header.recipient: message for message in said}


def steps(said: Iterable[Message]) -> list[str]:
    return [message.header.step for message in said]


def listed_after(world: World, upload: Message) -> tuple[Upload, ...]:
    """What an aggregator lists that has heard this one upload, and then closes."""
    name = upload.header.recipient
    witness = world.protocol.coordinator(world.session, world.enrolments[name])
    witness.start()
    witness.receive(upload)
    message, *_ = witness.deadline(UPLOAD)
    listed = decode(world.content(encode(message)), Verified).uploads
    return listed.read(world.session, name, VERIFIED)


def second_upload(world: World, client: str, vector: Integers | None = None) -> dict[str, Message]:
    """What the client says when it begins again, having lost its state: other seeds."""
    mine = world.vectors[client] if vector is None else vector
    party = world.protocol.client(world.session, world.enrolments[client], lambda _: mine)
    return by_recipient(party.start())


def altered(world: World, message: Message, **changes: Any) -> Message:
    """The message with another header, under its sender's own signature: a lying member's."""
    return resigned(world.enrolments[message.header.sender], message, **changes)


def upload_of(world: World, client: str, shares: Sequence[tuple[str, Share]]) -> list[Message]:
    """A client's upload with these shares, whatever they are."""
    enrolment = world.enrolments[client]
    contents = [
        (messages.open_channel(world.session, enrolment, to, bytes(32)), encode(share))
        for to, share in shares
    ]
    return messages.seal_together(world.session, enrolment, UPLOAD, contents)


def refused(
    party: Party, message: Message, kind: type[ProtocolError], match: str | None = None
) -> None:
    """The party refuses the message, and is as it was."""
    before = party.save()
    with pytest.raises(kind, match=match) as caught:
        party.receive(message)
    assert isinstance(caught.value, MessageRejected)
    assert party.save() == before


def sent(outcome: Outcome, step: str) -> list[Message]:
    found = [decode(m, Message) for r in outcome.transcript.values() for m in r.sent]
    return [message for message in found if message.header.step == step]


@pytest.fixture(params=[2, 3], ids=["two", "three"])
def room(request: pytest.FixtureRequest) -> Room:
    return Room(new_world(request.param))


@pytest.fixture
def pair() -> Room:
    return Room(new_world(2))


@pytest.fixture
def trio() -> Room:
    return Room(new_world(3))


# The terms


@pytest.mark.parametrize("aggregators", [-1, 0, 1, 17])
def test_less_than_two_or_too_many_aggregators_are_refused(aggregators: int) -> None:
    with pytest.raises(InvalidSession, match=rf"{aggregators} aggregators, allowed: 2\.\.16"):
        Additive(aggregators=aggregators)


def test_up_to_sixteen_aggregators_sum() -> None:
    outcome = run(new_world(16, clients=2))
    assert outcome.included == ("client0", "client1")


@pytest.mark.slow
@pytest.mark.parametrize("m", [2, 3])
def test_an_upload_costs_little_more_than_the_packed_vector(m: int) -> None:
    for bits in RING_BITS:
        high = 2 ** (bits - 1) - 1
        world = new_world(m, clients=2, layout=Layout((Block("all", 50_000, -high, high),)))
        network = Network(world.parties())
        network.run()
        for client in world.session.clients:
            assert network.sent_bytes[client] <= 1.01 * world.session.layout.packed_bytes + 10_000


# Counts, rings, drop-outs, restarts


class Restarting(Aggregator):
    """Reloads as a fresh process would: a new object, and a new spool on the same folder."""

    def __init__(self, session: Session, enrolment: Enrolment, folder: Path) -> None:
        super().__init__(session, enrolment, spool=FileSpool(folder))
        self._folder = folder

    def reload(self) -> "Restarting":
        enrolment = Enrolment.load(self.save_keys())
        return type(self)(self.session, enrolment, self._folder).restore(self.save())


class RestartingCollector(Restarting, Collector):
    """The collector that does."""


def restarting(world: World, folder: Path) -> list[Party]:
    kinds = {COLLECTOR: RestartingCollector, AGGREGATOR: Restarting}
    aggregators: list[Party] = [
        kinds[role](world.session, world.enrolments[name], folder / name)
        for name, role in world.protocol.coordinators().items()
    ]
    return [*aggregators, *(world.party(name) for name in world.session.clients)]


def test_any_count_any_ring_any_dropouts_any_restarts(tmp_path: Path) -> None:
    folders = (tmp_path / str(number) for number in itertools.count())

    @for_all(
        24,
        m=st.integers(2, 5),
        bits=st.sampled_from(RING_BITS),
        data=st.data(),
        seed=Seeds,
        lost=st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=4),
        reload=st.booleans(),
        shuffle=st.none() | Seeds,
        twice=st.booleans(),
    )
    def check(
        m: int,
        bits: int,
        data: st.DataObject,
        seed: int,
        lost: set[tuple[int, int]],
        reload: bool,
        shuffle: int | None,
        twice: bool,
    ) -> None:
        layout = data.draw(layouts(bits, 9, through_zero=True))
        vectors = addends(random.Random(seed), layout, 5, edges=False)
        world = make_world(Additive(aggregators=m), vectors, layout, min_cohort=2)
        names = list(world.protocol.coordinators())
        struck = {(f"client{c}", names[a % m]) for c, a in lost}
        faults = [Fault("lose", sender=c, recipient=a, step=UPLOAD) for c, a in struck]
        faults += [Fault("duplicate")] if twice else []
        plan = FaultPlan(tuple(faults), reload=reload, shuffle=shuffle)
        parties = restarting(world, next(folders)) if reload else world.parties()
        outcome = run(world, plan, parties)
        wanted = {*world.session.clients} - {client for client, _ in struck}
        if len(wanted) >= 2:
            assert set(outcome.included) == wanted
        else:
            assert isinstance(outcome.error, BelowThreshold)


class CountingSpool(MemorySpool):
    """A spool that knows whose messages were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def get(self, sender: str) -> bytes:
        self.asked.append(sender)
        return super().get(sender)


@pytest.mark.parametrize("reload", [False, True])
@pytest.mark.parametrize("lost", [(), ("client1",)], ids=["all", "one lost on its way"])
def test_the_spool_is_read_for_exclusions_and_restarts_alone(
    lost: tuple[str, ...], reload: bool
) -> None:
    """The collector has what the other aggregator lost, and takes it out of its running sum."""
    world = new_world(2, clients=5)
    spools = {name: CountingSpool() for name in world.protocol.coordinators()}
    aggregators = [
        world.protocol.coordinator(world.session, world.enrolments[name], spool=spool)
        for name, spool in spools.items()
    ]
    clients = [world.party(name) for name in world.session.clients]
    faults = tuple(Fault("lose", sender=c, recipient="aggregator_1", step=UPLOAD) for c in lost)
    outcome = run(world, FaultPlan(faults, reload=reload), [*aggregators, *clients])
    included = [name for name in world.session.clients if name not in lost]
    assert list(outcome.included) == included
    for name, spool in spools.items():
        left_out = set(lost) if name == COLLECTOR else set()
        assert set(spool.asked) == (set(included) if reload else left_out)


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_an_aggregator_that_vanishes_anywhere_leaves_no_sum(m: int) -> None:
    world = new_world(m)
    clean = run(world)
    for route in {(r.sender, r.step) for r in messages_of(clean.transcript)}:
        if route[0] in world.session.clients:
            continue
        outcome = run(world, FaultPlan(vanish=dict([route])))
        assert isinstance(outcome.error, CoordinatorMissing), route
        released = sent(outcome, PARTIAL)
        assert len(released) <= m - 2 if route[1] == PARTIAL else not released


def test_a_client_that_vanishes_while_uploading_is_left_out(room: Room) -> None:
    for client in room.clients:
        outcome = run(room.world, FaultPlan(vanish={client: UPLOAD}))
        assert outcome.included == tuple(c for c in room.clients if c != client)


@pytest.mark.parametrize("m", [2, 3])
def test_restarts_from_disk_change_no_byte(m: int, tmp_path: Path) -> None:
    world = new_world(m)
    saved = {}
    for party in restarting(world, tmp_path / "begun"):
        party.start()
        saved[party.name] = party.save()
    for shuffle in (None, 1, 2):
        kept, reloaded = (
            run(
                world,
                FaultPlan(reload=reload, shuffle=shuffle),
                [
                    party.restore(saved[party.name])
                    for party in restarting(world, tmp_path / f"{shuffle}{reload}")
                ],
            )
            for reload in (False, True)
        )
        for name, record in kept.transcript.items():
            assert record.sent == reloaded.transcript[name].sent
            assert record.held == reloaded.transcript[name].held
        assert reloaded.included == tuple(world.session.clients)


# What m − 1 aggregators have


def shares_of(world: World, client: str, vector: Integers, secret: bytes) -> dict[str, Share]:
    """The client's shares by aggregator, with the client's entropy fixed."""
    party = world.protocol.client(
        world.session, world.enrolments[client], lambda _: vector, entropy=lambda _: secret
    )
    said = by_recipient(party.start())
    return {to: decode(world.content(encode(m)), Share) for to, m in said.items()}


@pytest.mark.parametrize("bits", RING_BITS)
@pytest.mark.parametrize("m", [2, 3, 5])
def test_only_one_share_depends_on_the_vector(m: int, bits: int) -> None:
    """And that one only by the vector itself: its mask is the same for any vector."""
    high = 2 ** (bits - 1) - 1
    layout = Layout((Block("all", 40, -high, high),))
    world = new_world(m, clients=2, layout=layout)
    one, two = (rng.integers(-high, high, 40) for rng in map(np.random.default_rng, (1, 2)))
    first, second = (shares_of(world, "client0", v, b"s" * 32) for v in (one, two))
    other = shares_of(world, "client0", one, b"t" * 32)
    masked, *seeds = world.protocol.coordinators()
    for name in seeds:
        assert first[name] == second[name] != other[name]
        assert (len(first[name].seed), first[name].vector) == (SEED_BYTES, b"")
    assert len({first[name].seed for name in seeds}) == len(seeds)
    assert {first[masked].seed, second[masked].seed} == {b""}

    def words(share: Share) -> Any:
        return layout.unpack(share.vector).astype(np.uint64)

    ring = np.uint64(2**bits - 1)
    difference = (words(first[masked]) - words(second[masked])) & ring
    assert np.array_equal(difference, (one - two).view(np.uint64) & ring)
    assert not np.array_equal(words(first[masked]), one.view(np.uint64) & ring)
    assert not np.array_equal(words(first[masked]), words(other[masked]))


def chi_square(data: bytes) -> float:
    """Against uniform bytes: 255 degrees of freedom, deviation √510 ≈ 22.6."""
    counts = np.bincount(np.frombuffer(data, dtype=np.uint8), minlength=256)
    expected = len(data) / 256
    return float(((counts - expected) ** 2).sum() / expected)


@pytest.mark.parametrize("bits", RING_BITS)
def test_the_masked_share_is_uniform(bits: int) -> None:
    """Every key, nonce and secret is fixed, so that the figure is the same in every run."""
    high = 2 ** (bits - 1) - 1
    layout = Layout((Block("all", 40_000, -high, high),))
    protocol = Additive()
    roles = {**protocol.coordinators(), "client0": CLIENT, "client1": CLIENT}
    enrolments = {
        name: Enrolment(
            Identity(name, Ed25519PrivateKey.from_private_bytes(bytes([at]) * 32)),
            role,
            b"n" * 32,
            0,
            MLKEM768PrivateKey.from_seed_bytes(bytes([at]) * 64),
            X25519PrivateKey.from_private_bytes(bytes([at]) * 32),
        )
        for at, (name, role) in enumerate(roles.items())
    }
    members = [enrolment.member for enrolment in enrolments.values()]
    session = form_session(protocol, members, b"n" * 32, layout, min_cohort=2)
    vector = np.full(layout.length, 7, dtype=np.int64)
    world = World(protocol, session, enrolments, {"client0": vector})
    share = shares_of(world, "client0", vector, b"e" * 32)[COLLECTOR]
    size = bits // 8
    assert chi_square(share.vector) < 255 + 5 * 22.6
    for byte in range(size):
        assert chi_square(share.vector[byte::size]) < 255 + 5 * 22.6
    assert chi_square(layout.pack(layout.embed(vector))) > 10**5


def test_no_aggregator_but_the_collector_is_told_a_sum(room: Room) -> None:
    room.deliver(room.upload(room.clients))
    room.holds_exactly(room.clients)
    for index in range(1, len(room.names)):
        assert room[index].result is None
        assert room[index].awaits is None


# Clients that only some have heard, or that say two things


@pytest.mark.parametrize("heard_by", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_a_client_counts_only_if_every_aggregator_has_its_share(
    trio: Room, heard_by: tuple[int, ...]
) -> None:
    trio.upload(trio.clients[:-1])
    trio.upload(trio.clients[-1:], to=heard_by)
    trio.finish()
    trio.holds_exactly(trio.clients[:-1])


HEARD = {"first": "1", "second": "2", "both": "12", "reversed": "21"}


@pytest.mark.parametrize("change", [0, 5], ids=["same vector", "other vector"])
@pytest.mark.parametrize("at_one", HEARD)
@pytest.mark.parametrize("at_zero", HEARD)
def test_a_client_that_retries_is_left_out_wherever_it_can_be_told(
    pair: Room, at_zero: str, at_one: str, change: int
) -> None:
    client, *others = pair.clients
    vector = pair.world.vectors[client] + change
    again = second_upload(pair.world, client, vector)
    pair.upload(others[:-1])
    for index, heard in enumerate((at_zero, at_one)):
        for which in HEARD[heard]:
            upload = pair.uploads[client] if which == "1" else again
            assert pair[index].receive(upload[pair.names[index]]) == []
    pair.upload(others[-1:])
    pair.finish()
    if at_zero == at_one == "first":
        pair.holds_exactly(pair.clients)
    elif at_zero == at_one == "second":
        truth = pair.world.truth(pair.clients) + change
        assert pair.total.included == tuple(pair.clients)
        assert np.array_equal(pair.total.total, truth)
    else:
        pair.holds_exactly(others)


def test_a_client_that_was_left_out_stays_out(room: Room) -> None:
    client = room.clients[0]
    again = second_upload(room.world, client)
    name = room.names[-1]
    room[-1].receive(room.uploads[client][name])
    room[-1].receive(again[name])
    third = second_upload(room.world, client)
    for upload in (room.uploads[client], again, third):
        refused(room[-1], upload[name], Replayed, "'client0' has been heard on this before")
    room[-1].restore(room[-1].save())
    refused(room[-1], room.uploads[client][name], Replayed)
    room.upload([client], to=range(len(room.names) - 1))
    room.deliver(room.upload(room.clients[1:]))
    room.holds_exactly(room.clients[1:])


def test_a_retry_after_the_close_comes_too_late(room: Room) -> None:
    said = room.upload(room.clients)
    again = second_upload(room.world, room.clients[0])
    for index, name in enumerate(room.names):
        refused(room[index], again[name], UnexpectedStep)
    room.deliver(said)
    room.holds_exactly(room.clients)


def test_a_second_copy_of_an_upload_is_a_replay(room: Room) -> None:
    room.upload(room.clients[:1])
    for index, name in enumerate(room.names):
        refused(room[index], room.uploads[room.clients[0]][name], Replayed)
    room.deliver(room.upload(room.clients[1:]))
    room.holds_exactly(room.clients)


# Shares that are none


def bad_shares(world: World, index: int) -> list[Share]:
    """Shares of another size, or of another aggregator's kind."""
    packed = world.session.layout.packed_bytes
    sizes = {(v, s) for v in (0, 1, packed - 1, packed, packed + 1) for s in (0, 31, 32, 33)}
    sizes.remove((packed, 0) if index == 0 else (0, SEED_BYTES))
    return [Share(bytes(v), bytes(s)) for v, s in sorted(sizes)]


@pytest.mark.parametrize("index", [0, 1])
def test_a_share_of_another_size_is_malformed(pair: Room, index: int) -> None:
    pair.upload(pair.clients[1:], to=[1 - index])
    for bad in bad_shares(pair.world, index):
        shares = [(name, bad) for name in pair.names]
        upload = upload_of(pair.world, "client0", shares)[index]
        refused(pair[index], upload, Malformed, "share of 'client0' has|bytes, allowed: ≤ ")
    pair.upload(pair.clients[1:], to=[index])
    pair.finish()
    pair.holds_exactly(pair.clients[1:])


def test_an_upload_is_signed_over_one_share_for_each_aggregator_in_order(room: Room) -> None:
    """Else one digest could stand for several sets of shares."""
    m = len(room.names)
    one_each, length = "one share for each", "digest or a sealed key of another length"
    for index, name in enumerate(room.names):
        honest = room.uploads["client0"][name]
        batch = honest.header.batch
        own = honest.header.digest

        def others_as(change: Callable[[bytes], bytes], index: int = index) -> tuple[bytes, ...]:
            whole = room.uploads["client0"][room.names[index]].header.batch
            return tuple(d if at == index else change(d) for at, d in enumerate(whole))

        for wrong, match in (
            ((), one_each),
            ((own,), one_each),
            ((own,) * (m - 1), one_each),
            ((*batch, own), one_each),
            ((*batch, bytes(32)), one_each),
            (batch[1:] + batch[:1], one_each),
            ((own,) * (m - 1) + (bytes(32),) if index == m - 1 else (bytes(32), *batch), one_each),
            (others_as(lambda digest: digest[:31]), length),
            (others_as(lambda digest: b""), length),
            (others_as(lambda digest: digest + b"\0"), "not a Header"),
            ((own,) * 65, "not a Header"),
            ((bytes(32),) * m, "not among those sealed with it"),
        ):
            refused(room[index], altered(room.world, honest, batch=wrong), Malformed, match)
    room.deliver(room.upload(room.clients))
    room.holds_exactly(room.clients)


def test_two_shares_of_one_upload_cannot_trade_places(pair: Room) -> None:
    """A client seals two contents to one aggregator under one list of digests."""
    world, client = pair.world, "client0"
    packed = Share(bytes(LAYOUT.packed_bytes), b"")
    to_first = upload_of(world, client, [(pair.names[0], packed), (pair.names[0], packed)])
    assert to_first[0].header.batch == to_first[1].header.batch
    enrolment = world.enrolments[client]
    channel = messages.open_channel(world.session, enrolment, pair.names[0], b"x" * 32)
    other = messages.seal(world.session, enrolment, channel, UPLOAD, encode(packed))
    honest = pair.uploads[client][pair.names[0]]
    batch = (honest.header.digest, other.header.digest)
    pair[0].receive(altered(world, honest, batch=batch))
    refused(pair[0], altered(world, other, batch=batch), Malformed, "in order")


@pytest.mark.parametrize("step", [VERIFIED, AGREE, PARTIAL])
def test_contents_that_are_no_such_step_are_malformed(pair: Room, step: str) -> None:
    said = pair.upload(pair.clients)
    kinds: dict[str, Wire] = {
        VERIFIED: Verified(Uploads(b"", b"")),
        AGREE: Agree(b""),
        PARTIAL: Partial((), b""),
        UPLOAD: Share(b"", b""),
    }
    for other, content in kinds.items():
        if other not in (step, UPLOAD) and encode(content) != encode(kinds[step]):
            refused(pair[0], pair.lie(1, 0, step, content), Malformed)
    pair.deliver(said)
    pair.holds_exactly(pair.clients)


# Invented clients


def test_invented_clients_around_one_victim_are_refused_by_pinned_keys() -> None:
    victim, nonce = Identity.generate("victim"), new_nonce()
    protocol, layout = Additive(), LAYOUT
    invented = {f"invented{i}": Identity.generate(f"invented{i}") for i in range(2)}
    enrolments = enrol(protocol, {"victim": victim, **invented}, nonce)
    members = [enrolment.member for enrolment in enrolments.values()]
    session = form_session(protocol, members, nonce, layout, min_cohort=3)
    known = [member.line for member in members if member.name not in invented]
    # A real colleague's name does not help: it is the key that is known.
    colleagues = [Line(name, CLIENT, Identity.generate(name).verify_key) for name in invented]
    for pinned in (Roster.of(known), Roster.of([*known, *colleagues])):
        with pytest.raises(InvalidSession, match="'invented0' is not known"):
            Session.read(encode(session.header), pinned, thin=session.thin)

    # Without pinning everything looks as it should, and the victim's vector is laid bare.
    secret = np.array([1, -2, 3, -4, 5, 6, 7, 8])
    zeros = dict.fromkeys(invented, np.zeros(8, dtype=np.int64))
    outcome = run(World(protocol, session, enrolments, {"victim": secret, **zeros}))
    assert outcome.total is not None
    assert np.array_equal(outcome.total.total, secret)


# An aggregator that lies


def relist(
    world: World,
    liar: str,
    change: Callable[[tuple[Upload, ...]], tuple[Upload, ...]],
    to: str,
) -> Fault:
    """The liar's list to `to` is another than the one that it goes by itself."""

    def tamper(data: bytes) -> bytes:
        listed = decode(world.content(data), Verified).uploads
        uploads = listed.read(world.session, to, VERIFIED)
        lie = encode(Verified(Uploads.of(world.session, change(uploads))))
        return encode(world.forge(world.enrolments[liar], to, VERIFIED, lie))

    return Fault("tamper", liar, to, VERIFIED, tamper)


@pytest.mark.parametrize("shuffle", [None, 1, 2, 3])
@pytest.mark.parametrize(("m", "liar", "told"), [(2, 0, 1), (2, 1, 0), (3, 2, 0), (3, 0, 2)])
def test_an_aggregator_that_tells_different_lists_ends_the_session(
    m: int, liar: int, told: int, shuffle: int | None
) -> None:
    world = new_world(m)
    names = list(world.protocol.coordinators())
    fault = relist(world, names[liar], lambda uploads: uploads[1:], names[told])
    outcome = run(world, FaultPlan((fault,), shuffle=shuffle))
    assert isinstance(outcome.error, (InconsistentSurvivors, CoordinatorMissing))
    aborts = outcome.network.aborts
    assert aborts.keys() == set(names)
    assert any(isinstance(error, InconsistentSurvivors) for error in aborts.values())
    assert not sent(outcome, PARTIAL)


def test_an_aggregator_can_shut_a_client_out_but_not_silently(pair: Room) -> None:
    """What one liar can do: the sum over the rest is exact, and says who is in it."""
    pair.upload(pair.clients[1:])
    pair.upload(pair.clients[:1], to=[0])
    pair.finish()
    pair.holds_exactly(pair.clients[1:])


@pytest.mark.parametrize("liar", [0, 1])
@pytest.mark.parametrize("digest", ["own", "other's", "none"])
def test_listing_what_one_does_not_hold_adds_nothing(liar: int, digest: str) -> None:
    world = new_world(2)
    names = list(world.protocol.coordinators())

    def invent(uploads: tuple[Upload, ...]) -> tuple[Upload, ...]:
        known = {"own": bytes(32), "other's": uploads[0].digest, "none": b"\xff" * 32}
        return (*uploads, Upload("client3", known[digest]))

    lost = Fault("lose", "client3", names[liar], UPLOAD)
    outcome = run(world, FaultPlan((lost, relist(world, names[liar], invent, names[1 - liar]))))
    assert outcome.included == tuple(world.session.clients[:3])


@pytest.mark.parametrize("index", [0, 1])
def test_a_list_that_is_none_is_malformed(pair: Room, index: int) -> None:
    """One bit for each client of the roster, and one digest for each of them: no more, no less."""
    digest = bytes(32)
    said = pair.upload(pair.clients)
    for lie in (
        Uploads(b"", b""),
        Uploads(b"\1\0", digest),
        Uploads(b"\x10", digest),
        Uploads(b"\xff", 8 * digest),
        Uploads(b"\3", digest),
        Uploads(b"\3", 2 * digest + b"\0"),
        Uploads(b"\3", 3 * digest),
        Uploads(b"\0", digest),
    ):
        refused(pair[index], pair.lie(1 - index, index, VERIFIED, Verified(lie)), Malformed)
    pair.deliver(said)
    pair.holds_exactly(pair.clients)


def test_an_aggregator_that_lists_a_client_it_does_not_hold_can_only_spoil_the_sum(
    pair: Room,
) -> None:
    """Said in SECURITY.md: one lying aggregator can shift the sum; here it leaves the bounds."""
    pair.upload(pair.clients, to=[0])
    pair.upload(pair.clients[1:], to=[1])
    held = [pair.entry(client) for client in pair.clients]
    pair[0].receive(pair.lie(1, 0, VERIFIED, pair.verified(held)))
    pair[0].receive(pair.lie(1, 0, AGREE, pair.signature(1, held)))
    signatures = tuple(pair.signature(index, held).signature for index in (0, 1))
    before = pair[0].save()
    # It lacks a share, and so can only guess: here, the shares that it has.
    partial = honest_partial(pair, pair.clients[1:])
    pair[0].receive(pair.lie(1, 0, PARTIAL, Partial(signatures, partial)))
    assert pair.total.outside
    # With the missing share it would have been the sum: it is the share that matters.
    finished = pair.world.load(pair.names[0], before)
    finished.receive(
        pair.lie(1, 0, PARTIAL, Partial(signatures, honest_partial(pair, pair.clients)))
    )
    assert finished.result is not None
    assert np.array_equal(finished.result.total, pair.world.truth(pair.clients))


def honest_partial(room: Room, clients: Iterable[str]) -> bytes:
    """The second aggregator's share of the sum over these clients."""
    world, layout = room.world, room.world.session.layout
    total = layout.zeros()
    for client in clients:
        data = encode(room.uploads[client][room.names[0]])
        masked = layout.unpack(decode(world.content(data), Share).vector)
        total += layout.embed(world.vectors[client]) - masked
    return layout.pack(total)


def test_an_aggregator_that_signs_another_set_gets_nothing(room: Room) -> None:
    liar, honest = len(room.names) - 1, 0
    held = [room.entry(client) for client in room.clients]
    said = room.upload(room.clients)
    said = [m for m in said if m.header.sender != room.names[liar]]
    room[honest].receive(room.lie(liar, honest, VERIFIED, room.verified(held)))
    room.deliver(m for m in said if m.header.recipient == room.names[honest])
    with pytest.raises(InconsistentSurvivors, match="has not signed the set") as caught:
        room[honest].receive(room.lie(liar, honest, AGREE, room.signature(liar, held[1:])))
    assert caught.value.party == room.names[honest]
    assert room[honest].start() == []
    assert room[honest].result is None


@pytest.mark.parametrize("early", [False, True], ids=["after the list", "before the list"])
@pytest.mark.parametrize(
    "signature", [b"", bytes(64), b"s" * 64, "short", "other set", "other name"]
)
def test_a_signature_over_anything_else_ends_the_session(
    pair: Room, signature: bytes | str, early: bool
) -> None:
    held = [pair.entry(client) for client in pair.clients]
    lies: dict[bytes | str, Agree] = {
        "short": Agree(pair.signature(1, held).signature[:-1]),
        "other set": pair.signature(1, held[1:]),
        "other name": pair.signature(0, held),
    }
    lie = lies.get(signature) or Agree(cast(bytes, signature))
    pair.upload(pair.clients, to=[0])
    said = [
        pair.lie(1, 0, VERIFIED, pair.verified(held)),
        pair.lie(1, 0, AGREE, lie),
    ]
    one, two = said[::-1] if early else said
    heard = pair[0].receive(one)
    with pytest.raises(InconsistentSurvivors, match="'aggregator_1' has not signed"):
        pair[0].receive(two)
    # Told beforehand, it does not even sign.
    assert steps(heard) == ([] if early else [AGREE])
    assert pair[0].pending() == []


def partial_lies(room: Room, liar: int) -> dict[str, Partial]:
    held = [room.entry(client) for client in room.clients]
    m = len(room.names)
    good = tuple(room.signature(index, held).signature for index in range(m))
    fewer = tuple(room.signature(index, held[1:]).signature for index in range(m))
    packed = bytes(LAYOUT.packed_bytes)
    return {
        "none": Partial((), packed),
        "one missing": Partial(good[:-1], packed),
        "one too many": Partial((*good, good[0]), packed),
        "short": Partial(good, packed[:-1]),
        "long": Partial(good, packed + b"\0"),
        "empty": Partial(good, b""),
        "other set": Partial(fewer, packed),
        "own other": Partial(
            tuple(f if i == liar else g for i, (f, g) in _pairs(fewer, good)), b""
        ),
        "swapped": Partial(good[::-1], packed),
        "own twice": Partial((good[liar],) * m, packed),
        "blank": Partial((b"",) * m, packed),
    }


def _pairs(one: Sequence[bytes], two: Sequence[bytes]) -> Iterable[tuple[int, tuple[bytes, bytes]]]:
    return enumerate(zip(one, two, strict=True))


@pytest.mark.parametrize("kind", ["none", "one missing", "one too many", "short", "long", "empty"])
def test_a_partial_sum_of_another_form_is_malformed(room: Room, kind: str) -> None:
    in_bytes = kind in ("short", "long", "empty")
    reason = r"has \d+ bytes, wanted" if in_bytes else "partial sum without all signatures"
    liar = len(room.names) - 1
    said = room.upload(room.clients)
    withheld = [m for m in said if m.header.step != PARTIAL]
    for message in withheld:
        for answer in room.aggregators[message.header.recipient].receive(message):
            withheld += [answer] if answer.header.step != PARTIAL else []
    assert room[0].awaits == PARTIAL
    refused(room[0], room.lie(liar, 0, PARTIAL, partial_lies(room, liar)[kind]), Malformed, reason)
    honest = [party.pending()[-1] for party in room.aggregators.values() if party is not room[0]]
    assert steps(honest) == [PARTIAL] * len(honest)
    room.deliver(honest)
    room.holds_exactly(room.clients)


@pytest.mark.parametrize("kind", ["other set", "swapped", "own twice", "blank"])
def test_a_partial_sum_under_other_signatures_ends_the_session(room: Room, kind: str) -> None:
    liar = len(room.names) - 1
    lie = room.lie(liar, 0, PARTIAL, partial_lies(room, liar)[kind])
    fault = Fault("tamper", room.names[liar], step=PARTIAL, tamper=lambda _: encode(lie))
    world = room.world
    outcome = run(world, FaultPlan((fault,)), begun(room))
    assert isinstance(outcome.error, InconsistentSurvivors)
    assert outcome.network.aborts.keys() == {room.names[0]}


def begun(room: Room) -> list[Party]:
    """The room's aggregators, and clients that will say the same uploads again."""
    return [*room.aggregators.values(), *(Repeating(room, name) for name in room.clients)]


class Repeating(Party):
    """A client that says given bytes."""

    role = CLIENT
    states = Fresh

    def __init__(self, room: Room, name: str) -> None:
        super().__init__(room.world.session, room.world.enrolments[name])
        self._said = list(room.uploads[name].values())

    def start(self) -> list[Message]:
        return self._said

    def _begin(self, secret: bytes) -> Any:
        raise AssertionError("it begins with what it was given to say")


# One set, once


def test_the_partial_sum_leaves_only_under_all_signatures(trio: Room) -> None:
    orders = set(itertools.permutations([(0, VERIFIED), (2, VERIFIED), (0, AGREE), (2, AGREE)]))
    trio.upload(trio.clients)
    held = [trio.entry(client) for client in trio.clients]
    said = {
        (peer, step): trio.lie(peer, 1, step, content)
        for peer in (0, 2)
        for step, content in (
            (VERIFIED, trio.verified(held)),
            (AGREE, trio.signature(peer, held)),
        )
    }
    name = trio.names[1]
    witness = trio.world.load(name, trio[1].save())
    closed = witness.save()
    assert len(orders) == 24
    for order in sorted(orders):
        party = trio.world.load(name, closed)
        for number, which in enumerate(order, 1):
            answers = party.receive(said[which])
            everything = party.pending()
            heard = order[:number]
            lists = sum(step == VERIFIED for _, step in heard)
            assert (AGREE in steps(everything)) == (lists == 2)
            assert (PARTIAL in steps(everything)) == (number == 4)
            assert PARTIAL not in steps(answers) or number == 4
    sums = decode(trio.world.content(encode(everything[-1])), Partial)
    assert len(sums.signatures) == 3


@pytest.mark.parametrize("m", [2, 3, 4])
def test_losing_one_signature_keeps_the_partial_sums_in(m: int) -> None:
    world = new_world(m)
    names = list(world.protocol.coordinators())
    for sender, recipient in itertools.permutations(names, 2):
        outcome = run(world, FaultPlan((Fault("lose", sender, recipient, AGREE),)))
        assert isinstance(outcome.error, CoordinatorMissing)
        assert recipient not in {message.header.sender for message in sent(outcome, PARTIAL)}
        assert outcome.total is None


def test_a_second_opening_is_refused(trio: Room) -> None:
    """Another list, another signature, another partial sum: the first one counts."""
    held = [trio.entry(client) for client in trio.clients]
    trio.upload(trio.clients)
    less = tuple(held[1:])
    whole = tuple(held)

    trio[0].receive(trio.lie(2, 0, VERIFIED, trio.verified(whole)))
    refused(trio[0], trio.lie(2, 0, VERIFIED, trio.verified(less)), Replayed)
    trio[0].receive(trio.lie(1, 0, VERIFIED, trio.verified(whole)))
    refused(trio[0], trio.lie(2, 0, VERIFIED, trio.verified(less)), UnexpectedStep)
    trio[0].receive(trio.lie(2, 0, AGREE, trio.signature(2, whole)))
    refused(trio[0], trio.lie(2, 0, AGREE, trio.signature(2, less)), Replayed)
    signatures = tuple(trio.signature(index, whole).signature for index in range(3))
    partial = Partial(signatures, bytes(LAYOUT.packed_bytes))
    # A partial sum may overtake the agreement of a third; a second one may not.
    assert trio[0].receive(trio.lie(2, 0, PARTIAL, partial)) == []
    refused(trio[0], trio.lie(2, 0, PARTIAL, partial), Replayed)
    trio[0].receive(trio.lie(1, 0, AGREE, trio.signature(1, whole)))
    for lie in (
        trio.lie(2, 0, VERIFIED, trio.verified(less)),
        trio.lie(2, 0, AGREE, trio.signature(2, less)),
        trio.lie(1, 0, AGREE, trio.signature(1, less)),
    ):
        refused(trio[0], lie, UnexpectedStep)
    refused(trio[0], trio.lie(2, 0, PARTIAL, partial), Replayed)


@pytest.mark.parametrize("index", [1, 2])
def test_after_the_release_no_other_set_is_opened(trio: Room, index: int) -> None:
    trio.deliver(trio.upload(trio.clients))
    held = tuple(trio.entry(client) for client in trio.clients)
    said = [encode(message) for message in trio[index].pending()]
    assert steps(trio[index].pending()) == [VERIFIED] * 2 + [AGREE] * 2 + [PARTIAL]
    for peer in {0, 1, 2} - {index}:
        for step, content in (
            (VERIFIED, trio.verified(held[1:])),
            (AGREE, trio.signature(peer, held[1:])),
            (PARTIAL, Partial(tuple(bytes(64) for _ in range(3)), bytes(LAYOUT.packed_bytes))),
        ):
            refused(trio[index], trio.lie(peer, index, step, content), UnexpectedStep)
    assert [encode(message) for message in trio[index].reload().pending()] == said
    for step in (UPLOAD, VERIFIED, AGREE, PARTIAL):
        assert all(party.deadline(step) == [] for party in trio.aggregators.values())


class Durable:
    """One aggregator as its contract has it: what it says leaves once its state is saved.

    It may crash before it has saved, so that neither the event nor its messages have happened, or
    after; each event then begins in a fresh process.
    """

    def __init__(self, world: World, name: str) -> None:
        self._world, self._name = world, name
        party = world.party(name)
        party.start()
        self.saved = party.save()
        self.left: dict[tuple[str, str], set[bytes]] = {}

    def event(self, happen: Callable[[Party], list[Message]], *, crash: bool) -> None:
        party = self._world.load(self._name, self.saved)
        try:
            happen(party)
        except MessageRejected:
            assert party.save() == self.saved
        except SessionAborted:
            assert party.pending() == []
        if crash:
            return
        self.saved = party.save()
        for message in party.pending():
            route = (message.header.recipient, message.header.step)
            self.left.setdefault(route, set()).add(encode(message))


@pytest.mark.slow
@pytest.mark.parametrize(("m", "index"), [(2, 1), (3, 1), (2, 0)])
def test_never_two_sets_from_one_aggregator_whatever_it_is_told_and_whenever_it_restarts(
    m: int, index: int
) -> None:
    """All the others lie, and have every key but its own: they sign any set for it."""
    room = Room(new_world(m))
    name = room.names[index]
    held = [room.entry(client) for client in room.clients]
    sets = [tuple(held), tuple(held[1:])]
    liars = [peer for peer in range(m) if peer != index]
    pool = {f"upload {client}": room.uploads[client][name] for client in room.clients}
    for number, chosen in enumerate(sets):
        for peer in liars:
            listed = room.lie(peer, index, VERIFIED, room.verified(chosen))
            agreed = room.lie(peer, index, AGREE, room.signature(peer, chosen))
            pool |= {f"list {number} {peer}": listed, f"agree {number} {peer}": agreed}
    told = [what for what in pool if not what.startswith("upload")]
    seen: Counter[str] = Counter()
    for seed in range(80):
        rng = random.Random(seed)
        events = rng.choices([f"upload {client}" for client in room.clients], k=8)
        events += rng.choices([*told, UPLOAD], k=24)
        party = Durable(room.world, name)
        for what in events:
            crash = rng.random() < 0.2
            if what == UPLOAD:
                party.event(lambda p: p.deadline(UPLOAD), crash=crash)
            else:
                party.event(lambda p, what=what: p.receive(pool[what]), crash=crash)  # type: ignore[misc]
        for route, variants in party.left.items():
            assert len(variants) == 1, route
            seen[route[1]] += 1
        opened = {
            decode(room.world.content(data), Agree).signature
            for (_, step), variants in party.left.items()
            if step == AGREE
            for data in variants
        }
        assert len(opened) <= 1

    # It has been where it matters, again and again.
    assert min(seen[VERIFIED], seen[AGREE]) >= 10
    assert seen[PARTIAL] >= 5 * (index > 0)


def test_an_older_state_is_out_of_contract_and_this_is_why(pair: Room) -> None:
    """State is durable before a message leaves. Who restores an *older* one can sign twice.

    With the same messages it says the same bytes; told another list, it signs another set. Nothing
    in one machine's memory can prevent that, so operators must never restore from a backup.
    """
    held = tuple(pair.entry(client) for client in pair.clients)
    pair.upload(pair.clients, to=[1])
    older = pair[1].save()
    opened = []
    for chosen in (held, held, held[1:]):
        party = pair.world.load(pair.names[1], older)
        said = party.receive(pair.lie(0, 1, VERIFIED, pair.verified(chosen)))
        said += party.receive(pair.lie(0, 1, AGREE, pair.signature(0, chosen)))
        assert steps(said) == [AGREE, PARTIAL]
        opened.append([encode(message) for message in said])
    same, again, other = opened
    assert same == again
    assert same[0] != other[0]
    # Even so, a state that was saved after signing holds: this is all that the contract needs.
    party = pair.world.load(pair.names[1], older)
    party.receive(pair.lie(0, 1, VERIFIED, pair.verified(held)))
    signed = pair.world.load(pair.names[1], party.save())
    refused(signed, pair.lie(0, 1, VERIFIED, pair.verified(held[1:])), UnexpectedStep)
    with pytest.raises(InconsistentSurvivors):
        signed.receive(pair.lie(0, 1, AGREE, pair.signature(0, held[1:])))


# The cohort


@pytest.mark.parametrize("m", [2, 3])
def test_below_the_minimum_cohort_after_the_intersection_nobody_signs(m: int) -> None:
    room = Room(new_world(m))
    room.upload(room.clients[:3], to=[0])
    room.upload(room.clients[2:], to=range(1, m))
    said = room.close()
    assert steps(said) == [VERIFIED] * (m * (m - 1))
    for index in range(m):
        *mine, last = [m for m in said if m.header.recipient == room.names[index]]
        for message in mine:
            assert room[index].receive(message) == []
        with pytest.raises(BelowThreshold, match="1 clients contributed, wanted ≥ 2"):
            room[index].receive(last)
        assert room[index].pending() == []
        assert room.world.load(room.names[index], room[index].save()).pending() == []


# The spool


def damages(folder: Path, other: bytes, retry: bytes) -> dict[str, Callable[[Path], object]]:
    def flip(path: Path, at: int) -> None:
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)

    return {
        "lost": lambda path: path.unlink(),
        "empty": lambda path: path.write_bytes(b""),
        "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
        "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
        "first byte": lambda path: flip(path, 0),
        "header": lambda path: flip(path, 60),
        "body": lambda path: flip(path, -20),
        "tag": lambda path: flip(path, -1),
        "other client's": lambda path: path.write_bytes(other),
        "same client's retry": lambda path: path.write_bytes(retry),
    }


def spooling(world: World, name: str, folder: Path) -> Party:
    """An aggregator that spools to a folder."""
    enrolment = world.enrolments[name]
    return world.protocol.coordinator(world.session, enrolment, spool=FileSpool(folder))


@pytest.mark.parametrize("struck", [0, 1])
def test_a_damaged_or_lost_spool_releases_nothing_until_it_is_restored(
    tmp_path: Path, struck: int
) -> None:
    room = Room(new_world(2))
    name, victim = room.names[struck], "client1"
    retry = encode(second_upload(room.world, victim)[name])
    other = encode(room.uploads["client2"][name])
    foreign_world = room.world.under(room.world.with_terms(context=b"c" * 32))
    foreign = encode(second_upload(foreign_world, victim)[name])
    kinds = damages(tmp_path, other, retry)
    kinds["other session's"] = lambda path: path.write_bytes(foreign)
    for number, (kind, damage) in enumerate(kinds.items()):
        folder = tmp_path / str(number)
        aggregator = spooling(room.world, name, folder)
        aggregator.start()
        files: dict[str, Path] = {}
        for client in room.clients:
            known = set(folder.iterdir())
            aggregator.receive(room.uploads[client][name])
            (files[client],) = set(folder.iterdir()) - known
        held = tuple(room.entry(client) for client in room.clients)
        whole = files[victim].read_bytes()
        damage(files[victim])
        aggregator.receive(room.lie(1 - struck, struck, VERIFIED, room.verified(held)))
        last = agree = room.lie(1 - struck, struck, AGREE, room.signature(1 - struck, held))
        if struck == 0:
            aggregator.receive(agree)
            both = tuple(room.signature(index, held).signature for index in (0, 1))
            partial = Partial(both, honest_partial(room, room.clients))
            last = room.lie(1, 0, PARTIAL, partial)
        saved = aggregator.save()
        # One that kept running has the sum; one that did not has its spool alone.
        aggregator.restore(saved)
        with pytest.raises(BadSavedState, match=f"{name}: .*'client1'") as caught:
            aggregator.receive(last)
        assert not isinstance(caught.value, MessageRejected), kind
        assert aggregator.result is None
        # The same after a restart; once the file is back, all goes on where it was.
        restarted = spooling(room.world, name, folder).restore(saved)
        with pytest.raises(BadSavedState):
            restarted.receive(last)
        files[victim].write_bytes(whole)
        restored = spooling(room.world, name, folder).restore(saved)
        said = restored.receive(last)
        if struck == 0:
            assert restored.result is not None
            assert np.array_equal(restored.result.total, room.world.truth(room.clients))
        else:
            assert steps(said) == [PARTIAL]
            opened = decode(room.world.content(encode(said[0])), Partial)
            assert opened.vector == honest_partial(room, room.clients)
            # An aggregator that kept running says the same, once its spool is whole.
            assert [encode(m) for m in aggregator.pending()[-1:]] == [encode(m) for m in said]


def test_an_upload_that_cannot_be_spooled_is_not_counted_and_may_come_again(tmp_path: Path) -> None:
    room = Room(new_world(2))
    folder = tmp_path / "spool"
    name = room.names[1]
    room.aggregators[name] = aggregator = spooling(room.world, name, folder)
    aggregator.start()
    folder.rmdir()
    refused(aggregator, room.uploads["client0"][name], MessageRejected, "cannot be written")
    folder.mkdir()
    room.deliver(room.upload(room.clients))
    room.holds_exactly(room.clients)


def test_states_hold_no_share(pair: Room) -> None:
    """Shares are in the spool, sealed; what is saved names digests only."""
    pair.upload(pair.clients[:3])
    saved = msgspec.msgpack.encode(pair[0].save())
    content = decode(pair.world.content(encode(pair.uploads["client0"][pair.names[0]])), Share)
    assert content.vector not in saved
    assert len(saved) < 2000 + 100 * 3
