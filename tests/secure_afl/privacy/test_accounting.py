"""Accounting against other people's accountants, high precision and exact sums."""

import math

import dp_accounting
import mpmath
import numpy as np
import pytest
from dp_accounting import pld, rdp
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import RDPAccountant
from opacus.accountants.analysis.gdp import eps_from_mu
from scipy.special import ndtr

from secure_afl.errors import ConfigError
from secure_afl.privacy.accounting import (
    audited_epsilon,
    compose,
    continuous,
    delta_of,
    discretisation_distance,
    distance_delta,
    epsilon_of,
    mu_of,
    noise_multiplier,
)

EPSILONS = st.floats(0.01, 30)
DELTAS = st.floats(-12, -1).map(lambda exponent: 10.0**exponent)
QUICK = ((0.1, 1e-5, 25), (1.0, 1e-8, 5), (8.0, 1e-5, 25))


@pytest.mark.parametrize(
    ("epsilon", "expected"), [(0.1, 30.75), (0.5, 7.03), (1, 3.73), (2, 1.99), (8, 0.600)]
)
def test_noise_is_that_of_the_published_mechanism(epsilon: float, expected: float) -> None:
    z = noise_multiplier(epsilon, 1e-5)
    assert z == pytest.approx(expected, rel=2e-3)
    assert z == pytest.approx(dp_accounting.get_sigma_gaussian(epsilon, 1e-5), rel=1e-6)
    assert epsilon_of(1e-5, 1 / z) == pytest.approx(epsilon, rel=1e-7)
    assert epsilon_of(1e-5, 1 / z) == pytest.approx(
        dp_accounting.get_epsilon_gaussian(z, 1e-5), rel=1e-6
    )


@pytest.mark.parametrize("mu", [1e-3, 0.05, 0.3, 1.0, 4.0, 12.0, 40.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.01, 0.5, 1.0, 8.0, 60.0, 900.0])
def test_delta_agrees_with_sixty_digits(epsilon: float, mu: float) -> None:
    with mpmath.workdps(60):
        e, m = mpmath.mpf(epsilon), mpmath.mpf(mu)
        exact = float(mpmath.ncdf(-e / m + m / 2) - mpmath.exp(e) * mpmath.ncdf(-e / m - m / 2))
    if exact > 1e-280:
        assert delta_of(epsilon, mu) == pytest.approx(exact, rel=1e-9, abs=1e-16)
    else:
        assert delta_of(epsilon, mu) < 1e-270


def test_limits() -> None:
    assert delta_of(1.0, 0.0) == delta_of(math.inf, 1.0) == 0.0
    assert delta_of(1.0, math.inf) == 1.0
    assert epsilon_of(1e-5, 0.0) == epsilon_of(1.0, 5.0) == epsilon_of(1.0, math.inf) == 0.0
    assert epsilon_of(0.0, 1.0) == epsilon_of(1e-5, math.inf) == math.inf
    assert compose([]) == 0.0
    assert compose([1.0, math.inf]) == math.inf


@settings(deadline=None, max_examples=60)
@given(EPSILONS, DELTAS, st.integers(1, 10_000))
def test_noise_keeps_its_promise_and_wastes_none(epsilon: float, delta: float, many: int) -> None:
    z = noise_multiplier(epsilon, delta, many)
    assert delta_of(epsilon, math.sqrt(many) / z) < delta
    assert delta_of(epsilon, math.sqrt(many) / z * (1 + 1e-8)) > delta
    assert delta_of(epsilon, compose([1 / z] * many)) < delta
    assert delta_of(epsilon, mu_of(epsilon, delta)) < delta
    assert epsilon_of(delta, mu_of(epsilon, delta)) <= epsilon


@pytest.mark.parametrize(("z", "steps"), [(2.0, 1), (4.0, 10), (10.0, 100)])
def test_composition_is_within_other_accountants(z: float, steps: int) -> None:
    ours = epsilon_of(1e-5, compose([1 / z] * steps))
    event = dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(z), steps)
    tight = pld.PLDAccountant().compose(event).get_epsilon(1e-5)
    loose = rdp.RdpAccountant().compose(event).get_epsilon(1e-5)
    assert ours == pytest.approx(tight, rel=1e-3)
    assert ours <= tight * (1 + 1e-6) < loose < 1.25 * ours
    opacus = RDPAccountant()
    opacus.history = [(z, 1.0, steps)]
    assert ours < opacus.get_epsilon(delta=1e-5) < 1.25 * ours
    assert ours == pytest.approx(eps_from_mu(mu=math.sqrt(steps) / z, delta=1e-5), rel=1e-6)


# dp_accounting rounds losses to a grid, upwards; its ε is then too large by a part of a millionth.
GRID = [
    pytest.param(e, d, k, marks=[] if (e, d, k) in QUICK else pytest.mark.slow)
    for e in (0.1, 0.5, 1.0, 8.0)
    for d in (1e-5, 1e-8)
    for k in (1, 5, 25)
]


@pytest.mark.parametrize(("epsilon", "delta", "sums"), GRID)
def test_a_run_of_several_sums_is_what_dp_accounting_finds(
    epsilon: float, delta: float, sums: int
) -> None:
    z = noise_multiplier(epsilon, delta, sums)
    found = epsilon_of(delta, compose([1 / z] * sums))
    loss = pld.privacy_loss_distribution.from_gaussian_mechanism(
        z, value_discretization_interval=1e-4 * epsilon
    ).self_compose(sums)
    assert -1e-8 < loss.get_epsilon_for_delta(delta) / found - 1 < 1e-6
    assert loss.get_delta_for_epsilon(epsilon) == pytest.approx(delta, rel=2e-5)


def test_sums_of_different_noise_are_what_dp_accounting_finds() -> None:
    mus = (0.3, 0.1, 0.7, 0.2)
    first, *others = [
        pld.privacy_loss_distribution.from_gaussian_mechanism(
            1 / mu, value_discretization_interval=1e-4
        )
        for mu in mus
    ]
    for other in others:
        first = first.compose(other)
    found = epsilon_of(1e-6, compose(mus))
    assert -1e-8 < first.get_epsilon_for_delta(1e-6) / found - 1 < 1e-6


def discrete(sigma: float, clients: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    reach = int(14 * sigma)
    one = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    one /= one.sum()
    total = one
    for _ in range(clients - 1):
        total = np.convolve(total, one)
    return total


@pytest.mark.parametrize("sigma", [2.0, 2.7, 4.0, 6.0])
@pytest.mark.parametrize("clients", [1, 2, 5])
def test_the_charge_for_discrete_noise_bounds_the_exact_distance(
    sigma: float, clients: int
) -> None:
    total = discrete(sigma, clients)
    reach = len(total) // 2
    spread = continuous(sigma * math.sqrt(clients))
    # Cells in the lower half only, where differences of the distribution function are exact.
    cells = -np.abs(np.arange(-reach, reach + 1))
    rounded = ndtr((cells + 0.5) / spread) - ndtr((cells - 0.5) / spread)
    likely = total > 1e-25
    excess = (total - rounded)[likely]
    distance = 0.5 * float(np.abs(excess).sum())
    divergence = float((total[likely] * np.log1p(excess / rounded[likely]) - excess).sum())
    bound = discretisation_distance([(sigma * math.sqrt(clients), 1)])
    assert distance < bound
    # What adds up over coordinates is the divergence: Pinsker's bound, and hardly less than ours.
    assert 0.99 * bound < math.sqrt(divergence / 2) < bound
    assert discretisation_distance([(sigma, 1)]) >= bound


def test_charges_add_up_over_blocks() -> None:
    one, other = discretisation_distance([(3.0, 10)]), discretisation_distance([(4.0, 90)])
    both = discretisation_distance([(3.0, 10), (4.0, 90)])
    assert both == pytest.approx(math.hypot(one, other))
    assert distance_delta(2.0, one) == pytest.approx((1 + math.e**2) * one)
    assert distance_delta(2.0, discretisation_distance([])) == 0.0
    assert distance_delta(1e5, discretisation_distance([(3.0, 10)])) == math.inf
    assert continuous(2.0) ** 2 == pytest.approx(4 - 1 / 12)


@pytest.mark.parametrize("epsilon", [1.0, 2.0, 4.0, 8.0])
def test_an_audit_of_the_gaussian_comes_close_from_below(epsilon: float) -> None:
    mu, trials = mu_of(epsilon, 1e-5), 100_000
    rng = np.random.default_rng(int(epsilon))
    no = int((rng.standard_normal(trials) > mu / 2).sum())
    yes = int((mu + rng.standard_normal(trials) > mu / 2).sum())
    found = audited_epsilon(no, trials, yes, trials, 1e-5, 0.95)
    assert 0.9 * epsilon < found < epsilon
    assert audited_epsilon(no, trials, yes, trials, 1e-5, 0.999) < found


def test_an_audit_holds_as_often_as_it_says() -> None:
    mu, trials, repeats = 1.0, 200, 400
    rng = np.random.default_rng(1)
    no = rng.binomial(trials, ndtr(-0.5), repeats)
    yes = rng.binomial(trials, ndtr(0.5), repeats)
    truth = epsilon_of(1e-5, mu)
    wrong = sum(
        audited_epsilon(int(a), trials, int(b), trials, 1e-5, 0.8) > truth
        for a, b in zip(no, yes, strict=True)
    )
    assert wrong <= 0.2 * repeats
    assert audited_epsilon(50, 100, 50, 100, 1e-5) == 0.0
    assert audited_epsilon(100, 100, 100, 100, 1e-5) == 0.0
    assert audited_epsilon(0, 100, 100, 100, 1e-5) > 1.0


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"epsilon is -1"):
        delta_of(-1.0, 1.0)
    with pytest.raises(ConfigError, match=r"mu is nan"):
        delta_of(1.0, math.nan)
    with pytest.raises(ConfigError, match=r"delta is 2"):
        epsilon_of(2.0, 1.0)
    with pytest.raises(ConfigError, match=r"delta is 0"):
        noise_multiplier(1.0, 0.0)
    with pytest.raises(ConfigError, match=r"releases is 0"):
        noise_multiplier(1.0, 1e-5, 0)
    with pytest.raises(ConfigError, match=r"grid units, is 1\.5, allowed: 2"):
        distance_delta(1.0, discretisation_distance([(1.5, 3)]))
    with pytest.raises(ConfigError, match=r"sigma is 1\.0"):
        continuous(1.0)
    with pytest.raises(ConfigError, match=r"positive answers is 11"):
        audited_epsilon(11, 10, 3, 10, 1e-5)
    with pytest.raises(ConfigError, match=r"trials is 0"):
        audited_epsilon(0, 0, 3, 10, 1e-5)
