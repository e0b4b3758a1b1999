"""What one party or coalition had: every byte that it received or held, and what was released."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from protocols.codec import Wire, decode
from protocols.errors import Malformed
from protocols.identity import Enrolment
from protocols.message import Header, Message, unseal
from protocols.network import PartyRecord, Transcript
from protocols.party import Sum
from protocols.session import Session

Content = TypeVar("Content", bound=Wire)


class Opened(NamedTuple):
    """A received message, opened with its recipient's keys."""

    header: Header
    content: bytes


@dataclass(frozen=True, repr=False)
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
        """The coalition's part of a transcript."""
        return cls(session, {name: transcript[name] for name in coalition}, released)

    def enrolment(self, name: str) -> Enrolment:
        """The keys of a party of the coalition."""
        return Enrolment.load(self.records[name].keys)

    def received(self, name: str) -> Iterator[Opened]:
        """What a party of the coalition was sent, in order, opened."""
        enrolment = self.enrolment(name)
        for data in self.records[name].received:
            message = decode(data, Message)
            yield Opened(
                message.header, unseal(self.session, enrolment, message.header, message.body)
            )

    def contents(self, name: str, step: str, kind: type[Content]) -> dict[str, Content]:
        """What a party was sent at a step, by sender; the first where there are several."""
        found: dict[str, Content] = {}
        for header, content in self.received(name):
            if header.step == step and header.sender not in found:
                try:
                    found[header.sender] = decode(content, kind)
                except Malformed:
                    continue
        return found

    def __repr__(self) -> str:
        return f"<View of {', '.join(self.records)}>"
