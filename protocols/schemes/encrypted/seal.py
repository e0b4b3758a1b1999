"""Microsoft SEAL, through TenSEAL's `sealapi`, as far as encrypted sums need it.

All randomness of SEAL comes from the generator of its context, and a generator of a given seed
begins anew at every use. So each use here has a context of its own, made for one seed: one for the
secret key, another for the public key (in one generator the public error would be a function of
the secret), and one for each ciphertext, for two under one seed would differ by their plaintexts.
A context of one prime takes under a millisecond.

`sealapi` reads and writes files only. Public keys and ciphertexts pass through one in memory where
the system has such; secret keys never do, for they are made again from their seed.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.errors import Malformed
from protocols.layout import Integers, Layout, RingVector
from protocols.schemes.encrypted.parameters import BFV, Parameters

SEED_BYTES = 64

# What SEAL throws through pybind11 at bytes or operands that it does not like.
_SEAL_ERRORS = (RuntimeError, ValueError, IndexError, MemoryError, OverflowError)

Slots = NDArray[np.float64]


class Ring:
    """SEAL's objects for one set of parameters, without randomness: it adds, loads and decodes."""

    def __init__(self, parameters: Parameters) -> None:
        seal = _seal()
        self.parameters = parameters
        self.context = _context(parameters, None)
        self.evaluator = seal.Evaluator(self.context)
        if parameters.scheme == BFV:
            self._encoder = seal.BatchEncoder(self.context)
            plain_modulus = self.context.first_context_data().parms().plain_modulus()
            self._plain_modulus = int(plain_modulus.value())
        else:
            self._encoder = seal.CKKSEncoder(self.context)

    # Entries and plaintexts

    def encode(self, entries: Integers) -> Any:
        """Encode at most N integers as a plaintext; two to a complex slot under CKKS."""
        if self.parameters.scheme != BFV:
            return self.encode_slots(entries.astype(np.float64), self.parameters.scale)
        plaintext = _seal().Plaintext()
        self._encoder.encode(entries.tolist(), plaintext)
        return plaintext

    def encode_slots(self, entries: Slots, scale: float) -> Any:
        """Encode the integer polynomial nearest to `scale` times these entries, under CKKS."""
        plaintext = _seal().Plaintext()
        padded = np.zeros(self.parameters.degree)
        padded[: len(entries)] = entries
        self._encoder.encode(padded.view(np.complex128).tolist(), scale, plaintext)
        return plaintext

    def decode(self, plaintext: Any) -> Slots:
        """Return the N entries of a plaintext, not yet rounded.

        Under BFV they are integers in −t/2..t/2.
        """
        if self.parameters.scheme == BFV:
            return np.array(self._encoder.decode_int64(plaintext), dtype=np.float64)
        return np.array(self._encoder.decode_complex(plaintext)).view(np.float64)

    # Bytes

    def save(self, ciphertext: Any) -> bytes:
        """Return SEAL's encoding of a ciphertext or a public key."""
        with _scratch() as file:
            return file.save(ciphertext)

    def load(self, data: bytes) -> Any:
        """Load a fresh ciphertext or a sum of such.

        Raises:
            Malformed: of another context, size, form or scale, transparent, or anything but the
                one encoding.
        """
        seal, wanted = _seal(), self.parameters
        if len(data) > wanted.ciphertext_bytes:
            raise Malformed("a ciphertext that is too long")
        ciphertext = seal.Ciphertext()
        with _scratch() as file:
            file.load(ciphertext, self.context, data, "ciphertext")
            if (
                ciphertext.parms_id() != self.context.first_parms_id()
                or ciphertext.size() != 2
                or ciphertext.is_ntt_form() != (wanted.scheme != BFV)
                or ciphertext.scale != wanted.scale
            ):
                raise Malformed("a ciphertext of another size, form or scale")
            if ciphertext.is_transparent():
                raise Malformed("a transparent ciphertext, which encrypts nothing")
            if file.save(ciphertext) != data:
                raise Malformed("not the canonical encoding of a ciphertext")
        return ciphertext

    def load_public_key(self, data: bytes) -> Any:
        """Read a public key of this context.

        Raises:
            Malformed: other bytes than the canonical encoding of a key, or a transparent key.
        """
        public_key = _seal().PublicKey()
        with _scratch() as file:
            file.load(public_key, self.context, data, "public key")
            if public_key.data().is_transparent() or file.save(public_key) != data:
                raise Malformed("not the canonical encoding of a public key")
        return public_key

    # Encryption

    def encrypt(self, public_key: Any, seed: bytes, plaintext: Any | None = None) -> Any:
        """Encrypt a plaintext, or zero, to the ciphertext that this seed determines.

        One seed, one ciphertext, ever. That of zero differs from that of a plaintext under the same
        seed in the first component only, and there by the plaintext.
        """
        seal = _seal()
        encryptor = seal.Encryptor(_context(self.parameters, seed), public_key)
        ciphertext = seal.Ciphertext()
        if plaintext is None:
            encryptor.encrypt_zero(ciphertext)
            ciphertext.scale = self.parameters.scale
        else:
            encryptor.encrypt(plaintext, ciphertext)
        return ciphertext

    def add(self, total: Any, addend: Any) -> None:
        """Add in place."""
        self.evaluator.add_inplace(total, addend)

    def decrypt(self, secret_key: Any, ciphertext: Any) -> Slots:
        """Return the N entries of a ciphertext, not yet rounded."""
        return self._read(_seal().Decryptor(self.context, secret_key), ciphertext)

    # Differences of ciphertexts that leave nothing encrypted

    def subtract(self, total: Any, zero: Any) -> bool:
        """Subtract in place, modulo q; say whether the second components were equal.

        If so, what is left is (d, 0): a polynomial that no secret key has a part in.
        """
        # SEAL has subtracted when it refuses a result that encrypts nothing, which is what we want.
        with suppress(RuntimeError):
            self.evaluator.sub_inplace(total, zero)
        return bool(total.is_transparent())

    def is_plaintext(self, difference: Any, addends: int) -> bool:
        """Tell whether (d, 0) is a sum of so many plaintexts, but for their rounding.

        Under BFV a client adds the integer nearest to q·m/t, and SEAL measures how far t·d is from
        a multiple of q, in bits below q/2. Under CKKS the entries show it.
        """
        if self.parameters.scheme != BFV:
            return True
        (prime,) = self.context.first_context_data().parms().coeff_modulus()
        farthest = addends * (self._plain_modulus + 1) // 2
        left = self._anybody.invariant_noise_budget(difference)
        return bool(left >= prime.bit_count() - 1 - farthest.bit_length())

    def read(self, difference: Any) -> Slots:
        """Return the N entries of (d, 0), not yet rounded; it takes no secret."""
        assert difference.is_transparent()
        return self._read(self._anybody, difference)

    @cached_property
    def _anybody(self) -> Any:
        # SEAL reads nothing without a key; where it multiplies zero, all keys are alike.
        generator = _seal().KeyGenerator(_context(self.parameters, bytes(SEED_BYTES)))
        return _seal().Decryptor(self.context, generator.secret_key())

    def _read(self, decryptor: Any, ciphertext: Any) -> Slots:
        plaintext = _seal().Plaintext()
        decryptor.decrypt(ciphertext, plaintext)
        return self.decode(plaintext)


class KeyPair:
    """A key pair that two seeds determine."""

    def __init__(self, ring: Ring, secret_seed: bytes, public_seed: bytes) -> None:
        seal, parameters = _seal(), ring.parameters
        self.secret_key = seal.KeyGenerator(_context(parameters, secret_seed)).secret_key()
        generator = seal.KeyGenerator(_context(parameters, public_seed), self.secret_key)
        self.public_key = seal.PublicKey()
        generator.create_public_key(self.public_key)

    def __repr__(self) -> str:
        return "<KeyPair>"


def to_entries(parameters: Parameters, layout: Layout, vector: Integers) -> Integers:
    """Return what is encrypted: the vector, or the limbs of its residues, limb by limb."""
    if parameters.limb_bits == 0:
        return vector
    residues = layout.embed(vector).astype(np.uint64)
    if layout.ring_bits < 64:
        residues &= np.uint64(2**layout.ring_bits - 1)
    mask = np.uint64(2**parameters.limb_bits - 1)
    shifts = np.arange(parameters.limbs, dtype=np.uint64) * np.uint64(parameters.limb_bits)
    return ((residues >> shifts[:, None]) & mask).astype(np.int64).reshape(-1)


def from_entries(parameters: Parameters, layout: Layout, entries: Integers) -> RingVector:
    """Return the ring vector of a sum of entries: the inverse of `to_entries`.

    It is in the layout's ring: uint32 or uint64.
    """
    if parameters.limb_bits == 0:
        return layout.embed(entries)
    total = np.zeros(layout.length, dtype=np.uint64)
    for index, limb in enumerate(entries.reshape(parameters.limbs, layout.length)):
        total += limb.astype(np.uint64) << np.uint64(index * parameters.limb_bits)
    return layout.embed(total.view(np.int64))


def pieces(parameters: Parameters, entries: Integers) -> Iterator[Integers]:
    """Yield at most N entries for each ciphertext, in order."""
    for start in range(0, len(entries), parameters.degree):
        yield entries[start : start + parameters.degree]


@cache
def _seal() -> Any:
    # Imported where it is used: whoever sums without encryption need not have it.
    from tenseal import sealapi

    return sealapi


@cache
def _moduli(degree: int, prime_bits: int, plain_bits: int) -> tuple[Any, Any]:
    seal = _seal()
    plain = seal.PlainModulus.Batching(degree, plain_bits) if plain_bits else None
    return seal.CoeffModulus.Create(degree, [prime_bits]), plain


def _context(parameters: Parameters, seed: bytes | None) -> Any:
    """Make a context whose generator begins with `seed` at every use.

    None is for a context whose generator is not used.
    """
    seal = _seal()
    scheme = seal.SCHEME_TYPE.BFV if parameters.scheme == BFV else seal.SCHEME_TYPE.CKKS
    primes, plain = _moduli(parameters.degree, parameters.prime_bits, parameters.plain_bits)
    terms = seal.EncryptionParameters(scheme)
    terms.set_poly_modulus_degree(parameters.degree)
    terms.set_coeff_modulus(primes)
    if plain is not None:
        terms.set_plain_modulus(plain)
    if seed is not None:
        assert len(seed) == SEED_BYTES
        words: Sequence[int] = np.frombuffer(seed, dtype="<u8").tolist()
        terms.set_random_generator(seal.Blake2xbPRNGFactory(words))
    context = seal.SEALContext(terms, False, seal.SEC_LEVEL_TYPE.TC128)
    assert context.parameters_set(), context.parameters_error_message()
    return context


class _Scratch:
    """A file, in memory where possible, through which SEAL's objects become bytes and back."""

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor = descriptor
        self._path = path

    def save(self, thing: Any) -> bytes:
        thing.save(self._path)
        size = os.fstat(self._descriptor).st_size
        return os.pread(self._descriptor, size, 0)

    def load(self, thing: Any, context: Any, data: bytes, what: str) -> None:
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, data, 0)
        try:
            thing.load(context, self._path)
        except _SEAL_ERRORS:
            raise Malformed(f"not a {what} of this session's context") from None


def load_unchecked(ring: Ring, data: bytes, context: Any | None = None) -> Any:
    """Load any ciphertext that SEAL itself accepts, even one that nobody encrypted.

    With `context`, one of that SEAL context instead of the ring's.
    """
    ciphertext = _seal().Ciphertext()
    with _scratch() as file:
        file.load(ciphertext, context or ring.context, data, "ciphertext")
    return ciphertext


@contextmanager
def _scratch() -> Iterator[_Scratch]:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("sealapi")
        try:
            yield _Scratch(descriptor, f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile() as file:
            yield _Scratch(file.fileno(), file.name)
