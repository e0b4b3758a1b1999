import math
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError, DataError
from secure_afl.privacy.sensitivity import Neighbours
from secure_afl.tuning import dpsgd
from secure_afl.tuning.dpsgd import (
    SWEEP,
    DpSgdSettings,
    epsilon_spent,
    find_noise_multiplier,
    train_dpsgd,
)

CLASSES = ("a", "b", "c")
RELATIONS: tuple[Neighbours, ...] = ("add-remove", "replace-one")
DELTA = 1e-5
# 600 rows in batches of about 100.
BATCHES = DpSgdSettings(epochs=5, batch_size=100, learning_rate=2.0, clip=1.0)


@dataclass(frozen=True)
class Rows:
    features: NDArray[np.float32]
    labels: Integers


def separable(rows: int = 600, dim: int = 8, seed: int = 0) -> Rows:
    """Three classes around three axes, as rows of any length."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 3
    features = np.eye(dim)[labels] + 0.2 * rng.standard_normal((rows, dim))
    features *= rng.uniform(0.1, 10, (rows, 1))
    return Rows(features.astype(np.float32), labels)


def train(data: Rows, epsilon: float = 2.0, **keywords: Any) -> dpsgd.DpSgdResult:
    arguments: dict[str, Any] = {"delta": DELTA, "settings": BATCHES, "seed": 0} | keywords
    return train_dpsgd(data.features, data.labels, CLASSES, epsilon, **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [None, BATCHES])
def test_it_learns_what_can_be_learned_and_reports_what_that_cost(
    settings: DpSgdSettings | None,
) -> None:
    test = separable(seed=1)
    result = train(separable(), 8.0, settings=settings)
    assert result.model.classes == CLASSES
    assert result.model.weights.shape == (8, 3)
    assert result.model.accuracy(test.features, test.labels) > 0.97
    assert 7.9 < result.epsilon <= 8.0
    assert result.delta == DELTA
    assert result.steps == (50 if settings is None else 30)
    assert result.sample_rate == (1 if settings is None else 1 / 6)
    assert result.seconds > 0


@pytest.mark.slow
def test_less_privacy_loss_takes_more_noise_and_teaches_less() -> None:
    data, test = separable(), separable(seed=1)
    results = [train(data, epsilon) for epsilon in (0.1, 1.0, 8.0)]
    multipliers = [result.noise_multiplier for result in results]
    assert multipliers == sorted(multipliers, reverse=True)
    assert multipliers[0] > 7 * multipliers[1]
    accuracies = [result.model.accuracy(test.features, test.labels) for result in results]
    assert accuracies[0] < accuracies[2] - 0.2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Optimal order is the:UserWarning")  # Opacus' RDP orders
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
def test_opacus_and_google_agree_that_no_more_is_spent(epsilon: float) -> None:
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.rdp import RdpAccountant
    from opacus.accountants import PRVAccountant

    rate, steps = 1 / 6, 60
    multiplier = find_noise_multiplier(epsilon, DELTA, "add-remove", rate, steps)
    prv = PRVAccountant()
    prv.history = [(multiplier, rate, steps)]
    # An upper bound within 2 · eps_error of the truth; ours lies just below the epsilon asked for.
    error = 0.01 * epsilon
    assert 0.99 * epsilon < prv.get_epsilon(DELTA, eps_error=error) < epsilon + 2 * error
    # Rényi orders are an upper bound, and a loose one.
    event = PoissonSampledDpEvent(rate, GaussianDpEvent(multiplier))
    renyi = RdpAccountant(list(np.geomspace(1.1, 2000, 200))).compose(event, steps)
    assert epsilon < renyi.get_epsilon(DELTA) < 1.25 * epsilon


@pytest.mark.parametrize("neighbours", RELATIONS)
@pytest.mark.parametrize("epsilon", [0.1, 2.0])
def test_without_sampling_it_is_one_gaussian_release(
    epsilon: float, neighbours: Neighbours
) -> None:
    multiplier = find_noise_multiplier(epsilon, DELTA, neighbours, 1.0, 50)
    sensitivity = 1 if neighbours == "add-remove" else 2
    mu = sensitivity * math.sqrt(50) / multiplier
    # Balle & Wang, ICML 2018, Theorem 8.
    delta = norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
    assert 0.98 * DELTA < delta <= DELTA


@pytest.mark.slow
@pytest.mark.parametrize("neighbours", RELATIONS)
@pytest.mark.parametrize(("epsilon", "rate", "steps"), [(0.01, 0.5, 10), (8.0, 0.3, 20)])
def test_the_noise_is_the_least_that_keeps_to_epsilon(
    epsilon: float, rate: float, steps: int, neighbours: Neighbours
) -> None:
    multiplier = find_noise_multiplier(epsilon, DELTA, neighbours, rate, steps)
    assert epsilon_spent(multiplier, DELTA, neighbours, rate, steps) <= epsilon
    assert epsilon_spent(0.999 * multiplier, DELTA, neighbours, rate, steps) > epsilon


@pytest.mark.slow
def test_replacing_a_row_takes_at_most_the_noise_of_removing_and_adding_one() -> None:
    rate, steps, epsilon = 1 / 6, 60, 2.0
    added, replaced = (
        find_noise_multiplier(epsilon, DELTA, neighbours, rate, steps) for neighbours in RELATIONS
    )
    # Two steps of (ε', δ') make (2ε', (1 + e^ε')δ'): a bound that needs no theory of pairs.
    half = epsilon / 2
    group = find_noise_multiplier(half, DELTA / (1 + math.exp(half)), "add-remove", rate, steps)
    assert 1.5 * added < replaced < group


@pytest.mark.slow
def test_no_pair_of_gradients_is_worse_than_the_one_accounted_for() -> None:
    """The claim of `epsilon_spent` about one step, by integration over a plane."""
    sigma, rate = 0.8, 0.3
    axis = np.linspace(-7, 7, 281)
    x, y = np.meshgrid(axis, axis)
    cell = float(axis[1] - axis[0]) ** 2

    def density(mean: Floats) -> Floats:
        mass: Floats = cell * norm.pdf(x, mean[0], sigma) * norm.pdf(y, mean[1], sigma)
        return mass

    def step(gradient: Floats) -> Floats:
        return (1 - rate) * density(np.zeros(2)) + rate * density(gradient)

    levels = np.exp([-1.0, -0.2, 0.0, 0.2, 0.5, 1.0, 2.0])

    def divergences(g: Floats, h: Floats) -> Floats:
        p, q = step(g), step(h)
        return np.array([np.maximum(p - level * q, 0).sum() for level in levels])

    unit = np.array([1.0, 0.0])
    worst = divergences(unit, -unit)
    rng = np.random.default_rng(0)
    for _ in range(60):
        angles, lengths = rng.uniform(0, 2 * np.pi, 2), rng.uniform(0, 1, 2) ** 0.25
        g, h = (
            length * np.array([np.cos(angle), np.sin(angle)])
            for angle, length in zip(angles, lengths, strict=True)
        )
        assert (divergences(g, h) <= worst + 1e-6).all()
    # And the accountant counts that pair: one step at that rate.
    epsilon = math.log(levels[4])
    assert epsilon_spent(sigma, float(worst[4]), "replace-one", rate, 1) == pytest.approx(
        epsilon, abs=2e-3
    )


@pytest.mark.parametrize("neighbours", RELATIONS)
def test_opacus_adds_the_noise_that_is_accounted_for(neighbours: Neighbours) -> None:
    """After one step from zero the weights are the clipped gradients' sum plus that noise."""
    settings = DpSgdSettings(epochs=1, learning_rate=1.0, clip=0.25, momentum=0.0)
    features = np.zeros((40, 4000), np.float32)
    features[:, 0] = 3.0
    data = Rows(features, np.zeros(40, np.int64))
    result = train(data, 1.0, settings=settings, neighbours=neighbours)
    noise = result.model.weights[1:] * 40
    assert noise.std() == pytest.approx(0.25 * result.noise_multiplier, rel=0.02)
    assert abs(noise.mean()) < 5 * noise.std() / math.sqrt(noise.size)
    signal = result.model.weights[0] * 40 - 40 * 0.25 * np.array([2, -1, -1]) / math.sqrt(6)
    assert (abs(signal) < 5 * noise.std()).all()


@pytest.mark.slow
def test_a_row_moves_a_step_by_no_more_than_clip() -> None:
    settings = DpSgdSettings(epochs=1, learning_rate=1.0, clip=0.25, momentum=0.0)
    data = separable(30)
    opposite = data.features.copy()
    opposite[0] *= -1e6
    # The seed keeps the noise.
    first, second = (
        30 * train(rows, settings=settings).model.weights
        for rows in (data, Rows(opposite, data.labels))
    )
    assert np.linalg.norm(second - first) == pytest.approx(2 * 0.25, rel=1e-3)


@pytest.mark.slow
def test_with_a_public_bound_nothing_public_depends_on_the_number_of_rows() -> None:
    results = [train(separable(rows), rows_bound=1000) for rows in (600, 601, 999)]
    assert {(r.noise_multiplier, r.sample_rate, r.steps, r.epsilon) for r in results} == {
        (results[0].noise_multiplier, 1 / 10, 50, results[0].epsilon)
    }
    with pytest.raises(DataError, match="600 rows, but rows_bound is 599"):
        train(separable(), rows_bound=599)


@pytest.mark.slow
def test_empty_batches_are_steps_too() -> None:
    data = separable(1)
    settings = DpSgdSettings(epochs=3, batch_size=1, learning_rate=1.0)
    result = train(data, settings=settings, rows_bound=20)
    assert result.steps == 60
    assert np.isfinite(result.model.weights).all()
    assert result.model.weights.all()


@pytest.mark.slow
def test_a_seed_repeats_and_no_seed_does_not() -> None:
    import torch

    data = separable(100)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again = train(data, seed=7), train(data, seed=7)
    np.testing.assert_array_equal(first.model.weights, again.model.weights)
    unseeded = []
    for seed in (8, None, None):
        # PyTorch's own generator must not matter: it begins alike in every process.
        torch.manual_seed(0)
        unseeded.append(train(data, seed=seed).model.weights)
    assert len({weights.tobytes() for weights in [first.model.weights, *unseeded]}) == 4
    assert torch.equal(torch.get_rng_state(), before)


def test_what_cannot_be_is_refused_before_work_is_done() -> None:
    data = separable(30)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"epsilon": 0.0}, r"epsilon is 0\.0, allowed: 0\.01\.\.20"),
        ({"epsilon": math.nan}, "epsilon is nan"),
        ({"epsilon": 21.0}, "epsilon is 21"),
        ({"delta": 0.0}, r"delta is 0\.0, allowed: 1e-12\.\.0\.1"),
        ({"delta": 1.0}, "delta is 1"),
        ({"neighbours": "zero-out"}, "neighbours is 'zero-out', allowed: add-remove, replace-one"),
        ({"unit": "client"}, "unit client of DP-SGD; allowed: example"),
        ({"unit": "patient"}, "unit patient of DP-SGD; allowed: example"),
        ({"unit": "site"}, "unit is 'site', allowed: example, patient, client"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 2**32}, "seed 4294967296"),
    ]
    for keywords, message in refused:
        with pytest.raises(ConfigError, match=message):
            train(data, **({"epsilon": 1.0} | keywords))
    with pytest.raises(ConfigError, match="1 class"):
        train_dpsgd(data.features, data.labels * 0, ("a",), 1.0, DELTA)
    with pytest.raises(DataError, match=r"label 2 is out of range; allowed: 0\.\.1"):
        train_dpsgd(data.features, data.labels, ("a", "b"), 1.0, DELTA)
    with pytest.raises(DataError, match=r"wanted int64\[30\]"):
        train(Rows(data.features, data.labels[:-1]))
    broken = data.features.copy()
    broken[3, 0] = np.nan
    with pytest.raises(DataError, match="row 3"):
        train(Rows(broken, data.labels))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("epochs", 1.5),
        ("batch_size", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.inf),
        ("clip", -1.0),
        ("momentum", 1.0),
    ],
)
def test_settings_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{field} is {value!r}, allowed"):
        DpSgdSettings(**{field: value})  # type: ignore[arg-type]


def test_the_sweep_holds_the_default_and_no_setting_twice() -> None:
    assert DpSgdSettings() in SWEEP
    assert len(set(SWEEP)) == len(SWEEP)


@pytest.mark.parametrize("missing", ["opacus", "dp_accounting"])
def test_what_is_not_installed_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        ConfigError, match=r"needs (opacus|dp-accounting); install 'secure-afl\[tune\]'"
    ):
        train(separable(30))


def test_importing_the_module_imports_neither_torch_nor_opacus() -> None:
    code = (
        "import sys; import secure_afl.tuning.dpsgd; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'opacus', 'dp_accounting')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
