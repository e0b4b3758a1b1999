"""Who attacks: coalitions by name, those of every protocol and those that protocols declare."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from protocols.errors import BrokenExtension
from protocols.protocol import PROTOCOLS, Coalition, Protocol

Sequel = Literal["row", "client"]
Members = tuple[str, ...]


@dataclass(frozen=True)
class Adversary:
    """A coalition that a protocol may be up against.

    Attributes:
        name: as on the command line.
        title: as in reports.
        meaning: one sentence or two on who it is and what it has.
        parties: the names of its members, from the protocol, the clients' names and the number of
            clients that collude; None where the protocol has no such coalition.
        promised: whether a promise of differential privacy is about what it sees, by protocol.
        swept: it makes the curves: it is an outsider, or one coordinator.
        sequel: it also has a second session over the same rows less one row, or less one client.
    """

    name: str
    title: str
    meaning: str
    parties: Callable[[Protocol, Sequence[str], int], Members | None]
    promised: Callable[[Protocol], bool] = lambda protocol: False
    swept: bool = False
    sequel: Sequel | None = None


def known_adversaries() -> dict[str, Adversary]:
    """List all adversaries under the registered protocols, weaker ones before stronger ones."""
    declared = list(_declared())
    alone = [adversary for adversary, _ in declared if adversary.swept]
    together = [a for a, breaks in declared if not a.swept and not breaks]
    breaking = [a for a, breaks in declared if not a.swept and breaks]
    ordered = [*_WEAK, *alone, _COLLUDERS, *together, *_SEQUELS, *breaking, _ALL_BUT_ONE]
    return {adversary.name: adversary for adversary in ordered}


def _declared() -> Iterator[tuple[Adversary, bool]]:
    """List declared adversaries once a name, and whether each breaks a hiding protocol."""
    found: dict[str, list[tuple[type[Protocol], Coalition]]] = {}
    for _, protocol in sorted(PROTOCOLS.items()):
        for coalition in protocol().coalitions():
            if coalition.name in _EVERYWHERE:
                raise BrokenExtension(
                    f"protocol '{protocol.name}' declares the coalition '{coalition.name}', which "
                    "every protocol has",
                    fix="rename the coalition",
                )
            found.setdefault(coalition.name, []).append((protocol, coalition))
    for name, uses in found.items():
        coalitions = [coalition for _, coalition in uses]
        breaks = any(c.opens == "vectors" and p.hides_vectors for p, c in uses)
        adversary = Adversary(
            name,
            coalitions[0].title,
            _meaning(uses),
            partial(_members, name),
            partial(_sees_sums_at_most, name),
            swept=all(coalition.swept for coalition in coalitions),
        )
        yield adversary, breaks


def _meaning(uses: Sequence[tuple[type[Protocol], Coalition]]) -> str:
    """Return one sentence for all protocols, or one for those that it is true of."""
    names: dict[str, list[str]] = {}
    for protocol, coalition in uses:
        names.setdefault(coalition.meaning, []).append(protocol.name)
    if len(names) == 1:
        return next(iter(names))
    return " ".join(f"{', '.join(found)}: {meaning}" for meaning, found in names.items())


def _members(
    name: str, protocol: Protocol, clients: Sequence[str], colluders: int
) -> Members | None:
    """Return the coalition's parties.

    None where they are those of another one that comes first.
    """
    seen = set()
    for coalition in protocol.coalitions():
        key = (coalition.parties, coalition.clients)
        if coalition.name == name:
            if key in seen or coalition.clients > len(clients) - 2:
                return None
            return (*coalition.parties, *clients[len(clients) - coalition.clients :])
        seen.add(key)
    return None


def _sees_sums_at_most(name: str, protocol: Protocol) -> bool:
    """Say whether the coalition sees only sums, or vectors with all of the noise.

    Over a protocol that hides nothing, every single vector has all of the noise.
    """
    for coalition in protocol.coalitions():
        if coalition.name == name:
            whole = coalition.opens != "vectors" or not protocol.hides_vectors
            return whole and coalition.clients == 0
    return False


def _colluders(protocol: Protocol, clients: Sequence[str], count: int) -> Members | None:
    # All clients but one are an adversary of their own.
    if not 0 < count < len(clients) - 1:
        return None
    return (protocol.receiver, *clients[-count:])


_WEAK = (
    Adversary(
        "outsider",
        "outsider",
        "Nobody who took part: has the model, and nothing of the sessions.",
        lambda protocol, clients, count: (),
        lambda protocol: True,
        swept=True,
    ),
    Adversary(
        "client",
        "one client",
        "The last client: its own messages and rows, and what the method gives to every client "
        "afterwards (under FedHiP, joint reading, the summed statistics).",
        lambda protocol, clients, count: (clients[-1],),
        lambda protocol: True,
    ),
)
_COLLUDERS = Adversary(
    "colluders",
    "receiver with some clients",
    "Whoever receives the sum, with as many of the last clients as the settings say (colluders), "
    "which know their own vectors.",
    _colluders,
)
_SEQUELS = (
    Adversary(
        "row-apart",
        "receiver, sums one row apart",
        "Whoever receives the sum, of two sessions, the second over the same rows less one.",
        lambda protocol, clients, count: (protocol.receiver,),
        sequel="row",
    ),
    Adversary(
        "client-apart",
        "receiver, sums one client apart",
        "Whoever receives the sum, of two sessions, the second without the first client.",
        lambda protocol, clients, count: (protocol.receiver,) if len(clients) > 2 else None,
        sequel="client",
    ),
)
_ALL_BUT_ONE = Adversary(
    "all-clients-but-one",
    "receiver with all clients but one",
    "Whoever receives the sum, with every client but the first, which no blind sum withstands.",
    lambda protocol, clients, count: (protocol.receiver, *clients[1:]),
)
_EVERYWHERE = {a.name for a in (*_WEAK, _COLLUDERS, *_SEQUELS, _ALL_BUT_ONE)}
