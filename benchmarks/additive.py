"""Additive sharing: what a client and the aggregators take, beside one AES-CTR pass and one sum.

python -m benchmarks.additive [--clients N] [--folder PATH]

The bound is one AES-256-CTR expansion of the vector's machine words into a buffer that is there
already, and one addition in place. The spool of the second part takes some 2 GB of disk.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from benchmarks.record import paired, peak_bytes, seconds, write
from protocols import (
    Block,
    Enrolment,
    Identity,
    Layout,
    Member,
    Session,
    enrol,
    form_session,
    new_nonce,
)
from protocols.codec import decode, encode
from protocols.layout import RING_BITS, Integers
from protocols.message import Message
from protocols.schemes.additive.messages import UPLOAD
from protocols.schemes.additive.protocol import Additive
from protocols.spool import FileSpool

ENTRIES = 1_000_000
STREAMED_ENTRIES = 535_000
REPEATS = 21
# glibc unmaps freed blocks above a threshold that grows, up to 32 MiB, with what has been freed.
_SETTLING_BYTES = 31 << 20


def layout_of(entries: int, bits: int) -> Layout:
    """One block that needs the ring of this width."""
    return Layout((Block("all", entries, -(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1),))


def vector_of(layout: Layout, clients: int) -> Integers:
    """Random entries whose sum over so many clients fits."""
    high = layout.blocks[0].high // clients
    return np.random.default_rng(0).integers(-high, high, layout.length)


def bound(layout: Layout) -> Callable[[], None]:
    """One expansion and one addition, all buffers at hand."""
    total = layout.zeros()
    zeros, stream = bytes(total.nbytes), bytearray(total.nbytes + 15)
    words = np.frombuffer(stream, dtype=total.dtype, count=len(total))

    def work() -> None:
        encryptor = Cipher(algorithms.AES(bytes(32)), modes.CTR(bytes(16))).encryptor()
        encryptor.update_into(zeros, stream)
        np.add(total, words, out=total)

    return work


def bound_in_new_buffers(layout: Layout) -> Callable[[], object]:
    """The same, each result in a buffer of its own, as the client's are."""
    total = layout.zeros()
    zeros = bytes(total.nbytes)

    def work() -> object:
        encryptor = Cipher(algorithms.AES(bytes(32)), modes.CTR(bytes(16))).encryptor()
        return total + np.frombuffer(encryptor.update(zeros), dtype=total.dtype)

    return work


def client_side(bits: int) -> dict[str, Any]:
    """From the int64 vector to encoded messages, for two aggregators."""
    protocol, layout, nonce = Additive(), layout_of(ENTRIES, bits), new_nonce()
    clients = {name: Identity.generate(name) for name in ("one", "two")}
    enrolments = enrol(protocol, clients, nonce)
    session = form_session(
        protocol, [e.member for e in enrolments.values()], nonce, layout, min_cohort=2
    )
    vector = vector_of(layout, 2)

    def start() -> list[bytes]:
        party = protocol.client(session, enrolments["one"], lambda _: vector)
        return [encode(message) for message in party.start()]

    party = protocol.client(session, enrolments["one"], lambda _: vector)
    state: Any = party._begin(bytes(32))

    def split_and_seal() -> list[bytes]:
        for channel in state.channels:
            party._open_channel(channel.recipient, bytes(32))
        party._prepared = vector
        return [encode(message) for message in party._outbox(state)]

    sent = sum(map(len, start()))
    return {
        "ring_bits": bits,
        "split_and_seal": paired(split_and_seal, bound(layout), REPEATS),
        "split_and_seal_to_bound_in_new_buffers": paired(
            split_and_seal, bound_in_new_buffers(layout), REPEATS
        )["ratio"],
        "whole_start": paired(start, bound(layout), REPEATS),
        "layout_check_seconds": _best(lambda: layout.check(vector)),
        "fingerprint_seconds": _best(lambda: party._fingerprint(bytes(32), vector)),
        "sent_bytes": sent,
        "packed_bytes": layout.packed_bytes,
        "bytes_over_packed": sent - layout.packed_bytes,
        "within_1_01_packed_plus_10_kB": sent <= 1.01 * layout.packed_bytes + 10_000,
    }


def _best(work: Callable[[], object]) -> float:
    return median(seconds(work) for _ in range(REPEATS))


class TimedSpool(FileSpool):
    """A spool in files that counts the seconds that it takes."""

    seconds = 0.0

    def put(self, sender: str, message: bytes) -> None:
        begin = time.perf_counter()
        super().put(sender, message)
        self.seconds += time.perf_counter() - begin

    def get(self, sender: str) -> bytes:
        begin = time.perf_counter()
        data = super().get(sender)
        self.seconds += time.perf_counter() - begin
        return data


def aggregate(wire: Connection, session_bytes: bytes, keys: bytes, folder: str) -> None:
    """One aggregator in a process of its own: takes encoded messages, answers with its own."""
    header, roster, members = decode(session_bytes, tuple[bytes, bytes, tuple[Member, ...]])
    session = Session.read(header, None, thin=roster, members=members)
    spool = TimedSpool(Path(folder))
    party = Additive().coordinator(session, Enrolment.load(keys), spool=spool)
    party.start()
    once = bound(session.layout)
    once()
    begun_mib = peak_bytes() / 2**20
    receiving: list[tuple[float, float]] = []
    releasing: list[tuple[float, float]] = []
    bounds: list[float] = []
    peaks: dict[str, float] = {}
    while (data := wire.recv_bytes()) != b"":
        message = decode(data, Message)
        is_upload = message.header.step == UPLOAD
        begin, cpu = time.perf_counter(), time.process_time()
        said = party.receive(decode(data, Message, party=party.name))
        taken = time.perf_counter() - begin, time.process_time() - cpu
        (receiving if is_upload else releasing).append(taken)
        if is_upload and len(receiving) % 10 == 0:
            bounds.append(seconds(once))
            peaks[f"after {len(receiving)} uploads"] = peak_bytes() / 2**20
        wire.send([encode(answer) for answer in said])
    uploads = len(receiving)
    wall = sum(w for w, _ in (*receiving, *releasing))
    cpu = sum(c for _, c in (*receiving, *releasing))
    one = median(bounds)
    ten = list(peaks.items())
    wire.send(
        {
            "aggregator": party.name,
            "bound_seconds": one,
            "bound_seconds_range": [min(bounds), max(bounds)],
            "receive_seconds_per_client_median": median(w for w, _ in receiving),
            "release_seconds_per_client": sum(w for w, _ in releasing) / uploads,
            "spool_seconds_per_client": spool.seconds / uploads,
            "wall_seconds_per_client": wall / uploads,
            "cpu_seconds_per_client": cpu / uploads,
            "ratio_wall": wall / uploads / one,
            "ratio_without_spool": (wall - spool.seconds) / uploads / one,
            "ratio_cpu": cpu / uploads / one,
            "peak_rss_mib": {
                "begun": begun_mib,
                **dict([ten[0], ten[-1]]),
                "end": peak_bytes() / 2**20,
            },
            "result": party.result is not None,
        }
    )
    if party.result is not None:
        wire.send_bytes(party.result.total.tobytes())


def streaming(clients: int, root: Path) -> dict[str, Any]:
    """Clients one after the other through two aggregators that spool to disk."""
    protocol, layout, nonce = Additive(), layout_of(STREAMED_ENTRIES, 32), new_nonce()
    names = [f"client{index:05}" for index in range(clients)]
    enrolments = enrol(protocol, {name: Identity.generate(name) for name in names}, nonce)
    session = form_session(
        protocol, [e.member for e in enrolments.values()], nonce, layout, min_cohort=clients
    )
    base = vector_of(layout, 2 * clients)
    context = get_context("spawn")
    terms = encode((encode(session.header), session.thin, session.members))
    wires: dict[str, Connection] = {}
    processes = []
    for name in protocol.coordinators():
        wires[name], far = context.Pipe()
        arguments = (far, terms, enrolments[name].save(), str(root / name))
        processes.append(context.Process(target=aggregate, args=arguments))
        processes[-1].start()

    def carry(said: Iterable[Message | bytes]) -> None:
        queue = [m if isinstance(m, bytes) else encode(m) for m in said]
        while queue:
            data = queue.pop(0)
            wire = wires[decode(data, Message).header.recipient]
            wire.send_bytes(data)
            queue += wire.recv()

    truth, sent = np.zeros_like(base), 0
    begin = time.perf_counter()
    for index, name in enumerate(names):
        vector = base + index
        truth += vector
        said = protocol.client(session, enrolments[name], lambda _, v=vector: v).start()  # type: ignore[misc]
        sent = sum(len(encode(message)) for message in said)
        carry(said)
    elapsed = time.perf_counter() - begin
    figures, exact = [], False
    for wire in wires.values():
        wire.send_bytes(b"")
        figures.append(wire.recv())
        if figures[-1].pop("result"):
            exact = bool(np.array_equal(np.frombuffer(wire.recv_bytes(), np.int64), truth))
    for process in processes:
        process.join()
    return {
        "clients": clients,
        "entries": STREAMED_ENTRIES,
        "ring_bits": 32,
        "exact": exact,
        "whole_seconds": elapsed,
        "sent_bytes_per_client": sent,
        "packed_bytes": layout.packed_bytes,
        "aggregators": figures,
    }


def main() -> None:
    """Both parts, into one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="where the spools go; default: temporary")
    options = parser.parse_args()
    new_heap = [client_side(bits) for bits in RING_BITS]
    np.ones(_SETTLING_BYTES, dtype=np.uint8)
    settled = [client_side(bits) for bits in RING_BITS]
    with tempfile.TemporaryDirectory(dir=options.folder) as root:
        streamed = streaming(options.clients, Path(root))
    write(
        "additive",
        {
            "what": "splitting and sealing, and aggregating / one AES-256-CTR pass and one sum",
            "entries": ENTRIES,
            "client": settled,
            "client_on_a_heap_that_returns_its_pages": new_heap,
            "streaming": streamed,
        },
    )


if __name__ == "__main__":
    main()
