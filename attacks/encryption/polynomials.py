"""The numbers inside SEAL's objects: to take ciphertexts apart, and to make ones nobody encrypted.

The ring Z_q[X]/(X^N + 1) at its N roots: a product of polynomials is one of words, place by place.
In SEAL's order of the roots the conjugate of place i is N − 1 − i.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from protocols.schemes.encrypted.parameters import BFV
from protocols.schemes.encrypted.seal import KeyPair, Ring, Slots, load_unchecked

Words = list[int]


@dataclass(frozen=True)
class Pair:
    """The two components of a ciphertext, as words modulo q."""

    first: Words
    second: Words


def modulus(ring: Ring) -> int:
    """Return the prime q."""
    (prime,) = ring.context.first_context_data().parms().coeff_modulus()
    return int(prime.value())


def take_apart(ring: Ring, data: bytes) -> Pair:
    """Return the components of a ciphertext in SEAL's encoding."""
    ciphertext = ring.load(data)
    degree = ring.parameters.degree
    words = [ciphertext[i] for i in range(2 * degree)]
    return Pair(words[:degree], words[degree:])


def put_together(ring: Ring, pair: Pair) -> bytes:
    """Return SEAL 4's encoding of a ciphertext with these components, whatever they are."""
    return ring.save(_ciphertext(ring, pair))


def decode(ring: Ring, words: Words) -> Slots:
    """Return the entries of a plaintext polynomial."""
    return ring.read(_ciphertext(ring, Pair(words, [0] * len(words))))


def decrypt(ring: Ring, key: Words, data: bytes) -> Slots:
    """Decrypt the entries of a ciphertext, with a secret key's words."""
    pair, q = take_apart(ring, data), modulus(ring)
    return decode(
        ring, [(a + b * s) % q for a, b, s in zip(pair.first, pair.second, key, strict=True)]
    )


def polynomial(ring: Ring, entries: Slots, scale: float) -> Words:
    """Return the words of the integer polynomial nearest to entries.

    It is rounded as the encoder rounds it.
    """
    plaintext = ring.encode_slots(entries, scale)
    return [plaintext[i] for i in range(ring.parameters.degree)]


def key_from_sum(pair: Pair, message: Words, q: int) -> Words | None:
    """Return s = (m − c0)/c1, where m = c0 + c1·s is known exactly.

    None if c1 has no inverse.
    """
    if 0 in pair.second:
        return None
    return [
        (m - a) * pow(b, -1, q) % q
        for m, a, b in zip(message, pair.first, pair.second, strict=True)
    ]


def key_from_real_parts(pairs: Sequence[Pair], messages: Sequence[Words], q: int) -> Words | None:
    """Return s from two sums of which only real parts are known.

    So m + m̄ is known at every place.

    At a place and its conjugate the two sums are two equations in the two words of s there:
    m + m̄ = c0 + c̄0 + c1·s + c̄1·s̄.
    """
    rows = []
    for pair, message in zip(pairs, messages, strict=True):
        known = [
            m - a - b for m, a, b in zip(message, pair.first, reversed(pair.first), strict=True)
        ]
        rows.append((pair.second, pair.second[::-1], known))
    (a, b, e), (c, d, f) = rows
    key = []
    for i in range(len(a)):
        determinant = (a[i] * d[i] - b[i] * c[i]) % q
        if determinant == 0:
            return None
        key.append((e[i] * d[i] - b[i] * f[i]) * pow(determinant, -1, q) % q)
    return key


def uncompressed(ring: Ring, pair: Pair) -> bytes:
    """Return SEAL 4's uncompressed encoding of a ciphertext with these components."""
    words = np.array([*pair.first, *pair.second], dtype="<u8")
    # Magic, header size and version are those of anything that this SEAL writes.
    sample = ring.save(ring.encrypt(KeyPair(ring, bytes(64), bytes(64)).public_key, bytes(64)))
    inner = struct.pack("<Q", len(words)) + words.tobytes()
    in_ntt_form = ring.parameters.scheme != BFV
    body = (
        struct.pack("<4Q", *ring.context.first_parms_id())
        + struct.pack("<B3QdQ", in_ntt_form, 2, ring.parameters.degree, 1, ring.parameters.scale, 1)
        + _header(sample, inner)
        + inner
    )
    return _header(sample, body) + body


def _ciphertext(ring: Ring, pair: Pair) -> Any:
    return load_unchecked(ring, uncompressed(ring, pair))


def _header(sample: bytes, body: bytes) -> bytes:
    """Return SEAL's header of an uncompressed object.

    It holds magic, sizes, and the version of the sample.
    """
    return struct.pack("<HBBBBHQ", 0xA15E, 16, sample[3], sample[4], 0, 0, 16 + len(body))
