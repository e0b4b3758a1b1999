"""A protocol in one file: vectors travel times an odd factor, which the server takes off the sum.

It hides nothing; it shows that a protocol is added by adding a file.
"""

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from msgspec import Meta

from protocols.codec import decode
from protocols.errors import InvalidSession
from protocols.layout import RingVector
from protocols.message import Message
from protocols.party import Party, State
from protocols.protocol import PROTOCOLS, Coalition, Protocol
from protocols.roster import CLIENT
from protocols.schemes.plain import (
    SERVER,
    UPLOAD,
    ClearVector,
    Collecting,
    Finished,
    PlainClient,
    PlainServer,
    Uploading,
)
from protocols.session import Session


@PROTOCOLS.register
class Toy(Protocol, frozen=True, tag="toy"):
    """Sums times a factor.

    Attributes:
        factor: odd, so that it has an inverse in every ring.
    """

    name = "toy"
    summary = "a server sees all, times a factor"
    protects = "nothing: the server knows the factor"
    hides_vectors = False
    receiver_role = SERVER
    upload_step = UPLOAD
    factor: Annotated[
        int,
        Meta(ge=1, le=2**31, description="odd number that vectors travel times."),
    ] = 3

    def __post_init__(self) -> None:
        if self.factor % 2 == 0:
            raise InvalidSession(f"factor {self.factor}", fix="choose an odd one")

    @classmethod
    def parties(cls) -> Mapping[str, type[Party]]:
        return {CLIENT: ToyClient, SERVER: ToyServer}

    def coordinators(self) -> Mapping[str, str]:
        return {SERVER: SERVER}

    def coalitions(self) -> tuple[Coalition, ...]:
        meaning = "The server of the toy, which knows the factor."
        return (
            Coalition("toy-server", "server of the toy", meaning, (SERVER,), "vectors", swept=True),
        )


class ToyClient(PlainClient):
    def _outbox(self, state: State) -> list[Message]:
        if not isinstance(state, Uploading):
            return []
        layout = self.session.layout
        vector = layout.embed(self._contribution(state.secret, state.fingerprint))
        travelling = times(vector, factor_of(self.session))
        return [self._seal(state.channel, UPLOAD, ClearVector(layout.pack(travelling)))]


class ToyServer(PlainServer):
    def _release(self, state: Collecting) -> Finished:
        layout = self.session.layout
        inverse = pow(factor_of(self.session), -1, 2**64)
        total = times(layout.unpack(state.total), inverse)
        return super()._release(Collecting(layout.pack(total), state.included))


def factor_of(session: Session) -> int:
    return decode(session.parameters, Toy).factor


def times(vector: RingVector, factor: int) -> RingVector:
    """Multiply in the ring, whose words wrap."""
    wide = vector.astype(np.uint64) * np.uint64(factor % 2**64)
    return wide if vector.dtype == np.uint64 else wide.astype(np.uint32)
