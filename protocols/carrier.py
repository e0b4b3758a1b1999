"""The carrier: moves mail among the parties that are here and a post that reaches the others.

Everything may be said twice, and recovery is always to say it again: a carrier repeats what its
parties still have to say, at growing intervals, and asks others to do so when it comes back. It
watches the deadlines of its parties, and does no I/O but through the post.

Mail is an encoded message, or a `Note` between carriers.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple, Protocol

from msgspec import Meta

from protocols.codec import Wire, decode, domain_tag, encode
from protocols.errors import (
    MessageRejected,
    ProtocolError,
    Replayed,
    UnexpectedStep,
)
from protocols.message import MAX_OVERHEAD_BYTES, Message
from protocols.party import Party, Sum
from protocols.roster import Name
from protocols.void import Void

# No message begins like this: MessagePack has a small integer here.
_NOTE = domain_tag("note").encode() + b"\0"


class Note(Wire, frozen=True):
    """What one carrier tells another beside messages; nothing of it is believed.

    Attributes:
        kind: `nudge`: say again what you have for the sender, and show what you have from it.
            `shown`: the sender has this message from you.
        sender: who sends it, as it says.
        data: the message that is shown, without its body; empty in a nudge.
    """

    kind: Literal["nudge", "shown"]
    sender: Name
    data: Annotated[bytes, Meta(max_length=MAX_OVERHEAD_BYTES)] = b""

    def mail(self) -> bytes:
        """Return the note as a post carries it."""
        return _NOTE + encode(self)


class Post(Protocol):
    """What reaches parties elsewhere; it may lose, repeat, reorder and delay."""

    def send(self, recipient: str, mail: bytes) -> None:
        """Send mail to a party, or lose it."""

    def collect(self, names: Collection[str]) -> Iterable[tuple[str, bytes]]:
        """Yield mail that has come for any of these parties since, each with its recipient.

        More may be sent while this goes on, which may come now or the next time.
        """


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

    def heard(self, sender: str) -> Iterable[Message]:
        """Return what the party has taken from a sender, without bodies."""

    def contradicted(self, data: bytes) -> Message | None:
        """Return what the party took before where the sender now says something else."""

    def confront(self, data: bytes) -> None:
        """Show the party a message that others have from it; one that it never said ends it."""

    def void(self) -> Void:
        """Give the session back, and sign that."""

    def close(self) -> None:
        """Let the party go; it may be opened again where it has a seat."""


class Loose:
    """A party without a seat, for simulations whose parties all die together.

    It has no journal that anybody could put back, so that there is nothing to show or be shown.
    """

    def __init__(self, party: Party) -> None:
        self.party = party

    @property
    def name(self) -> str:
        """Name of the party."""
        return self.party.name

    @property
    def awaits(self) -> str | None:
        """The step whose deadline has to be watched, if any."""
        return self.party.awaits

    @property
    def aborted(self) -> bool:
        """Whether the session is over for the party, without a sum."""
        return self.party.aborted

    @property
    def result(self) -> Sum | None:
        """The sum, at a party that receives it."""
        return self.party.result

    def deliver(self, data: bytes) -> list[Message]:
        """Take a message, as `Party.take`."""
        return self.party.take(data)

    def deadline(self, step: str) -> list[Message]:
        """Stop waiting for a step, as `Party.deadline`."""
        return self.party.deadline(step)

    def pending(self) -> list[Message]:
        """Return what others may still need, as `Party.pending`."""
        return self.party.pending()

    def heard(self, sender: str) -> Iterable[Message]:
        """Return nothing."""
        return ()

    def contradicted(self, data: bytes) -> Message | None:
        """Return nothing."""
        return None

    def confront(self, data: bytes) -> None:
        """Ignore what is shown."""

    def void(self) -> Void:
        """Give the session back, as `Party.void`."""
        return self.party.void()

    def close(self) -> None:
        """Do nothing: the party is gone with its process."""


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
    """What a carrier remembers of one party; a restart forgets it without harm.

    Attributes:
        step, since: what the party awaits, and since when.
        again_at, wait: when it says everything again, and how long it rested for that.
        ended: nothing more is to be had from it.
        nudgers: who has asked for what it has to say, and wants to see what it has heard.
    """

    step: str | None = None
    since: float = 0.0
    again_at: float = 0.0
    wait: float = 0.0
    ended: bool = False
    nudgers: set[str] = field(default_factory=set)


class Carrier:
    """The carrier of the parties that are here.

    Its work for one piece of mail does not grow with the number of parties.

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
        others = tuple(others)
        for name in self._parties:
            self._speak(name)
            for other in others:
                if other != name:
                    self._post.send(other, Note("nudge", name).mail())

    def add(self, party: Hearing) -> None:
        """Take on one more party, and say what it has to say."""
        self._parties[party.name] = party
        self._watches[party.name] = _Watch()
        self._speak(party.name)

    def turn(self) -> None:
        """Deliver what has come, then let pass what is overdue, then say again what may be lost."""
        self.hear()
        self.watch()

    def hear(self) -> None:
        """Deliver what has come, and what comes because of it."""
        for name, mail in self._post.collect(self._parties.keys()):
            if mail.startswith(_NOTE):
                self._note(name, mail)
            elif not self._watches[name].ended:
                self._deliver(name, mail)

    def watch(self) -> None:
        """Let pass what is overdue, and say again what may be lost."""
        for name, watch in self._watches.items():
            self._look(name)
            if watch.step is not None and self._clock() - watch.since >= self._patience.deadline:
                self._let(name, lambda n=name, s=watch.step: self._parties[n].deadline(s))  # type: ignore[misc]
                # It may be what the next party waits for.
                self.hear()
            if self._clock() >= watch.again_at and not watch.ended:
                self._speak(name)

    @property
    def waiting(self) -> dict[str, tuple[str, float]]:
        """What each party here waits for, and since when."""
        return {n: (w.step, w.since) for n, w in self._watches.items() if w.step is not None}

    def go_on_waiting(self, waiting: Mapping[str, tuple[str, float]]) -> None:
        """Let deadlines begin when they began for an earlier carrier of these parties."""
        for name, (step, since) in waiting.items():
            self._look(name)
            watch = self._watches[name]
            if watch.step == step:
                watch.since = min(since, self._clock())

    @property
    def results(self) -> dict[str, Sum]:
        """The sum, at each party here that has received it."""
        found = {n: p.result for n, p in self._parties.items() if not self._watches[n].ended}
        return {name: result for name, result in found.items() if result is not None}

    @property
    def ended(self) -> frozenset[str]:
        """Parties here whose session is over without a sum."""
        return frozenset(
            name
            for name, watch in self._watches.items()
            if watch.ended or self._parties[name].aborted
        )

    def _note(self, name: str, mail: bytes) -> None:
        watch = self._watches[name]
        try:
            note = decode(mail[len(_NOTE) :], Note, party=name)
        except MessageRejected as error:
            self.problems.append(Problem(name, error))
            return
        if watch.ended:
            return
        if note.kind == "shown":
            self._confront(name, note.data)
            return
        # Anybody can write one: however many come, everything is said again once a turn.
        watch.again_at = self._clock()
        watch.nudgers.add(note.sender)

    def _deliver(self, name: str, data: bytes) -> None:
        party = self._parties[name]
        self._let(name, lambda: party.deliver(data))
        before = None if self._watches[name].ended else party.contradicted(data)
        if before is not None:
            # Whoever says two things on one route has lost its memory, or lies; or another wrote
            # this in its name, and it knows what it is shown.
            self._show(name, before)

    def _confront(self, name: str, data: bytes) -> None:
        def happen() -> list[Message]:
            self._parties[name].confront(data)
            return []

        self._let(name, happen)

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
        finally:
            self._look(name)
        if said:
            self._watches[name].wait = 0.0
        self._send(said)

    def _look(self, name: str) -> None:
        """Note what a party awaits, and since when."""
        watch = self._watches[name]
        step = None if watch.ended else self._parties[name].awaits
        if step != watch.step:
            watch.step, watch.since = step, self._clock()

    def _speak(self, name: str) -> None:
        """Say all that a party has to say, to those who asked also what it has heard, and rest.

        The rest is twice as long as the last one.
        """
        watch, party = self._watches[name], self._parties[name]
        wait = watch.wait
        self._let(name, party.pending)
        watch.wait = min(max(2 * wait, self._patience.repeat), self._patience.most)
        watch.again_at = self._clock() + watch.wait
        nudgers, watch.nudgers = watch.nudgers, set()
        if not watch.ended:
            for nudger in nudgers:
                for message in party.heard(nudger):
                    self._show(name, message)

    def _show(self, name: str, message: Message) -> None:
        """Show the sender of a message that a party here has it."""
        note = Note("shown", name, encode(message))
        self._post.send(message.header.sender, note.mail())

    def _send(self, said: Iterable[Message]) -> None:
        for message in said:
            self._post.send(message.header.recipient, encode(message))
