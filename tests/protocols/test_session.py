"""The session's terms: what nobody may agree to is refused, and no two terms share an id."""

import hashlib
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Literal

import msgspec
import numpy as np
import pytest

from protocols import (
    Additive,
    Bfv,
    Block,
    Ckks,
    FaultPlan,
    Identity,
    Layout,
    Line,
    Member,
    Pairwise,
    Plain,
    Protocol,
    Roster,
    Session,
    enrol,
    form_session,
    new_nonce,
)
from protocols.codec import WIRE_VERSION, decode, encode, wire_version
from protocols.errors import (
    AnotherSet,
    BadKey,
    BelowThreshold,
    InvalidSession,
    Malformed,
    ProtocolError,
    UnknownSender,
)
from protocols.protocol import receiver_of
from protocols.roster import CLIENT, MAX_ROSTER_BYTES
from protocols.session import (
    MAX_COORDINATORS,
    MAX_SESSION_BYTES,
    MAX_TERMS_BYTES,
    SessionHeader,
    enrolments_digest,
    read_header,
)
from tests.kit.worlds import Outcome, World, make_world, run

LAYOUT = Layout((Block("all", 3, -100, 100),))
WORLD = make_world(Plain(), [np.arange(3)] * 5, LAYOUT, min_cohort=3, corrupt=1)
SESSION = WORLD.session
HEADER = SESSION.header
ROSTER = SESSION.roster


def enrolled(identity: Identity, role: str = CLIENT, nonce: bytes = SESSION.nonce) -> Member:
    return identity.enrol(role, nonce).member


def header_with(**changes: Any) -> bytes:
    return encode(msgspec.structs.replace(HEADER, **changes))


def others(*names: str) -> list[Member]:
    """All members but these."""
    return [member for member in WORLD.members if member.name not in names]


# The id


def test_the_id_changes_with_every_field_of_the_header() -> None:
    block = LAYOUT.blocks[0]
    first = WORLD.enrolments["client0"]
    again = enrolled(first.identity)
    bounded = first.identity.enrol(CLIENT, SESSION.nonce, 1).member
    server = enrolled(WORLD.enrolments["server"].identity, "server")
    extra = Identity.generate("extra")
    changes: list[dict[str, Any]] = [
        {"protocol": "other"},
        {"parameters": b""},
        {"context": b"\1" + bytes(31)},
        {"min_cohort": 4},
        {"corrupt": 0},
        {"round": 2},
        {"attempt": 1, "void": bytes(32)},
        {"attempt": 2, "void": bytes(32)},
        {"attempt": 1, "void": b"\1" * 32},
        {"same_set": SESSION.bits(SESSION.clients)},
        {"same_set": SESSION.bits(SESSION.clients[:3])},
        {"layout": Layout((Block("all", 4, -100, 100),))},
        {"layout": Layout((Block("All", 3, -100, 100),))},
        {"layout": Layout((Block("all", 3, -101, 100),))},
        {"layout": Layout((Block("all", 3, -100, 101),))},
        {"layout": Layout((Block("all", 3, -100, 100, 0.5),))},
        {"layout": Layout((Block("all", 3, -100, 100, least=-101),))},
        {"layout": Layout((Block("all", 3, -100, 100, most=99),))},
        {"layout": Layout((block, Block("more", 1, 0, 1)))},
    ]
    sessions = [WORLD.with_terms(**change) for change in changes]
    sessions += [
        WORLD.with_members([*WORLD.members, enrolled(extra)]),
        WORLD.with_members([*WORLD.members, enrolled(extra, "witness")]),
        WORLD.with_members([*others("client0"), again]),
        WORLD.with_members([*others("client0"), bounded]),
        WORLD.with_members([*others("server"), server]),
        WORLD.with_members(WORLD.members, roster=Roster.of(ROSTER.lines, 1)),
        WORLD.with_members(others("client0"), roster=ROSTER),
        WORLD.with_members(others("client1"), roster=ROSTER),
    ]
    nonce = new_nonce()
    members = [enrolled(e.identity, e.member.role, nonce) for e in WORLD.enrolments.values()]
    sessions.append(WORLD.with_members(members, nonce=nonce))
    ids = [SESSION.id, *(session.id for session in sessions)]
    assert len(set(ids)) == len(ids)
    assert {len(i) for i in ids} == {32}
    # Each field is one of those that have been changed, but for the version, which has one value.
    changed = {
        field
        for session in sessions
        for field in SessionHeader.__struct_fields__
        if getattr(session.header, field) != getattr(HEADER, field)
    }
    assert changed == {*SessionHeader.__struct_fields__} - {"version"}
    alone = msgspec.structs.replace(HEADER, enrolments=bytes(32))
    assert Session(alone, ROSTER).id not in ids


def test_the_id_is_of_the_headers_bytes() -> None:
    tagged = b"\x92" + msgspec.msgpack.encode("secure-afl/2 session") + encode(HEADER)
    assert SESSION.id == hashlib.sha256(tagged).digest()
    assert WORLD.as_client().id == SESSION.id
    again = decode(encode(HEADER), SessionHeader)
    assert again == HEADER
    assert Session(again, ROSTER, SESSION.members).clients == SESSION.clients


# Terms


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ({"version": 0}, "wire version 0, wanted 2"),
        ({"version": 1}, "wire version 1, wanted 2"),
        ({"version": 3}, "wire version 3, wanted 2"),
        ({"context": b""}, "32 bytes"),
        ({"context": bytes(33)}, "32 bytes"),
        ({"nonce": bytes(31)}, "32 bytes"),
        ({"enrolments": bytes(31)}, "32 bytes"),
        ({"roster": bytes(32)}, "over another roster"),
        ({"protocol": ""}, "party name ''"),
        ({"protocol": "a b"}, "party name 'a b'"),
        ({"min_cohort": 6}, r"minimum cohort 6 with 5 clients .* allowed: 3\.\.5"),
        ({"min_cohort": 2}, r"allowed: 3\.\.5"),
        ({"corrupt": 2}, r"2 declared corrupt, allowed: 4\.\.5"),
        ({"corrupt": 3}, r"allowed: 5\.\.5"),
        ({"corrupt": -1}, "-1 declared corrupt"),
        ({"corrupt": 0, "min_cohort": 1}, r"allowed: 2\.\.5"),
        ({"corrupt": 0, "min_cohort": 0}, r"allowed: 2\.\.5"),
        ({"corrupt": 0, "min_cohort": -3}, r"allowed: 2\.\.5"),
        ({"min_cohort": 3.0}, "type int"),
        ({"corrupt": True}, "type int"),
        ({"min_cohort": float("nan")}, "type int"),
        ({"round": 1.0}, "type int"),
        ({"attempt": False}, "type int"),
        ({"round": 0}, "round 0, attempt 0, allowed: ≥ 1 and ≥ 0"),
        ({"round": -1}, "round -1"),
        ({"round": 2**63}, "round 9223372036854775808"),
        ({"attempt": -1}, "attempt -1"),
        ({"attempt": 1}, "needs the void of the one before"),
        ({"attempt": 1, "void": bytes(31)}, "needs the void"),
        ({"void": bytes(32)}, "needs the void"),
    ],
)
def test_terms_that_no_party_may_agree_to(terms: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidSession, match=reason):
        WORLD.with_terms(**terms)
    header = msgspec.structs.replace(HEADER, **terms)
    with pytest.raises(InvalidSession, match=reason):
        Session(header, ROSTER)


@pytest.mark.parametrize("field", ["participants", "same_set"])
@pytest.mark.parametrize("bits", [b"\x1f\0", b"\x3f", b"\x9f"])
def test_sets_in_the_header_are_bits_of_its_roster(field: str, bits: bytes) -> None:
    for members in (None, SESSION.members):
        with pytest.raises(Malformed, match="wanted one bit for each of 5"):
            Session(msgspec.structs.replace(HEADER, **{field: bits}), ROSTER, members)


def test_without_clients_there_is_no_session() -> None:
    for participants in (b"\0", b"\1"):
        with pytest.raises(InvalidSession, match=r"minimum cohort 3 with [01] clients"):
            Session(msgspec.structs.replace(HEADER, participants=participants), ROSTER)


def test_the_least_cohort_is_the_corrupt_and_two() -> None:
    for corrupt in range(4):
        assert WORLD.with_terms(corrupt=corrupt, min_cohort=corrupt + 2).min_cohort == corrupt + 2
        with pytest.raises(InvalidSession, match="enrol more clients"):
            WORLD.with_terms(corrupt=corrupt, min_cohort=corrupt + 1)


def test_coordinators_do_not_count_as_clients() -> None:
    extra = [enrolled(Identity.generate(f"extra{i}"), "witness") for i in range(3)]
    session = WORLD.with_members([*WORLD.members, *extra])
    assert session.clients == SESSION.clients
    assert session.of_role("witness") == ("extra0", "extra1", "extra2")
    with pytest.raises(InvalidSession, match=r"allowed: 3\.\.5"):
        WORLD.with_members([*WORLD.members, *extra], min_cohort=6)


def test_parties_share_neither_name_nor_key() -> None:
    identity = WORLD.enrolments["client0"].identity
    same_name = enrolled(Identity.generate("client0"))
    # One signer under two names would count twice towards the minimum cohort.
    same_key = enrolled(
        Identity.load(encode(("sybil", decode(identity.save(), tuple[str, bytes])[1])))
    )
    assert same_key.verify_key == identity.verify_key
    for member in (same_name, same_key):
        with pytest.raises(InvalidSession, match="share"):
            WORLD.with_members([*WORLD.members, member])


# What a client sees


def test_a_client_reads_names_places_and_count_off_its_own_roster() -> None:
    seen = Session.read(encode(HEADER), Roster.of(ROSTER.lines[::-1]))
    assert seen.clients == SESSION.clients == tuple(f"client{i}" for i in range(5))
    assert seen.places == {f"client{i}": i for i in range(5)}
    assert seen.members is None
    assert seen.everybody == HEADER.coordinators
    assert seen.line("client3") == WORLD.enrolments["client3"].member.line
    with pytest.raises(UnknownSender, match="whose enrolment is not at hand"):
        seen.member("client3")
    assert seen.member("server") == SESSION.member("server")
    # Of a roster with others besides, only those that take part have places.
    some = WORLD.with_members(others("client1", "client3"), roster=ROSTER)
    seen = Session.read(encode(some.header), ROSTER)
    assert seen.clients == ("client0", "client2", "client4")
    assert seen.places == {"client0": 0, "client2": 1, "client4": 2}
    assert seen.bits(["client4"]) == b"\x10"
    with pytest.raises(Malformed, match="a client that is not in the session"):
        seen.names(b"\x02")
    for absent in ("client1", "client3"):
        with pytest.raises(UnknownSender):
            seen.line(absent)


def test_a_header_grows_by_one_bit_for_each_client() -> None:
    """The clients' enrolments, 1.3 kB each, stay with the coordinators."""
    server = enrolled(Identity.generate("server"), "server")
    client = SESSION.member("client0")
    lengths = []
    for clients in (80, 800, 8000):
        keys = (hashlib.sha256(str(i).encode()).digest() for i in range(clients))
        lines = [Line(f"client{i:05}", CLIENT, key) for i, key in enumerate(keys)]
        roster = Roster.of([*lines, server.line])
        header = msgspec.structs.replace(
            HEADER,
            coordinators=(server,),
            roster=roster.digest,
            participants=roster.bits(line.name for line in lines),
        )
        lengths.append(len(encode(header)))
        seen = Session.read(encode(header), roster)
        assert len(seen.clients) == clients
    # MessagePack's lengths take a byte more from 256 on.
    assert [b - a for a, b in pairwise(lengths)] == [90, 901]
    assert lengths[0] < 2 * len(encode(client))


def test_a_member_is_looked_up_by_name() -> None:
    for member in WORLD.members:
        assert SESSION.member(member.name) is member
        assert SESSION.line(member.name) == member.line
    for name in ("nobody", "", "CLIENT0", "client0 "):
        for look_up in (SESSION.member, SESSION.line):
            with pytest.raises(UnknownSender) as caught:
                look_up(name)
            assert "nobody" not in str(caught.value)


def test_roles_are_sorted_by_name() -> None:
    assert SESSION.of_role("server") == ("server",)
    assert SESSION.of_role("nobody") == ()
    assert SESSION.of_role(CLIENT) == SESSION.clients
    protocol = Additive(aggregators=3)
    names = {"collector": "m", "aggregator_1": "z", "aggregator_2": "a"}
    nonce = new_nonce()
    coordinators = {default: Identity.generate(name) for default, name in names.items()}
    clients = {name: Identity.generate(name) for name in ("b", "y")}
    enrolments = enrol(protocol, clients, nonce, coordinators)
    members = [enrolment.member for enrolment in enrolments.values()]
    session = form_session(protocol, members, nonce, LAYOUT, min_cohort=2)
    assert session.of_role("aggregator") == ("a", "z")
    assert [member.name for member in session.header.coordinators] == ["a", "m", "z"]


# What travels


def test_a_header_over_the_pinned_roster_needs_no_list() -> None:
    assert Session.read(encode(HEADER), ROSTER).id == SESSION.id
    # Nor does a list that comes all the same count for anything.
    assert Session.read(encode(HEADER), ROSTER, thin=b"noise").roster is ROSTER


def test_without_pins_the_thin_list_is_believed() -> None:
    """In simulations only."""
    seen = Session.read(encode(HEADER), None, thin=SESSION.thin)
    assert seen.id == SESSION.id
    assert seen.clients == SESSION.clients
    with pytest.raises(InvalidSession, match="over another roster than this party's, and brings"):
        Session.read(encode(HEADER), None)


def test_a_list_of_another_digest_is_refused() -> None:
    other = encode(Roster.of(ROSTER.lines, 1))
    for pinned in (None, Roster.of(ROSTER.lines, 2)):
        for thin in (other, SESSION.thin + b"\0", b"noise"):
            with pytest.raises(Malformed, match="another digest than the session's"):
                Session.read(encode(HEADER), pinned, thin=thin)


def test_where_digests_differ_the_list_is_compared_with_the_pins() -> None:
    """Another number, and others that are pinned besides, do no harm."""
    more = Line("zz-more", CLIENT, bytes(32))
    for pinned in (Roster.of(ROSTER.lines, 7), Roster.of([*ROSTER.lines, more], 7)):
        with pytest.raises(InvalidSession, match="compare the rosters' numbers"):
            Session.read(encode(HEADER), pinned)
        assert Session.read(encode(HEADER), pinned, thin=SESSION.thin).id == SESSION.id


def pinned_with(party: str, **changes: Any) -> Roster:
    """What somebody has pinned that knows this party otherwise, or not at all."""
    kept = [line for line in ROSTER.lines if line.name != party]
    known = ROSTER.by_name[party]
    return Roster.of([*kept, *([msgspec.structs.replace(known, **changes)] if changes else [])])


@pytest.mark.parametrize("name", ["client3", "server"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"verify_key": bytes(32)}, {"role": "witness"}, {"name": "zz-other"}],
    ids=["invented", "another key", "another role", "another name"],
)
def test_a_line_that_is_not_pinned_is_refused(name: str, changes: dict[str, Any]) -> None:
    pinned = pinned_with(name, **changes)
    with pytest.raises(InvalidSession, match=f"'{name}' is not known in the role") as caught:
        Session.read(encode(HEADER), pinned, thin=SESSION.thin)
    assert "exchange keys with that party" in str(caught.value)


def test_a_line_of_one_that_takes_no_part_is_not_looked_at() -> None:
    """It is on the list that travels, has no bit, and receives nothing."""
    invented = Line("invented", CLIENT, bytes(32))
    session = WORLD.with_members(WORLD.members, roster=Roster.of([*ROSTER.lines, invented]))
    assert Session.read(encode(session.header), ROSTER, thin=session.thin).clients == (
        SESSION.clients
    )
    swapped = msgspec.structs.replace(
        session.header, participants=session.roster.bits([*SESSION.clients[1:], "invented"])
    )
    with pytest.raises(InvalidSession, match="'invented' is not known"):
        Session.read(encode(swapped), ROSTER, thin=session.thin)


# Who receives the sum


def federation(aggregators: Iterable[str], collector: str) -> tuple[Any, Roster, dict[str, Any]]:
    """Identities of a federation with these coordinators, and its roster."""
    names = dict.fromkeys(aggregators, "aggregator") | {collector: "collector"}
    clients = {f"client{i}": CLIENT for i in range(4)}
    identities = {name: Identity.generate(name) for name in [*names, *clients]}
    lines = [
        Line(name, role, identities[name].verify_key) for name, role in (names | clients).items()
    ]
    return identities, Roster.of(lines), names


def chosen(identities: Any, roles: dict[str, str], roster: Roster | None) -> Session:
    """What whoever forms the session makes of parties in these roles."""
    nonce = new_nonce()
    members = [identities[name].enrol(role, nonce).member for name, role in roles.items()]
    members += [identities[f"client{i}"].enrol(CLIENT, nonce).member for i in range(4)]
    protocol = Additive(aggregators=len(roles))
    return form_session(protocol, members, nonce, LAYOUT, min_cohort=2, roster=roster)


def test_who_forms_the_session_does_not_choose_who_receives_the_sum() -> None:
    """It may list the coordinators in either order, and enrol either as the collector."""
    identities, roster, roles = federation(["helper"], "trusted-registry")
    for turn in (1, -1):
        session = chosen(identities, dict(list(roles.items())[::turn]), roster)
        seen = Session.read(encode(session.header), roster)
        assert seen.of_role("collector") == ("trusted-registry",)
        assert Additive().client(
            seen, identities["client0"].enrol(CLIENT, session.nonce), lambda _: np.arange(3)
        )
    exchanged = {"helper": "collector", "trusted-registry": "aggregator"}
    with pytest.raises(InvalidSession, match="not on the roster in its role"):
        chosen(identities, exchanged, roster)
    other = chosen(identities, exchanged, None)
    with pytest.raises(InvalidSession, match="over another roster"):
        Session.read(encode(other.header), roster)
    with pytest.raises(InvalidSession, match="'helper' is not known in the role 'collector'"):
        Session.read(encode(other.header), roster, thin=other.thin)
    # Out of order in the header, too.
    turned = msgspec.structs.replace(session.header, coordinators=session.header.coordinators[::-1])
    with pytest.raises(InvalidSession, match="coordinators are not sorted by name"):
        Session.read(encode(turned), roster)


def test_of_the_pinned_aggregators_all_take_part() -> None:
    """Else whoever forms the session picks those that work together."""
    identities, roster, roles = federation(["helper", "third"], "trusted-registry")
    whole = chosen(identities, roles, roster)
    assert Session.read(encode(whole.header), roster).of_role("aggregator") == ("helper", "third")
    for left_out in ("helper", "third"):
        some = {name: role for name, role in roles.items() if name != left_out}
        for known in (roster, None):
            session = chosen(identities, some, known)
            with pytest.raises(
                InvalidSession, match=r"in role 'aggregator' are not all .* for it: helper, third"
            ):
                Session.read(encode(session.header), roster, thin=session.thin)
    # A role that this protocol does not have may be pinned all the same.
    witness = Line("witness", "key_holder", bytes(32))
    more = Roster.of([*roster.lines, witness])
    assert Session.read(encode(whole.header), more, thin=whole.thin).id == whole.id


def test_two_collectors_are_refused_by_the_protocol() -> None:
    identities, _, roles = federation(["helper"], "trusted-registry")
    session = chosen(identities, {**roles, "helper": "collector"}, None)
    with pytest.raises(InvalidSession, match=r"coordinators \['collector', 'collector'\], wanted"):
        Additive().check(session)
    with pytest.raises(InvalidSession, match="2 parties in role 'collector', wanted 1"):
        receiver_of(Additive(), session)


def test_the_receiver_is_the_one_party_of_its_role() -> None:
    assert receiver_of(Plain(), SESSION) == SESSION.line("server")
    with pytest.raises(InvalidSession, match="0 parties in role 'collector', wanted 1"):
        receiver_of(Additive(), SESSION)


# What coordinators check


def test_coordinators_have_the_enrolments_of_the_hash_in_order() -> None:
    members = SESSION.members
    assert members is not None
    data = encode(HEADER)
    assert Session.read(data, ROSTER, members=members).members == members
    assert HEADER.enrolments == enrolments_digest(members)
    by_hand = hashlib.sha256(b"secure-afl/2 enrolments" + b"".join(map(encode, members)))
    assert HEADER.enrolments == by_hand.digest()
    again = enrolled(WORLD.enrolments["client0"].identity)
    for other, reason in (
        (members[::-1], "out of order"),
        (members[1:], "enrolments of other clients"),
        ((*members, again), "enrolments of other clients"),
        ((), "enrolments of other clients"),
        ((again, *members[1:]), "other enrolments than those of the session's hash"),
    ):
        with pytest.raises(InvalidSession, match=reason):
            Session.read(data, ROSTER, members=other)


def substituted(**changes: Any) -> tuple[Member, ...]:
    """The enrolments, with something else on the first client's line."""
    assert SESSION.members is not None
    first, *rest = SESSION.members
    return (msgspec.structs.replace(first, **changes), *rest)


def test_whoever_forms_the_session_cannot_put_its_own_sealing_key_on_a_line() -> None:
    """Nor another bound, even with the hash to match."""
    victim, other = SESSION.member("client0"), SESSION.member("client1")
    mine = enrolled(Identity.generate(victim.name), victim.role)
    for members, wanted, reason in (
        (substituted(seal_key=mine.seal_key), BadKey, "'client0' is not endorsed"),
        (
            substituted(seal_key=mine.seal_key, endorsement=mine.endorsement),
            BadKey,
            "'client0' is not endorsed",
        ),
        (substituted(seal_key=other.seal_key), BadKey, "'client0' is not endorsed"),
        (substituted(endorsement=other.endorsement), BadKey, "'client0' is not endorsed"),
        (substituted(endorsement=b""), BadKey, "'client0' is not endorsed"),
        (substituted(bound=1), BadKey, "'client0' is not endorsed"),
        (substituted(role="witness"), InvalidSession, "with another key than pinned"),
        (substituted(name="somebody"), InvalidSession, "enrolments of other clients"),
        (substituted(verify_key=mine.verify_key), InvalidSession, "another key than pinned"),
        ((mine, *substituted()[1:]), InvalidSession, "another key than pinned"),
    ):
        header = msgspec.structs.replace(HEADER, enrolments=enrolments_digest(members))
        with pytest.raises(wanted, match=reason):
            Session(header, ROSTER, members)
        # A client has the hash only; it is the coordinators who must look.
        assert Session(header, ROSTER).clients == SESSION.clients


@pytest.mark.parametrize(
    "changes", [{"seal_key": b""}, {"endorsement": bytes(64)}, {"bound": 1}, {"verify_key": b""}]
)
def test_coordinators_are_checked_by_everybody(changes: dict[str, Any]) -> None:
    """Clients seal to them."""
    (server,) = HEADER.coordinators
    altered = msgspec.structs.replace(server, **changes)
    with pytest.raises((BadKey, InvalidSession), match=r"server|not on the roster"):
        Session.read(header_with(coordinators=(altered,)), ROSTER)


def test_coordinators_declare_no_bound_and_are_there_once() -> None:
    identity = WORLD.enrolments["server"].identity
    bounded = identity.enrol("server", SESSION.nonce, 1).member
    with pytest.raises(InvalidSession, match="'server' is no client and declares a bound"):
        Session.read(header_with(coordinators=(bounded,)), ROSTER)
    with pytest.raises(InvalidSession, match="one is there twice"):
        Session.read(header_with(coordinators=HEADER.coordinators * 2), ROSTER)
    client = SESSION.member("client0")
    with pytest.raises(InvalidSession, match="not on the roster in its role"):
        Session.read(header_with(coordinators=(client, *HEADER.coordinators)), ROSTER)


def test_endorsements_do_not_outlive_their_nonce() -> None:
    with pytest.raises(BadKey, match="enrol the party again"):
        WORLD.with_terms(nonce=new_nonce())
    stale = enrolled(WORLD.enrolments["client0"].identity, nonce=new_nonce())
    with pytest.raises(BadKey, match="'client0'"):
        WORLD.with_members([*others("client0"), stale])


# Lengths and versions, before anything else


def peak_of_refusing(data: bytes, reason: str, **options: Any) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match=reason):
            Session.read(data, ROSTER, **options)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_header_over_the_limit_is_not_decoded() -> None:
    # An array of as many coordinators as its bytes hold, which would be much larger as objects.
    long = b"\xdc\x00\x10\x02" + b"\xdd" + (10**8).to_bytes(4, "big") + b"\x90" * 10**8
    reason = rf"a session of {len(long)} bytes, allowed: ≤ {MAX_SESSION_BYTES}$"
    assert peak_of_refusing(long, reason) < 10**6


def test_terms_over_64_kb_are_refused() -> None:
    def header(blocks: int) -> bytes:
        layout = Layout(tuple(Block(f"block{i:05}", 1, 0, 1) for i in range(blocks)))
        return header_with(layout=layout)

    for blocks in (100, 2500):
        assert Session.read(header(blocks), ROSTER).layout.length == blocks
    assert MAX_TERMS_BYTES < len(header(2800)) < MAX_SESSION_BYTES
    with pytest.raises(Malformed, match=rf"terms of \d+ bytes, allowed: ≤ {MAX_TERMS_BYTES}$"):
        Session.read(header(2800), ROSTER)
    with pytest.raises(Malformed, match="SessionHeader"):
        Session.read(header_with(parameters=bytes(4097)), ROSTER)


def test_the_most_coordinators_and_clients_fit_the_limit() -> None:
    """What does not count as terms is bounded by its own lengths."""
    role = "r" * 64
    member = enrolled(Identity.generate("n" * 64), role)
    longest = len(encode(msgspec.structs.replace(member, bound=2**63 - 1)))
    bits = bytes(12_501)
    assert MAX_TERMS_BYTES + MAX_COORDINATORS * longest + 2 * len(bits) <= MAX_SESSION_BYTES
    for changes in (
        {"participants": bits + b"\0"},
        {"same_set": bits + b"\0"},
        {"coordinators": HEADER.coordinators * (MAX_COORDINATORS + 1)},
    ):
        with pytest.raises(Malformed, match="not a SessionHeader"):
            read_header(header_with(**changes))


def test_a_list_that_is_too_long_is_refused_before_its_digest() -> None:
    thin = bytes(MAX_ROSTER_BYTES + 1)
    pinned = Roster.of(ROSTER.lines, 1)
    with pytest.raises(Malformed, match=r"a roster of \d+ bytes, allowed"):
        Session.read(encode(HEADER), pinned, thin=thin)


@pytest.mark.parametrize("version", [0, 1, 3, 127])
def test_another_version_is_refused_with_both_named(version: int) -> None:
    """Every version's header is an array that begins with its version; the rest is its own."""
    first = (version, "plain", b"", bytes(32), LAYOUT, 3, 1, bytes(32), WORLD.members)
    for data in (encode(first), encode((version,)), header_with(version=version)):
        assert wire_version(data) == version
        with pytest.raises(
            InvalidSession, match=rf"^wire version {version}, wanted {WIRE_VERSION}\. .*the same"
        ):
            Session.read(data, ROSTER)


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x02", b"\x90", b"\x91\xa1a", b"\x91\xff"])
def test_what_is_no_header_of_any_version_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed, match="not a header of any version"):
        Session.read(data, ROSTER)
    with pytest.raises(Malformed, match="not a SessionHeader"):
        Session.read(b"\x91\x02" + data, ROSTER)


def test_a_header_is_read_canonically() -> None:
    data = encode(HEADER)
    for other in (
        data + b"\0",
        data[:-1],
        b"\xdc\x00\x10" + data[3:-1],
        data[:3] + b"\xcc" + data[3:],
    ):
        with pytest.raises(Malformed):
            Session.read(other, ROSTER)


# Two sums, and what lies between them


LAST = SESSION.clients[:4]


@pytest.mark.parametrize("now", [(0, 1, 2, 3), (0, 1, 2), (0, 1, 2, 3, 4), (0, 1, 4), (4,), ()])
def test_one_set_is_that_set_and_no_other(now: tuple[int, ...]) -> None:
    """Sets that differ by many will not do: two of three sums may differ by one client."""
    names = [SESSION.clients[place] for place in now]
    for session in (
        WORLD.with_terms(same_set=SESSION.bits(LAST)),
        WORLD.as_client(same_set=SESSION.bits(LAST)),
    ):
        assert session.allows(names) == (now == (0, 1, 2, 3))
        assert session.allows(names[::-1]) == (now == (0, 1, 2, 3))
    assert SESSION.allows(names)


def test_the_set_may_hold_clients_that_take_no_part_now() -> None:
    """The roster is the run's; without a client that left there is no further sum."""
    session = WORLD.with_members(
        others("client4"), roster=ROSTER, same_set=ROSTER.bits(SESSION.clients)
    )
    assert session.clients == LAST
    assert not session.allows(LAST)


PROTOCOLS: tuple[Protocol, ...] = (
    *(Plain(), Additive(), Additive(aggregators=3), Ckks(), Bfv()),
    Pairwise(0.0, 0.5, "curious"),
)
NAMES = ["plain", "additive of two", "additive of three", "ckks", "bfv", "pairwise"]
COHORT = 3
ANOTHER = pytest.mark.parametrize(
    ("last", "lost"),
    [(range(7), (6,)), (range(6), ()), (range(1, 7), (1,)), (range(7), (5, 6))],
    ids=["one fewer", "one more", "another one", "two fewer"],
)


def after(protocol: Protocol, last: Iterable[int]) -> World:
    """A round of seven clients, after one over the clients at these places."""
    world = make_world(protocol, [np.arange(3)] * 7, LAYOUT, min_cohort=COHORT, corrupt=1)
    bits = world.session.bits(world.session.clients[place] for place in last)
    return world.under(world.with_terms(same_set=bits))


def without(world: World, lost: Iterable[int], *, blind: Iterable[str] = ()) -> Outcome:
    """The round, in which some upload nothing and some coordinators lie.

    Those that are blind go on whatever the set is.
    """
    parties = world.parties()
    for party in parties:
        if party.name in blind:
            party._check_set = lambda names, step: None  # type: ignore[method-assign]
    clients = world.session.clients
    vanish = {clients[place]: world.protocol.upload_step for place in lost}
    return run(world, FaultPlan(vanish=vanish), parties)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=NAMES)
@pytest.mark.parametrize(("last", "lost"), [(range(7), ()), (range(5), (5, 6))])
def test_the_one_set_is_released(
    protocol: Protocol, last: Iterable[int], lost: tuple[int, ...]
) -> None:
    world = after(protocol, last)
    wanted = [c for place, c in enumerate(world.session.clients) if place not in lost]
    assert without(world, lost).included == tuple(wanted)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=NAMES)
@ANOTHER
def test_another_set_is_refused(
    protocol: Protocol, last: Iterable[int], lost: tuple[int, ...]
) -> None:
    world = after(protocol, last)
    outcome = without(world, lost)
    error = outcome.error
    assert isinstance(error, AnotherSet)
    assert "other clients than in the run's first sum" in str(error)
    assert "--no-same-set" in str(error)
    # It is over for this party: it says nothing that opens a sum, now or later.
    assert world.load(error.party, outcome.transcript[error.party].held[-1]).pending() == []
    # Without a set there is no objection.
    assert without(world.under(world.with_terms(same_set=b"")), lost).total is not None


@pytest.mark.parametrize(
    ("protocol", "honest"),
    [
        (Plain(), "server"),
        (Additive(), "collector"),
        (Additive(), "aggregator_1"),
        (Additive(aggregators=3), "collector"),
        (Additive(aggregators=3), "aggregator_1"),
        (Additive(aggregators=3), "aggregator_2"),
        (Ckks(), "server"),
        (Ckks(), "key_holder"),
        (Bfv(), "server"),
        (Bfv(), "key_holder"),
        (Pairwise(0.0, 0.3, "lying"), "server"),
    ],
    ids=str,
)
@ANOTHER
def test_one_honest_coordinator_is_enough_to_refuse(
    protocol: Protocol, honest: str, last: Iterable[int], lost: tuple[int, ...]
) -> None:
    world = after(protocol, last)
    blind = {*world.names} - {honest}
    outcome = without(world, lost, blind=blind)
    assert outcome.total is None
    error = outcome.network.aborts[honest]
    assert isinstance(error, AnotherSet)
    assert error.party == honest
    # Nobody is left to refuse: the session that they form is open.
    assert without(world, lost, blind=[*blind, honest]).total is not None


@pytest.mark.parametrize("trust", ["curious", "lying"])
@ANOTHER
def test_pairwise_clients_refuse_other_survivors(
    trust: Literal["curious", "lying"], last: Iterable[int], lost: tuple[int, ...]
) -> None:
    """The server is not to be trusted with it: clients that are shown them sign nothing."""
    world = after(Pairwise(0.0, 0.3, trust), last)
    outcome = without(world, lost, blind=["server"])
    assert outcome.total is None
    assert isinstance(outcome.network.aborts["server"], BelowThreshold), "no client signed"
    asked = [c for place, c in enumerate(world.session.clients) if place not in lost]
    assert {*outcome.network.aborts} == {"server", *asked}
    for name in asked:
        error = outcome.network.aborts[name]
        assert isinstance(error, AnotherSet)
        assert (error.party, error.step) == (name, "survivors")
    assert without(world, lost, blind=["server", *asked]).total is not None


# Forming one


def test_nonces_are_fresh() -> None:
    nonces = {new_nonce() for _ in range(100)}
    assert len(nonces) == 100
    assert {len(nonce) for nonce in nonces} == {32}


def test_a_client_may_not_take_a_coordinators_name() -> None:
    clients = {name: Identity.generate(name) for name in ("a", "server")}
    with pytest.raises(InvalidSession, match="server"):
        enrol(Plain(), clients, new_nonce())


def test_enrolled_parties_form_a_session() -> None:
    nonce = new_nonce()
    clients = {name: Identity.generate(name) for name in ("a", "b")}
    enrolments = enrol(Plain(), clients, nonce, bounds={"b": 7})
    members = [enrolment.member for enrolment in enrolments.values()]
    session = form_session(Plain(), members, nonce, LAYOUT, min_cohort=2)
    assert session.clients == ("a", "b")
    assert session.of_role("server") == ("server",)
    assert [session.member(name).bound for name in ("a", "b", "server")] == [0, 7, 0]
    assert (session.header.round, session.header.attempt, session.header.void) == (1, 0, b"")
    again = form_session(Plain(), members[::-1], nonce, LAYOUT, min_cohort=2)
    assert again.id == session.id
    Plain().check(session)
    with pytest.raises(BadKey):
        form_session(Plain(), members, new_nonce(), LAYOUT, min_cohort=2)


def test_an_outsider_is_no_party() -> None:
    outsider = Identity.generate("outsider").enrol(CLIENT, SESSION.nonce)
    world = World(Plain(), SESSION, {"outsider": outsider}, {"outsider": np.arange(3)})
    with pytest.raises(ProtocolError, match="roster"):
        world.party("outsider")


def test_a_client_without_a_bit_is_no_party() -> None:
    """It is on the roster, by this key, and has not been enrolled."""
    session = WORLD.with_members(others("client1"), roster=ROSTER)
    world = World(Plain(), session, WORLD.enrolments, WORLD.vectors)
    with pytest.raises(InvalidSession, match="has no client of this name"):
        world.party("client1")
    assert world.party("client0").name == "client0"


def test_the_repr_is_short() -> None:
    assert repr(SESSION) == (
        f"<Session {SESSION.id.hex()[:16]} plain, round 1, 5 clients, 3 entries of 32 bits>"
    )


def test_an_enrolment_for_another_nonce_makes_no_party() -> None:
    world = make_world(Pairwise(dropout_fraction=0.0), [np.arange(3)] * 4, LAYOUT, min_cohort=3)
    identity = world.enrolments["client0"].identity
    with pytest.raises(InvalidSession, match="no client of this name and these keys"):
        world.protocol.client(
            world.as_client(), identity.enrol("client", bytes(32)), lambda _: np.arange(3)
        )


def test_a_coordinator_needs_the_clients_enrolments() -> None:
    for name in ("collector", "aggregator_1"):
        world = make_world(Additive(), [np.arange(3)] * 4, LAYOUT, min_cohort=3)
        with pytest.raises(InvalidSession, match=f"{name}: a coordinator needs the clients'"):
            world.protocol.coordinator(world.as_client(), world.enrolments[name])


def test_terms_that_nobody_could_read_are_not_formed() -> None:
    blocks = tuple(Block(f"block{i}", 1, 0, 2**40) for i in range(4000))
    with pytest.raises(Malformed, match=r"terms of \d+ bytes, allowed: ≤ 65536"):
        WORLD.with_terms(layout=Layout(blocks))


def test_strangers_are_refused_before_their_signatures_are_looked_at() -> None:
    """Each costs a third of a millisecond, and anybody may send a list of 100,000."""
    strangers = make_world(Plain(), [np.arange(3)] * 5, LAYOUT, min_cohort=3)
    bad = tuple(
        msgspec.structs.replace(m, endorsement=bytes(64)) for m in strangers.session.members or ()
    )
    header = msgspec.structs.replace(strangers.session.header, enrolments=enrolments_digest(bad))
    with pytest.raises(InvalidSession, match="is not known in the role"):
        Session.read(encode(header), ROSTER, thin=strangers.session.thin, members=bad)
