"""How many neighbours and which threshold pairwise masking needs, found from what is declared.

The rule is that of Bell et al. 2020 ("Secure Single-Server Aggregation with (Poly)Logarithmic
Overhead", CCS 2020, sections 3 and 4) with bounds computed instead of estimated. Nobody types k or
t: the user declares how many clients may be corrupt, how many may vanish, and how far the server
may lie. Small cohorts, for which no sparse graph is good enough, get the complete graph.

Security fails with probability at most 2^-40 a session, correctness with at most 2^-20.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, inf, log
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from protocols.errors import InvalidSession

SECURITY_BITS = 40
CORRECTNESS_BITS = 20

# Up to here a sparse graph would save milliseconds, and cost the simpler proof.
SMALL_COHORT = 50

# How far the server may lie; each includes what comes before it.
ServerTrust = Literal["curious", "lying_in_unmasking", "lying"]
SERVERS: tuple[ServerTrust, ...] = ("curious", "lying_in_unmasking", "lying")

_LN2 = log(2)


@dataclass(frozen=True)
class Parameters:
    """Parameters that the clients and the server of one cohort work with.

    Attributes:
        clients: size of the cohort, n.
        corrupt: clients that may work with the server: ⌈γn⌉, and one at least of three or more.
        dropouts: clients that may vanish, ⌊δn⌋.
        server_trust: how far the server may lie.
        neighbours: k: with how many others a client masks (at least) and shares its secrets;
            `clients − 1` is the complete graph.
        threshold: t: shares that open a secret.
        quorum: signatures on one set of survivors without which no client opens anything.
    """

    clients: int
    corrupt: int
    dropouts: int
    server_trust: ServerTrust
    neighbours: int
    threshold: int
    quorum: int

    @property
    def complete(self) -> bool:
        """Whether everybody masks with everybody.

        Everybody is then one of the holders of its own secrets, too.
        """
        return self.neighbours == self.clients - 1

    @property
    def clients_choose(self) -> bool:
        """Clients draw their own neighbours, since nobody else may be trusted to."""
        return self.server_trust == "lying" and not self.complete

    @property
    def survives_chosen_dropouts(self) -> bool:
        """No choice of drop-outs, made by looking at the graph, can cut it in two.

        The circulant graph on k neighbours stays connected when fewer than k clients are gone.
        """
        if self.server_trust == "lying" or self.complete:
            return True
        gone = self.corrupt + self.clients - self.quorum
        return gone < self.neighbours


@lru_cache(maxsize=64)
def find_parameters(
    clients: int,
    corrupt_fraction: float,
    dropout_fraction: float,
    server_trust: ServerTrust,
    min_cohort: int | None = None,
) -> Parameters:
    """Find the smallest even k, and the threshold, that keep the promise.

    Else the graph is complete.

    Args:
        clients: size of the cohort, at least 2.
        corrupt_fraction: γ, of clients that may work with the server, 0 ≤ γ < 1.
        dropout_fraction: δ, of clients that may vanish, 0 ≤ δ < 1.
        server_trust: how far the server may lie.
        min_cohort: least clients in a sum; matters to `lying` alone. Default: a majority.

    Raises:
        InvalidSession: out of range, or no graph on so few clients can keep the promise.
    """
    for name, fraction in (("corrupt", corrupt_fraction), ("drop-out", dropout_fraction)):
        if not 0 <= fraction < 1:
            raise InvalidSession(f"{name} fraction {fraction}, allowed: 0 ≤ fraction < 1")
    if server_trust not in SERVERS:
        raise InvalidSession(f"server trust '{server_trust}', allowed: {', '.join(SERVERS)}")
    if clients < 2:
        raise InvalidSession(f"{clients} clients, allowed: ≥ 2")
    rule = _Rule(
        clients,
        conceded(corrupt_fraction, clients),
        _part(dropout_fraction, clients),
        server_trust,
        clients // 2 + 1 if min_cohort is None else min_cohort,
    )
    candidates = range(2, clients - 1, 2) if clients > SMALL_COHORT else range(0)
    for neighbours in candidates:
        threshold = rule.sparse_threshold(neighbours)
        if threshold is not None:
            return rule.parameters(neighbours, threshold)
    threshold = rule.complete_threshold()
    if threshold > clients - rule.dropouts:
        raise InvalidSession(
            f"{clients} clients, {rule.corrupt} of them corrupt and {rule.dropouts} vanishing: the "
            f"threshold would be {threshold} and only {clients - rule.dropouts} remain",
            fix="declare fewer corrupt clients or drop-outs, or a server that lies less",
        )
    return rule.parameters(clients - 1, threshold)


def conceded(corrupt_fraction: float, clients: int) -> int:
    """Return how many clients may work with the server: ⌈γn⌉, and one at least of three or more.

    Two clients have nothing to hide from one another: the sum shows the other's vector.
    """
    if clients < 3:
        return 0
    return max(1, ceil(Fraction(str(corrupt_fraction)) * clients))


def describe(parameters: Parameters, min_cohort: int | None = None) -> dict[str, str]:
    """Say what the parameters are and what they promise, as lines for people."""
    p = parameters
    cohort = p.clients // 2 + 1 if min_cohort is None else min_cohort
    if p.complete:
        graph = "complete: everybody with everybody"
    elif p.clients_choose:
        graph = "each client draws its own neighbours"
    else:
        graph = "circulant, relabelled at random by the server once all keys are in"
    lies = {
        "curious": "nowhere; it may remember everything and work with the corrupt clients",
        "lying_in_unmasking": "about who vanished, in the unmasking; not about keys or the graph",
        "lying": "in every step, to everybody, differently",
    }[p.server_trust]
    one_sum = f"one, over ≥ {cohort - p.corrupt} honest clients"
    if p.server_trust == "lying_in_unmasking" and not p.survives_chosen_dropouts:
        one_sum += (
            "; several, if the server picks who counts as vanished by looking at the graph: "
            "against that declare 'lying'"
        )
    return {
        "clients n": f"{p.clients}",
        "corrupt clients, with the server": f"≤ {p.corrupt}",
        "clients that may vanish": f"≤ {p.dropouts}",
        "the server may lie": lies,
        "graph": graph,
        "neighbours k": f"{p.neighbours}",
        "threshold t": f"{p.threshold}",
        "signatures on the survivors": f"≥ {p.quorum}",
        "sums that can be opened": one_sum,
        "security": f"fails with probability ≤ 2^-{SECURITY_BITS} a session",
        "drop-outs cost the sum": f"with probability ≤ 2^-{CORRECTNESS_BITS} a session"
        if not p.complete
        else "never, within the bound",
    }


@dataclass(frozen=True)
class _Rule:
    """The conditions on (k, t) for one cohort."""

    clients: int
    corrupt: int
    dropouts: int
    server_trust: ServerTrust
    min_cohort: int

    @property
    def quorum(self) -> int:
        """Two quorums share an honest client, which signs one set only."""
        return (self.clients + self.corrupt) // 2 + 1

    def parameters(self, neighbours: int, threshold: int) -> Parameters:
        # A curious server shows everybody the same set; signatures then tell that enough are left.
        quorum = threshold if self.server_trust == "curious" else self.quorum
        return Parameters(
            self.clients,
            self.corrupt,
            self.dropouts,
            self.server_trust,
            neighbours,
            threshold,
            quorum,
        )

    def complete_threshold(self) -> int:
        """Return the threshold t of a complete graph: t > γn.

        Where the server may ask for both shares, t > (n + γn)/2 as well. A share is never the
        secret itself: t ≥ 2.
        """
        return max(2, self.corrupt + 1 if self.server_trust == "curious" else self.quorum)

    def sparse_threshold(self, k: int) -> int | None:
        """Return the threshold for k neighbours.

        None where k is too small for the promise.
        """
        n = self.clients
        if self.server_trust != "curious" and self.quorum > n - self.dropouts:
            return None
        each = -_LN2 * (SECURITY_BITS + 1) - log(n)  # for each client, natural logarithm
        hit = _log_tails(n, self.corrupt, k)
        corrupt_neighbours = int(np.argmax(hit[1:] <= each))
        threshold = max(2, corrupt_neighbours + 1)
        if self.server_trust != "curious":
            threshold = ceil((corrupt_neighbours + k - 1.25) / 2) + 1
        # The survivors among the k: at least t, or the client's secrets stay shut.
        lost = _log_tails(n, self.dropouts, k)
        if threshold > k or lost[k - threshold + 1] > -_LN2 * CORRECTNESS_BITS - log(n):
            return None
        if self.server_trust == "lying":
            together = threshold - corrupt_neighbours
            safe = self._log_splits(k, together) <= -_LN2 * (SECURITY_BITS + 1)
        else:
            safe = self._log_disconnected(k) < -_LN2 * (SECURITY_BITS + 1)
        return threshold if safe else None

    def _log_disconnected(self, k: int) -> float:
        """Bound ln of the chance that honest survivors of the graph fall apart.

        Bell et al., lemma 3.7, for a random circulant graph.

        ln of n(n−k−1)/2 · B!/(B−k)! · (n−k)!/n!, where B clients, corrupt or gone, are independent
        of the graph.
        """
        n, gone = self.clients, self.corrupt + self.dropouts
        if gone < k:
            return -inf
        f = _log_factorials(n)
        return float(log(n) + log((n - k - 1) / 2) + f[gone] - f[gone - k] + f[n - k] - f[n])

    def _log_splits(self, k: int, together: int) -> float:
        """Bound ln of the chance that a server that lies everywhere succeeds.

        To succeed is to get a sum over too few honest clients, or two sums.

        What the server can open is the sum over a set of clients whose masks with all others are
        gone. Let A be the honest clients that signed the survivors, at least h = quorum − corrupt.
        A client in the opened set was shown at least t of its holders; as 2t > k + its corrupt
        neighbours, one of those that opened its secret is in A, masks with it, and so is in the
        set. Each such client of A in turn has at least `together` more of A among its neighbours
        in the set (who else opened its secret), and none of the at least h − a others of A, a
        being the number inside: a client signs only survivors that it has masked with. Sum over a
        of a union bound over inside and outside, the k neighbours of each being drawn
        independently, for every a that must not happen: up to half of h, which leaves room for one
        sum only, and below the minimum cohort.
        """
        n, honest = self.clients, self.clients - self.corrupt
        h = self.quorum - self.corrupt
        most = max(h // 2, self.min_cohort - self.corrupt - 1)
        if most >= h:
            return inf
        f = _log_factorials(n)
        # From half of h on, or the halves of larger A would go uncounted.
        sizes = np.arange(min(together + 1, h // 2), most + 1)
        others = h - sizes
        misses = np.full(len(sizes), -inf)
        possible = others <= n - 1 - k
        left = n - 1 - others[possible]
        misses[possible] = f[left] - f[left - k] - f[n - 1] + f[n - 1 - k]
        sets = f[honest] - f[sizes] - f[honest - sizes]
        avoid = sets + f[honest - sizes] - f[others] - f[honest - sizes - others] + sizes * misses
        inside = np.array([_log_tails(n - 1, int(a) - 1, k)[together] for a in sizes])
        # Half of h stands for all larger halves of larger A, of which nothing is known inside.
        half = avoid[sizes == h // 2]
        terms = np.concatenate([np.minimum(avoid, sets + sizes * inside), half])
        return float(np.logaddexp.reduce(terms)) if len(terms) else -inf


def _part(fraction: float, clients: int) -> int:
    """Return ⌊fraction · clients⌋ of the decimal that was written: 0.29 of 100 is 29."""
    return int(Fraction(str(fraction)) * clients)


@lru_cache(maxsize=8)
def _log_factorials(n: int) -> NDArray[np.float64]:
    """Return ln i! for i = 0..n."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])


def _log_tails(total: int, marked: int, drawn: int) -> NDArray[np.float64]:
    """Return ln P[X ≥ x] for x = 0..drawn + 1, X hypergeometric.

    X is the number of the marked among `drawn` of `total`.
    """
    f = _log_factorials(total)
    low, high = max(0, drawn - (total - marked)), min(marked, drawn)
    x = np.arange(low, high + 1)
    rest = drawn - x
    mass = np.full(drawn + 2, -inf)
    mass[x] = (
        f[marked] - f[x] - f[marked - x]
        + f[total - marked] - f[rest] - f[total - marked - rest]
        - f[total] + f[drawn] + f[total - drawn]
    )  # fmt: skip
    return np.minimum(np.logaddexp.accumulate(mass[::-1])[::-1], 0.0)
