"""Masks: the key stream of AES in counter mode, added to a ring vector in place.

A mask is as secret and as random as its key (AES-CTR, NIST SP 800-38A), and is used for one vector
only; so the counter may start at zero.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from protocols.layout import RingVector

MASK_KEY_BYTES = 16

# The key stream is still in cache when it is added. With less at a time, threads would spend more
# on waiting for each other's turn in the interpreter than on masks.
_CHUNK_BYTES = 3 << 18
_ZEROS = memoryview(bytes(_CHUNK_BYTES))
_BLOCK_BYTES = 16


class Mask(NamedTuple):
    """A mask to add, or if `negative` to subtract."""

    key: bytes
    negative: bool

    def __repr__(self) -> str:
        return "<Mask>"


def add_mask(vector: RingVector, key: bytes) -> None:
    """Add the mask of `key` (16 or 32 bytes) to `vector` in place.

    The addition is modulo the vector's word size.

    Each entry gets the next 4 (uint32) or 8 (uint64) bytes of the key stream, little-endian; modulo
    any 2^b of at most that width the mask is uniform.
    """
    add_masks(vector, [Mask(key, negative=False)])


def add_masks(vector: RingVector, masks: Iterable[Mask]) -> None:
    """Add many masks in place; memory does not grow with their number."""
    stream = bytearray(_CHUNK_BYTES + _BLOCK_BYTES - 1)  # as `update_into` asks
    # Pieces of one size: a short one at the end would cost the threads a turn as well.
    pieces = max(1, -(-vector.nbytes // _CHUNK_BYTES))
    entries = max(1, -(-len(vector) // pieces))
    words = np.frombuffer(stream, dtype=f"<u{vector.itemsize}", count=entries)
    for mask in masks:
        combine = np.subtract if mask.negative else np.add
        encryptor = _key_stream(mask.key)
        for start in range(0, len(vector), entries):
            part = vector[start : start + entries]
            encryptor.update_into(_ZEROS[: part.nbytes], stream)
            combine(part, words[: len(part)], out=part)


class MaskStream:
    """Masks that are added to a vector piece by piece, all of them to each piece in turn.

    The pieces together get what `add_masks` adds to the whole vector.
    """

    def __init__(self, masks: Iterable[Mask]) -> None:
        self._streams = [(mask.negative, _key_stream(mask.key)) for mask in masks]
        self._stream = bytearray()

    def add_to(self, piece: RingVector) -> None:
        """Add the masks' next words to the next piece of the vector, at most 768 KiB, in place."""
        needed = piece.nbytes + _BLOCK_BYTES - 1
        if len(self._stream) < needed:
            self._stream = bytearray(needed)
        words = np.frombuffer(self._stream, dtype=f"<u{piece.itemsize}", count=len(piece))
        for negative, encryptor in self._streams:
            encryptor.update_into(_ZEROS[: piece.nbytes], self._stream)
            (np.subtract if negative else np.add)(piece, words, out=piece)


def add_masks_in_threads(vector: RingVector, masks: Sequence[Mask], threads: int) -> None:
    """Add masks by several threads, each with a partial sum of its own."""
    threads = max(1, min(threads, len(masks)))

    def add_part(first: int) -> RingVector:
        total = np.zeros_like(vector)
        add_masks(total, masks[first::threads])
        return total

    with ThreadPoolExecutor(threads) as pool:
        for total in pool.map(add_part, range(threads)):
            vector += total


def _key_stream(key: bytes) -> CipherContext:
    return Cipher(algorithms.AES(key), modes.CTR(bytes(_BLOCK_BYTES))).encryptor()


def key_stream(key: bytes, length: int) -> bytes:
    """Return the first bytes of the key stream of a 32-byte key.

    It serves to draw many values from one key.
    """
    cipher = Cipher(algorithms.AES256(key), modes.CTR(bytes(_BLOCK_BYTES)))
    return cipher.encryptor().update(bytes(length))
