"""One measurement of `benchmarks.speed`, in a process whose `PYTHONPATH` names the code measured.

python benchmarks/speed_probe.py (statistics ROWS BITS | noise SIGMA | federation), JSON on stdout.

It imports nothing of `benchmarks`, and of the packages only what both versions have.
"""

import json
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
from numpy.typing import NDArray

DIM, CLASSES, DRAWS = 1024, 10, 1_000_000
SITES, SITE_ROWS = 16, 100


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


def federation() -> dict[str, float]:
    """All parties of 16 sites with 100 rows each, beside AFL in NumPy without protection."""
    from protocols.schemes.additive import Additive
    from secure_afl.analytic.rows import ClientData
    from secure_afl.federation.simulation import Federation
    from secure_afl.methods.afl import AFL

    features, labels = rows_of(SITES * SITE_ROWS)
    parts = list(zip(np.split(features, SITES), np.split(labels, SITES), strict=True))
    clients = [ClientData(f"site_{n:02}", *part) for n, part in enumerate(parts)]

    def bare() -> object:
        sums = [afl_client(*part) for part in parts]
        gram, cross = sum(g for g, _ in sums), sum(q for _, q in sums)
        return np.linalg.solve(gram + 0.1 * np.eye(DIM), cross)

    method = AFL(ridge=0.1)
    works: dict[str, Callable[[], object]] = {
        "ours": lambda: Federation(method, Additive()).run(clients),
        "afl_numpy": bare,
    }
    return cpu(works, 5)


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    if what == "statistics":
        print(json.dumps(statistics(int(given[0]), int(given[1]))))
    else:
        print(json.dumps(noise(float(given[0])) if what == "noise" else federation()))
