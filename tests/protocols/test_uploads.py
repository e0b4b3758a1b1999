"""Lists of uploads: bits and digests that name each client once, whatever order they came in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import Additive, Block, Layout
from protocols.codec import decode, encode
from protocols.errors import InvalidSession, Malformed
from protocols.roster import Line, Roster
from protocols.uploads import DIGEST_BYTES, Upload, Uploads, in_order, uploads_bytes
from tests.kit.worlds import World, make_world

LAYOUT = Layout((Block("all", 3, -100, 100),))
CLIENTS = 11
WORLD: World = make_world(Additive(), [np.arange(3)] * CLIENTS, LAYOUT, min_cohort=2)
# A federation of which one client takes no part: its place among the bits stays empty.
ABSENT = "client10a"
SESSION = WORLD.with_members(
    WORLD.members,
    roster=Roster.of([*(m.line for m in WORLD.members), Line(ABSENT, "client", bytes(32))]),
)

lists = st.lists(st.sampled_from(SESSION.clients), unique=True).map(
    lambda names: tuple(Upload(name, bytes([len(name) + at]) * 32) for at, name in enumerate(names))
)


def read(uploads: Uploads) -> tuple[Upload, ...]:
    return uploads.read(SESSION, "who", "when")


@given(lists)
def test_reading_inverts_writing(uploads: tuple[Upload, ...]) -> None:
    written = Uploads.of(SESSION, uploads)
    found = read(written)
    assert set(found) == set(uploads)
    assert found == in_order(SESSION, uploads)
    places = [SESSION.places[upload.client] for upload in found]
    assert places == sorted(places)
    assert written == Uploads.of(SESSION, uploads[::-1])
    assert decode(encode(written), Uploads) == written
    assert len(encode(written)) <= uploads_bytes(SESSION)


def test_the_whole_list_is_as_long_as_it_may_be() -> None:
    whole = Uploads.of(SESSION, [Upload(name, bytes(32)) for name in SESSION.clients])
    assert len(whole.clients) == 2
    assert len(whole.digests) == CLIENTS * DIGEST_BYTES
    assert uploads_bytes(SESSION) - 16 < len(encode(whole)) <= uploads_bytes(SESSION)


def test_a_list_names_clients_that_take_part() -> None:
    for stranger in ("nobody", "collector", ABSENT):
        with pytest.raises((InvalidSession, KeyError)):
            Uploads.of(SESSION, [Upload(stranger, bytes(32))])
    absent = SESSION.roster.bits([ABSENT])
    with pytest.raises(
        Malformed, match=r"^who at step 'when': a client that is not in the session"
    ):
        read(Uploads(absent, bytes(32)))


@given(st.binary(max_size=3), st.integers(0, 4), st.sampled_from([-1, 0, 0, 1]))
def test_any_bits_and_digests_are_one_list_or_none(clients: bytes, digests: int, odd: int) -> None:
    data = bytes(max(0, digests * DIGEST_BYTES + odd))
    uploads = Uploads(clients, data)
    try:
        found = read(uploads)
    except Malformed:
        return
    assert len(found) * DIGEST_BYTES == len(data)
    assert Uploads.of(SESSION, found) == uploads


@pytest.mark.parametrize(
    ("clients", "digests", "reason"),
    [
        (b"", b"", "wanted one bit for each of 12"),
        (b"\0\0\0", b"", "wanted one bit for each of 12"),
        (b"\0\x10", bytes(32), "wanted one bit for each of 12"),
        (b"\1\0", b"", "0 bytes of digests for 1 clients"),
        (b"\1\0", bytes(31), "31 bytes of digests for 1 clients"),
        (b"\1\0", bytes(64), "64 bytes of digests for 1 clients"),
        (b"\0\0", bytes(32), "32 bytes of digests for 0 clients"),
    ],
)
def test_lists_that_are_none(clients: bytes, digests: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        read(Uploads(clients, digests))
