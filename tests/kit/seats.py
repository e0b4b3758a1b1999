"""Sessions whose parties sit in folders, and are opened afresh for everything that they do."""

import os
import pickle
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

from protocols import (
    Block,
    Identity,
    Layout,
    Member,
    Protocol,
    Session,
    Sum,
    form_session,
    new_nonce,
)
from protocols.codec import decode, encode
from protocols.errors import MessageRejected
from protocols.layout import Integers
from protocols.message import Message
from protocols.protocol import PROTOCOLS
from protocols.roster import CLIENT
from protocols.seats.seat import Seat
from protocols.seats.seats import Seats

LAYOUT = Layout((Block("values", 5, -50, 50),))

Act = Callable[[Seat], list[Message]]


class Table:
    """One session of seated parties; every act opens its seat, joins, and lets it go.

    Attributes:
        computed: how often each client computed its vector.
        said: what each party ever said, by recipient and step; never two things on one route.
        before: called with the party's name before every act, as in a child that is killed.
    """

    def __init__(self, protocol: Protocol, folder: Path, clients: int = 4) -> None:
        self.protocol = protocol
        self.folder = folder
        roles = {f"client{i}": CLIENT for i in range(clients)} | dict(protocol.coordinators())
        self.identities = {name: Identity.generate(name) for name in roles}
        self.seats = {n: Seats(folder / n, i) for n, i in self.identities.items()}
        self.roles = roles
        self.nonce = new_nonce()
        self.vectors = {
            name: np.full(5, place + 1, dtype=np.int64)
            for place, name in enumerate(name for name, role in roles.items() if role == CLIENT)
        }
        self.computed: dict[str, int] = dict.fromkeys(self.vectors, 0)
        self.said: dict[str, dict[tuple[str, str], bytes]] = {}
        self.before: Callable[[str, Act], None] = lambda name, act: None
        members = []
        for name, role in roles.items():
            with self.seats[name].hello(role, self.nonce) as seat:
                members.append(seat.member)
        self.session = form_session(protocol, members, self.nonce, LAYOUT, min_cohort=3)

    def save(self) -> bytes:
        """What another process needs to seat parties of this session."""
        kept = {
            "protocol": (self.protocol.name, encode(self.protocol)),
            "folder": self.folder,
            "identities": {n: identity.save() for n, identity in self.identities.items()},
            "roles": self.roles,
            "nonce": self.nonce,
            "vectors": self.vectors,
            "session": (encode(self.session.header), self.session.thin),
            "members": encode(self.session.members),
        }
        return pickle.dumps(kept)

    @classmethod
    def load(cls, data: bytes) -> "Table":
        """The table of another process."""
        kept = pickle.loads(data)
        table = cls.__new__(cls)
        name, parameters = kept["protocol"]
        table.protocol = decode(parameters, PROTOCOLS[name])
        table.folder, table.roles, table.nonce = kept["folder"], kept["roles"], kept["nonce"]
        table.identities = {n: Identity.load(i) for n, i in kept["identities"].items()}
        table.seats = {n: Seats(table.folder / n, i) for n, i in table.identities.items()}
        table.vectors, table.said = kept["vectors"], {}
        table.computed = dict.fromkeys(table.vectors, 0)
        table.before = lambda name, act: None
        header, thin = kept["session"]
        members = decode(kept["members"], tuple[Member, ...])
        table.session = Session.read(header, None, thin=thin, members=members)
        return table

    def view(self, name: str, session: Session | None = None) -> Session:
        """The session as this party reads it."""
        session = session or self.session
        is_client = self.roles[name] == CLIENT
        return Session(session.header, session.roster, None if is_client else session.members)

    def join(self, seat: Seat, session: Session | None = None) -> list[Message]:
        name = seat.name
        vector = self._vector(name) if self.roles[name] == CLIENT else None
        return seat.join(self.view(name, session), self.protocol, vector)

    def act(self, name: str, act: Act | None = None) -> list[bytes]:
        """Let a party do something in a process of its own; returns what it says."""

        def done(seat: Seat) -> list[Message]:
            said = self.join(seat)
            return said if act is None else [*said, *act(seat)]

        self.before(name, done)
        with self.seats[name].open(self.nonce) as seat:
            said = {message.route: encode(message) for message in done(seat)}
        # What was said before may be needed again, where somebody was killed.
        known = self.said.setdefault(name, {})
        assert all(known[route] == data for route, data in said.items() if route in known)
        known |= said
        return list(said.values())

    def run(self) -> Sum:
        """Run the session to its end."""
        queue: deque[bytes] = deque()
        heard: set[bytes] = set()
        names = [*self.protocol.coordinators(), *self.vectors]
        for name in names:
            queue.extend(self.act(name))
        while True:
            while queue:
                data = queue.popleft()
                if data in heard:
                    continue
                heard.add(data)
                name = decode(data, Message).header.recipient
                queue.extend(self.act(name, lambda seat, data=data: deliver(seat, data)))  # type: ignore[misc]
            for name in names:
                with self.seats[name].open(self.nonce) as seat:
                    self.join(seat)
                    result, awaits = seat.result, seat.awaits
                if result is not None:
                    return result
                if awaits is not None:
                    step = awaits
                    queue.extend(self.act(name, lambda seat, s=step: seat.deadline(s)))  # type: ignore[misc]

    @property
    def truth(self) -> Integers:
        """The sum over all clients, in the clear."""
        total = np.zeros(LAYOUT.length, dtype=np.int64)
        for vector in self.vectors.values():
            total += vector
        return total

    def _vector(self, name: str) -> Callable[[bytes], Integers]:
        def computed(entropy: bytes) -> Integers:
            self.computed[name] += 1
            return self.vectors[name]

        return computed


def deliver(seat: Seat, data: bytes) -> list[Message]:
    """Deliver a message that may come again."""
    try:
        return seat.deliver(data)
    except MessageRejected:
        return []


def in_child(work: Callable[[], object]) -> int:
    """Run something in a forked process; returns how that ended."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(2)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def killed_at(write: int, work: Callable[[], object]) -> bool:
    """Run something in a process that is killed at its nth write; says whether it got so far."""

    def dying() -> None:
        left = write
        flush = os.fsync

        def fsync(file: int) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os._exit(9)
            flush(file)

        os.fsync = fsync  # type: ignore[assignment]
        work()

    return in_child(dying) == 9
