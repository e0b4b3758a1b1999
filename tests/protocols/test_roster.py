"""The roster: one order, one encoding, and sets of clients as bits that mean one thing."""

import hashlib
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import Identity, Line, Roster
from protocols.codec import decode, encode
from protocols.errors import BadSignature, InvalidSession, Malformed
from protocols.roster import CLIENT, MAX_MEMBERS, MAX_ROSTER_BYTES, check_name, roster_digest
from tests.kit.worlds import mutations


def line(name: str, role: str = CLIENT, key: bytes | None = None) -> Line:
    """A line whose key nobody has."""
    return Line(name, role, hashlib.sha256(name.encode()).digest() if key is None else key)


NAMES = tuple(f"c{index}" for index in range(10))
LINES = (*map(line, NAMES), line("aggregator_1", "aggregator"), line("server", "server"))
ROSTER = Roster.of(LINES, 3)

sizes = st.integers(0, 40)


def roster_of(clients: int, coordinators: int = 1) -> Roster:
    """Clients whose order by name is not that of their numbers, between coordinators."""
    lines = [line(f"c{index}") for index in range(clients)]
    lines += [line(f"{'az'[index % 2]}{index}", "server") for index in range(coordinators)]
    return Roster.of(lines)


# What a roster may be


def test_lines_are_sorted_by_name_whatever_order_they_came_in() -> None:
    assert Roster.of(LINES[::-1], 3) == ROSTER
    names = [line.name for line in ROSTER.lines]
    assert names == sorted(names)
    assert [line.name for line in ROSTER.clients] == sorted(NAMES)
    assert ROSTER.by_name["server"].role == "server"
    with pytest.raises(InvalidSession, match="not sorted by name"):
        Roster(3, ROSTER.lines[::-1])
    with pytest.raises(InvalidSession, match="not sorted by name"):
        decode(encode((3, ROSTER.lines[::-1])), Roster)


def test_of_members_only_the_line_is_taken() -> None:
    member = Identity.generate("alice").enrol(CLIENT, bytes(32), bound=7).member
    roster = Roster.of([member])
    assert roster.lines == (member.line,)
    assert type(roster.lines[0]) is Line
    assert len(encode(roster)) < 60


def test_no_name_and_no_key_is_there_twice() -> None:
    """One signer under two names would count twice towards the minimum cohort."""
    twin = line("sybil", key=LINES[0].verify_key)
    namesake = line("c0", key=bytes(32))
    for extra in (LINES[0], twin, namesake, line("c0", "server", key=bytes(32))):
        with pytest.raises(InvalidSession, match="two parties share a name or a signing key"):
            Roster.of((*LINES, extra))


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
def test_a_key_has_32_bytes(key: bytes) -> None:
    with pytest.raises(InvalidSession, match="the signing key of 'short' must have 32 bytes"):
        Roster.of((*LINES, line("short", key=key)))


@pytest.mark.parametrize("number", [-1, 2**63, 1.0, True, None, "1"])
def test_a_number_is_an_int_from_zero(number: object) -> None:
    with pytest.raises(InvalidSession, match="number must be an int ≥ 0"):
        Roster.of(LINES, number)  # type: ignore[arg-type]


BAD_NAMES = [
    *("", "a" * 65, "a b", "a\n", "\n", "a\x00", "ä", "\u202eb", "a\x7f"),
    *("\ta", "a/b", "..", ".a", "-a", "a'", "_a"),
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_and_roles_are_safe_in_paths_and_logs(name: str) -> None:
    for bad in (line(name), line("fine", role=name)):
        with pytest.raises(InvalidSession, match="1 to 64 of A-Z") as caught:
            Roster.of((*LINES, bad))
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a", "9", "A.b_c-d", "a" * 64, "client0"])
def test_such_names_are_allowed(name: str) -> None:
    check_name(name)
    assert Roster.of([line(name, role=name)]).lines[0].name == name


def test_a_roster_has_a_bound() -> None:
    with pytest.raises(InvalidSession, match="100001 parties, allowed: ≤ 100000"):
        Roster(0, ROSTER.lines[:1] * (MAX_MEMBERS + 1))
    with pytest.raises(Malformed):
        decode(encode((0, ROSTER.lines[:1] * (MAX_MEMBERS + 1))), Roster)


def test_a_line_verifies_its_partys_signatures_only() -> None:
    alice, bob = Identity.generate("alice"), Identity.generate("bob")
    pinned = line("alice", key=alice.verify_key)
    pinned.verify(alice.sign(b"data"), b"data")
    for signature, data in (
        (bob.sign(b"data"), b"data"),
        (alice.sign(b"data"), b"other"),
        (b"", b"data"),
    ):
        with pytest.raises(BadSignature, match="not signed by 'alice'"):
            pinned.verify(signature, data)
    with pytest.raises(BadSignature):
        line("alice", key=b"").verify(alice.sign(b"data"), b"data")


# Its digest


def test_the_digest_is_of_the_canonical_bytes() -> None:
    by_hand = hashlib.sha256(b"secure-afl/2 roster" + encode(ROSTER)).digest()
    assert ROSTER.digest == roster_digest(encode(ROSTER)) == by_hand
    assert decode(encode(ROSTER), Roster) == ROSTER
    _ = ROSTER.clients, ROSTER.by_name  # what is cached is not encoded
    assert encode(decode(encode(ROSTER), Roster)) == encode(ROSTER)


def test_the_digest_changes_with_everything() -> None:
    others = [
        Roster.of(LINES, 4),
        Roster.of(LINES[1:], 3),
        Roster.of((*LINES[1:], line("c0", "server")), 3),
        Roster.of((*LINES[1:], line("c0", key=bytes(32))), 3),
        Roster.of((*LINES[1:], line("C0", key=LINES[0].verify_key)), 3),
        Roster.of((*LINES, line("more")), 3),
    ]
    digests = {roster.digest for roster in (ROSTER, *others)}
    assert len(digests) == 7


def test_a_roster_that_is_sent_is_read_for_its_digest_only() -> None:
    data = encode(ROSTER)
    assert Roster.read(data, ROSTER.digest) == ROSTER
    for digest in (Roster.of(LINES, 4).digest, bytes(32), b"", ROSTER.digest[:31]):
        with pytest.raises(Malformed, match="another digest than the session's"):
            Roster.read(data, digest)
    for other in (data + b"\0", data[:-1], b""):
        with pytest.raises(Malformed, match="another digest"):
            Roster.read(other, ROSTER.digest)


@settings(deadline=None)
@given(mutations())
def test_a_damaged_roster_is_refused(damage: Callable[[bytes], bytes]) -> None:
    """Even where somebody names the damaged bytes' own digest."""
    damaged = damage(encode(ROSTER))
    with pytest.raises(Malformed):
        Roster.read(damaged, ROSTER.digest)
    try:
        other = Roster.read(damaged, roster_digest(damaged))
    except (Malformed, InvalidSession):
        return
    assert other != ROSTER
    assert encode(other) == damaged


def test_too_long_a_roster_is_not_decoded() -> None:
    """Its length is looked at before its digest, its digest before its contents."""
    # A million empty arrays, which would be much larger as objects.
    data = b"\x92\x00\xdd" + (10**8).to_bytes(4, "big") + b"\x90" * MAX_ROSTER_BYTES
    digest = roster_digest(data)
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match=rf"bytes, allowed: ≤ {MAX_ROSTER_BYTES}$"):
            Roster.read(data, digest)
        within = data[:MAX_ROSTER_BYTES]
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        with pytest.raises(Malformed, match="another digest"):
            Roster.read(within, digest)
        # One copy of the bytes, to hash them.
        assert tracemalloc.get_traced_memory()[1] - before < 1.1 * MAX_ROSTER_BYTES
    finally:
        tracemalloc.stop()


def test_the_longest_roster_may_be_read() -> None:
    longest = Line("n" * 64, "r" * 64, bytes(32))
    assert len(encode(longest)) * MAX_MEMBERS + 16 <= MAX_ROSTER_BYTES


# Sets of clients as bits


@given(sizes, st.integers(0, 3), st.data())
def test_bits_and_names_are_inverse(clients: int, coordinators: int, data: st.DataObject) -> None:
    roster = roster_of(clients, coordinators)
    ordered = [line.name for line in roster.clients]
    chosen = data.draw(st.lists(st.sampled_from(ordered or ["none"]), unique=True))
    if not ordered:
        chosen = []
    bits = roster.bits(chosen)
    assert len(bits) == -(-clients // 8)
    assert roster.names(bits) == tuple(name for name in ordered if name in chosen)
    assert roster.names(bits) == tuple(name for name in ordered if name in chosen)  # remembered
    assert {name for name in roster.by_name if roster.has(bits, name)} == set(chosen)
    number = sum(1 << place for place, name in enumerate(ordered) if name in chosen)
    assert int.from_bytes(bits, "little") == number


def test_the_sets_that_a_roster_remembers_are_few() -> None:
    roster = roster_of(20)
    for name in roster.names(roster.bits(f"c{index}" for index in range(20))):
        assert roster.names(roster.bits([name])) == (name,)
        assert len(roster._known_sets) <= 8


@given(sizes, st.binary(max_size=8))
def test_bytes_are_one_set_or_none(clients: int, data: bytes) -> None:
    roster = roster_of(clients)
    number = int.from_bytes(data, "little")
    if len(data) == -(-clients // 8) and number < 2**clients:
        assert roster.bits(roster.names(data)) == data
        return
    with pytest.raises(Malformed, match=rf"wanted one bit for each of {clients}$") as caught:
        roster.names(data, party="who", step="when")
    assert str(caught.value).startswith("who at step 'when': ")


@pytest.mark.parametrize("clients", [1, 7, 8, 9, 15, 16, 17])
def test_padding_bits_are_zeros(clients: int) -> None:
    roster = roster_of(clients)
    whole = roster.bits(line.name for line in roster.clients)
    assert roster.names(whole) == tuple(line.name for line in roster.clients)
    for place in range(clients, 8 * len(whole)):
        padded = (int.from_bytes(whole, "little") | 1 << place).to_bytes(len(whole), "little")
        with pytest.raises(Malformed, match="wanted one bit"):
            roster.names(padded)
    for other in (whole + b"\0", whole[:-1]):
        with pytest.raises(Malformed, match="wanted one bit"):
            roster.names(other)


def test_bits_are_of_clients_only() -> None:
    assert ROSTER.bits([]) == b"\0\0"
    assert ROSTER.bits(["c0", "c0", "c9"]) == b"\1\2"
    for names in (["server"], ["nobody"], ["c0", ""], ["C0"]):
        with pytest.raises(InvalidSession, match="that the roster does not have"):
            ROSTER.bits(names)


def test_the_repr_is_short() -> None:
    assert repr(ROSTER) == f"<Roster 3 of 12 parties, {ROSTER.digest.hex()[:16]}>"
