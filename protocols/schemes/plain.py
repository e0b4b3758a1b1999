"""`plain`: clients send their vectors to one server, which adds them up and sees every one.

It protects nothing against the server. It is the baseline of cost and leakage, and the shortest
example of a protocol: links are still sealed and signed, the minimum cohort still holds.
"""

from collections.abc import Mapping
from typing import ClassVar

from protocols.codec import Secret
from protocols.errors import InvalidVector, Malformed, Replayed, UnexpectedStep
from protocols.message import Channel, Message
from protocols.party import (
    Aborted,
    Fresh,
    Party,
    Received,
    State,
    Step,
    Sum,
    vector_bytes,
)
from protocols.protocol import PROTOCOLS, Coalition, Protocol
from protocols.roster import CLIENT

SERVER = "server"
UPLOAD = "upload"


class ClearVector(Secret, frozen=True):
    """A client's vector, packed in the ring."""

    vector: bytes


class Uploading(State, frozen=True):
    """The client has begun; all that it ever says follows from its secret."""

    secret: bytes
    fingerprint: bytes
    channel: Channel


class Collecting(State, frozen=True):
    """The server's running sum, packed in the ring, and whose vectors are in it."""

    total: bytes
    included: tuple[str, ...]


class Finished(State, frozen=True):
    """The server has released the sum."""

    total: Sum


class PlainClient(Party):
    """Uploads its vector at the start; answers nothing."""

    role = CLIENT
    states = Fresh | Uploading | Aborted

    def _begin(self, secret: bytes) -> Uploading:
        (server,) = self.session.of_role(SERVER)
        fingerprint = self._fingerprint_vector(secret)
        return Uploading(secret, fingerprint, self._open_channel(server, secret))

    def _has_opened(self, state: State) -> bool:
        return self._has_uploaded(state)

    def _outbox(self, state: State) -> list[Message]:
        if not isinstance(state, Uploading):
            return []
        vector = self._contribution(state.secret, state.fingerprint)
        return [self._seal(state.channel, UPLOAD, self._streamed(ClearVector(b""), vector))]


class PlainServer(Party):
    """The party that adds up arrivals until every client is in, or its deadline passes.

    The deadline is that for uploads.
    """

    role = SERVER
    states = Fresh | Collecting | Finished | Aborted
    steps: ClassVar[dict[str, Step]] = {UPLOAD: Step((CLIENT,), ClearVector, vector_bytes)}

    def _has_opened(self, state: State) -> bool:
        return isinstance(state, Finished)

    def _begin(self, secret: bytes) -> Collecting:
        return Collecting(bytes(self.session.layout.packed_bytes), ())

    @property
    def awaits(self) -> str | None:
        """`upload` while the server takes vectors; None before and after."""
        return UPLOAD if isinstance(self._state, Collecting) else None

    @property
    def result(self) -> Sum | None:
        """The sum over all uploads, once they are closed; None until then."""
        return self._state.total if isinstance(self._state, Finished) else None

    def _transition(self, state: State, received: Received) -> State:
        sender, content = received.sender, received.content
        if not isinstance(state, Collecting):
            raise UnexpectedStep("uploads are closed", party=self.name, step=UPLOAD)
        if sender in state.included:
            raise Replayed(f"'{sender}' has uploaded before", party=self.name, step=UPLOAD)
        assert isinstance(content, ClearVector)
        layout = self.session.layout
        try:
            addend = layout.unpack(content.vector)
        except InvalidVector as error:
            raise Malformed(f"'{sender}': {error.what}", party=self.name, step=UPLOAD) from None
        total = layout.pack(layout.unpack(state.total) + addend)
        collecting = Collecting(total, (*state.included, sender))
        everybody = len(collecting.included) == len(self.session.clients)
        return self._release(collecting) if everybody else collecting

    def _deadline(self, state: State) -> State:
        assert isinstance(state, Collecting)
        return self._release(state)

    def _release(self, state: Collecting) -> Finished:
        self._check_set(state.included, UPLOAD)
        layout = self.session.layout
        return Finished(Sum.of(layout.decode(layout.unpack(state.total)), state.included))


@PROTOCOLS.register
class Plain(Protocol, frozen=True, tag="plain"):
    """The protocol without protection."""

    name = "plain"
    summary = "the server sees all"
    protects = "nothing: the server sees every client's vector"
    hides_vectors = False
    receiver_role = SERVER
    upload_step = UPLOAD

    @classmethod
    def parties(cls) -> Mapping[str, type[Party]]:
        """Return the client and the server."""
        return {CLIENT: PlainClient, SERVER: PlainServer}

    def coordinators(self) -> Mapping[str, str]:
        """Return the one server."""
        return {SERVER: SERVER}

    def coalitions(self) -> tuple[Coalition, ...]:
        """List the server, which sees every vector."""
        meaning = "The server by itself, which receives every vector."
        return (Coalition("server", "server", meaning, (SERVER,), "vectors", swept=True),)
