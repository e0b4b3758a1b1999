"""Who attacks: coalitions by name, as each protocol has them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from protocols.protocol import Protocol
from protocols.schemes.additive.protocol import Additive
from protocols.schemes.encrypted.messages import KEY_HOLDER
from protocols.schemes.encrypted.protocol import EncryptedSum

Sequel = Literal["row", "client"]


@dataclass(frozen=True)
class Adversary:
    """A coalition that a protocol may be up against.

    Attributes:
        name: as on the command line.
        title: as in reports.
        meaning: one sentence on who it is and what it has.
        parties: the names of its members, from the protocol, the clients' names and the number of
            clients that collude; None where the protocol has no such coalition.
        sequel: it also has a second session over the same rows less one row, or less one client.
    """

    name: str
    title: str
    meaning: str
    parties: Callable[[Protocol, Sequence[str], int], tuple[str, ...] | None]
    sequel: Sequel | None = None


def receiver(protocol: Protocol) -> str:
    """The coordinator that receives the sum: the key holder, the first aggregator or the server."""
    names = list(protocol.coordinators())
    return KEY_HOLDER if isinstance(protocol, EncryptedSum) else names[0]


def _server(protocol: Protocol) -> tuple[str, ...] | None:
    return None if isinstance(protocol, Additive) else (next(iter(protocol.coordinators())),)


def _first_aggregator(protocol: Protocol) -> tuple[str, ...] | None:
    return (next(iter(protocol.coordinators())),) if isinstance(protocol, Additive) else None


def _all_but_last_aggregator(protocol: Protocol) -> tuple[str, ...] | None:
    # With two aggregators this is the first alone.
    names = tuple(protocol.coordinators())
    return names[:-1] if isinstance(protocol, Additive) and len(names) > 2 else None


def _all_aggregators(protocol: Protocol) -> tuple[str, ...] | None:
    return tuple(protocol.coordinators()) if isinstance(protocol, Additive) else None


def _key_holder(protocol: Protocol) -> tuple[str, ...] | None:
    return (KEY_HOLDER,) if isinstance(protocol, EncryptedSum) else None


def _both(protocol: Protocol) -> tuple[str, ...] | None:
    return tuple(protocol.coordinators()) if isinstance(protocol, EncryptedSum) else None


def _colluders(protocol: Protocol, clients: Sequence[str], count: int) -> tuple[str, ...] | None:
    # All clients but one are an adversary of their own.
    if not 0 < count < len(clients) - 1:
        return None
    return (receiver(protocol), *clients[-count:])


ADVERSARIES: dict[str, Adversary] = {
    adversary.name: adversary
    for adversary in (
        Adversary(
            "outsider",
            "outsider",
            "Nobody who took part: has the model, and nothing of the sessions.",
            lambda protocol, clients, count: (),
        ),
        Adversary(
            "client",
            "one client",
            "The last client: its own messages and rows, and what the method gives to every client "
            "afterwards (under FedHiP, joint reading, the summed statistics).",
            lambda protocol, clients, count: (clients[-1],),
        ),
        Adversary(
            "server",
            "server",
            "The server by itself. It receives every vector in plain, the sum of masked ones under "
            "the pairwise protocol, and ciphertexts only under CKKS and BFV.",
            lambda protocol, clients, count: _server(protocol),
        ),
        Adversary(
            "first-aggregator",
            "first aggregator",
            "The first aggregator by itself, which receives the sum.",
            lambda protocol, clients, count: _first_aggregator(protocol),
        ),
        Adversary(
            "key-holder",
            "key holder",
            "The key holder by itself, which opens one sum.",
            lambda protocol, clients, count: _key_holder(protocol),
        ),
        Adversary(
            "colluders",
            "receiver with some clients",
            "Whoever receives the sum, with as many of the last clients as the settings say "
            "(colluders), which know their own vectors.",
            _colluders,
        ),
        Adversary(
            "all-but-one-aggregator",
            "all aggregators but one",
            "The first m − 1 of m aggregators; with two aggregators this is the first alone.",
            lambda protocol, clients, count: _all_but_last_aggregator(protocol),
        ),
        Adversary(
            "row-apart",
            "receiver, sums one row apart",
            "Whoever receives the sum, of two sessions, the second over the same rows less one.",
            lambda protocol, clients, count: (receiver(protocol),),
            "row",
        ),
        Adversary(
            "client-apart",
            "receiver, sums one client apart",
            "Whoever receives the sum, of two sessions, the second without the first client.",
            lambda protocol, clients, count: (receiver(protocol),) if len(clients) > 2 else None,
            "client",
        ),
        Adversary(
            "all-aggregators",
            "all aggregators",
            "All aggregators together: the coalition that secret sharing does not withstand.",
            lambda protocol, clients, count: _all_aggregators(protocol),
        ),
        Adversary(
            "server-and-key-holder",
            "server with key holder",
            "The two together: the coalition that encrypted sums do not withstand.",
            lambda protocol, clients, count: _both(protocol),
        ),
        Adversary(
            "all-clients-but-one",
            "receiver with all clients but one",
            "Whoever receives the sum, with every client but the first, which no blind sum "
            "withstands.",
            lambda protocol, clients, count: (receiver(protocol), *clients[1:]),
        ),
    )
}
