"""Exact draws from the discrete Gaussian distribution, and how far a sum of them can stray.

N_Z(0, σ²) gives the integer x the probability exp(−x²/2σ²) / Σ_y exp(−y²/2σ²) (Canonne, Kamath,
Steinke, "The Discrete Gaussian for Differential Privacy", 2020). A magnitude is drawn by rejection
from strips of t integers each: strip k with a probability proportional to exp(−(kt)²/2σ²), an
offset u uniform in it, and both are kept with probability exp(−((kt + u)² − (kt)²)/2σ²). A fair
sign follows, and "minus zero" is drawn again.

Exact means: given uniform random bits, no rounding of any number changes the distribution. A
uniform number has as many bits as are asked for. Its first ones nearly always decide whether it is
below a probability; where they are too close to it, the probability is bounded by integers of
ever more bits, and the uniform number gets more bits, until they do.
"""

import math
from bisect import bisect_right
from decimal import Context, Decimal
from fractions import Fraction
from functools import lru_cache

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

from protocols.layout import Integers
from secure_afl.errors import ConfigError

MIN_SIGMA, MAX_SIGMA = 0.5, 2.0**40
ENTROPY_BYTES = 32

Words = NDArray[np.uint64]

# A proposal is one word, 63 bits for the strip and one for the sign, and a second one if strips
# are longer than 1: 30 bits to accept or reject it, and up to 34 for the offset. 34 bits are enough
# for 2^40 / 64.
_STRIPS_PER_SIGMA = 64
_STRIP_BITS, _ACCEPT_BITS = 63, 30
# Words by their first bits: nearly all of these cells lie within one strip, which a table knows.
_CELL_BITS = 14
_WORD_BYTES = 8

# When the uniform number is at least this far from the probability in floating point, the exact
# comparison says the same. The distance covers the unknown bits of the number, 2^−30; the rounding
# of the exponent, which moves exp by less than 2^−49; and numpy's exp, assumed to be right to
# 2^−25. It is right to a few units of 2^−53.
_ACCEPT_MARGIN = 2.0**-24

_MORE_BITS = 64
_GUARD_BITS = 64

# Proposals at a time: their arrays stay in cache, and memory does not grow with the count.
_CHUNK = 1 << 14
_SPARE = 16
_ZEROS = memoryview(bytes(2 * _CHUNK * _WORD_BYTES))


def discrete_gaussian(sigma: float, count: int, entropy: bytes) -> Integers:
    """Draw exactly and independently from N_Z(0, σ²): P(x) ∝ exp(−x²/2σ²).

    The same arguments give the same draws, on every machine; fewer draws are the first of more.
    All bits come from the AES-256-CTR key stream of `entropy`. The time taken is not constant.

    Args:
        sigma: σ, not the standard deviation, which is smaller for small σ; 0.5 to 2^40. The float
            is taken as the rational number that it is.
        count: how many, ≥ 0.
        entropy: 32 secret uniform bytes, used for nothing else and for one σ only.

    Returns:
        (count,) int64. A draw that 64 bits cannot hold has a probability below exp(−2^43).

    Raises:
        ConfigError: an argument out of range.

    Source: the distribution is that of Canonne, Kamath, Steinke 2020, Definition 1; strips as in
    Karney, "Sampling exactly from the normal distribution", 2016.
    """
    _check_sigma(sigma)
    _check_at_least("count", count, 0)
    if len(entropy) != ENTROPY_BYTES:
        raise ConfigError(
            f"entropy has {len(entropy)} bytes; allowed: {ENTROPY_BYTES}. Draw them with "
            f"secrets.token_bytes({ENTROPY_BYTES})."
        )
    return Sampler(float(sigma), entropy).draw(count)


def tail(sigma: float, shares: int, entries: int, security_bits: int = 64) -> int:
    """Bound how far sums of draws stay from zero.

    The bound proves that a ring is wide enough.

    A draw is subgaussian with variance proxy σ² (Canonne, Kamath, Steinke 2020), so that a sum S of
    n independent ones has P(|S| > t) ≤ 2 exp(−t²/2nσ²), and with a union bound over m coordinates

        t = σ √(2n · ln(2m · 2^security_bits)), rounded up.

    Args:
        sigma: σ of one share; 0.5 to 2^40.
        shares: n, independent draws in each sum, ≥ 1.
        entries: m, sums, ≥ 1; they need not be independent of each other.
        security_bits: ≥ 1.

    Returns:
        t: any of the sums exceeds it in absolute value with probability ≤ 2^−security_bits.

    Raises:
        ConfigError: an argument out of range.
    """
    _check_sigma(sigma)
    _check_at_least("shares", shares, 1)
    _check_at_least("entries", entries, 1)
    _check_at_least("security_bits", security_bits, 1)
    # The logarithm is rounded up by more than it can be wrong; all else is exact.
    logarithm = Fraction(math.log(entries << (security_bits + 1)) * (1 + 2.0**-40))
    return math.isqrt(math.floor(2 * shares * Fraction(float(sigma)) ** 2 * logarithm)) + 1


class Sampler:
    """A stream of draws; `discrete_gaussian` says of what.

    Attributes:
        step: integers in a strip, a power of two.

    The margins say where a float or a word is not trusted to decide. Wider ones cost time and
    change no draw.
    """

    def __init__(
        self,
        sigma: float,
        entropy: bytes,
        *,
        strip_margin: int = 0,
        accept_margin: float = _ACCEPT_MARGIN,
    ) -> None:
        # The largest power of two up to σ/64, so that an offset is the low bits of a word.
        self.step = 1 << max(0, math.frexp(sigma / _STRIPS_PER_SIGMA)[1] - 1)
        self._sigma = sigma
        self._double_variance = 2 * Fraction(sigma) ** 2
        self._entropy = entropy
        self._accept_margin = accept_margin
        self._words = 1 if self.step == 1 else 2
        self._stream = _key_stream(entropy, 0)
        self._position = 0
        self._low, self._high, self._guide = _tables(sigma, self.step, strip_margin)

    def draw(self, count: int) -> Integers:
        """Draw the next numbers, (count,) int64; what is left of the last chunk is lost."""
        drawn = np.empty(count, dtype=np.int64)
        filled = 0
        while filled < count:
            proposals = min(_CHUNK, count - filled + _SPARE)
            zeros = _ZEROS[: proposals * self._words * _WORD_BYTES]
            words = np.frombuffer(self._stream.update(zeros), dtype="<u8")
            kept = self.accepted(self._position, words.reshape(proposals, self._words))
            self._position += proposals
            kept = kept[: count - filled]
            drawn[filled : filled + len(kept)] = kept
            filled += len(kept)
        return drawn

    def accepted(self, position: int, words: Words) -> Integers:
        """Return the draws among proposals.

        Args:
            position: of the first proposal among all of this entropy.
            words: (proposals, 1), or (proposals, 2) if `step` > 1; uniform.
        """
        strips = self._strips(position, words[:, 0])
        magnitudes = strips * self.step
        negative = (words[:, 0] & np.uint64(1)).astype(np.bool_)
        if self.step == 1:
            kept = np.ones(len(words), dtype=np.bool_)
        else:
            offsets = (words[:, 1] & np.uint64(self.step - 1)).astype(np.int64)
            kept = self._keep(position, words[:, 1], magnitudes, offsets)
            magnitudes += offsets
        kept &= ~(negative & (magnitudes == 0))
        draws: Integers = np.where(negative, -magnitudes, magnitudes)[kept]
        return draws

    def _strips(self, position: int, words: Words) -> Integers:
        """Return the strip of each word: how many cumulative probabilities do not exceed it."""
        cells = (words >> np.uint64(64 - _CELL_BITS)).view(np.int64)
        strips = self._guide[cells].astype(np.int64)
        searched = np.flatnonzero(strips < 0)
        uniform = (words[searched] >> np.uint64(1)).view(np.int64)
        found = np.searchsorted(self._low, uniform, side="right")
        strips[searched] = found
        for place in np.flatnonzero(uniform <= self._high[found]):
            index = int(searched[place])
            number = self._uniform(int(uniform[place]), _STRIP_BITS, 2 * (position + index))
            strips[index] = self._exact_strip(number)
        return strips

    def _exact_strip(self, number: "_Uniform") -> int:
        while True:
            low, high = _cumulative(self._sigma, self.step, number.bits)
            strip = bisect_right(low, number.value)
            if number.value > high[strip]:
                return strip
            number.extend()

    def _keep(
        self, position: int, words: Words, starts: Integers, offsets: Integers
    ) -> NDArray[np.bool_]:
        """Say whether to keep each proposal, of which strips begin at `starts`."""
        # Products exceed 64 bits. As floats they are right to a few units of 2^−53.
        exponents = offsets.astype(np.float64) * (2 * starts + offsets)
        exponents /= float(self._double_variance)
        uniform = words >> np.uint64(64 - _ACCEPT_BITS)
        above = np.exp(-exponents) - uniform * 2.0**-_ACCEPT_BITS
        kept: NDArray[np.bool_] = above > 0
        for index in np.flatnonzero(np.abs(above) <= self._accept_margin):
            number = self._uniform(
                int(uniform[index]), _ACCEPT_BITS, 2 * (position + int(index)) + 1
            )
            start, offset = int(starts[index]), int(offsets[index])
            exponent = offset * (2 * start + offset) / self._double_variance
            kept[index] = _exact_keep(number, exponent)
        return kept

    def _uniform(self, value: int, bits: int, name: int) -> "_Uniform":
        return _Uniform(value, bits, self._entropy, name)


class _Uniform:
    """Number in [0, 1), uniform, known to lie in [value, value + 1) / 2^bits.

    Its further bits come from a part of the key stream that belongs to its `name`. So the number
    is the same however many of its bits were looked at, and so are all other numbers.
    """

    def __init__(self, value: int, bits: int, entropy: bytes, name: int) -> None:
        self.value = value
        self.bits = bits
        # The main stream begins at block 0 and stays below 2^64 blocks.
        self._more = _key_stream(entropy, (name + 1) << 64)

    def extend(self) -> None:
        """Look at 64 more bits."""
        more = self._more.update(bytes(_MORE_BITS // 8))
        self.value = self.value << _MORE_BITS | int.from_bytes(more, "little")
        self.bits += _MORE_BITS


def _exact_keep(number: _Uniform, exponent: Fraction) -> bool:
    """Say whether the number is below exp(−exponent)."""
    while True:
        low, high = _exp_bounds(exponent, number.bits)
        if number.value < low:
            return True
        if number.value >= high:
            return False
        number.extend()


@lru_cache(maxsize=32)
def _cumulative(sigma: float, step: int, bits: int) -> tuple[list[int], list[int]]:
    """Bound the cumulative probabilities of strips, at 2^bits.

    Returns:
        low, high: with C_k = Σ_{j ≤ k} exp(−(jt)²/2σ²) / Σ_j exp(−(jt)²/2σ²), a number of which
        the first bits are the integer v is certainly below C_k if v < low[k], and certainly not
        below C_k if v > high[k + 1]; high[0] is −1. Strips after the last one are met by v =
        2^bits − 1 only, which no bound settles: it takes more bits.
    """
    unit = Fraction(step) ** 2 / (2 * Fraction(sigma) ** 2)  # strip k has the exponent k²·unit
    precision = bits + _GUARD_BITS
    # K strips: the weight of the next is at most exp(−precision), less than 2^−precision. The rest
    # is bounded by it and an integral, together exp(−K²·unit)·(1 + 1/(2K·unit)).
    strips = math.isqrt(math.floor(precision / unit)) + 1
    rest = math.ceil(1 + 1 / (2 * strips * unit))
    weights = [_exp_bounds(strip**2 * unit, precision) for strip in range(strips)]
    least = sum(low for low, _ in weights)
    most = sum(high for _, high in weights) + rest
    top = (1 << bits) - 1
    lows, highs = [], [-1]
    low_sum = high_sum = 0
    for low, high in weights:
        low_sum += low
        high_sum += high
        lows.append((low_sum << bits) // most)
        highs.append(min(top, (high_sum << bits) // least))
        if lows[-1] == top:
            break
    return lows, highs


@lru_cache(maxsize=32)
def _tables(sigma: float, step: int, margin: int) -> tuple[Integers, Integers, NDArray[np.int16]]:
    """Bound the cumulative probabilities at 2^63, wider by a margin, and guide words to strips.

    Returns:
        low, high: as from `_cumulative`, int64.
        guide: of each cell of words that have the same first bits, the strip of all of its words,
            which their 63 bits settle; −1 where there is no such strip.
    """
    lows, highs = _cumulative(sigma, step, _STRIP_BITS)
    top = (1 << _STRIP_BITS) - 1
    low = np.array([max(0, bound - margin) for bound in lows], dtype=np.int64)
    high = np.array([-1, *(min(top, bound + margin) for bound in highs[1:])], dtype=np.int64)
    size = 1 << (_STRIP_BITS - _CELL_BITS)
    first = np.arange(1 << _CELL_BITS, dtype=np.int64) * size
    strips, last = (np.searchsorted(low, word, side="right") for word in (first, first + size - 1))
    settled = (strips == last) & (first > high[strips])
    guide = np.where(settled, strips, -1).astype(np.int16)
    for table in (low, high, guide):
        table.flags.writeable = False
    return low, high, guide


def _exp_bounds(exponent: Fraction, bits: int) -> tuple[int, int]:
    """Return integers low ≤ exp(−exponent)·2^bits ≤ high, at most 3 apart; exponent ≥ 0."""
    # Decimal's division, exp and product are each rounded to the nearest. Together their relative
    # error is below (exponent + 2)·10^(1 − digits), which is far below 2^−bits.
    digits = bits // 3 + len(str(math.ceil(exponent))) + 5
    context = Context(prec=digits)
    quotient = context.divide(Decimal(-exponent.numerator), Decimal(exponent.denominator))
    nearly = int(context.multiply(context.exp(quotient), Decimal(1 << bits)))
    return max(0, nearly - 1), nearly + 2


def _key_stream(entropy: bytes, block: int) -> CipherContext:
    """Return the AES-256-CTR key stream from a block on: its encryption of zeros."""
    return Cipher(algorithms.AES256(entropy), modes.CTR(block.to_bytes(16, "big"))).encryptor()


def _check_sigma(sigma: float) -> None:
    if not MIN_SIGMA <= sigma <= MAX_SIGMA:
        raise ConfigError(
            f"sigma is {sigma!r}; allowed: {MIN_SIGMA} to 2^40 = {MAX_SIGMA:.0f}, in units of the "
            "integers that it is added to. Change the scale of those."
        )


def _check_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name} is {value}; allowed: whole numbers from {least}")
