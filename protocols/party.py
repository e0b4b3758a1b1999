"""A party: a state machine that is given messages and returns messages, and does no I/O.

Two functions define it. `_transition` takes a state and a message's content to the next state;
`_outbox` takes a state to all messages that others may still need from the party. Neither draws
randomness or keeps anything aside, so that a party restored from its saved state says the same
bytes again, and never others.
"""

import copy
import hashlib
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocols import message as messages
from protocols.codec import Secret, Wire, decode, encode, encode_around
from protocols.errors import (
    AnotherSet,
    BadSavedState,
    BelowThreshold,
    InvalidSession,
    InvalidVector,
    Malformed,
    MessageRejected,
    NotVoidable,
    SessionAborted,
    UnexpectedStep,
    UnknownSender,
)
from protocols.identity import Enrolment, Member
from protocols.layout import Decoded, Integers, RingVector
from protocols.message import MAX_OVERHEAD_BYTES, TAG_BYTES, Channel, Header, Message, Streamed
from protocols.release import Release, release_salt, sign_release
from protocols.roster import CLIENT
from protocols.session import Session
from protocols.spool import MemorySpool, Spool
from protocols.void import Void, sign_void

_Content = TypeVar("_Content", bound=Wire)

ENTROPY_BYTES = 32

Entropy = Callable[[int], bytes]
# A client's vector, int64 of the layout's length; it is given 32 bytes of the party's entropy, from
# which it derives any noise, so that a restarted client adds the same noise again.
Vector = Callable[[bytes], Integers]


class Received(NamedTuple):
    """An opened message: who says it, what, and the message itself with its header."""

    sender: str
    content: Wire
    header: Header
    message: Message


class Step(NamedTuple):
    """A step of a protocol, at the party that receives it.

    Attributes:
        sender_roles: who may send it.
        content: the type of its content.
        most: bytes of a content's encoding in a session, at most; longer ones are not opened.
    """

    sender_roles: tuple[str, ...]
    content: type[Wire]
    most: Callable[[Session], int]


def vector_bytes(session: Session) -> int:
    """Bound the bytes of a content that holds one packed vector and little else."""
    return session.layout.packed_bytes + 64


class State(Secret, frozen=True, tag=True):
    """Base of the states that a party passes through; one frozen struct for each step."""


class Fresh(State, frozen=True):
    """The state before the start."""


class Aborted(State, frozen=True):
    """The state of a party whose session is over without a sum.

    Attributes:
        reason: why.
        uploaded, opened: what the party had said before, see `Party`.
    """

    reason: str
    uploaded: bool = False
    opened: bool = False


class Sum(Wire, frozen=True, eq=False):
    """The sum that a session releases, once.

    Attributes:
        total: int64 vector of the layout's length, the exact sum over `included`.
        included: names of the clients in the sum, sorted.
        outside: how many entries of each block break its bounds, where any do: a client lied, and
            these entries are known up to multiples of the ring only.
    """

    total: Integers
    included: tuple[str, ...]
    outside: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, decoded: Decoded, included: Iterable[str]) -> "Sum":
        """Make a sum of decoded integers and the names of its clients."""
        return cls(decoded.total, tuple(sorted(included)), decoded.outside)

    def __repr__(self) -> str:
        return f"<Sum over {len(self.included)} clients>"


class Party(ABC):
    """Base of every party of every protocol.

    Subclasses name their `role`, their `states` (a union type) and the `steps` that they receive,
    and implement `_begin`, `_transition` and `_outbox`; coordinators also `_deadline`, `awaits` and
    `result`.

    Args:
        session: the terms.
        enrolment: this party's keys in the session.
        vector: a client's vector; None for coordinators.
        spool: where a coordinator may keep bulky messages; in memory by default.
        entropy: where the party draws its 32 bytes, once, at the start.

    Raises:
        InvalidSession: the roster has this party with another key, in another role, or not at all,
            or it has enrolled for another nonce.
    """

    role: ClassVar[str]
    states: ClassVar[Any]
    steps: ClassVar[dict[str, Step]] = {}

    def __init__(
        self,
        session: Session,
        enrolment: Enrolment,
        vector: Vector | None = None,
        *,
        spool: Spool | None = None,
        entropy: Entropy = secrets.token_bytes,
    ) -> None:
        member = enrolment.member
        self.name = member.name
        self._enrolment = enrolment
        self._state: State = Fresh()
        if not self._is_in(session, member):
            raise InvalidSession(
                f"the session's roster has no {self.role} of this name and these keys",
                party=member.name,
                fix="enrol with the session's nonce, in this role, before it is formed",
            )
        self.session = session
        self._vector = vector
        self._spool = spool if spool is not None else MemorySpool()
        self._entropy = entropy
        self._prepared: Integers | None = None

    def start(self) -> list[Message]:
        """Begin, drawing all entropy; a party that has begun says its current messages again."""
        if isinstance(self._state, Fresh):
            self._state = self._begin(self._entropy(ENTROPY_BYTES))
        return self.pending()

    def take(self, data: bytes) -> list[Message]:
        """Take a message as bytes off the network, as `receive` does.

        Raises:
            Malformed: longer than any step allows, or no message.
            MessageRejected, SessionAborted: as `receive`.
        """
        most = max((step.most(self.session) for step in self.steps.values()), default=0)
        if len(data) > most + MAX_OVERHEAD_BYTES:
            raise Malformed(
                f"{len(data)} bytes, allowed: ≤ {most + MAX_OVERHEAD_BYTES}", party=self.name
            )
        return self.receive(decode(data, Message, party=self.name))

    def receive(self, message: Message) -> list[Message]:
        """Take a message; returns what this party sends because of it.

        Raises:
            MessageRejected: the message is refused and the party is unchanged.
            SessionAborted: the session is over for this party.
        """
        header = messages.check_claims(self.session, self.name, message)
        step = self.steps.get(header.step)
        if step is None:
            raise UnexpectedStep("no such step here", party=self.name)
        most = step.most(self.session) + TAG_BYTES
        if len(message.body) > most:
            raise Malformed(
                f"{len(message.body)} bytes, allowed: ≤ {most}", party=self.name, step=header.step
            )
        messages.check_signed(self.session, header, message)
        role = self.session.line(header.sender).role
        # Two parties of one role speak to each other; nobody speaks to itself.
        if role not in step.sender_roles or header.sender == self.name:
            raise UnknownSender(
                f"'{header.sender}' is no other {' or '.join(step.sender_roles)}",
                party=self.name,
                step=header.step,
            )
        content_bytes = messages.unseal(self.session, self._enrolment, header, message.body)
        content = decode(content_bytes, step.content, party=self.name, step=header.step)
        received = Received(header.sender, content, header, message)
        return self._move(lambda: self._transition(self._state, received))

    def deadline(self, step: str) -> list[Message]:
        """Stop waiting for `step`.

        A party that does not, or no longer, await the step ignores the deadline.

        Raises:
            SessionAborted: what has arrived is not enough.
        """
        if self.awaits != step:
            return []
        return self._move(lambda: self._deadline(self._state))

    def pending(self) -> list[Message]:
        """Return what others may still need: a restarted party says it again, byte for byte."""
        return self._outbox(self._state)

    def give_back(self) -> list[Message]:
        """Give the session back, so that a void may be signed: this party says nothing more.

        Raises:
            NotVoidable: a message of this party that opens the session may exist.
        """
        if self.opened:
            raise NotVoidable(
                "what this party has said may open the sum", party=self.name, fix="there is none"
            )
        if not isinstance(self._state, Aborted):
            self._state = Aborted("given back", self.uploaded, False)
        return []

    def void(self) -> Void:
        """Give the session back, and sign that; a seat makes it durable between the two.

        Raises:
            NotVoidable: as `give_back`.
        """
        self.give_back()
        return sign_void(self.session, self._enrolment.identity)

    @property
    def aborted(self) -> bool:
        """Whether the session is over for this party, without a sum."""
        return isinstance(self._state, Aborted)

    @property
    def uploaded(self) -> bool:
        """Whether a message with this party's vector may exist; false at coordinators."""
        state = self._state
        return state.uploaded if isinstance(state, Aborted) else self._has_uploaded(state)

    @property
    def opened(self) -> bool:
        """Whether a message of this party that helps to open the sum, or the sum, may exist."""
        state = self._state
        return state.opened if isinstance(state, Aborted) else self._has_opened(state)

    @property
    def state(self) -> State:
        """The state that the party is in; secret."""
        return self._state

    def go_back(self, state: State) -> None:
        """Go back to an earlier state: what has happened since could not be written down."""
        self._state = state
        self._prepared = None

    @property
    def awaits(self) -> str | None:
        """The step whose deadline a driver has to watch for this party, if any."""
        return None

    @property
    def result(self) -> Sum | None:
        """The sum, at a party that receives it and once it is there."""
        return None

    @property
    def agreed(self) -> tuple[str, ...] | None:
        """The clients whose vectors alone this party lets into the sum; None where it cannot tell.

        A receiver that lies about its sum is held against this.
        """
        return None if self.result is None else self.result.included

    @property
    def release_salt(self) -> bytes:
        """The salt, 32 bytes, that opens a receiver's commitment to the sum; secret."""
        return release_salt(self.session, self._enrolment.identity)

    @property
    def release(self) -> Release | None:
        """What this party signs about the sum, at the receiver and once it is there."""
        if self.result is None:
            return None
        return sign_release(
            self.session,
            self._enrolment.identity,
            self.result.total,
            self.result.included,
        )

    def save(self) -> bytes:
        """Return the party's state as bytes, secrets included.

        The vector, session and keys are kept elsewhere.
        """
        saved = encode((self.session.id, self.name, encode(self._state)))
        return hashlib.sha256(saved).digest() + saved

    def restore(self, saved: bytes) -> Self:
        """Put a newly made party into a saved state.

        Raises:
            BadSavedState: the state is damaged, or another session's or party's.
        """
        digest, saved = saved[:32], saved[32:]
        try:
            if hashlib.sha256(saved).digest() != digest:
                raise Malformed("digest does not match")
            session_id, name, state = decode(saved, tuple[bytes, str, bytes])
            if (session_id, name) != (self.session.id, self.name):
                raise Malformed("of another session or party")
            self._state = decode(state, self.states)
        except Malformed as error:
            raise BadSavedState(
                f"saved state: {error.what}",
                party=self.name,
                fix="restore the state that this party saved in this session",
            ) from None
        self._prepared = None
        return self

    def save_keys(self) -> bytes:
        """Return the party's saved enrolment, private keys included."""
        return self._enrolment.save()

    def reload(self) -> Self:
        """Return this party as a fresh process would have it, from its saved state."""
        return copy.copy(self).restore(self.save())

    def _is_in(self, session: Session, member: Member) -> bool:
        if self._enrolment.nonce != session.nonce or member.role != self.role:
            return False
        if session.roster.by_name.get(member.name) != member.line:
            return False
        # A client has no list of enrolments to find itself in; whoever seals to it has.
        return member in session.everybody or (
            session.members is None and member.name in session.places
        )

    def _check_cohort(self, count: int, step: str) -> None:
        """Raise BelowThreshold for fewer clients than the minimum cohort."""
        if count < self.session.min_cohort:
            raise BelowThreshold(
                f"{count} clients contributed, wanted ≥ {self.session.min_cohort}",
                party=self.name,
                step=step,
                fix="run again with more clients, or a smaller minimum cohort",
            )

    def _check_set(self, names: Collection[str], step: str) -> None:
        """Check that a sum over this very set of clients may be released.

        Raises:
            BelowThreshold: fewer than the minimum cohort.
            AnotherSet: not the set of the rounds before, in a session that holds to that.
        """
        self._check_cohort(len(names), step)
        if not self.session.allows(names):
            raise AnotherSet(
                "these are other clients than in the run's first sum, and sums over different sets "
                "show single clients",
                party=self.name,
                step=step,
                fix="run again with clients that stay, add noise (--epsilon), or accept the risk "
                "(--no-same-set)",
            )

    def _move(self, next_state: Callable[[], State]) -> list[Message]:
        before = self._state
        try:
            self._state = next_state()
        except SessionAborted as error:
            self._state = Aborted(
                error.what, self._has_uploaded(before), error.opened or self._has_opened(before)
            )
            raise
        if type(self._state) is type(before):
            # A state of the same kind only counts arrivals; its messages have been sent.
            return []
        return self._news(before)

    def _news(self, before: State) -> list[Message]:
        """Return what the party says now and did not say before.

        A party whose states never repeat an earlier state's messages overrides this to be spared
        from making those again.
        """
        said = {message.route for message in self._outbox(before)}
        return [message for message in self.pending() if message.route not in said]

    @abstractmethod
    def _begin(self, secret: bytes) -> State: ...

    def _has_uploaded(self, state: State) -> bool:
        # A party that cannot tell has.
        return self.role == CLIENT and not isinstance(state, Fresh)

    def _has_opened(self, state: State) -> bool:
        return not isinstance(state, Fresh)

    def _transition(self, state: State, received: Received) -> State:
        raise UnexpectedStep("this party awaits nothing", party=self.name)

    def _deadline(self, state: State) -> State:
        return state

    def _outbox(self, state: State) -> list[Message]:
        return []

    def _open_channel(self, recipient: str, secret: bytes) -> Channel:
        return messages.open_channel(self.session, self._enrolment, recipient, secret)

    def _seal(self, channel: Channel, step: str, content: Wire | Streamed) -> Message:
        return messages.seal(self.session, self._enrolment, channel, step, _encoded(content))

    def _seal_together(
        self, step: str, contents: Sequence[tuple[Channel, Wire | Streamed]]
    ) -> list[Message]:
        encoded = [(channel, _encoded(content)) for channel, content in contents]
        return messages.seal_together(self.session, self._enrolment, step, encoded)

    def _streamed(
        self, content: Wire, vector: Integers, change: Callable[[RingVector], None] | None = None
    ) -> Streamed:
        """Return a content whose first field, empty so far, is the packed vector.

        The vector is cast, changed (that is masked), packed and sealed piece by piece.
        """
        layout = self.session.layout
        before, after = encode_around(content, layout.packed_bytes)
        pieces: Iterable[bytes | memoryview] = chain(
            (before,), layout.packed_pieces(vector, change), (after,)
        )
        return Streamed(len(before) + layout.packed_bytes + len(after), pieces)

    def _open_spooled(
        self, sender: str, kind: type[_Content], is_same: Callable[[Header, _Content], bool]
    ) -> _Content:
        """Return the content of a message that this party took earlier and spooled.

        Raises:
            BadSavedState: it is not there, damaged, or not the one that `is_same` knows.
        """
        try:
            message = decode(self._spool.get(sender), Message)
            header = messages.check(self.session, self.name, message)
            content = decode(
                messages.unseal(self.session, self._enrolment, header, message.body), kind
            )
            if header.sender != sender or not is_same(header, content):
                raise BadSavedState("another upload")
        except (MessageRejected, BadSavedState) as error:
            # Not a message that somebody sent, and so none that can be refused and sent again.
            raise BadSavedState(
                f"the spooled upload of '{sender}': {error.what}",
                party=self.name,
                fix="restore the spool as this party left it, or run a new session",
            ) from None
        return content

    def _fingerprint_vector(self, secret: bytes) -> bytes:
        """Take this client's vector for the first time; its fingerprint goes into the state.

        A restarted client must not seal a second content under the same keys; its data may have
        changed meanwhile. The fingerprint is a GMAC (NIST SP 800-38D), for speed.
        """
        self._prepared = self._take_vector(secret)
        return self._fingerprint(secret, self._prepared)

    def _contribution(self, secret: bytes, fingerprint: bytes) -> Integers:
        """Return this client's vector, the one that it began with.

        Raises:
            InvalidVector: the data have changed since.
        """
        if self._prepared is not None:
            vector, self._prepared = self._prepared, None
            return vector
        vector = self._take_vector(secret)
        if self._fingerprint(secret, vector) != fingerprint:
            raise InvalidVector(
                "not the vector that this client began with",
                party=self.name,
                fix="restore the data, or take part in a new session",
            )
        return vector

    def _take_vector(self, secret: bytes) -> Integers:
        assert self._vector is not None, "a client needs a vector"
        vector = self._vector(messages.derive(secret, self.session.id, "vector", self.name))
        self.session.layout.check(vector, party=self.name)
        return np.ascontiguousarray(vector)

    def _fingerprint(self, secret: bytes, vector: Integers) -> bytes:
        key = messages.derive(secret, self.session.id, "fingerprint", self.name)
        return AESGCM(key).encrypt(bytes(12), b"", vector.view(np.uint8).data)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {type(self._state).__name__}>"


def _encoded(content: Wire | Streamed) -> bytes | Streamed:
    return content if isinstance(content, Streamed) else encode(content)
