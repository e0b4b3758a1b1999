"""What the patches of labelled maps add up to, exact in int64, with memory flat in their number."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from protocols.codec import Secret
from protocols.layout import Block, Integers, Layout
from secure_afl.analytic.layers.maps import MapShape
from secure_afl.analytic.patients import divided
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.statistics import one_hot

# Patches of so many numbers are formed at a time, 16 MB.
_BLOCK_NUMBERS = 1 << 21
# Below this a sum of whole numbers is exact in float64, in any order of addition.
EXACT = 2**53
# What the only image of a patient weighs, where images have weights.
PATIENT_WEIGHT = 1 << 10


@dataclass(frozen=True)
class LayerShape:
    """The public numbers of a layer: they fix what its sums look like, and their bounds.

    A patch is a square around a position, zeros beyond the map's edge, and a constant of `steps`.

    Attributes:
        maps: shape of what comes in.
        kernel: side of a patch, odd.
        regions: the map is cut into regions × regions parts.
        steps: whole numbers to a unit: a map of d values has energy ≤ d·steps².
    """

    maps: MapShape
    kernel: int
    regions: int
    steps: int

    @property
    def patch(self) -> int:
        """Numbers of a patch without the constant, p."""
        return self.kernel**2 * self.maps.channels

    @property
    def energy(self) -> int:
        """Bound on the sum of squares of a map, E = d·steps²."""
        return self.maps.size * self.steps**2

    @property
    def patch_energy(self) -> int:
        """Bound on the sum of squares of all patches of a map, constants included.

        A value is in kernel² patches at most: kernel²·E + P·steps².
        """
        return self.kernel**2 * self.energy + self.maps.positions * self.steps**2

    @cached_property
    def region_sizes(self) -> Integers:
        """Positions of each region, (R,) in the order of rows."""
        counts = [np.diff([*starts(side, self.regions), side]) for side in self.maps[:2]]
        sizes: Integers = np.outer(*counts).astype(np.int64).ravel()
        return sizes

    def block_rows(self) -> int:
        """Return how many maps' patches are formed at a time."""
        return max(1, _BLOCK_NUMBERS // (self.maps.positions * (self.patch + 1)))


def starts(side: int, parts: int) -> list[int]:
    """Return the first index of each of `parts` parts of 0..side−1, which differ by 1 at most."""
    return [part * side // parts for part in range(parts)]


def patches(maps: Floats, kernel: int, constant: float | None = None) -> Floats:
    """Form the patches of maps (n, h, w, c): (n, h, w, p), or p + 1 with a constant at the end.

    A patch's numbers are in the order (row, column, channel).
    """
    count, height, width, channels = maps.shape
    reach = kernel // 2
    padded = np.pad(maps, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    size = kernel**2 * channels
    formed = np.empty((count, height, width, size + (constant is not None)))
    for place in range(kernel**2):
        row, column = divmod(place, kernel)
        part = padded[:, row : row + height, column : column + width]
        formed[..., place * channels : (place + 1) * channels] = part
    if constant is not None:
        formed[..., -1] = constant
    return formed


class LayerStatistics(Secret, frozen=True, eq=False):
    """Sums over all patches x̂ of labelled maps; the constant is each patch's last number.

    Attributes:
        gram: Σx̂x̂ᵀ, (p + 1, p + 1) int64, symmetric.
        cross: Σx̂ over the maps of a class and the positions of a region, (p + 1, C, R) int64.
    """

    gram: Integers
    cross: Integers

    @classmethod
    def of(
        cls,
        maps: Iterator[tuple[Floats, Integers]],
        classes: int,
        shape: LayerShape,
        rows_each: Integers | None = None,
    ) -> "LayerStatistics":
        """Sum up the patches of maps, block by block.

        With weights, both sums of a map count ⌊W/m⌋ times, W = `PATIENT_WEIGHT`.

        Args:
            maps: blocks of maps (n, h, w, c) that `whole` made, with labels (n,).
            rows_each: m, of all maps in order: those of the patient that each is of; None gives no
                weights.
        """
        size = shape.patch + 1
        gram = np.zeros((size, size), dtype=np.int64)
        cross = np.zeros((classes, shape.regions**2, size), dtype=np.int64)
        # Each block's sums are exact in float64: its energy is far below 2^53.
        at_most = min(shape.block_rows(), (EXACT - 1) // shape.patch_energy)
        done = 0
        for block, labels in maps:
            for at in range(0, len(block), at_most):
                part = block[at : at + at_most]
                weights = np.ones(len(part), dtype=np.int64)
                if rows_each is not None:
                    weights = divided(PATIENT_WEIGHT, rows_each[done : done + len(part)])
                done += len(part)
                # Maps of one weight together: their sums are exact before they are multiplied.
                for weight in np.unique(weights):
                    chosen = weights == weight
                    formed = patches(part[chosen], shape.kernel, shape.steps)
                    gram += weight * _gram(formed.reshape(-1, size))
                    regions = region_sums(formed, shape.regions).reshape(len(formed), -1)
                    summed = one_hot(labels[at : at + at_most][chosen], classes).T @ regions
                    cross += weight * summed.reshape(cross.shape).astype(np.int64)
        return cls(gram, np.ascontiguousarray(cross.transpose(2, 0, 1)))

    def __add__(self, other: "LayerStatistics") -> "LayerStatistics":
        return LayerStatistics(self.gram + other.gram, self.cross + other.cross)

    def pack(self) -> Integers:
        """Pack into one int64 vector of `layer_layout`."""
        size = len(self.gram) - 1
        upper = np.triu_indices(size, 1)
        parts = (
            self.gram.diagonal()[:-1],
            self.gram[:-1, :-1][upper],
            self.gram[:-1, -1],
            self.gram[-1:, -1],
            self.cross[:-1].ravel(),
            self.cross[-1].ravel(),
        )
        return np.concatenate(parts)

    @classmethod
    def unpack(cls, vector: Integers, layout: Layout, classes: int) -> "LayerStatistics":
        """Unpack a vector of `layer_layout`: the inverse of `pack`."""
        blocks = layout.split(vector)
        size = len(blocks["patch_diagonal"])
        gram = np.zeros((size + 1, size + 1), dtype=np.int64)
        if size > 1:
            inner = gram[:-1, :-1]
            inner[np.triu_indices(size, 1)] = blocks["patch_upper"]
        gram[:-1, -1] = blocks["patch_sums"]
        gram += gram.T
        np.fill_diagonal(gram, np.append(blocks["patch_diagonal"], blocks["positions"]))
        cross = np.append(blocks["region_sums"], blocks["region_masses"])
        return cls(gram, cross.reshape(size + 1, classes, -1))


def _gram(rows: Floats) -> Integers:
    from scipy.linalg.blas import dsyrk

    # Of the symmetric product the upper triangle only; SciPy's BLAS, as in `statistics`.
    upper = np.triu(dsyrk(1.0, rows.T)).astype(np.int64)
    symmetric: Integers = upper + np.triu(upper, 1).T
    return symmetric


def region_sums(maps: Floats, regions: int) -> Floats:
    """Sum maps (n, h, w, c) over each of regions × regions parts: (n, R, c)."""
    rows = np.add.reduceat(maps, starts(maps.shape[1], regions), axis=1)
    summed: Floats = np.add.reduceat(rows, starts(maps.shape[2], regions), axis=2)
    return summed.reshape(len(maps), regions**2, maps.shape[3])


def layer_layout(
    shape: LayerShape, classes: int, total_rows: int, client_rows: int, weight: int = 1
) -> Layout:
    """Lay out packed layer statistics over at most `total_rows` maps, or patients with weights.

    Of these at most `client_rows` are one client's; each weighs `weight` at most. A map of energy E
    adds 0..E to a diagonal entry, at most E in size to any other of the Gram, at most steps·√(P·E)
    to the sum of a patch's number, and at most √(|r|·E) to that sum over a region r, by Cauchy and
    Schwarz.

    Raises:
        WouldOverflow: no ring holds that many maps at these steps.
    """
    size, positions, energy, steps = shape.patch, shape.maps.positions, shape.energy, shape.steps
    unit, largest = 1.0 / steps, int(shape.region_sizes.max())

    def block(name: str, length: int, bound: int, unit: float, *, signed: bool = True) -> Block:
        high, most = (weight * bound * rows for rows in (total_rows, client_rows))
        low, least = (-high, -most) if signed else (0, 0)
        return Block(name, length, low, high, unit / weight, least, most)

    blocks = [block("patch_diagonal", size, energy, unit**2, signed=False)]
    if size > 1:
        blocks.append(block("patch_upper", size * (size - 1) // 2, energy, unit**2))
    cells = classes * shape.regions**2
    blocks += [
        block("patch_sums", size, steps * _root(positions * energy), unit**2),
        block("positions", 1, positions * steps**2, unit**2, signed=False),
        block("region_sums", size * cells, _root(largest * energy), unit),
        block("region_masses", cells, largest * steps, unit, signed=False),
    ]
    return Layout(tuple(blocks))


def _root(number: int) -> int:
    """Return the root of a whole number, rounded up."""
    from math import isqrt

    return isqrt(number - 1) + 1 if number else 0
