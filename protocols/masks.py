"""Masks: the key stream of AES in counter mode, added to a ring vector in place.

A mask is as secret and as random as its key (AES-CTR, NIST SP 800-38A), and is used for one vector
only; so the counter may start at zero.
"""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from protocols.layout import RingVector

# Small enough that the key stream is still in cache when it is added.
_CHUNK_BYTES = 1 << 17
_ZEROS = memoryview(bytes(_CHUNK_BYTES))
_BLOCK_BYTES = 16


def add_mask(vector: RingVector, key: bytes) -> None:
    """Add the mask of `key` (16 or 32 bytes) to `vector` in place, modulo its word size.

    Each entry gets the next 4 (uint32) or 8 (uint64) bytes of the key stream, little-endian; modulo
    any 2^b of at most that width the mask is uniform.
    """
    _combine(vector, key, np.add)


def subtract_mask(vector: RingVector, key: bytes) -> None:
    """The inverse of `add_mask`."""
    _combine(vector, key, np.subtract)


def _combine(vector: RingVector, key: bytes, combine: np.ufunc) -> None:
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(_BLOCK_BYTES))).encryptor()
    stream = bytearray(_CHUNK_BYTES + _BLOCK_BYTES - 1)  # as `update_into` asks
    entries = _CHUNK_BYTES // vector.itemsize
    words = np.frombuffer(stream, dtype=f"<u{vector.itemsize}", count=entries)
    for start in range(0, len(vector), entries):
        part = vector[start : start + entries]
        encryptor.update_into(_ZEROS[: part.nbytes], stream)
        combine(part, words[: len(part)], out=part)
