"""Key recovery from two decrypted sums of TenSEAL's `ckks_vector`, as federated examples use it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from attacks.encryption.polynomials import Pair, Words, decode, key_from_real_parts, modulus
from protocols.schemes.encrypted.parameters import CKKS, Parameters
from protocols.schemes.encrypted.seal import Ring, Slots, load_unchecked

DEGREE, PRIME_BITS, SCALE = 8192, (60, 40, 40), 2.0**40
# What SEAL writes first: its magic, and the size of its header.
_MAGIC = bytes.fromhex("5ea110")


class Vectors:
    """TenSEAL's context at N = 8192, [60, 40, 40], scale 2^40, and its vectors' parts."""

    def __init__(self) -> None:
        import tenseal

        self.tenseal = tenseal
        self.context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS, DEGREE, coeff_mod_bit_sizes=list(PRIME_BITS)
        )
        self.context.global_scale = SCALE
        # The first of the three primes is enough to solve in: what is sought is small.
        self.ring = Ring(Parameters(CKKS, DEGREE, PRIME_BITS[0], SCALE, 0, 0, 1, 0.0))
        self._seal_context = _context_of_all_primes()

    def encrypt(self, values: Slots) -> Any:
        """Encrypt at most N/2 reals as a `ckks_vector`."""
        return self.tenseal.ckks_vector(self.context, values.tolist())

    def pair(self, vector: Any) -> Pair:
        """Return the components of a vector's ciphertext modulo the first prime."""
        data = vector.serialize()
        ciphertext = load_unchecked(self.ring, data[data.index(_MAGIC) :], self._seal_context)
        words = [[ciphertext[at + i] for i in range(DEGREE)] for at in (0, 2 * DEGREE)]
        return Pair(*words)


def recover_key(vectors: Vectors, sums: Sequence[Any], published: Sequence[Slots]) -> Words | None:
    """Return the secret key's words, from two sums and their decryptions.

    The decryptions are those that TenSEAL returns.
    """
    ring = vectors.ring
    messages = []
    for values in published:
        slots = np.zeros(DEGREE)
        slots[: 2 * len(values) : 2] = values  # real parts
        plaintext = ring.encode_slots(2 * slots, SCALE)
        messages.append([plaintext[i] for i in range(DEGREE)])
    return key_from_real_parts([vectors.pair(s) for s in sums], messages, modulus(ring))


def decrypt_reals(vectors: Vectors, key: Words, vector: Any) -> Slots:
    """Return the N/2 real parts of a vector, with a recovered key."""
    pair, q = vectors.pair(vector), modulus(vectors.ring)
    words = [(a + b * s) % q for a, b, s in zip(pair.first, pair.second, key, strict=True)]
    return decode(vectors.ring, words)[::2]


def _context_of_all_primes() -> Any:
    from tenseal import sealapi as seal

    terms = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
    terms.set_poly_modulus_degree(DEGREE)
    terms.set_coeff_modulus(seal.CoeffModulus.Create(DEGREE, list(PRIME_BITS)))
    return seal.SEALContext(terms, True, seal.SEC_LEVEL_TYPE.TC128)
