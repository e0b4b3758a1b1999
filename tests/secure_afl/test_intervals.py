"""Intervals against those of `scipy.stats`, bit for bit."""

import math
from statistics import stdev

import numpy as np
import pytest
from scipy import stats

from secure_afl.intervals import student_reach, wilson_interval
from secure_afl.privacy.accounting import audited_epsilon, epsilon_of


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_student_s_quantile_is_that_of_scipy_stats(confidence: float) -> None:
    rng = np.random.default_rng(1)
    for count in (2, 3, 10, 200):
        values = rng.normal(size=count).tolist()
        quantile = float(stats.t.ppf((1 + confidence) / 2, count - 1))
        assert student_reach(values, confidence) == quantile * stdev(values) / math.sqrt(count)
    with pytest.raises(ValueError, match="at least two"):
        student_reach([1.0])


@pytest.mark.parametrize("trials", [1, 2, 17, 1000, 123_457])
def test_wilson_s_interval_is_that_of_scipy_stats(trials: int) -> None:
    for hits in {0, 1, trials // 3, trials // 2, trials - 1, trials}:
        bounds = stats.binomtest(hits, trials).proportion_ci(0.95, method="wilson")
        assert wilson_interval(hits, trials) == (bounds.low, bounds.high)


def test_the_audit_s_bound_is_that_of_scipy_stats() -> None:
    negatives, positives, miss = 4000, 3000, 0.025
    for false_positives, true_positives in ((0, 2999), (40, 900), (399, 2700)):
        wrong = stats.beta.ppf(1 - miss, false_positives + 1, negatives - false_positives)
        missed = positives - true_positives
        late = stats.beta.ppf(1 - miss, missed + 1, positives - missed)
        mu = -float(stats.norm.ppf(wrong)) - float(stats.norm.ppf(late))
        assert mu > 0
        found = audited_epsilon(false_positives, negatives, true_positives, positives, 1e-5, 0.95)
        assert found == epsilon_of(1e-5, mu)
