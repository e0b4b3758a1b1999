"""Encrypted sums: the shared suite, exactness at its edges, strict loading, verified refusals."""

import math
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import strategies as st

from attacks.encryption.polynomials import Pair, put_together, take_apart, uncompressed
from protocols import Bfv, Block, Ckks, Fault, FaultPlan, Layout
from protocols.codec import Wire, decode, encode
from protocols.errors import (
    BadSavedState,
    BelowThreshold,
    CoordinatorMissing,
    InconsistentSurvivors,
    InexactDecoding,
    Malformed,
    MessageRejected,
    NoParameters,
    Replayed,
    UnexpectedStep,
    UnverifiedSum,
)
from protocols.layout import RING_BITS
from protocols.schemes.encrypted.client import EncryptingClient
from protocols.schemes.encrypted.key_holder import Finished, KeyHolder
from protocols.schemes.encrypted.messages import (
    CONFIRMED,
    KEY,
    KEY_HOLDER,
    SERVER,
    TOTAL,
    UPLOAD,
    Ciphertexts,
    Confirmed,
    Key,
    Total,
    Voucher,
)
from protocols.schemes.encrypted.parameters import BFV, CANDIDATES, CKKS, find_parameters, tolerance
from protocols.schemes.encrypted.protocol import EncryptedSum
from protocols.schemes.encrypted.seal import KeyPair, Ring, from_entries, load_unchecked, to_entries
from protocols.schemes.encrypted.server import Server
from protocols.uploads import Upload, Uploads
from tests.kit.protocols import ProtocolSuite
from tests.kit.worlds import World, addends, for_all, layouts, make_world, run

Seeds = st.integers(0, 2**32 - 1)
VERIFIED = Ckks()
ACTIONS: tuple[Literal["lose"], Literal["delay"]] = ("lose", "delay")
LAYOUT = Layout((Block("signed", 5, -(10**6), 10**6), Block("count", 3, 0, 1000)))


class TestVerifiedCkks(ProtocolSuite):
    protocol = Ckks()
    clients = 4
    examples = 4
    max_routes = 3


@pytest.mark.slow
class TestUnverifiedCkks(ProtocolSuite):
    protocol = Ckks(verify=False)
    clients = 4
    examples = 2
    max_routes = 2


@pytest.mark.slow
class TestBfv(ProtocolSuite):
    protocol = Bfv()
    clients = 4
    examples = 2
    max_routes = 2


# Worlds


def new_world(
    protocol: EncryptedSum = VERIFIED, clients: int = 4, layout: Layout = LAYOUT
) -> World:
    vectors = addends(random.Random(clients), layout, clients, edges=False)
    return make_world(protocol, vectors, layout, min_cohort=3)


class Room:
    """Coordinators that have begun, and what honest clients say, delivered by hand."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.server, self.holder = world.party(SERVER), world.party(KEY_HOLDER)
        assert self.server.start() == []
        self.said: dict[str, dict[str, Any]] = {}
        for key in self.holder.start():
            client = world.party(key.header.recipient)
            assert client.start() == []
            answers = client.receive(key)
            self.said[client.name] = {m.header.recipient: m for m in answers}
        session = world.session
        self.ring = Ring(find_parameters(session.layout, len(session.clients), session.protocol))

    def upload(self, *clients: str) -> None:
        """Both messages of these clients, or of all."""
        for client in clients or self.world.session.clients:
            assert self.server.receive(self.said[client][SERVER]) == []
            self.confirmed = self.holder.receive(self.said[client][KEY_HOLDER])

    def total(self) -> Total:
        """What an honest server says once all is confirmed."""
        (message,) = self.server.receive(self.confirmed[0])
        self.honest = message
        total: Total = self.content(message, Total)
        return total

    def uploads(self, total: Total) -> tuple[Upload, ...]:
        return total.uploads.read(self.world.session, KEY_HOLDER, TOTAL)

    def content(self, message: Any, kind: Any) -> Any:
        return decode(self.world.content(encode(message)), kind)

    def lie(self, sender: str, recipient: str, step: str, content: Wire) -> Any:
        return self.world.forge(self.world.enrolments[sender], recipient, step, encode(content))


@pytest.fixture
def room() -> Room:
    return Room(new_world())


# Parameters


@pytest.mark.parametrize("scheme", [CKKS, BFV])
@pytest.mark.parametrize("bits", RING_BITS)
@pytest.mark.parametrize("clients", [2, 10, 1000, 100_000])
def test_every_ring_has_parameters(scheme: str, bits: int, clients: int) -> None:
    layout = Layout((Block("all", 5000, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1),))
    found = find_parameters(layout, clients, scheme)
    assert (found.degree, found.prime_bits) in CANDIDATES
    assert found.noise < 0.5
    if found.limb_bits:
        assert found.limbs * found.limb_bits >= bits


@pytest.mark.parametrize("clients", [2, 10, 1000])
def test_sums_stay_clear_of_the_modulus_and_of_the_tolerance(clients: int) -> None:
    for high in (1, 2**20, 2**31, 2**40, 2**62):
        found = find_parameters(Layout((Block("all", 5000, 0, high),)), clients)
        most = clients * 2**found.limb_bits if found.limb_bits else high
        assert math.sqrt(2) * (most + 1) * found.scale <= 2.0 ** (found.prime_bits - 2)
        rounding = clients * found.degree / 2 / found.scale
        assert found.noise + rounding + clients * most * 2.0**-46 < tolerance(verify=False) < 0.5
        assert tolerance(verify=True) < tolerance(verify=False)


def test_seals_own_table_admits_the_candidates_and_nothing_larger() -> None:
    from tenseal import sealapi

    limits = {
        degree: sealapi.CoeffModulus.MaxBitCount(degree, sealapi.SEC_LEVEL_TYPE.TC128)
        for degree, _ in CANDIDATES
    }
    assert limits == {16384: 438, 8192: 218, 4096: 109, 2048: 54}
    assert all(bits <= limits[degree] for degree, bits in CANDIDATES)


def test_one_entry_costs_sixteen_bytes() -> None:
    length = 1024 * 1025 // 2 + 1024 * 10 + 10
    found = find_parameters(Layout((Block("all", length, -(2**31), 2**31 - 1),)), 10)
    assert (found.limbs, found.prime_bits) == (1, 60)
    assert found.chunks(length) * found.degree * 16 <= 1.05 * (1024**2 + 10240) * 8


def test_too_many_clients_are_refused_with_the_bound() -> None:
    with pytest.raises(NoParameters, match="10000000000000000 clients"):
        find_parameters(LAYOUT, 10**16)


@pytest.mark.parametrize("bits", RING_BITS)
def test_limbs_of_addends_add_up_in_the_ring(bits: int) -> None:
    @for_all(20, layout=layouts(bits, 6), seed=Seeds, edges=st.booleans())
    def check(layout: Layout, seed: int, edges: bool) -> None:
        vectors = addends(random.Random(seed), layout, 5, edges=edges)
        parameters = find_parameters(layout, 5)
        total = sum(to_entries(parameters, layout, vector) for vector in vectors)
        assert isinstance(total, np.ndarray)
        assert len(total) == layout.length * parameters.limbs
        decoded = layout.decode(from_entries(parameters, layout, total))
        assert np.array_equal(decoded.total, sum(vectors))
        assert decoded.outside == ()


# Honest noise


@pytest.mark.parametrize("scheme", [CKKS, BFV])
def test_measured_noise_is_far_inside_its_bound(scheme: str) -> None:
    clients = 8
    for high in (2**20, 2**31):
        layout = Layout((Block("all", 4096, -high, high),))
        parameters = find_parameters(layout, clients, scheme)
        ring, rng = Ring(parameters), np.random.default_rng(0)
        keys = KeyPair(ring, rng.bytes(64), rng.bytes(64))
        # All on one end: the largest sum that the layout admits.
        addend = np.full(parameters.degree, high // clients)
        total = ring.encrypt(keys.public_key, rng.bytes(64), ring.encode(addend))
        for _ in range(clients - 1):
            ring.add(total, ring.encrypt(keys.public_key, rng.bytes(64), ring.encode(addend)))
        error = np.abs(ring.decrypt(keys.secret_key, total) - clients * addend).max()
        assert error < parameters.noise / 4
        if scheme == CKKS:
            # It is there: a bound that nothing comes near would not be one of noise.
            assert error > parameters.noise / 1000


def test_the_encoders_floating_point_is_inside_its_share() -> None:
    """Plaintexts of the largest entries, signs at random or all alike, without encryption."""
    for high in (2**31 - 1, 2**33):
        layout = Layout((Block("all", 4096, -high, high),))
        ring, rng = Ring(find_parameters(layout, 4)), np.random.default_rng(0)
        for signs in (np.ones(ring.parameters.degree), rng.choice([-1, 1], ring.parameters.degree)):
            entries = (signs * high).astype(np.int64)
            decoded = ring.decode(ring.encode(entries))
            rounding = ring.parameters.degree / 2 / ring.parameters.scale
            assert np.abs(decoded - entries).max() <= 2 * high * 2.0**-46 + rounding


# Determinism


def test_a_seed_determines_key_and_ciphertext_and_another_seed_does_not() -> None:
    ring = Ring(find_parameters(LAYOUT, 4))
    seeds = [bytes([i]) * 64 for i in range(4)]
    key, again = (ring.save(KeyPair(ring, *seeds[:2]).public_key) for _ in range(2))
    assert key == again
    assert key != ring.save(KeyPair(ring, seeds[0], seeds[2]).public_key)
    public_key = ring.load_public_key(key)
    plaintext = ring.encode(np.arange(8))
    one, same, other = (
        ring.save(ring.encrypt(public_key, seed, plaintext))
        for seed in (seeds[2], seeds[2], seeds[3])
    )
    assert one == same != other
    # Encrypting zero under the seed has the same second component: what verification rests on.
    zero = ring.save(ring.encrypt(public_key, seeds[2]))
    assert take_apart(ring, one).second == take_apart(ring, zero).second


def test_chunks_of_one_client_have_seeds_of_their_own() -> None:
    """Two ciphertexts under one seed differ by their plaintexts, for anybody to see."""
    layout = Layout((Block("all", 3 * 8192, 0, 100),))
    vectors = [np.zeros(layout.length, dtype=np.int64) for _ in range(3)]
    room = Room(make_world(Ckks(), vectors, layout, min_cohort=3))
    seen = []
    for client in room.world.session.clients:
        chunks = room.content(room.said[client][SERVER], Ciphertexts).chunks
        seen += [tuple(take_apart(room.ring, chunk).second[:8]) for chunk in chunks]
    assert len(seen) == 9
    assert len(set(seen)) == len(seen)


def test_chunks_may_be_mapped_by_many_workers() -> None:
    layout = Layout((Block("all", 20_000, -100, 100),))
    world = make_world(
        Ckks(), addends(random.Random(0), layout, 3, edges=True), layout, min_cohort=3
    )
    with ThreadPoolExecutor(2) as pool:
        parties = world.parties()
        for party in parties:
            assert isinstance(party, EncryptingClient | KeyHolder | Server)
            party.chunk_map = pool.map
        assert run(world, None, parties).included == world.session.clients


# Strict loading


def bad_ciphertexts(room: Room, honest: bytes) -> dict[str, bytes]:
    ring, rng = room.ring, np.random.default_rng(0)
    layouts_of = {"degree": 2**40, "scale": 2**24}
    bad = {
        "nothing": b"",
        "noise": rng.bytes(len(honest)),
        "trailing bytes": honest + b"\0",
        "truncated": honest[:-1],
        "too long": honest + bytes(2**20),
    }
    for what, high in layouts_of.items():
        parameters = find_parameters(Layout((Block("x", 5000, -high, high),)), 4)
        assert parameters != ring.parameters
        other = Ring(parameters)
        keys = KeyPair(other, bytes(64), bytes(64))
        bad[f"another {what}"] = other.save(other.encrypt(keys.public_key, bytes(64)))
    loaded = ring.load(honest)
    loaded.scale = 2 * loaded.scale
    bad["another scale"] = ring.save(loaded)
    loaded = ring.load(honest)
    ring.evaluator.transform_from_ntt_inplace(loaded)
    bad["not in NTT form"] = ring.save(loaded)
    loaded = ring.load(honest)
    loaded.resize(3)  # a third component of zeros, which compresses well
    assert len(ring.save(loaded)) < len(honest) + 200
    bad["three components"] = ring.save(loaded)
    # Words at or above q, and the transparent one, by hand.
    bad["a public key"] = ring.save(KeyPair(ring, bytes(64), bytes(64)).public_key)
    degree = ring.parameters.degree
    bad["transparent"] = put_together(ring, Pair([1] * degree, [0] * degree))
    return bad


def test_a_bad_ciphertext_leaves_out_its_client_only(room: Room) -> None:
    honest = room.content(room.said["client1"][SERVER], Ciphertexts).chunks
    bad = bad_ciphertexts(room, honest[0])
    cases = {what: (data,) for what, data in bad.items()} | {"none": (), "two": honest * 2}
    for what, chunks in cases.items():
        lie = room.lie("client1", SERVER, UPLOAD, Ciphertexts(chunks))
        before = room.server.save()
        too_long = what in ("too long", "two")
        with pytest.raises(Malformed, match="bytes, allowed: ≤" if too_long else "client1"):
            room.server.receive(lie)
        assert room.server.save() == before
        fault = Fault("tamper", "client1", SERVER, UPLOAD, lambda _, lie=lie: encode(lie))  # type: ignore[misc]
        if what in ("transparent", "none", "trailing bytes"):
            assert run(room.world, FaultPlan((fault,))).included == (
                "client0",
                "client2",
                "client3",
            )


def test_a_ciphertext_that_is_too_long_is_not_given_to_seal(room: Room) -> None:
    """One that the whole upload has room for."""
    most = room.ring.parameters.ciphertext_bytes
    honest = room.content(room.said["client1"][SERVER], Ciphertexts).chunks[0]
    lie = room.lie("client1", SERVER, UPLOAD, Ciphertexts((honest.ljust(most + 1, b"\0"),)))
    with pytest.raises(Malformed, match=r"^server .*'client1', ciphertext 0: .* too long"):
        room.server.receive(lie)


def test_an_uncompressed_spelling_of_an_honest_ciphertext_is_not_canonical(room: Room) -> None:
    honest = room.content(room.said["client1"][SERVER], Ciphertexts).chunks[0]
    pair = take_apart(room.ring, honest)
    assert put_together(room.ring, pair) == honest
    loose = uncompressed(room.ring, pair)
    assert room.ring.save(load_unchecked(room.ring, loose)) == honest != loose
    with pytest.raises(Malformed):
        room.ring.load(loose)


@pytest.mark.parametrize("what", ["nothing", "zeros", "trailing bytes"])
def test_a_bad_public_key_is_refused_by_the_client(room: Room, what: str) -> None:
    client = room.world.party("client0")
    client.start()
    bad = {
        "nothing": b"",
        "zeros": bytes(30_000),
        "trailing bytes": room.ring.save(KeyPair(room.ring, bytes(64), bytes(64)).public_key)
        + b"\0",
    }
    lie = room.lie(KEY_HOLDER, "client0", KEY, Key(bad[what]))
    before = client.save()
    with pytest.raises(Malformed, match="client0"):
        client.receive(lie)
    assert client.save() == before


def test_a_client_that_has_not_begun_takes_no_key(room: Room) -> None:
    client = room.world.party("client0")
    first, *_ = room.holder.pending()
    with pytest.raises(UnexpectedStep, match=r"^client0 at step 'key': no key is awaited"):
        client.receive(first)
    assert client.pending() == []


def test_a_client_encrypts_under_one_key_only(room: Room) -> None:
    client = room.world.party("client0")
    client.start()
    first, *_ = room.holder.pending()
    client.receive(first)
    other = KeyPair(room.ring, bytes(64), bytes(64)).public_key
    with pytest.raises(Replayed):
        client.receive(room.lie(KEY_HOLDER, "client0", KEY, Key(room.ring.save(other))))


# The key holder's refusals


def changed(room: Room, honest: Total, what: str) -> Total:
    """A total that differs from the honest one in one way."""
    ring, client = room.ring, "client1"
    ours = room.content(room.said[client][SERVER], Ciphertexts).chunks
    total = ring.load(honest.chunks[0])
    if what == "one upload":
        return Total(honest.uploads, ours)
    if what == "one upload twice":
        ring.add(total, ring.load(ours[0]))
    if what == "one upload less":
        ring.evaluator.sub_inplace(total, ring.load(ours[0]))
    return Total(honest.uploads, (ring.save(total),))


@pytest.mark.parametrize("what", ["one upload", "one upload twice", "one upload less"])
def test_a_sum_of_anything_but_the_list_is_not_opened(room: Room, what: str) -> None:
    room.upload()
    honest = room.total()
    with pytest.raises(UnverifiedSum):
        room.holder.receive(room.lie(SERVER, KEY_HOLDER, TOTAL, changed(room, honest, what)))
    for message in (room.honest, room.lie(SERVER, KEY_HOLDER, TOTAL, honest)):
        with pytest.raises(MessageRejected):
            room.holder.receive(message)
    assert room.holder.result is None


def test_a_single_wrong_seed_ends_the_session() -> None:
    room = Room(new_world())
    voucher = room.content(room.said["client2"][KEY_HOLDER], Voucher)
    room.said["client2"][KEY_HOLDER] = room.lie(
        "client2", KEY_HOLDER, UPLOAD, Voucher(voucher.digest, bytes(32))
    )
    room.upload()
    room.total()
    with pytest.raises(UnverifiedSum):
        room.holder.receive(room.honest)


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("units", [0.0, 0.45, 2.0**30])
def test_a_shift_of_the_first_component(verify: bool, units: float) -> None:
    """It cannot touch the key; a verified sum is counted, one of no integers is refused else."""
    room = Room(new_world(Ckks(verify)))
    room.upload()
    honest = room.total()
    shifted = room.ring.load(honest.chunks[0])
    # One entry of either block, and one beyond the vector, where nobody looks.
    entries = np.zeros(room.ring.parameters.degree)
    entries[[2, 6, 9]] = units
    shift = room.ring.encode_slots(entries, room.ring.parameters.scale)
    if units:
        room.ring.evaluator.add_plain_inplace(shifted, shift)
    lie = room.lie(SERVER, KEY_HOLDER, TOTAL, Total(honest.uploads, (room.ring.save(shifted),)))
    if units == 0.45 and not verify:
        with pytest.raises(InexactDecoding):
            room.holder.receive(lie)
        assert room.holder.result is None
        return
    assert room.holder.receive(lie) == []
    assert room.holder.result is not None
    assert room.holder.result.outside == ((("signed", 1), ("count", 1)) if units else ())
    expected = room.world.truth(room.said) + np.rint(entries[:8]).astype(np.int64)
    assert np.array_equal(room.holder.result.total, expected)


@pytest.mark.parametrize("bits", [32, 64])
def test_a_shift_by_what_the_ring_does_not_see_is_counted(bits: int) -> None:
    """Entries as they are: by 2^32. In limbs: a borrow from one limb to the next."""
    bound = 2 ** (bits - 2)
    layout = Layout((Block("all", 2000, -bound, bound),))
    room = Room(new_world(layout=layout))
    parameters = room.ring.parameters
    assert bool(parameters.limb_bits) == (bits == 64)
    room.upload()
    honest = room.total()
    shift = np.zeros(2001)
    shift[0] = 2.0 ** (parameters.limb_bits or 32)
    if bits == 64:
        # An entry's limbs are 2,000 places apart: 2^w here are 1 there.
        shift[0], shift[2000] = -(2.0 ** (parameters.limb_bits + 3)), 8.0
    shifted = room.ring.load(honest.chunks[0])
    room.ring.evaluator.add_plain_inplace(shifted, room.ring.encode_slots(shift, parameters.scale))
    chunks = (room.ring.save(shifted), *honest.chunks[1:])
    lie = room.lie(SERVER, KEY_HOLDER, TOTAL, Total(honest.uploads, chunks))
    room.holder.receive(lie)
    assert room.holder.result is not None
    assert room.holder.result.outside == (("all", 1),)
    assert np.array_equal(room.holder.result.total, room.world.truth(room.said))


def test_a_list_that_clients_have_not_vouched_for_ends_the_session(room: Room) -> None:
    room.upload()
    honest = room.total()
    other = Upload("client1", bytes(32))
    known = room.uploads(honest)
    changed = (other if upload.client == "client1" else upload for upload in known)
    uploads = Uploads.of(room.world.session, changed)
    with pytest.raises(InconsistentSurvivors):
        room.holder.receive(room.lie(SERVER, KEY_HOLDER, TOTAL, Total(uploads, honest.chunks)))
    assert room.holder.result is None


def test_a_list_below_the_minimum_cohort_ends_the_session(room: Room) -> None:
    room.upload()
    honest = room.total()
    fewer = Uploads.of(room.world.session, room.uploads(honest)[:2])
    lie = room.lie(SERVER, KEY_HOLDER, TOTAL, Total(fewer, honest.chunks))
    with pytest.raises(BelowThreshold, match="2 clients"):
        room.holder.receive(lie)


@pytest.mark.parametrize("shape", ["padding", "stranger", "wide", "empty", "fewer", "more"])
def test_a_list_that_is_none_is_malformed_at_both(room: Room, shape: str) -> None:
    room.upload()
    honest = room.total()
    clients, digests = honest.uploads.clients, honest.uploads.digests
    assert clients == b"\x0f"
    lists = {
        "padding": Uploads(b"\x8f", digests),
        "stranger": Uploads(b"\x1f", digests + bytes(32)),
        "wide": Uploads(clients + b"\0", digests),
        "empty": Uploads(b"", b""),
        "fewer": Uploads(clients, digests[32:]),
        "more": Uploads(b"\x07", digests),
    }
    before = room.holder.save()
    with pytest.raises(Malformed):
        room.holder.receive(room.lie(SERVER, KEY_HOLDER, TOTAL, Total(lists[shape], honest.chunks)))
    assert room.holder.save() == before
    fresh = Room(room.world)
    with pytest.raises(Malformed):
        fresh.server.receive(fresh.lie(KEY_HOLDER, SERVER, CONFIRMED, Confirmed(lists[shape])))


def test_the_server_takes_one_list_only(room: Room) -> None:
    """Also while uploads of the first one are on their way."""
    for client in room.world.session.clients:
        confirmed = room.holder.receive(room.said[client][KEY_HOLDER])
    assert room.server.receive(confirmed[0]) == []
    before = room.server.save()
    first = room.content(confirmed[0], Confirmed).uploads.read(room.world.session, SERVER, "")
    fewer = Confirmed(Uploads.of(room.world.session, first[1:]))
    for again in (confirmed[0], room.lie(KEY_HOLDER, SERVER, CONFIRMED, fewer)):
        with pytest.raises(Replayed, match=r"^server .*'key_holder' has been heard on this before"):
            room.server.receive(again)
    assert room.server.save() == before


def test_a_client_that_reaches_only_one_of_the_two_is_left_out() -> None:
    world = new_world()
    for recipient in (SERVER, KEY_HOLDER):
        for action in ACTIONS:
            fault = Fault(action, "client1", recipient, UPLOAD)
            assert run(world, FaultPlan((fault,))).included == ("client0", "client2", "client3")


def test_ciphertexts_that_are_not_those_vouched_for_leave_their_client_out() -> None:
    room = Room(new_world())
    other = room.content(room.said["client0"][SERVER], Ciphertexts)
    room.said["client1"][SERVER] = room.lie("client1", SERVER, UPLOAD, other)
    room.upload()
    room.server.receive(room.confirmed[0])
    (total,) = room.server.deadline(UPLOAD)
    room.holder.receive(total)
    assert room.holder.result is not None
    assert room.holder.result.included == ("client0", "client2", "client3")
    assert np.array_equal(room.holder.result.total, room.world.truth(room.holder.result.included))


@pytest.mark.parametrize(("missing", "step"), [(KEY_HOLDER, CONFIRMED), (SERVER, TOTAL)])
def test_without_the_other_coordinator_there_is_no_sum(missing: str, step: str) -> None:
    room = Room(new_world())
    room.upload()
    party = room.server if missing == KEY_HOLDER else room.holder
    if party is room.server:
        party.deadline(UPLOAD)
    assert party.awaits == step
    with pytest.raises(CoordinatorMissing):
        party.deadline(step)


def test_a_damaged_spool_is_noticed() -> None:
    world = new_world()
    room = Room(world)
    room.upload()
    spool = world.spools[SERVER]
    spool.put("client1", spool.get("client2"))
    with pytest.raises(BadSavedState, match="client1"):
        room.server.receive(room.confirmed[0])


# Keys


def test_the_key_is_gone_once_the_sum_is_out() -> None:
    world = new_world()
    outcome = run(world)
    *_, before, last = outcome.transcript[KEY_HOLDER].held
    states: Any = KeyHolder.states
    holding, finished = (
        decode(decode(held[32:], tuple[bytes, str, bytes])[2], states) for held in (before, last)
    )
    assert isinstance(finished, Finished)
    assert holding.secret in before
    assert holding.secret not in last


def test_the_key_holder_never_receives_a_clients_ciphertexts() -> None:
    world = new_world()
    outcome = run(world)
    uploads = [
        decode(world.content(data), Ciphertexts).chunks
        for data in outcome.transcript[SERVER].received[:4]
    ]
    for data in outcome.transcript[KEY_HOLDER].received:
        content = world.content(data)
        assert not any(chunk in content for chunks in uploads for chunk in chunks)


def test_unverified_sessions_send_no_seeds_and_say_so() -> None:
    world = new_world(Ckks(verify=False))
    room = Room(world)
    for said in room.said.values():
        assert room.content(said[KEY_HOLDER], Voucher).seed == b""
    assert "NOT VERIFIED" in Ckks(verify=False).protects
    assert "NOT VERIFIED" not in Ckks().protects
    seed = Voucher(bytes(32), bytes(32))
    with pytest.raises(Malformed):
        room.holder.receive(room.lie("client0", KEY_HOLDER, UPLOAD, seed))


def test_importing_protocols_does_not_import_tenseal() -> None:
    code = "import sys, protocols, secure_afl; sys.exit(any('tenseal' in m for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Scale


@pytest.mark.slow
def test_three_hundred_ciphertexts_add_up_on_their_bounds() -> None:
    clients, bound = 300, 2**29
    layout = Layout((Block("all", 64, -bound, bound),))
    vectors = addends(random.Random(3), layout, clients, edges=True)
    outcome = run(make_world(Ckks(), vectors, layout, min_cohort=clients))
    assert len(outcome.included) == clients


@pytest.mark.parametrize("protocol", [Ckks(), Bfv()], ids=str)
def test_addends_may_be_wider_than_their_sum(protocol: EncryptedSum) -> None:
    layout = Layout((Block("x", 8, 0, 10, 1.0, -(2**40), 2**40),))
    vectors = [np.full(8, value, dtype=np.int64) for value in (2**39, -(2**39), 7)]
    world = make_world(protocol, vectors, layout, min_cohort=3)
    outcome = run(world)
    assert outcome.total is not None
    assert outcome.total.outside == ()
    assert np.array_equal(outcome.total.total, np.full(8, 7))
