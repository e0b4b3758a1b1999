"""A site's side of the mail: what came with one exchange, and what goes back with it."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator

from protocols.carrier import Post
from secure_afl.flower.wire import Parcel


class Bag:
    """The mail of one party in one exchange.

    Mail of a session that the party has not joined stays untaken, and comes again.

    Args:
        name: of the party.
        parcels: that came for it.
        have: digests of what the server has had.
    """

    nudged = False

    def __init__(self, name: str, parcels: Iterable[Parcel], have: Collection[bytes]) -> None:
        self._inbox: dict[bytes, list[Parcel]] = defaultdict(list)
        for parcel in parcels:
            if parcel.recipient == name:
                self._inbox[parcel.channel].append(parcel)
        self._have = set(have)
        self.taken: list[bytes] = []
        self.sent: dict[bytes, Parcel] = {}

    def letters(self) -> Post:
        """Return the post of letters."""
        return _Channel(self, b"")

    def session(self, nonce: bytes) -> Post:
        """Return the post of one session's messages."""
        return _Channel(self, nonce)

    def put(self, parcel: Parcel) -> None:
        """Put mail in, unless the server has had it."""
        if parcel.digest not in self._have:
            self.sent[parcel.digest] = parcel

    def collect(self, channel: bytes) -> Iterator[Parcel]:
        """Yield mail of one channel, each piece once."""
        inbox = self._inbox[channel]
        while inbox:
            parcel = inbox.pop(0)
            self.taken.append(parcel.digest)
            yield parcel

    def discard(self, over: Callable[[bytes], bool]) -> None:
        """Take what came for sessions that are over, by their nonces, unread."""
        for channel in list(self._inbox):
            if channel and over(channel):
                for _ in self.collect(channel):
                    pass


class _Channel:
    def __init__(self, bag: Bag, channel: bytes) -> None:
        self._bag = bag
        self._channel = channel

    def send(self, recipient: str, mail: bytes) -> None:
        self._bag.put(Parcel(self._channel, recipient, mail))

    def collect(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        for parcel in self._bag.collect(self._channel):
            yield parcel.recipient, parcel.mail
