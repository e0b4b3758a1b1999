"""Chunks of a vector under encryption, and the seeds and keys that they are encrypted with."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from protocols.layout import Integers
from protocols.message import derive
from protocols.schemes.encrypted.parameters import Parameters
from protocols.schemes.encrypted.seal import SEED_BYTES, KeyPair, Ring
from protocols.session import Session

# As the builtin `map`, which does one after the other; a process pool's `map` does many at once.
ChunkMap = Callable[..., Iterable[bytes]]


def encrypt_chunk(parameters: Parameters, public_key: bytes, seed: bytes, part: Integers) -> bytes:
    """Encrypt one chunk as a function of the arguments alone, for any process to compute."""
    ring, loaded = _loaded(parameters, public_key)
    return ring.save(ring.encrypt(loaded, seed, ring.encode(part)))


def encrypt_zeros(parameters: Parameters, public_key: bytes, seeds: Iterable[bytes]) -> bytes:
    """Return the sum of the encryptions of zero under these seeds."""
    ring, loaded = _loaded(parameters, public_key)
    first, *others = seeds
    total = ring.encrypt(loaded, first)
    for seed in others:
        ring.add(total, ring.encrypt(loaded, seed))
    return ring.save(total)


@lru_cache(maxsize=4)
def _loaded(parameters: Parameters, public_key: bytes) -> tuple[Ring, Any]:
    ring = Ring(parameters)
    return ring, ring.load_public_key(public_key)


def session_keys(session: Session, ring: Ring, secret: bytes, key_holder: str) -> KeyPair:
    """Make the key pair of a session, from the secret that its key holder drew."""
    seeds = (
        derive(secret, session.id, purpose, key_holder, length=SEED_BYTES)
        for purpose in ("secret key", "public key")
    )
    return KeyPair(ring, *seeds)


def encryption_seed(session: Session, secret: bytes, client: str) -> bytes:
    """Derive the seed that a client encrypts with, 32 bytes, from its secret."""
    return derive(secret, session.id, "encryption", client)


def chunk_seed(session: Session, seed: bytes, client: str, index: int) -> bytes:
    """Derive SEAL's seed, 64 bytes, of a client's ciphertext `index`."""
    return derive(seed, session.id, "chunk", client, str(index), length=SEED_BYTES)
