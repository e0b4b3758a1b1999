"""Pairwise masking: the shared suite, exact sums for every promised drop-out, and attacks.

The attacks are made by a server of our own, from public parts: it holds the server's keys, and says
to each client what it likes. Where it is short, the same attack is shown to work once the clients
are weakened by what the protocol forbids.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import strategies as st

from protocols import (
    Block,
    Fault,
    FaultPlan,
    Identity,
    Layout,
    Pairwise,
    Party,
    Session,
    enrol,
    new_nonce,
)
from protocols.codec import Wire, decode, encode
from protocols.errors import (
    BadKey,
    BadSeal,
    BadSignature,
    BelowThreshold,
    InconsistentSurvivors,
    InvalidSession,
    Malformed,
    Replayed,
    UnexpectedStep,
    WrongShares,
)
from protocols.layout import Integers, RingVector
from protocols.message import Message
from protocols.primitives import shamir
from protocols.primitives.masks import Mask, add_masks
from protocols.protocol import form_session
from protocols.schemes.pairwise import keys as wire_keys
from protocols.schemes.pairwise import messages as wire
from protocols.schemes.pairwise.client import Advertised
from protocols.schemes.pairwise.parameters import Parameters, ServerTrust, find_parameters
from protocols.schemes.pairwise.server import PairwiseServer
from tests.kit.protocols import ProtocolSuite
from tests.kit.worlds import World, addends, for_all, make_world, run

STEPS = ("advertise", "share", "upload", "sign", "unmask")
LAYOUT = Layout((Block("values", 6, -(2**30), 2**30),))

# Points of order 1, 2, 4 and 8 on Curve25519 and its twist, and their other spellings
# (RFC 7748, section 6.1; the list of cr.yp.to/ecdh.html).
P = 2**255 - 19
LOW_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
    P,
    P + 1,
]


class TestLying(ProtocolSuite):
    """Few clients, so everybody masks with everybody; the server may lie in every step."""

    protocol = Pairwise(corrupt_fraction=0.2, dropout_fraction=0.2, server_trust="lying")
    min_cohort = 4
    examples = 8
    max_routes = 3


# Exact sums


def small_world(
    clients: int,
    protocol: Pairwise,
    *,
    min_cohort: int | None = None,
    seed: int = 0,
    layout: Layout = LAYOUT,
) -> World:
    vectors = addends(random.Random(seed), layout, clients, edges=False)
    least = parameters(clients, protocol).corrupt + 2
    return make_world(protocol, vectors, layout, min_cohort=min_cohort or least)


def parameters(clients: int, protocol: Pairwise, min_cohort: int | None = None) -> Parameters:
    terms = (protocol.corrupt_fraction, protocol.dropout_fraction, protocol.server_trust)
    return find_parameters(clients, *terms, min_cohort)


def check_promised_dropouts(
    clients: int, protocol: Pairwise, seed: int, shuffle: int | None = None, reload: bool = False
) -> None:
    """As many as promised vanish, at random steps; the sum is over the rest, exactly."""
    rng = random.Random(seed)
    world = small_world(clients, protocol, seed=seed)
    gone = rng.sample(world.session.clients, parameters(clients, protocol).dropouts)
    vanish = {name: rng.choice(STEPS) for name in gone}
    # `run` holds the sum against the truth, bit for bit.
    outcome = run(world, FaultPlan(vanish=vanish, shuffle=shuffle, reload=reload))
    assert outcome.error is None
    early = {name for name, step in vanish.items() if step in STEPS[:3]}
    assert set(outcome.included) == set(world.session.clients) - early


@pytest.mark.slow
def test_sums_are_exact_for_every_promised_dropout() -> None:
    @for_all(
        25,
        clients=st.integers(3, 24),
        corrupt=st.sampled_from([0.0, 0.1, 0.2]),
        dropout=st.sampled_from([0.0, 0.1, 0.25]),
        server=st.sampled_from(["curious", "lying_in_unmasking", "lying"]),
        seed=st.integers(0, 2**32),
        shuffle=st.none() | st.integers(0, 2**32),
    )
    def check(
        clients: int,
        corrupt: float,
        dropout: float,
        server: ServerTrust,
        seed: int,
        shuffle: int | None,
    ) -> None:
        check_promised_dropouts(clients, Pairwise(corrupt, dropout, server), seed, shuffle)


@pytest.mark.slow
def test_sums_are_exact_for_every_promised_dropout_of_larger_cohorts() -> None:
    @for_all(
        4,
        clients=st.integers(25, 100),
        server=st.sampled_from(["curious", "lying_in_unmasking", "lying"]),
        seed=st.integers(0, 2**32),
    )
    def check(clients: int, server: ServerTrust, seed: int) -> None:
        check_promised_dropouts(clients, Pairwise(0.05, 0.1, server), seed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clients", "server"),
    [(55, "lying"), (60, "lying_in_unmasking"), (80, "curious"), (100, "lying"), (100, "curious")],
)
def test_sums_are_exact_on_sparse_graphs(clients: int, server: ServerTrust) -> None:
    protocol = Pairwise(0.05, 0.1, server)
    assert not parameters(clients, protocol, parameters(clients, protocol).corrupt + 2).complete
    # Restarts between all steps, where that is quick.
    check_promised_dropouts(clients, protocol, seed=clients, shuffle=1, reload=clients < 60)


def test_beyond_the_promise_there_is_a_sum_or_a_typed_refusal() -> None:
    refused = 0

    @for_all(
        25,
        clients=st.integers(3, 12),
        server=st.sampled_from(["curious", "lying"]),
        seed=st.integers(0, 2**32),
    )
    def check(clients: int, server: ServerTrust, seed: int) -> None:
        nonlocal refused
        rng = random.Random(seed)
        protocol = Pairwise(0.1, 0.2, server)
        world = small_world(clients, protocol, seed=seed)
        most = rng.randint(parameters(clients, protocol).dropouts + 1, clients)
        vanish = {name: rng.choice(STEPS) for name in rng.sample(world.session.clients, most)}
        # Anything but an exact sum or a SessionAborted escapes from `run`.
        outcome = run(world, FaultPlan(vanish=vanish))
        if clients - most < parameters(clients, protocol).threshold:
            assert isinstance(outcome.error, BelowThreshold)
            refused += 1

    assert refused


@pytest.mark.parametrize("step", STEPS)
def test_too_many_gone_at_one_step_is_below_threshold(step: str) -> None:
    """The server itself says so, at that step, and asks the clients for nothing more."""
    protocol = Pairwise(0.2, 0.2, "lying")
    world = small_world(5, protocol, min_cohort=4)
    outcome = run(world, FaultPlan(vanish=dict.fromkeys(world.session.clients[:2], step)))
    assert isinstance(outcome.error, BelowThreshold)
    assert (outcome.error.party, outcome.error.step) == ("server", step)


@pytest.mark.parametrize("step", STEPS[:3])
def test_a_minimum_cohort_above_the_quorum_is_kept_by_the_server(step: str) -> None:
    world = small_world(5, Pairwise(0.0, 0.2, "lying"), min_cohort=5)
    assert wire.parameters_of(world.session).quorum == 4
    outcome = run(world, FaultPlan(vanish={"client3": step}))
    assert isinstance(outcome.error, BelowThreshold)
    assert (outcome.error.party, outcome.error.step) == ("server", step)


def test_ties_between_terms_are_checked_before_anything_leaves() -> None:
    vectors = [np.zeros(6, dtype=np.int64)] * 10
    world = make_world(Pairwise(0.1, 0.1, "lying"), vectors, LAYOUT, min_cohort=5, corrupt=2)
    for name in world.names:
        with pytest.raises(InvalidSession, match="corrupt"):
            world.party(name)
    world = make_world(Pairwise(0.3, 0.1, "lying"), vectors, LAYOUT, min_cohort=4)
    with pytest.raises(InvalidSession, match=r"minimum cohort 4, allowed .* ≥ 5"):
        world.party("client0")


@pytest.mark.parametrize("clients", range(3, 10))
def test_one_client_of_three_or_more_is_conceded_to_the_server(clients: int) -> None:
    """Whatever is declared: the sum of two would show either to the other and the server."""
    protocol = Pairwise(0.0, 0.0, "lying")
    vectors = addends(random.Random(0), LAYOUT, clients, edges=False)
    with pytest.raises(InvalidSession, match=r"minimum cohort 2, allowed with 1 corrupt .* ≥ 3"):
        make_world(protocol, vectors, LAYOUT, min_cohort=2).party("client0")
    world = make_world(protocol, vectors, LAYOUT, min_cohort=3, corrupt=1)
    assert run(world).included == world.session.clients


def test_two_clients_have_nothing_to_hide_from_each_other() -> None:
    world = small_world(2, Pairwise(0.1, 0.0, "lying"))
    assert run(world).included == ("client0", "client1")


# A server that is driven by hand


def up_to(world: World, step: str) -> tuple[Party, list[Message]]:
    """The server when it awaits this step of everybody; and what all clients say at it."""
    parties = {party.name: party for party in world.parties()}
    server = parties["server"]
    server.start()
    said = [message for name in world.session.clients for message in parties[name].start()]
    while server.awaits != step:
        answers = [answer for message in said for answer in server.receive(message)]
        said = [m for answer in answers for m in parties[answer.header.recipient].receive(answer)]
    return server, said


def go_on_without(world: World, name: str, step: str) -> tuple[Party, Message]:
    """The server after the deadline for what this client says at this step; and that message."""
    server, said = up_to(world, step)
    (late,) = (message for message in said if message.header.sender == name)
    for message in said:
        if message is not late:
            server.receive(message)
    server.deadline(step)
    return server, late


# A server of our own


class Puppeteer:
    """Plays the server by hand, with the server's keys; hears all, and says what it is told to."""

    def __init__(self, world: World, *, entropy: Callable[[int], bytes] | None = None) -> None:
        self.world = world
        self.session = world.session
        self.parties: dict[str, Party] = {name: world.party(name) for name in world.session.clients}
        if entropy is not None:
            for party in self.parties.values():
                party._entropy = entropy
        self.adverts: dict[str, wire.Advertise] = {}

    def start(self) -> dict[str, wire.Advertise]:
        for name, party in self.parties.items():
            (said,) = party.start()
            self.adverts[name] = self.hear(said, wire.Advertise)
        return self.adverts

    def hear(self, message: Message, kind: type[Any]) -> Any:
        assert PairwiseServer.steps[message.header.step].content is kind
        return decode(self.world.content(encode(message)), kind)

    def tell(self, name: str, step: str, content: Wire, kind: type[Any]) -> Any:
        """Say something to a client; what it answers."""
        server = self.world.enrolments["server"]
        (said,) = self.parties[name].receive(self.world.forge(server, name, step, encode(content)))
        return self.hear(said, kind)

    def keys_for(self, name: str, others: Iterable[str] | None = None) -> wire.Keys:
        others = self.session.clients if others is None else others
        wanted = [other for other in self.session.clients if other in set(others) - {name}]
        adverts = tuple(self.adverts[other].advert for other in wanted)
        return wire.Keys(wire.places(self.session, wanted), adverts)

    def exchange_keys(self) -> dict[str, dict[str, bytes]]:
        """Everybody's keys to everybody; the sealed shares by owner and holder."""
        return {
            name: shared(self.session, self.tell(name, "keys", self.keys_for(name), wire.Share))
            for name in self.parties
        }

    def shares_for(self, name: str, sealed: Mapping[str, Mapping[str, bytes]]) -> wire.Shares:
        others = [other for other in self.session.clients if other != name and other in sealed]
        owners = [other for other in others if name in sealed[other]]
        return wire.Shares(
            wire.places(self.session, others),
            wire.places(self.session, owners),
            b"".join(sealed[owner][name] for owner in owners),
        )

    def survivors(self, names: Iterable[str]) -> wire.Survivors:
        return wire.Survivors(self.session.bits(names))

    def signatures(self, signed: Mapping[str, bytes]) -> wire.Signatures:
        ordered = [name for name in self.session.clients if name in signed]
        signatures = b"".join(signed[name] for name in ordered)
        return wire.Signatures(self.session.bits(signed), signatures)

    def collect_uploads(self) -> dict[str, RingVector]:
        """An honest exchange up to the uploads; the masked vectors."""
        self.start()
        sealed = self.exchange_keys()
        return {
            name: self.unpack(
                self.tell(name, "shares", self.shares_for(name, sealed), wire.MaskedVector)
            )
            for name in self.parties
        }

    def unpack(self, upload: wire.MaskedVector) -> RingVector:
        return self.session.layout.unpack(upload.vector)

    def ask(self, groups: Mapping[tuple[str, ...], Sequence[str]]) -> dict[str, dict[str, bytes]]:
        """Show each group of clients its own survivors, and the signatures of that group only.

        Returns the shares that come back, by holder and owner.
        """
        shares = {}
        for group, survivors in groups.items():
            shown = self.survivors(survivors)
            signed = {
                name: self.tell(name, "survivors", shown, wire.Sign).signature for name in group
            }
            for name in group:
                answer = self.tell(name, "signatures", self.signatures(signed), wire.Unmask)
                shares[name] = opened(self.session, answer)
        return shares

    def combine(self, shares: Mapping[str, Mapping[str, bytes]], owner: str) -> bytes:
        place = self.session.places
        return shamir.combine(
            {place[h] + 1: held[owner] for h, held in shares.items() if owner in held}
        )

    def mask(self, seed_or_key: bytes, name: str, other: str | None = None) -> Mask:
        """The mask that `name` has added, as one to remove."""
        if other is None:
            return Mask(wire_keys.self_mask(self.session, name, seed_or_key), True)
        place = self.session.places
        public = self.adverts[other].advert.mask_key
        pair = sorted((name, other), key=place.__getitem__)
        key = wire_keys.pair_mask(
            self.session, wire_keys.agree(wire_keys.private_key(seed_or_key), public, other), *pair
        )
        return Mask(key, pair[0] == name)


def shared(session: Session, said: wire.Share) -> dict[str, bytes]:
    """What a client shares, sealed, by holder."""
    holders = wire.names_at(session, said.holders, "", "")
    sealed = wire.parts(said.sealed, len(holders), wire.SEALED_BYTES, "", "")
    return dict(zip(holders, sealed, strict=True))


def opened(session: Session, said: wire.Unmask) -> dict[str, bytes]:
    """What a client opens, by owner."""
    owners = wire.names_at(session, said.owners, "", "")
    shares = wire.parts(said.shares, len(owners), shamir.SHARE_BYTES, "", "")
    return dict(zip(owners, shares, strict=True))


def instead(keys: wire.Keys, advert: wire.Advert) -> wire.Keys:
    """The same keys but for the first client's."""
    return wire.Keys(keys.clients, (advert, *keys.adverts[1:]))


def forged_advert(world: World, name: str, **changes: bytes) -> wire.Advert:
    """An advert that client `name` signs itself, with keys of its choice."""
    keys = wire_keys.keyring(world.session, name, bytes(32))
    honest = wire_keys.sign_advert(world.session, world.enrolments[name].identity, keys)
    unsigned = msgspec.structs.replace(honest, **changes)
    statement = wire_keys._advertised(world.session, name, unsigned)
    signature = world.enrolments[name].identity.sign(statement)
    return msgspec.structs.replace(unsigned, signature=signature)


# Both secrets of one client


def open_first_client(world: World) -> Integers:
    """Two halves of the cohort are shown two sets of survivors, with and without the first client.

    One half opens its self-mask, the other its mask key, and that is all that hides its vector.
    """
    server = Puppeteer(world)
    masked = server.collect_uploads()
    clients = world.session.clients
    half = len(clients) // 2
    with_it, without = clients[:half], clients[half:]
    shares = server.ask({with_it: with_it, without: without})
    victim = clients[0]
    seed = server.combine({name: shares[name] for name in with_it}, victim)
    key = server.combine({name: shares[name] for name in without}, victim)
    ring = masked[victim].copy()
    masks = [server.mask(seed, victim), *(server.mask(key, victim, o) for o in clients[1:])]
    add_masks(ring, masks)
    return world.session.layout.decode(ring).total


def test_two_sets_of_survivors_open_a_client_whose_threshold_is_at_most_half() -> None:
    """The attack works where the server was declared not to lie: t = 2 of 6."""
    world = small_world(6, Pairwise(0.1, 0.0, "curious"), min_cohort=3)
    found = open_first_client(world)
    assert np.array_equal(found, world.vectors["client0"])


@pytest.mark.parametrize("server", ["lying_in_unmasking", "lying"])
def test_two_sets_of_survivors_open_nothing(server: ServerTrust) -> None:
    world = small_world(6, Pairwise(0.1, 0.0, server), min_cohort=3)
    with pytest.raises(InconsistentSurvivors, match="signatures, wanted 4"):
        open_first_client(world)


def test_a_client_never_signs_a_second_set() -> None:
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    server = Puppeteer(world)
    server.collect_uploads()
    clients = world.session.clients
    signed = {
        name: server.tell(name, "survivors", server.survivors(clients), wire.Sign).signature
        for name in clients
    }
    smaller = server.survivors(clients[:-1])
    fewer = server.signatures({name: signed[name] for name in clients[:-1]})
    for name in clients[:-1]:
        with pytest.raises(Replayed, match=name):
            server.tell(name, "survivors", smaller, wire.Sign)
    for name in clients:
        server.tell(name, "signatures", server.signatures(signed), wire.Unmask)
    # Nor does it open a second one, the sum of which would differ by one client's vector.
    for name in clients[:-1]:
        before = server.parties[name].save()
        for step, content, kind in (
            ("survivors", smaller, wire.Sign),
            ("signatures", fewer, wire.Unmask),
        ):
            with pytest.raises(Replayed, match=name):
                server.tell(name, step, content, kind)
        assert server.parties[name].save() == before


def test_clients_that_forget_what_they_signed_release_one_clients_vector() -> None:
    """Why states must be durable before messages leave: rolled back, clients open two sets."""
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    server = Puppeteer(world)
    masked = server.collect_uploads()
    clients = world.session.clients
    uploaded = {name: party.save() for name, party in server.parties.items()}
    sums = []
    for survivors in (clients, clients[:-1]):
        for name in clients:
            server.parties[name].restore(uploaded[name])
        shares = server.ask({survivors: survivors})
        total = np.zeros_like(masked["client0"])
        masks = []
        for name in survivors:
            total += masked[name]
            masks.append(server.mask(server.combine(shares, name), name))
        for gone in set(clients) - set(survivors):
            key = server.combine(shares, gone)
            for name in survivors:
                removed = server.mask(key, gone, name)
                masks.append(Mask(removed.key, not removed.negative))
        add_masks(total, masks)
        sums.append(world.session.layout.decode(total).total)
    assert np.array_equal(sums[0] - sums[1], world.vectors["client4"])


def test_a_client_opens_one_half_of_what_it_holds() -> None:
    """Of a survivor never the mask key, of one that vanished never the self-mask."""
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    server = Puppeteer(world)
    server.collect_uploads()
    survivors = world.session.clients[:4]
    shares = server.ask({survivors: survivors})
    for owner in survivors:
        seed = server.combine(shares, owner)
        advert = server.adverts[owner].advert
        assert wire_keys.commitment(world.session, owner, seed) == advert.commitment
    gone = world.session.clients[4]
    key = server.combine(shares, gone)
    assert wire_keys.public_key(key) == server.adverts[gone].advert.mask_key
    assert all(len(share) == 32 for held in shares.values() for share in held.values())


# Survivors and signatures


@pytest.mark.parametrize(
    ("bits", "wanted"),
    [
        (0b00011, BelowThreshold),
        (0b11110, InconsistentSurvivors),
        (0b00000, InconsistentSurvivors),
        (0b111111, Malformed),
        (0b10011111, Malformed),
        (None, Malformed),
    ],
)
def test_survivors_that_a_client_does_not_accept(bits: int | None, wanted: type[Exception]) -> None:
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    server = Puppeteer(world)
    server.collect_uploads()
    before = server.parties["client0"].pending()
    for data in (b"", b"\x1f\0") if bits is None else (bytes([bits]),):
        with pytest.raises(wanted, match="client0"):
            server.tell("client0", "survivors", wire.Survivors(data), wire.Sign)
    # A message that is refused changes nothing; any other ends the session for this client.
    assert server.parties["client0"].pending() == (before if wanted is Malformed else [])


def test_a_client_that_has_given_up_answers_nothing() -> None:
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    clients = world.session.clients
    server = Puppeteer(world)
    server.collect_uploads()
    with pytest.raises(InconsistentSurvivors, match="leave out"):
        server.tell("client0", "survivors", server.survivors(clients[1:]), wire.Sign)
    before = server.parties["client0"].save()
    for step, content, kind in (
        ("keys", server.keys_for("client0"), wire.Share),
        ("shares", wire.Shares((), (), b""), wire.MaskedVector),
        ("survivors", server.survivors(clients), wire.Sign),
        ("signatures", server.signatures({}), wire.Unmask),
    ):
        said = f"^client0 at step '{step}': this client has given up"
        with pytest.raises(UnexpectedStep, match=said):
            server.tell("client0", step, content, kind)
    assert server.parties["client0"].save() == before


def test_a_survivor_that_was_withheld_is_noticed() -> None:
    """A client that was told that another had vanished has not masked with it."""
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    server = Puppeteer(world)
    server.start()
    sealed = server.exchange_keys()
    hidden = {owner: shares for owner, shares in sealed.items() if owner != "client4"}
    server.tell("client0", "shares", server.shares_for("client0", hidden), wire.MaskedVector)
    with pytest.raises(InconsistentSurvivors, match="withheld"):
        server.tell("client0", "survivors", server.survivors(world.session.clients), wire.Sign)


def test_signatures_that_do_not_make_a_quorum() -> None:
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    clients = world.session.clients
    server = Puppeteer(world)
    server.collect_uploads()
    names = clients[:4]
    signed = {
        name: server.tell(name, "survivors", server.survivors(names), wire.Sign).signature
        for name in names
    }
    own, one, two, three = names
    statement = wire_keys.survivors_statement(world.session, world.session.bits(clients))
    other_set = world.enrolments[three].identity.sign(statement)
    stranger = world.enrolments["client4"].identity.sign(
        wire_keys.survivors_statement(world.session, world.session.bits(names))
    )
    enough = {one: signed[one], two: signed[two]}
    complete = server.signatures({**enough, three: signed[three]})
    for signatures, wanted in (
        (server.signatures(enough), InconsistentSurvivors),
        (server.signatures({**enough, own: signed[own]}), InconsistentSurvivors),
        (server.signatures({**enough, three: signed[two]}), InconsistentSurvivors),
        (server.signatures({**enough, three: other_set}), InconsistentSurvivors),
        (server.signatures({**enough, "client4": stranger}), Malformed),
        (wire.Signatures(complete.signers, complete.signatures[:-1]), Malformed),
        (wire.Signatures(complete.signers, complete.signatures + signed[own]), Malformed),
        (wire.Signatures(complete.signers + b"\0", complete.signatures), Malformed),
        (wire.Signatures(bytes([complete.signers[0] | 64]), complete.signatures), Malformed),
    ):
        saved = server.parties[own].save()
        with pytest.raises(wanted, match=own):
            server.tell(own, "signatures", signatures, wire.Unmask)
        server.parties[own].restore(saved)
    assert server.tell(own, "signatures", complete, wire.Unmask).shares


# Keys


def test_substituted_keys_are_refused() -> None:
    """A man in the middle: the server shows its own keys under another client's name."""
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    server = Puppeteer(world)
    server.start()
    honest = server.adverts["client1"].advert
    mine = X25519PrivateKey.generate().public_key().public_bytes_raw()
    by_server = msgspec.structs.replace(honest, mask_key=mine)
    signature = world.enrolments["server"].identity.sign(
        wire_keys._advertised(world.session, "client1", by_server)
    )
    elsewhere = world.under(world.with_terms(context=b"o" * 32))
    for advert in (
        msgspec.structs.replace(honest, mask_key=mine),
        msgspec.structs.replace(honest, share_key=mine),
        msgspec.structs.replace(honest, commitment=mine),
        msgspec.structs.replace(honest, mask_key=honest.share_key, share_key=honest.mask_key),
        msgspec.structs.replace(by_server, signature=signature),
        server.adverts["client2"].advert,
        Puppeteer(elsewhere).start()["client1"].advert,
    ):
        keys = instead(server.keys_for("client0"), advert)
        before = server.parties["client0"].save()
        with pytest.raises(BadSignature, match="client1"):
            server.tell("client0", "keys", keys, wire.Share)
        assert server.parties["client0"].save() == before


def test_an_honest_server_leaves_out_adverts_that_clients_would_refuse() -> None:
    """One corrupt client must not keep its neighbours from going on."""
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    adverts = Puppeteer(world).start()
    badly_signed = msgspec.structs.replace(adverts["client1"].advert, signature=bytes(64))
    for advert in (
        badly_signed,
        adverts["client2"].advert,
        msgspec.structs.replace(badly_signed, mask_key=b""),
        msgspec.structs.replace(badly_signed, commitment=bytes(31)),
    ):
        said = encode(wire.Advertise(advert, ()))
        forged = world.forge(world.enrolments["client1"], "server", "advertise", said)
        fault = Fault("tamper", "client1", "server", "advertise", lambda _, m=forged: encode(m))  # type: ignore[misc]
        outcome = run(world, FaultPlan((fault,)))
        (refused,) = outcome.rejections_at("server")
        assert isinstance(refused, BadSignature)
        assert outcome.included == ("client0", "client2", "client3", "client4")


def test_keys_are_one_for_each_other_client() -> None:
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    server = Puppeteer(world)
    server.start()
    good = server.keys_for("client0")
    own = server.adverts["client0"].advert
    before = server.parties["client0"].save()
    for keys, reason in (
        (wire.Keys(good.clients, good.adverts[:-1]), "not one advert for each client"),
        (wire.Keys(good.clients, (*good.adverts, own)), "not one advert for each client"),
        (wire.Keys((0, *good.clients), (own, *good.adverts)), "a client's own place among"),
    ):
        with pytest.raises(Malformed, match=f"^client0 at step 'keys': {reason}"):
            server.tell("client0", "keys", keys, wire.Share)
        assert server.parties["client0"].save() == before
    assert server.tell("client0", "keys", good, wire.Share).holders == good.clients


@pytest.mark.parametrize("length", [0, 31])
@pytest.mark.parametrize("key", ["mask_key", "share_key", "commitment"])
def test_keys_of_another_length_are_refused_although_well_signed(key: str, length: int) -> None:
    """By the clients, and by an honest server before they reach any."""
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    short = forged_advert(world, "client1", **{key: bytes(range(1, length + 1))})
    puppets = Puppeteer(world)
    puppets.start()
    keys = instead(puppets.keys_for("client0"), short)
    with pytest.raises(BadSignature, match=r"^client0 .*keys of 'client1' have the wrong length"):
        puppets.tell("client0", "keys", keys, wire.Share)
    server = world.party("server")
    server.start()
    said = encode(wire.Advertise(short, ()))
    with pytest.raises(BadSignature, match=r"^server .*keys of 'client1' have the wrong length"):
        server.receive(world.forge(world.enrolments["client1"], "server", "advertise", said))


@pytest.mark.parametrize("key", ["mask_key", "share_key"])
def test_a_clients_own_key_reflected_is_refused(key: str) -> None:
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    server = Puppeteer(world)
    server.start()
    own = server.adverts["client0"].advert
    for stolen in (own.mask_key, own.share_key):
        reflected = forged_advert(world, "client1", **{key: stolen})
        keys = instead(server.keys_for("client0"), reflected)
        with pytest.raises(BadSignature, match="own key"):
            server.tell("client0", "keys", keys, wire.Share)


@pytest.mark.parametrize("point", LOW_ORDER)
@pytest.mark.parametrize("key", ["mask_key", "share_key"])
def test_points_of_low_order_are_refused(point: int, key: str) -> None:
    """By the clients, and by an honest server before they reach any."""
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    weak = forged_advert(world, "client1", **{key: point.to_bytes(32, "little")})
    server = Puppeteer(world)
    server.start()
    keys = instead(server.keys_for("client0"), weak)
    with pytest.raises(BadSignature, match="no usable X25519 key"):
        server.tell("client0", "keys", keys, wire.Share)
    said = encode(wire.Advertise(weak, ()))
    forged = world.forge(world.enrolments["client1"], "server", "advertise", said)
    fault = Fault("tamper", "client1", "server", "advertise", lambda _: encode(forged))
    outcome = run(world, FaultPlan((fault,)))
    assert outcome.included == ("client0", "client2", "client3", "client4")
    (refused,) = outcome.rejections_at("server")
    assert isinstance(refused, BadSignature)


def test_masks_and_keys_are_not_reused_across_sessions() -> None:
    """Even from broken randomness, two sessions share no key and no mask."""
    world = small_world(4, Pairwise(0.0, 0.25, "lying"), min_cohort=3)
    other = world.under(world.with_terms(context=b"o" * 32))
    halved = replace(world, vectors={name: vector // 2 for name, vector in world.vectors.items()})
    uploads, adverts = [], []
    for one in (world, other, halved):
        server = Puppeteer(one, entropy=bytes)
        uploads.append(server.collect_uploads())
        adverts.append(server.adverts)
    for name in world.session.clients:
        keys = [
            {a.mask_key, a.share_key, a.commitment} for a in (s[name].advert for s in adverts[:2])
        ]
        assert not keys[0] & keys[1]
        assert not np.any(uploads[0][name] == uploads[1][name])
        # The same entropy in the same session is what must never be: the masks cancel.
        difference = uploads[0][name] - uploads[2][name]
        expected = world.vectors[name] - halved.vectors[name]
        assert np.array_equal(difference.view(np.int32), expected)


# Shares


def test_shares_open_for_their_holder_in_their_session_only() -> None:
    world = small_world(4, Pairwise(0.0, 0.25, "lying"), min_cohort=3)
    session, other = world.session, world.with_terms(context=b"o" * 32)
    agreed, share = bytes(range(32)), bytes(64)
    sealed = wire_keys.seal_share(session, agreed, "client0", "client1", share)
    assert wire_keys.open_share(session, agreed, "client0", "client1", sealed) == share
    for terms, key, owner, holder, data in (
        (other, agreed, "client0", "client1", sealed),
        (session, bytes(32), "client0", "client1", sealed),
        (session, agreed, "client1", "client0", sealed),
        (session, agreed, "client0", "client2", sealed),
        (session, agreed, "client2", "client1", sealed),
        (session, agreed, "client0", "client1", sealed[:-1]),
        (session, agreed, "client0", "client1", b""),
    ):
        with pytest.raises(BadSeal):
            wire_keys.open_share(terms, key, owner, holder, data)


def test_redirected_shares_are_not_opened_by_another() -> None:
    """The server gives client 1 what was sealed to client 2, and the other way round."""
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    server = Puppeteer(world)
    server.start()
    sealed = server.exchange_keys()
    victim = sealed["client0"]
    victim["client1"], victim["client2"] = victim["client2"], victim["client1"]
    for name in world.session.clients:
        server.tell(name, "shares", server.shares_for(name, sealed), wire.MaskedVector)
    shares = server.ask({world.session.clients: world.session.clients})
    holders = {name for name, held in shares.items() if "client0" in held}
    assert holders == {"client0", "client3", "client4"}


@pytest.mark.parametrize(
    ("clients", "owners"),
    [((1, 2, 3), (4,)), ((1, 2, 3, 4), (0,)), ((1, 2, 3, 5), ()), ((0, 1, 2, 3), ())],
    ids=["owner not listed", "own share", "without keys", "itself"],
)
def test_a_share_of_one_whose_keys_are_unknown_is_refused(
    clients: tuple[int, ...], owners: tuple[int, ...]
) -> None:
    world = small_world(6, Pairwise(0.2, 0.2, "lying"), min_cohort=4)
    server = Puppeteer(world)
    server.start()
    near = world.session.clients[:5]
    server.tell("client0", "keys", server.keys_for("client0", near), wire.Share)
    before = server.parties["client0"].save()
    lie = wire.Shares(clients, owners, bytes(len(owners) * wire.SEALED_BYTES))
    with pytest.raises(Malformed, match=r"^client0 .*a share of one whose keys are unknown"):
        server.tell("client0", "shares", lie, wire.MaskedVector)
    assert server.parties["client0"].save() == before


def test_shares_for_others_than_the_holders_are_refused() -> None:
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    four = bytes(4 * wire.SEALED_BYTES)
    three, five = four[wire.SEALED_BYTES :], four + bytes(wire.SEALED_BYTES)
    server, _ = up_to(world, "share")
    before = server.save()
    for share, reason in (
        (wire.Share((1, 2, 3), three), "'client0' shares with others"),
        (wire.Share((1, 2, 3), four), "'client0' shares with others"),
        (wire.Share((0, 1, 2, 3, 4), five), "'client0' shares with others"),
        (wire.Share((0, 2, 3, 4), four), "'client0' shares with others"),
        (wire.Share((4, 3, 2, 1), four), "places out of order"),
        (wire.Share((1, 2, 3, 4, 4), five), "places out of order"),
        (wire.Share((1, 2, 3, 5), four), "of no client"),
        (wire.Share((-1, 2, 3, 4), four), "of no client"),
        (wire.Share((1, 2, 3, 4), four[:-1]), "319 bytes for 4 parts of 80"),
        (wire.Share((1, 2, 3, 4), b""), "0 bytes for 4 parts of 80"),
    ):
        forged = world.forge(world.enrolments["client0"], "server", "share", encode(share))
        with pytest.raises(Malformed, match=f"^server at step 'share': .*{reason}"):
            server.receive(forged)
        assert server.save() == before
        fault = Fault("tamper", "client0", "server", "share", lambda _, m=forged: encode(m))  # type: ignore[misc]
        outcome = run(world, FaultPlan((fault,)))
        assert len(outcome.rejections_at("server")) == 1
        assert outcome.included == world.session.clients[1:]


def test_a_wrong_share_ends_in_a_typed_error_and_no_sum() -> None:
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    server_keys = world.enrolments["server"]

    def lie(data: bytes) -> bytes:
        answer = decode(world.content(data), wire.Unmask)
        said = encode(wire.Unmask(answer.owners, (bytes(31) + b"\1") * len(answer.owners)))
        return encode(world.forge(world.enrolments["client0"], "server", "unmask", said))

    outcome = run(world, FaultPlan((Fault("tamper", "client0", "server", "unmask", lie),)))
    assert isinstance(outcome.error, WrongShares)
    assert server_keys.member.name in str(outcome.error)


@pytest.mark.parametrize("spoilt", [b"\xff" * 64, bytes(63), b""])
def test_a_client_that_shares_what_is_no_share_is_named(spoilt: bytes) -> None:
    """Its holders' answers are good but for the share that it has spoilt."""
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    clients = world.session.clients
    puppets = Puppeteer(world)
    adverts = puppets.start()
    saved = {name: party.save() for name, party in puppets.parties.items()}
    # Client 0 agrees with its holders as it should, and seals what it likes.
    secret = decode(decode(saved["client0"][32:], tuple[bytes, str, bytes])[2], Advertised).secret
    keys = wire_keys.keyring(world.session, "client0", secret)
    own = wire_keys.private_key(keys.share_key)
    sealed = []
    for name in clients[1:]:
        agreed = wire_keys.agree(own, adverts[name].advert.share_key, name)
        share = wire_keys.seal_share(world.session, agreed, "client0", name, spoilt)
        sealed.append(share.ljust(wire.SEALED_BYTES, b"\0"))
    said = encode(wire.Share((1, 2, 3, 4), b"".join(sealed)))
    forged = world.forge(world.enrolments["client0"], "server", "share", said)
    fault = Fault("tamper", "client0", "server", "share", lambda _: encode(forged))
    parties = [world.party("server"), *(world.load(name, saved[name]) for name in clients)]
    outcome = run(world, FaultPlan((fault,)), parties)
    assert isinstance(outcome.error, BelowThreshold)
    assert "share of 'client0'" in str(outcome.error)
    assert not outcome.network.rejections


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (wire.Unmask((1, 1), bytes(64)), "places out of order"),
        (wire.Unmask((2, 1), bytes(64)), "places out of order"),
        (wire.Unmask((5,), bytes(32)), "of no client"),
        (wire.Unmask((-1,), bytes(32)), "of no client"),
        (wire.Unmask((1,), bytes(31)), "31 bytes for 1 parts of 32"),
        (wire.Unmask((1,), bytes(64)), "64 bytes for 1 parts of 32"),
        (wire.Unmask((1,), b"\xff" * 32), "no shares, from 'client0'"),
    ],
    ids=["twice", "unsorted", "beyond", "negative", "short", "long", "no share"],
)
def test_answers_that_a_client_cannot_give_are_refused(answer: wire.Unmask, reason: str) -> None:
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    forged = world.forge(world.enrolments["client0"], "server", "unmask", encode(answer))
    server, _ = up_to(world, "unmask")
    before = server.save()
    with pytest.raises(Malformed, match=f"^server at step 'unmask': .*{reason}"):
        server.receive(forged)
    assert server.save() == before
    fault = Fault("tamper", "client0", "server", "unmask", lambda _: encode(forged))
    outcome = run(world, FaultPlan((fault,)))
    assert len(outcome.rejections_at("server")) == 1
    # The other four are enough, which is what the threshold is for.
    assert outcome.included == world.session.clients


def test_shares_that_a_client_does_not_hold_are_refused() -> None:
    """Of one that it is no holder of; and its own, which it keeps on a small graph only."""
    world = small_world(60, Pairwise(0.05, 0.1, "lying"))
    assert not wire.parameters_of(world.session).complete
    server, said = up_to(world, "unmask")
    (honest,) = (message for message in said if message.header.sender == "client0")
    held = decode(world.content(encode(honest)), wire.Unmask).owners
    before = server.save()
    strange = next(place for place in range(1, 60) if place not in held)
    for owner in (0, strange):
        lie = wire.Unmask(tuple(sorted((*held, owner))), bytes(32 * (len(held) + 1)))
        with pytest.raises(Malformed, match=r"^server .*shares that 'client0' cannot have"):
            server.receive(
                world.forge(world.enrolments["client0"], "server", "unmask", encode(lie))
            )
    assert server.save() == before
    server.receive(honest)


# Late and replayed uploads


def test_a_late_upload_is_not_taken_and_not_opened() -> None:
    """It arrives when the client's mask key has been opened; its own mask still hides it."""
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    outcome = run(world, FaultPlan((Fault("delay", "client4", step="upload"),)))
    assert outcome.included == ("client0", "client1", "client2", "client3")
    (refused,) = outcome.rejections_at("server")
    assert isinstance(refused, UnexpectedStep)
    shares = [
        opened(world.session, decode(world.content(data), wire.Unmask))["client4"]
        for name, record in outcome.transcript.items()
        for data in record.sent
        if decode(data, Message).header.step == "unmask" and name != "client4"
    ]
    advert = next(
        decode(world.content(data), wire.Advertise).advert
        for data in outcome.transcript["client4"].sent
        if decode(data, Message).header.step == "advertise"
    )
    key = shamir.combine({place + 1: share for place, share in enumerate(shares)})
    assert wire_keys.public_key(key) == advert.mask_key
    assert wire_keys.commitment(world.session, "client4", key) != advert.commitment


@pytest.mark.parametrize("step", STEPS)
def test_the_server_takes_nothing_after_a_steps_deadline(step: str) -> None:
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    server, late = go_on_without(world, "client4", step)
    before = server.save()
    with pytest.raises(UnexpectedStep, match=f"^server at step '{step}': this step is closed"):
        server.receive(late)
    assert server.save() == before


@pytest.mark.parametrize(
    ("missed", "step", "said"),
    [
        ("advertise", "share", "'client4' has no keys here"),
        ("share", "upload", "'client4' has not shared"),
        ("upload", "sign", "'client4' is no survivor"),
        ("sign", "unmask", "'client4' was not asked"),
    ],
)
def test_whoever_has_missed_a_step_is_out(missed: str, step: str, said: str) -> None:
    """What it says next is right but for that."""
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    session, enrolment = world.session, world.enrolments["client4"]
    server, _ = go_on_without(world, "client4", missed)
    assert server.awaits == step
    survivors = session.bits(session.clients[:4])
    signature = enrolment.identity.sign(wire_keys.survivors_statement(session, survivors))
    contents = {
        "share": wire.Share((0, 1, 2, 3), bytes(4 * wire.SEALED_BYTES)),
        "upload": wire.MaskedVector(bytes(session.layout.packed_bytes)),
        "sign": wire.Sign(signature),
        "unmask": wire.Unmask((0,), bytes(shamir.SHARE_BYTES)),
    }
    before = server.save()
    with pytest.raises(UnexpectedStep, match=f"^server at step '{step}': {said}"):
        server.receive(world.forge(enrolment, "server", step, encode(contents[step])))
    assert server.save() == before


def test_a_sum_out_of_bounds_is_released_and_counted() -> None:
    """A corrupt client may add anything: here what carries the sum over the block's high end."""
    layout = Layout((Block("values", 6, 0, 1000),))
    world = small_world(4, Pairwise(0.0, 0.25, "lying"), min_cohort=3, layout=layout)
    shift = np.array([2**20, 0, 2**20, 2**20, 0, 0], dtype=np.uint32)

    def lie(data: bytes) -> bytes:
        upload = decode(world.content(data), wire.MaskedVector)
        lied = wire.MaskedVector(layout.pack(layout.unpack(upload.vector) + shift))
        return encode(world.forge(world.enrolments["client0"], "server", "upload", encode(lied)))

    fault = Fault("tamper", "client0", "server", "upload", lie)
    outcome = run(world, FaultPlan((fault,)), exact=False)
    assert outcome.total is not None
    assert outcome.total.outside == (("values", 3),)
    assert np.array_equal(outcome.total.total, world.truth(outcome.included) + shift)


# Neighbourhoods


def surrounded(server: ServerTrust) -> tuple[World, Puppeteer, tuple[str, ...]]:
    """300 clients, of which 30 work with the server; it starts client 0, and makes up the rest."""
    protocol = Pairwise(0.1, 0.1, server)
    names = [f"client{index}" for index in range(300)]
    nonce = new_nonce()
    enrolments = enrol(protocol, {name: Identity.generate(name) for name in names}, nonce)
    members = [enrolment.member for enrolment in enrolments.values()]
    session = form_session(protocol, members, nonce, LAYOUT, min_cohort=40)
    victim = np.array([3, 1, 4, 1, 5, 9], dtype=np.int64)
    world = World(protocol, session, enrolments, {"client0": victim})
    puppeteer = Puppeteer.__new__(Puppeteer)
    puppeteer.world, puppeteer.session, puppeteer.adverts = world, session, {}
    puppeteer.parties = {"client0": world.party("client0")}
    return world, puppeteer, tuple(names[1:31])


def sybil_keys(world: World, name: str) -> wire_keys.Keyring:
    return wire_keys.keyring(world.session, name, bytes(32))


def test_a_graph_that_the_server_biases_opens_its_victim() -> None:
    """Why a server that lies in every step must not draw the graph: 30 corrupt neighbours do."""
    world, server, sybils = surrounded("curious")
    server.start()
    for name in sybils:
        identity = world.enrolments[name].identity
        advert = wire_keys.sign_advert(world.session, identity, sybil_keys(world, name))
        server.adverts[name] = wire.Advertise(advert, ())
    answer = server.tell("client0", "keys", server.keys_for("client0", sybils), wire.Share)
    near = wire.places(world.session, sybils)
    shares = wire.Shares(near, near, bytes(len(near) * wire.SEALED_BYTES))
    ring = server.unpack(server.tell("client0", "shares", shares, wire.MaskedVector)).copy()
    advert = server.adverts["client0"].advert
    held, masks = {}, []
    place = world.session.places
    for name, sealed in shared(world.session, answer).items():
        keys = sybil_keys(world, name)
        agreed = wire_keys.agree(wire_keys.private_key(keys.share_key), advert.share_key, name)
        share = wire_keys.open_share(world.session, agreed, "client0", name, sealed)
        held[place[name] + 1] = share[:32]
        pair = wire_keys.agree(wire_keys.private_key(keys.mask_key), advert.mask_key, name)
        masks.append(Mask(wire_keys.pair_mask(world.session, pair, "client0", name), True))
    masks.append(Mask(wire_keys.self_mask(world.session, "client0", shamir.combine(held)), True))
    add_masks(ring, masks)
    assert np.array_equal(LAYOUT.decode(ring).total, world.vectors["client0"])


def test_a_client_that_draws_its_neighbours_is_not_surrounded() -> None:
    world, server, sybils = surrounded("lying")
    chosen = server.start()["client0"].chosen
    found = wire.parameters_of(world.session)
    assert len(chosen) == found.neighbours
    for name in world.session.clients[1:]:
        identity = world.enrolments[name].identity
        advert = wire_keys.sign_advert(world.session, identity, sybil_keys(world, name))
        server.adverts[name] = wire.Advertise(advert, ())
    near = [name for name in sybils if world.session.places[name] in chosen]
    assert len(near) < found.threshold
    before = server.parties["client0"].save()
    with pytest.raises(BelowThreshold, match="client0"):
        server.tell("client0", "keys", server.keys_for("client0", sybils), wire.Share)
    # With every client's keys it shares with those that it has drawn, and no others.
    server.parties["client0"].restore(before)
    everybody = world.session.clients[1:]
    answer = server.tell("client0", "keys", server.keys_for("client0", everybody), wire.Share)
    drawn = {world.session.clients[index] for index in chosen}
    assert shared(world.session, answer).keys() == drawn


def test_more_holders_than_promised_are_refused() -> None:
    """Among more than k holders two disjoint sets of t could open both secrets."""
    world, server, _ = surrounded("lying_in_unmasking")
    server.start()
    k = wire.parameters_of(world.session).neighbours
    others = world.session.clients[1 : k + 2]
    for name in others:
        identity = world.enrolments[name].identity
        advert = wire_keys.sign_advert(world.session, identity, sybil_keys(world, name))
        server.adverts[name] = wire.Advertise(advert, ())
    with pytest.raises(Malformed, match=f"{k + 1} neighbours, allowed: ≤ {k}"):
        server.tell("client0", "keys", server.keys_for("client0", others), wire.Share)
    fewer = server.keys_for("client0", others[:-1])
    assert len(server.tell("client0", "keys", fewer, wire.Share).holders) == k


def test_neighbours_do_not_depend_on_anybodys_keys() -> None:
    """Nothing to grind: they are drawn from the client's secret, in its very first message."""
    chosen = set()
    for _ in range(3):
        world, server, _ = surrounded("lying")
        server.parties["client0"]._entropy = bytes
        chosen.add(server.start()["client0"].chosen)
    assert len(chosen) == 3, "the session's nonce enters"
    for _ in range(2):
        server.parties["client0"] = world.party("client0")
        server.parties["client0"]._entropy = bytes
        chosen.add(server.start()["client0"].chosen)
    assert len(chosen) == 3


def test_the_server_refuses_other_choices_than_the_protocols() -> None:
    world = small_world(60, Pairwise(0.05, 0.1, "lying"))
    honest = Puppeteer(world).start()["client0"]
    k = len(honest.chosen)
    for chosen in (
        (),
        honest.chosen[1:],
        honest.chosen[::-1],
        (*honest.chosen[1:], 60),
        (0, *range(2, k + 1)),
        (-1, *range(1, k)),
        (1, 1, *range(3, k + 1)),
    ):
        party = world.party("server")
        party.start()
        said = encode(wire.Advertise(honest.advert, chosen))
        with pytest.raises(Malformed, match="client0"):
            party.receive(world.forge(world.enrolments["client0"], "server", "advertise", said))
    party.start()
    said = encode(honest)
    party.receive(world.forge(world.enrolments["client0"], "server", "advertise", said))


def test_low_order_check_finds_no_honest_key() -> None:
    keys = wire_keys.keyring(small_world(4, Pairwise(0.0, 0.25)).session, "client0", bytes(32))
    with pytest.raises(BadKey):
        wire_keys.agree(wire_keys.private_key(keys.mask_key), bytes(32), "client0")
    public = wire_keys.public_key(keys.share_key)
    assert len(wire_keys.agree(wire_keys.private_key(keys.mask_key), public, "client0")) == 32


@pytest.mark.parametrize("key", ["mask_key", "share_key"])
def test_a_clients_own_key_in_another_spelling_is_refused(key: str) -> None:
    world = small_world(5, Pairwise(0.2, 0.2, "lying"), min_cohort=3)
    server = Puppeteer(world)
    server.start()
    own = getattr(server.adverts["client0"].advert, key)
    alias = own[:31] + bytes([own[31] | 0x80])  # RFC 7748: the top bit is ignored
    advert = forged_advert(world, "client4", **{key: alias})
    server.adverts["client4"] = wire.Advertise(advert, ())
    with pytest.raises(BadSignature, match="client4"):
        server.tell("client0", "keys", server.keys_for("client0"), wire.Share)


def test_a_neighbour_withheld_after_the_keys_is_noticed_on_a_servers_graph() -> None:
    world = small_world(60, Pairwise(0.1, 0.1, "lying_in_unmasking"))
    p = wire.parameters_of(world.session)
    server = Puppeteer(world)
    server.start()
    client, *others = world.session.clients
    near = others[: p.neighbours]
    server.tell(client, "keys", server.keys_for(client, near), wire.Share)
    shown = wire.Shares(wire.places(world.session, near[: p.threshold]), (), b"")
    server.tell(client, "shares", shown, wire.MaskedVector)
    with pytest.raises(InconsistentSurvivors, match="withheld"):
        server.tell(client, "survivors", server.survivors(world.session.clients), wire.Sign)
