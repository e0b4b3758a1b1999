"""The in-process network: moves encoded messages between parties, and injects faults on the way.

Every message crosses as bytes and is decoded at the far end, as on a real transport. Clients start
one after the other and the network delivers as it goes, so that memory does not grow with their
number.
"""

import random
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import methodcaller
from typing import Literal, NamedTuple

from protocols.codec import encode
from protocols.errors import MessageRejected, SessionAborted
from protocols.message import Message
from protocols.party import Party, Sum
from protocols.release import Release


def flip_a_bit(data: bytes) -> bytes:
    """Change one bit, in the middle of the bytes."""
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@dataclass(frozen=True)
class Fault:
    """The fault that strikes the messages that match; None matches any.

    A lost message never arrives, a delayed one arrives after the next deadline, a duplicate arrives
    twice, and a tampered one arrives as `tamper` makes it.
    """

    action: Literal["lose", "delay", "duplicate", "tamper"]
    sender: str | None = None
    recipient: str | None = None
    step: str | None = None
    tamper: Callable[[bytes], bytes] = flip_a_bit

    def matches(self, sender: str, recipient: str, step: str) -> bool:
        """Say whether a message of these attributes is struck."""
        wanted = (self.sender, self.recipient, self.step)
        return all(
            want in (None, have)
            for want, have in zip(wanted, (sender, recipient, step), strict=True)
        )


@dataclass(frozen=True)
class FaultPlan:
    """All that goes wrong in one run.

    Attributes:
        faults: on single messages.
        vanish: party to step: from its messages of that step on, the party is gone.
        reload: every party is saved and loaded afresh after every event.
        shuffle: a seed: messages are delivered in random order.
    """

    faults: tuple[Fault, ...] = ()
    vanish: Mapping[str, str] = field(default_factory=dict)
    reload: bool = False
    shuffle: int | None = None


@dataclass
class PartyRecord:
    """All that one party sent, received and held, in order, as bytes.

    Attributes:
        sent, received: encoded messages.
        held: saved states, one after every event, secrets included.
        keys: the saved enrolment, with which every received message can be opened.
    """

    keys: bytes
    sent: list[bytes] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)
    held: list[bytes] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<PartyRecord: {len(self.sent)} sent, {len(self.received)} received>"


Transcript = dict[str, PartyRecord]


class Rejection(NamedTuple):
    """A message that its recipient refused, and why."""

    recipient: str
    error: MessageRejected


class _Parcel(NamedTuple):
    sender: str
    recipient: str
    data: bytes


class Network:
    """The network that runs the parties of one session to its end.

    Args:
        parties: in the order in which they start; coordinators first.
        plan: what goes wrong.
        record: keep a `transcript`; memory then grows with every message.

    Attributes:
        sent_bytes: bytes that each party sent.
        seconds: time that each party spent.
        receivers: names of the parties that have received the sum.
        rejections: every refused message.
        aborts: the coordinators that gave up, and why.
        transcript: a record for each party, or None.
    """

    def __init__(
        self,
        parties: Sequence[Party],
        plan: FaultPlan | None = None,
        *,
        record: bool = False,
    ) -> None:
        self._parties = {party.name: party for party in parties}
        self._plan = plan or FaultPlan()
        self._random = random.Random(self._plan.shuffle)
        self._queue: deque[_Parcel] = deque()
        self._delayed: deque[_Parcel] = deque()
        self._early: dict[str, list[_Parcel]] = {party.name: [] for party in parties}
        self._gone: set[str] = set()
        self.sent_bytes: dict[str, int] = defaultdict(int)
        self.seconds: dict[str, float] = defaultdict(float)
        self.receivers: tuple[str, ...] = ()
        self._receiver: Party | None = None
        self.rejections: list[Rejection] = []
        self.aborts: dict[str, SessionAborted] = {}
        self.transcript: Transcript | None = (
            {party.name: PartyRecord(party.save_keys()) for party in parties} if record else None
        )

    def run(self) -> Sum:
        """Run to the end and return the sum.

        Raises:
            SessionAborted: the session ended without one.
        """
        for name in list(self._parties):
            self._event(name, methodcaller("start"))
            self._queue.extend(self._early.pop(name))
            if self._plan.shuffle is None:
                self._deliver_all()
        self._deliver_all()
        while awaited := self._awaited():
            # One after the other: what a coordinator says at its deadline may be what the next
            # one waits for.
            for name, step in awaited.items():
                self._event(name, methodcaller("deadline", step))
                self._deliver_all()
            self._queue.extend(self._delayed)
            self._delayed.clear()
            self._deliver_all()
            if self._awaited() == awaited:
                raise SessionAborted(f"deadlines passed and changed nothing: {awaited}")
        sums = {name: p.result for name, p in self._parties.items() if p.result is not None}
        if not sums:
            raise next(iter(self.aborts.values()), SessionAborted("no party has a sum"))
        self.receivers = tuple(sums)
        self._receiver = self._parties[self.receivers[0]]
        return next(iter(sums.values()))

    @property
    def parties(self) -> tuple[Party, ...]:
        """All parties as they are now, those that vanished among them."""
        return tuple(self._parties.values())

    @property
    def release(self) -> Release:
        """What the receiver signed about the sum; there is none before `run` has returned."""
        assert self._receiver is not None, "run first"
        assert self._receiver.release is not None, "it has the sum"
        return self._receiver.release

    @property
    def release_salt(self) -> bytes:
        """The salt that opens the commitment in `release`."""
        assert self._receiver is not None, "run first"
        return self._receiver.release_salt

    def _awaited(self) -> dict[str, str]:
        return {
            name: party.awaits
            for name, party in self._parties.items()
            if party.awaits is not None and name not in self._gone
        }

    def _deliver_all(self) -> None:
        while self._queue:
            if self._plan.shuffle is not None:
                self._queue.rotate(self._random.randrange(len(self._queue)))
            parcel = self._queue.popleft()
            if parcel.recipient in self._early:
                # Not yet started: a carrier holds its post until it is there to take it.
                self._early[parcel.recipient].append(parcel)
            elif parcel.recipient in self._parties and parcel.recipient not in self._gone:
                if self.transcript is not None:
                    self.transcript[parcel.recipient].received.append(parcel.data)
                self._event(parcel.recipient, partial(_take, parcel.data))

    def _event(self, name: str, happen: Callable[[Party], list[Message]]) -> None:
        party = self._parties[name]
        begin = time.perf_counter()
        try:
            sent = happen(party)
        except MessageRejected as error:
            self.rejections.append(Rejection(name, error))
            sent = []
        except SessionAborted as error:
            self.aborts[name] = error
            sent = []
        if self._plan.reload:
            party = self._parties[name] = party.reload()
            # A crash between saving and sending loses the messages; the new process says them.
            routes = {message.route for message in sent}
            again = party.pending() if sent else []
            sent = [message for message in again if message.route in routes]
        parcels = [_Parcel(name, m.header.recipient, encode(m)) for m in sent]
        self.seconds[name] += time.perf_counter() - begin
        if self.transcript is not None:
            self.transcript[name].held.append(party.save())
        for parcel, message in zip(parcels, sent, strict=True):
            self._post(parcel, message.header.step)

    def _post(self, parcel: _Parcel, step: str) -> None:
        if self._plan.vanish.get(parcel.sender) == step:
            self._gone.add(parcel.sender)
        if parcel.sender in self._gone:
            return
        self.sent_bytes[parcel.sender] += len(parcel.data)
        if self.transcript is not None:
            self.transcript[parcel.sender].sent.append(parcel.data)
        queue = self._queue
        for fault in self._plan.faults:
            if not fault.matches(parcel.sender, parcel.recipient, step):
                continue
            if fault.action == "lose":
                return
            if fault.action == "delay":
                queue = self._delayed
            if fault.action == "duplicate":
                queue.append(parcel)
            if fault.action == "tamper":
                parcel = parcel._replace(data=fault.tamper(parcel.data))
        queue.append(parcel)


def _take(data: bytes, party: Party) -> list[Message]:
    return party.take(data)
