"""Who masks with whom: random graphs on the clients, from a 32-byte seed."""

from protocols.primitives.masks import key_stream

_LABEL_BYTES = 16


def sample(seed: bytes, population: int, count: int) -> list[int]:
    """Draw `count` distinct uniform indices below `population`, in random order.

    Sorts by 128-bit labels off the AES-256-CTR key stream of the seed; two labels collide with a
    chance of less than 2^-95 at 100,000.
    """
    stream = key_stream(seed, population * _LABEL_BYTES)
    labels = [stream[at : at + _LABEL_BYTES] for at in range(0, len(stream), _LABEL_BYTES)]
    return sorted(range(population), key=labels.__getitem__)[:count]


def draw_neighbours(seed: bytes, clients: int, own: int, count: int) -> tuple[int, ...]:
    """Draw `count` uniform neighbours of client `own`, ascending.

    Bell et al. 2020, algorithm 3.
    """
    others = [index for index in range(clients) if index != own]
    return tuple(sorted(others[at] for at in sample(seed, len(others), count)))


def circulant(seed: bytes, nodes: int, degree: int) -> list[tuple[int, ...]]:
    """Return the neighbours of each node in a randomly relabelled circulant graph, ascending.

    Each node is joined to the degree/2 next on either side around a random circle (Bell et al.
    2020, algorithm 2: a Harary graph); to everybody where the degree allows.

    Args:
        seed: 32 bytes.
        nodes: at least 1.
        degree: even, or at least nodes − 1.
    """
    if degree >= nodes - 1:
        return [tuple(other for other in range(nodes) if other != n) for n in range(nodes)]
    circle = sample(seed, nodes, nodes)
    reach = [step for step in range(-(degree // 2), degree // 2 + 1) if step]
    neighbours = {
        node: tuple(sorted(circle[(place + step) % nodes] for step in reach))
        for place, node in enumerate(circle)
    }
    return [neighbours[node] for node in range(nodes)]
