"""Small worlds for tests: a session with its parties, their vectors, and the sum in the clear."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols import (
    Block,
    Enrolment,
    FaultPlan,
    Identity,
    Layout,
    Member,
    Network,
    Party,
    Protocol,
    Session,
    Sum,
    Transcript,
    enrol,
    form_session,
    new_nonce,
)
from protocols import message as messages
from protocols.codec import decode, encode
from protocols.errors import SessionAborted
from protocols.layout import Integers
from protocols.message import Header, Message
from protocols.roster import CLIENT
from protocols.spool import MemorySpool

# The terms that members of another session keep.
_TERMS = (
    *("nonce", "layout", "min_cohort", "corrupt", "context", "round", "attempt", "void"),
    "same_set",
)


class Route(NamedTuple):
    """Who says what to whom."""

    sender: str
    recipient: str
    step: str


@dataclass(frozen=True)
class World:
    """One session, and what every client has."""

    protocol: Protocol
    session: Session
    enrolments: dict[str, Enrolment]
    vectors: dict[str, Integers]
    spools: dict[str, MemorySpool] = field(default_factory=dict)

    def party(self, name: str, session: Session | None = None) -> Party:
        """A fresh party, in this session or with the terms of another."""
        session = session or self.session
        enrolment = self.enrolments[name]
        if enrolment.member.role == CLIENT:
            own = session is self.session
            view = self._view if own else Session(session.header, session.roster)
            return self.protocol.client(view, enrolment, self._vector(name))
        spool = self.spools.setdefault(name, MemorySpool())
        return self.protocol.coordinator(session, enrolment, spool=spool)

    @property
    def names(self) -> list[str]:
        """All parties, in the order in which they start."""
        coordinators = list(self.protocol.coordinators())
        return [*coordinators, *self.session.clients]

    def parties(self) -> list[Party]:
        return [self.party(name) for name in self.names]

    def load(self, name: str, saved: bytes) -> Party:
        """The party as a fresh process would have it."""
        return self.party(name).restore(saved)

    def truth(self, names: Iterable[str]) -> Integers:
        """The sum in the clear, added as Python integers."""
        total = [0] * self.session.layout.length
        for name in names:
            total = [a + b for a, b in zip(total, self.vectors[name].tolist(), strict=True)]
        return np.array(total, dtype=np.int64)

    def with_terms(self, **changes: Any) -> Session:
        """The same parties under other terms."""
        header = msgspec.structs.replace(self.session.header, **changes)
        return Session(header, self.session.roster, self.session.members)

    def with_members(self, members: Iterable[Member], **changes: Any) -> Session:
        """The session of other enrolments, under these terms or others."""
        terms = {name: getattr(self.session.header, name) for name in _TERMS}
        return form_session(self.protocol, members, **(terms | changes))

    @property
    def members(self) -> tuple[Member, ...]:
        """All enrolments, coordinators' first."""
        return self.session.everybody

    def as_client(self, **changes: Any) -> Session:
        """The session as a client sees it, that pins the roster and has no enrolments."""
        header = msgspec.structs.replace(self.session.header, **changes)
        return Session.read(encode(header), self.session.roster)

    @cached_property
    def _view(self) -> Session:
        """What clients see, made once: its coordinators' keys take time to check."""
        return self.as_client()

    def under(self, session: Session) -> "World":
        """These parties, with the keys that they have, in another session."""
        return World(self.protocol, session, self.enrolments, self.vectors)

    def forge(
        self, enrolment: Enrolment, recipient: str, step: str, content: bytes, *, name: str = ""
    ) -> Message:
        """A properly sealed message that `enrolment` has no business (or every right) to send.

        With `name`, the header claims that sender instead.
        """
        channel = messages.open_channel(self.session, enrolment, recipient, bytes(32))
        message = messages.seal(self.session, enrolment, channel, step, content)
        if not name:
            return message
        return resigned(enrolment, message, sender=name)

    def content(self, data: bytes) -> bytes:
        """What a message says, opened with its recipient's keys."""
        message = decode(data, Message)
        enrolment = self.enrolments[message.header.recipient]
        return messages.unseal(self.session, enrolment, message.header, message.body)

    def _vector(self, name: str) -> Callable[[bytes], Integers]:
        return lambda _: self.vectors[name]


@dataclass(frozen=True)
class Outcome:
    """How a run ended: with a sum or with an error, never with both."""

    network: Network
    transcript: Transcript
    total: Sum | None
    error: SessionAborted | None

    @property
    def included(self) -> tuple[str, ...]:
        assert self.total is not None, f"no sum: {self.error}"
        return self.total.included

    def rejections_at(self, recipient: str) -> list[Exception]:
        return [r.error for r in self.network.rejections if r.recipient == recipient]


def make_world(
    protocol: Protocol,
    vectors: Sequence[Integers],
    layout: Layout,
    *,
    min_cohort: int,
    corrupt: int = 0,
) -> World:
    """A world of clients `client0`, `client1`, … that hold these vectors."""
    names = [f"client{index}" for index in range(len(vectors))]
    nonce = new_nonce()
    enrolments = enrol(protocol, {name: Identity.generate(name) for name in names}, nonce)
    members = [enrolment.member for enrolment in enrolments.values()]
    session = form_session(protocol, members, nonce, layout, min_cohort=min_cohort, corrupt=corrupt)
    return World(protocol, session, enrolments, dict(zip(names, vectors, strict=True)))


def run(
    world: World,
    plan: FaultPlan | None = None,
    parties: Sequence[Party] | None = None,
    *,
    exact: bool = True,
) -> Outcome:
    """Run to the end, and hold the outcome against what must be true whatever has gone wrong.

    Anything but a typed abort escapes. With `exact=False` the sum's value is not checked: for runs
    in which a client itself lies about its vector.
    """
    network = Network(parties or world.parties(), plan, record=True)
    total, error = None, None
    try:
        total = network.run()
    except SessionAborted as aborted:
        error = aborted
    assert network.transcript is not None
    results = [
        result
        for name, record in network.transcript.items()
        if record.held and (result := _result(world, name, record.held[-1])) is not None
    ]
    if total is None:
        assert not results, f"the session aborted ({error}), yet a party has a sum"
    else:
        assert total.included == tuple(sorted(set(total.included)))
        assert set(total.included) <= set(world.session.clients)
        assert len(total.included) >= world.session.min_cohort
        assert total.total.dtype == np.int64
        if exact:
            assert np.array_equal(total.total, world.truth(total.included))
            assert total.outside == ()
        assert results
        for result in results:
            assert result.included == total.included
            assert np.array_equal(result.total, total.total)
            assert result.outside == total.outside
    return Outcome(network, network.transcript, total, error)


def _result(world: World, name: str, held: bytes) -> Sum | None:
    return world.load(name, held).result


def messages_of(transcript: Transcript) -> dict[Route, bytes]:
    """Every message of a clean run; each route carries one."""
    found: dict[Route, bytes] = {}
    for record in transcript.values():
        for data in record.sent:
            header = decode(data, Message).header
            route = Route(header.sender, header.recipient, header.step)
            assert route not in found, f"two messages on {route}: one key must seal one content"
            found[route] = data
    return found


def with_header(message: Message, **changes: Any) -> Message:
    """The message with another header, unsigned."""
    fields = {field: getattr(message.header, field) for field in Header.__struct_fields__}
    return Message(encode(Header(**(fields | changes))), message.signature, message.body)


def resigned(enrolment: Enrolment, message: Message, **changes: Any) -> Message:
    """The message with another header, that a member signs: what a sender, but no carrier, can."""
    header = with_header(message, **changes).header_bytes
    return Message(header, enrolment.identity.sign(messages._signed(header)), message.body)


# Vectors


def compose(rng: random.Random, target: int, parts: int) -> list[int]:
    """`parts` random integers of the target's sign that add up to it."""
    cuts = sorted(rng.randint(0, abs(target)) for _ in range(parts - 1))
    sign = -1 if target < 0 else 1
    return [sign * (b - a) for a, b in zip([0, *cuts], [*cuts, abs(target)], strict=True)]


def addends(rng: random.Random, layout: Layout, clients: int, *, edges: bool) -> list[Integers]:
    """Vectors whose sums lie within the layout's bounds, on their ends or anywhere between.

    All addends of an entry have one sign, so that with `low ≤ 0 ≤ high` every subset fits too.
    """
    columns = []
    for block in layout.blocks:
        for _ in range(block.length):
            inside = rng.randint(block.low, block.high)
            target = rng.choice([block.low, block.high]) if edges else inside
            columns.append(compose(rng, target, clients))
    return [np.array(entries, dtype=np.int64) for entries in zip(*columns, strict=True)]


def layouts(ring_bits: int, max_length: int, *, through_zero: bool = False) -> Any:
    """Layouts whose ring is exactly this wide, with their ends where a carry would show."""
    narrower = {32: 1, 40: 2**32, 48: 2**40, 64: 2**48}[ring_bits]
    widths = st.integers(narrower, 2**ring_bits - 1) | st.sampled_from([narrower, 2**ring_bits - 1])

    @st.composite
    def build(draw: st.DrawFn) -> Layout:
        lengths = draw(st.lists(st.integers(1, max(1, max_length // 3)), min_size=1, max_size=3))
        blocks = []
        for index, length in enumerate(lengths):
            # The first block decides the ring, the others may be narrower.
            width = draw(widths if index == 0 else widths | st.integers(0, narrower))
            if through_zero:
                least, most = max(-width, -(2**63)), min(0, 2**63 - 1 - width)
            else:
                least, most = -(2**63), 2**63 - 1 - width
            low = draw(st.integers(least, most) | st.sampled_from([least, most]))
            blocks.append(Block(f"block{index}", length, low, low + width))
        return Layout(tuple(blocks))

    return build()


# Property-based tests inside a class that several protocols share


def for_all(examples: int, **strategies: Any) -> Callable[[Callable[..., None]], None]:
    """Runs the decorated body at once, on that many examples.

    `given` on a method would be one test to hypothesis, however many protocols subclass it, with
    one number of examples for fast and slow ones.
    """

    def decorate(body: Callable[..., None]) -> None:
        checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
        configured = settings(max_examples=examples, deadline=None, suppress_health_check=checks)
        configured(given(**strategies)(body))()

    return decorate


# Damage


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Ways to damage bytes; each returns other bytes than it was given."""
    kind = draw(st.sampled_from(["flip", "flip", "flip", "replace", "truncate", "append", "empty"]))
    where = draw(st.floats(0, 1, exclude_max=True))
    byte = draw(st.integers(1, 255))
    bit = draw(st.integers(0, 7))

    def damage(data: bytes) -> bytes:
        if not data:
            return bytes([byte])
        at = int(where * len(data))
        if kind == "flip":
            return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]
        if kind == "replace":
            return data[:at] + bytes([data[at] ^ byte]) + data[at + 1 :]
        if kind == "truncate":
            return data[:at]
        if kind == "append":
            return data + bytes([byte]) * (1 + bit)
        return b""

    return damage


def damage_inside(data: bytes, damage: Callable[[bytes], bytes]) -> bytes:
    """A canonical encoding with every byte string in it damaged: of the right type still."""

    def walk(value: object) -> object:
        if isinstance(value, list):
            return [walk(item) for item in value]
        return damage(value) if isinstance(value, bytes) else value

    return encode(walk(msgspec.msgpack.decode(data)))


def byte_strings(value: object) -> Iterator[bytes]:
    """Every byte string inside a canonically encoded value, however deep it is nested.

    Those that are themselves encodings are opened, and not given as a whole.
    """
    if isinstance(value, list):
        for item in value:
            yield from byte_strings(item)
    elif isinstance(value, bytes):
        try:
            inner = msgspec.msgpack.decode(value)
        except (ValueError, RecursionError):
            inner = None
        if isinstance(inner, list):
            yield from byte_strings(inner)
        else:
            yield value
