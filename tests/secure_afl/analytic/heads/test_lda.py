import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from protocols.layout import Integers
from secure_afl.analytic.heads.head import Fitted, check_conditioning
from secure_afl.analytic.heads.lda import LDA
from secure_afl.analytic.moments import Moments, TooFewRows
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.statistics import Statistics, one_hot
from secure_afl.errors import ConfigError
from tests.secure_afl.analytic.heads.samples import Sample, sample


def scores(fitted: Fitted, rows: Floats) -> Floats:
    assert fitted.offset is not None
    assert fitted.prior is not None
    with np.errstate(divide="ignore"):
        found: Floats = rows @ fitted.weights - fitted.offset + np.log(fitted.prior)
    return found


def small_class_term(made: Sample, fitted: Fitted) -> Floats:
    """κ/(2n_c), from the rows."""
    within = made.rows - made.moments.means.T[made.labels]
    scatter = within.T @ within / len(made.rows)
    raised = scatter + fitted.value * np.trace(scatter) / len(scatter) * np.eye(len(scatter))
    freedom = np.trace(np.linalg.solve(raised, scatter))
    counts = np.bincount(made.labels)
    kappa = freedom / (1 - freedom / (len(made.rows) - len(counts)))
    term: Floats = kappa / (2 * counts)
    return term


@pytest.mark.parametrize("rho", [0.01, 0.5, 20.0])
@pytest.mark.parametrize("prior", [None, (0.2, 0.5, 0.3)])
def test_lda_is_that_of_scikit_learn_but_for_the_small_class_term(
    rho: float, prior: tuple[float, ...] | None
) -> None:
    made = sample()
    shares = {} if prior is None else {"prior": dict(zip(made.classes, prior, strict=True))}
    fitted = LDA(shrinkage=rho, **shares).fit(made.moments, made.classes).fitted  # type: ignore[arg-type]
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=rho / (1 + rho))
    oracle.fit(made.rows, made.labels)
    # S + ρτI is (1 + ρ) times what scikit-learn makes of S with ρ/(1 + ρ).
    observed = np.bincount(made.labels) / len(made.labels)
    linear = (oracle.decision_function(made.rows) - np.log(observed)) / (1 + rho)
    expected = linear + np.log(observed if prior is None else prior)
    expected += small_class_term(made, fitted)
    np.testing.assert_allclose(scores(fitted, made.rows), expected, rtol=1e-7, atol=1e-8)


def test_standardised_features_may_have_any_scale() -> None:
    made = sample()
    factors = 10.0 ** np.linspace(-2, 3, 7)
    scaled = Moments(
        made.moments.known_gram * np.outer(factors, factors),
        made.moments.cross * factors[:, None],
        made.moments.counts,
    )
    head = LDA(shrinkage=0.3, standardise=True)
    plain, other = (head.fit(m, made.classes).fitted for m in (made.moments, scaled))
    found = scores(other, made.rows * factors)
    np.testing.assert_allclose(found, scores(plain, made.rows), rtol=1e-6, atol=1e-7)
    unlike = LDA(shrinkage=0.3).fit(scaled, made.classes).fitted
    assert not np.allclose(scores(unlike, made.rows * factors), found, atol=0.1)


def test_the_small_class_term_takes_back_the_noise_in_a_mean_of_few_rows() -> None:
    rng = np.random.default_rng(3)
    dim, sizes = 150, (400, 400, 10)
    centres = rng.standard_normal((3, dim)) / np.sqrt(dim) * 3
    labels = np.repeat(np.arange(3), sizes)
    rows = centres[labels] + rng.standard_normal((len(labels), dim))
    targets = one_hot(labels, 3)
    moments = Moments(rows.T @ rows, rows.T @ targets, targets.sum(axis=0))
    fitted = LDA(shrinkage=0.05).fit(moments, ("0", "1", "2")).fitted
    assert fitted.offset is not None
    # What −b is without the noise: half the squared length of the true mean, by the same weights.
    w = fitted.weights[:, 2]
    naive = 0.5 * float(moments.means[:, 2] @ w)
    noise = moments.means[:, 2] - centres[2]
    truth = naive - 0.5 * float(noise @ w)
    assert abs(float(fitted.offset[2]) - truth) < 0.35 * abs(naive - truth)


def test_the_shrinkage_is_the_geometric_middle_of_those_as_good_as_the_best() -> None:
    made = sample((40, 30, 25), dim=30, spread=1.3)
    fit = LDA().fit(made.moments, made.classes)
    best = min(point.estimate for point in fit.curve)
    good = [point.value for point in fit.curve if point.estimate <= best + 5e-4]
    assert fit.fitted.value == pytest.approx(np.sqrt(good[0] * good[-1]))
    again = LDA().fit(made.moments, made.classes)
    assert np.array_equal(again.fitted.weights, fit.fitted.weights)
    assert again.fitted.temperature == fit.fitted.temperature
    given = LDA(shrinkage=fit.fitted.value).fit(made.moments, made.classes)
    assert np.array_equal(given.fitted.weights, fit.fitted.weights)
    assert given.curve == ()


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32), st.sampled_from(["observed", "uniform", "given"]), st.booleans())
def test_the_order_of_the_classes_changes_not_a_bit(
    seed: int, kind: str, standardise: bool
) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 30, int(rng.integers(2, 6)))
    if seed % 2:
        sizes[:] = 20  # classes that only their rows tell apart
    made = sample(tuple(map(int, sizes)), dim=8, spread=1.5, seed=seed, empty=seed % 3)
    names = made.classes
    order = rng.permutation(len(names))
    shares = dict(zip(names, rng.uniform(0.1, 1, len(names)).tolist(), strict=True))
    head = LDA(prior=shares if kind == "given" else kind, standardise=standardise)  # type: ignore[arg-type]
    statistics = made.moments
    assert statistics.counts is not None
    other = Moments(statistics.gram, statistics.cross[:, order], statistics.counts[order])
    fit, again = head.fit(statistics, names), head.fit(other, tuple(names[p] for p in order))
    one, two = fit.fitted, again.fitted
    assert (two.value, two.temperature) == (one.value, one.temperature)
    assert again.curve == fit.curve
    assert one.offset is not None
    assert one.prior is not None
    assert two.offset is not None
    assert two.prior is not None
    assert np.array_equal(two.weights, one.weights[:, order])
    assert np.array_equal(two.offset, one.offset[order])
    assert np.array_equal(two.prior, one.prior[order])


def test_classes_that_are_equal_in_all_get_equal_weights() -> None:
    made = sample((20, 20, 20))
    moments = made.moments
    assert moments.counts is not None
    places = np.array([0, 1, 1])
    gram = moments.known_gram
    twins = Moments(gram, moments.cross[:, places], moments.counts[places])
    fitted = LDA(shrinkage=1.0).fit(twins, ("a", "b", "c")).fitted
    np.testing.assert_allclose(fitted.weights[:, 1], fitted.weights[:, 2], rtol=1e-12)


def test_the_estimate_ranks_shrinkages_as_new_rows_do() -> None:
    rng = np.random.default_rng(0)
    dim = 60
    centres = 0.35 * rng.standard_normal((4, dim))
    factor = rng.standard_normal((dim, dim)) / np.sqrt(dim)

    def drawn(n: int) -> tuple[Floats, Integers]:
        labels = rng.integers(0, 4, n)
        return centres[labels] + rng.standard_normal((n, dim)) @ factor, labels

    rows, labels = drawn(160)
    targets = one_hot(labels, 4)
    moments = Moments(rows.T @ rows, rows.T @ targets, targets.sum(axis=0))
    new, truth = drawn(20_000)
    classes = ("0", "1", "2", "3")

    def accuracy(head: LDA) -> float:
        fitted = head.fit(moments, classes).fitted
        return float((scores(fitted, new).argmax(axis=1) == truth).mean())

    by_grid = [accuracy(LDA(shrinkage=float(rho))) for rho in 10.0 ** np.arange(-3, 2.1, 0.5)]
    assert accuracy(LDA()) > max(by_grid) - 0.02
    assert max(by_grid) - min(by_grid) > 0.05


def test_the_temperature_makes_log_odds_of_scores() -> None:
    rng = np.random.default_rng(1)
    dim = 40
    centres = 0.5 * rng.standard_normal((3, dim))

    def drawn(n: int) -> tuple[Floats, Integers]:
        labels = rng.integers(0, 3, n)
        return centres[labels] + rng.standard_normal((n, dim)), labels

    rows, labels = drawn(90)
    targets = one_hot(labels, 3)
    moments = Moments(rows.T @ rows, rows.T @ targets, targets.sum(axis=0))
    fitted = LDA(shrinkage=0.05).fit(moments, ("0", "1", "2")).fitted
    new, truth = drawn(5000)
    found = scores(fitted, new)

    def loss(temperature: float) -> float:
        return float(-log_softmax(found / temperature, axis=1)[np.arange(5000), truth].mean())

    assert fitted.temperature is not None
    assert fitted.temperature > 1.2
    assert loss(fitted.temperature) < 0.8 * loss(1.0)
    best = min(loss(float(t)) for t in np.geomspace(0.5, 20, 60))
    assert loss(fitted.temperature) < 1.1 * best


def test_far_apart_classes_sharpen_nothing() -> None:
    made = sample((40, 40), spread=0.01)
    assert LDA().fit(made.moments, made.classes).fitted.temperature == 1.0


def test_a_class_without_rows_is_never_predicted() -> None:
    made = sample(empty=2)
    for prior in ("observed", "uniform"):
        fitted = LDA(prior=prior).fit(made.moments, made.classes).fitted
        assert fitted.offset is not None
        assert np.isposinf(fitted.offset[3:]).all()
        assert not fitted.weights[:, 3:].any()
        found = scores(fitted, made.rows)
        assert np.isfinite(found[:, :3]).all()
        assert (found.argmax(axis=1) < 3).all()


def test_a_prior_favours_its_classes() -> None:
    made = sample(spread=1.5)
    shares = {"0": 0.05, "1": 0.9, "2": 0.05}
    plain = LDA(shrinkage=0.1, prior="uniform").fit(made.moments, made.classes).fitted
    tilted = LDA(shrinkage=0.1, prior=shares).fit(made.moments, made.classes).fitted  # type: ignore[arg-type]
    assert np.array_equal(plain.weights, tilted.weights)
    assert tilted.prior is not None
    np.testing.assert_allclose(tilted.prior, [0.05, 0.9, 0.05])
    ones = [(scores(f, made.rows).argmax(axis=1) == 1).sum() for f in (plain, tilted)]
    assert ones[1] > ones[0] + 5


def test_classes_are_only_names() -> None:
    made = sample()
    order = np.array([2, 0, 1])
    turned = Moments(
        made.moments.gram, made.moments.cross[:, order], made.moments.known_counts[order]
    )
    plain, other = (LDA(shrinkage=0.2).fit(m, made.classes).fitted for m in (made.moments, turned))
    np.testing.assert_allclose(other.weights, plain.weights[:, order], rtol=1e-9, atol=1e-12)


def test_what_lda_cannot_be_fitted_to_is_refused() -> None:
    _, _, moments = sample((1, 1, 1))
    with pytest.raises(TooFewRows, match="more rows than classes"):
        LDA().fit(moments, ("0", "1", "2"))
    rows = np.eye(4)[[0, 0, 1, 1, 1]]
    same = Moments.of(Statistics.of(rows, np.array([0, 0, 1, 1, 1]), 2, Quantiser(8)), Quantiser(8))
    with pytest.raises(TooFewRows, match="do not differ"):
        LDA().fit(same, ("0", "1"))
    with pytest.raises(ConfigError, match=r"singular to working precision.*larger --shrinkage"):
        check_conditioning(1e-15, 30, "pass a larger --shrinkage")
    made = sample()
    with pytest.raises(ConfigError, match="no share for class '2'"):
        LDA(prior={"0": 1, "1": 1}).fit(made.moments, made.classes)  # type: ignore[arg-type]
    empty = sample(empty=1)
    with pytest.raises(ConfigError, match="no share for any class that has rows"):
        LDA(prior={"0": 0, "1": 0, "2": 0, "3": 1}).fit(empty.moments, empty.classes)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_shrinkage_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="shrinkage"):
        LDA(shrinkage=value)


def test_fewer_rows_than_dimensions_are_no_obstacle() -> None:
    made = sample((8, 8, 8), dim=80, spread=0.5)
    fitted = LDA().fit(made.moments, made.classes).fitted
    assert (scores(fitted, made.rows).argmax(axis=1) == made.labels).mean() > 0.9
    assert fitted.conditioning > 80 * 2.3e-16
