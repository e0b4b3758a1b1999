"""What one party or coalition had: every byte that it received or held, and what was released."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from protocols.codec import Wire, decode
from protocols.errors import BadSeal, Malformed
from protocols.identity import Enrolment
from protocols.message import Channel, Header, Message, open_content, unseal
from protocols.network import PartyRecord, Transcript
from protocols.party import Party, State, Sum
from protocols.session import Session

Content = TypeVar("Content", bound=Wire)
Held = TypeVar("Held", bound=State)


class Opened(NamedTuple):
    """A received message, opened with its recipient's keys."""

    header: Header
    content: bytes


@dataclass(frozen=True, repr=False, eq=False)
class View:
    """All that a coalition has to go on.

    Attributes:
        session: the public terms.
        records: of the coalition's own parties and of nobody else, by name.
        released: the sum, where the session has released it to the public.
    """

    session: Session
    records: dict[str, PartyRecord]
    released: Sum | None = None

    @classmethod
    def cut(
        cls,
        session: Session,
        transcript: Transcript,
        coalition: Iterable[str],
        released: Sum | None = None,
    ) -> "View":
        """Cut the coalition's part out of a transcript."""
        return cls(session, {name: transcript[name] for name in coalition}, released)

    def enrolment(self, name: str) -> Enrolment:
        """Return the keys of a party of the coalition."""
        return Enrolment.load(self.records[name].keys)

    def received(self, name: str) -> Iterator[Opened]:
        """Open what a party of the coalition was sent, in order.

        Damaged messages are left out.
        """
        enrolment = self.enrolment(name)
        for data in self.records[name].received:
            try:
                message = decode(data, Message)
                header = message.header
                yield Opened(header, unseal(self.session, enrolment, header, message.body))
            except (Malformed, BadSeal):
                continue

    def contents(self, name: str, step: str, kind: type[Content]) -> dict[str, Content]:
        """Open what a party was sent at a step, by sender; the first of several."""
        found: dict[str, Content] = {}
        for header, content in self.received(name):
            if header.step == step and header.sender not in found:
                try:
                    found[header.sender] = decode(content, kind)
                except Malformed:
                    continue
        return found

    def said(
        self, name: str, step: str, kind: type[Content], channels: Sequence[Channel]
    ) -> dict[str, Content]:
        """Open what a party of the coalition sent at a step, by recipient."""
        keys = {channel.recipient: channel.key for channel in channels}
        found: dict[str, Content] = {}
        for data in self.records[name].sent:
            message = decode(data, Message)
            header = message.header
            if header.step == step and header.recipient in keys:
                content = open_content(self.session, keys[header.recipient], header, message.body)
                found[header.recipient] = decode(content, kind)
        return found

    def held(self, name: str, party: type[Party], kind: type[Held]) -> Held | None:
        """Return the last state of this kind that a party of the coalition was in.

        None if there is none.
        """
        for saved in reversed(self.records[name].held):
            # As `Party.save` writes it, after its digest.
            _, _, encoded = decode(saved[32:], tuple[bytes, str, bytes])
            state = decode(encoded, party.states)
            if isinstance(state, kind):
                return state
        return None

    def __repr__(self) -> str:
        return f"<View of {', '.join(self.records)}>"
