"""Noise inside the sum: what is promised, and the share of noise that each client adds."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from msgspec import structs

from protocols.codec import Wire
from protocols.layout import Block, Integers, Layout
from protocols.message import derive
from secure_afl.checks import check_choice, check_type, settle_float, settle_int
from secure_afl.errors import ConfigError
from secure_afl.privacy import accounting
from secure_afl.privacy.discrete_gaussian import MAX_SIGMA, discrete_gaussian, tail
from secure_afl.privacy.sensitivity import Neighbours, Sensitivity, Unit

Placement: TypeAlias = Literal["distributed", "central"]

# Beyond this, noise at 12 bits is too small for the grid, and the promise is worth little.
MAX_EPSILON = 20.0
DEFAULT_DELTA = 1e-5
DEFAULT_CROSS_WEIGHT = 0.8
# Sums of a run, or clients of one; far more than there are.
MAX_PARTIES = 2**31

# What is allowed to a distance beyond that of calibration: machines' powers differ in a last bit.
# μ needs no such margin, for products, quotients and roots are the same everywhere.
_MARGIN = 1e-9

_FIX = "calibrate again, and for this sum too: the method's `foreseen` has to name it"


class Privacy(Wire, frozen=True):
    """The promise of a run about everything that it releases.

    Attributes:
        epsilon, delta: the guarantee, 0.001 to 20 and 1e-15 to 0.1.
        unit: what is hidden: that an `example`, a `patient` with all its rows at one client, or a
            `client` with all its rows, was there.
        neighbours: `add-remove`: it was or was not (a client, whom the roster names, is zeroed
            out); `replace-one`: it was this one or another.
        placement: `distributed`: every client adds a share of the noise before anybody sees
            anything. `central`: whoever decodes the sum sees it exactly and adds the noise; that
            party is trusted with it.
        cross_weight: w = μ_Q/μ_G, the share of the budget that the cross term gets; 0.05 to 20.
            None leaves it to what is learned of the sum: 1.2 for LDA, 0.8 for all else.
        counts_weight: v, the same for the class counts; None releases them only where what is
            learned needs them, with 0.3 for LDA.
    """

    epsilon: float
    delta: float = DEFAULT_DELTA
    unit: Unit = "example"
    neighbours: Neighbours = "add-remove"
    placement: Placement = "distributed"
    cross_weight: float | None = None
    counts_weight: float | None = None

    def __post_init__(self) -> None:
        settle_float(self, "epsilon", 1e-3, MAX_EPSILON)
        settle_float(self, "delta", 1e-15, 0.1)
        if self.cross_weight is not None:
            settle_float(self, "cross_weight", 0.05, 20)
        if self.counts_weight is not None:
            settle_float(self, "counts_weight", 1e-9, 20)
        check_choice(self, "unit", get_args(Unit))
        check_choice(self, "neighbours", get_args(Neighbours))
        check_choice(self, "placement", get_args(Placement))

    @property
    def known_cross_weight(self) -> float:
        """The given w, or 0.8."""
        return DEFAULT_CROSS_WEIGHT if self.cross_weight is None else self.cross_weight

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

    Δ, the blocks and their r_i are each sum's own, and z is common to all. The promise holds for
    any `rounds` sums of which none costs more than `mu` and `distance`. A sum that spends s has
    noise z·Δ·r_i/s and costs at most s times `mu`; the squares of s add up to `rounds` at most.

    Attributes:
        privacy: what is promised.
        rounds: sums of the run, all of which the promise covers.
        clients, dropouts, colluders: K, D and T ≥ 1, for every client knows its own share.
        noise_multiplier: z, per sum; see `NoisySum.calibrated`.
        mu, distance: the most that any one sum may cost, see `NoisySum`.

    Raises:
        ConfigError: nobody is left to add noise, or a number out of range.
    """

    privacy: Privacy
    rounds: int
    clients: int
    dropouts: int
    colluders: int
    noise_multiplier: float = 1.0
    mu: float = 1.0
    distance: float = 0.0

    def __post_init__(self) -> None:
        check_type("privacy", self.privacy, Privacy)
        for field, least in (("rounds", 1), ("clients", 1), ("dropouts", 0), ("colluders", 1)):
            settle_int(self, field, least, MAX_PARTIES)
        if self.shares < 1:
            raise ConfigError(
                f"noise from {self.clients} clients of which {self.dropouts} may drop out and "
                f"{self.colluders} work together; somebody has to be left. Enrol more clients, or "
                "raise --min-cohort"
            )
        settle_float(self, "noise_multiplier", 1e-12, 1e12)
        settle_float(self, "mu", 1e-12, 1e13)
        settle_float(self, "distance", 0, 2)

    @property
    def shares(self) -> int:
        """Shares of which at least the noise consists that no attacker knows."""
        if self.privacy.placement == "central":
            return 1
        return self.clients - self.dropouts - self.colluders

    def surplus(self, included: int) -> float:
        """Return σ of the noise in a sum of so many clients, over the σ that the promise needs.

        Everybody who is there adds a share, and the promise counts on fewer. Who adds the noise
        centrally adds as much as is needed.
        """
        if self.privacy.placement == "central":
            return 1.0
        return math.sqrt(included / self.shares)

    @property
    def min_cohort(self) -> int:
        """The least number of contributors for which the noise suffices."""
        return 0 if self.privacy.placement == "central" else self.clients - self.dropouts

    def check(self) -> None:
        """Recompute the promise, from the most that any one sum may cost.

        Raises:
            ConfigError: such sums do not keep it.
        """
        privacy = self.privacy
        # μ of all sums together is √rounds times that of one, as `accounting.compose` has it.
        delta = accounting.delta_of(privacy.epsilon, math.sqrt(self.rounds) * self.mu)
        grid = accounting.distance_delta(privacy.epsilon, self.rounds * self.distance)
        if not delta + grid <= privacy.delta:
            raise ConfigError(
                f"noise multiplier {self.noise_multiplier:.6g} over {self.rounds} sums of "
                f"μ ≤ {self.mu:.6g} does not give ε = {privacy.epsilon:g} at δ = "
                f"{privacy.delta:g} (the grid takes {grid:.1g} of δ); pass more --feature-bits, "
                "or calibrate again"
            )

    def describe(self) -> str:
        """Describe the mechanism in one line for ledgers and reports."""
        privacy = self.privacy
        return (
            f"discrete Gaussian, noise multiplier {self.noise_multiplier:.4g} in each of "
            f"{self.rounds} sums: ε = {privacy.epsilon:g} at δ = {privacy.delta:g}, unit "
            f"{privacy.unit}, {privacy.neighbours}, {privacy.placement}"
        )


@dataclass(frozen=True)
class NoisySum:
    """A blind sum with a mechanism's noise in it.

    Attributes:
        mechanism: of all sums of the run, whose layouts and sensitivities may be others.
        layout: of the sum, without room for noise.
        sensitivity: of the same sum.

    Raises:
        ConfigError: other types, or a block without noise of its own.
    """

    mechanism: Mechanism
    layout: Layout
    sensitivity: Sensitivity

    def __post_init__(self) -> None:
        check_type("mechanism", self.mechanism, Mechanism)
        check_type("layout", self.layout, Layout)
        check_type("sensitivity", self.sensitivity, Sensitivity)
        named = dict(self.sensitivity.relative)
        if lacking := [block.name for block in self.layout.blocks if block.name not in named]:
            raise ConfigError(
                f"sensitivity has no relative noise for block '{lacking[0]}'; allowed: one for "
                "each block of the layout"
            )

    def calibrated(self, *others: "NoisySum") -> "NoisySum":
        """Find the least noise that keeps the promise, and the most that a sum then costs.

        Args:
            others: further sums of the run, where these differ.

        Raises:
            ConfigError: that noise is too small for the grid.
        """
        privacy, rounds = self.mechanism.privacy, self.mechanism.rounds

        def with_multiplier(z: float) -> list[NoisySum]:
            found = [noisy._with_multiplier(z) for noisy in (self, *others)]
            for noisy in found:
                noisy._check_grid()
            return found

        # With more noise the grid takes less of δ, and so not more than with the least.
        z = accounting.noise_multiplier(privacy.epsilon, privacy.delta, rounds)
        distance = max(noisy.distance for noisy in with_multiplier(z))
        charge = accounting.distance_delta(privacy.epsilon, rounds * distance)
        if charge < privacy.delta:
            z = accounting.noise_multiplier(privacy.epsilon, privacy.delta - charge, rounds)
        # The rounding of the noise makes μ larger than 1/z, by a hair.
        mu = max(noisy.unit_mu for noisy in with_multiplier(z))
        found = with_multiplier(z * (mu * z) * (1 + 1e-9))
        mechanism = structs.replace(
            found[0].mechanism,
            mu=max(noisy.unit_mu for noisy in found),
            distance=max(noisy.distance for noisy in found) * (1 + _MARGIN),
        )
        mechanism.check()
        return NoisySum(mechanism, self.layout, self.sensitivity)

    @property
    def stds(self) -> dict[str, float]:
        """σ_i of each block's noise, in integer steps, as the promise needs; 0 where public."""
        relative = dict(self.sensitivity.relative)
        sigma = self.mechanism.noise_multiplier * self.sensitivity.joint / self.sensitivity.spend
        return {block.name: sigma * relative[block.name] for block in self.layout.blocks}

    @property
    def scaled_stds(self) -> dict[str, float]:
        """The same σ_i in units of each block's scale."""
        units = self.layout.units
        return {name: std * units[name] for name, std in self.stds.items()}

    @property
    def share_stds(self) -> dict[str, float]:
        """σ of each block in one client's share, in integer steps."""
        shrink = 1 / math.sqrt(self.mechanism.shares)
        return {name: std * shrink for name, std in self.stds.items()}

    @property
    def mu(self) -> float:
        """μ of the sum: how far apart two neighbours are, in standard deviations."""
        return self.unit_mu * self.sensitivity.spend

    @property
    def unit_mu(self) -> float:
        """μ of the sum over what it spends, which the mechanism bounds."""
        stretch = max(std / accounting.continuous(std) for std in self.stds.values() if std > 0)
        return stretch / self.mechanism.noise_multiplier

    @property
    def distance(self) -> float:
        """Total variation between the noise and the rounded Gaussian that it is counted as."""
        stds = self.stds
        return accounting.discretisation_distance(
            [(stds[b.name], b.length) for b in self.layout.blocks if stds[b.name] > 0]
        )

    def check(self) -> None:
        """Recompute the promise, and this sum's part in it: a client does so before it joins.

        Raises:
            ConfigError: the noise is less than promised or too small for the grid, or this sum
                costs more than the mechanism allows to any.
        """
        self._check_grid()
        mechanism = self.mechanism
        mechanism.check()
        if not self.unit_mu <= mechanism.mu:
            raise ConfigError(
                f"noise multiplier {mechanism.noise_multiplier:.6g} does not give {self._words} "
                f"μ ≤ {mechanism.mu:.9g}, which the promise allows to a sum, but "
                f"{self.unit_mu:.9g}; {_FIX}"
            )
        if not self.distance <= mechanism.distance:
            raise ConfigError(
                f"the grid costs {self._words} {self.distance:.3g} in total variation, allowed to "
                f"a sum: ≤ {mechanism.distance:.3g}; {_FIX}"
            )

    def widened(self) -> Layout:
        """Make room in the layout for the noise of all K shares, and of one in each addend.

        The room is too small once in 2^64 sums.

        Rounded up to a power of two, so that machines whose logarithms differ in a last bit agree.
        """
        if self.mechanism.privacy.placement == "central":
            return self.layout
        stds = self.share_stds

        def wider(block: Block) -> Block:
            if stds[block.name] == 0:
                return block
            everybody, one = (
                1 << tail(stds[block.name], shares, self.layout.length).bit_length()
                for shares in (self.mechanism.clients, 1)
            )
            return block.widened(everybody, one)

        return Layout(tuple(wider(block) for block in self.layout.blocks))

    def share(self, entropy: bytes) -> Integers:
        """Draw one share of the noise, int64 of the layout's length.

        The share is a function of the entropy.

        Args:
            entropy: 32 secret bytes.
        """
        stds = self.share_stds
        return np.concatenate([_draw(b, stds[b.name], entropy) for b in self.layout.blocks])

    @property
    def _words(self) -> str:
        return f"the sum of {', '.join(block.name for block in self.layout.blocks)}"

    def _with_multiplier(self, z: float) -> "NoisySum":
        mechanism = structs.replace(self.mechanism, noise_multiplier=z)
        return NoisySum(mechanism, self.layout, self.sensitivity)

    def _check_grid(self) -> None:
        for name, std in self.share_stds.items():
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
