"""Corrupted messages by the thousand: each ends in a typed error or in a client's exclusion.

python -m tests.protocols.fuzz --messages N [--seed S] [--minutes M]

A run takes up a session whose parties have begun, and carries every message of it through the
network several times over: as other bytes, in another's place, from another session, or as a lie
that a member has properly signed and sealed. Beside some of them the true one arrives, too. The sum
at the end is that of the included clients, or there is a typed error; and whatever a message claims
about its lengths, memory does not grow with it.
"""

import argparse
import faulthandler
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, get_args

import msgspec
import numpy as np

from protocols import (
    Additive,
    Bfv,
    Block,
    Ckks,
    Fault,
    FaultPlan,
    Layout,
    Network,
    Pairwise,
    Plain,
    Protocol,
    Roster,
    Session,
    new_nonce,
)
from protocols import message as messages
from protocols.codec import Wire, decode, encode
from protocols.errors import Malformed, MessageRejected, Refused, SessionAborted
from protocols.layout import Integers, RingVector
from protocols.message import Header, Message
from protocols.primitives.masks import add_mask
from protocols.release import sign_release
from protocols.schemes.additive.messages import PARTIAL, Partial, Share, mask_key
from protocols.schemes.encrypted.messages import KEY, TOTAL, Key, Total
from protocols.schemes.encrypted.protocol import EncryptedSum
from protocols.schemes.pairwise import messages as pairwise
from protocols.schemes.plain import ClearVector
from tests.kit.worlds import (
    Route,
    World,
    addends,
    byte_strings,
    make_world,
    messages_of,
    resigned,
    run,
)

PROTOCOLS: tuple[Protocol, ...] = (
    *(Plain(), Additive(), Additive(aggregators=3)),
    *(Pairwise(0.2, 0.2, "lying"), Ckks(), Bfv()),
)
LAYOUT = Layout((Block("wide", 4, -(2**31) + 1, 2**31 - 1), Block("count", 2, 0, 2**20)))
CLIENTS, MIN_COHORT = 5, 3
# A client that is lost at one of these steps may be in the sum all the same.
AFTER_UPLOADS = (pairwise.SURVIVORS, pairwise.SIGN, pairwise.SIGNATURES, pairwise.UNMASK)
# Runs on one session before a new one is formed.
RUNS_PER_SESSION = 40
HANG_SECONDS = 60
# Room for the messages of a run, the longest of which are a few megabytes, and for SEAL's pools.
MAX_GROWTH_BYTES = 384 * 2**20

Damage = Callable[[bytes], bytes]


@dataclass
class Tally:
    """What became of the corrupted messages."""

    messages: int = 0
    runs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        lines = [f"{self.messages} messages in {self.runs} runs"]
        lines += [f"  {count:8d}  {what}" for what, count in sorted(self.outcomes.items())]
        return "\n".join(lines)


class Memory:
    """The memory that this process has taken at most, which must not follow what others claim."""

    def __init__(self) -> None:
        self._before = self._peak()

    def check(self) -> None:
        """Assert that the peak has grown by less than the bound."""
        grown = self._peak() - self._before
        assert grown < MAX_GROWTH_BYTES, f"{grown} bytes more than at the beginning"

    def _peak(self) -> int:
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# Damage to bytes


def damaged(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Other bytes than `data`: flipped, cut, spliced, replaced, or structurally wrong."""
    while True:
        changed = _damaged(rng, data, others)
        if changed != data:
            return changed


def _damaged(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    if not data:
        return rng.randbytes(rng.randint(1, 8))
    at, to = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    match rng.randrange(10):
        case 0 | 1:
            changed = bytearray(data)
            for _ in range(rng.choice([1, 1, 1, 2, 8])):
                changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            return bytes(changed)
        case 2:
            return data[:at]
        case 3:
            return data[:at] + data[to:]
        case 4:
            return data[:to] + data[at:]
        case 5:
            return data[:at] + rng.randbytes(rng.randint(1, 16)) + data[at:]
        case 6:
            other = rng.choice(others)
            return data[:at] + other[rng.randrange(len(other) + 1) :]
        case 7:
            # msgpack's lengths and types sit in front.
            head = min(len(data), 12)
            where = rng.randrange(head)
            return data[:where] + rng.randbytes(1) + data[where + 1 :]
        case 8:
            # A length of up to 4 GB, or of as many elements, before what is there.
            kind = rng.choice([b"\xc6", b"\xdb", b"\xdd"])
            claim = kind + rng.choice([2**32 - 1, 2**31 - 1, 10**8, 10**6]).to_bytes(4, "big")
            return data[:at] + claim + data[at:]
        case _:
            return rng.randbytes(rng.randint(0, 2 * len(data)))


def bent(rng: random.Random, data: bytes) -> bytes:
    """A canonical encoding with one thing in it changed: a number, a set, or a list."""
    value = msgspec.msgpack.decode(data)
    places: list[tuple[list[Any], int]] = []
    todo = [value]
    while todo:
        for at, item in enumerate(inside := todo.pop()):
            places.append((inside, at))
            if isinstance(item, list):
                todo.append(item)
    inside, at = rng.choice(places)
    match inside[at]:
        case bool() as flag:
            inside[at] = not flag
        case int() as number:
            inside[at] = rng.choice(
                [number + 1, number - 1, -1, 0, rng.randrange(2 * CLIENTS), 2**31, 2**64 - 1]
            )
        case bytes() as part:
            others = [b"", part[:-1], part + b"\0", part[::-1], part * 2, rng.randbytes(len(part))]
            inside[at] = rng.choice(others)
        case list() as items:
            inside[at] = rng.choice([items[1:], items[::-1], [*items, *items], items[:1] * 3, []])
        case _:
            inside[at] = rng.choice([0, b"", [], None, "nobody"])
    return encode(value)


# One session, and the lies in it


class Target:
    """A session whose parties have begun, its clean messages, and those of its siblings."""

    def __init__(self, protocol: Protocol, rng: random.Random) -> None:
        self.rng = rng
        vectors = addends(rng, LAYOUT, CLIENTS, edges=False)
        self.world = make_world(protocol, vectors, LAYOUT, min_cohort=MIN_COHORT)
        self.saved = {}
        for party in self.world.parties():
            party.start()
            self.saved[party.name] = party.save()
        self.clean = messages_of(run(self.world, None, self.resume()).transcript)
        self.foreign = list(messages_of(run(self._sibling()).transcript).values())
        # The same clients once more in this session, with other entropy: retries.
        self.retries: dict[Route, bytes] = {}
        for name in self.world.session.clients:
            for message in self.world.party(name).start():
                header = message.header
                self.retries[Route(name, header.recipient, header.step)] = encode(message)
        self.known = [*self.clean.values(), *self.foreign]
        # What a client's lies would add to the sum, in the ring.
        self.addends: dict[str, list[RingVector]] = {}
        self.shifts: list[RingVector] = []
        # Liars that make the sum anything at all, while they are in it.
        self.anything: set[str] = set()

    def resume(self) -> list[Any]:
        return [self.world.load(name, self.saved[name]) for name in self.world.names]

    def _sibling(self) -> World:
        nonce = new_nonce()
        enrolments = {
            name: enrolment.identity.enrol(enrolment.member.role, nonce)
            for name, enrolment in self.world.enrolments.items()
        }
        members = [enrolment.member for enrolment in enrolments.values()]
        terms = self.world.with_members(members, nonce=nonce)
        return World(self.world.protocol, terms, enrolments, self.world.vectors)

    # Outsiders: nothing here is signed by the one whom it names, for this place.

    def stray(self, route: Route) -> bytes:
        """What a carrier can make of the messages that it has seen."""
        rng, data = self.rng, self.clean[route]
        elsewhere = [other for at, other in self.clean.items() if at.recipient != route.recipient]
        match rng.randrange(8):
            case 0 | 1 | 2:
                return damaged(rng, data, self.known)
            case 3:
                return rng.choice(self.foreign)
            case 4:
                return rng.choice(elsewhere) if elsewhere else damaged(rng, data, self.known)
            case 5:
                parts = list(_parts(data))
                at = rng.randrange(3)
                parts[at] = damaged(rng, parts[at], self.known)
                return encode(Message(*parts))
            case 6:
                return self._too_long(data)
            case _:
                # One message's header, signature and body, in any mixture with another's.
                ours, theirs = _parts(data), _parts(rng.choice(self.known))
                mixed = [rng.choice(pair) for pair in zip(ours, theirs, strict=True)]
                spliced = encode(Message(*mixed))
                return spliced if spliced not in self.known else damaged(rng, data, self.known)

    def _too_long(self, data: bytes) -> bytes:
        """The message with a field that is much longer than any step allows, or claims to be."""
        rng = self.rng
        header, signature, body = _parts(data)
        much = rng.choice([2**12, 2**16, 2**20])
        fields = {name: getattr(decode(header, Header), name) for name in Header.__struct_fields__}
        claims = (
            {"batch": (bytes(32),) * (much // 32)},
            {"capsule": bytes(much)},
            {"sender": "n" * much},
        )
        match rng.randrange(4):
            case 0:
                longer = encode(tuple((fields | rng.choice(claims)).values()))
                return encode(Message(longer, signature, body))
            case 1:
                return encode(Message(header, signature, body + bytes(2**20)))
            case 2:
                return encode(Message(header, signature + bytes(much), body))
            case _:
                return data + bytes(much)

    # Insiders: members who sign and seal what they like.

    def lie(self, route: Route) -> bytes:
        """What the sender of this route says instead, under its own keys."""
        rng, world = self.rng, self.world
        enrolment = world.enrolments[route.sender]
        content = world.content(self.clean[route])
        if route in self.retries and rng.random() < 0.3:
            return self.retries[route]
        said = self._false_content(route, content)
        forged = world.forge(enrolment, route.recipient, route.step, said)
        changes: dict[str, Any] = {}
        if batch := decode(self.clean[route], Message).header.batch:
            # As if it were one of an upload of several shares.
            own = decode(self.clean[route], Message).header.digest
            listed = [forged.header.digest if digest == own else digest for digest in batch]
            if rng.random() < 0.3:
                rng.shuffle(listed)
            if rng.random() < 0.1:
                listed[rng.randrange(len(listed))] = rng.randbytes(rng.choice([0, 31, 32, 33]))
            changes["batch"] = tuple(listed)
        if rng.random() < 0.2:
            changes |= rng.choice(
                [
                    {"step": rng.choice([at.step for at in self.clean])},
                    {"digest": rng.randbytes(rng.choice([0, 16, 32, 33]))},
                    {"capsule": damaged(rng, forged.header.capsule, self.known)},
                    {"version": rng.randrange(3)},
                    {"sender": rng.choice(world.names)},
                    {"session": rng.randbytes(32)},
                    {"batch": tuple(rng.randbytes(32) for _ in range(rng.randrange(4)))},
                ]
            )
        self._note(route, content, said)
        return encode(resigned(enrolment, forged, **changes))

    def whole_lie(self, client: str) -> dict[str, bytes]:
        """A client's complete upload of invented shares, by recipient."""
        rng, world = self.rng, self.world
        routes = [route for route in self.clean if route.sender == client]
        if isinstance(world.protocol, EncryptedSum):
            return self._encrypted_lie(client)
        if not isinstance(world.protocol, Additive):
            return {}
        enrolment, session = world.enrolments[client], world.session
        addend = session.layout.embed(rng_vector(rng, session.layout))
        shares = [(routes[0], Share(session.layout.pack(addend), b""))]
        for route in routes[1:]:
            seed = rng.randbytes(32)
            shares.append((route, Share(b"", seed)))
            add_mask(addend, mask_key(session, seed, client, route.recipient))
        self.addends.setdefault(client, []).append(addend)
        contents = [
            (messages.open_channel(session, enrolment, at.recipient, rng.randbytes(32)), encode(s))
            for at, s in shares
        ]
        said = messages.seal_together(session, enrolment, routes[0].step, contents)
        return {message.header.recipient: encode(message) for message in said}

    def _encrypted_lie(self, client: str) -> dict[str, bytes]:
        """What a client says that encrypts and vouches for another vector than it has."""
        vector = rng_vector(self.rng, LAYOUT)
        party = self.world.party(client)
        party._take_vector = lambda secret: vector  # type: ignore[method-assign]
        party.start()
        (key,) = (d for at, d in self.clean.items() if (at.recipient, at.step) == (client, KEY))
        self.addends.setdefault(client, []).append(LAYOUT.embed(vector))
        said = party.receive(decode(key, Message))
        return {message.header.recipient: encode(message) for message in said}

    def _false_content(self, route: Route, content: bytes) -> bytes:
        rng = self.rng
        contents = [self.world.content(data) for data in self.clean.values()]
        match rng.randrange(6):
            case 0:
                return damaged(rng, content, contents)
            case 1:
                return rng.choice(contents)
            case 2:
                return rng.randbytes(rng.randint(0, 64))
            case 3 | 4:
                return bent(rng, content)
            case _:
                # Of the right type still: its byte strings are others, of their own length.
                parts = [part for part in byte_strings([content]) if part]
                if not parts:
                    return damaged(rng, content, contents)
                part = rng.choice(parts)
                return content.replace(part, rng.randbytes(len(part)))

    def _note(self, route: Route, content: bytes, said: bytes) -> None:
        """Note what a lie does to the sum, should it be taken."""
        name = self.world.protocol.name
        try:
            if name == Plain.name:
                vector = decode(said, ClearVector).vector
                self.addends.setdefault(route.sender, []).append(LAYOUT.unpack(vector))
            elif name == Pairwise.name and route.sender not in self.world.vectors:
                # Its own sum is what a server spoils: clients mask with those that it names.
                self.anything.add(route.sender)
            elif isinstance(self.world.protocol, EncryptedSum) and route.step in (KEY, TOTAL):
                # A bit of a first component may change: it shifts the sum, and no key shows in it.
                kinds: dict[str, Any] = {KEY: Key, TOTAL: Total}
                decode(said, kinds[route.step])
                self.anything.add(route.sender)
            elif name == Pairwise.name and route.step == pairwise.UPLOAD:
                LAYOUT.unpack(decode(said, pairwise.MaskedVector).vector)
                self.anything.add(route.sender)
            elif route.step == PARTIAL:
                lie, truth = (decode(data, Partial).vector for data in (said, content))
                self.shifts.append(LAYOUT.unpack(lie) - LAYOUT.unpack(truth))
        except (Malformed, Refused):
            pass

    # The oracle

    def explains(self, total: Integers, included: tuple[str, ...]) -> bool:
        """Whether this is the sum of what the included clients have said, lies among it.

        A lying aggregator's partial sum may shift it: by its lie, or by the shares of clients that
        it adds or leaves out against the set that it signed, which no run here brings about.
        """
        if self.anything & {*included, *self.world.protocol.coordinators()}:
            return True
        choices: list[RingVector] = [LAYOUT.embed(self.world.truth(included))]
        for name in included:
            honest = LAYOUT.embed(self.world.vectors[name])
            lies = self.addends.get(name, [])
            choices += [one - honest + lie for one in choices for lie in lies]
        choices += [one + shift for one in choices for shift in self.shifts]
        got = LAYOUT.embed(total)
        return any(np.array_equal(got, choice) for choice in choices)


def rng_vector(rng: random.Random, layout: Layout) -> Integers:
    """Any vector, bounds or not."""
    entries = [rng.randrange(-(2**31), 2**31) for _ in range(layout.length)]
    return np.array(entries, dtype=np.int64)


def _parts(data: bytes) -> tuple[bytes, bytes, bytes]:
    message = decode(data, Message)
    return message.header_bytes, message.signature, message.body


# One run


def strike_from_outside(target: Target, tally: Tally) -> None:
    """A carrier's corruptions: who they reach is known beforehand, and so is the sum."""
    rng = target.rng
    clients = target.world.session.clients
    lost = set(rng.sample(clients, rng.choice([0, 1, 1, 2, 4])))
    replaced = {rng.choice([r for r in target.clean if name in r[:2]]) for name in lost}
    between = [route for route in target.clean if not {*route[:2]} & {*clients}]
    silenced = bool(between) and rng.random() < 0.15
    if silenced:
        replaced.add(rng.choice(between))
    count = rng.randint(1, 4)
    made = 0

    def corrupt(data: bytes) -> bytes:
        nonlocal made
        made += 1
        return target.stray(_route(target, data))

    faults = [*_injections(target, count, corrupt, replaced)]
    outcome = run(target.world, FaultPlan(tuple(faults), shuffle=_maybe(rng)), target.resume())
    _count(tally, made, outcome.network, "outside")
    left_out = {n for r in replaced if r.step not in AFTER_UPLOADS for n in r[:2]}
    wanted = {*clients} - left_out
    # A sum by masks takes shares from a quorum; one lost client is what it promises to bear.
    enough = len(lost) <= 1 or target.world.protocol.name != Pairwise.name
    if len(wanted) < MIN_COHORT or silenced:
        assert outcome.total is None, "a sum without a cohort, or without a coordinator"
        _outcome(tally, "outside", outcome.error)
    elif outcome.total is None and not enough:
        _outcome(tally, "outside", outcome.error)
    else:
        assert set(outcome.included) == wanted, (outcome.included, wanted)
        tally.outcomes["outside: exact sum of all others"] += 1
    assert len(outcome.network.rejections) >= made, "a corrupted message was taken"


def strike_from_inside(target: Target, tally: Tally) -> None:
    """Members' lies, in place of what they should say or beside it."""
    rng = target.rng
    target.addends.clear()
    target.shifts.clear()
    target.anything.clear()
    clients = target.world.session.clients
    liars = set(rng.sample(target.world.names, rng.choice([1, 1, 2, 3])))
    whole = {n: target.whole_lie(n) for n in liars & set(clients) if rng.random() < 0.5}
    silent = {name for name in liars if rng.random() < 0.5}
    replaced = {r for r in target.clean if r.sender in silent and rng.random() < 0.7}
    made = 0

    def lie(data: bytes) -> bytes:
        nonlocal made
        made += 1
        route = _route(target, data)
        if route.recipient in whole.get(route.sender, {}) and rng.random() < 0.7:
            return whole[route.sender][route.recipient]
        return target.lie(route)

    count = rng.randint(1, 3)
    faults = [*_injections(target, count, lie, replaced, liars)]
    plan = FaultPlan(tuple(faults), shuffle=_maybe(rng), reload=rng.random() < 0.1)
    outcome = run(target.world, plan, target.resume(), exact=False)
    _count(tally, made, outcome.network, "inside")
    if outcome.total is None:
        _outcome(tally, "inside", outcome.error)
        return
    assert target.explains(outcome.total.total, outcome.included), "a wrong sum"
    left = len(clients) - len(outcome.included)
    tally.outcomes[f"inside: a sum without {left} of {len(clients)}"] += 1


def _injections(
    target: Target,
    count: int,
    corrupt: Damage,
    replaced: set[Route],
    senders: set[str] | None = None,
) -> Iterator[Fault]:
    """Faults that put `count` corrupted messages before each true one, or in its place."""
    for route in target.clean:
        if senders is not None and route.sender not in senders:
            continue
        extra = count if route not in replaced else count - 1
        truth: list[bytes] = []

        def keep(data: bytes, truth: list[bytes] = truth) -> bytes:
            truth[:] = [data]
            return corrupt(data)

        def again(_: bytes, truth: list[bytes] = truth) -> bytes:
            return corrupt(truth[0])

        def honest(_: bytes, truth: list[bytes] = truth) -> bytes:
            return truth[0]

        yield Fault("tamper", *route, keep)
        for number in range(extra):
            yield Fault("duplicate", *route)
            last = number == extra - 1
            yield Fault("tamper", *route, honest if last and route not in replaced else again)


def _route(target: Target, data: bytes) -> Route:
    header = decode(data, Message).header
    return Route(header.sender, header.recipient, header.step)


def _maybe(rng: random.Random) -> int | None:
    return rng.randrange(2**32) if rng.random() < 0.5 else None


def _count(tally: Tally, made: int, network: Network, who: str) -> None:
    tally.messages += made
    tally.runs += 1
    for rejection in network.rejections:
        tally.outcomes[f"{who}: refused, {type(rejection.error).__name__}"] += 1


def _outcome(tally: Tally, who: str, error: SessionAborted | None) -> None:
    tally.outcomes[f"{who}: session ended, {type(error).__name__}"] += 1


def fuzz_protocol(
    protocol: Protocol, count: int, seed: int, *, until: float = float("inf"), guard: bool = False
) -> Tally:
    """At least `count` corrupted messages, or as many as there is time for."""
    rng = random.Random(f"{seed} {protocol}")
    tally, memory = Tally(), Memory()
    while tally.messages < count and time.monotonic() < until:
        target = Target(protocol, rng)
        for number in range(RUNS_PER_SESSION):
            if guard:
                faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
            (strike_from_outside if number % 2 else strike_from_inside)(target, tally)
            memory.check()
            if tally.messages >= count:
                break
    if guard:
        faulthandler.cancel_dump_traceback_later()
    return tally


# The codec


def wire_kinds() -> list[Any]:
    """Every type that is ever decoded: all structs of the wire, and the unions of states."""
    kinds: list[Any] = []
    todo: list[Any] = [Wire]
    while todo:
        for kind in todo.pop().__subclasses__():
            todo.append(kind)
            if kind.__module__.startswith("protocols."):
                kinds.append(kind)
    kinds = [kind for kind in kinds if not getattr(kind, "__abstractmethods__", None)]
    unions = {party.states for world in PROTOCOLS for party in _party_types(world)}
    assert all(len(get_args(union)) > 1 for union in unions)
    return [*kinds, *unions, tuple[bytes, str, bytes]]


def _party_types(protocol: Protocol) -> set[Any]:
    return set(protocol.parties().values())


def samples(rng: random.Random) -> list[bytes]:
    """Canonical encodings of all sorts: messages, headers, contents, states, sessions."""
    found: list[bytes] = []
    for protocol in PROTOCOLS:
        target = Target(protocol, rng)
        outcome = run(target.world, None, target.resume())
        session = target.world.session
        found += [encode(session.header), session.thin, encode(session.roster.lines[0])]
        found += [encode(session.layout), encode(session.layout.blocks[0])]
        enrolment = target.world.enrolments[session.clients[0]]
        release = sign_release(
            session, enrolment.identity, rng_vector(rng, LAYOUT), session.clients
        )
        found += [encode(protocol), encode(enrolment.member), enrolment.save(), encode(release)]
        for data in target.clean.values():
            found += [data, decode(data, Message).header_bytes, target.world.content(data)]
        for record in outcome.transcript.values():
            states = [decode(held[32:], tuple[bytes, str, bytes])[2] for held in record.held]
            found += [record.held[-1][32:], *states]
    return sorted(set(found), key=len)


def fuzz_codec(count: int, seed: int, *, until: float = float("inf"), guard: bool = False) -> Tally:
    """Bytes for every wire type: refused, or a value that encodes to those very bytes."""
    rng = random.Random(f"{seed} codec")
    kinds, known, tally = wire_kinds(), samples(rng), Tally()
    memory = Memory()
    # What a kind takes is damaged for it more often than what it would refuse anyway.
    own = {kind: [data for data in known if _decodes(data, kind)] for kind in kinds}
    while tally.messages < count and time.monotonic() < until:
        if guard:
            faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        kind: Any = rng.choice(kinds)
        data = rng.choice(own[kind] or known) if rng.random() < 0.8 else rng.choice(known)
        data = damaged(rng, data, known) if rng.random() < 0.9 else data
        tally.messages += 1
        tally.runs += 1
        tally.outcomes["codec: decoded" if _decodes(data, kind) else "codec: refused"] += 1
        memory.check()
    if guard:
        faulthandler.cancel_dump_traceback_later()
    return tally


def fuzz_sessions(
    count: int, seed: int, *, until: float = float("inf"), guard: bool = False
) -> Tally:
    """Headers and lists of parties that somebody sent: refused, or another session's."""
    rng = random.Random(f"{seed} sessions")
    tally, memory = Tally(), Memory()
    while tally.messages < count and time.monotonic() < until:
        target = Target(rng.choice(PROTOCOLS[:4]), rng)
        session = target.world.session
        header, thin = encode(session.header), session.thin
        known = [header, thin, *target.known]
        for _ in range(min(500, count - tally.messages)):
            if guard:
                faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
            sent, listed = header, thin
            if rng.random() < 0.7:
                sent = bent(rng, header) if rng.random() < 0.7 else damaged(rng, header, known)
            else:
                listed = bent(rng, thin) if rng.random() < 0.5 else damaged(rng, thin, known)
            other = Roster.of(session.roster.lines, 1)
            pinned = rng.choice([session.roster, other, None])
            members = rng.choice([session.members, None])
            tally.messages += 1
            tally.runs += 1
            try:
                read = Session.read(sent, pinned, thin=listed, members=members)
            except (MessageRejected, Refused) as error:
                tally.outcomes[f"sessions: refused, {type(error).__name__}"] += 1
            else:
                same = read.id == session.id
                assert same == (sent == header), "two headers of one id"
                assert not same or pinned is session.roster or listed == thin
                tally.outcomes[f"sessions: {'the same' if same else 'another'}"] += 1
            memory.check()
    if guard:
        faulthandler.cancel_dump_traceback_later()
    return tally


def _decodes(data: bytes, kind: Any) -> bool:
    """Whether these bytes are a value; raises for anything but a typed error."""
    try:
        value: Any = decode(data, kind)
    except (Malformed, Refused):
        return False
    assert encode(value) == data, "two encodings of one value"
    return True


def main() -> None:
    """All protocols, then codec and sessions; prints what became of the messages."""
    parser = argparse.ArgumentParser(description="Fuzz the protocols and their codec.")
    parser.add_argument("--messages", type=int, default=100_000, help="for each protocol")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="for each part")
    options = parser.parse_args()
    parts: dict[str, Callable[[float], Tally]] = {
        str(protocol): lambda until, protocol=protocol: fuzz_protocol(  # type: ignore[misc]
            protocol, options.messages, options.seed, until=until, guard=True
        )
        for protocol in PROTOCOLS
    }
    parts["codec"] = lambda until: fuzz_codec(
        options.messages, options.seed, until=until, guard=True
    )
    parts["sessions"] = lambda until: fuzz_sessions(
        options.messages, options.seed, until=until, guard=True
    )
    for name, part in parts.items():
        begin = time.monotonic()
        tally = part(begin + 60 * options.minutes)
        sys.stdout.write(f"{name}: {tally}\n  in {time.monotonic() - begin:.1f} s\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
