"""The suite that every protocol has to pass.

    class TestPlain(ProtocolSuite):
        protocol = Plain()

It relies on the public contract only. The steps of a protocol are read off a clean recorded run,
and every fault comes from the network or from a hostile party, never from patched internals.
"""

import base64
import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
import rich.pretty
from hypothesis import assume
from hypothesis import strategies as st

from protocols import (
    Block,
    Enrolment,
    Fault,
    FaultPlan,
    Identity,
    Layout,
    Member,
    Party,
    Protocol,
    new_nonce,
)
from protocols.codec import decode, encode
from protocols.errors import (
    BadKey,
    BadSavedState,
    BadSeal,
    BadSignature,
    BelowThreshold,
    InvalidSession,
    InvalidVector,
    Malformed,
    MessageRejected,
    ProtocolError,
    Replayed,
    SessionMismatch,
    UnexpectedStep,
    UnknownSender,
    WouldOverflow,
    WrongRecipient,
)
from protocols.layout import RING_BITS, Integers
from protocols.message import MAX_OVERHEAD_BYTES, Message
from protocols.release import commit, release_salt
from protocols.roster import CLIENT
from tests.kit.worlds import (
    Outcome,
    Route,
    World,
    addends,
    byte_strings,
    damage_inside,
    for_all,
    layouts,
    make_world,
    messages_of,
    mutations,
    resigned,
    run,
    with_header,
)

Seeds = st.integers(0, 2**32 - 1)


class ProtocolSuite:
    """Subclass it, and set `protocol`.

    Attributes:
        protocol: what is tested.
        clients, min_cohort, corrupt: of the sessions.
        max_length: entries of a vector, about.
        ring_widths: those that the protocol supports.
        examples: of each property; fewer for slow protocols.
        max_routes: the most messages of a run that a test damages one by one.
        robust: one lost or refused message of a client costs at most that client's part.
        vanish_steps: steps at which clients may vanish; by default all that a client sends.
    """

    protocol: ClassVar[Protocol]
    clients: ClassVar[int] = 5
    min_cohort: ClassVar[int] = 3
    corrupt: ClassVar[int] = 1
    max_length: ClassVar[int] = 12
    ring_widths: ClassVar[tuple[int, ...]] = RING_BITS
    examples: ClassVar[int] = 12
    max_routes: ClassVar[int] = 12
    robust: ClassVar[bool] = True
    vanish_steps: ClassVar[tuple[str, ...] | None] = None

    def survives(self, vanish: dict[str, str]) -> bool:
        """Whether there must be a sum although these clients vanish at these steps."""
        return len(vanish) <= self.clients - self.min_cohort

    # Worlds

    def world(self, layout: Layout | None = None, *, seed: int = 0, edges: bool = False) -> World:
        """A session whose clients hold random vectors."""
        layout = layout or Layout((Block("signed", 4, -(2**30), 2**30), Block("count", 2, 0, 2**9)))
        vectors = addends(random.Random(seed), layout, self.clients, edges=edges)
        return self.world_of(layout, vectors)

    def world_of(self, layout: Layout, vectors: list[Integers]) -> World:
        return make_world(
            self.protocol, vectors, layout, min_cohort=self.min_cohort, corrupt=self.corrupt
        )

    @pytest.fixture
    def started(self) -> "Started":
        return Started(self.world())

    def client_steps(self, clean: "Clean") -> list[str]:
        """The steps that clients send, in order."""
        if self.vanish_steps is not None:
            return list(self.vanish_steps)
        return list(dict.fromkeys(r.step for r in clean.messages if r.sender in clean.clients))

    def sample(self, routes: Iterable[Route], *, seed: int = 0) -> list[Route]:
        routes = list(routes)
        return random.Random(seed).sample(routes, min(self.max_routes, len(routes)))

    # The oracle

    def test_sum_is_exact_for_every_ring(self) -> None:
        for bits in self.ring_widths:

            @for_all(
                max(2, self.examples // 2),
                layout=layouts(bits, self.max_length),
                seed=Seeds,
                edges=st.booleans(),
                shuffle=st.none() | Seeds,
            )
            def check(layout: Layout, seed: int, edges: bool, shuffle: int | None) -> None:
                world = self.world(layout, seed=seed, edges=edges)
                assert layout.ring_bits in self.ring_widths
                outcome = run(world, FaultPlan(shuffle=shuffle))
                assert outcome.included == tuple(sorted(world.session.clients))
                assert not outcome.network.rejections

    def test_sum_does_not_depend_on_who_holds_which_row(self) -> None:
        @for_all(self.examples // 2, seed=Seeds, rows=st.integers(0, 40))
        def check(seed: int, rows: int) -> None:
            rng = np.random.default_rng(seed)
            pool = rng.integers(-1000, 1001, size=(rows, self.max_length), dtype=np.int64)
            bound = 1000 * max(rows, 1)
            layout = Layout((Block("rows", self.max_length, -bound, bound),))
            for _ in range(2):
                owner = rng.integers(0, self.clients, size=rows)
                vectors = [pool[owner == client].sum(axis=0) for client in range(self.clients)]
                total = run(self.world_of(layout, vectors)).total
                assert total is not None
                assert np.array_equal(total.total, pool.sum(axis=0))

    def test_sum_is_exact_for_whoever_remains(self) -> None:
        world = self.world()
        steps = self.client_steps(Clean(world))
        vanishings = st.dictionaries(
            st.sampled_from(world.session.clients), st.sampled_from(steps), max_size=self.clients
        )

        @for_all(
            self.examples,
            bits=st.sampled_from(self.ring_widths),
            data=st.data(),
            seed=Seeds,
            vanish=vanishings,
            shuffle=st.none() | Seeds,
        )
        def check(
            bits: int, data: st.DataObject, seed: int, vanish: dict[str, str], shuffle: int | None
        ) -> None:
            layout = data.draw(layouts(bits, self.max_length, through_zero=True))
            world = self.world(layout, seed=seed)
            outcome = run(world, FaultPlan(vanish=vanish, shuffle=shuffle))
            early = {name for name, step in vanish.items() if step == steps[0]}
            if self.survives(vanish):
                assert not early & set(outcome.included)
                assert {*world.session.clients} - {*vanish} <= {*outcome.included}
            if len(early) > self.clients - self.min_cohort:
                assert isinstance(outcome.error, BelowThreshold)

    def test_below_the_minimum_cohort_nothing_is_released(self) -> None:
        world = self.world()
        first = self.client_steps(Clean(world))[0]
        for lost in range(self.clients - self.min_cohort, self.clients + 1):
            vanish = dict.fromkeys(world.session.clients[:lost], first)
            outcome = run(world, FaultPlan(vanish=vanish))
            if lost == self.clients - self.min_cohort:
                assert outcome.included == tuple(sorted(world.session.clients[lost:]))
            else:
                assert isinstance(outcome.error, BelowThreshold)
                assert not isinstance(outcome.error, MessageRejected)

    def test_an_aborted_session_stays_aborted(self) -> None:
        world = self.world()
        clean = Clean(world)
        first = self.client_steps(clean)[0]
        parties = world.parties()
        outcome = run(world, FaultPlan(vanish=dict.fromkeys(world.session.clients, first)), parties)
        assert outcome.error is not None
        for party in parties:
            if party.name not in outcome.network.aborts:
                continue
            before = party.save()
            for route, data in clean.messages.items():
                if route.recipient == party.name:
                    with pytest.raises(MessageRejected):
                        party.receive(decode(data, Message))
                assert party.deadline(route.step) == []
            assert party.start() == []
            assert party.save() == before
            assert party.result is None
            assert party.awaits is None

    def test_a_vanished_coordinator_costs_at_most_the_sum(self) -> None:
        world = self.world()
        for route in Clean(world).messages:
            if route.sender not in world.session.clients:
                run(world, FaultPlan(vanish={route.sender: route.step}))

    # Restarts

    def test_reloading_between_messages_changes_no_byte(self, started: "Started") -> None:
        clients = started.world.session.clients
        steps = self.client_steps(Clean(started.world))

        @for_all(
            self.examples,
            vanish=st.dictionaries(st.sampled_from(clients), st.sampled_from(steps), max_size=2),
            shuffle=st.none() | Seeds,
            action=st.sampled_from(["delay", "duplicate", "lose"]),
            struck=st.none() | st.sampled_from(clients),
        )
        def check(
            vanish: dict[str, str], shuffle: int | None, action: Any, struck: str | None
        ) -> None:
            faults = (Fault(action, sender=struck),) if struck else ()
            kept, reloaded = (
                started.run(FaultPlan(faults, vanish, reload=reload, shuffle=shuffle))
                for reload in (False, True)
            )
            assert kept.transcript.keys() == reloaded.transcript.keys()
            for name, record in kept.transcript.items():
                assert record.sent == reloaded.transcript[name].sent, name
                assert record.received == reloaded.transcript[name].received, name
                assert record.held == reloaded.transcript[name].held, name
            assert (kept.total is None) == (reloaded.total is None)

    def test_a_party_repeats_its_bytes(self, started: "Started") -> None:
        fresh = started.world.parties()
        outcome = started.run(parties := started.resume())
        finished = parties
        assert outcome.total is not None
        begun = started.resume()
        for party in (*fresh, *begun, *finished):
            said = [encode(message) for message in party.start()]
            before = party.save()
            again: list[Callable[[], list[Message]]] = [
                party.start,
                party.pending,
                party.reload().pending,
                party.reload().start,
                started.world.load(party.name, before).pending,
            ]
            for say in again:
                assert [encode(message) for message in say()] == said
            assert party.save() == before
            assert party.reload().save() == before

    def test_parties_draw_their_entropy_once(self) -> None:
        world = self.world()
        for name, enrolment in world.enrolments.items():
            draws: list[int] = []

            def entropy(length: int, draws: list[int] = draws) -> bytes:
                draws.append(length)
                return bytes(range(length))

            party = (
                self.protocol.client(
                    world.as_client(),
                    enrolment,
                    lambda _, name=name: world.vectors[name],  # type: ignore[misc]
                    entropy=entropy,
                )
                if name in world.vectors
                else self.protocol.coordinator(world.session, enrolment, entropy=entropy)
            )
            assert draws == []
            party.start()
            assert draws == [32]
            party.start()
            party.pending()
            assert draws == [32]

    def test_a_restarted_client_never_says_something_else(self, started: "Started") -> None:
        """Data may change between a crash and the restart; two contents on one key add up."""
        world = started.world
        changed = {name: np.zeros_like(vector) for name, vector in world.vectors.items()}
        after = replace(world, vectors=changed)
        for name in world.session.clients:
            said = [encode(message) for message in world.load(name, started.saved[name]).pending()]
            try:
                now = [encode(m) for m in after.load(name, started.saved[name]).pending()]
            except ProtocolError:
                continue
            assert now == said

    def test_deadlines_of_other_steps_are_ignored(self, started: "Started") -> None:
        steps = {route.step for route in started.clean.messages} | {"", "no such step"}
        finished = started.resume()
        started.run(finished)
        for party in (*started.world.parties(), *started.resume(), *finished):
            before, result = party.save(), party.result
            for step in steps - {party.awaits}:
                assert party.deadline(step) == []
                assert party.save() == before
                assert party.result is result

    # The carrier

    @pytest.mark.parametrize("action", ["lose", "delay", "duplicate"])
    def test_every_single_message_may_go_astray(self, started: "Started", action: Any) -> None:
        for route in self.sample(started.clean.messages):
            outcome = started.run(FaultPlan((Fault(action, *route),)))
            if action == "duplicate":
                assert outcome.included == started.clean.included
                refused = outcome.rejections_at(route.recipient)
                assert len(refused) == 1
                assert isinstance(refused[0], (Replayed, UnexpectedStep))
            else:
                self.excludes(started, outcome, route)

    def test_all_messages_twice_change_nothing(self, started: "Started") -> None:
        outcome = started.run(FaultPlan((Fault("duplicate"),)))
        assert outcome.included == started.clean.included
        assert len(outcome.network.rejections) == len(started.clean.messages)

    def test_a_tampered_message_is_refused(self, started: "Started") -> None:
        @for_all(
            5 * self.examples,
            route=st.sampled_from(list(started.clean.messages)),
            damage=mutations(),
        )
        def check(route: Route, damage: Callable[[bytes], bytes]) -> None:
            self.refuses(started, route, damage)

    def test_a_field_of_a_message_is_refused_when_tampered_with(self, started: "Started") -> None:
        """Damage that survives the outer decoding: to header, signature or body alone."""

        @for_all(
            3 * self.examples,
            route=st.sampled_from(list(started.clean.messages)),
            field=st.integers(0, 2),
            damage=mutations(),
        )
        def check(route: Route, field: int, damage: Callable[[bytes], bytes]) -> None:
            def tamper(data: bytes) -> bytes:
                message = decode(data, Message)
                parts = [message.header_bytes, message.signature, message.body]
                parts[field] = damage(parts[field])
                return encode(Message(*parts))

            self.refuses(started, route, tamper)

    def test_a_field_of_a_header_is_refused_when_changed(self, started: "Started") -> None:
        for route in self.sample(started.clean.messages):
            header = decode(started.clean.messages[route], Message).header
            for change in (
                {"version": header.version + 1},
                {"session": bytes(32)},
                {"sender": "nobody"},
                {"sender": next(n for n in started.world.names if n != route.sender)},
                {"recipient": next(n for n in started.world.names if n != route.recipient)},
                {"recipient": ""},
                {"step": route.step + "x"},
                {"capsule": b""},
                {"capsule": bytes(len(header.capsule))},
                {"digest": b""},
                {"digest": bytes(32)},
                {"digest": header.digest + b"\0"},
                {"batch": (*header.batch, header.digest)},
            ):

                def tamper(data: bytes, change: dict[str, Any] = change) -> bytes:
                    return encode(with_header(decode(data, Message), **change))

                self.refuses(started, route, tamper)

    def test_parts_of_two_messages_do_not_make_a_third(self, started: "Started") -> None:
        """Header of one with body or signature of another; and one message in another's place."""
        for route in self.sample(started.clean.messages):
            for other in self.sample(started.clean.messages, seed=1)[: self.max_routes // 2]:
                if route == other:
                    continue
                one, two = (
                    decode(started.clean.messages[chosen], Message) for chosen in (route, other)
                )
                for splice in (
                    Message(one.header_bytes, one.signature, two.body),
                    Message(one.header_bytes, two.signature, one.body),
                    Message(two.header_bytes, one.signature, one.body),
                    Message(two.header_bytes, two.signature, one.body),
                    Message(two.header_bytes, one.signature, two.body),
                ):
                    self.refuses(started, route, lambda _, splice=splice: encode(splice))  # type: ignore[misc]
                outcome = started.run(
                    FaultPlan((Fault("tamper", *route, lambda _, two=two: encode(two)),))  # type: ignore[misc]
                )
                assert outcome.network.rejections or outcome.error is not None

    def refuses(self, started: "Started", route: Route, tamper: Callable[[bytes], bytes]) -> None:
        """One run with the message of this route tampered with."""
        outcome = started.run(FaultPlan((Fault("tamper", *route, tamper),)))
        refused = outcome.rejections_at(route.recipient)
        assert refused, f"tampered message on {route} was accepted"
        self.excludes(started, outcome, route)

    def excludes(self, started: "Started", outcome: Outcome, route: Route) -> None:
        """A client whose first message did not arrive is not in the sum."""
        if route.step != self.client_steps(started.clean)[0]:
            return
        if self.robust or outcome.total is not None:
            assert route.sender not in outcome.included

    def test_any_bytes_are_refused(self, started: "Started") -> None:
        @for_all(
            2 * self.examples,
            route=st.sampled_from(list(started.clean.messages)),
            noise=st.binary(max_size=300),
        )
        def check(route: Route, noise: bytes) -> None:
            outcome = started.run(FaultPlan((Fault("tamper", *route, lambda _: noise),)))
            assert any(isinstance(e, Malformed) for e in outcome.rejections_at(route.recipient))

    # Other sessions

    def test_messages_of_another_session_are_refused(self, started: "Started") -> None:
        world = started.world
        nonce = new_nonce()
        enrolments = {
            name: enrolment.identity.enrol(enrolment.member.role, nonce)
            for name, enrolment in world.enrolments.items()
        }
        members = tuple(enrolment.member for enrolment in enrolments.values())
        again = world.with_members(members, nonce=nonce)
        elsewhere = world.with_terms(context=b"c" * 32)
        for session, keys in ((again, enrolments), (elsewhere, world.enrolments)):
            other = Clean(World(self.protocol, session, keys, world.vectors))
            assert other.messages.keys() == started.clean.messages.keys()
            for route in self.sample(started.clean.messages):
                foreign = other.messages[route]
                outcome = started.run(
                    FaultPlan((Fault("tamper", *route, lambda _, foreign=foreign: foreign),))  # type: ignore[misc]
                )
                refused = outcome.rejections_at(route.recipient)
                assert any(isinstance(error, SessionMismatch) for error in refused)
                self.excludes(started, outcome, route)
                # The foreign header with this session's id, and so its own signature or none.
                claimed = encode(with_header(decode(foreign, Message), session=world.session.id))
                self.refuses(started, route, lambda _, claimed=claimed: claimed)  # type: ignore[misc]

    def test_other_terms_fail_at_the_first_message(self) -> None:
        world = self.world()
        wider = Layout((*world.session.layout.blocks, Block("more", 1, 0, 1)))
        first, *others = world.session.layout.blocks
        renamed = Layout((Block("other", first.length, first.low, first.high), *others))
        rescaled = Layout((Block(first.name, first.length, first.low, first.high, 0.5), *others))
        wide = msgspec.structs.replace(first, most=first.high + 1)
        odd = world.session.clients[0]
        mine = world.vectors[odd]
        clean = Clean(world)
        for terms in (
            {"layout": wider},
            {"layout": renamed},
            {"layout": rescaled},
            {"layout": Layout((wide, *others))},
            {"min_cohort": self.min_cohort + 1},
            {"corrupt": self.corrupt - 1},
            {"context": b"x" * 32},
            {"round": 2},
            {"attempt": 1, "void": b"v" * 32},
            {"same_set": world.session.bits(world.session.clients)},
            {"enrolments": b"e" * 32},
        ):
            session = world.as_client(**terms)
            extended = np.concatenate([mine, [0]]) if session.layout == wider else mine
            vectors = world.vectors | {odd: extended}
            stranger = replace(world.under(session), vectors=vectors).party(odd)
            # What the stranger says takes the place of what it would say under these terms.
            said = {message.header.recipient: encode(message) for message in stranger.start()}
            if not said:  # a client that is spoken to first
                heard = [data for route, data in clean.messages.items() if route.recipient == odd]
                assert heard
                for data in heard:
                    with pytest.raises(SessionMismatch):
                        stranger.receive(decode(data, Message))
                continue
            fault = Fault(
                "tamper",
                sender=odd,
                tamper=lambda data, said=said: said.get(_recipient(data), data),  # type: ignore[misc]
            )
            outcome = run(world, FaultPlan((fault,)))
            refused = [r.error for r in outcome.network.rejections if r.recipient in said]
            assert refused
            assert isinstance(refused[0], SessionMismatch)
            assert odd not in outcome.included

    def test_sessions_of_another_protocol_are_refused(self) -> None:
        world = self.world()
        client = world.session.clients[0]
        coordinator = next(iter(self.protocol.coordinators()))
        few = [member for member in world.members if member.name != coordinator]
        role = self.protocol.coordinators()[coordinator]
        extra = Identity.generate("extra").enrol(role, world.session.nonce).member
        for session in (
            world.with_terms(protocol=self.protocol.name + "x"),
            world.with_terms(parameters=world.session.parameters + b"\0"),
            world.with_members([*world.members, extra]),
        ):
            for name in (client, coordinator):
                with pytest.raises(InvalidSession):
                    world.party(name, session)
        with pytest.raises(InvalidSession):
            world.party(client, world.with_members(few))

    def test_a_party_plays_the_role_that_the_roster_gives_it(self) -> None:
        world = self.world()
        client = world.session.clients[0]
        for name in self.protocol.coordinators():
            with pytest.raises(ProtocolError):
                self.protocol.client(
                    world.session, world.enrolments[name], lambda _: world.vectors[client]
                )
        with pytest.raises(ProtocolError):
            self.protocol.coordinator(world.session, world.enrolments[client])

    def test_a_party_refuses_enrolments_with_other_keys_of_its_own(self) -> None:
        """A substituted sealing key, even one that carries a valid endorsement."""
        world = self.world()
        vector = world.vectors[world.session.clients[0]]
        for name in world.names:
            session = world.with_members(self.twins(world, name))
            enrolment = world.enrolments[name]
            make: Callable[[], Party] = partial(self.protocol.coordinator, session, enrolment)
            if enrolment.member.role == CLIENT:
                make = partial(self.protocol.client, session, enrolment, lambda _: vector)
            with pytest.raises(InvalidSession, match=name):
                make()

    def test_a_client_opens_nothing_that_was_sealed_to_other_keys_of_its_own(self) -> None:
        """A client sees a hash of the enrolments; what was sealed to others tells it."""
        world = self.world()
        name = world.session.clients[0]
        session = world.with_members(self.twins(world, name))
        spoken_to = any(route.recipient == name for route in Clean(world).messages)
        outcome = run(world.under(session))
        refused = outcome.rejections_at(name)
        assert bool(refused) == spoken_to
        assert all(isinstance(error, BadSeal) for error in refused)
        if spoken_to and outcome.total is not None:
            assert name not in outcome.included

    def twins(self, world: World, name: str) -> list[Member]:
        """All enrolments, of which this party's has another sealing key."""
        mine = world.enrolments[name]
        twin = mine.identity.enrol(mine.member.role, world.session.nonce).member
        return [twin if member.name == name else member for member in world.members]

    # Hostile parties

    def test_steps_are_taken_only_from_those_who_may_send_them(self, started: "Started") -> None:
        world, clean = started.world, started.clean
        role = {member.name: member.role for member in world.members}
        lawful = {(role[r.sender], role[r.recipient], r.step) for r in clean.messages}
        content = {r.step: world.content(data) for r, data in clean.messages.items()}
        tried = 0
        for party in started.resume():
            before = party.save()
            for sender in world.names:
                for step, said in content.items():
                    if (role[sender], role[party.name], step) in lawful:
                        continue
                    forged = world.forge(world.enrolments[sender], party.name, step, said)
                    with pytest.raises((UnknownSender, UnexpectedStep)):
                        party.receive(forged)
                    tried += 1
            assert party.save() == before
        assert tried

    def test_strangers_and_impostors_are_refused(self, started: "Started") -> None:
        world = started.world
        role = world.members[0].role
        stranger = Identity.generate("stranger").enrol(role, world.session.nonce)
        for route, data in started.clean.messages.items():
            (party,) = (p for p in started.resume() if p.name == route.recipient)
            before = party.save()
            content = world.content(data)
            impostor = Identity.generate(route.sender).enrol(role, world.session.nonce)
            colleague = next(n for n in world.names if n != route.sender)
            insider = world.enrolments[colleague]
            for enrolment, claimed, wanted in (
                (stranger, "", UnknownSender),
                (impostor, "", BadSignature),
                (stranger, route.sender, BadSignature),
                (insider, route.sender, BadSignature),
            ):
                forged = world.forge(enrolment, party.name, route.step, content, name=claimed)
                with pytest.raises(wanted) as caught:
                    party.receive(forged)
                assert caught.value.party == route.recipient
            assert party.save() == before

    def test_messages_to_others_are_refused(self, started: "Started") -> None:
        for party in started.resume():
            before = party.save()
            for route in self.sample(started.clean.messages):
                if route.recipient != party.name:
                    with pytest.raises(WrongRecipient, match=party.name):
                        party.receive(decode(started.clean.messages[route], Message))
            assert party.save() == before

    def test_messages_before_the_start_are_refused(self, started: "Started") -> None:
        for route in self.sample(started.clean.messages):
            party = started.world.party(route.recipient)
            before = party.save()
            with pytest.raises(MessageRejected):
                party.receive(decode(started.clean.messages[route], Message))
            assert party.save() == before
            assert party.result is None

    def test_an_insider_who_sends_anything_breaks_nothing(self, started: "Started") -> None:
        """A party of the roster that signs and seals damaged or arbitrary content."""
        world = started.world

        @for_all(
            4 * self.examples,
            route=st.sampled_from(list(started.clean.messages)),
            damage=mutations(),
            kind=st.sampled_from(["whole", "inside", "inside", "noise"]),
            noise=st.binary(max_size=64),
        )
        def check(route: Route, damage: Callable[[bytes], bytes], kind: str, noise: bytes) -> None:
            said = world.content(started.clean.messages[route])
            inside = damage_inside(said, damage)
            lie = {"whole": damage(said), "inside": inside, "noise": noise}[kind]
            forged = world.forge(world.enrolments[route.sender], route.recipient, route.step, lie)
            fault = Fault("tamper", *route, lambda _: encode(forged))
            # Whatever it says, the run ends with a sum over a cohort or with a typed abort.
            run(world, FaultPlan((fault,)), started.resume(), exact=False)

    def test_an_insider_cannot_leave_content_outside_the_signature(
        self, started: "Started"
    ) -> None:
        """A header without a whole digest of the body, or with that of another body."""
        world = started.world
        for route in self.sample(started.clean.messages):
            enrolment = world.enrolments[route.sender]
            content = world.content(started.clean.messages[route])
            whole = world.forge(enrolment, route.recipient, route.step, content)
            other = world.forge(enrolment, route.recipient, route.step, content + b"\0")
            (party,) = (p for p in started.resume() if p.name == route.recipient)
            before = party.save()
            for kept in (0, 16, 31):
                short = resigned(enrolment, whole, digest=whole.header.digest[:kept])
                with pytest.raises(Malformed, match="digest"):
                    party.receive(short)
            for body in (other.body, whole.body[:-1]):
                with pytest.raises(BadSeal):
                    party.receive(Message(whole.header_bytes, whole.signature, body))
            assert party.save() == before

    def test_a_content_longer_than_its_step_allows_is_not_opened(self, started: "Started") -> None:
        """Bounds hold before a signature is verified, and before anything is decoded."""
        world = started.world
        for route in self.sample(started.clean.messages):
            (party,) = (p for p in started.resume() if p.name == route.recipient)
            enrolment, before = world.enrolments[route.sender], party.save()
            most = party.steps[route.step].most(world.session)
            widest = max(step.most(world.session) for step in party.steps.values())
            for length in (most + 1, 2 * most):
                forged = world.forge(enrolment, party.name, route.step, bytes(length))
                unsigned = Message(forged.header_bytes, bytes(64), forged.body)
                for message in (forged, unsigned):
                    with pytest.raises(Malformed, match=rf"allowed: ≤ {most + 16}$"):
                        party.receive(message)
            # What is as long as it may be is opened, and refused for what it says.
            fitting = world.forge(enrolment, party.name, route.step, bytes(most))
            with pytest.raises(Malformed, match="not "):
                party.receive(fitting)
            with pytest.raises(Malformed, match=r"bytes, allowed: ≤ \d+$"):
                party.take(bytes(widest + MAX_OVERHEAD_BYTES + 1))
            assert party.save() == before

    # One sum, once

    def test_a_sum_is_released_once(self, started: "Started") -> None:
        first = self.client_steps(started.clean)[0]
        late = started.world.session.clients[0]
        parties = started.resume()
        outcome = started.run(parties, FaultPlan((Fault("delay", sender=late, step=first),)))
        assert late not in outcome.included
        assert outcome.network.rejections, "a late message was taken"
        released = [party for party in parties if party.result is not None]
        assert released
        for party in parties:
            if party.name == late:
                # Nobody has told it; whoever was in the sum must refuse, not who was left out.
                continue
            result, before = party.result, party.save()
            for route, data in started.clean.messages.items():
                if route.recipient == party.name:
                    with pytest.raises(MessageRejected):
                        party.receive(decode(data, Message))
                assert party.deadline(route.step) == []
            party.start()
            assert party.result is result
            assert party.save() == before

    # What the receiver says about the sum

    def test_the_receiver_and_nobody_else_signs_a_release(self, started: "Started") -> None:
        """One signature over session, sum and clients, and the same bytes after a restart."""
        world = started.world
        parties = started.resume()
        assert [party.release for party in parties] == [None] * len(parties)
        outcome = started.run(parties)
        assert outcome.total is not None
        releases = {party.name: party.release for party in parties if party.release is not None}
        assert releases.keys() == {self.protocol.receiver}
        (release,) = releases.values()
        receiver = world.session.line(self.protocol.receiver)
        release.check(receiver)
        assert release.session == world.session.id
        salt = release_salt(world.session, world.enrolments[self.protocol.receiver].identity)
        assert release.total == commit(outcome.total.total, salt)
        assert world.session.names(release.included) == world.session.clients
        for name, record in outcome.transcript.items():
            again = world.load(name, record.held[-1]).release
            assert again == releases.get(name)
            assert again is None or encode(again) == encode(release)
        for line in world.session.roster.lines:
            if line != receiver:
                with pytest.raises(BadSignature):
                    release.check(line)

    # Saved states

    def test_a_saved_state_belongs_to_one_party_in_one_session(self, started: "Started") -> None:
        world = started.world
        other = world.under(world.with_terms(context=b"o" * 32))
        for name in world.names:
            for elsewhere in world.names:
                if name != elsewhere:
                    with pytest.raises(BadSavedState):
                        world.load(name, started.saved[elsewhere])
            with pytest.raises(BadSavedState, match=name):
                other.load(name, started.saved[name])
            for damage in (b"", started.saved[name] + b"\0", started.saved[name][:-1]):
                with pytest.raises(BadSavedState, match=name):
                    world.load(name, damage)

    def test_a_damaged_state_is_refused(self, started: "Started") -> None:
        world, clean = started.world, started.clean
        held = [(name, state) for name, r in clean.outcome.transcript.items() for state in r.held]

        @for_all(6 * self.examples, state=st.sampled_from(held), damage=mutations())
        def check(state: tuple[str, bytes], damage: Callable[[bytes], bytes]) -> None:
            name, saved = state
            damaged = damage(saved)
            assume(damaged != saved)
            with pytest.raises(BadSavedState, match=name):
                world.load(name, damaged)

    # Vectors

    def test_a_vector_that_does_not_fit_never_leaves(self) -> None:
        world = self.world()
        length = world.session.layout.length
        name = world.session.clients[0]
        enrolment = world.enrolments[name]
        for vector, wanted in (
            (np.full(length, 2**30 + 987654321), WouldOverflow),
            (np.full(length, -(2**63)), WouldOverflow),
            (np.zeros(length + 1, dtype=np.int64), InvalidVector),
            (np.zeros((length, 1), dtype=np.int64), InvalidVector),
            (np.zeros(length), InvalidVector),
            (np.zeros(length, dtype=np.int32), InvalidVector),
            (np.zeros(length, dtype=">i8"), InvalidVector),
        ):
            parties = world.parties()
            at = world.names.index(name)
            parties[at] = self.protocol.client(
                world.as_client(),
                enrolment,
                lambda _, vector=vector: vector,  # type: ignore[misc]
            )
            with pytest.raises(wanted, match=name):
                run(world, None, parties)

    def test_strided_vectors_are_summed_as_they_read(self) -> None:
        for bits in self.ring_widths:
            layout = Layout((Block("all", 6, -(2 ** (bits - 2)), 2 ** (bits - 2)),))
            plain = addends(random.Random(bits), layout, self.clients, edges=False)
            vectors = [np.repeat(vector, 2)[::2] for vector in plain]
            vectors[0] = plain[0][::-1].copy()[::-1]
            vectors[1].flags.writeable = False
            total = run(self.world_of(layout, vectors)).total
            assert total is not None
            assert np.array_equal(total.total, sum(plain))

    # Secrets

    def test_no_text_shows_a_secret(
        self, started: "Started", caplog: pytest.LogCaptureFixture
    ) -> None:
        world = started.world
        texts: list[str] = []

        def look(*things: object) -> None:
            for thing in things:
                texts.append(repr(thing))
                texts.append(str(thing))
                texts.append(rich.pretty.pretty_repr(thing))

        with caplog.at_level(logging.NOTSET):
            outcomes = [started.clean.outcome]
            for route in self.sample(started.clean.messages)[:4]:
                for damage in (
                    lambda d: d[:-1] + bytes([d[-1] ^ 1]),
                    lambda d: d[:9],
                    lambda _: b"",
                ):
                    outcomes.append(started.run(FaultPlan((Fault("tamper", *route, damage),))))
                said = world.content(started.clean.messages[route])
                for lie in (said[:-1], b"\x91" + said, encode((said.hex(),))):
                    forged = world.forge(
                        world.enrolments[route.sender], route.recipient, route.step, lie
                    )
                    fault = Fault("tamper", *route, lambda _, forged=forged: encode(forged))  # type: ignore[misc]
                    outcomes.append(run(world, FaultPlan((fault,)), started.resume(), exact=False))
            first = self.client_steps(started.clean)[0]
            gone = dict.fromkeys(world.session.clients, first)
            outcomes.append(started.run(FaultPlan(vanish=gone)))
        for outcome in outcomes:
            look(outcome.network, outcome.transcript, outcome.total, outcome.error)
            look(*outcome.network.rejections, *outcome.network.aborts.values())
            for name, record in outcome.transcript.items():
                kind = type(world.party(name))
                for saved in record.held:
                    look(party := world.load(name, saved))
                    look(decode(decode(saved[32:], tuple[bytes, str, bytes])[2], kind.states))
                    look(*_errors(partial(world.load, name, saved[:-1])))
                for data in record.received:
                    look(*_opened(world, kind, data))
        look(world.session, world.protocol)
        for enrolment in world.enrolments.values():
            look(enrolment, enrolment.identity, enrolment.member)
            look(*_errors(partial(Enrolment.load, enrolment.save()[:-1])))
            look(*_errors(partial(Identity.load, enrolment.identity.save()[:-1])))
        large = np.full(world.session.layout.length, 2**31 + 123456789)
        client = world.session.clients[0]
        party = self.protocol.client(world.session, world.enrolments[client], lambda _: large)
        look(*_errors(party.start))
        texts += [record.getMessage() + str(record.__dict__) for record in caplog.records]

        # What crosses the wire is public, names and digests in errors among it.
        public = b"".join(started.clean.messages.values())
        public += encode((world.session.header, world.session.roster, world.members))
        secrets = [str(2**31 + 123456789).encode()]
        for vector in world.vectors.values():
            secrets += [str(entry).encode() for entry in vector.tolist() if abs(entry) >= 10**6]
            secrets.append(vector.tobytes())
        for record in started.clean.outcome.transcript.values():
            saved_bytes = [record.keys, *record.held]
            secrets += [s for data in saved_bytes for s in byte_strings(data)]
        needles = {
            needle
            for secret in set(secrets)
            for at in range(0, min(len(secret), 72), 8)
            for needle in _spellings(secret[at : at + 8], public)
        }
        assert len(needles) > 50
        haystack = "\n".join(set(texts))
        shown = [needle for needle in needles if needle in haystack]
        assert not shown, shown


class Clean:
    """A recorded run without faults, and the messages that it took."""

    def __init__(self, world: World, parties: list[Party] | None = None) -> None:
        self.outcome = run(world, None, parties)
        assert not self.outcome.network.rejections
        self.messages = messages_of(self.outcome.transcript)
        self.clients = world.session.clients
        self.included = self.outcome.included


class Started:
    """A world whose parties have begun once, and can go on from there any number of times.

    Sealing is randomised, and happens at the start: what follows repeats its bytes.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        parties = world.parties()
        for party in parties:
            party.start()
        self.saved = {party.name: party.save() for party in parties}
        self.clean = Clean(world, self.resume())

    def resume(self) -> list[Party]:
        return [self.world.load(name, self.saved[name]) for name in self.world.names]

    def run(self, first: "FaultPlan | list[Party]", plan: FaultPlan | None = None) -> Outcome:
        """From the saved states under a plan, or with these parties of `resume`."""
        if isinstance(first, FaultPlan):
            return run(self.world, first, self.resume())
        return run(self.world, plan, first)


def _recipient(data: bytes) -> str:
    return decode(data, Message).header.recipient


def _errors(call: Callable[[], object]) -> list[object]:
    """The error that a call raises, and every spelling of it."""
    try:
        call()
    except (BadKey, BadSavedState, WouldOverflow) as error:
        return [error, error.args, error.__cause__, error.__context__]
    raise AssertionError("no error")


def _opened(world: World, kind: type[Party], data: bytes) -> list[object]:
    """The message, its header, and its content where it opens."""
    try:
        message = decode(data, Message)
        content = decode(world.content(data), kind.steps[message.header.step].content)
    except (ProtocolError, KeyError) as error:
        return [error]
    return [message, message.header, content]


def _spellings(secret: bytes, public: bytes) -> list[str]:
    """How eight secret bytes could appear in text."""
    if len(secret) < 8 or len(set(secret)) < 5 or secret in public:
        return []
    spelt = [secret.hex(), repr(secret)[2:-1], base64.b64encode(secret).decode()[:10]]
    if secret.isdigit():
        spelt.append(secret.decode())
    return [*spelt, secret.hex().upper(), base64.urlsafe_b64encode(secret).decode()[:10]]
