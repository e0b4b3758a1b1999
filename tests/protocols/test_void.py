"""Voids: who has signed them, for which session, and who may believe them."""

import msgspec
import numpy as np
import pytest

from protocols import Additive, Identity, Pairwise, Protocol
from protocols.codec import decode, encode
from protocols.errors import (
    BadSignature,
    InvalidSession,
    Malformed,
    NotVoidable,
    UnknownSender,
)
from protocols.protocol import check_given_back
from protocols.roster import Roster
from protocols.void import Evidence, Void, Voids, sign_void
from tests.kit.plans import LAYOUT
from tests.kit.worlds import World, make_world, run

NAMES = ("collector", "aggregator_1")


def world_of(protocol: Protocol, clients: int = 4) -> World:
    return make_world(protocol, [np.arange(4)] * clients, LAYOUT, min_cohort=3)


WORLD = world_of(Additive())


def voids_of(world: World, names: tuple[str, ...]) -> Voids:
    parties = [world.party(name) for name in names]
    for party in parties:
        party.start()
    return Voids.of(party.void() for party in parties)


def evidence(world: World, voids: Voids) -> bytes:
    return encode(Evidence(encode(world.session.header), world.session.thin, voids))


def test_enough_parties_give_a_session_back() -> None:
    voids = voids_of(WORLD, NAMES)
    data = evidence(WORLD, voids)
    assert check_given_back(data, WORLD.session.roster) == WORLD.session.id
    assert check_given_back(data, None) == WORLD.session.id
    assert decode(data, Evidence).voids.digest == voids.digest


@pytest.mark.parametrize("names", [NAMES[:1], NAMES[1:], ("client0", "client1", "collector")])
def test_too_few_are_named(names: tuple[str, ...]) -> None:
    signed = Voids.of(sign_void(WORLD.session, WORLD.enrolments[n].identity) for n in names)
    missing = next(name for name in NAMES if name not in names)
    with pytest.raises(InvalidSession, match=f"not given back: {missing} missing"):
        check_given_back(evidence(WORLD, signed), WORLD.session.roster)


def test_nobody_signs_for_another_and_not_for_another_session() -> None:
    voids = voids_of(WORLD, NAMES)
    first, second = voids.voids
    other = world_of(Additive())
    forged = [
        (
            msgspec.structs.replace(
                voids, voids=(first, msgspec.structs.replace(second, party="aggregator_1"))
            ),
            Malformed,
        ),
        (msgspec.structs.replace(voids, voids=(second, first)), Malformed),
        (msgspec.structs.replace(voids, session=other.session.id), Malformed),
        (voids_of(other, NAMES), Malformed),
        (Voids.of([first, Void(second.session, "client0", second.signature)]), BadSignature),
        (Voids.of([first, Void(second.session, "nobody", second.signature)]), UnknownSender),
        (Voids.of([first, Void(second.session, "collector", first.signature)]), BadSignature),
    ]
    for lie, error in forged:
        with pytest.raises(error):
            check_given_back(evidence(WORLD, lie), WORLD.session.roster)


def test_evidence_is_held_against_the_pinned_roster() -> None:
    """Anybody can make up a session, its aggregators and their voids."""
    data = evidence(WORLD, voids_of(WORLD, NAMES))
    lines = [*WORLD.session.roster.lines]
    lines[0] = msgspec.structs.replace(lines[0], verify_key=Identity.generate("x").verify_key)
    with pytest.raises(InvalidSession, match="'aggregator_1' is not known"):
        check_given_back(data, Roster.of(lines))


def test_voids_of_several_sessions_are_not_put_together() -> None:
    first, other = voids_of(WORLD, NAMES[:1]), voids_of(world_of(Additive()), NAMES[1:])
    with pytest.raises(InvalidSession, match="voids of 2 sessions"):
        Voids.of([*first.voids, *other.voids])
    with pytest.raises(InvalidSession, match="voids of 0 sessions"):
        Voids.of([])


def test_pairwise_wants_so_many_clients_that_no_quorum_is_left() -> None:
    world = world_of(Pairwise(corrupt_fraction=0.2, dropout_fraction=0.0), clients=9)
    clients = world.session.clients
    # n = 9, two corrupt, a quorum of 6: with 6 honest ones out, 3 are left, and no quorum.
    assert world.protocol.void_lacks(world.session, clients[:5]) == "1 more of 6 clients"
    assert world.protocol.void_lacks(world.session, clients[:6]) == ""
    # A server that lies in every step says so, too.
    assert world.protocol.void_lacks(world.session, ("server", *clients[:5])) != ""


def test_whoever_has_opened_or_received_signs_no_void() -> None:
    outcome = run(WORLD)
    for name in NAMES:
        party = WORLD.load(name, outcome.transcript[name].held[-1])
        with pytest.raises(NotVoidable, match=f"{name}: what this party has said may open"):
            party.void()
