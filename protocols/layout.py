"""The vector that a protocol sums: its blocks, their bounds, and the ring that holds the sum.

A sum is carried modulo 2^b. It is the true sum, and not merely congruent to it, because every block
declares the range of its *sum* and the ring is wide enough for the widest block.
"""

import math
from functools import cached_property
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocols.codec import Wire
from protocols.errors import InvalidLayout, InvalidVector, SumOutOfBounds, WouldOverflow

_Entry = TypeVar("_Entry", bound=np.generic)

RING_BITS = (32, 40, 48, 64)
# One message carries a vector, and AES-GCM here takes less than 2^31 bytes at once.
MAX_PACKED_BYTES = 2**31 - 2**16

Integers = NDArray[np.int64]
RingVector = NDArray[np.uint32] | NDArray[np.uint64]


class Block(Wire, frozen=True):
    """A run of entries with one meaning and one range.

    Attributes:
        name: unique in its layout.
        length: number of entries, at least 1.
        low, high: the range of an entry of the *sum* over all clients, both ends included.
        scale: the real value of one integer step; for readers, never used in the sum.
    """

    name: str
    length: int
    low: int
    high: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        if type(self.scale) is int:  # equal values, equal bytes
            msgspec.structs.force_setattr(self, "scale", float(self.scale))


class Layout(Wire, frozen=True, dict=True):
    """The blocks of a vector in order.

    Raises:
        InvalidLayout: no blocks, two of one name, an empty block, `low > high`, a field of another
            type, a scale that is no positive number, or more than 2 GB in all.
        WouldOverflow: a block's range does not fit the widest ring.
    """

    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        if not self.blocks or len({block.name for block in self.blocks}) != len(self.blocks):
            raise InvalidLayout("a layout needs blocks, each of a name of its own")
        for block in self.blocks:
            if not type(block.length) is type(block.low) is type(block.high) is int:
                raise InvalidLayout(f"block '{block.name}' needs length, low and high of type int")
            if type(block.scale) is not float or not 0 < block.scale < math.inf:
                raise InvalidLayout(f"block '{block.name}' has scale {block.scale}, allowed: > 0")
            if block.length < 1:
                raise InvalidLayout(f"block '{block.name}' has length {block.length}, allowed: ≥ 1")
            if not block.low <= block.high:
                raise InvalidLayout(f"block '{block.name}' has low {block.low} > high {block.high}")
            if block.low < -(2**63) or block.high >= 2**63:
                raise WouldOverflow(
                    f"block '{block.name}' needs {block.low}..{block.high}, allowed: 64-bit signed",
                    fix="use fewer feature bits, or declare fewer rows",
                )
        if self.packed_bytes > MAX_PACKED_BYTES:
            raise InvalidLayout(
                f"{self.length} entries take {self.packed_bytes} bytes packed, "
                f"allowed: ≤ {MAX_PACKED_BYTES}",
                fix="use fewer dimensions",
            )

    @cached_property
    def length(self) -> int:
        """Number of entries."""
        return sum(block.length for block in self.blocks)

    @cached_property
    def ring_bits(self) -> int:
        """Bits of the narrowest ring for every block: 32, 40, 48 or 64.

        A block needs `high − low < 2^b`.
        """
        widest = max(block.high - block.low for block in self.blocks)
        return next(bits for bits in RING_BITS if widest < 2**bits)

    @property
    def packed_bytes(self) -> int:
        """Bytes of the packed ring vector."""
        return self.length * self.ring_bits // 8

    def check(self, vector: Integers, *, party: str = "") -> None:
        """Refuse a client's vector that does not fit; runs before anything leaves the client.

        Each entry must lie within `low..high` widened to include 0, which is necessary but not
        sufficient for the sum to stay within bounds: that the addends' own bounds add up is for
        whoever declares the layout to prove.

        Raises:
            InvalidVector: wrong dtype or length.
            WouldOverflow: an entry out of range, naming its block.
        """
        if vector.dtype != np.int64 or vector.shape != (self.length,):
            raise InvalidVector(
                f"vector is {vector.dtype}{list(vector.shape)}, wanted int64[{self.length}]",
                party=party,
            )
        for block, part in zip(self.blocks, self._parts(vector), strict=True):
            low, high = min(block.low, 0), max(block.high, 0)
            if part.min() < low or part.max() > high:
                raise WouldOverflow(
                    f"an entry of block '{block.name}' is outside {low}..{high}",
                    party=party,
                    fix="declare a larger bound, or use fewer feature bits",
                )

    def split(self, vector: Integers) -> dict[str, Integers]:
        """Split a vector into views of its blocks, by name."""
        return {b.name: p for b, p in zip(self.blocks, self._parts(vector), strict=True)}

    def embed(self, vector: Integers) -> RingVector:
        """Return the vector modulo 2^b.

        The words are uint32 for 32 bits, else uint64 whose upper bits carry no meaning.

        2^b divides 2^32 or 2^64, so that machine arithmetic on the result is ring arithmetic.
        The result is a copy, to be masked in place.
        """
        return vector.astype(np.uint32) if self.ring_bits == 32 else vector.astype(np.uint64)

    def zeros(self) -> RingVector:
        """Make a vector of zeros, to which vectors are added in place."""
        return self.embed(np.zeros(self.length, dtype=np.int64))

    def pack(self, vector: RingVector) -> bytes:
        """Pack a vector into b/8 little-endian bytes an entry."""
        if self.ring_bits in (32, 64):
            return vector.astype(f"<u{self.ring_bits // 8}", copy=False).tobytes()
        words = np.ascontiguousarray(vector, dtype="<u8").view(np.uint8).reshape(-1, 8)
        return words[:, : self.ring_bits // 8].tobytes()

    def unpack(self, data: bytes) -> RingVector:
        """Unpack a vector that `pack` packed.

        The vector is a read-only view where the ring is a machine word.

        Raises:
            InvalidVector: `data` is not `packed_bytes` long.
        """
        if len(data) != self.packed_bytes:
            raise InvalidVector(f"packed vector has {len(data)} bytes, wanted {self.packed_bytes}")
        if self.ring_bits in (32, 64):
            return np.frombuffer(data, dtype=f"<u{self.ring_bits // 8}")
        words = np.zeros((self.length, 8), dtype=np.uint8)
        words[:, : self.ring_bits // 8] = np.frombuffer(data, dtype=np.uint8).reshape(
            self.length, -1
        )
        return words.view("<u8").reshape(self.length)

    def decode(self, total: RingVector, *, party: str = "", step: str = "") -> Integers:
        """Return, for each entry of the sum, its one integer in `[low, low + 2^b)`.

        Raises:
            SumOutOfBounds: an entry above its block's `high`.
        """
        decoded = total.astype(np.uint64)
        mask = np.uint64(2**self.ring_bits - 1)
        for block, part in zip(self.blocks, self._parts(decoded), strict=True):
            low = np.int64(block.low).view(np.uint64)
            part -= low  # wraps as the ring does
            part &= mask
            if int(part.max()) > block.high - block.low:
                raise SumOutOfBounds(
                    f"block '{block.name}' of the sum is outside {block.low}..{block.high}",
                    party=party,
                    step=step,
                    fix="a client broke its declared bounds; run again without it",
                )
            part += low
        return decoded.view(np.int64)

    def _parts(self, vector: NDArray[_Entry]) -> list[NDArray[_Entry]]:
        edges = np.cumsum([block.length for block in self.blocks])[:-1]
        return np.split(vector, edges)
