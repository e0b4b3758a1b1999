"""The rounds that are over, and what the next one begins with."""

import hashlib
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from protocols.codec import Digest, Wire, decode, domain_tag, encode
from protocols.layout import Integers
from protocols.release import Release, next_context
from secure_afl.methods.method import AnyMethod, PublicState, Task

MAX_ROUNDS = 1_000_000
MAX_ATTEMPTS = 16
"""Sessions that a round may have: each is a chance to try for a sum over another set."""


class Link(Wire, frozen=True):
    """A round that is over: what its collector signed, and the digest of the state after it."""

    release: Release
    state: Digest


class History(Wire, frozen=True):
    """The rounds of a run that are over.

    Attributes:
        first: digest of the public state that the first round began with, 32 bytes.
        links: one for each round that is over, in order.
    """

    first: Digest
    links: Annotated[tuple[Link, ...], Meta(max_length=MAX_ROUNDS)] = ()

    @property
    def state(self) -> bytes:
        """Digest of the state that the next round begins with, 32 bytes."""
        return self.links[-1].state if self.links else self.first

    @property
    def first_set(self) -> bytes:
        """Bits of the clients in the first sum; empty before that."""
        return self.links[0].release.included if self.links else b""

    def then(self, release: Release, public: PublicState) -> "History":
        """Return the history with one more round, which ended in this state."""
        return History(self.first, (*self.links, Link(release, state_digest(public))))


@dataclass(frozen=True, eq=False)
class Ended:
    """The round before, whole: for clients to compute its end themselves.

    Attributes:
        public: the state that it began with.
        total: its sum.
        salt: what opens the collector's commitment to the sum, 32 bytes.
    """

    public: PublicState
    total: Integers
    salt: bytes


class EndedRound(Wire, frozen=True, eq=False):
    """An ended round on the wire, and on the disk."""

    public: bytes
    total: Integers
    salt: Digest

    @classmethod
    def of(cls, ended: Ended) -> "EndedRound":
        """Write an ended round down."""
        return cls(encode(ended.public), ended.total, ended.salt)

    def ended(self, method: AnyMethod) -> Ended:
        """Return the round; raises Malformed for a state that is none of the method's."""
        return Ended(decode(self.public, method.public), self.total, self.salt)


@dataclass(frozen=True, eq=False)
class Opening:
    """What the server tells every party of a round beside its session.

    Attributes:
        public: the state that the round begins with.
        history: of the rounds before.
        ended: the round before, where the state gives its sum away anyway; else None.
        voids: `Evidence`, encoded, that each earlier attempt of this round was given back.
    """

    public: PublicState
    history: History
    ended: Ended | None = None
    voids: tuple[bytes, ...] = ()


def state_digest(public: PublicState) -> bytes:
    """Return the SHA-256, 32 bytes, of a public state."""
    return hashlib.sha256(encode((domain_tag("state"), public))).digest()


def first_context(method: AnyMethod, task: Task, first: bytes) -> bytes:
    """Hash what a run is for: method, its parameters, the task, and the digest of its first state.

    The hash is SHA-256.
    """
    return hashlib.sha256(encode((domain_tag("context"), method, task, first))).digest()


def context_of(method: AnyMethod, task: Task, history: History) -> bytes:
    """Return the context of the round after this history, 32 bytes."""
    context = first_context(method, task, history.first)
    for link in history.links:
        context = next_context(context, link.release, link.state)
    return context


def reveals_total(method: AnyMethod, task: Task, round: int) -> bool:
    """Say whether clients are sent a round's total; never where noise comes to it afterwards."""
    central = task.mechanism is not None and task.mechanism.privacy.placement == "central"
    return method.reveals(round, task) and not central
