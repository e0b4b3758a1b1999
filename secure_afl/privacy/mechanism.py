"""Noise inside the sum: what is promised, and the share of noise that each client adds."""

import math
from typing import Literal, TypeAlias, get_args

import numpy as np
from msgspec.structs import replace

from protocols.codec import Wire
from protocols.layout import Block, Integers, Layout
from protocols.message import derive
from secure_afl.checks import check_choice, settle_float
from secure_afl.errors import ConfigError
from secure_afl.privacy import accounting
from secure_afl.privacy.discrete_gaussian import MAX_SIGMA, discrete_gaussian, tail
from secure_afl.privacy.sensitivity import Neighbours, Sensitivity, Unit

Placement: TypeAlias = Literal["distributed", "central"]

# Beyond this, noise at 12 bits is too small for the grid, and the promise is worth little.
MAX_EPSILON = 20.0
DEFAULT_DELTA = 1e-5
DEFAULT_CROSS_WEIGHT = 0.8


class Privacy(Wire, frozen=True):
    """What a run promises about everything that it releases.

    Attributes:
        epsilon, delta: the guarantee, 0.001 to 20 and 1e-15 to 0.1.
        unit: what is hidden: that an `example`, or that a `client` with all its rows, was there.
        neighbours: `add-remove`: it was or was not (a client, whom the roster names, is zeroed
            out); `replace-one`: it was this one or another.
        placement: `distributed`: every client adds a share of the noise before anybody sees
            anything. `central`: whoever decodes the sum sees it exactly and adds the noise; that
            party is trusted with it.
        cross_weight: w = μ_Q/μ_G, the share of the budget that the cross term gets; 0.05 to 20.
        counts_weight: v, the same for the class counts; by default they are not released.
    """

    epsilon: float
    delta: float = DEFAULT_DELTA
    unit: Unit = "example"
    neighbours: Neighbours = "add-remove"
    placement: Placement = "distributed"
    cross_weight: float = DEFAULT_CROSS_WEIGHT
    counts_weight: float | None = None

    def __post_init__(self) -> None:
        settle_float(self, "epsilon", 1e-3, MAX_EPSILON)
        settle_float(self, "delta", 1e-15, 0.1)
        settle_float(self, "cross_weight", 0.05, 20)
        if self.counts_weight is not None:
            settle_float(self, "counts_weight", 1e-9, 20)
        check_choice(self, "unit", get_args(Unit))
        check_choice(self, "neighbours", get_args(Neighbours))
        check_choice(self, "placement", get_args(Placement))

    @property
    def rows_are_public(self) -> bool:
        """Whether neighbours have equally many rows, so that their number may be told."""
        return self.unit == "example" and self.neighbours == "replace-one"


class Mechanism(Wire, frozen=True):
    """Discrete Gaussian noise in every sum of a run (Kairouz, Liu, Steinke 2021).

    Block i of a sum gets noise of standard deviation σ_i = z·Δ·r_i, with z the noise multiplier, Δ
    the joint sensitivity and r_i the block's relative part of it. Of K clients at most D drop out
    and T tell what they know; each adds a share of variance σ_i²/(K − D − T), so that the noise
    which nobody knows has the full variance even then.

    Attributes:
        privacy: what is promised.
        rounds: sums of the run, all of which the promise covers.
        clients, dropouts, colluders: K, D and T ≥ 1, for every client knows its own share.
        noise_multiplier: z, per sum; see `calibrate`.
    """

    privacy: Privacy
    rounds: int
    clients: int
    dropouts: int
    colluders: int
    noise_multiplier: float = 1.0

    def __post_init__(self) -> None:
        if self.dropouts < 0 or self.colluders < 1 or self.shares < 1 or self.rounds < 1:
            raise ConfigError(
                f"noise from {self.clients} clients of which {self.dropouts} may drop out and "
                f"{self.colluders} work together; somebody has to be left. Enrol more clients, or "
                "raise --min-cohort"
            )

    def calibrate(self, layout: Layout, sensitivity: Sensitivity) -> "Mechanism":
        """This mechanism with the least noise that keeps the promise.

        Args:
            layout: of each sum, without noise.
            sensitivity: of the same.

        Raises:
            ConfigError: that noise is too small for the grid.
        """
        epsilon, delta = self.privacy.epsilon, self.privacy.delta

        def with_delta(delta: float) -> "Mechanism":
            z = accounting.noise_multiplier(epsilon, delta, self.rounds)
            return replace(self, noise_multiplier=z)

        # With more noise the grid takes less of δ, and so not more than with the least.
        least = with_delta(delta)
        least._check_grid(layout, sensitivity)
        charge = least.charge(layout, sensitivity)
        found = with_delta(delta - charge) if charge < delta else least
        # The rounding of the noise makes μ larger than 1/z, by a hair.
        stretch = found.mu(layout, sensitivity) * found.noise_multiplier
        found = replace(found, noise_multiplier=found.noise_multiplier * stretch * (1 + 1e-9))
        found.check(layout, sensitivity)
        return found

    @property
    def shares(self) -> int:
        """Shares of which at least the noise consists that no attacker knows."""
        if self.privacy.placement == "central":
            return 1
        return self.clients - self.dropouts - self.colluders

    @property
    def min_cohort(self) -> int:
        """The least number of contributors for which the noise suffices."""
        return 0 if self.privacy.placement == "central" else self.clients - self.dropouts

    def describe(self) -> str:
        """One line for ledgers and reports."""
        privacy = self.privacy
        return (
            f"discrete Gaussian, noise multiplier {self.noise_multiplier:.4g} in each of "
            f"{self.rounds} sums: ε = {privacy.epsilon:g} at δ = {privacy.delta:g}, unit "
            f"{privacy.unit}, {privacy.neighbours}, {privacy.placement}"
        )

    def stds(self, layout: Layout, sensitivity: Sensitivity) -> dict[str, float]:
        """σ_i of each block's noise, in integer steps, as the promise needs it; 0 where public."""
        relative = dict(sensitivity.relative)
        sigma = self.noise_multiplier * sensitivity.joint
        return {block.name: sigma * relative[block.name] for block in layout.blocks}

    def share_stds(self, layout: Layout, sensitivity: Sensitivity) -> dict[str, float]:
        """The same of one client's share."""
        shrink = 1 / math.sqrt(self.shares)
        return {name: std * shrink for name, std in self.stds(layout, sensitivity).items()}

    def mu(self, layout: Layout, sensitivity: Sensitivity) -> float:
        """μ of one sum: how far apart two neighbours are, in standard deviations."""
        stretch = max(
            std / accounting.continuous(std)
            for std in self.stds(layout, sensitivity).values()
            if std > 0
        )
        return stretch / self.noise_multiplier

    def distance(self, layout: Layout, sensitivity: Sensitivity) -> float:
        """Total variation between a sum's noise and the rounded Gaussian that it is counted as."""
        stds = self.stds(layout, sensitivity)
        return accounting.discretisation_distance(
            [(stds[block.name], block.length) for block in layout.blocks if stds[block.name] > 0]
        )

    def charge(self, layout: Layout, sensitivity: Sensitivity) -> float:
        """What the grid adds to δ, in all sums together."""
        distance = self.rounds * self.distance(layout, sensitivity)
        return accounting.distance_delta(self.privacy.epsilon, distance)

    def check(self, layout: Layout, sensitivity: Sensitivity) -> None:
        """Recompute the promise: a client does so before it takes part.

        Raises:
            ConfigError: the noise is less than promised, or too small for the grid.
        """
        self._check_grid(layout, sensitivity)
        privacy = self.privacy
        mu = accounting.compose([self.mu(layout, sensitivity)] * self.rounds)
        charge = self.charge(layout, sensitivity)
        if accounting.delta_of(privacy.epsilon, mu) + charge > privacy.delta:
            raise ConfigError(
                f"noise multiplier {self.noise_multiplier:.6g} over {self.rounds} sums does not "
                f"give ε = {privacy.epsilon:g} at δ = {privacy.delta:g} (the grid takes "
                f"{charge:.1g} of δ); pass more --feature-bits, or calibrate again"
            )

    def widen(self, layout: Layout, sensitivity: Sensitivity) -> Layout:
        """The layout with room for the noise of all K shares, but once in 2^64 sums.

        Rounded up to a power of two, so that machines whose logarithms differ in a last bit agree.
        """
        if self.privacy.placement == "central":
            return layout
        stds = self.share_stds(layout, sensitivity)

        def widened(block: Block) -> Block:
            if stds[block.name] == 0:
                return block
            room = 1 << tail(stds[block.name], self.clients, layout.length).bit_length()
            return Block(block.name, block.length, block.low - room, block.high + room, block.scale)

        return Layout(tuple(widened(block) for block in layout.blocks))

    def share(self, layout: Layout, sensitivity: Sensitivity, entropy: bytes) -> Integers:
        """One share of the noise, int64 of the layout's length; the same for the same entropy.

        Args:
            entropy: 32 secret bytes.
        """
        stds = self.share_stds(layout, sensitivity)
        return np.concatenate([_draw(block, stds[block.name], entropy) for block in layout.blocks])

    def _check_grid(self, layout: Layout, sensitivity: Sensitivity) -> None:
        for name, std in self.share_stds(layout, sensitivity).items():
            if std != 0 and not accounting.MIN_SHARE <= std <= MAX_SIGMA:
                raise ConfigError(
                    f"a client's noise in block '{name}' would have standard deviation {std:.2g} "
                    f"steps, allowed: {accounting.MIN_SHARE:g}..{MAX_SIGMA:.2g}; pass more (fewer) "
                    "--feature-bits, or a smaller (larger) --epsilon"
                )


def _draw(block: Block, std: float, entropy: bytes) -> Integers:
    if std == 0:
        return np.zeros(block.length, dtype=np.int64)
    return discrete_gaussian(std, block.length, derive(entropy, b"", "noise", block.name))
