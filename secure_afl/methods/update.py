"""From a float update to integers whose norm never exceeds a bound, and back from their sum."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from protocols.errors import WouldOverflow
from protocols.layout import Block, Integers, Layout
from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError

RING_BITS = 32
MIN_BITS, MAX_BITS = 2, 24

Rounding = Literal["stochastic", "nearest"]

UPDATE, WEIGHT = "update", "weight"


@dataclass(frozen=True)
class UpdateQuantiser:
    """Float updates of norm ≤ clip, times a whole weight, as integers.

    The integers have norm ≤ weight · 2^bits.

    An update u of weight w becomes round(w·u / step): the weight goes in before the rounding, which
    therefore costs at most one step in w, and a sum needs nothing but integers. The mean is the sum
    of these over the sum of the weights, times `step`.

    Attributes:
        clip: the greatest L2 norm of an update, > 0.
        bits: resolution; 2 to 24.
        rounding: `stochastic` is unbiased; `nearest` errs by half as much at most.
    """

    clip: float
    bits: int
    rounding: Rounding = "stochastic"

    @classmethod
    def fitting(
        cls, clip: float, bits: int | None, rounding: Rounding, total_weight: int
    ) -> "UpdateQuantiser":
        """Make a quantiser with these bits, by default the most that fit.

        The most are those whose sums fit a 32-bit ring.

        Args:
            total_weight: public bound on the sum of all clients' weights.

        Raises:
            WouldOverflow: not even 2 bits fit 32.
            ConfigError: more bits asked for than fit 32.
        """
        # The range of a sum is 2 · total_weight · 2^bits, and has to stay below 2^32.
        most = min(MAX_BITS, ((2**RING_BITS - 1) // (2 * total_weight)).bit_length() - 1)
        if most < MIN_BITS:
            raise WouldOverflow(
                f"updates of {MIN_BITS} bits with weights of up to {total_weight} in all exceed "
                f"{RING_BITS} bits",
                fix="declare fewer rows, or give every client the weight 1",
            )
        if bits is not None and not MIN_BITS <= bits <= most:
            raise ConfigError(
                f"update_bits {bits} with weights of up to {total_weight} in all; allowed: "
                f"{MIN_BITS}..{most}, whose sums fit a {RING_BITS}-bit ring. Take fewer bits, or "
                "declare fewer rows."
            )
        return cls(clip, most if bits is None else bits, rounding)

    @property
    def step(self) -> float:
        """The real value of one integer step at weight 1."""
        # One less than 2^bits leaves room for the rounding within the norm bound.
        return self.clip / ((1 << self.bits) - 1)

    def layout(self, length: int, total_weight: int, client_weight: int) -> Layout:
        """Return the layout of the sum of weighted updates (`length` entries) and weights.

        The weights are those of the updates.

        No integer exceeds the norm of its vector, so that the entries of a client of weight w lie
        in ±w·2^bits, and those of the sum in ±total_weight·2^bits. A sum of weights is at least 1,
        for nobody weighs nothing.
        """
        bound, addend = total_weight << self.bits, client_weight << self.bits
        return Layout(
            (
                Block(UPDATE, length, -bound, bound, self.step, -addend, addend),
                Block(WEIGHT, 1, 1, total_weight, 1.0, 1, client_weight),
            )
        )

    def integers(self, update: Floats, weight: int, entropy: bytes) -> Integers:
        """Return round(weight · update / step), of integer norm ≤ weight · 2^bits.

        Where rounding lengthens an update beyond that, all of it is rounded toward zero instead:
        only updates whose norm is almost `clip` are concerned, and hardly ever at the default bits.

        Args:
            update: (p,) float64 of norm ≤ clip.
            weight: ≥ 1, with weight · 2^bits ≤ 2^31.
            entropy: what stochastic rounding derives from; the same bytes round alike.
        """
        scaled = update * (weight / self.step)
        if self.rounding == "stochastic":
            rng = np.random.default_rng(int.from_bytes(entropy, "little"))
            rounded = np.floor(scaled + rng.random(len(scaled)))
        else:
            rounded = np.rint(scaled)
        integers: Integers = rounded.astype(np.int64)
        # Exact: the squared norm is below (2^31 + √p)² < 2^63.
        if int(integers @ integers) > (weight << self.bits) ** 2:
            return np.trunc(scaled).astype(np.int64)
        return integers

    def mean(self, total: Integers, layout: Layout) -> Floats:
        """Return the weighted mean of the updates, (p,) float64.

        It is taken from a sum of vectors of `layout`.
        """
        blocks = layout.split(total)
        mean: Floats = blocks[UPDATE].astype(np.float64) * (self.step / int(blocks[WEIGHT][0]))
        return mean


def clipped(update: Floats, most: float, *, hide: bool = False) -> Floats:
    """Return the update (p,) float64, shortened to norm `most` if it is longer.

    Args:
        hide: an update that is not finite counts as zeros; under a promise nobody may see that a
            client refuses because of its rows.

    Raises:
        ConfigError: NaN or infinity in it, or a norm that overflows; not with `hide`.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norm = float(np.linalg.norm(update))
    if not np.isfinite(norm) and hide:
        return np.zeros_like(update)
    if not np.isfinite(norm):
        raise ConfigError(
            "a client's update is not finite: its training diverged; pass a smaller --learning-rate"
        )
    return update * (most / norm) if norm > most else update
