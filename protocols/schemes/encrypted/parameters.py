"""Parameters of an encrypted sum, found from the layout and the number of clients.

All candidates have one prime, and so no key switching and no modulus switching: a ciphertext is
what encryption made of it, 16 bytes for each entry, and log q = 60 is far below the 109 to 438
bits at which SEAL's table (HomomorphicEncryption.org standard, 2018) ends 128-bit security.
"""

import math

from protocols.codec import Wire
from protocols.errors import NoParameters
from protocols.layout import Layout

CKKS, BFV = "ckks", "bfv"

# Degree, and the most bits of one prime that SEAL (60) and its table for 128-bit security
# (438, 218, 109, 54) admit.
CANDIDATES = ((16384, 60), (8192, 60), (4096, 60), (2048, 54))
# Padding that is worth the larger degree, whose entries take less time.
_PADDING = 1.02

# SEAL 4: secrets are uniform in {−1, 0, 1}; errors are centred binomial, 21 coin pairs. Both are
# sub-Gaussian with their variance as proxy.
_TERNARY, _ERROR = 2 / 3, 21 / 2
FAILURE_BITS = 128

# A ciphertext that does not compress takes this much more than its words.
_OVERHEAD_BYTES = 1024

# How the half unit of rounding is shared out: noise, the encoder's rounding of coefficients to
# integers, and its floating point; 1/16 is left over.
_NOISE_SHARE, _ROUNDING_SHARE, _FLOAT_SHARE = 5 / 16, 1 / 16, 1 / 16
# Relative error of the encoder's transform in double precision: 4.3 u a stage over 14 stages in the
# 2-norm (Higham 2002, theorem 24.2, with u = 2^-53) is 2^-47.1; twice that is granted to a slot.
_FLOAT_ERROR = 2.0**-46


class Parameters(Wire, frozen=True):
    """Parameters by which vectors become ciphertexts.

    Attributes:
        scheme: `ckks` or `bfv`.
        degree: N of the ring Z_q[X]/(X^N + 1); a ciphertext carries N entries.
        prime_bits: of q, the one prime.
        scale: ckks: what one unit is multiplied by, an integer; bfv: 1.
        plain_bits: bfv: of the plaintext modulus; ckks: 0.
        limb_bits: 0: entries are encrypted as they are; otherwise the bits of each limb of an
            entry modulo the layout's ring.
        limbs: how many there are of them, or 1.
        noise: greatest honest noise, of the sum, in units of the rounding's step; below it with all
            but probability 2^-128.
    """

    scheme: str
    degree: int
    prime_bits: int
    scale: float
    plain_bits: int
    limb_bits: int
    limbs: int
    noise: float

    def chunks(self, length: int) -> int:
        """Return the number of ciphertexts for a vector of so many entries."""
        return -(-length * self.limbs // self.degree)

    @property
    def ciphertext_bytes(self) -> int:
        """Bytes of a ciphertext, at most: two words of 64 bits for each coefficient."""
        return 2 * 8 * self.degree + _OVERHEAD_BYTES


def find_parameters(layout: Layout, clients: int, scheme: str = CKKS) -> Parameters:
    """Find the admissible parameters with the smallest upload.

    Entries are encrypted as they are where the largest sum fits, and otherwise in limbs of their
    residue modulo the layout's ring, whose sums are put together in the ring.

    Raises:
        NoParameters: too many clients for the noise and the range that any candidate has.
    """
    ends = ((block.low, block.high, *block.addend) for block in layout.blocks)
    largest = max(abs(end) for ends_of_block in ends for end in ends_of_block)
    admissible = []
    for degree, bits in CANDIDATES:
        entries = 64 * layout.length + degree  # limbs and padding included
        noise, scale, most = _capacity(scheme, degree, bits, clients, entries)
        limbs, limb_bits = 1, 0
        if largest > most:
            limb_bits = min(math.floor(math.log2(most / clients)) if most >= clients else 0, 32)
            if limb_bits < 1:
                continue
            limbs = -(-layout.ring_bits // limb_bits)
            limb_bits = -(-layout.ring_bits // limbs)
        plain = (2 * most + 1).bit_length() if scheme == BFV else 0
        admissible.append(Parameters(scheme, degree, bits, scale, plain, limb_bits, limbs, noise))
    if not admissible:
        raise NoParameters(
            f"{clients} clients: no ring with 128-bit security holds a sum of one bit from each "
            "above the noise, which grows with their number",
            fix="sum in smaller cohorts",
        )

    def padded(found: Parameters) -> int:
        return found.chunks(layout.length) * found.degree

    least = min(map(padded, admissible))
    return next(found for found in admissible if padded(found) <= _PADDING * least)


def tolerance(verify: bool) -> float:
    """Return how far an honest decrypted entry may be from an integer."""
    shares = _ROUNDING_SHARE + _FLOAT_SHARE
    return shares if verify else shares + _NOISE_SHARE


def _capacity(
    scheme: str, degree: int, bits: int, clients: int, entries: int
) -> tuple[float, float, int]:
    """Return the noise bound in units, the scale, and the greatest magnitude of a sum."""
    if scheme == BFV:
        noise = _coefficient_noise(degree, clients, entries) + clients / 2 + 1
        # q/t > 2·noise; a batching prime t of b bits is anything above 2^(b-1).
        plain_bits = math.floor(bits - 0.01 - math.log2(2 * noise))
        return noise * 2.0 ** (plain_bits - bits), 1.0, 2 ** (plain_bits - 2)
    noise = _slot_noise(degree, clients, entries)
    # A coefficient of the plaintext is off by at most 1/2 from each client, a slot by N/2 of it.
    least = max(noise / _NOISE_SHARE, clients * degree / 2 / _ROUNDING_SHARE)
    scale = float(math.ceil(least))
    # Coefficients stay below √2·scale·M, and SEAL's encoder wants two bits above them.
    by_modulus = 2.0 ** (bits - 2) / (math.sqrt(2) * scale) - 1
    by_float = _FLOAT_SHARE / _FLOAT_ERROR / (clients + 1)
    return noise / scale, scale, math.floor(min(by_modulus, by_float))


def _slot_noise(degree: int, clients: int, entries: int) -> float:
    """Bound |Re| and |Im| of Σ_k (u_k·e + e0_k + e1_k·s) at any root.

    The bound fails with a chance of 2^-128.

    At a root ζ the public error e(ζ) and the secret s(ζ) are planar sub-Gaussian vectors: by Hsu,
    Kakade and Zhang (2012) |e(ζ)|² ≤ σ²N(1 + √(2t) + t) but for exp(−t). Given both, the sum is
    sub-Gaussian, being linear in what the clients draw.
    """
    t = FAILURE_BITS * math.log(2) + math.log(8 * entries)
    planar = degree * (1 + math.sqrt(2 * t) + t)
    proxy = clients * degree / 2 * (2 * _TERNARY * _ERROR * planar + _ERROR)
    return math.sqrt(2 * t * proxy)


def _coefficient_noise(degree: int, clients: int, entries: int) -> float:
    """Bound the coefficients of Σ_k (u_k·e + e0_k + e1_k·s), but for 2^-128.

    The argument is that of `_slot_noise`.
    """
    t = FAILURE_BITS * math.log(2) + math.log(8 * entries)
    error_norm = _ERROR * (degree + 2 * math.sqrt(degree * t) + 2 * t)
    proxy = clients * (_TERNARY * error_norm + _ERROR + _ERROR * degree)
    return math.sqrt(2 * t * proxy)
