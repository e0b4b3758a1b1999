"""The vector that a protocol sums: its blocks, their bounds, and the ring that holds the sum.

A sum is carried modulo 2^b. It is the true sum, and not merely congruent to it, because every block
declares the range of its *sum* and the ring is wide enough for the widest block. A block declares
the range of one *addend*, too, which every client checks and a proof of range would prove.
"""

import math
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocols.codec import Wire
from protocols.errors import InvalidLayout, InvalidVector, WouldOverflow

_Entry = TypeVar("_Entry", bound=np.generic)

RING_BITS = (32, 40, 48, 64)
# One message carries a vector, and AES-GCM here takes less than 2^31 bytes at once.
MAX_PACKED_BYTES = 2**31 - 2**16

# Entries that stay in a core's cache while several things are done with them.
_PIECE = 1 << 15

_NAME = re.compile(r"\w[\w.-]{0,63}", re.ASCII)

Integers = NDArray[np.int64]
RingVector = NDArray[np.uint32] | NDArray[np.uint64]


class Block(Wire, frozen=True):
    """A run of entries with one meaning and one range.

    Attributes:
        name: unique in its layout.
        length: number of entries, at least 1.
        low, high: the range of an entry of the *sum* over all clients, both ends included.
        scale: the real value of one integer step; for readers, never used in the sum.
        least, most: the range of an entry of one client's vector, both ends included; by default
            that of the sum, widened to include 0.
    """

    name: str
    length: int
    low: int
    high: int
    scale: float = 1.0
    least: int | None = None
    most: int | None = None

    def __post_init__(self) -> None:
        # Equal values, equal bytes.
        if type(self.scale) is int:
            msgspec.structs.force_setattr(self, "scale", float(self.scale))
        if self.least is None:
            msgspec.structs.force_setattr(self, "least", min(self.low, 0))
        if self.most is None:
            msgspec.structs.force_setattr(self, "most", max(self.high, 0))

    @property
    def addend(self) -> tuple[int, int]:
        """The range of an entry of one client's vector."""
        assert self.least is not None, "settled when it was made"
        assert self.most is not None, "settled when it was made"
        return self.least, self.most

    def widened(self, sum_room: int, addend_room: int) -> "Block":
        """Return this block with so much more room at either end of its two ranges."""
        least, most = self.addend
        return msgspec.structs.replace(
            self,
            low=self.low - sum_room,
            high=self.high + sum_room,
            least=least - addend_room,
            most=most + addend_room,
        )


class Decoded(NamedTuple):
    """A sum as integers, and how many entries of each block break its bounds, where any do."""

    total: Integers
    outside: tuple[tuple[str, int], ...]


class Layout(Wire, frozen=True, dict=True):
    """The blocks of a vector in order.

    Raises:
        InvalidLayout: no blocks, two of one name, a name that is no word, an empty block, a range
            whose ends are swapped, a field of another type, a scale that is no positive number, or
            more than 2 GB in all.
        WouldOverflow: a block's range does not fit the widest ring.
    """

    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        if not self.blocks or len({block.name for block in self.blocks}) != len(self.blocks):
            raise InvalidLayout("a layout needs blocks, each of a name of its own")
        for block in self.blocks:
            if not _NAME.fullmatch(block.name):
                raise InvalidLayout(
                    f"block name {block.name[:80]!r}, allowed: 1 to 64 of A-Z a-z 0-9 . _ -"
                )
            whole = (block.length, block.low, block.high, *block.addend)
            if any(type(number) is not int for number in whole):
                raise InvalidLayout(f"block '{block.name}' needs length and ranges of type int")
            if type(block.scale) is not float or not 0 < block.scale < math.inf:
                raise InvalidLayout(f"block '{block.name}' has scale {block.scale}, allowed: > 0")
            if block.length < 1:
                raise InvalidLayout(f"block '{block.name}' has length {block.length}, allowed: ≥ 1")
            if not block.low <= block.high:
                raise InvalidLayout(f"block '{block.name}' has low {block.low} > high {block.high}")
            least, most = block.addend
            if not least <= most:
                raise InvalidLayout(f"block '{block.name}' has least {least} > most {most}")
            if min(block.low, least) < -(2**63) or max(block.high, most) >= 2**63:
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

    @property
    def units(self) -> dict[str, float]:
        """What one step of each block stands for, by its name."""
        return {block.name: block.scale for block in self.blocks}

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

        Each entry must lie within its block's range of an addend. That the addends' ranges add up
        to the sum's is for whoever declares the layout to prove.

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
            low, high = block.addend
            # Least and greatest of one piece, while it is in cache: the vector is read once.
            pieces = (part[start : start + _PIECE] for start in range(0, len(part), _PIECE))
            if any(piece.min() < low or piece.max() > high for piece in pieces):
                raise WouldOverflow(
                    f"an entry of block '{block.name}' is outside {low}..{high}",
                    party=party,
                    fix="declare a larger bound, or use fewer feature bits",
                )

    def holds(self, total: Integers) -> bool:
        """Say whether this is a sum of this layout with every entry in its block's range."""
        if total.dtype != np.int64 or total.shape != (self.length,):
            return False
        return not self.outside(total, np.zeros(self.length, dtype=bool))

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
        return self._packed(vector).tobytes()

    def packed(self, vector: RingVector) -> memoryview:
        """Return the bytes of `pack`: without a copy, where the ring is a machine word."""
        return self._packed(vector).data

    def packed_pieces(
        self, vector: Integers, change: Callable[[RingVector], None] | None = None
    ) -> Iterator[memoryview]:
        """Embed and pack a vector piece by piece, with no copy of the whole.

        Args:
            vector: as `embed` takes it.
            change: what is done, in place, with the words of each piece in turn before it is
                packed.

        Yields:
            The bytes of `pack` in order; each piece is good until the next is asked for.
        """
        words = self.embed(vector[:_PIECE])
        for start in range(0, len(vector), _PIECE):
            part = vector[start : start + _PIECE]
            piece = words[: len(part)]
            np.copyto(piece, part, casting="unsafe")
            if change is not None:
                change(piece)
            yield self.packed(piece)

    def _packed(self, vector: RingVector) -> NDArray[np.uint8]:
        """Return the packed bytes: a view of the vector, where the ring is a machine word."""
        width = self.ring_bits // 8
        if self.ring_bits in (32, 64):
            return np.ascontiguousarray(vector, dtype=f"<u{width}").view(np.uint8)
        words = np.ascontiguousarray(vector, dtype="<u8").view(np.uint8).reshape(-1, 8)
        return np.ascontiguousarray(words[:, :width]).reshape(-1)

    def unpack(self, data: bytes | memoryview) -> RingVector:
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

    def decode(self, total: RingVector) -> Decoded:
        """Return, for each entry of the sum, the one integer nearest to its block's range.

        The integers of the ring outside the range are split in half: the lower half lies above it,
        the upper half below it. A sum of honest vectors is inside, and exact. What is outside came
        from a client that broke its bounds; it is counted, and neither cut off nor refused, so that
        whoever sent it learns nothing from what happens.
        """
        decoded = total.astype(np.uint64)
        mask = np.uint64(2**self.ring_bits - 1)
        for block, part in zip(self.blocks, self._parts(decoded), strict=True):
            # Unsigned arithmetic wraps as the ring does.
            part -= _word(self._window(block))
            part &= mask
            part += _word(self._window(block))
        integers = decoded.view(np.int64)
        return Decoded(integers, self.outside(integers, np.zeros(self.length, dtype=bool)))

    def outside(self, total: Integers, wrong: NDArray[np.bool_]) -> tuple[tuple[str, int], ...]:
        """Count, by block, the entries that are out of bounds or marked as wrong."""
        counts = []
        for block, part, marks in zip(
            self.blocks, self._parts(total), self._parts(wrong), strict=True
        ):
            beyond = (part < block.low) | (part > block.high) | marks
            if beyond.any():
                counts.append((block.name, int(beyond.sum())))
        return tuple(counts)

    def _window(self, block: Block) -> int:
        """Return the least of the 2^b integers that a block's entries decode to."""
        size = 1 << self.ring_bits
        gap = size - 1 - (block.high - block.low)
        # An entry is a signed word of 64 bits.
        return min(max(block.low - gap // 2, -(2**63)), 2**63 - size)

    def _parts(self, vector: NDArray[_Entry]) -> list[NDArray[_Entry]]:
        edges = np.cumsum([block.length for block in self.blocks])[:-1]
        return np.split(vector, edges)


def _word(value: int) -> np.uint64:
    return np.uint64(value % 2**64)
