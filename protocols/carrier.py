"""The carrier: moves mail among the parties that are here and a post that reaches the others.

Everything may be said twice, and recovery is always to say it again: a carrier repeats what its
parties still have to say, at growing intervals, and asks others to do so when it comes back. It
watches the deadlines of its parties, and does no I/O but through the post.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, Protocol

from msgspec import Meta

from protocols.codec import Wire, decode, encode
from protocols.errors import (
    MessageRejected,
    ProtocolError,
    Replayed,
    UnexpectedStep,
)
from protocols.message import Message
from protocols.party import Party, Sum
from protocols.roster import Name

MAX_MAIL_BYTES = 2**31


class Mail(Wire, frozen=True):
    """One piece of mail between carriers; nothing of it is believed.

    Attributes:
        kind: a `message` of a party, or a `nudge`: say again what you have for the sender.
        sender: who sends it, as it says.
        data: the message; empty in a nudge.
    """

    kind: Literal["message", "nudge"]
    sender: Name
    data: Annotated[bytes, Meta(max_length=MAX_MAIL_BYTES)]


class Post(Protocol):
    """What reaches parties elsewhere; it may lose, repeat, reorder and delay."""

    def send(self, recipient: str, mail: bytes) -> None:
        """Send mail to a party, or lose it."""

    def collect(self, recipient: str) -> Iterable[bytes]:
        """Return mail that has come for a party since."""


class Hearing(Protocol):
    """A party as a carrier sees it: a seat, or a party that lives and dies with its process."""

    @property
    def name(self) -> str:
        """Name of the party."""

    @property
    def awaits(self) -> str | None:
        """The step whose deadline has to be watched, if any."""

    @property
    def aborted(self) -> bool:
        """Whether the session is over for the party, without a sum."""

    @property
    def result(self) -> Sum | None:
        """The sum, at a party that receives it."""

    def deliver(self, data: bytes) -> list[Message]:
        """Take a message; returns what the party says because of it."""

    def deadline(self, step: str) -> list[Message]:
        """Stop waiting for a step."""

    def pending(self) -> list[Message]:
        """Return what others may still need."""


class Loose:
    """A party without a seat, for simulations whose parties all die together."""

    def __init__(self, party: Party) -> None:
        self._party = party

    @property
    def name(self) -> str:
        """Name of the party."""
        return self._party.name

    @property
    def awaits(self) -> str | None:
        """The step whose deadline has to be watched, if any."""
        return self._party.awaits

    @property
    def aborted(self) -> bool:
        """Whether the session is over for the party, without a sum."""
        return self._party.aborted

    @property
    def result(self) -> Sum | None:
        """The sum, at a party that receives it."""
        return self._party.result

    def deliver(self, data: bytes) -> list[Message]:
        """Take a message, as `Party.take`."""
        return self._party.take(data)

    def deadline(self, step: str) -> list[Message]:
        """Stop waiting for a step, as `Party.deadline`."""
        return self._party.deadline(step)

    def pending(self) -> list[Message]:
        """Return what others may still need, as `Party.pending`."""
        return self._party.pending()


@dataclass(frozen=True)
class Patience:
    """How long a carrier waits, in whatever unit its clock has.

    Attributes:
        deadline: for a step, until it tells its party not to wait any longer.
        repeat: until it says again what a party has to say, the first time; then twice as long,
            and so on.
        most: between repetitions, at most.
    """

    deadline: float = 60.0
    repeat: float = 2.0
    most: float = 30.0


class Problem(NamedTuple):
    """Something that a party here refused, or that ended it."""

    party: str
    error: ProtocolError


@dataclass
class _Watch:
    """What a carrier remembers of one party; a restart forgets it without harm."""

    step: str | None = None
    since: float = 0.0
    again_at: float = 0.0
    wait: float = 0.0
    ended: bool = False


class Carrier:
    """The carrier of the parties that are here.

    Args:
        parties: those that are here, joined.
        post: reaches all others, and these too.
        patience: how long to wait.
        clock: the time; any unit, never backwards.

    Attributes:
        problems: refusals and ends, in order; for people, and for tests.
    """

    def __init__(
        self,
        parties: Mapping[str, Hearing],
        post: Post,
        clock: Callable[[], float],
        patience: Patience | None = None,
    ) -> None:
        self._parties = dict(parties)
        self._post = post
        self._clock = clock
        self._patience = patience or Patience()
        self._watches = {name: _Watch() for name in parties}
        self.problems: list[Problem] = []

    def begin(self, others: Iterable[str] = ()) -> None:
        """Say what the parties here have to say, and ask others to do so too.

        Args:
            others: everybody who may have said something while this carrier was away.
        """
        for name, party in self._parties.items():
            self._send(name, party.pending())
            for other in others:
                if other != name:
                    self._post.send(other, encode(Mail("nudge", name, b"")))
            self._rest(name)

    def turn(self) -> None:
        """Deliver what has come, then let pass what is overdue, then say again what may be lost."""
        for name in self._parties:
            for data in self._post.collect(name):
                self._hear(name, data)
        for name, party in self._parties.items():
            watch, now = self._watches[name], self._clock()
            step = None if watch.ended else party.awaits
            if step != watch.step:
                watch.step, watch.since = step, now
            elif step is not None and now - watch.since >= self._patience.deadline:
                self._let(name, lambda party=party, step=step: party.deadline(step))  # type: ignore[misc]
            if now >= watch.again_at and not watch.ended:
                self._send(name, party.pending())
                self._rest(name)

    @property
    def results(self) -> dict[str, Sum]:
        """The sum, at each party here that has received it."""
        found = {name: party.result for name, party in self._parties.items()}
        return {name: result for name, result in found.items() if result is not None}

    @property
    def ended(self) -> frozenset[str]:
        """Parties here whose session is over without a sum."""
        return frozenset(
            name
            for name, watch in self._watches.items()
            if watch.ended or self._parties[name].aborted
        )

    def _hear(self, name: str, data: bytes) -> None:
        try:
            mail = decode(data, Mail, party=name)
        except MessageRejected as error:
            self.problems.append(Problem(name, error))
            return
        if self._watches[name].ended:
            return
        if mail.kind == "nudge":
            # Anybody can write one: however many come, everything is said again once a turn.
            self._watches[name].again_at = self._clock()
            return
        self._let(name, lambda: self._parties[name].deliver(mail.data))

    def _let(self, name: str, happen: Callable[[], list[Message]]) -> None:
        try:
            said = happen()
        except (Replayed, UnexpectedStep):
            return  # everything may be said twice, and late
        except MessageRejected as error:
            self.problems.append(Problem(name, error))
            return
        except ProtocolError as error:
            # The session is over, or this party: the others here go on.
            self.problems.append(Problem(name, error))
            self._watches[name].ended = True
            return
        if said:
            self._watches[name].wait = 0.0
        self._send(name, said)

    def _send(self, name: str, said: Iterable[Message]) -> None:
        for message in said:
            recipient = message.header.recipient
            self._post.send(recipient, encode(Mail("message", name, encode(message))))

    def _rest(self, name: str) -> None:
        """Wait twice as long as the last time before a party says everything again."""
        watch = self._watches[name]
        watch.wait = min(max(2 * watch.wait, self._patience.repeat), self._patience.most)
        watch.again_at = self._clock() + watch.wait
