"""What a verifying key holder reads: a function of the vectors, never of the key or the noise."""

from typing import Any

import numpy as np
import pytest

from attacks.encryption.polynomials import Pair, modulus, put_together, take_apart
from protocols import Bfv, Block, Ckks, Layout
from protocols.errors import InexactDecoding, SessionAborted, UnverifiedSum
from protocols.layout import Decoded, Integers
from protocols.schemes.encrypted.key_holder import KeyHolder
from protocols.schemes.encrypted.messages import KEY_HOLDER, SERVER, TOTAL, Total
from protocols.schemes.encrypted.parameters import BFV, CKKS, find_parameters
from protocols.schemes.encrypted.protocol import EncryptedSum
from protocols.schemes.encrypted.seal import KeyPair, Ring, Slots
from tests.kit.worlds import make_world, run
from tests.protocols.schemes.encrypted.test_encrypted import Room, new_world

CLIENTS, CHUNKS, SESSIONS = 3, 3, 3
LENGTH = CHUNKS * 4096
LAYOUT = Layout((Block("all", LENGTH, -100, 100),))
BOTH = pytest.mark.parametrize("protocol", [Bfv(), Ckks()], ids=[BFV, CKKS])


def new_room(protocol: EncryptedSum) -> Room:
    """The same vectors every time, under keys and noise of their own."""
    rng = np.random.default_rng(0)
    vectors = [rng.integers(-30, 31, LENGTH) for _ in range(CLIENTS)]
    room = Room(make_world(protocol, vectors, LAYOUT, min_cohort=CLIENTS))
    assert room.ring.parameters.chunks(LENGTH) == CHUNKS
    room.upload()
    return room


def plain_modulus(ring: Ring) -> int:
    return int(ring.context.first_context_data().parms().plain_modulus().value())


def half_units(room: Room, halves: int) -> int:
    """So many halves of what one unit of a plaintext is multiplied by."""
    parameters = room.ring.parameters
    if parameters.scheme == CKKS:
        return round(halves * parameters.scale / 2)
    return round(halves * modulus(room.ring) / (2 * plain_modulus(room.ring)))


def shifted(room: Room, chunk: bytes, shift: int, place: int = 0) -> bytes:
    """Add to one coefficient of c0; under CKKS to the constant one, which is in every word."""
    pair, q = take_apart(room.ring, chunk), modulus(room.ring)
    first = list(pair.first)
    for index in range(len(first)) if room.ring.parameters.scheme == CKKS else [place]:
        first[index] = (first[index] + shift) % q
    return put_together(room.ring, Pair(first, pair.second))


def in_every_slot(room: Room) -> Integers:
    """One unit in the constant coefficient, as entries: under CKKS the real parts."""
    return np.tile([1, 1 if room.ring.parameters.scheme == BFV else 0], LENGTH // 2)


def read_by_holder(
    room: Room, total: Total, monkeypatch: pytest.MonkeyPatch
) -> tuple[bytes, type[Exception] | None]:
    """What the key holder decodes, to the last bit, and the error that it ends with."""
    seen: list[bytes] = []
    decode = KeyHolder._decode

    def spy(holder: KeyHolder, slots: Slots) -> Decoded:
        seen.append(slots.tobytes())
        return decode(holder, slots)

    monkeypatch.setattr(KeyHolder, "_decode", spy)
    error: type[Exception] | None = None
    try:
        room.holder.receive(room.lie(SERVER, KEY_HOLDER, TOTAL, total))
    except SessionAborted as aborted:
        error = type(aborted)
    monkeypatch.undo()
    return b"".join(seen), error


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("halves", [-3, -2, -1, 0, 1, 2, 3])
def test_a_shift_has_one_outcome_whatever_the_noise(
    protocol: EncryptedSum, halves: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a unit was rounded up or down by the noise's sign, a bit of the key in each chunk."""
    outcomes = set()
    for _ in range(SESSIONS):
        room = new_room(protocol)
        shift = half_units(room, halves)
        honest = room.total()
        chunks = tuple(shifted(room, chunk, shift) for chunk in honest.chunks)
        outcomes.add(read_by_holder(room, Total(honest.uploads, chunks), monkeypatch))
        result = room.holder.result
        if halves % 2:
            # Under CKKS a sum that wraps around q looks the same, and is counted.
            assert (result is None) == (room.world.protocol.name == BFV)
            assert result is None or result.outside
        else:
            assert result is not None
            wanted = room.world.truth(room.said) + halves // 2 * in_every_slot(room)
            assert np.array_equal(result.total, wanted)
    ((_, error),) = outcomes
    assert error is (InexactDecoding if halves % 2 and protocol.name == BFV else None)


@pytest.mark.slow
@pytest.mark.parametrize("beside", [-1, 0, 1])
@pytest.mark.parametrize("place", [0, 1, 4095])
def test_half_a_unit_in_any_coefficient_is_never_rounded(beside: int, place: int) -> None:
    """BFV rounds each coefficient by itself, and the key holder opens one chunk with the others."""
    room = new_room(Bfv())
    honest = room.total()
    shift = half_units(room, 1) + beside
    chunks = (*honest.chunks[:-1], shifted(room, honest.chunks[-1], shift, place))
    with pytest.raises(InexactDecoding):
        room.holder.receive(room.lie(SERVER, KEY_HOLDER, TOTAL, Total(honest.uploads, chunks)))
    assert room.holder.result is None


@BOTH
def test_nothing_is_read_before_every_chunk_is_verified(
    protocol: EncryptedSum, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = new_room(protocol)
    honest = room.total()
    pair = take_apart(room.ring, honest.chunks[-1])
    second = [(pair.second[0] + 1) % modulus(room.ring), *pair.second[1:]]
    chunks = (*honest.chunks[:-1], put_together(room.ring, Pair(pair.first, second)))
    for name in ("decrypt", "read", "is_plaintext", "decode"):
        monkeypatch.setattr(Ring, name, _refuse)
    with pytest.raises(UnverifiedSum):
        room.holder.receive(room.lie(SERVER, KEY_HOLDER, TOTAL, Total(honest.uploads, chunks)))
    assert room.holder.result is None


@BOTH
def test_a_verified_session_never_decrypts_with_its_key(
    protocol: EncryptedSum, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ring, "decrypt", _refuse)
    world = new_world(protocol)
    assert run(world).included == world.session.clients


def _refuse(*_: Any) -> None:
    pytest.fail("read too early, or with the key")


# Differences


@pytest.mark.parametrize("scheme", [BFV, CKKS])
def test_a_difference_is_the_sum_of_the_encodings_modulo_q(scheme: str) -> None:
    ring, rng = Ring(find_parameters(LAYOUT, CLIENTS, scheme)), np.random.default_rng(0)
    degree, q = ring.parameters.degree, modulus(ring)
    public_key = KeyPair(ring, rng.bytes(64), rng.bytes(64)).public_key
    total: Any = None
    zero: Any = None
    wanted, truth = [0] * degree, np.zeros(degree)
    for _ in range(CLIENTS):
        entries, seed = rng.integers(-100, 101, degree), rng.bytes(64)
        plaintext = ring.encode(entries)
        words = [plaintext[i] for i in range(degree)]
        if scheme == BFV:
            plain = plain_modulus(ring)
            words = [(2 * q * word + plain) // (2 * plain) for word in words]
        wanted = [(a + b) % q for a, b in zip(wanted, words, strict=True)]
        truth += entries
        encrypted, nothing = (
            ring.encrypt(public_key, seed, plaintext),
            ring.encrypt(public_key, seed),
        )
        if total is None:
            total, zero = encrypted, nothing
        else:
            ring.add(total, encrypted)
            ring.add(zero, nothing)
    assert ring.subtract(total, zero)
    assert [total[i] for i in range(degree)] == wanted
    assert ring.is_plaintext(total, CLIENTS)
    assert np.abs(ring.read(total) - truth).max() < (1e-3 if scheme == CKKS else 1e-9)


def test_a_difference_with_a_second_component_is_not_read() -> None:
    ring, rng = Ring(find_parameters(LAYOUT, CLIENTS)), np.random.default_rng(0)
    public_key = KeyPair(ring, rng.bytes(64), rng.bytes(64)).public_key
    one, other = (ring.encrypt(public_key, rng.bytes(64)) for _ in range(2))
    assert not ring.subtract(one, other)
    with pytest.raises(AssertionError):
        ring.read(one)


def test_what_rounding_cannot_account_for_is_no_plaintext() -> None:
    """A client is granted one step of q at most, whatever its share of a sum."""
    addends = 8
    ring, rng = Ring(find_parameters(LAYOUT, addends, BFV)), np.random.default_rng(0)
    public_key = KeyPair(ring, rng.bytes(64), rng.bytes(64)).public_key
    for shift, wanted in ((0, True), (addends // 2 - 1, True), (2 * addends, False)):
        seed = rng.bytes(64)
        total, zero = ring.encrypt(public_key, seed), ring.encrypt(public_key, seed)
        pair = take_apart(ring, ring.save(total))
        first = [(pair.first[0] - shift) % modulus(ring), *pair.first[1:]]
        total = ring.load(put_together(ring, Pair(first, pair.second)))
        assert ring.subtract(total, zero)
        assert ring.is_plaintext(total, addends) == wanted
