"""A seat starts once, whatever happens to its process or its folder."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from protocols import Additive, Bfv, Ckks, Identity, Pairwise, Plain, Protocol, form_session
from protocols.codec import decode, encode
from protocols.errors import (
    BadSavedState,
    BadSignature,
    Busy,
    InvalidSession,
    NotStored,
    NotVoidable,
    SeatEnded,
    UnknownSender,
)
from protocols.message import Message
from protocols.party import State
from protocols.roster import CLIENT
from protocols.schemes.additive.client import AdditiveClient
from protocols.seats.seat import Seat
from protocols.seats.seats import Seats
from protocols.seats.spool import JournalSpool
from tests.kit.seats import Act, Table, deliver, in_child, killed_at

EVERY = [
    Plain(),
    Additive(),
    Additive(3),
    Pairwise(dropout_fraction=0.0),
    Ckks(),
    Bfv(),
]
every = pytest.mark.parametrize("protocol", EVERY, ids=repr)


@every
def test_parties_that_restart_at_every_event_reach_the_sum(
    protocol: Protocol, tmp_path: Path
) -> None:
    table = Table(protocol, tmp_path)
    released = table.run()
    assert np.array_equal(released.total, table.truth)
    assert set(table.computed.values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [Additive(), Pairwise(dropout_fraction=0.0)], ids=repr)
def test_a_party_killed_at_any_write_goes_on(protocol: Protocol, tmp_path: Path) -> None:
    kill_at_every_write(protocol, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [Plain(), Additive(3), Ckks(), Bfv()], ids=repr)
def test_a_party_of_any_protocol_killed_at_any_write_goes_on(
    protocol: Protocol, tmp_path: Path
) -> None:
    kill_at_every_write(protocol, tmp_path)


def kill_at_every_write(protocol: Protocol, folder: Path) -> None:
    table = Table(protocol, folder)
    kills = 0

    def before(name: str, act: Act) -> None:
        nonlocal kills

        def work() -> None:
            with table.seats[name].open(table.nonce) as seat:
                act(seat)

        for write in range(1, 20):
            if not killed_at(write, work):
                return
            kills += 1

    table.before = before
    released = table.run()
    assert np.array_equal(released.total, table.truth)
    assert kills > 12


def test_hello_killed_at_any_write_answers_once(tmp_path: Path) -> None:
    identity, nonce = Identity.generate("north"), bytes(32)
    seats = Seats(tmp_path, identity)
    for write in range(1, 12):
        if not killed_at(write, lambda: seats.hello(CLIENT, nonce)):
            break
    assert write >= 3
    with seats.hello(CLIENT, nonce, 0) as seat:
        first = seat.member
    with seats.hello(CLIENT, nonce, 0) as seat:
        assert seat.member == first
    first.check(nonce)


# One session, ever


def test_a_seat_that_is_bound_joins_no_other_session(tmp_path: Path) -> None:
    """Joined twice, a client once gave two sums over different sets (and other noise in each)."""
    table = Table(Additive(), tmp_path)
    table.act("client0")
    members = [member for member in table.session.everybody if member.name != "client3"]
    other = form_session(Additive(), members, table.nonce, table.session.layout, min_cohort=3)
    for name in ("client0",):
        with (
            table.seats[name].open(table.nonce) as seat,
            pytest.raises(InvalidSession, match=f"{name}: this seat is bound to another session"),
        ):
            table.join(seat, other)


def test_an_aggregator_started_twice_opens_no_second_set(tmp_path: Path) -> None:
    """From one enrolment it once agreed on two sets, whose difference is one client."""
    table = Table(Additive(), tmp_path)
    table.run()
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "aggregator_1", copy)
    again = Seats(copy, table.identities["aggregator_1"])
    with pytest.raises(BadSavedState, match="was copied"):
        again.open(table.nonce)
    # From what hello stored alone, as by a process that believes it is the first.
    folder = tmp_path / "aggregator_1" / table.nonce.hex()
    (folder / "journal").unlink()
    with (
        table.seats["aggregator_1"].open(table.nonce) as seat,
        pytest.raises(BadSavedState, match="its journal is gone"),
    ):
        table.join(seat)
    with pytest.raises(SeatEnded, match="its journal is gone"):
        table.seats["aggregator_1"].open(table.nonce)
    with pytest.raises(SeatEnded):
        table.seats["aggregator_1"].hello("aggregator", table.nonce)


def test_two_processes_at_once_are_told_apart(tmp_path: Path) -> None:
    table = Table(Plain(), tmp_path)
    with table.seats["client0"].open(table.nonce):
        with pytest.raises(Busy, match="another process"):
            table.seats["client0"].open(table.nonce)

        def elsewhere() -> None:
            with pytest.raises(Busy):
                table.seats["client0"].open(table.nonce)

        assert in_child(elsewhere) == 0
    table.act("client0")


def test_a_first_join_seals_an_upload_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = []
    outbox = AdditiveClient._outbox

    def counted(party: AdditiveClient, state: State) -> list[Message]:
        sealed.append(party.name)
        return outbox(party, state)

    monkeypatch.setattr(AdditiveClient, "_outbox", counted)
    table = Table(Additive(), tmp_path)
    first = table.act("client0")
    assert sealed == ["client0"]
    assert table.act("client0") == first


def test_a_vector_is_computed_once_though_the_rows_have_changed(tmp_path: Path) -> None:
    table = Table(Plain(), tmp_path)
    (first,) = table.act("client0")
    table.vectors["client0"] = table.vectors["client0"] + 1
    (again,) = table.act("client0")
    assert again == first
    assert table.computed["client0"] == 1


# What is damaged does not go on


def test_a_torn_last_record_is_dropped_and_any_other_damage_ends_the_seat(tmp_path: Path) -> None:
    table = Table(Plain(), tmp_path)
    uploads = {name: table.act(name)[0] for name in table.vectors}
    table.act("server")
    for name in ("client0", "client1"):
        table.act("server", lambda seat, data=uploads[name]: deliver(seat, data))  # type: ignore[misc]
    journal = tmp_path / "server" / table.nonce.hex() / "journal"
    whole = journal.read_bytes()
    with journal.open("r+b") as file:  # in place, as a power cut would
        file.truncate(len(whole) - 7)
    with table.seats["server"].open(table.nonce) as seat:
        table.join(seat)
        seat.deliver(uploads["client1"])  # once more: it was never answered
    with journal.open("r+b") as file:
        file.seek(len(whole) // 2)
        byte = file.read(1)
        file.seek(len(whole) // 2)
        file.write(bytes([byte[0] ^ 1]))
    with (
        table.seats["server"].open(table.nonce) as seat,
        pytest.raises(BadSavedState, match="has ended: the journal of this seat is damaged"),
    ):
        table.join(seat)
    with pytest.raises(SeatEnded):
        table.seats["server"].open(table.nonce)


@pytest.mark.parametrize("name", ["enrolment", "key", "vector"])
def test_other_files_that_are_damaged_are_refused(name: str, tmp_path: Path) -> None:
    table = Table(Plain(), tmp_path)
    table.act("client0")
    path = tmp_path / "client0" / table.nonce.hex() / name
    path.chmod(0o600)
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    with pytest.raises(BadSavedState, match="damaged"):
        table.act("client0")


def test_records_in_another_order_or_taken_out_end_the_seat(tmp_path: Path) -> None:
    table = Table(Plain(), tmp_path)
    journal = tmp_path / "server" / table.nonce.hex() / "journal"
    table.act("server")
    edges = [journal.stat().st_size]
    for name in table.vectors:
        (data,) = table.act(name)
        table.act("server", lambda seat, data=data: deliver(seat, data))  # type: ignore[misc]
        edges.append(journal.stat().st_size)
    whole = journal.read_bytes()
    a, b, c = (whole[edges[i] : edges[i + 1]] for i in range(3))
    for bent in (b + a, c, a + c, a + a):
        with journal.open("r+b") as file:
            file.write(whole[: edges[0]] + bent)
            file.truncate()
        # The very files, for a seat knows copies of them.
        kept = tmp_path / "kept"
        shutil.copytree(journal.parent, kept, copy_function=os.link)
        with (
            table.seats["server"].open(table.nonce) as seat,
            pytest.raises(BadSavedState, match=r"journal.* of this seat is damaged"),
        ):
            table.join(seat)
        for path in kept.iterdir():
            path.rename(journal.parent / path.name)
        (journal.parent / "ended").unlink()
        kept.rmdir()


def test_a_message_that_others_have_and_the_seat_does_not_know_ends_it(tmp_path: Path) -> None:
    """The journal was put back to an earlier state, in place, where no copy shows."""
    table = Table(Additive(), tmp_path)
    journal = tmp_path / "aggregator_1" / table.nonce.hex() / "journal"
    table.act("aggregator_1")
    early = journal.read_bytes()
    table.run()
    said = table.said["aggregator_1"]["collector", "verified"]
    theirs = table.said["collector"]["aggregator_1", "verified"]
    with table.seats["aggregator_1"].open(table.nonce) as seat:
        table.join(seat)
        seat.confront(said)
        with pytest.raises(UnknownSender):
            seat.confront(theirs)
    with journal.open("r+b") as file:
        file.write(early)
        file.truncate()
    with table.seats["aggregator_1"].open(table.nonce) as seat:
        table.join(seat)
        bent = decode(said, Message)
        with pytest.raises(BadSignature):
            seat.confront(encode(Message(bent.header_bytes, bytes(64), bent.body)))
        with pytest.raises(BadSavedState, match="never said 'verified', which others have"):
            seat.confront(said)
    with pytest.raises(SeatEnded):
        table.seats["aggregator_1"].open(table.nonce)


# Forgetting


def test_an_ended_seat_has_nothing_left_to_read(tmp_path: Path) -> None:
    table = Table(Plain(), tmp_path)
    table.act("client0")
    folder = tmp_path / "client0" / table.nonce.hex()
    with table.seats["client0"].open(table.nonce) as seat:
        seat.end()
    assert {path.name for path in folder.iterdir()} == {"ended"}
    with pytest.raises(SeatEnded):
        table.act("client0")


def test_nothing_in_the_folder_is_readable_without_the_key(tmp_path: Path) -> None:
    table = Table(Plain(), tmp_path)
    table.vectors["client0"] = np.full(5, 0x1122334455, dtype=np.int64) % 49
    table.act("client0")
    folder = tmp_path / "client0" / table.nonce.hex()
    needle = encode(table.vectors["client0"])[-40:]
    secret = table.identities["client0"].save()[-32:]
    for path in folder.iterdir():
        assert needle not in path.read_bytes()
        assert secret not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0


def test_outstanding_enrolments_are_capped_and_swept(tmp_path: Path) -> None:
    seats = Seats(tmp_path, Identity.generate("north"), most=3)
    nonces = [bytes([i]) * 32 for i in range(5)]
    for nonce in nonces[:3]:
        seats.hello(CLIENT, nonce).close()
    with pytest.raises(NotStored, match="3 enrolments are outstanding"):
        seats.hello(CLIENT, nonces[3])
    seats.hello(CLIENT, nonces[0]).close()  # answered before
    assert seats.sweep(older_than=3600) == []
    assert sorted(seats.sweep(older_than=-1)) == nonces[:3]
    seats.hello(CLIENT, nonces[3]).close()
    with pytest.raises(SeatEnded):
        seats.hello(CLIENT, nonces[0])


def test_a_nonce_has_one_answer_and_one_party(tmp_path: Path) -> None:
    north = Identity.generate("north")
    with Seats(tmp_path, north).hello(CLIENT, bytes(32), 7) as seat:
        assert seat.member.bound == 7
    for identity, role, bound in (
        (north, CLIENT, 8),
        (north, "server", 7),
        (Identity.generate("north"), CLIENT, 7),
    ):
        with pytest.raises(BadSavedState, match="another party's, or has another bound"):
            Seats(tmp_path, identity).hello(role, bytes(32), bound)


@pytest.mark.skipif(
    os.geteuid() != 0 and not Path("/dev/full").exists(), reason="needs a full disk"
)
def test_a_full_disk_leaves_the_seat_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(Plain(), tmp_path)
    uploads = {name: table.act(name)[0] for name in table.vectors}
    with table.seats["server"].open(table.nonce) as seat:
        table.join(seat)
        seat.deliver(uploads["client0"])
        with monkeypatch.context() as patch:

            def full(file: int) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr(os, "fsync", full)
            with pytest.raises(NotStored, match="No space left"):
                seat.deliver(uploads["client1"])
        for name in ("client1", "client2", "client3"):
            seat.deliver(uploads[name])
        assert seat.result is not None
        assert np.array_equal(seat.result.total, table.truth)
    table.act("server")


# Voids


def voided(table: Table, names: list[str]) -> str:
    """What is missing once these parties have signed."""
    from protocols.void import Voids

    signed = []
    for name in names:
        with table.seats[name].open(table.nonce) as seat:
            table.join(seat)
            signed.append(seat.void())
    voids = Voids.of(signed)
    return table.protocol.void_lacks(table.session, voids.parties(table.session))


@pytest.mark.parametrize(
    ("protocol", "enough"),
    [
        (Plain(), ["server"]),
        (Additive(), ["collector", "aggregator_1"]),
        (Ckks(), ["server", "key_holder"]),
        (Pairwise(dropout_fraction=0.0), ["client0", "client1", "client2"]),
        (Pairwise(dropout_fraction=0.0, server_trust="curious"), ["server"]),
    ],
    ids=repr,
)
def test_a_session_that_failed_is_given_back_by_enough_of_them(
    protocol: Protocol, enough: list[str], tmp_path: Path
) -> None:
    table = Table(protocol, tmp_path)
    for name in [*protocol.coordinators(), *table.vectors]:
        table.act(name)
    assert voided(table, enough) == ""
    if len(enough) > 1:
        assert voided(table, enough[:-1]) != ""
    # What was given back says nothing more.
    with table.seats[enough[0]].open(table.nonce) as seat:
        table.join(seat)
        assert seat.awaits is None


@every
def test_a_session_whose_sum_came_out_is_never_given_back(
    protocol: Protocol, tmp_path: Path
) -> None:
    table = Table(protocol, tmp_path)
    table.run()
    for name in table.roles:
        with table.seats[name].open(table.nonce) as seat:
            table.join(seat)
            opens = seat.party.opened
            if opens:
                with pytest.raises(NotVoidable):
                    seat.void()
    receiver = table.session.of_role(protocol.receiver_role)[0]
    with table.seats[receiver].open(table.nonce) as seat:
        table.join(seat)
        assert seat.party.opened


def test_a_void_comes_before_its_signature_and_outlasts_a_restart(tmp_path: Path) -> None:
    table = Table(Additive(), tmp_path)
    uploads = [data for name in table.vectors for data in table.act(name)]
    table.act("collector")

    def give_back() -> None:
        with table.seats["collector"].open(table.nonce) as seat:
            table.join(seat)
            seat.void()

    killed_at(1, give_back)
    with table.seats["collector"].open(table.nonce) as seat:
        table.join(seat)
        seat.void()
    for data in uploads:
        if decode(data, Message).header.recipient == "collector":
            assert table.act("collector", lambda seat, data=data: deliver(seat, data)) == []  # type: ignore[misc]
    with table.seats["collector"].open(table.nonce) as seat:
        table.join(seat)
        assert seat.void() == seat.void()


def test_seats_do_not_lie_on_networks(tmp_path: Path) -> None:
    from protocols.seats.media import check_local

    line = "36 35 0:32 / {} rw,relatime shared:1 - {} server:/export rw"
    root = "1 0 8:1 / / rw - ext4 /dev/root rw\n"
    for kind in ("nfs", "nfs4", "cifs", "fuse.sshfs"):
        with pytest.raises(NotStored, match=rf"network's file system \({kind}\)"):
            check_local(tmp_path, root + line.format(tmp_path, kind))
    check_local(tmp_path, root + line.format(tmp_path, "ext4"))
    check_local(tmp_path, root + line.format(tmp_path / "below", "nfs"))
    check_local(tmp_path)
    assert Seat.__doc__


# What a review found


def server_after(table: Table, count: int) -> tuple[Path, list[bytes]]:
    """A server's journal that has heard so many uploads, and the others."""
    uploads = [table.act(name)[0] for name in table.vectors]
    table.act("server")
    for data in uploads[:count]:
        table.act("server", lambda seat, data=data: deliver(seat, data))  # type: ignore[misc]
    return table.folder / "server" / table.nonce.hex() / "journal", uploads[count:]


def test_a_length_that_was_changed_does_not_roll_the_seat_back(tmp_path: Path) -> None:
    table = Table(Plain(), tmp_path)
    table.act("server")
    journal = table.folder / "server" / table.nonce.hex() / "journal"
    edge = journal.stat().st_size
    server_after(table, 2)
    with journal.open("r+b") as file:
        file.seek(edge + 14)
        byte = file.read(1)
        file.seek(edge + 14)
        file.write(bytes([byte[0] ^ 0x40]))
    with (
        table.seats["server"].open(table.nonce) as seat,
        pytest.raises(BadSavedState, match="length of this seat is damaged"),
    ):
        table.join(seat)


@pytest.mark.parametrize("tail", [b"\0" * 7, b"\0" * 5000])
def test_bytes_that_never_came_are_a_torn_record(tail: bytes, tmp_path: Path) -> None:
    table = Table(Plain(), tmp_path)
    journal, left = server_after(table, 2)
    with journal.open("ab") as file:
        file.write(tail)
    for data in left:
        table.act("server", lambda seat, data=data: deliver(seat, data))  # type: ignore[misc]
    with table.seats["server"].open(table.nonce) as seat:
        table.join(seat)
        assert seat.result is not None


def test_a_record_that_is_half_written_is_dropped(tmp_path: Path) -> None:
    table = Table(Plain(), tmp_path)
    journal, left = server_after(table, 2)
    size = journal.stat().st_size
    table.act("server", lambda seat: deliver(seat, left[0]))
    with journal.open("r+b") as file:  # the last page of it did not come
        end = journal.stat().st_size
        file.seek(size + (end - size) // 2)
        file.write(bytes(end - size - (end - size) // 2))
    for data in left:
        table.act("server", lambda seat, data=data: deliver(seat, data))  # type: ignore[misc]
    with table.seats["server"].open(table.nonce) as seat:
        table.join(seat)
        assert seat.result is not None
        assert np.array_equal(seat.result.total, table.truth)


def test_whatever_stops_an_event_it_has_not_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A party ahead of its journal once sent its partial sum, and signed a void after."""
    table = Table(Additive(), tmp_path)
    uploads = [data for name in table.vectors for data in table.act(name)]
    mine = [d for d in uploads if decode(d, Message).header.recipient == "aggregator_1"]
    for name in ("collector", "aggregator_1"):
        table.act(name)
    for data in mine[:-1]:
        table.act("aggregator_1", lambda seat, data=data: deliver(seat, data))  # type: ignore[misc]
    with table.seats["aggregator_1"].open(table.nonce) as seat:
        table.join(seat)
        before = seat.party.state
        with monkeypatch.context() as patch:

            def stop(*_: object) -> None:
                raise MemoryError

            patch.setattr("protocols.party.encode", stop)
            with pytest.raises(MemoryError):
                seat.deliver(mine[-1])
        assert seat.party.state is before
        assert seat.deliver(mine[-1])


def test_a_join_that_is_not_written_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(Additive(), tmp_path)
    with table.seats["client0"].open(table.nonce) as seat:
        with monkeypatch.context() as patch:

            def full(*_: object) -> None:
                raise NotStored("no space")

            patch.setattr("protocols.seats.journal.Journal.append", full)
            with pytest.raises(NotStored):
                table.join(seat)
        with pytest.raises(InvalidSession, match="has joined no session"):
            _ = seat.party
        first = [encode(message) for message in table.join(seat)]
    assert table.act("client0") == first


def test_a_closed_seat_is_closed_and_closes_no_other(tmp_path: Path) -> None:
    table = Table(Plain(), tmp_path)
    seat = table.seats["client0"].open(table.nonce)
    seat.close()
    with table.seats["client0"].open(table.nonce):
        seat.close()
        with pytest.raises(Busy):
            table.seats["client0"].open(table.nonce)
        with pytest.raises(BadSavedState, match="was closed"):
            table.join(seat)


@pytest.mark.parametrize("left", ["journal", "vector"])
def test_one_nonce_gets_no_second_answer(left: str, tmp_path: Path) -> None:
    table = Table(Plain(), tmp_path)
    table.act("client0")
    folder = tmp_path / "client0" / table.nonce.hex()
    for path in folder.iterdir():
        if path.name != left:
            path.unlink()
    with pytest.raises(SeatEnded, match="its enrolment is gone"):
        table.seats["client0"].hello(CLIENT, table.nonce)


def test_an_end_on_a_full_disk_deletes_the_key_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(Plain(), tmp_path)
    table.act("client0")
    with table.seats["client0"].open(table.nonce) as seat, monkeypatch.context() as patch:

        def full(file: int) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(os, "fsync", full)
        with pytest.raises(NotStored):
            seat.end()
    with pytest.raises(BadSavedState, match="key of this seat cannot be read"):
        table.seats["client0"].open(table.nonce)


def test_what_lies_beside_the_seats_harms_none(tmp_path: Path) -> None:
    seats = Seats(tmp_path, Identity.generate("north"))
    (tmp_path / ("z" * 64)).mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    seats.hello(CLIENT, bytes(32)).close()
    assert seats.open_seats() == [bytes(32)]
    assert seats.sweep(-1) == [bytes(32)]


def test_a_seat_that_has_joined_is_not_swept(tmp_path: Path) -> None:
    table = Table(Plain(), tmp_path)
    table.act("client0")
    assert table.seats["client0"].sweep(-1) == []
    assert table.seats["client1"].sweep(-1) == [table.nonce]
    table.act("client0")


def test_a_curious_server_that_has_asked_for_the_opening_signs_no_void(tmp_path: Path) -> None:
    """It may remember what the clients answer, after it has given up."""
    table = Table(Pairwise(dropout_fraction=0.0, server_trust="curious"), tmp_path)
    queue = [data for name in ("server", *table.vectors) for data in table.act(name)]
    seen: set[str] = set()
    while "signatures" not in seen:
        data = queue.pop(0)
        header = decode(data, Message).header
        said = table.act(header.recipient, lambda seat, data=data: deliver(seat, data))  # type: ignore[misc]
        fresh = [d for d in said if d not in queue]
        seen |= {decode(d, Message).header.step for d in fresh}
        queue += fresh
    with table.seats["server"].open(table.nonce) as seat:
        table.join(seat)
        with pytest.raises(NotVoidable):
            seat.void()


def test_seats_that_are_not_there_are_named(tmp_path: Path) -> None:
    seats = Seats(tmp_path, Identity.generate("north"))
    with pytest.raises(BadSavedState, match="there is no such seat"):
        seats.open(bytes(32))
    for nonce in (b"", bytes(31), bytes(33)):
        with pytest.raises(NotStored, match=rf"a nonce of {len(nonce)} bytes, wanted 32"):
            seats.hello(CLIENT, nonce)
    seats.hello(CLIENT, bytes(32)).close()
    key = tmp_path / bytes(32).hex() / "key"
    key.write_bytes(key.read_bytes()[:-1])
    with pytest.raises(BadSavedState, match="key of this seat has another length"):
        seats.open(bytes(32))


def test_a_spool_knows_what_the_journal_has_and_nothing_else() -> None:
    spool = JournalSpool()
    spool.put("client0", b"message")
    assert spool.get("client0") == b"message"
    spool.forget()
    for name in ("client0", "client1"):
        with pytest.raises(BadSavedState, match=f"message of '{name}' is not in the journal"):
            spool.get(name)


def test_a_seat_whose_journal_was_deleted_gives_nothing_back(tmp_path: Path) -> None:
    """What hello stored names the session since, so that no file can be deleted to begin again."""
    table = Table(Plain(), tmp_path)
    table.act("client0")
    folder = tmp_path / "client0" / table.nonce.hex()
    for name in ("journal", "vector"):
        (folder / name).unlink()
    assert not table.seats["client0"].give_up(table.nonce)
    assert table.seats["client0"].sweep(-1) == []
    with (
        table.seats["client0"].open(table.nonce) as seat,
        pytest.raises(BadSavedState, match="its journal is gone"),
    ):
        table.join(seat)


def test_a_seat_killed_before_it_named_its_session_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(Plain(), tmp_path)
    with table.seats["client0"].open(table.nonce) as seat, monkeypatch.context() as patch:

        def full(path: Path, content: bytes) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr("protocols.seats.seat.write_durably", full)
        with pytest.raises(NotStored, match="No space left"):
            table.join(seat)
    assert not table.seats["client0"].give_up(table.nonce)
    table.act("client0")


def test_a_forked_child_has_no_seat(tmp_path: Path) -> None:
    table = Table(Plain(), tmp_path)
    seat = table.seats["client0"].open(table.nonce)
    (ours, theirs), (alive, ready) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(theirs)
        os.write(ready, b".")
        os.read(ours, 1)
        os._exit(0)
    try:
        os.close(ours)
        os.read(alive, 1)
        # The lock is the parent's, as long as that has it.
        with pytest.raises(Busy):
            table.seats["client0"].open(table.nonce)
        seat.close()
        table.seats["client0"].open(table.nonce).close()
    finally:
        for end in (theirs, alive, ready):
            os.close(end)
        os.waitpid(child, 0)


def test_marks_of_seats_that_have_ended_can_be_cleared_and_no_others(tmp_path: Path) -> None:
    table = Table(Plain(), tmp_path)
    table.act("client0")
    seats = table.seats["client0"]
    seats.hello(CLIENT, bytes(32)).close()
    seats.end(bytes(32))
    seats.clear()
    assert [path.name for path in (tmp_path / "client0").iterdir()] == [table.nonce.hex()]
    assert not seats.knows(bytes(32))
    table.act("client0")
