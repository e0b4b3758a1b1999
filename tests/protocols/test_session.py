"""The session's terms: what nobody may agree to is refused, and no two terms share an id."""

from typing import Any

import numpy as np
import pytest

from protocols import Block, Identity, Layout, Plain, Session, enrol, form_session, new_nonce
from protocols.codec import decode, encode
from protocols.errors import BadKey, InvalidSession, ProtocolError, UnknownSender
from tests.kit.worlds import World, make_world

LAYOUT = Layout((Block("all", 3, -100, 100),))
WORLD = make_world(Plain(), [np.arange(3)] * 5, LAYOUT, min_cohort=3, corrupt=1)
SESSION = WORLD.session


def enrolled(identity: Identity, role: str = "client", nonce: bytes = SESSION.nonce) -> Any:
    return identity.enrol(role, nonce).member


def test_the_id_changes_with_every_field() -> None:
    block = SESSION.layout.blocks[0]
    extra = enrolled(Identity.generate("extra"))
    first = SESSION.roster[0]
    again = enrolled(WORLD.enrolments[first.name].identity, first.role)
    other_role = enrolled(WORLD.enrolments[first.name].identity, "witness")
    changes: list[dict[str, Any]] = [
        {"protocol": "other"},
        {"parameters": b""},
        {"context": b"\1" + bytes(31)},
        {"min_cohort": 4},
        {"corrupt": 0},
        {"roster": (*SESSION.roster, extra)},
        {"roster": SESSION.roster[::-1]},
        {"roster": (again, *SESSION.roster[1:])},
        {"layout": Layout((Block("all", 4, -100, 100),))},
        {"layout": Layout((Block("All", 3, -100, 100),))},
        {"layout": Layout((Block("all", 3, -101, 100),))},
        {"layout": Layout((Block("all", 3, -100, 101),))},
        {"layout": Layout((Block("all", 3, -100, 100, 0.5),))},
        {"layout": Layout((block, Block("more", 1, 0, 1)))},
    ]
    if first.role == "client":
        changes.append({"roster": (other_role, *SESSION.roster[1:])})
    ids = [WORLD.with_terms(**change).id for change in changes]
    nonce = new_nonce()
    roster = tuple(enrolled(e.identity, e.member.role, nonce) for e in WORLD.enrolments.values())
    ids += [SESSION.id, WORLD.with_terms(nonce=nonce, roster=roster).id]
    assert len(set(ids)) == len(ids)
    assert {len(i) for i in ids} == {32}
    assert {*Session.__struct_fields__} == {
        "version", "nonce", *(field for change in changes for field in change)
    }  # fmt: skip


def test_equal_terms_have_equal_ids_across_processes() -> None:
    again = decode(encode(SESSION), Session)
    assert again == SESSION
    assert again.id == SESSION.id
    assert again.clients == SESSION.clients
    _ = SESSION.id, SESSION.clients  # what is cached is not encoded
    assert encode(again) == encode(SESSION)


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ({"version": 0}, "wire version 0, wanted 1"),
        ({"version": 2}, "wire version 2, wanted 1"),
        ({"nonce": b""}, "32 bytes"),
        ({"nonce": bytes(31)}, "32 bytes"),
        ({"context": b""}, "32 bytes"),
        ({"context": bytes(33)}, "32 bytes"),
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
        ({"roster": ()}, "with 0 clients"),
        ({"roster": (*SESSION.roster, SESSION.roster[0])}, "share a name or a signing key"),
    ],
)
def test_terms_that_no_party_may_agree_to(terms: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidSession, match=reason):
        WORLD.with_terms(**terms)


def test_the_least_cohort_is_the_corrupt_and_two() -> None:
    for corrupt in range(4):
        assert WORLD.with_terms(corrupt=corrupt, min_cohort=corrupt + 2).min_cohort == corrupt + 2
        with pytest.raises(InvalidSession, match="enrol more clients"):
            WORLD.with_terms(corrupt=corrupt, min_cohort=corrupt + 1)


def test_coordinators_do_not_count_as_clients() -> None:
    extra = tuple(enrolled(Identity.generate(f"extra{i}"), "witness") for i in range(3))
    session = WORLD.with_terms(roster=(*SESSION.roster, *extra))
    assert session.clients == SESSION.clients
    with pytest.raises(InvalidSession, match=r"allowed: 3\.\.5"):
        WORLD.with_terms(roster=session.roster, min_cohort=6)


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
            WORLD.with_terms(roster=(*SESSION.roster, member))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a" * 65,
        "a b",
        "a\n",
        "\n",
        "a\x00",
        "ä",
        "\u202eb",
        "a\x7f",
        "\ta",
        "a/b",
        "..",
        ".a",
        "-a",
        "a'",
    ],
)
def test_names_are_safe_in_paths_and_logs(name: str) -> None:
    member = enrolled(Identity.generate(name))
    with pytest.raises(InvalidSession, match="1 to 64 of A-Z") as caught:
        WORLD.with_terms(roster=(*SESSION.roster, member))
    assert str(caught.value).isprintable()


def test_the_roster_has_a_bound() -> None:
    with pytest.raises(InvalidSession, match="100001 parties"):
        WORLD.with_terms(roster=SESSION.roster[:1] * 100_001)


# Endorsements on the roster


def substituted(**changes: Any) -> tuple[Any, ...]:
    first = SESSION.roster[0]
    fields = {field: getattr(first, field) for field in type(first).__struct_fields__}
    return (type(first)(**(fields | changes)), *SESSION.roster[1:])


def test_whoever_forms_the_session_cannot_put_its_own_sealing_key_on_a_line() -> None:
    victim = SESSION.roster[0]
    mine = enrolled(Identity.generate(victim.name), victim.role)
    for roster in (
        substituted(seal_key=mine.seal_key),
        substituted(seal_key=mine.seal_key, endorsement=mine.endorsement),
        substituted(seal_key=SESSION.roster[1].seal_key),
        substituted(endorsement=SESSION.roster[1].endorsement),
        substituted(endorsement=b""),
        substituted(role="witness"),
        substituted(name="somebody"),
        substituted(verify_key=mine.verify_key),
    ):
        with pytest.raises((BadKey, InvalidSession)):
            WORLD.with_terms(roster=roster)
    with pytest.raises(BadKey, match=f"'{victim.name}' is not endorsed for this session"):
        WORLD.with_terms(roster=substituted(seal_key=mine.seal_key))


def test_endorsements_do_not_outlive_their_nonce() -> None:
    with pytest.raises(BadKey, match="enrol the party again"):
        WORLD.with_terms(nonce=new_nonce())


def test_a_member_enrolled_under_another_nonce_is_refused() -> None:
    stale = enrolled(WORLD.enrolments["client0"].identity, nonce=new_nonce())
    roster = tuple(stale if m.name == "client0" else m for m in SESSION.roster)
    with pytest.raises(BadKey, match="'client0'"):
        WORLD.with_terms(roster=roster)


def test_a_decoded_session_is_checked_like_any_other() -> None:
    fields = [getattr(SESSION, field) for field in Session.__struct_fields__]
    at = Session.__struct_fields__.index("min_cohort")
    with pytest.raises(ProtocolError, match="minimum cohort 1"):
        decode(encode((*fields[:at], 1, *fields[at + 1 :])), Session)


# Looking up


def test_members_are_found_by_name() -> None:
    for member in SESSION.roster:
        assert SESSION.member(member.name) is member
    for name in ("nobody", "", "CLIENT0", "client0 "):
        with pytest.raises(UnknownSender) as caught:
            SESSION.member(name)
        assert "nobody" not in str(caught.value)


def test_roles_keep_the_order_of_the_roster() -> None:
    assert SESSION.clients == tuple(f"client{i}" for i in range(5))
    assert WORLD.with_terms(roster=SESSION.roster[::-1]).clients == SESSION.clients[::-1]
    assert SESSION.of_role("server") == ("server",)
    assert SESSION.of_role("nobody") == ()


def test_the_repr_is_short() -> None:
    assert repr(SESSION) == (
        f"<Session {SESSION.id.hex()[:16]} plain, 5 clients, 3 entries of 32 bits>"
    )


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
    enrolments = enrol(Plain(), {n: Identity.generate(n) for n in ("a", "b")}, nonce)
    session = form_session(Plain(), enrolments, nonce, LAYOUT, min_cohort=2)
    assert session.clients == ("a", "b")
    assert session.of_role("server") == ("server",)
    Plain().check(session)
    with pytest.raises(BadKey):
        form_session(Plain(), enrolments, new_nonce(), LAYOUT, min_cohort=2)


def test_an_outsider_is_no_party() -> None:
    outsider = Identity.generate("outsider").enrol("client", SESSION.nonce)
    world = World(Plain(), SESSION, {"outsider": outsider}, {"outsider": np.arange(3)})
    with pytest.raises(ProtocolError, match="roster"):
        world.party("outsider")
