"""Shares of noise: their size, their sum, and room for them in the ring."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocols.layout import Block, Layout
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.statistics import statistics_layout
from secure_afl.errors import ConfigError
from secure_afl.privacy import accounting
from secure_afl.privacy.mechanism import Mechanism, NoisySum, Privacy
from secure_afl.privacy.sensitivity import Sensitivity, statistics_sensitivity

BITS = 12
LAYOUT = statistics_layout(8, 3, Quantiser(BITS), 1000, counts=False)
SENSITIVITY = statistics_sensitivity(1 << BITS, "example", "add-remove", 100, 0.8)


def noisy_sum(
    clients: int = 10, dropouts: int = 2, colluders: int = 1, rounds: int = 1, epsilon: float = 1.0
) -> NoisySum:
    plain = Mechanism(Privacy(epsilon), rounds, clients, dropouts, colluders)
    return NoisySum(plain, LAYOUT, SENSITIVITY).calibrated()


@settings(max_examples=40, deadline=None)
@given(
    epsilon=st.floats(0.05, 10),
    rounds=st.integers(1, 50),
    clients=st.integers(3, 1000),
    data=st.data(),
)
def test_calibration_keeps_the_promise_and_wastes_little(
    epsilon: float, rounds: int, clients: int, data: st.DataObject
) -> None:
    dropouts = data.draw(st.integers(0, clients - 2))
    found = noisy_sum(clients, dropouts, 1, rounds, epsilon)
    z = found.mechanism.noise_multiplier
    assert accounting.delta_of(epsilon, math.sqrt(rounds) / z) <= 1e-5
    less = replace(found.mechanism, noise_multiplier=z * 0.999)
    with pytest.raises(ConfigError, match="does not give"):
        NoisySum(less, LAYOUT, SENSITIVITY).check()
    with pytest.raises(ConfigError, match="does not give ε"):
        replace(less, mu=found.mu / 0.999).check()


def test_the_multiplier_is_that_of_the_literature() -> None:
    for epsilon, expected in ((0.1, 30.75), (0.5, 7.03), (1.0, 3.73), (2.0, 1.99), (8.0, 0.600)):
        assert noisy_sum(epsilon=epsilon).mechanism.noise_multiplier == pytest.approx(
            expected, rel=2e-3
        )


@pytest.mark.parametrize(
    ("clients", "dropouts", "colluders"), [(3, 0, 1), (10, 2, 3), (100, 10, 20)]
)
def test_honest_shares_of_the_worst_cohort_have_the_calibrated_variance(
    clients: int, dropouts: int, colluders: int
) -> None:
    found = noisy_sum(clients, dropouts, colluders)
    honest = clients - dropouts - colluders
    wanted, share = found.stds, found.share_stds
    for block in LAYOUT.blocks:
        assert honest * share[block.name] ** 2 == pytest.approx(wanted[block.name] ** 2)
    assert wanted["gram_upper"] == pytest.approx(wanted["gram_diagonal"] / math.sqrt(2))


def test_the_variance_of_what_is_drawn_is_never_below_the_calibrated_one() -> None:
    found = noisy_sum()
    wide = Layout(tuple(replace(block, length=20_000) for block in LAYOUT.blocks))
    shares = [NoisySum(found.mechanism, wide, SENSITIVITY).share(bytes([i]) * 32) for i in range(7)]
    total = wide.split(np.sum(shares, axis=0))
    for name, std in found.stds.items():
        # 20,000 draws: the variance is known to 1 %, one standard deviation.
        assert total[name].var() == pytest.approx(std**2, rel=0.05)


def test_a_share_depends_on_its_entropy_alone_and_blocks_differ() -> None:
    found = noisy_sum()
    once, again = (found.share(bytes(32)) for _ in range(2))
    other = found.share(bytes([1]) * 32)
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)
    blocks = LAYOUT.split(once)
    assert not np.array_equal(blocks["gram_diagonal"], blocks["gram_upper"][:8])


def test_the_ring_has_room_for_all_shares() -> None:
    found = noisy_sum(clients=50, dropouts=20)
    widened = found.widened()
    all_shares = {n: s * math.sqrt(50) for n, s in found.share_stds.items()}
    for before, after in zip(LAYOUT.blocks, widened.blocks, strict=True):
        room = before.low - after.low
        assert room == after.high - before.high
        assert room >= 9 * all_shares[before.name]
        assert room & (room - 1) == 0


def test_public_constants_get_neither_noise_nor_room() -> None:
    layout = Layout((Block("update", 5, -100, 100), Block("weight", 1, 1, 10)))
    sensitivity = Sensitivity(2.0**16, (("update", 1.0), ("weight", 0.0)))
    found = NoisySum(Mechanism(Privacy(1.0), 3, 10, 1, 1), layout, sensitivity).calibrated()
    assert found.share(bytes(32))[-1] == 0
    assert found.widened().blocks[1] == layout.blocks[1]


def test_noise_too_small_for_the_grid_is_refused() -> None:
    bits = 1
    layout = statistics_layout(8, 3, Quantiser(bits), 1000, counts=False)
    sensitivity = statistics_sensitivity(1 << bits, "example", "add-remove", 100, 0.8)
    with pytest.raises(ConfigError, match="--feature-bits"):
        NoisySum(Mechanism(Privacy(8.0), 1, 100, 0, 1), layout, sensitivity).calibrated()


def test_noise_for_several_layouts_suffices_for_each() -> None:
    """What the dearest of them costs is counted for every sum."""
    coarse = Layout((Block("coarse", 10_000, -100, 100),))
    one = NoisySum(Mechanism(Privacy(4.0), 2, 10, 1, 1), LAYOUT, SENSITIVITY)
    other = NoisySum(one.mechanism, coarse, Sensitivity(32.0, (("coarse", 1.0),)))
    both = one.calibrated(other)
    assert both.layout == LAYOUT
    assert other.calibrated(one).mechanism == both.mechanism
    assert both.mechanism.noise_multiplier > one.calibrated().mechanism.noise_multiplier
    dearest = NoisySum(both.mechanism, coarse, other.sensitivity)
    assert both.distance < dearest.distance <= both.mechanism.distance
    assert both.mu < dearest.mu == both.mechanism.mu
    both.check()
    dearest.check()
    alone = NoisySum(one.calibrated().mechanism, coarse, other.sensitivity)
    with pytest.raises(ConfigError, match="the sum of coarse"):
        alone.check()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("noise_multiplier", 0.0),
        ("noise_multiplier", math.inf),
        ("mu", -1.0),
        ("distance", math.nan),
    ],
)
def test_mechanisms_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=field):
        replace(Mechanism(Privacy(1.0), 1, 3, 0, 1), **{field: value})


@pytest.mark.parametrize("cohort", [(3, 2, 1), (3, 0, 3), (3, -1, 1), (3, 0, 0)], ids=repr)
def test_somebody_has_to_be_left_to_add_noise(cohort: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError):
        Mechanism(Privacy(1.0), 1, *cohort)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epsilon", 0.0),
        ("epsilon", math.nan),
        ("epsilon", -1.0),
        ("delta", 0.0),
        ("delta", 0.5),
        ("cross_weight", 0.0),
        ("counts_weight", -1.0),
        ("unit", "household"),
        ("neighbours", "both"),
        ("placement", "nowhere"),
    ],
)
def test_promises_out_of_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        Privacy(**{"epsilon": 1.0, field: value})  # type: ignore[arg-type]
