"""What one exchange over Flower costs a site: CPU and memory of a client app's process.

python -m benchmarks.flower

A process does what Flower's client app does but for the mail's way: it imports Flower's runtime and
the app, unpacks a request, lets the party take it, and packs the reply. The largest upload is that
of a vector of which a client sends 20 MB.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.record import write
from protocols import Additive
from secure_afl.analytic.rows import ClientData
from secure_afl.flower.office import Office
from secure_afl.flower.wire import Reply, Request, pack, unpack_reply
from secure_afl.privacy.ledger import Ledger
from secure_afl.sites.settings import read_site

RUNTIME = "import flwr.supernode.runtime.run_clientapp"
APP = "import secure_afl.flower.client"
# d (d + 1) / 2 + 10 d entries, and 10 of counts; upload_bytes is what came of them.
DIM = 3152
CLIENTS, ROWS = 3, 40


def main() -> None:
    """Measure, and write the figures down."""
    figures = {"imports": imports(), "large": large()}
    write("flower", figures)


def imports(repeats: int = 7) -> dict[str, float]:
    """CPU seconds of a process that imports Flower's runtime alone, and with the app."""
    flower, both = [], []
    for _ in range(repeats):
        flower.append(cpu(RUNTIME))
        both.append(cpu(f"{RUNTIME}; {APP}"))
    return {
        "flower_cpu_seconds": statistics.median(flower),
        "with_app_cpu_seconds": statistics.median(both),
        "ratio": statistics.median(b / a for a, b in zip(flower, both, strict=True)),
        "repeats": repeats,
    }


def cpu(code: str) -> float:
    """CPU seconds of a Python process, start included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def large() -> dict[str, object]:
    """A run whose clients send 20 MB: CPU and peak memory of each exchange's process."""
    from tests.kit.sites import PATIENT, Sites

    rng = np.random.default_rng(0)
    clients = {
        f"c{i}": ClientData(f"c{i}", rng.standard_normal((ROWS, DIM)), np.arange(ROWS) % 10)
        for i in range(CLIENTS)
    }
    with tempfile.TemporaryDirectory() as folder:
        sites = Sites(Path(folder) / "sites", Additive(), clients, wait=PATIENT)
        for name in clients:
            path = sites.folder / name / "site.toml"
            path.write_text(path.read_text().replace("max-rows = 32", "max-rows = 64"))
            ledger = Path(str(read_site(sites.folder / name / "site.toml").run.ledger))
            Ledger.open(ledger, anchor=ledger.parent, new=True).take_over(None, ())
            subprocess.run(
                [
                    *(sys.executable, "-m", "secure_afl", "site", "prepare"),
                    *("--site", str(sites.folder / name / "site.toml")),
                ],
                check=True,
                capture_output=True,
            )
        return carry(sites, Path(folder))


def carry(sites: object, folder: Path) -> dict[str, object]:
    """Carry a run to its end, each exchange in a process of its own."""
    from tests.kit.sites import Sites

    assert isinstance(sites, Sites)
    names = [name for name in sites.roles if name != sites.convener]
    office = Office([sites.convener])
    sites.mailrooms[sites.convener] = office  # type: ignore[assignment]
    sites.start(sites.convener)
    driver, letters = sites.alive[sites.convener], office.letters()
    told: list[dict[str, object]] = []
    for now in range(200):
        sites.now = float(now)
        if not driver.finished:
            driver.turn(letters)
        elif not office.waits_for(sites.roles):
            break
        for node, name in enumerate(names):
            request = office.request(node, float(now), repeat=1000.0)
            if request is not None:
                reply, figures = exchange(sites.folder / name / "site.toml", request, folder)
                told.append({"party": name, **figures})
                office.take(node, reply, float(now))
    mine = [t for t in told if t["party"] in sites.clients]
    largest = max(mine, key=lambda t: float(str(t["sent_bytes"])))
    return {
        "feature_dim": DIM,
        "exchanges": len(told),
        "upload_bytes": largest["sent_bytes"],
        "upload_peak_kilobytes": largest["peak_kilobytes"],
        "upload_cpu_seconds": largest["cpu_seconds"],
        "peak_kilobytes": {
            name: [t["peak_kilobytes"] for t in told if t["party"] == name] for name in names
        },
        "median_cpu_seconds": statistics.median(float(str(t["cpu_seconds"])) for t in mine),
        "torch_imported": any(bool(t["torch"]) for t in told),
        "problem": sites.conventions[sites.convener].convening.problem or None,
    }


CHILD = """
import json, pickle, resource, sys
import flwr.supernode.runtime.run_clientapp
from pathlib import Path
from secure_afl.flower.client import answer
from secure_afl.flower.wire import pack, unpack_request
from secure_afl.sites.settings import read_site
site, into, out = sys.argv[1:]
records = pickle.loads(Path(into).read_bytes())
reply = pack(answer([read_site(Path(site))], unpack_request(records)))
Path(out).write_bytes(pickle.dumps(reply))
used = resource.getrusage(resource.RUSAGE_SELF)
# ru_maxrss begins with the peak of the process that began this one.
status = Path("/proc/self/status").read_text()
print(json.dumps({
    "peak_kilobytes": int(status.partition("VmHWM:")[2].split()[0]),
    "cpu_seconds": used.ru_utime + used.ru_stime,
    "torch": "torch" in sys.modules,
}))
"""


def exchange(site: Path, request: Request, folder: Path) -> tuple[Reply, dict[str, object]]:
    """One exchange in a process of its own, with what it took."""
    import pickle

    into, out = folder / "request", folder / "reply"
    into.write_bytes(pickle.dumps(pack(request)))
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(site), str(into), str(out)],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    figures: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    reply = unpack_reply(pickle.loads(out.read_bytes()))
    sent = sum(len(parcel.mail) for parcel in reply.parcels)
    return reply, {**figures, "sent_bytes": sent, "seconds": time.perf_counter() - begin}


if __name__ == "__main__":
    main()
