"""What a receiver says about a sum: signed, over this sum, and chained from round to round."""

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import Block, Identity, Layout, Plain
from protocols.codec import decode, encode
from protocols.errors import BadSignature, InvalidSession, Malformed
from protocols.release import Release, commit, next_context, release_salt, sign_release
from protocols.roster import Line
from tests.kit.worlds import make_world, run

LAYOUT = Layout((Block("all", 3, -100, 100),))
WORLD = make_world(Plain(), [np.arange(3)] * 5, LAYOUT, min_cohort=3)
SESSION = WORLD.session
SERVER = WORLD.enrolments["server"].identity
RECEIVER = SESSION.line("server")
TOTAL = np.array([1, -2, 3])
SALT = release_salt(SESSION, SERVER)
RELEASE = sign_release(SESSION, SERVER, TOTAL, SESSION.clients[1:])

digests = st.binary(min_size=32, max_size=32)


def test_a_release_says_session_sum_and_clients() -> None:
    RELEASE.check(RECEIVER)
    assert RELEASE.session == SESSION.id
    assert RELEASE.total == commit(TOTAL, SALT)
    assert SESSION.names(RELEASE.included) == SESSION.clients[1:]
    assert len(RELEASE.signature) == 64
    assert decode(encode(RELEASE), Release) == RELEASE
    again = sign_release(SESSION, SERVER, TOTAL.copy(), reversed(SESSION.clients[1:]))
    assert encode(again) == encode(RELEASE)


@pytest.mark.parametrize(
    "changes",
    [
        {"session": bytes(32)},
        {"session": WORLD.with_terms(round=2).id},
        {"total": commit(np.array([1, -2, 4]), SALT)},
        {"total": commit(np.array([1, -2]), SALT)},
        {"total": commit(np.array([1, -2, 3, 0]), SALT)},
        {"included": SESSION.bits(SESSION.clients)},
        {"included": SESSION.bits(SESSION.clients[2:])},
        {"included": SESSION.bits(SESSION.clients[:4])},
        {"included": b""},
        {"signature": b""},
        {"signature": bytes(64)},
        {"signature": SERVER.sign(encode((SESSION.id, RELEASE.total, RELEASE.included)))},
    ],
)
def test_what_was_not_signed_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadSignature, match="not signed by 'server'"):
        msgspec.structs.replace(RELEASE, **changes).check(RECEIVER)


def test_parts_do_not_run_into_each_other() -> None:
    """A byte that moves from one field to the next is another statement."""
    moved = Release(
        RELEASE.session + RELEASE.total[:1],
        RELEASE.total[1:],
        RELEASE.included,
        RELEASE.signature,
    )
    with pytest.raises(BadSignature):
        moved.check(RECEIVER)
    with pytest.raises(Malformed, match="not a Release"):
        decode(encode(moved), Release)


def test_only_the_receivers_key_will_do() -> None:
    for name in SESSION.clients:
        with pytest.raises(BadSignature, match=f"not signed by '{name}'"):
            RELEASE.check(SESSION.line(name))
    with pytest.raises(BadSignature):
        RELEASE.check(Line("server", "server", Identity.generate("server").verify_key))
    by_client = sign_release(
        SESSION, WORLD.enrolments["client0"].identity, TOTAL, SESSION.clients[1:]
    )
    with pytest.raises(BadSignature):
        by_client.check(RECEIVER)


def test_a_release_names_clients_of_the_roster() -> None:
    for names in (["server"], ["nobody"]):
        with pytest.raises(InvalidSession):
            sign_release(SESSION, SERVER, TOTAL, names)


def test_a_signature_over_anything_else_is_no_release() -> None:
    """Headers, enrolments and releases are signed by one key, each under its own tag."""
    outcome = run(WORLD)
    assert outcome.total is not None
    signatures = [WORLD.enrolments["server"].member.endorsement]
    signatures += [
        decode(d, tuple[bytes, bytes, bytes])[1] for d in outcome.transcript["client0"].sent
    ]
    for signature in signatures:
        with pytest.raises(BadSignature):
            msgspec.structs.replace(RELEASE, signature=signature).check(RECEIVER)


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=6),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=6),
)
def test_totals_have_digests_of_their_own(one: list[int], two: list[int]) -> None:
    first, second = (np.array(total, dtype=np.int64) for total in (one, two))
    assert (commit(first, SALT) == commit(second, SALT)) == (one == two)
    assert len(commit(first, SALT)) == 32
    assert commit(np.repeat(first, 2)[::2], SALT) == commit(first, SALT)
    assert commit(first, bytes(32)) != commit(first, SALT)


def test_a_release_tells_nobody_the_total_who_can_guess_it() -> None:
    """The salt is the receiver's alone, another in every session, and the same after a restart."""
    assert RELEASE.total != commit(TOTAL, b"")
    assert release_salt(SESSION, SERVER) == SALT != release_salt(WORLD.with_terms(round=2), SERVER)
    other = release_salt(SESSION, WORLD.enrolments["client0"].identity)
    assert RELEASE.total != commit(TOTAL, other)
    outcome = run(WORLD)
    for record in outcome.transcript.values():
        for data in (*record.sent, *record.received):
            assert SALT not in data


# The chain of a run's rounds


@given(digests, digests, digests, digests)
def test_the_next_context_changes_with_each_input(
    context: bytes, state: bytes, total: bytes, session: bytes
) -> None:
    release = msgspec.structs.replace(RELEASE, total=total, session=session)
    other = bytes([context[0] ^ 1]) + context[1:]
    chained = {
        next_context(context, release, state),
        next_context(other, release, state),
        next_context(context, release, bytes([state[0] ^ 1]) + state[1:]),
        *(
            next_context(context, msgspec.structs.replace(release, **change), state)
            for change in (
                {"total": bytes([total[0] ^ 1]) + total[1:]},
                {"session": bytes([session[0] ^ 1]) + session[1:]},
                {"included": SESSION.bits(SESSION.clients)},
                {"included": b""},
            )
        ),
    }
    assert len(chained) == 7
    assert {len(digest) for digest in chained} == {32}


def test_whoever_has_the_same_history_has_the_same_context() -> None:
    """The signature is left out: it is the same each time, and says nothing more."""
    unsigned = msgspec.structs.replace(RELEASE, signature=b"")
    one, two = (next_context(bytes(32), said, b"s" * 32) for said in (RELEASE, unsigned))
    assert one == two
    assert next_context(one, RELEASE, b"s" * 32) != one
