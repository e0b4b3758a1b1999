"""Whatever the post does, a session ends with the exact sum or with an error that says why."""

import random
from pathlib import Path

import numpy as np
import pytest

from protocols import Additive, Bfv, Ckks, Plain, Protocol
from protocols.carrier import Carrier, Loose, Note
from protocols.errors import BelowThreshold, Malformed
from tests.kit.plans import PAIRWISE, PATIENCE, TURNS, check, world_of
from tests.kit.posts import FoulPost, Weather
from tests.kit.seats import Table


@pytest.mark.slow
@pytest.mark.parametrize(
    ("protocol", "plans"),
    [(Plain(), 60), (Additive(), 100), (Additive(3), 60), (PAIRWISE, 60), (Ckks(), 6), (Bfv(), 6)],
    ids=str,
)
def test_a_sum_is_exact_or_ends_by_name_whatever_the_post_does(
    protocol: Protocol, plans: int
) -> None:
    world = world_of(protocol)
    sums = sum(check(world, seed) for seed in range(plans))
    assert sums > plans // 3, "most posts are good enough"


def test_a_calm_post_carries_everybody() -> None:
    for protocol in (Plain(), Additive(), PAIRWISE):
        world = world_of(protocol)
        post = FoulPost(Weather(), random.Random(0))
        parties = [world.party(name) for name in world.names]
        for party in parties:
            party.start()
        here = {party.name: Loose(party) for party in parties}
        carrier = Carrier(here, post, lambda post=post: post.turn, PATIENCE)  # type: ignore[misc]
        carrier.begin()
        while not carrier.results:
            post.pass_time()
            carrier.turn()
        (result,) = carrier.results.values()
        assert result.included == world.session.clients
        assert carrier.problems == []


def test_what_is_no_mail_is_noted_and_harms_nobody() -> None:
    world = world_of(Plain())
    post = FoulPost(Weather(), random.Random(0))
    party = world.party("server")
    party.start()
    carrier = Carrier({"server": Loose(party)}, post, lambda: post.turn, PATIENCE)
    nudge = Note("nudge", "client0").mail()
    for data in (b"", b"x", nudge[:-1], nudge + b"x"):
        post.send("server", data)
    carrier.turn()
    assert [type(problem.error) for problem in carrier.problems] == [Malformed] * 4
    assert party.awaits == "upload"


def test_repetitions_come_at_growing_intervals() -> None:
    world = world_of(Plain())
    post = FoulPost(Weather(lose=1.0), random.Random(0))
    client = world.party("client0")
    client.start()
    sent: list[int] = []

    def send(recipient: str, mail: bytes) -> None:
        sent.append(post.turn)

    post.send = send  # type: ignore[method-assign]
    carrier = Carrier({"client0": Loose(client)}, post, lambda: post.turn, PATIENCE)
    carrier.begin()
    for _ in range(60):
        post.pass_time()
        carrier.turn()
    gaps = np.diff(sent).tolist()
    assert gaps[:4] == [2, 4, 8, 8]


@pytest.mark.parametrize("protocol", [Additive(), PAIRWISE], ids=str)
def test_seats_are_carried_too(protocol: Protocol, tmp_path: Path) -> None:
    table = Table(protocol, tmp_path, clients=5)
    post = FoulPost(Weather(lose=0.1, repeat=0.1, delay=0.1, slow=4), random.Random(1))
    seats = {name: table.seats[name].open(table.nonce) for name in table.roles}
    for seat in seats.values():
        table.join(seat)
    carrier = Carrier(seats, post, lambda: post.turn, PATIENCE)
    carrier.begin(table.roles)
    for _ in range(TURNS):
        post.pass_time()
        carrier.turn()
        if carrier.results:
            break
    (result,) = carrier.results.values()
    assert np.array_equal(result.total, sum(table.vectors[name] for name in result.included))
    for seat in seats.values():
        seat.close()


def test_a_party_that_has_aborted_is_known_to_have_ended_after_a_restart(tmp_path: Path) -> None:
    table = Table(Plain(), tmp_path)
    with table.seats["server"].open(table.nonce) as seat:
        table.join(seat)
        with pytest.raises(BelowThreshold):
            seat.deadline("upload")
    with table.seats["server"].open(table.nonce) as seat:
        table.join(seat)
        carrier = Carrier({"server": seat}, FoulPost(Weather(), random.Random(0)), lambda: 0.0)
        assert carrier.ended == {"server"}


def test_many_nudges_are_answered_once_a_turn() -> None:
    world = world_of(Plain())
    post = FoulPost(Weather(), random.Random(0))
    client = world.party("client0")
    client.start()
    carrier = Carrier({"client0": Loose(client)}, post, lambda: post.turn, PATIENCE)
    for sender in ("server", "server", "nobody"):
        post.send("client0", Note("nudge", sender).mail())
    carrier.turn()
    assert len(list(post.collect(["server"]))) == 1
    carrier.turn()
    assert list(post.collect(["server"])) == []
