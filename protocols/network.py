"""The in-process network: a carrier whose post lies in memory, with faults of mail and of parties.

Every message crosses as bytes and is decoded at the far end, as on a real transport. Clients start
one after the other and the network delivers as it goes, so that memory does not grow with their
number. Time passes only when no mail is left.
"""

import random
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from typing import Literal, NamedTuple

from protocols.carrier import Carrier, Loose, Patience
from protocols.errors import MessageRejected, SessionAborted
from protocols.message import Message, without_body
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
        rounds: those in which parties vanish, from 1; by default all.
        reload: every party is saved and loaded afresh after every event.
        shuffle: a seed: messages are delivered in random order.
    """

    faults: tuple[Fault, ...] = ()
    vanish: Mapping[str, str] = field(default_factory=dict)
    rounds: tuple[int, ...] = ()
    reload: bool = False
    shuffle: int | None = None

    def vanishes_at(self, party: Party) -> str | None:
        """Return the step from which a party is gone from its session, if it vanishes there."""
        here = not self.rounds or party.session.header.round in self.rounds
        return self.vanish.get(party.name) if here else None


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


class _Book:
    """What a network writes down; see `Network`."""

    def __init__(self, transcript: Transcript | None) -> None:
        self.sent_bytes: dict[str, int] = defaultdict(int)
        self.seconds: dict[str, float] = defaultdict(float)
        self.rejections: list[Rejection] = []
        self.aborts: dict[str, SessionAborted] = {}
        self.transcript = transcript


class _Observed(Loose):
    """A party whose faults are the plan's, and of which the network keeps a record."""

    def __init__(self, party: Party, plan: FaultPlan, book: _Book) -> None:
        super().__init__(party)
        self.gone = False
        self._vanishes_at = plan.vanishes_at(party)
        self._reloads = plan.reload
        self._book = book
        self._record = None if book.transcript is None else book.transcript[party.name]

    @property
    def awaits(self) -> str | None:
        """The step whose deadline has to be watched, if the party is still there."""
        return None if self.gone else self.party.awaits

    def pending(self) -> list[Message]:
        """Begin."""
        return self._event(lambda party: party.start())

    def deliver(self, data: bytes) -> list[Message]:
        """Take a message, unless the party is gone."""
        if self.gone:
            return []
        if self._record is not None:
            self._record.received.append(data)
        return self._event(lambda party: party.take(data))

    def deadline(self, step: str) -> list[Message]:
        """Stop waiting for a step."""
        return self._event(lambda party: party.deadline(step))

    def _event(self, happen: Callable[[Party], list[Message]]) -> list[Message]:
        begin = time.perf_counter()
        try:
            said = happen(self.party)
        except MessageRejected as error:
            self._book.rejections.append(Rejection(self.name, error))
            said = []
        except SessionAborted as error:
            self._book.aborts[self.name] = error
            said = []
        if self._reloads:
            self.party = self.party.reload()
            # A crash between saving and sending loses the messages; the new process says them.
            routes = {message.route for message in said}
            again = self.party.pending() if said else []
            said = [message for message in again if message.route in routes]
        self._book.seconds[self.name] += time.perf_counter() - begin
        if self._record is not None:
            self._record.held.append(self.party.save())
        return said if self._vanishes_at is None else self._until_it_vanishes(said)

    def _until_it_vanishes(self, said: list[Message]) -> list[Message]:
        left = []
        for message in said:
            self.gone = self.gone or message.header.step == self._vanishes_at
            if not self.gone:
                left.append(message)
        return left


class _Mail(NamedTuple):
    recipient: str
    data: bytes


class MemoryPost:
    """A post in memory, whose mail the plan's faults strike.

    Mail for a party that has not come yet waits for it; mail for nobody is lost.
    """

    def __init__(self, names: Collection[str], plan: FaultPlan, book: _Book) -> None:
        self._faults = plan.faults
        self._random = None if plan.shuffle is None else random.Random(plan.shuffle)
        self._mail: deque[_Mail] = deque()
        self._delayed: deque[_Mail] = deque()
        self._early: dict[str, list[_Mail]] = {name: [] for name in names}
        self._book = book

    def send(self, recipient: str, mail: bytes) -> None:
        """Send a message, or let it suffer what the plan has for it."""
        header = without_body(mail).header
        sender = header.sender
        self._book.sent_bytes[sender] += len(mail)
        if self._book.transcript is not None:
            self._book.transcript[sender].sent.append(mail)
        queue = self._mail
        for fault in self._faults:
            if not fault.matches(sender, recipient, header.step):
                continue
            if fault.action == "lose":
                return
            if fault.action == "delay":
                queue = self._delayed
            if fault.action == "duplicate":
                queue.append(_Mail(recipient, mail))
            if fault.action == "tamper":
                mail = fault.tamper(mail)
        queue.append(_Mail(recipient, mail))

    def collect(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Yield all mail for these parties, until none is left."""
        while self._mail:
            if self._random is not None:
                self._mail.rotate(self._random.randrange(len(self._mail)))
            mail = self._mail.popleft()
            if mail.recipient in names:
                yield mail
            elif mail.recipient in self._early:
                self._early[mail.recipient].append(mail)

    def welcome(self, name: str) -> None:
        """Hand over what has come for a party before the party."""
        self._mail.extend(self._early.pop(name))

    def let_in(self) -> None:
        """Hand over what was delayed."""
        self._mail.extend(self._delayed)
        self._delayed.clear()


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
        plan = plan or FaultPlan()
        book = _Book(
            {party.name: PartyRecord(party.save_keys()) for party in parties} if record else None
        )
        self.sent_bytes, self.seconds = book.sent_bytes, book.seconds
        self.rejections, self.aborts = book.rejections, book.aborts
        self.transcript: Transcript | None = book.transcript
        self.receivers: tuple[str, ...] = ()
        self._receiver: Party | None = None
        self._parties = {party.name: _Observed(party, plan, book) for party in parties}
        self._delivers_at_once = plan.shuffle is None
        self._post = MemoryPost(self._parties, plan, book)
        self._time = 0
        patience = Patience(deadline=1, repeat=inf, most=inf)
        self._carrier = Carrier({}, self._post, lambda: self._time, patience)

    def run(self) -> Sum:
        """Run to the end and return the sum.

        Raises:
            SessionAborted: the session ended without one.
            ProtocolError: a party could not go on, in a way that no message explains.
        """
        for party in self._parties.values():
            self._carrier.add(party)
            self._check()
            self._post.welcome(party.name)
            if self._delivers_at_once:
                self._hear()
        self._hear()
        while awaited := self._awaited():
            self._time += 1
            self._carrier.watch()
            self._post.let_in()
            self._hear()
            if self._awaited() == awaited:
                raise SessionAborted(f"deadlines passed and changed nothing: {awaited}")
        sums = self._carrier.results
        self.receivers = tuple(sums)
        for name, released in sums.items():
            self._receiver = self._parties[name].party
            return released
        raise next(iter(self.aborts.values()), SessionAborted("no party has a sum"))

    @property
    def parties(self) -> tuple[Party, ...]:
        """All parties as they are now, those that vanished among them."""
        return tuple(party.party for party in self._parties.values())

    @cached_property
    def release(self) -> Release:
        """What the receiver signed about the sum; there is none before `run` has returned."""
        assert self._receiver is not None, "run first"
        found = self._receiver.release
        assert found is not None, "it has the sum"
        return found

    @property
    def release_salt(self) -> bytes:
        """The salt that opens the commitment in `release`."""
        assert self._receiver is not None, "run first"
        return self._receiver.release_salt

    def _awaited(self) -> dict[str, str]:
        found = {name: party.awaits for name, party in self._parties.items()}
        return {name: step for name, step in found.items() if step is not None}

    def _hear(self) -> None:
        self._carrier.hear()
        self._check()

    def _check(self) -> None:
        # What a party refuses, and what ends its session, is written down; this is something else.
        for problem in self._carrier.problems:
            raise problem.error
