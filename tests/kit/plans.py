"""Sessions over posts of any weather, by a seed: `python -m tests.kit.plans --plans 10000`.

A session ends with the exact sum or with an error that says why, whatever the post does.
"""

import argparse
import random
import sys
import time

import numpy as np

from protocols import Additive, Bfv, Ckks, Pairwise, Plain, Protocol, Sum
from protocols.carrier import Carrier, Loose, Patience
from protocols.errors import ProtocolError, SessionAborted
from protocols.layout import Block, Layout
from tests.kit.posts import FoulPost, Weather
from tests.kit.worlds import World, make_world

LAYOUT = Layout((Block("values", 4, -40, 40),))
PATIENCE = Patience(deadline=25, repeat=2, most=8)
TURNS = 400


def world_of(protocol: Protocol) -> World:
    vectors = [np.full(4, place + 1, dtype=np.int64) for place in range(5)]
    return make_world(protocol, vectors, LAYOUT, min_cohort=3)


def carried(world: World, seed: int, restart: bool = True) -> Sum | list[ProtocolError]:
    """The sum of a session over a post of this seed, or the errors that it ended with.

    Parties are spread over some machines, and are restored from their saved states now and then.
    """
    rng = random.Random(seed)
    post = FoulPost(Weather.drawn(rng), rng)
    machines = rng.randrange(1, len(world.names) + 1)
    parties = {name: world.party(name) for name in world.names}
    for party in parties.values():
        party.start()

    def carrier(machine: int) -> Carrier:
        names = [n for place, n in enumerate(world.names) if place % machines == machine]
        here = {name: Loose(parties[name]) for name in names}
        found = Carrier(here, post, lambda: post.turn, PATIENCE)
        found.begin(world.names)
        return found

    carriers = [carrier(machine) for machine in range(machines)]
    for _ in range(TURNS):
        post.pass_time()
        if restart and rng.random() < 0.02:
            name = rng.choice(world.names)
            parties[name] = parties[name].reload()
            machine = world.names.index(name) % machines
            kept = carriers[machine].problems
            carriers[machine] = carrier(machine)
            carriers[machine].problems = kept
        for one in carriers:
            one.turn()
            for result in one.results.values():
                return result
        if all(parties[name].awaits is None for name in world.protocol.coordinators()):
            break
    return [problem.error for one in carriers for problem in one.problems]


def check(world: World, seed: int) -> bool:
    """An exact sum, or a typed end; says which."""
    ended = carried(world, seed)
    if isinstance(ended, Sum):
        assert len(ended.included) >= 3, f"seed {seed}"
        assert np.array_equal(ended.total, world.truth(ended.included)), f"seed {seed}"
        assert ended.outside == ()
        return True
    assert any(isinstance(error, SessionAborted) for error in ended), f"seed {seed}: {ended}"
    return False


PAIRWISE = Pairwise(dropout_fraction=0.2)
# Of so many plans, the share that each protocol gets: encryption takes its time.
SHARES: tuple[tuple[Protocol, float], ...] = (
    (Plain(), 0.1),
    (Additive(), 1.0),
    (Additive(3), 0.5),
    (PAIRWISE, 1.0),
    (Ckks(), 0.03),
    (Bfv(), 0.03),
)


def main() -> None:
    """Run so many plans, and say how they ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--plans", type=int, default=10_000)
    plans = parser.parse_args().plans
    for protocol, share in SHARES:
        begin, world = time.perf_counter(), world_of(protocol)
        wanted = max(1, int(plans * share))
        sums = sum(check(world, seed) for seed in range(wanted))
        took = time.perf_counter() - begin
        ends = f"{sums} exact sums, {wanted - sums} typed ends"
        sys.stdout.write(f"{protocol}: {ends}, in {took:.0f} s\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
