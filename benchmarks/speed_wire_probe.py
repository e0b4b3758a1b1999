"""One measurement of `benchmarks.speed_wire`, of the code that `PYTHONPATH` names.

python benchmarks/speed_wire_probe.py ENTRIES BITS (settled | first), JSON on stdout.
"""

import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from benchmarks.additive import bound
from protocols import Block, Identity, Layout, enrol, form_session, new_nonce
from protocols.codec import encode
from protocols.schemes.additive import Additive

# glibc unmaps freed blocks above a threshold that grows, up to 32 MiB, with what has been freed.
SETTLING_BYTES = 31 << 20


def main() -> None:
    """Time uploads, each by a client of its own, beside the bound and SHA-256 of the body."""
    entries, bits, when = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    high = 2 ** (bits - 1) - 1
    layout, protocol, nonce = Layout((Block("all", entries, -high, high),)), Additive(), new_nonce()
    clients = {name: Identity.generate(name) for name in ("one", "two")}
    enrolments = enrol(protocol, clients, nonce)
    members = [enrolment.member for enrolment in enrolments.values()]
    session = form_session(protocol, members, nonce, layout, min_cohort=2)
    vector = np.random.default_rng(0).integers(-(high // 2), high // 2, entries)

    def upload() -> list[bytes]:
        party = protocol.client(session, enrolments["one"], lambda _: vector)
        return [encode(message) for message in party.start()]

    # The smallest session warms up imports, and no buffer.
    tiny = Layout((Block("all", 1, -high, high),))
    first = form_session(protocol, members, nonce, tiny, min_cohort=2)
    one = np.zeros(1, dtype=np.int64)
    protocol.client(first, enrolments["one"], lambda _: one).start()
    fixed = median(
        cpu(lambda: protocol.client(first, enrolments["one"], lambda _: one).start())
        for _ in range(11)
    )
    if when == "settled":
        np.ones(SETTLING_BYTES, dtype=np.uint8)
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = [cpu(upload)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begun
    if when == "settled":
        times = [cpu(upload) for _ in range(11)]
    body, once = bytes(layout.packed_bytes), bound(layout)
    once()
    print(
        json.dumps(
            {
                "upload": median(times),
                "fixed": fixed,
                "bound": median(cpu(once) for _ in range(11)),
                "sha": median(cpu(lambda: hashlib.sha256(body).digest()) for _ in range(5)),
                "peak_megabytes": peak / 1024,
            }
        )
    )


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
