"""Pairwise masking against its own floor, at a thousand clients, and beside Flower's SecAgg+.

python -m benchmarks.pairwise

Seconds are CPU time, of all threads of a party together. The floor is what cannot be avoided:
expanding and adding the masks, timed in the same run on the same vector by one thread.
`FLOWER_PYTHON` names the interpreter of an environment with flwr (a venv and `pip install flwr`),
in which `benchmarks/flower_secagg.py` is run; without it the figures on record stay. `--hundred`
measures the first part alone.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.record import RESULTS, peak_bytes, seconds, write
from protocols import Block, FaultPlan, Identity, Layout, Network, Pairwise, Party, new_nonce
from protocols.layout import Integers, RingVector
from protocols.primitives.masks import Mask, add_masks, add_masks_in_threads
from protocols.protocol import enrol, form_session
from protocols.roster import CLIENT, Line
from protocols.schemes.pairwise.messages import parameters_of
from protocols.schemes.pairwise.server import PairwiseServer
from protocols.session import Session

ENTRIES = 535_000
DISTINCT = 7
BOUND = 2**20


def main() -> None:
    """Run everything, or with `--thousand` the one that wants a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--thousand", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--hundred", action="store_true", help="no thousand clients, no Flower")
    arguments = parser.parse_args()
    if arguments.thousand:
        print(json.dumps(thousand()))
        return
    figures: dict[str, Any] = {"entries": ENTRIES}
    figures["beside Flower"] = _recorded().get("beside Flower")
    figures["n=100, k=99"] = hundred(arguments.repeats)
    if arguments.hundred:
        write("pairwise", _recorded() | figures)
        return
    if "FLOWER_PYTHON" in os.environ:
        figures["beside Flower"] = beside_flower(os.environ["FLOWER_PYTHON"])
    child = [sys.executable, "-m", "benchmarks.pairwise", "--thousand"]
    done = subprocess.run(child, check=True, capture_output=True, text=True)
    figures["n=1000"] = json.loads(done.stdout)
    write("pairwise", figures)


def _recorded() -> dict[str, Any]:
    """Return the figures on record that stay, each with the machine that it was taken on."""
    path = RESULTS / "pairwise.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept = {name: found[name] for name in ("n=1000", "beside Flower") if name in found}
    return {name: {"machine": found["machine"]} | part for name, part in kept.items()}


def hundred(repeats: int) -> dict[str, Any]:
    """n = 100, complete graph, a tenth vanishing after sharing; against the floor, by threads."""
    figures: dict[str, Any] = {}
    for threads in (1, 4):
        runs = [one_of_hundred(threads) for _ in range(repeats if threads > 1 else 2 * repeats)]
        figures[f"{threads} threads at the server"] = {
            name: median(run[name] for run in runs) for name in runs[0]
        } | {"server_ratio_range": [f(run["server_ratio"] for run in runs) for f in (min, max)]}
    return figures


def verification(repeats: int) -> dict[str, float]:
    """100 Ed25519 signatures, verified by one thread and by a pool of two: CPU and least wall."""
    identities = [Identity.generate(f"client{number:02}") for number in range(100)]
    said = os.urandom(100)
    signed = [(Line(one.name, CLIENT, one.verify_key), one.sign(said)) for one in identities]

    def verify(pair: tuple[Line, bytes]) -> None:
        pair[0].verify(pair[1], said)

    def pooled() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(verify, signed))

    ways = {"serial": lambda: list(map(verify, signed)), "pooled": pooled}
    figures: dict[str, float] = {}
    for name, clock, of in (("cpu", time.process_time, median), ("wall", time.perf_counter, min)):
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(repeats):
            for way, work in ways.items():
                taken[way].append(seconds(work, clock))
        figures |= {f"{way}_{name}": of(times) for way, times in taken.items()}
    return figures


def one_of_hundred(threads: int) -> dict[str, float]:
    """One session, and the floor just before and after it."""
    PairwiseServer.threads = threads
    protocol = Pairwise(corrupt_fraction=0.1, dropout_fraction=0.1, server_trust="lying")
    session, parties = cohort(100, protocol, min_cohort=90)
    found = parameters_of(session)
    assert (found.neighbours, found.threshold) == (99, 56)
    gone = random.sample(session.clients, 10)
    floor_before = mask_seconds()
    cpu = meter(parties)
    network, included = run(session, parties, gone)
    per_mask = (floor_before + mask_seconds()) / 2
    client = median(cpu[name] for name in included)
    client_masks, server_masks = 100, 90 + 10 * 90
    upload = session.layout.packed_bytes
    masks = [Mask(os.urandom(16), negative=True) for _ in range(server_masks)]
    total: RingVector = np.zeros(ENTRIES, dtype=np.uint32)
    unmasking = seconds(lambda: add_masks_in_threads(total, masks, threads), time.process_time)
    return {
        "mask_seconds": per_mask,
        "client_masks": client_masks,
        "client_seconds": client,
        "client_ratio": client / (client_masks * per_mask),
        "server_masks": server_masks,
        "server_seconds": cpu["server"],
        "server_ratio": cpu["server"] / (server_masks * per_mask),
        "unmasking_seconds": unmasking,
        "unmasking_ratio": unmasking / (server_masks * per_mask),
        "packed_vector_bytes": upload,
        "client_sent_bytes": median(network.sent_bytes[name] for name in included),
        "sent_over_packed": median(network.sent_bytes[name] for name in included) / upload,
    }


def thousand() -> dict[str, Any]:
    """n = 1,000, a server that lies in every step, 5 % vanishing after sharing."""
    protocol = Pairwise(corrupt_fraction=0.1, dropout_fraction=0.05, server_trust="lying")
    session, parties = cohort(1000, protocol)
    found = parameters_of(session)
    gone = random.sample(session.clients, 50)
    begin = time.perf_counter()
    cpu = meter(parties)
    network, included = run(session, parties, gone)
    wall = time.perf_counter() - begin
    clients = [cpu[name] for name in included]
    return {
        "neighbours": found.neighbours,
        "threshold": found.threshold,
        "included": len(included),
        "wall_seconds": wall,
        "client_seconds_median": median(clients),
        "client_seconds_max": max(clients),
        "server_seconds": cpu["server"],
        "server_threads": PairwiseServer.threads,
        "mask_seconds": mask_seconds(),
        "client_sent_bytes": median(network.sent_bytes[name] for name in included),
        "sent_over_packed": median(network.sent_bytes[name] for name in included)
        / session.layout.packed_bytes,
        "peak_bytes_of_all_parties": peak_bytes(),
    }


def beside_flower(python: str) -> dict[str, Any]:
    """One client's CPU at n = 100 in both, in turn; and the largest error of a sum of ten."""
    script = Path(__file__).with_name("flower_secagg.py")
    done = subprocess.run([python, str(script)], check=True, capture_output=True, text=True)
    flower = json.loads(done.stdout)
    ours = client_seconds()
    return {
        "flower": flower,
        "ours_client_cpu_seconds": ours,
        "client_cpu_ratio": flower["client_cpu_seconds"] / ours,
        "ours_largest_error": 0,
        "flower_largest_error": flower["largest_error"],
    }


def client_seconds() -> float:
    """Median CPU seconds of a client of a session like Flower's: 99 neighbours, nobody gone."""
    protocol = Pairwise(corrupt_fraction=0.1, dropout_fraction=0.1, server_trust="lying")
    session, parties = cohort(100, protocol, min_cohort=90)
    cpu = meter(parties)
    run(session, parties, [])
    return median(cpu[name] for name in session.clients)


def cohort(
    clients: int, protocol: Pairwise, min_cohort: int | None = None
) -> tuple[Session, list[Party]]:
    """A session and its parties; a few distinct vectors among them keep memory to the protocol."""
    names = [f"client{index:05}" for index in range(clients)]
    nonce = new_nonce()
    enrolments = enrol(protocol, {name: Identity.generate(name) for name in names}, nonce)
    layout = Layout((Block("values", ENTRIES, -clients * BOUND, clients * BOUND),))
    session = form_session(
        protocol,
        [e.member for e in enrolments.values()],
        nonce,
        layout,
        min_cohort=min_cohort or clients // 2 + 1,
    )
    vectors = [vector(index) for index in range(DISTINCT)]
    parties = [protocol.coordinator(session, enrolments["server"])]
    for index, name in enumerate(names):
        own = vectors[index % DISTINCT]
        parties.append(protocol.client(session, enrolments[name], lambda _, own=own: own))  # type: ignore[misc]
    return session, parties


def vector(index: int) -> Integers:
    """One of the few distinct vectors."""
    return np.random.default_rng(index).integers(-BOUND, BOUND + 1, ENTRIES, dtype=np.int64)


def run(session: Session, parties: list[Party], gone: list[str]) -> tuple[Network, list[str]]:
    """To the end; the sum is held against the truth."""
    network = Network(parties, FaultPlan(vanish=dict.fromkeys(gone, "upload")))
    released = network.run()
    included = [name for name in session.clients if name not in gone]
    assert list(released.included) == sorted(included)
    vectors = [vector(index) for index in range(DISTINCT)]
    truth = np.zeros(ENTRIES, dtype=np.int64)
    for index, name in enumerate(session.clients):
        if name not in gone:
            truth += vectors[index % DISTINCT]
    assert np.array_equal(released.total, truth)
    return network, included


def meter(parties: list[Party]) -> dict[str, float]:
    """Add up each party's own CPU seconds, of all its threads, while it runs."""
    cpu = {party.name: 0.0 for party in parties}
    for party in parties:
        # Each begins by `start`; `take`, by which messages come, ends in `receive`.
        for method in ("start", "take", "deadline"):
            setattr(party, method, _metered(party, method, cpu))
    return cpu


def _metered(party: Party, method: str, cpu: dict[str, float]) -> Any:
    inner = getattr(party, method)

    def call(*arguments: Any) -> Any:
        begin = time.process_time()
        try:
            return inner(*arguments)
        finally:
            cpu[party.name] += time.process_time() - begin

    return call


def mask_seconds() -> float:
    """Expanding and adding one mask to the vector, by one thread."""
    target: RingVector = np.zeros(ENTRIES, dtype=np.uint32)
    masks = [Mask(os.urandom(16), negative=False) for _ in range(50)]
    add_masks(target, masks[:5])
    taken = (seconds(lambda: add_masks(target, masks), time.process_time) for _ in range(5))
    return median(taken) / len(masks)


if __name__ == "__main__":
    main()
