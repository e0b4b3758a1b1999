"""What a client that breaks its bounds learns: nothing that it would not have learnt anyway.

It sends a value with which the total is out of bounds or within, depending on what the others have.
Were there an abort in one case and a sum in the other, it would have asked them a question and read
the answer. Here two such worlds, with the same keys and the same entropy, go alike for everybody
but the receiver, whose sum says how many entries are outside.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from protocols import (
    Additive,
    Bfv,
    Block,
    Ckks,
    FaultPlan,
    Layout,
    Network,
    Pairwise,
    Party,
    Plain,
    Protocol,
)
from protocols.codec import decode
from protocols.errors import InexactDecoding
from protocols.layout import Integers
from protocols.message import Message
from protocols.party import Sum
from protocols.schemes.encrypted import chunks as encrypted_chunks
from protocols.schemes.encrypted.client import EncryptingClient
from protocols.schemes.encrypted.parameters import Parameters
from tests.kit.worlds import World, make_world

CLIENTS = 4
LAYOUT = Layout((Block("sums", 4, -1000, 1000), Block("counts", 2, 0, 100)))
WIDE = Layout((Block("sums", 4, -(2**62), 2**62), Block("counts", 2, 0, 100)))
PROTOCOLS: tuple[Protocol, ...] = (
    *(Plain(), Additive(), Additive(aggregators=3)),
    *(Pairwise(0.0, 0.25, "lying"), Pairwise(0.0, 0.25, "curious")),
    *(Ckks(), Ckks(verify=False), Bfv(), Bfv(verify=False)),
)
LIAR = "client0"


def entropy_of(name: str) -> Callable[[int], bytes]:
    """The same for a party in every world."""
    return lambda length: hashlib.shake_128(name.encode()).digest(length)


def play(
    world: World,
    vectors: Mapping[str, Integers],
    *,
    lost: Mapping[str, str] | None = None,
    lie: Callable[..., bytes] | None = None,
) -> tuple[Sum, list[tuple[Any, ...]]]:
    """A run, and all that the parties said: sender, recipient, step, and how long it was.

    With `lie` the liar encrypts by that function.
    """
    parties: list[Party] = []
    for name in world.names:
        party = world.party(name)
        party._entropy = entropy_of(name)
        if name in vectors:
            # What its own program checks is the liar's own business.
            party._take_vector = lambda _, name=name: vectors[name]  # type: ignore[method-assign,misc]
        if name == LIAR and isinstance(party, EncryptingClient) and lie is not None:
            party.chunk_map = lambda _, *arguments: map(lie, *arguments)
        parties.append(party)
    network = Network(parties, FaultPlan(vanish=lost or {}), record=True)
    total = network.run()
    assert not network.aborts
    assert not network.rejections
    assert network.transcript is not None
    said = []
    for name, record in network.transcript.items():
        for data in record.sent:
            header = decode(data, Message).header
            said.append((name, header.recipient, header.step, len(data), len(header.batch)))
    return total, said


def alike(one: list[tuple[Any, ...]], two: list[tuple[Any, ...]]) -> None:
    """The two worlds' messages are the same but for contents.

    Ciphertexts are compressed, by a few bytes that depend on their random words.
    """
    assert [message[:3] for message in one] == [message[:3] for message in two]
    for first, second in zip(one, two, strict=True):
        assert abs(first[3] - second[3]) <= 0.02 * first[3] * (first[3] > 10_000)
        assert first[4] == second[4]


def question(layout: Layout, at: int, value: int, answer: int) -> dict[bool, dict[str, Integers]]:
    """The clients' vectors where another has what takes the liar's value inside, or has not."""
    worlds = {}
    for asked in (False, True):
        vectors = {f"client{i}": np.zeros(layout.length, dtype=np.int64) for i in range(CLIENTS)}
        vectors[LIAR][at] = value
        vectors["client2"][at] = answer if asked else 0
        worlds[asked] = vectors
    return worlds


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=str)
@pytest.mark.parametrize(
    ("layout", "at", "value", "answer"),
    [
        (LAYOUT, 4, -1, 1),  # does anybody have a row of this class?
        (LAYOUT, 0, 1001, -1),
        (LAYOUT, 3, -1500, 700),
        (LAYOUT, 5, 101, -1),
        (WIDE, 4, -1, 1),
        (WIDE, 0, 2**62 + 1, -1),
        (WIDE, 0, -(2**62) - 5, 5),
    ],
)
def test_a_total_out_of_bounds_ends_like_any_other(
    protocol: Protocol, layout: Layout, at: int, value: int, answer: int
) -> None:
    world = make_world(
        protocol, [np.zeros(layout.length, dtype=np.int64)] * CLIENTS, layout, min_cohort=3
    )
    worlds = question(layout, at, value, answer)
    (without, said), (with_it, heard) = (play(world, worlds[asked]) for asked in (False, True))
    alike(said, heard)
    assert without.included == with_it.included == world.session.clients
    # Who receives the sum is told, and has the exact total, which is near its range.
    name = "sums" if at < 4 else "counts"
    assert without.outside == ((name, 1),)
    assert with_it.outside == ()
    for total, asked in ((without, False), (with_it, True)):
        assert np.array_equal(total.total, sum(worlds[asked].values()))


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=str)
def test_nor_does_it_show_when_somebody_is_lost(protocol: Protocol) -> None:
    """The liar asks by whom the answer was sent: it makes no difference to what is said."""
    world = make_world(
        protocol, [np.zeros(LAYOUT.length, dtype=np.int64)] * CLIENTS, LAYOUT, min_cohort=3
    )
    worlds = question(LAYOUT, 4, -1, 1)
    lost = {"client3": protocol.upload_step}
    (one, said), (two, heard) = (play(world, worlds[asked], lost=lost) for asked in (False, True))
    alike(said, heard)
    assert (one.outside, two.outside) == ((("counts", 1),), ())


# Ciphertexts of what no vector is


def encrypting(shift: Callable[[Any, Parameters], Any]) -> Callable[..., bytes]:
    """A client that encrypts other entries than its own, by its own key and seed."""

    def chunk(parameters: Parameters, public_key: bytes, seed: bytes, part: Integers) -> bytes:
        ring, loaded = encrypted_chunks._loaded(parameters, public_key)
        plaintext = shift(ring, parameters)(part)
        return ring.save(ring.encrypt(loaded, seed, plaintext))

    return chunk


def slots(entries: dict[int, float]) -> Callable[[Any, Parameters], Any]:
    """Under CKKS: any real numbers, in any slots."""

    def shift(ring: Any, parameters: Parameters) -> Any:
        def encode_part(part: Integers) -> Any:
            values = part.astype(np.float64)
            values = np.pad(values, (0, parameters.degree - len(values)))
            for at, by in entries.items():
                values[at] += by
            return ring.encode_slots(values, parameters.scale)

        return encode_part

    return shift


def integers(entries: dict[int, int]) -> Callable[[Any, Parameters], Any]:
    """Under either: any integers, in any slots."""

    def shift(ring: Any, parameters: Parameters) -> Any:
        def encode_part(part: Integers) -> Any:
            values = np.pad(part, (0, max(0, max(entries) + 1 - len(part))))
            for at, by in entries.items():
                values[at] += by
            return ring.encode(values)

        return encode_part

    return shift


CASES: dict[str, tuple[Protocol, Any, tuple[tuple[str, int], ...]]] = {
    # Nearly half a unit more, in an entry of each block: neither is an integer.
    "halves": (Ckks(), slots({1: 0.4, 5: -0.4}), (("sums", 1), ("counts", 1))),
    # Beyond the vector nobody looks.
    "padding": (Ckks(), slots({6: 0.4, 7: 3.0}), ()),
    "padding, bfv": (Bfv(), integers({6: 9}), ()),
    # A multiple of the ring's 2^32 is nothing in the ring.
    "ring": (Ckks(), integers({1: 2**33}), (("sums", 1),)),
    "ring, bfv": (Bfv(), integers({1: 2**33}), (("sums", 1),)),
}


@pytest.mark.parametrize("case", CASES)
def test_ciphertexts_of_no_vector_end_like_any_other(case: str) -> None:
    protocol, shift, outside = CASES[case]
    vectors = [np.arange(LAYOUT.length, dtype=np.int64)] * CLIENTS
    world = make_world(protocol, vectors, LAYOUT, min_cohort=3)
    honest, said = play(world, world.vectors)
    assert honest.outside == ()
    total, heard = play(world, world.vectors, lie=encrypting(shift))
    alike(said, heard)
    assert total.included == honest.included
    assert total.outside == outside
    assert np.array_equal(total.total, honest.total)


@pytest.mark.parametrize("others", [0, 1])
def test_what_is_no_integer_ends_an_unverified_session_whatever_the_others_have(
    others: int,
) -> None:
    """Nearly half a unit more: honest vectors are integers, so that the answer is always no."""
    vectors = [np.full(LAYOUT.length, others, dtype=np.int64)] * CLIENTS
    world = make_world(Ckks(verify=False), vectors, LAYOUT, min_cohort=3)
    with pytest.raises(InexactDecoding):
        play(world, world.vectors, lie=encrypting(slots({1: 0.45, 5: -0.45})))


@pytest.mark.parametrize("others", [0, 50, 100])
def test_a_sum_that_wraps_around_the_modulus_is_counted_whatever_the_others_have(
    others: int,
) -> None:
    """A constant near q/2 once ended the session or not, by what the others had."""
    vectors = [np.full(LAYOUT.length, others, dtype=np.int64)] * CLIENTS
    world = make_world(Ckks(), vectors, LAYOUT, min_cohort=3)
    party = world.party(LIAR)
    assert isinstance(party, EncryptingClient)
    q, scale = 2.0**party.parameters.prime_bits, party.parameters.scale
    honest, said = play(world, world.vectors)
    total, heard = play(world, world.vectors, lie=encrypting(slots({1: (q / 2) / scale - 150})))
    alike(said, heard)
    assert dict(total.outside)["sums"] >= 1
    assert total.included == honest.included


@pytest.mark.parametrize("protocol", [Ckks(), Bfv(), Ckks(verify=False)], ids=str)
@pytest.mark.parametrize("by", [-1, 1, "beyond"])
def test_limbs_that_no_residue_has_end_like_any_other(protocol: Protocol, by: int | str) -> None:
    """A limb below zero, or above what all clients' limbs add up to."""
    vectors = [np.zeros(WIDE.length, dtype=np.int64)] * CLIENTS
    world = make_world(protocol, vectors, WIDE, min_cohort=3)
    party = world.party(LIAR)
    assert isinstance(party, EncryptingClient)
    parameters = party.parameters
    assert parameters.limbs > 1
    beyond = CLIENTS * (2**parameters.limb_bits - 1) + 1
    shift = integers({1: beyond if by == "beyond" else int(by)})
    honest, said = play(world, world.vectors)
    total, heard = play(world, world.vectors, lie=encrypting(shift))
    alike(said, heard)
    # One more is a limb of some vector; one that is below zero or too great is of none.
    assert total.outside == (() if by == 1 else (("sums", 1),))
    assert total.total[1] == honest.total[1] + (beyond if by == "beyond" else int(by))
