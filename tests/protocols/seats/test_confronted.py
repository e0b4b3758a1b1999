"""Carriers show a seat what others have from it; one whose journal was put back ends, no other."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from protocols import Additive, Ckks, Pairwise, Plain, Protocol, Sum
from protocols.carrier import Carrier, Note, Patience
from protocols.codec import decode, encode
from protocols.errors import BadSavedState, BadSignature, Malformed, SeatEnded, UnknownSender
from protocols.message import Message, without_body
from protocols.seats.seat import Seat
from tests.kit.posts import FoulPost, Weather
from tests.kit.seats import Table
from tests.kit.worlds import with_header

PATIENCE = Patience(deadline=25, repeat=2, most=8)
AGGREGATOR, COLLECTOR = "aggregator_1", "collector"


@contextmanager
def seated(table: Table, *names: str) -> Iterator[dict[str, Seat]]:
    """The joined seats of some parties, all by default."""
    seats = {name: table.seats[name].open(table.nonce) for name in names or table.roles}
    try:
        for seat in seats.values():
            table.join(seat)
        yield seats
    finally:
        for seat in seats.values():
            seat.close()


def carried(seats: dict[str, Seat], post: FoulPost) -> Carrier:
    return Carrier(seats, post, lambda: post.turn, PATIENCE)


def pass_turns(post: FoulPost, carrier: Carrier, turns: int = 60) -> None:
    for _ in range(turns):
        post.pass_time()
        carrier.turn()


def calm() -> FoulPost:
    return FoulPost(Weather(), random.Random(0))


class Finished:
    """A session of `additive` that has its sum, and an aggregator's journal from before it."""

    def __init__(self, folder: Path) -> None:
        self.table = Table(Additive(), folder)
        self.journal = folder / AGGREGATOR / self.table.nonce.hex() / "journal"
        with seated(self.table, AGGREGATOR):
            self.early = self.journal.read_bytes()
        self.result = self.table.run()

    def put_back(self) -> None:
        """Put the aggregator's journal back, in place: the same file, an older content."""
        with self.journal.open("r+b") as file:
            file.write(self.early)
            file.truncate()

    def uploads(self, *clients: str) -> list[bytes]:
        """What these clients told the aggregator."""
        return [self.table.said[name][AGGREGATOR, "upload"] for name in clients]


def has_ended(run: Finished, carrier: Carrier) -> None:
    """The aggregator's seat is gone for good, and the one sum is what it was."""
    assert carrier.ended == {AGGREGATOR}
    (problem,) = [p for p in carrier.problems if p.party == AGGREGATOR]
    assert isinstance(problem.error, BadSavedState)
    assert "never said" in str(problem.error)
    assert encode(carrier.results[COLLECTOR]) == encode(run.result)
    carrier._parties[AGGREGATOR].close()
    with pytest.raises(SeatEnded, match="never said"):
        run.table.seats[AGGREGATOR].open(run.table.nonce)


def test_a_seat_that_was_put_back_and_asks_around_ends_before_it_says_anything_else(
    tmp_path: Path,
) -> None:
    run = Finished(tmp_path)
    run.put_back()
    post = calm()
    with seated(run.table, AGGREGATOR, COLLECTOR) as seats:
        carrier = carried(seats, post)
        carrier.begin(run.table.roles)
        pass_turns(post, carrier, 2)
        has_ended(run, carrier)


def test_a_seat_that_was_put_back_and_says_something_else_ends(tmp_path: Path) -> None:
    """It would sign another set, whose sum differs by one client."""
    run = Finished(tmp_path)
    run.put_back()
    post = calm()
    with seated(run.table, AGGREGATOR, COLLECTOR) as seats:
        for data in run.uploads("client0", "client1", "client2"):
            seats[AGGREGATOR].deliver(data)
        said = []
        for message in seats[AGGREGATOR].deadline("upload"):
            said.append(encode(message))
            post.send(message.header.recipient, said[-1])
        assert said != []
        assert said[0] != run.table.said[AGGREGATOR][COLLECTOR, "verified"]
        carrier = carried(seats, post)
        pass_turns(post, carrier, 2)
        has_ended(run, carrier)


def test_a_client_that_begins_twice_is_shown_what_it_said_first(tmp_path: Path) -> None:
    """The first thing that a party says is accepted again, as a retry, and left out."""
    table = Table(Additive(), tmp_path)
    journal = tmp_path / "client0" / table.nonce.hex() / "journal"
    with seated(table, "client0") as seats:
        first = [encode(message) for message in seats["client0"].pending()]
        birth = seats["client0"]._journal
        assert birth is not None
        place, _ = next(iter(type(birth).open(journal, seats["client0"]._vault).replay()))
    with journal.open("r+b") as file:
        file.truncate(place.offset)
    post = calm()
    with seated(table, "client0", COLLECTOR) as seats:
        assert [encode(message) for message in seats["client0"].pending()] != first
        for data in first:
            post.send(without_body(data).header.recipient, data)
        carrier = carried(seats, post)
        pass_turns(post, carrier, 4)
        assert carrier.ended == {"client0"}
        (problem,) = carrier.problems
        assert isinstance(problem.error, BadSavedState)


def test_nobody_can_end_an_honest_seat_by_showing_it_something(tmp_path: Path) -> None:
    run, other = Finished(tmp_path / "one"), Finished(tmp_path / "other")
    said = run.table.said
    own = [decode(data, Message) for data in said[AGGREGATOR].values()]
    shown = [
        *[Message(m.header_bytes, m.signature, b"") for m in own],
        # Its own words of another session, somebody else's, its own in another's name or bent.
        *[decode(data, Message) for data in other.table.said[AGGREGATOR].values()],
        *[decode(data, Message) for data in said[COLLECTOR].values()],
        *[with_header(m, sender=COLLECTOR) for m in own],
        *[with_header(m, digest=bytes(32)) for m in own],
        *[with_header(m, step="upload") for m in own],
        *[with_header(m, session=bytes(32)) for m in own],
        *[Message(m.header_bytes, bytes(64), b"") for m in own],
        Message(b"", b"", b""),
    ]
    post = calm()
    with seated(run.table, AGGREGATOR, COLLECTOR) as seats:
        for message in shown:
            small = Message(message.header_bytes, message.signature, b"")
            for sender in (COLLECTOR, "nobody", AGGREGATOR):
                post.send(AGGREGATOR, Note("shown", sender, encode(small)).mail())
        post.send(AGGREGATOR, Note("shown", COLLECTOR, b"junk").mail())
        carrier = carried(seats, post)
        pass_turns(post, carrier)
        assert carrier.ended == frozenset()
        refused = {type(problem.error) for problem in carrier.problems}
        assert refused == {Malformed, UnknownSender, BadSignature}


def test_a_message_forged_in_a_seats_name_harms_it_not(tmp_path: Path) -> None:
    run = Finished(tmp_path)
    post = calm()
    with seated(run.table, AGGREGATOR, COLLECTOR) as seats:
        forged = decode(run.table.said[AGGREGATOR][COLLECTOR, "verified"], Message)
        before = seats[COLLECTOR].contradicted(encode(forged))
        assert before is None, "it says what it said"
        forged = with_header(forged, digest=bytes(32))
        before = seats[COLLECTOR].contradicted(encode(forged))
        assert before is not None
        assert before.body == b""
        post.send(COLLECTOR, encode(forged))
        carrier = carried(seats, post)
        pass_turns(post, carrier)
        assert carrier.ended == frozenset()
        assert [type(problem.error) for problem in carrier.problems] == [BadSignature]
        for strange in (b"", b"junk", encode(with_header(forged, session=bytes(32)))):
            assert seats[COLLECTOR].contradicted(strange) is None


def test_a_nudge_is_answered_with_what_was_heard_from_its_sender_alone(tmp_path: Path) -> None:
    run = Finished(tmp_path)
    post = calm()
    with seated(run.table, COLLECTOR) as seats:
        carrier = carried(seats, post)
        carrier.turn()
        list(post.collect(run.table.roles))
        for sender in ("client0", "client0", AGGREGATOR, "nobody"):
            post.send(COLLECTOR, Note("nudge", sender).mail())
        carrier.turn()
        answers = list(post.collect([*run.table.roles, "nobody"]))
        for name, steps in (
            ("client0", ["upload"]),
            (AGGREGATOR, ["verified", "agree", "partial"]),
        ):
            shown = seats[COLLECTOR].heard(name)
            assert [message.header.step for message in shown] == steps
            notes = [Note("shown", COLLECTOR, encode(message)).mail() for message in shown]
            assert sorted(mail for to, mail in answers if to == name) == sorted(notes)
        assert seats[COLLECTOR].heard("nobody") == ()
        assert {to for to, _ in answers} == {"client0", AGGREGATOR}


@pytest.mark.slow
@pytest.mark.parametrize(
    "protocol", [Plain(), Additive(3), Pairwise(dropout_fraction=0.0), Ckks()], ids=str
)
def test_seats_that_restart_in_any_weather_are_never_taken_for_others(
    protocol: Protocol, tmp_path: Path
) -> None:
    """Everybody asks around after every restart, and is shown all that it ever said."""
    table = Table(protocol, tmp_path)
    rng = random.Random(str(protocol))
    post = FoulPost(Weather(lose=0.2, repeat=0.2, delay=0.2, slow=4), rng)
    results: list[Sum] = []
    with seated(table) as seats:
        carrier = carried(seats, post)
        carrier.begin(table.roles)
        for _ in range(80):
            post.pass_time()
            if rng.random() < 0.3:
                name = rng.choice([*table.roles])
                seats[name].close()
                seats[name] = table.seats[name].open(table.nonce)
                table.join(seats[name])
                carrier = carried(seats, post)
                carrier.begin(table.roles)
            carrier.turn()
            assert carrier.problems == []
            results += carrier.results.values()
    assert results, "the weather was good enough"
    for result in results:
        assert np.array_equal(result.total, sum(table.vectors[name] for name in result.included))
        assert encode(result) == encode(results[0])
