"""One measurement of `benchmarks.speed`, in a process whose `PYTHONPATH` names the code measured.

python benchmarks/speed_probe.py (statistics ROWS BITS | noise SIGMA | federation | additive)

JSON on stdout.

It imports nothing of `benchmarks`, and of the packages only what both versions have.
"""

import json
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIM, CLASSES, DRAWS = 1024, 10, 1_000_000
SITES, SITE_ROWS = 16, 100
WIRE_ENTRIES, WIRE_CLIENTS, WIRE_REPEATS = 530_000, 16, 3


def cpu(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of each, called in turn; the first call of each is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            begin = time.process_time()
            work()
            if repeat:
                taken[name].append(time.process_time() - begin)
    return {name: median(times) for name, times in taken.items()}


def rows_of(rows: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features as a network with ReLU makes them, and labels."""
    rng = np.random.default_rng(0)
    features = np.maximum(rng.standard_normal((rows, DIM), dtype=np.float32), 0)
    return features, rng.integers(0, CLASSES, rows)


def statistics(rows: int, bits: int) -> dict[str, float]:
    """A client's vector, beside AFL's client in NumPy and one dsyrk of the integer rows."""
    from scipy.linalg.blas import dsyrk

    from secure_afl.analytic.quantise import Quantiser
    from secure_afl.analytic.rows import ClientData
    from secure_afl.methods.afl import AFL
    from secure_afl.methods.method import Task

    features, labels = rows_of(rows)
    data, quantiser = ClientData("site", features, labels), Quantiser(bits)
    names = tuple(str(number) for number in range(CLASSES))
    task = Task(DIM, names, quantiser, 2 * rows, rows, 2, bytes(32))
    method = AFL()
    public = method.begin(task)
    integers = quantiser.integers(features)
    works: dict[str, Callable[[], object]] = {
        "ours": lambda: method.contribute(public, data, {}, b""),
        "dsyrk": lambda: dsyrk(1.0, integers.T),
        "afl_numpy": lambda: afl_client(features, labels),
    }
    return cpu(works, 25 if rows < 1000 else 3)


def afl_client(
    features: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """FᵀF and FᵀY in float64, as a client of AFL forms them without any protection."""
    rows, one_hots = features.astype(np.float64), np.eye(CLASSES)[labels]
    return rows.T @ rows, rows.T @ one_hots


def noise(sigma: float) -> dict[str, float]:
    """A million draws, beside the AES-256-CTR stream that they are made of."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    from secure_afl.privacy.discrete_gaussian import Sampler, discrete_gaussian

    entropy = bytes(range(32))
    zeros = bytes(8 * (1 if Sampler(sigma, entropy).step == 1 else 2) * DRAWS)
    stream = bytearray(len(zeros) + 15)

    def key_stream() -> None:
        cipher = Cipher(algorithms.AES256(entropy), modes.CTR(bytes(16)))
        cipher.encryptor().update_into(zeros, stream)

    return cpu({"ours": lambda: discrete_gaussian(sigma, DRAWS, entropy), "aes": key_stream}, 9)


def sites() -> list[Any]:
    """Sixteen clients of a hundred rows each."""
    from secure_afl.analytic.rows import ClientData

    features, labels = rows_of(SITES * SITE_ROWS)
    parts = zip(np.split(features, SITES), np.split(labels, SITES), strict=True)
    return [ClientData(f"site_{n:02}", *part) for n, part in enumerate(parts)]


def federation() -> dict[str, float]:
    """All parties of 16 sites with 100 rows each, beside AFL in NumPy without protection.

    `scores` are those that a report has and AFL in NumPy has not: each site's own model, and the
    accuracy of all; `oracle` is the comparison with the integers that are added up in one place.
    """
    import secure_afl.federation.simulation as simulation
    from protocols.schemes.additive import Additive
    from secure_afl.federation.simulation import Federation
    from secure_afl.methods.afl import AFL

    clients = sites()

    def bare() -> object:
        sums = [afl_client(client.features, client.labels) for client in clients]
        gram, cross = sum(g for g, _ in sums), sum(q for _, q in sums)
        return np.linalg.solve(gram + 0.1 * np.eye(DIM), cross)

    beside = {"scores": 0.0, "oracle": 0.0}

    def metered(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any) -> Any:
            begin = time.process_time()
            result = work(*arguments)
            beside[name] += time.process_time() - begin
            return result

        return measured

    Federation._score = metered("scores", Federation._score)  # type: ignore[method-assign]
    vars(simulation)["is_exact"] = metered("oracle", vars(simulation)["is_exact"])
    method, runs = AFL(ridge=0.1), 5
    works: dict[str, Callable[[], object]] = {
        "ours": lambda: Federation(method, Additive()).run(clients),
        "afl_numpy": bare,
    }
    found = cpu(works, runs)
    return found | {name: seconds / (runs + 1) for name, seconds in beside.items()}


def additive() -> dict[str, float]:
    """CPU seconds a client of `additive`, at each party; spools in memory, no set left out.

    `bound` is one AES-256-CTR pass over the vector's words and one addition, in buffers at hand.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    from protocols import Block, Identity, Layout, enrol, form_session, new_nonce
    from protocols.codec import encode
    from protocols.schemes.additive.protocol import Additive

    protocol, nonce, bound_of_entries = Additive(), new_nonce(), 2**20
    names = [f"client{number}" for number in range(WIRE_CLIENTS)]
    enrolled = enrol(protocol, {name: Identity.generate(name) for name in names}, nonce)
    most = WIRE_CLIENTS * bound_of_entries
    layout = Layout((Block("values", WIRE_ENTRIES, -most, most),))
    members = [enrolment.member for enrolment in enrolled.values()]
    session = form_session(protocol, members, nonce, layout, min_cohort=WIRE_CLIENTS)
    rng = np.random.default_rng(0)
    vector = rng.integers(-bound_of_entries, bound_of_entries, WIRE_ENTRIES)
    words, zeros = layout.zeros(), bytes(4 * WIRE_ENTRIES)
    stream = bytearray(len(zeros) + 15)

    def bound() -> None:
        encryptor = Cipher(algorithms.AES(bytes(32)), modes.CTR(bytes(16))).encryptor()
        encryptor.update_into(zeros, stream)
        np.add(words, np.frombuffer(stream, words.dtype, len(words)), out=words)

    taken: dict[str, list[float]] = {name: [] for name in ("client", *protocol.coordinators())}
    for repeat in range(WIRE_REPEATS + 1):
        spent = dict.fromkeys(taken, 0.0)
        parties = {
            name: protocol.coordinator(session, enrolled[name]) for name in protocol.coordinators()
        }
        mail: list[tuple[str, bytes]] = []
        for party in parties.values():
            assert not party.start(), "aggregators begin by listening"
        for name in names:
            begin = time.process_time()
            said = protocol.client(session, enrolled[name], lambda _: vector).start()
            sent = [encode(message) for message in said]
            spent["client"] += time.process_time() - begin
            mail += list(zip([message.header.recipient for message in said], sent, strict=True))
            while mail:
                recipient, data = mail.pop(0)
                begin = time.process_time()
                answers = parties[recipient].take(data)
                encoded = [(m.header.recipient, encode(m)) for m in answers]
                spent[recipient] += time.process_time() - begin
                mail += encoded
        result = parties["collector"].result
        assert result is not None
        assert np.array_equal(result.total, WIRE_CLIENTS * vector)
        if repeat:
            for name, seconds in spent.items():
                taken[name].append(seconds / WIRE_CLIENTS)
    return {name: median(times) for name, times in taken.items()} | cpu({"bound": bound}, 25)


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    probes: dict[str, Callable[[], dict[str, float]]] = {
        "statistics": lambda: statistics(int(given[0]), int(given[1])),
        "noise": lambda: noise(float(given[0])),
        "federation": federation,
        "additive": additive,
    }
    print(json.dumps(probes[what]()))
