import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from secure_afl.analytic.split import halves_by_patient
from secure_afl.cli.tables import ranged
from secure_afl.errors import ConfigError, DataError
from secure_afl.evaluation.bootstrap import Interval
from secure_afl.evaluation.calibration import calibrate
from secure_afl.evaluation.figures import Figures, measure
from secure_afl.evaluation.models import under_priors
from secure_afl.evaluation.thresholds import predict_at, threshold_at
from secure_afl.methods.model import LinearModel


def drawn(n: int = 300, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    scores = rng.standard_normal((n, classes)) + 1.2 * np.eye(classes)[labels]
    return scores, labels


def value(interval: Interval | None) -> float:
    assert interval is not None
    return interval.value


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_figures_are_those_of_scikit_learn(classes: int) -> None:
    scores, labels = drawn(classes=classes)
    found = measure(scores, labels, [str(c) for c in range(classes)])
    predicted = scores.argmax(axis=1)
    assert value(found.accuracy) == pytest.approx(metrics.accuracy_score(labels, predicted))
    balanced = metrics.balanced_accuracy_score(labels, predicted)
    assert value(found.balanced_accuracy) == pytest.approx(balanced)
    table = metrics.confusion_matrix(labels, predicted)
    assert np.array_equal(found.confusion, table)
    precision, recall, _, support = metrics.precision_recall_fscore_support(labels, predicted)
    for c, figures in enumerate(found.classes):
        assert value(figures.sensitivity) == pytest.approx(recall[c])
        assert value(figures.ppv) == pytest.approx(precision[c])
        assert figures.examples == support[c]
        other_recall = metrics.recall_score(labels != c, predicted != c)
        assert value(figures.specificity) == pytest.approx(other_recall)
        assert value(figures.npv) == pytest.approx(
            metrics.precision_score(labels != c, predicted != c)
        )
        margins = scores[:, c] - np.delete(scores, c, axis=1).max(axis=1)
        assert value(figures.auc) == pytest.approx(metrics.roc_auc_score(labels == c, margins))
    if classes == 2:
        margins = scores[:, 1] - scores[:, 0]
        assert value(found.auc) == pytest.approx(metrics.roc_auc_score(labels, margins))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000))
def test_equal_scores_count_half(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, (40, 2)).astype(float)
    labels = rng.integers(0, 2, 40)
    labels[:2] = 0, 1
    found = measure(scores, labels, ["a", "b"])
    expected = metrics.roc_auc_score(labels, scores[:, 1] - scores[:, 0])
    assert value(found.auc) == pytest.approx(expected)


@pytest.mark.slow
def test_intervals_cover_what_they_are_of() -> None:
    covered = 0
    truth = float((drawn(200_000)[0].argmax(1) == drawn(200_000)[1]).mean())
    for seed in range(40):
        scores, labels = drawn(150, seed=seed + 1)
        accuracy = measure(scores, labels, ["a", "b", "c"]).accuracy
        assert accuracy.low is not None
        assert accuracy.high is not None
        covered += accuracy.low <= truth <= accuracy.high
    assert covered >= 34


def bounds(figure: Interval | None) -> list[float | None]:
    assert figure is not None
    return [figure.low, figure.high]


def test_shares_have_wilson_s_intervals_where_no_patient_has_two_rows() -> None:
    scores, labels = drawn(90)
    found = measure(scores, labels, ["a", "b", "c"])
    predicted = scores.argmax(axis=1)

    def of(hits: np.ndarray) -> list[float | None]:
        test = stats.binomtest(int(hits.sum()), len(hits))
        interval = test.proportion_ci(0.95, method="wilson")
        return [float(interval.low), float(interval.high)]

    assert bounds(found.accuracy) == of(predicted == labels)
    for c, own in enumerate(found.classes):
        assert bounds(own.sensitivity) == of(predicted[labels == c] == c)
        assert bounds(own.specificity) == of(predicted[labels != c] != c)
        assert bounds(own.ppv) == of(labels[predicted == c] == c)
        assert bounds(own.npv) == of(labels[predicted != c] != c)
    names = [f"{i:02}" for i in range(90)]
    alike = measure(scores, labels, ["a", "b", "c"], patients=names)
    assert alike.patients == 90
    assert (alike.accuracy, alike.auc, alike.classes) == (found.accuracy, found.auc, found.classes)


def test_rows_without_an_error_do_not_tell_that_there_is_none() -> None:
    labels = np.repeat([0, 1, 2], [8, 12, 10])
    found = measure(10.0 * np.eye(3)[labels], labels, ["a", "b", "c"])
    assert bounds(found.accuracy) == pytest.approx([0.8865, 1.0], abs=1e-4)
    assert bounds(found.classes[0].sensitivity) == pytest.approx([0.6756, 1.0], abs=1e-4)
    for figure in (found.balanced_accuracy, found.auc, found.classes[0].auc):
        assert (value(figure), *bounds(figure)) == (1.0, None, None)
        assert ranged(figure) == "100.0% (–)"
    # Rows of several patients are no independent trials, and patients have no share to count.
    names = [f"p{i // 2}" for i in range(30)]
    several = measure(10.0 * np.eye(3)[labels], labels, ["a", "b", "c"], patients=names)
    assert several.patients == 15
    for figure in (several.accuracy, several.auc, several.classes[0].ppv):
        assert (value(figure), *bounds(figure)) == (1.0, None, None)


def test_an_interval_of_accuracy_covers_shares_near_one() -> None:
    trials, truth = 60, 0.97
    covered = 0.0
    for wrong in range(8):
        labels = np.zeros(trials, dtype=np.int64)
        scores = np.eye(2)[np.where(np.arange(trials) < wrong, 1, 0)]
        low, high = bounds(measure(scores, labels, ["n", "p"]).accuracy)
        assert low is not None
        assert high is not None
        if low <= truth <= high:
            covered += stats.binom.pmf(wrong, trials, 1 - truth)
    assert covered > 0.95


def test_rows_of_one_patient_stay_together() -> None:
    scores, labels = drawn(60)
    rows = np.repeat(np.arange(60), 9)
    alone = measure(scores, labels, ["a", "b", "c"])
    repeated = measure(
        scores[rows], labels[rows], ["a", "b", "c"], patients=[f"p{i}" for i in rows]
    )
    blind = measure(scores[rows], labels[rows], ["a", "b", "c"])

    def width(found: Figures) -> float:
        assert found.accuracy.high is not None
        assert found.accuracy.low is not None
        return found.accuracy.high - found.accuracy.low

    assert repeated.patients == 60
    assert blind.patients is None
    # Nine copies of a row say no more than the row.
    assert width(repeated) == pytest.approx(width(alone), rel=0.2)
    assert width(blind) < 0.5 * width(alone)


def test_what_is_not_defined_is_null() -> None:
    scores = np.array([[2.0, 1.0, -np.inf], [0.5, 1.0, -np.inf], [3.0, 1.0, -np.inf]])
    found = measure(scores, np.array([0, 1, 0]), ["a", "b", "never"])
    never = found.classes[2]
    assert (never.examples, never.sensitivity, never.ppv, never.auc) == (0, None, None, None)
    assert value(never.specificity) == 1.0
    assert value(found.balanced_accuracy) == 1.0


def test_rows_that_do_not_fit_are_refused() -> None:
    scores, labels = drawn(10)
    with pytest.raises(DataError, match="n ≥ 1"):
        measure(scores[:0], labels[:0], ["a", "b", "c"])
    with pytest.raises(DataError, match="10 labels and 2 classes"):
        measure(scores, labels, ["a", "b"])
    with pytest.raises(DataError, match="3 patients for 10 rows"):
        measure(scores, labels, ["a", "b", "c"], patients=["x"] * 3)


def test_calibration_is_that_of_scikit_learn() -> None:
    scores, labels = drawn()
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    found = calibrate(shares, labels)
    assert found.log_loss == pytest.approx(metrics.log_loss(labels, shares))
    assert found.brier == pytest.approx(((shares - np.eye(3)[labels]) ** 2).sum(axis=1).mean())
    assert sum(part.examples for part in found.bins) == 300
    for part in found.bins:
        assert part.low < part.confidence <= part.high
    sure = calibrate(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]))
    assert sure.ece == pytest.approx(0.5)
    assert sure.log_loss == pytest.approx(-np.log(1e-15) / 2)


@pytest.mark.parametrize("sensitivity", [0.5, 0.9, 0.95, 1.0])
def test_a_threshold_reaches_its_sensitivity_on_the_rows_it_was_chosen_on(
    sensitivity: float,
) -> None:
    scores, labels = drawn()
    threshold = threshold_at(scores, labels, 1, sensitivity)
    predicted = predict_at(scores, 1, threshold)
    assert (predicted[labels == 1] == 1).mean() >= sensitivity
    higher = predict_at(scores, 1, np.nextafter(threshold, np.inf))
    assert (higher[labels == 1] == 1).mean() < sensitivity or sensitivity == 0
    with pytest.raises(ConfigError, match="above 0, at most 1"):
        threshold_at(scores, labels, 1, 0.0)
    with pytest.raises(DataError, match="no rows of this class"):
        threshold_at(scores, np.zeros_like(labels), 1, 0.5)


def test_halves_keep_patients_whole() -> None:
    patients = [f"p{i // 3}" for i in range(50)]
    first, second = halves_by_patient(patients)
    assert sorted([*first, *second]) == list(range(50))
    assert not {patients[i] for i in first} & {patients[i] for i in second}
    again, _ = halves_by_patient(patients)
    assert np.array_equal(first, again)


def test_the_prior_in_use_is_known_by_its_name_but_for_a_last_bit() -> None:
    observed = np.array([0.1, 0.2, 0.7])
    for last in (observed, np.nextafter(observed, 1)):
        model = LinearModel(np.eye(3), ("a", "b", "c"), observed=observed, prior=last)
        assert list(under_priors(model)) == ["observed", "uniform"]
    other = LinearModel(np.eye(3), ("a", "b", "c"), observed=observed, prior=observed[::-1])
    assert list(under_priors(other)) == ["given", "observed", "uniform"]
