"""Metrics against closed forms, brute force, and their own promise of coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from attacks.measures import metrics
from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError

RNG = np.random.default_rng(1)


def gaussian_game(mu: float, members: int, others: int, seed: int) -> tuple[Floats, metrics.Bools]:
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(mu, 1, members), rng.normal(0, 1, others)])
    return scores, np.arange(members + others) < members


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_auc_counts_pairs(draws: list[tuple[int, bool]]) -> None:
    scores = np.array([float(score) for score, _ in draws])
    members = np.array([member for _, member in draws])
    if members.all() or not members.any():
        with pytest.raises(ConfigError):
            metrics.auc(scores, members)
        return
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[members] for b in scores[~members]]
    measure = metrics.auc(scores, members)
    assert measure.value == pytest.approx(np.mean(pairs))
    assert 0 <= measure.low <= measure.value + 1e-12
    assert measure.value - 1e-12 <= measure.high <= 1


@pytest.mark.slow
def test_auc_interval_covers() -> None:
    truth = metrics.gaussian_auc(1.0)
    inside = 0
    for seed in range(400):
        measure = metrics.auc(*gaussian_game(1.0, 40, 60, seed))
        inside += measure.low <= truth <= measure.high
    # Of 400 at 95 %, fewer than 360 come once in 100,000 times.
    assert inside >= 360


def test_auc_of_perfect_separation_has_a_lower_end() -> None:
    measure = metrics.auc(np.arange(20.0), np.arange(20) >= 10)
    assert (measure.value, measure.high) == (1.0, 1.0)
    assert measure.low == pytest.approx(0.025 ** (1 / 10))
    assert metrics.auc(np.zeros(20), np.arange(20) >= 10).value == 0.5


def test_tpr_at_fpr() -> None:
    others, members = np.arange(100.0), np.array([98.5, 99.5, 50.0, 98.0])
    scores = np.concatenate([others, members])
    is_member = np.arange(104) >= 100
    at_1 = metrics.tpr_at_fpr(scores, is_member, 0.01)
    # One of the hundred may be above: 98 is the threshold.
    assert (at_1.value, at_1.trials, at_1.chance) == (0.5, 4, 0.01)
    assert metrics.tpr_at_fpr(scores, is_member, 0.001).value == 0.25
    assert [measure.metric for measure in metrics.membership(scores, is_member)] == [
        measure.metric for measure in metrics.membership_at_chance()
    ]


def test_share_is_clopper_pearson() -> None:
    measure = metrics.share(3, 10, 0.1, confidence=0.9)
    assert measure.low == pytest.approx(stats.beta.ppf(0.05, 3, 8))
    assert measure.high == pytest.approx(stats.beta.ppf(0.95, 4, 7))
    nothing = metrics.share(0, 0, 0.25)
    assert (nothing.value, nothing.low, nothing.high, nothing.trials) == (0.25, 0.0, 1.0, 0)


def test_mean_of() -> None:
    values = RNG.normal(2.0, 1.0, 50)
    measure = metrics.mean_of(values, 0.0)
    interval = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (measure.low, measure.high) == pytest.approx((interval.low, interval.high))
    assert metrics.mean_of([1.0], 0.0, bounds=(-1.0, 1.0)).low == -1.0
    assert metrics.mean_of([], 0.3).value == 0.3
    cut = metrics.mean_of([0.9, 1.0], 0.0, bounds=(-1.0, 1.0))
    assert cut.high == 1.0


def test_simultaneous_intervals_are_wider() -> None:
    assert metrics.simultaneous(0.95, 1) == pytest.approx(0.95)
    assert metrics.simultaneous(0.95, 50) == pytest.approx(0.999)
    game = gaussian_game(1.0, 50, 50, 0)
    for measure_of in (metrics.auc, lambda s, m, c: metrics.tpr_at_fpr(s, m, 0.1, c)):
        narrow = measure_of(*game, 0.95)
        wide = measure_of(*game, metrics.simultaneous(0.95, 100))
        assert wide.low < narrow.low
        assert narrow.high < wide.high
    with pytest.raises(ConfigError, match="confidence"):
        metrics.simultaneous(1.0, 3)
    with pytest.raises(ConfigError, match="cells"):
        metrics.simultaneous(0.9, 0)


def test_gaussian_tradeoff_is_the_roc_of_shifted_gaussians() -> None:
    scores, members = gaussian_game(1.5, 20_000, 20_000, 3)
    fpr, tpr = metrics.roc(scores, members)
    np.testing.assert_allclose(tpr, metrics.gaussian_tradeoff(1.5, fpr), atol=0.02)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert metrics.gaussian_auc(1.5) == pytest.approx(np.trapezoid(tpr, fpr), abs=0.01)
    assert metrics.gaussian_auc(0.0) == 0.5


def test_centred_cosine_gives_the_mean_no_credit() -> None:
    true = 5.0 + RNG.standard_normal((30, 20))
    plain = np.einsum("ij,ij->i", true, np.tile(true.mean(0), (30, 1)))
    assert (plain > 0).all()
    np.testing.assert_array_equal(metrics.centred_cosine(np.tile(true.mean(0), (30, 1)), true), 0)
    np.testing.assert_allclose(metrics.centred_cosine(true, true), 1)
    assert abs(metrics.centred_cosine(true[::-1], true).mean()) < 0.2


def test_match_rows_finds_the_permutation() -> None:
    true = RNG.standard_normal((12, 5))
    order = RNG.permutation(12)
    which, where = metrics.match_rows(true[order] + 0.01 * RNG.standard_normal((12, 5)), true)
    np.testing.assert_array_equal(where, order[which])


def test_attribution() -> None:
    measure = metrics.attribution({0: "a", 2: "b"}, ["a", "b", "c"], 4)
    assert (measure.value, measure.chance, measure.trials) == (0.5, 0.25, 2)


def test_uniformity() -> None:
    assert metrics.uniformity(RNG.bytes(20_000)) > 1e-4
    assert metrics.uniformity(bytes(range(250)) * 80) < 1e-12
    with pytest.raises(ConfigError, match="1280"):
        metrics.uniformity(bytes(100))
    # A test that holds its level: of 1000 at 5 %, more than 85 come once in a million times.
    assert sum(metrics.uniformity(RNG.bytes(2000)) < 0.05 for _ in range(1000)) < 85


@pytest.mark.parametrize(
    ("scores", "members"),
    [
        (np.array([1.0, np.nan]), np.array([True, False])),
        (np.array([1.0]), np.array([True, False])),
        (np.array([1.0, 2.0]), np.array([True, True])),
    ],
)
def test_scores_that_cannot_be_judged(scores: Floats, members: metrics.Bools) -> None:
    with pytest.raises(ConfigError):
        metrics.auc(scores, members)
