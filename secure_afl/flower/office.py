"""The server's side of the mail: who is where, what waits for whom, and what was taken.

Flower delivers at most once: mail stays here until a reply says that it was taken. Names are mapped
to nodes by what nodes say, which is not believed: who takes mail of others cannot open it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from protocols.carrier import Post
from secure_afl.flower.wire import Parcel, Reply, Request

LETTERS = b""
MAX_REPEATS = 4
MAX_MAIL = 24 * 2**20
"""Bytes of mail in one exchange: an aggregator's process need not hold all vectors at once."""
REST, LONGEST_REST = 2.0, 60.0
"""Seconds for which a node with a problem is left alone, the first time and at most."""


@dataclass
class Node:
    """What the office knows of one node.

    Attributes:
        parties: names that it says are there; None before it has answered.
        had: digests of what came from there.
        wake: when something may happen there without mail, in seconds; None for never.
        asked: when an exchange was begun that has no reply yet; None without one.
        number: of the latest exchange; replies to earlier ones end nothing.
        repeats: exchanges begun since the last reply because there was none.
        rest: time before which the node is left alone.
        troubles: replies in a row that told of a problem there.
    """

    parties: tuple[str, ...] | None = None
    had: dict[bytes, None] = field(default_factory=dict)
    wake: float | None = None
    asked: float | None = None
    number: int = 0
    repeats: int = 0
    rest: float = 0.0
    troubles: int = 0


class Office:
    """Mail between the parties of this process and those at nodes.

    Args:
        local: names of the parties of this process.
    """

    nudged = False

    def __init__(self, local: Collection[str]) -> None:
        self._local = frozenset(local)
        self._inbox: dict[bytes, list[tuple[str, bytes]]] = defaultdict(list)
        self._waiting: dict[str, dict[bytes, Parcel]] = defaultdict(dict)
        self._taken: dict[str, set[bytes]] = defaultdict(set)
        self.nodes: dict[int, Node] = defaultdict(Node)

    def letters(self) -> Post:
        """Return the post of letters."""
        return _Channel(self, LETTERS)

    def session(self, nonce: bytes) -> Post:
        """Return the post of one session's messages."""
        return _Channel(self, nonce)

    def send(self, parcel: Parcel) -> None:
        """Take mail for a party, wherever it is; mail that was taken there is not sent again."""
        if parcel.recipient in self._local:
            self._inbox[parcel.channel].append((parcel.recipient, parcel.mail))
        elif parcel.digest not in self._taken[parcel.recipient]:
            self._waiting[parcel.recipient][parcel.digest] = parcel

    def collect(self, channel: bytes) -> Iterator[tuple[str, bytes]]:
        """Yield mail for the parties of this process, each piece once."""
        inbox = self._inbox[channel]
        while inbox:
            yield inbox.pop(0)

    def request(self, node_id: int, now: float, *, repeat: float) -> Request | None:
        """Return what is to be asked of a node now; None for nothing.

        Args:
            repeat: seconds after which an exchange without a reply is begun again, and parties say
                everything again; twice as long every time, for a slow line would only fill up.
        """
        node = self.nodes[node_id]
        overdue = node.asked is not None and now - node.asked >= repeat * 2**node.repeats
        if (node.asked is not None and not overdue) or now < node.rest:
            return None
        parcels = _some(p for name in node.parties or () for p in self._waiting[name].values())
        due = node.wake is not None and now >= node.wake
        if not (node.parties is None or parcels or due or overdue):
            return None
        node.asked = now
        node.number += 1
        node.repeats = min(node.repeats + overdue, MAX_REPEATS)
        return Request(tuple(parcels), () if overdue else tuple(node.had))

    def take(self, node_id: int, reply: Reply, now: float, number: int | None = None) -> None:
        """Take a node's reply.

        Args:
            number: of the exchange; None for the latest. Two at a time get in each other's way at
                the site, so that the next waits for the reply to the latest.
        """
        node = self.nodes[node_id]
        node.parties, node.repeats = reply.parties, 0
        if number in (None, node.number):
            node.asked = None
        node.wake = None if reply.wake is None else now + reply.wake
        node.troubles = node.troubles + 1 if reply.problems else 0
        if reply.problems:
            node.rest = now + min(LONGEST_REST, REST * 2**node.troubles)
        taken = set(reply.taken)
        for name in reply.parties:
            for digest in taken & self._waiting[name].keys():
                del self._waiting[name][digest]
                self._taken[name].add(digest)
        for parcel in reply.parcels:
            node.had[parcel.digest] = None
            self.send(parcel)

    def lost(self, node_id: int, now: float, *, pause: float, number: int | None = None) -> None:
        """Note that an exchange failed: try again after a pause, with all that was said before.

        Args:
            number: of the exchange; None for the latest.
        """
        node = self.nodes[node_id]
        if number not in (None, node.number):
            return
        node.asked, node.wake, node.rest = None, now + pause, now + pause
        node.had.clear()
        for name in node.parties or ():
            self._taken[name].clear()

    def waits_for(self, names: Iterable[str]) -> list[str]:
        """Return those of some parties for whom mail still lies here."""
        return [name for name in names if self._waiting.get(name)]

    def where(self, name: str) -> list[int]:
        """Return the nodes that say that a party is there."""
        return [n for n, node in self.nodes.items() if node.parties and name in node.parties]


def _some(parcels: Iterable[Parcel]) -> list[Parcel]:
    """Return as many parcels as one exchange may have, and at least one; the rest waits."""
    chosen: list[Parcel] = []
    size = 0
    for parcel in parcels:
        size += len(parcel.mail)
        if chosen and size > MAX_MAIL:
            break
        chosen.append(parcel)
    return chosen


class _Channel:
    def __init__(self, office: Office, channel: bytes) -> None:
        self._office = office
        self._channel = channel

    def send(self, recipient: str, mail: bytes) -> None:
        self._office.send(Parcel(self._channel, recipient, mail))

    def collect(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        for name, mail in self._office.collect(self._channel):
            if name in names:
                yield name, mail
