"""k and t follow from what is declared, and keep the promise by an independent reckoning."""

from math import comb
from typing import Any

import numpy as np
import pytest
from scipy.stats import hypergeom

from protocols.errors import InvalidSession
from protocols.schemes.pairwise.parameters import (
    SERVERS,
    ServerTrust,
    conceded,
    describe,
    find_parameters,
)

CASES = [
    (n, corrupt, dropout, server)
    for n in (3, 10, 30, 100, 333, 1000)
    for corrupt, dropout in ((0.0, 0.0), (0.1, 0.1), (0.2, 0.05), (0.05, 0.3))
    for server in SERVERS
]


@pytest.mark.parametrize(
    ("n", "corrupt", "dropout", "server", "expected"),
    [
        (100, 0.1, 0.1, "curious", (22, 11)),
        (100, 0.1, 0.1, "lying_in_unmasking", (32, 22)),
        (1000, 0.1, 0.1, "curious", (48, 27)),
        (1000, 0.1, 0.1, "lying_in_unmasking", (96, 67)),
        (10_000, 0.1, 0.1, "curious", (54, 31)),
        (10_000, 0.1, 0.1, "lying_in_unmasking", (122, 85)),
        (100, 0.33, 0.05, "curious", (34, 29)),
        (100, 0.33, 0.05, "lying_in_unmasking", (42, 37)),
    ],
)
def test_cross_check_of_another_implementation(
    n: int, corrupt: float, dropout: float, server: ServerTrust, expected: tuple[int, int]
) -> None:
    found = find_parameters(n, corrupt, dropout, server)
    assert (found.neighbours, found.threshold) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("n", "corrupt", "dropout", "server"), CASES)
def test_promises_hold_by_scipy(
    n: int, corrupt: float, dropout: float, server: ServerTrust
) -> None:
    p = find_parameters(n, corrupt, dropout, server)
    assert p.corrupt == max(1, int(np.ceil(corrupt * n - 1e-9)))
    assert p.dropouts == int(dropout * n + 1e-9)
    left = n - p.dropouts
    assert p.threshold >= 2
    assert p.quorum <= left
    if p.complete:
        # Everybody holds a share of everything.
        assert p.threshold > p.corrupt
        assert p.threshold <= left
        if server != "curious":
            assert 2 * p.threshold > n + p.corrupt
        return
    # No client has as many corrupt neighbours as open a secret, but for 2^-40 among all.
    assert n * hypergeom.sf(p.threshold - 1, n, p.corrupt, p.neighbours) <= 2**-40
    # Every client has enough surviving neighbours, but for 2^-20 among all.
    assert n * hypergeom.cdf(p.threshold - 1, n, left, p.neighbours) <= 2**-20
    if server != "curious":
        assert 2 * p.quorum > n + p.corrupt
        # Two openings of one client take 2t shares; each honest neighbour gives one, the corrupt
        # ones two.
        corrupt_needed = 2 * p.threshold - p.neighbours
        assert n * hypergeom.sf(corrupt_needed - 1, n, p.corrupt, p.neighbours) <= 2**-40


@pytest.mark.parametrize("n", [60, 100, 333])
def test_splits_are_improbable_by_exact_integers(n: int) -> None:
    """The union bound over cuts of the signers, in integers; a lying server."""
    p = find_parameters(n, 0.1, 0.1, "lying")
    assert not p.complete
    k, honest, quorum = p.neighbours, n - p.corrupt, p.quorum - p.corrupt
    corrupt_near = next(x for x in range(k + 1) if n * hypergeom.sf(x, n, p.corrupt, k) <= 2.0**-41)
    least = p.threshold - corrupt_near + 1
    most = max(quorum // 2, n // 2 + 1 - p.corrupt - 1)
    bound = 0.0
    for size in range(least, most + 1):
        others = quorum - size
        sets = comb(honest, size) * comb(honest - size, others)
        avoid = sets * comb(n - 1 - others, k) ** size / comb(n - 1, k) ** size
        together = float(hypergeom.sf(least - 2, n - 1, size - 1, k))
        bound += min(avoid, comb(honest, size) * together**size)
    assert bound <= 2**-40


def test_smaller_graphs_would_break_the_promise() -> None:
    """k is the least even one: with two neighbours fewer, some promise is broken by scipy."""
    p = find_parameters(1000, 0.1, 0.1, "curious")
    k = p.neighbours - 2
    t = next(t for t in range(1, k) if 1000 * hypergeom.sf(t - 1, 1000, 100, k) <= 2**-41)
    assert 1000 * hypergeom.cdf(t - 1, 1000, 900, k) > 2**-20


def test_a_minimum_cohort_above_the_quorum_needs_the_complete_graph() -> None:
    assert not find_parameters(100, 0.1, 0.1, "lying").complete
    assert find_parameters(100, 0.1, 0.1, "lying", 90).complete
    assert find_parameters(100, 0.1, 0.1, "lying", 90).threshold == 56


def test_fractions_are_the_decimals_that_were_written() -> None:
    assert find_parameters(100, 0.29, 0.07, "curious").corrupt == 29
    assert find_parameters(100, 0.29, 0.07, "curious").dropouts == 7


@pytest.mark.parametrize(
    ("fraction", "clients", "corrupt"),
    [(0.0, 2, 0), (0.4, 2, 0), (0.0, 3, 1), (0.1, 9, 1), (0.1, 10, 1), (0.1, 11, 2), (0.29, 7, 3)],
)
def test_corrupt_clients_are_rounded_up_and_one_at_least_of_three(
    fraction: float, clients: int, corrupt: int
) -> None:
    assert conceded(fraction, clients) == corrupt
    assert find_parameters(clients, fraction, 0.0, "curious").corrupt == corrupt


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"corrupt_fraction": 1.0}, "corrupt"),
        ({"corrupt_fraction": -0.1}, "corrupt"),
        ({"dropout_fraction": 1.5}, "drop-out"),
        ({"dropout_fraction": float("nan")}, "drop-out"),
        ({"server_trust": "honest"}, "curious, lying_in_unmasking, lying"),
        ({"clients": 1}, "≥ 2"),
        ({"corrupt_fraction": 0.5, "dropout_fraction": 0.4}, "threshold"),
        ({"corrupt_fraction": 0.4, "dropout_fraction": 0.4, "server_trust": "curious"}, None),
    ],
)
def test_impossible_promises_are_refused(changes: dict[str, Any], what: str | None) -> None:
    terms: dict[str, Any] = {
        "clients": 10,
        "corrupt_fraction": 0.1,
        "dropout_fraction": 0.1,
        "server_trust": "lying",
    }
    if what is None:
        assert find_parameters(**(terms | changes)).threshold == 5
        return
    with pytest.raises(InvalidSession, match=what):
        find_parameters(**(terms | changes))


def test_descriptions_say_what_is_not_kept() -> None:
    lines = describe(find_parameters(1000, 0.1, 0.1, "lying_in_unmasking"))
    assert lines["neighbours k"] == "96"
    assert "several, if the server picks" in lines["sums that can be opened"]
    lines = describe(find_parameters(1000, 0.1, 0.1, "lying"))
    assert lines["sums that can be opened"] == "one, over ≥ 401 honest clients"
    assert "draws its own" in lines["graph"]
