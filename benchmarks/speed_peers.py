"""Parties beside other software and beside what cannot be avoided: all rows of one run.

SECURE_AFL_DATA=… python -m benchmarks.speed_peers [--folder PATH]

Seconds are CPU time of all threads, medians of calls that take turns in this process, with one BLAS
thread. An aggregator's uploads also have wall time, for a disk is waited for: the peer writes the
same bytes to a file and flushes it, between two uploads. Needs tenseal, flwr and opendp, as the
extra `dev` has them. The load of the machine stands in the results, before and after.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from attacks.encryption.tenseal import Vectors
from benchmarks import ckks, fedavg, flower_secagg, noise, pairwise, seats, speed_probe
from benchmarks.record import RESULTS, paired, write
from protocols import Additive, Enrolment
from protocols.spool import FileSpool
from secure_afl import AFL, ClientData, FedAvg, Federation, Plain

UPLOADS = 40
SIGMAS = (2.0, 1e3, 1e9)
# Longer than FedAvg took to AFL's accuracy under any seed.
ROUNDS = 160


def main() -> None:
    """Measure every row, and write `results/speed_peers.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, help="where spools and seats go; default: temporary")
    folder = parser.parse_args().folder
    with threadpool_limits(1), tempfile.TemporaryDirectory(dir=folder) as root:
        rows = {
            "statistics_100": speed_probe.statistics(100, 8),
            "statistics_25000": speed_probe.statistics(25_000, 8),
            "federation": speed_probe.federation() | {"bytes": upload_bytes()},
            "additive": speed_probe.additive(),
            "durable": {
                name: beside_the_disk(name, Path(root) / name)
                for name in ("collector", "aggregator_1")
            },
            "pairwise": beside_secagg(),
            "signatures": pairwise.verification(25),
            "ckks": beside_tenseal(),
            "noise": {f"{sigma:g}": beside_opendp(sigma) for sigma in SIGMAS},
            "fedavg": beside_fedavg(),
            "ten_thousand": ten_thousand(),
        }
    write(
        "speed_peers",
        {
            "what": "CPU seconds of all threads, one BLAS thread; medians of calls in turn",
            "versions": {name: version(name) for name in ("flwr", "tenseal", "opendp", "numpy")},
            "rows": rows,
        },
    )


def upload_bytes() -> dict[str, float]:
    """What a site of `speed_probe.federation` sends, beside its statistics as float64."""
    clients = speed_probe.sites()
    (round_,) = Federation(AFL(ridge=0.1), Additive()).run(clients).rounds
    float64 = 8 * speed_probe.DIM * (speed_probe.DIM + speed_probe.CLASSES)
    return {
        "ours": mean(round_.sent_bytes[client.name] for client in clients),
        "afl_numpy": float64,
    }


def beside_the_disk(name: str, root: Path) -> dict[str, Any]:
    """Uploads at one aggregator: its spool in files, its seat, and write + fsync of the bytes."""
    protocol = Additive()
    session, enrolments, seat = seats.seated(
        protocol, UPLOADS, speed_probe.WIRE_ENTRIES, name, root
    )
    # A key that was opened once is remembered: each has an enrolment of its own.
    alone = Enrolment.load(enrolments[name].save())
    bare = protocol.coordinator(session, alone, spool=FileSpool(root / "spool"))
    bare.start()
    spent: dict[str, list[tuple[float, float]]] = {"spool": [], "seat": [], "write": []}
    with seat:
        seat.join(session, protocol)
        found = seats.uploads(
            protocol, session, enrolments, speed_probe.WIRE_ENTRIES, recipient=name
        )
        for number, data in enumerate(found):
            works: dict[str, Callable[[], object]] = {
                "spool": lambda data=data: bare.take(data),  # type: ignore[misc]
                "seat": lambda data=data: seat.deliver(data),  # type: ignore[misc]
                "write": lambda data=data, number=number: _flushed(  # type: ignore[misc]
                    root / f"{number}.bytes", data
                ),
            }
            for way, work in works.items():
                begin, cpu = time.perf_counter(), time.process_time()
                work()
                spent[way].append((time.perf_counter() - begin, time.process_time() - cpu))
    return {
        "bytes": len(data),
        **{
            way: {"wall": median(w for w, _ in times), "cpu": median(c for _, c in times)}
            for way, times in spent.items()
        },
    }


def _flushed(path: Path, data: bytes) -> None:
    """Write bytes to a new file, and wait until they are on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def beside_secagg() -> dict[str, float]:
    """A client of 100: ours, Flower's SecAgg+, and ours again."""
    ours = [pairwise.client_seconds()]
    theirs = flower_secagg.run(100, 56, upload=3)[0]
    ours.append(pairwise.client_seconds())
    return {
        "ours": mean(ours),
        "ours_range": max(ours) - min(ours),
        "flower": float(np.median(theirs)),
    }


def beside_tenseal() -> dict[str, float]:
    """Encryption of one vector of AFL's statistics, by both."""
    ours = ckks.Encryption()
    peer = ckks.by_tenseal(Vectors(), ours.vector.astype(np.float64))
    return paired(ours.encrypt, peer, 5, time.process_time)


def beside_opendp(sigma: float) -> dict[str, float]:
    """A draw of both; OpenDP's calls make fewer."""
    import opendp.prelude as opendp

    opendp.enable_features("contrib")
    ours = noise.ours(sigma)
    found = paired(ours, noise.peer(sigma), 5, time.process_time)
    return {
        "ours": found["ours_seconds"] / noise.COUNT,
        "opendp": found["peer_seconds"] / noise.PEER_COUNT,
        "ratio": found["ratio"] * noise.PEER_COUNT / noise.COUNT,
    }


def beside_fedavg() -> dict[str, Any]:
    """Hand signs, 16 sites: AFL's one round, and FedAvg's until it is as accurate.

    FedAvg has the settings that `benchmarks.fedavg` picked on held-out rows, and one seed.
    """
    case = fedavg.cases()["signs"]
    clients, test, classes = fedavg.load(case, seed=0)
    record = json.loads((RESULTS / "fedavg.json").read_text(encoding="utf-8"))["signs"]["settings"]
    tuned = ("learning_rate", "local_epochs", "batch_size")
    picked = {name: record["fedavg"][0][name] for name in tuned}
    afl, peer = AFL(ridge=record["afl"][0]["ridge"]), FedAvg(rounds=ROUNDS, **picked)

    def run(method: AFL | FedAvg, test: ClientData | None = None) -> Any:
        return Federation(method, Plain()).run(clients, classes=classes, test=test)

    ours = fedavg.curve(afl, run(afl, test), test)
    target = ours["accuracy"][0]
    theirs = fedavg.curve(peer, run(peer, test), test)
    reached = fedavg.first(np.array(theirs["accuracy"]) >= target)
    if reached is None:
        return {"accuracy": target, "reached": None, "best": max(theirs["accuracy"])}
    short = FedAvg(rounds=reached, **picked)
    times = paired(lambda: run(afl), lambda: run(short), 3, time.process_time)
    return {
        "accuracy": target,
        "reached": reached,
        "ours": times["ours_seconds"],
        "fedavg": times["peer_seconds"],
        "ratio": times["ratio"],
        "bytes": {
            side: float(found["upload"][at] + found["download"][at])
            for side, found, at in (("ours", ours, 0), ("fedavg", theirs, reached - 1))
        },
    }


def ten_thousand() -> dict[str, float]:
    """A whole run of ten thousand clients, in a process of its own."""
    child: Sequence[str] = (sys.executable, "-m", "benchmarks.simulation", "--clients", "10000")
    alone = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(child, check=True, capture_output=True, text=True, env=alone)
    found = json.loads(done.stdout)
    return {name: found[name] for name in ("cpu_seconds", "peak_bytes")}


if __name__ == "__main__":
    main()
