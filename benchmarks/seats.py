"""What a seat writes and takes, as its session grows.

python -m benchmarks.seats

An aggregator's and a pairwise server's seat in sessions of 250, 500 and 1,000 clients, an
aggregator's of 10,000: bytes on the disk, and seconds, a client. Times are also given in units of
one AES-CTR expansion plus one addition of the same vector, and beside the same aggregator without a
seat. Clients' messages are made one after the other, so that memory does not grow with them.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.record import seconds, write
from protocols import (
    Additive,
    Block,
    Enrolment,
    Identity,
    Layout,
    Pairwise,
    Party,
    Protocol,
    Session,
    enrol,
    form_session,
    new_nonce,
)
from protocols.codec import encode
from protocols.primitives.masks import add_mask
from protocols.seats.seat import Seat

ENTRIES = 100_000
SMALL = 100


def main() -> None:
    """Write `results/seats.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, help="where the seats go; default: temporary")
    folder = parser.parse_args().folder
    figures: dict[str, Any] = {"entries": ENTRIES, "entries_for_sizes": SMALL}
    with tempfile.TemporaryDirectory(dir=folder) as root:
        figures["collector, bytes"] = {
            str(n): collector(n, SMALL, Path(root) / f"c{n}") for n in (250, 500, 1000, 10_000)
        }
        figures["collector, time"] = collector(250, ENTRIES, Path(root) / "time")
        figures["pairwise server, bytes"] = {
            str(n): pairwise_server(n, Path(root) / f"p{n}") for n in (250, 500, 1000)
        }
    write("seats", figures)


def collector(clients: int, entries: int, root: Path) -> dict[str, float]:
    """One collector, with a seat and without, that hears all uploads and agrees on nothing yet."""
    protocol = Additive()
    session, enrolments, seat = seated(protocol, clients, entries, "collector", root)
    with seat:
        seat.join(session, protocol)
        bare = protocol.coordinator(session, enrolments["collector"])
        bare.start()
        floor = floor_seconds(session.layout)
        with_seat, without = [], []
        for data in uploads(protocol, session, enrolments, entries):
            with_seat.append(timed(lambda data=data: seat.deliver(data)))
            if entries == ENTRIES:
                without.append(timed(lambda data=data: bare.take(data)))
        size = (seat.folder / "journal").stat().st_size
    found = {
        "journal_bytes": size,
        "journal_bytes_a_client": size / clients,
        "upload_bytes": session.layout.packed_bytes,
        "seconds_a_client": median(with_seat),
    }
    if without:
        found |= {
            "floor_seconds": floor,
            "over_floor": median(with_seat) / floor,
            "without_a_seat_over_floor": median(without) / floor,
        }
    return found


def pairwise_server(clients: int, root: Path) -> dict[str, float]:
    """One pairwise server in a whole session, whose only seat is its own."""
    protocol = Pairwise(dropout_fraction=0.05)
    session, enrolments, seat = seated(protocol, clients, SMALL, "server", root)
    with seat:
        said = seat.join(session, protocol)
        assert said == []
        view = Session(session.header, session.roster)
        parties: list[Party] = [
            protocol.client(view, enrolments[name], _ones(SMALL)) for name in session.clients
        ]
        spent = 0.0
        queue = [encode(message) for party in parties for message in party.start()]
        by_name = {party.name: party for party in parties}
        while queue:
            begin = time.perf_counter()
            answers = [message for data in queue for message in seat.deliver(data)]
            spent += time.perf_counter() - begin
            queue = [
                encode(reply)
                for message in answers
                for reply in by_name[message.header.recipient].receive(message)
            ]
        assert seat.result is not None
        assert np.array_equal(seat.result.total, np.full(SMALL, clients))
        size = (seat.folder / "journal").stat().st_size
    return {
        "journal_bytes": size,
        "journal_bytes_a_client": size / clients,
        "seconds_a_client": spent / clients,
    }


def seated(
    protocol: Protocol, clients: int, entries: int, name: str, root: Path
) -> tuple[Session, dict[str, Enrolment], Seat]:
    """A session in which one coordinator has a seat, and all others are loose."""
    root.mkdir(parents=True)
    nonce = new_nonce()
    identities = {f"client{i:05}": Identity.generate(f"client{i:05}") for i in range(clients)}
    enrolments = enrol(protocol, identities, nonce)
    identity = Identity.generate(name)
    seat = Seat.hello(root / "seat", identity, protocol.coordinators()[name], nonce)
    members = [e.member for n, e in enrolments.items() if n != name] + [seat.member]
    layout = Layout((Block("values", entries, -2 * clients, 2 * clients),))
    # A majority, for which pairwise finds a sparse graph.
    cohort = clients // 2 + 1
    session = form_session(protocol, members, nonce, layout, min_cohort=cohort)
    enrolments[name] = seat._enrolment
    return session, enrolments, seat


def uploads(
    protocol: Protocol,
    session: Session,
    enrolments: dict[str, Enrolment],
    entries: int,
    recipient: str = "collector",
) -> Any:
    """An aggregator's message from each client, one after the other."""
    view = Session(session.header, session.roster)
    for name in session.clients:
        party = protocol.client(view, enrolments[name], _ones(entries))
        yield next(
            encode(message) for message in party.start() if message.header.recipient == recipient
        )


def floor_seconds(layout: Layout) -> float:
    """One expansion and addition of the vector."""
    vector, key = layout.zeros(), os.urandom(32)
    return median(seconds(lambda: add_mask(vector, key)) for _ in range(9))


def timed(work: Any) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _ones(entries: int) -> Any:
    return lambda _: np.ones(entries, dtype=np.int64)


if __name__ == "__main__":
    main()
