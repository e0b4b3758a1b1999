"""Random graphs: regular, connected, and without a say for anybody but the seed's owner."""

import os
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from protocols.schemes.pairwise.graph import circulant, draw_neighbours, sample

Seeds = st.binary(min_size=32, max_size=32)


@given(seed=Seeds, population=st.integers(1, 200), data=st.data())
def test_samples_are_distinct_and_repeat(seed: bytes, population: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, population))
    drawn = sample(seed, population, count)
    assert len(set(drawn)) == count
    assert set(drawn) <= set(range(population))
    assert sample(seed, population, count) == drawn


def test_samples_are_uniform() -> None:
    """30,000 draws of 1 of 10: each about 3,000 times, five standard deviations of 52 allowed."""
    counts = Counter(sample(os.urandom(32), 10, 1)[0] for _ in range(30_000))
    assert len(counts) == 10
    assert all(abs(count - 3000) < 260 for count in counts.values())


@given(seed=Seeds, clients=st.integers(2, 100), data=st.data())
def test_drawn_neighbours_are_others(seed: bytes, clients: int, data: st.DataObject) -> None:
    own = data.draw(st.integers(0, clients - 1))
    count = data.draw(st.integers(1, clients - 1))
    drawn = draw_neighbours(seed, clients, own, count)
    assert list(drawn) == sorted(set(drawn))
    assert len(drawn) == count
    assert own not in drawn
    assert set(drawn) <= set(range(clients))


@given(seed=Seeds, nodes=st.integers(1, 60), half=st.integers(1, 12))
def test_circulant_graphs_are_regular_symmetric_and_connected(
    seed: bytes, nodes: int, half: int
) -> None:
    graph = circulant(seed, nodes, 2 * half)
    for node, neighbours in enumerate(graph):
        assert len(neighbours) == min(2 * half, nodes - 1)
        assert list(neighbours) == sorted(set(neighbours) - {node})
        assert all(node in graph[other] for other in neighbours)
    assert reach(graph, set(range(nodes))) == set(range(nodes))


def test_drop_outs_chosen_off_the_circle_cut_it() -> None:
    """Why a circulant graph is not for a server that picks who has vanished: k nodes suffice."""
    nodes, degree = 400, 20
    graph = circulant(bytes(range(32)), nodes, degree)
    # Walk the circle by common neighbours: nodes next to each other share the most.
    circle = [0, max(graph[0], key=lambda other: common(graph, 0, other))]
    while len(circle) < nodes:
        rest = set(graph[circle[-1]]) - set(circle)
        circle.append(max(rest, key=lambda other: common(graph, circle[-1], other)))
    cut = {*circle[100 : 100 + degree // 2], *circle[300 : 300 + degree // 2]}
    left = set(range(nodes)) - cut
    component = reach(graph, left)
    assert len(cut) == degree
    assert 100 < len(component) < len(left) - 100
    # Neighbours drawn by each node itself are not cut by so few.
    drawn = [draw_neighbours(os.urandom(32), nodes, own, degree) for own in range(nodes)]
    both = [set(others) for others in drawn]
    for node, others in enumerate(drawn):
        for other in others:
            both[other].add(node)
    assert reach([tuple(others) for others in both], left) == left


def common(graph: list[tuple[int, ...]], one: int, other: int) -> int:
    return len(set(graph[one]) & set(graph[other]))


def reach(graph: list[tuple[int, ...]], allowed: set[int]) -> set[int]:
    """What is connected to the least allowed node, going through allowed nodes only."""
    reached, fresh = set(), {min(allowed)}
    while fresh:
        reached |= fresh
        fresh = {other for node in fresh for other in graph[node]} & allowed - reached
    return reached
