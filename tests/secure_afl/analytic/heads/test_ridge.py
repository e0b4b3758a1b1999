import numpy as np
import pytest
from sklearn.linear_model import Ridge as Oracle
from sklearn.preprocessing import StandardScaler

from secure_afl.analytic.heads.lda import LDA
from secure_afl.analytic.heads.ridge import Ridge, gcv_curve
from secure_afl.analytic.moments import Moments, TooFewRows
from secure_afl.analytic.private_lda import SumNoise
from secure_afl.errors import ConfigError
from tests.secure_afl.analytic.heads.samples import sample


@pytest.mark.parametrize("lam", [0.03, 1.0, 40.0])
@pytest.mark.parametrize("intercept", [False, True])
def test_ridge_is_that_of_scikit_learn(lam: float, intercept: bool) -> None:
    rows, labels, moments = sample()
    fitted = Ridge(ridge=lam, intercept=intercept).fit(moments, ("0", "1", "2")).fitted
    oracle = Oracle(alpha=lam, fit_intercept=intercept).fit(rows, np.eye(3)[labels])
    np.testing.assert_allclose(fitted.weights, oracle.coef_.T, rtol=1e-8, atol=1e-10)
    if intercept:
        assert fitted.offset is not None
        np.testing.assert_allclose(-fitted.offset, oracle.intercept_, rtol=1e-8, atol=1e-10)
    else:
        assert fitted.offset is None
    assert (fitted.setting, fitted.value, fitted.prior) == ("ridge", lam, None)


def test_standardised_ridge_is_that_of_scikit_learn() -> None:
    rows, labels, moments = sample(dim=5)
    scaled = StandardScaler().fit(rows)
    fitted = Ridge(ridge=0.2, standardise=True).fit(moments, ("0", "1", "2")).fitted
    # λ is in units of tr(G)/d, which is N for standardised rows.
    oracle = Oracle(alpha=0.2 * len(rows)).fit(scaled.transform(rows), np.eye(3)[labels])
    assert fitted.offset is not None
    found = rows @ fitted.weights - fitted.offset
    np.testing.assert_allclose(found, oracle.predict(scaled.transform(rows)), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("intercept", [False, True])
def test_gcv_is_computed_from_the_sum_alone(intercept: bool) -> None:
    rows, labels, moments = sample((15, 12, 9), dim=9)
    targets, used = np.eye(3)[labels], rows
    if intercept:
        used, targets = rows - rows.mean(axis=0), targets - targets.mean(axis=0)
        moments = moments.centred()
    curve = gcv_curve(moments, intercept=intercept)
    assert len(curve) > 20
    for value, estimate in curve:
        hat = used @ np.linalg.solve(used.T @ used + value * np.eye(9), used.T)
        freedom = np.trace(hat) + intercept
        residual = ((targets - hat @ targets) ** 2).sum()
        expected = residual / 36 / (1 - freedom / 36) ** 2
        np.testing.assert_allclose(estimate, expected, rtol=1e-6)


def test_auto_takes_the_least_of_the_curve() -> None:
    _, _, moments = sample()
    fit = Ridge().fit(moments, ("0", "1", "2"))
    best = min(fit.curve, key=lambda point: point.estimate)
    assert fit.fitted.value == best.value
    given = Ridge(ridge=best.value).fit(moments, ("0", "1", "2"))
    assert given.curve == ()
    assert np.array_equal(given.fitted.weights, fit.fitted.weights)


def test_too_few_rows_to_find_a_ridge_from_are_refused_and_have_a_fallback() -> None:
    _, _, moments = sample((1, 1, 1))
    with pytest.raises(TooFewRows, match="3 rows of 3 classes; allowed: more rows than classes"):
        Ridge().fit(moments, ("0", "1", "2"))
    assert Ridge().fallback() == Ridge(ridge=0.1)
    assert Ridge(ridge=3.0).fallback() is None
    assert Ridge(ridge=0.1).fit(moments, ("0", "1", "2")).fitted.value == 0.1


def test_a_singular_system_is_refused() -> None:
    _, _, moments = sample((2, 2, 1), dim=7)
    with pytest.raises(ConfigError, match="singular at ridge 0"):
        Ridge(ridge=0.0).fit(moments, ("0", "1", "2"))


def test_the_condition_number_is_stated() -> None:
    _, _, moments = sample()
    for lam in (0.01, 10.0):
        fitted = Ridge(ridge=lam).fit(moments, ("0", "1", "2")).fitted
        system = moments.known_gram + lam * np.eye(7)
        expected = 1 / np.linalg.cond(system, 1)
        assert expected / 3 < fitted.conditioning < 3 * expected


def test_noisy_sums_have_no_mean_to_centre_by() -> None:
    _, _, moments = sample()
    noisy = Moments(moments.gram, moments.cross, None)
    rest = SumNoise(1.0, 1.0, 0.0), ("0", "1", "2")
    assert Ridge().fit_noisy(noisy, 2.0, *rest).value == 2.0
    assert Ridge(ridge=5.0).fit_noisy(noisy, 2.0, *rest).value == 5.0
    with pytest.raises(ConfigError, match="exact mean"):
        Ridge(intercept=True).fit_noisy(noisy, 2.0, *rest)
    with pytest.raises(ConfigError, match="ridge is 0 with privacy"):
        Ridge(ridge=0.0).fit_noisy(noisy, 2.0, *rest)
    with pytest.raises(ConfigError, match="no class counts"):
        Ridge().fit(noisy, ("0", "1", "2"))


@pytest.mark.parametrize("sizes", [(30, 30, 30), (80, 8, 2)])
@pytest.mark.parametrize("lam", [1e-3, 1.0])
def test_simplex_targets_change_no_prediction_of_ridge(sizes: tuple[int, ...], lam: float) -> None:
    """Fixed targets of FedGELA's and FedLoGe's kind do nothing for ridge, on long tails too."""
    rows, labels, moments = sample(sizes, dim=6)
    classes = len(sizes)
    rotation = np.linalg.qr(np.random.default_rng(3).standard_normal((classes, classes)))[0]
    # Simplex equiangular tight frame: unit vectors of equal angles, one a class.
    frame = np.sqrt(classes / (classes - 1)) * (np.eye(classes) - 1 / classes) @ rotation
    angles = frame @ frame.T
    np.testing.assert_allclose(np.diag(angles), 1.0)
    np.testing.assert_allclose(angles[~np.eye(classes, dtype=bool)], -1 / (classes - 1))
    fitted = Ridge(ridge=lam).fit(moments, ("0", "1", "2")).fitted
    oracle = Oracle(alpha=lam, fit_intercept=False).fit(rows, frame[labels])
    judged = oracle.predict(rows) @ frame.T
    assert np.array_equal(judged.argmax(axis=1), (rows @ fitted.weights).argmax(axis=1))
    # What does help a long tail: class shares that the scores do not hold.
    lda = LDA().fit(moments, ("0", "1", "2")).fitted
    assert lda.offset is not None
    tail = labels == classes - 1
    even = (rows @ lda.weights - lda.offset).argmax(axis=1)
    plain = (rows @ fitted.weights).argmax(axis=1)
    assert (even == labels)[tail].mean() >= (plain == labels)[tail].mean()
