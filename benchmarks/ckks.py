"""Sums under CKKS: bytes, seconds and attacks, beside TenSEAL's own vectors.

python -m benchmarks.ckks
"""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from attacks.encryption.naive_key_holder import NaiveKeyHolder
from attacks.encryption.ploys import (
    Ploy,
    chosen_ciphertext,
    key_recovery,
    malicious_addend,
    relabelled_upload,
    rushing_client,
)
from attacks.encryption.tenseal import DEGREE, Vectors, decrypt_reals, recover_key
from attacks.views.lies import stage
from benchmarks.record import paired, peak_bytes, seconds, write
from protocols import (
    Bfv,
    Block,
    Ckks,
    Enrolment,
    Identity,
    Layout,
    Network,
    Party,
    Plain,
    Protocol,
    Session,
    enrol,
    form_session,
    new_nonce,
)
from protocols.layout import Integers
from protocols.roster import CLIENT
from protocols.schemes.encrypted.chunks import encrypt_chunk, encrypt_zeros
from protocols.schemes.encrypted.messages import KEY_HOLDER, SERVER
from protocols.schemes.encrypted.parameters import find_parameters
from protocols.schemes.encrypted.seal import SEED_BYTES, KeyPair, Ring, Slots, pieces

DIM, CLASSES, CLIENTS = 1024, 10, 10
LENGTH = DIM * (DIM + 1) // 2 + DIM * CLASSES + CLASSES
FLOAT64_BYTES = (DIM * DIM + DIM * CLASSES) * 8
SESSIONS = 100


def main() -> None:
    """Everything, in one run."""
    write(
        "ckks",
        {
            "what": "encrypted sums of (G, Q, counts) at d = 1024, C = 10, from 10 clients",
            "entries": LENGTH,
            "float64_bytes": FLOAT64_BYTES,
            "sessions": {
                "plain": whole_session(Plain()),
                "ckks": whole_session(Ckks()),
                "ckks_unverified": whole_session(Ckks(verify=False)),
                "bfv": whole_session(Bfv()),
            },
            "per_million_entries": per_million(),
            "beside_tenseal_ckks_vector": beside_tenseal(),
            "thousand_clients": thousand_clients(),
            "server_peak_bytes": server_growth(),
            "attacks": {"sessions_each": SESSIONS, **attacks()},
        },
    )


def client_name(index: int) -> str:
    """Of a fixed width, so that names sort as their vectors do."""
    return f"client{index:05}"


def new_session(
    protocol: Protocol, layout: Layout, clients: int, min_cohort: int
) -> tuple[Session, dict[str, Enrolment]]:
    """A session of new identities."""
    names = [client_name(index) for index in range(clients)]
    nonce = new_nonce()
    enrolments = enrol(protocol, {name: Identity.generate(name) for name in names}, nonce)
    session = form_session(
        protocol,
        [e.member for e in enrolments.values()],
        nonce,
        layout,
        min_cohort=min_cohort,
        corrupt=1,
    )
    return session, enrolments


def new_parties(
    protocol: Protocol,
    session: Session,
    enrolments: dict[str, Enrolment],
    vectors: Sequence[Integers],
) -> list[Party]:
    """Coordinators first."""
    coordinators = [
        protocol.coordinator(session, enrolment)
        for enrolment in enrolments.values()
        if enrolment.member.role != CLIENT
    ]
    clients = [
        protocol.client(session, enrolments[name], lambda _, v=vector: v)  # type: ignore[misc]
        for name, vector in zip(session.clients, vectors, strict=True)
    ]
    return [*coordinators, *clients]


def whole_session(protocol: Protocol) -> dict[str, Any]:
    """Bytes and seconds of real parties, one core, sealing and signing included."""
    layout = Layout((Block("all", LENGTH, -(2**31), 2**31 - 1),))
    rng = np.random.default_rng(0)
    vectors = [rng.integers(-(2**31) // CLIENTS, 2**31 // CLIENTS, LENGTH) for _ in range(CLIENTS)]
    session, enrolments = new_session(protocol, layout, CLIENTS, CLIENTS // 2 + 1)
    network = Network(new_parties(protocol, session, enrolments, vectors))
    released = network.run()
    upload = network.sent_bytes[session.clients[0]]
    coordinators = [name for name in network.seconds if name not in session.clients]
    return {
        "exact": bool(np.array_equal(released.total, sum(vectors))),
        "upload_bytes": upload,
        "upload_to_float64": upload / FLOAT64_BYTES,
        "client_seconds": median(network.seconds[name] for name in session.clients),
        "coordinator_seconds": {name: network.seconds[name] for name in coordinators},
        "parameters": repr(find_parameters(layout, CLIENTS, protocol.name))
        if isinstance(protocol, Ckks | Bfv)
        else "",
    }


def per_million() -> dict[str, float]:
    """Seconds for a million entries, from integers to bytes; on one core, and on all."""
    work = Encryption()
    scale = 1e6 / LENGTH
    alone = median(seconds(work.encrypt) for _ in range(5))
    zeros = median(seconds(work.zeros) for _ in range(3))
    figures = {
        "client_encrypts": alone * scale,
        "key_holder_verifies_a_client": zeros * scale,
    }
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        many = partial(pool.map, chunksize=4)
        work.encrypt(many)  # processes start
        figures["client_encrypts_on_all_cores"] = scale * median(
            seconds(partial(work.encrypt, many)) for _ in range(5)
        )
    return figures


class Encryption:
    """What a client does to one vector, and the key holder to verify it."""

    def __init__(self) -> None:
        self.layout = Layout((Block("all", LENGTH, -(2**31), 2**31 - 1),))
        self.parameters = find_parameters(self.layout, CLIENTS)
        self.ring = Ring(self.parameters)
        rng = np.random.default_rng(1)
        self.vector = rng.integers(-(2**27), 2**27, LENGTH)
        self.key_pair = KeyPair(self.ring, rng.bytes(SEED_BYTES), rng.bytes(SEED_BYTES))
        self.public_key = self.ring.save(self.key_pair.public_key)
        self.seeds = [rng.bytes(SEED_BYTES) for _ in range(self.parameters.chunks(LENGTH))]

    def encrypt(self, chunk_map: Callable[..., Any] = map) -> list[bytes]:
        parts = list(pieces(self.parameters, self.vector))
        same = ([thing] * len(parts) for thing in (self.parameters, self.public_key))
        return list(chunk_map(encrypt_chunk, *same, self.seeds, parts))

    def zeros(self) -> None:
        for seed in self.seeds:
            encrypt_zeros(self.parameters, self.public_key, [seed])


def beside_tenseal() -> dict[str, Any]:
    """The same vector both ways, in turn; the largest error, and whether the key falls."""
    ours, peer = Encryption(), Vectors()
    values = ours.vector.astype(np.float64)
    tenseal = by_tenseal(peer, values)

    def opened() -> float:
        slots = [ours.ring.decrypt(ours.key_pair.secret_key, ours.ring.load(c)) for c in mine]
        return float(np.abs(np.concatenate(slots)[:LENGTH] - values).max())

    times = paired(ours.encrypt, tenseal, repeats=5)
    mine, theirs = ours.encrypt(), tenseal()
    sample = values[: DEGREE // 2]
    error = np.abs(np.array(peer.encrypt(sample).decrypt()) - sample).max()
    mine_bytes, their_bytes = sum(map(len, mine)), sum(map(len, theirs))
    return {
        **times,
        "ours_bytes": mine_bytes,
        "peer_bytes": their_bytes,
        "bytes_ratio_peer_to_ours": their_bytes / mine_bytes,
        "seconds_ratio_peer_to_ours": 1 / times["ratio"],
        "ours_largest_error_before_rounding": opened(),
        "ours_largest_error": 0.0,
        "peer_largest_error": float(error),
        "peer_keys_recovered_of_10": sum(tenseal_key_falls(seed) for seed in range(10)),
    }


def by_tenseal(peer: Vectors, values: Slots) -> Callable[[], list[bytes]]:
    """What encrypts reals as `ckks_vector`s, from floats to bytes."""
    cuts = range(0, len(values), DEGREE // 2)
    return lambda: [peer.encrypt(values[at : at + DEGREE // 2]).serialize() for at in cuts]


def tenseal_key_falls(seed: int) -> bool:
    """Two published sums of normalised statistics, then a third upload read with the key."""
    vectors, rng = Vectors(), np.random.default_rng(seed)
    uploads = [[vectors.encrypt(rng.normal(size=DEGREE // 2)) for _ in range(3)] for _ in range(2)]
    sums = [a + b + c for a, b, c in uploads]
    published = [np.array(total.decrypt()) for total in sums]
    key = recover_key(vectors, sums, published)
    secret = rng.normal(size=DEGREE // 2)
    victim = vectors.encrypt(secret)
    return key is not None and bool(
        np.abs(decrypt_reals(vectors, key, victim) - np.array(victim.decrypt())).max() < 1e-9
    )


def thousand_clients() -> dict[str, Any]:
    """One session of 1,000 clients, sums on and inside their bounds."""
    length, bound = 4096, 2**29
    layout = Layout((Block("all", length, -bound, bound),))
    rng = np.random.default_rng(2)
    target = rng.choice([-bound, bound, 0, 1], length)
    vectors = [target // 1000 for _ in range(999)]
    vectors.append(target - sum(vectors))
    for one, other in zip(vectors[:-1:2], vectors[1:-1:2], strict=False):
        shift = rng.integers(-bound // 2, bound // 2, length)
        one += shift
        other -= shift
    session, enrolments = new_session(Ckks(), layout, 1000, 1000)
    network = Network(new_parties(Ckks(), session, enrolments, vectors))
    released = network.run()
    return {
        "exact": bool(np.array_equal(released.total, sum(vectors))),
        "server_seconds": network.seconds[SERVER],
        "key_holder_seconds": network.seconds[KEY_HOLDER],
        "parameters": repr(find_parameters(layout, 1000)),
    }


def server_growth() -> dict[str, int]:
    """Greatest resident bytes of a process that checks and adds up clients' ciphertexts."""
    peaks = {}
    for clients in (2, 40):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            peaks[f"{clients} clients"] = pool.submit(add_up, clients).result()
    return peaks


def add_up(clients: int) -> int:
    """As the server does: one client's ciphertexts beside the sum. Returns the peak."""
    work = Encryption()
    chunks = work.encrypt()
    totals = [work.ring.load(chunk) for chunk in chunks]
    for _ in range(clients - 1):
        for total, chunk in zip(totals, chunks, strict=True):
            work.ring.add(total, work.ring.load(chunk))
    return peak_bytes()


VICTIM, RUSHING = client_name(1), client_name(3)
LYING: dict[str, Callable[[Session], Ploy]] = {
    "relabelled upload": lambda session: relabelled_upload(session, VICTIM),
    "chosen ciphertext": lambda session: chosen_ciphertext(session, VICTIM),
    "malicious addend": lambda session: malicious_addend(session, RUSHING, VICTIM),
    "rushing client": lambda session: rushing_client(session, RUSHING, VICTIM),
    "key recovery": lambda session: key_recovery(session, VICTIM),
}


def attacks() -> dict[str, dict[str, int]]:
    """Sessions in which the coalition has the victim's vector to the last bit."""
    found: dict[str, dict[str, int]] = {}
    for name in LYING:
        found[name] = {
            "naive": sum(succeeds(name, seed, "naive") for seed in range(SESSIONS)),
            "unverified": sum(succeeds(name, seed, "unverified") for seed in range(SESSIONS)),
            "verified": sum(succeeds(name, seed, "verified") for seed in range(SESSIONS)),
        }
    return found


def succeeds(name: str, seed: int, against: str) -> bool:
    """One session."""
    length = 2048
    layout = Layout((Block("values", length, -(2**24), 2**24),))
    rng = np.random.default_rng(seed)
    vectors = [rng.integers(-1000, 1001, length) for _ in range(4)]
    protocol = Ckks(verify=against == "verified")
    session, enrolments = new_session(protocol, layout, 4, 3)
    parties = new_parties(protocol, session, enrolments, vectors)
    attack = LYING[name](session)
    if against == "naive":
        holder = NaiveKeyHolder(session, enrolments[KEY_HOLDER])
        parties = [holder if party.name == KEY_HOLDER else party for party in parties]
        if name == "key recovery":
            attack = key_recovery(session, VICTIM, lambda: holder.published)
    ended = stage(session, parties, attack.coalition, attack.lies)
    vector = attack.read(ended.view)
    return vector is not None and bool(np.array_equal(vector, vectors[1]))


if __name__ == "__main__":
    main()
