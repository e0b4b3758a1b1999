"""Logistic regression in blind sums, beside statsmodels and scikit-learn on the same rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from msgspec.structs import replace
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.linear_model import LogisticRegression

from protocols import Additive, Plain
from protocols.codec import decode, encode
from protocols.layout import Integers
from secure_afl.analytic.newton import FINE, Slope, fell
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.data.columns import Column, Columns
from secure_afl.errors import ConfigError, DataError
from secure_afl.federation.result import Result
from secure_afl.federation.simulation import Federation
from secure_afl.methods import Logistic
from secure_afl.methods.evaluated import EvaluatedPublic, evaluated
from secure_afl.methods.logistic import LogisticPublic
from secure_afl.methods.memory import settle
from secure_afl.methods.odds import LogisticFit
from secure_afl.privacy.mechanism import Privacy
from tests.kit.samples import make_clients, make_task

BITS = 12


def columns_of(values: Floats) -> Columns:
    """Public ranges somewhat wider than the values."""
    reach = np.ptp(values, axis=0) + 1e-6
    low, high = values.min(axis=0) - 0.1 * reach, values.max(axis=0) + 0.2 * reach
    return Columns(
        tuple(
            Column.over(f"x{i}", float(a), float(b))
            for i, (a, b) in enumerate(zip(low, high, strict=True))
        )
    )


def federated(
    values: Floats, labels: Integers, method: Any = None, classes: int = 2, sites: int = 3
) -> tuple[Result, Floats]:
    """Run over clients of these rows; and return the rows, in own units, as they were rounded."""
    columns = columns_of(values)
    rows = columns.features(values)
    clients = [
        ClientData(f"c{i}", rows[i::sites], labels[i::sites].astype(np.int64)) for i in range(sites)
    ]
    names = tuple("abcdef"[:classes])
    federation = Federation(method or Logistic(), Plain(), columns=columns, row_mode="columns")
    result = federation.run(clients, classes=names)
    quantiser = Quantiser(BITS, "columns")
    integers = quantiser.integers(rows)
    assert result.report.feature_bits == BITS
    assert result.report.exact
    return result, columns.values(integers / quantiser.steps(rows.shape[1]))


def estimates(result: Result) -> tuple[Floats, Floats]:
    """Coefficients and errors, (p, K)."""
    tables = [fit.coefficients for fit in result.report.fits]
    assert all(c.estimate is not None and c.error is not None for t in tables for c in t)
    found = [[(c.estimate, c.error) for c in table] for table in tables]
    whole = np.array(found, dtype=float).transpose(2, 1, 0)
    return whole[0], whole[1]


def made(rows: int, weights: Sequence[float], intercept: float, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    values = rng.normal(50, 10, (rows, len(weights)))
    odds = intercept + (values - 50) / 10 @ np.array(weights)
    return values, (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.int64)


def test_it_is_what_statsmodels_makes_of_the_same_rows() -> None:
    data = load_breast_cancer()
    values = data.data[:, [0, 1, 4, 8]]
    result, rounded = federated(values, data.target)
    theirs = sm.Logit(data.target, sm.add_constant(rounded)).fit(disp=0, tol=1e-12, maxiter=50)
    ours, errors = estimates(result)
    off = np.abs(ours[:, 0] - theirs.params) / theirs.bse
    (fit,) = result.report.fits
    assert off.max() < 5e-5
    assert off.max() < fit.figures["rounding_in_errors"] < 1e-3
    np.testing.assert_allclose(errors[:, 0], theirs.bse, rtol=1e-4)
    assert (fit.family, fit.outcome) == ("logistic", "b")
    found = np.array([(c.statistic, c.low, c.high) for c in fit.coefficients], dtype=np.float64)
    np.testing.assert_allclose(found[:, 0], theirs.tvalues, rtol=1e-4)
    np.testing.assert_allclose(found[:, 1:], theirs.conf_int(), rtol=1e-4)
    assert fit.figures["rows"] == 569
    assert fit.figures["log_likelihood"] == pytest.approx(theirs.llf, abs=1e-4)
    assert fit.figures["pseudo_r_squared"] == pytest.approx(theirs.prsquared, abs=1e-6)
    assert result.report.rounds < Logistic().rounds
    assert not any("converged" in said for said in result.report.warnings)
    # The model scores rows of features as the coefficients score rows in own units.
    scores = sm.add_constant(rounded) @ ours[:, 0]
    integers = (rounded - columns_of(values).centres) / columns_of(values).halves / 2
    shares = result.model.probabilities(integers)
    np.testing.assert_allclose(shares[:, 1], 1 / (1 + np.exp(-scores)), atol=1e-5)


def test_many_classes_are_what_statsmodels_makes_of_them() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(0, 2, (900, 3))
    odds = np.stack([np.zeros(900), 0.5 + values[:, 0], values @ [0.3, -0.5, 0.2]], axis=1)
    labels = (odds + rng.gumbel(size=odds.shape)).argmax(axis=1)
    result, rounded = federated(values, labels, classes=3)
    theirs = sm.MNLogit(labels, sm.add_constant(rounded)).fit(disp=0, tol=1e-12, method="newton")
    ours, errors = estimates(result)
    assert (np.abs(ours - theirs.params) / theirs.bse).max() < 5e-5
    np.testing.assert_allclose(errors, theirs.bse, rtol=1e-4)
    assert [fit.outcome for fit in result.report.fits] == ["b", "c"]


@pytest.mark.parametrize("load", [load_iris, load_wine], ids=("iris", "wine"))
def test_with_a_penalty_it_is_what_scikit_learn_makes_of_the_same_rows(load: Any) -> None:
    data = load()
    result, _ = federated(data.data, data.target, Logistic(penalty=0.5, rounds=20), classes=3)
    rows = columns_of(data.data).features(data.data)
    rows = Quantiser(BITS, "columns").integers(rows) / 2**BITS
    theirs = LogisticRegression(C=2.0, tol=1e-10, max_iter=10000).fit(rows, data.target)
    weights = result.model.weights
    weights = weights - weights.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(weights, theirs.coef_.T, atol=1e-4)
    assert any("drawn to 0" in said for said in result.report.warnings)


def test_the_reference_does_not_matter_to_a_penalised_model() -> None:
    data = load_iris()
    turned = (data.target + 1) % 3
    method = Logistic(penalty=0.5, rounds=20)
    one, _ = federated(data.data, data.target, method, classes=3)
    other, _ = federated(data.data, turned, method, classes=3)
    rows = columns_of(data.data).features(data.data)
    np.testing.assert_allclose(
        one.model.probabilities(rows), other.model.probabilities(rows)[:, [1, 2, 0]], atol=1e-6
    )


def test_known_coefficients_of_a_rare_class_are_found() -> None:
    values, labels = made(20000, [0.8, -0.5], -5.0)
    assert 0.005 < labels.mean() < 0.02
    result, rounded = federated(values, labels)
    theirs = sm.Logit(labels, sm.add_constant(rounded)).fit(disp=0, tol=1e-12, maxiter=50)
    ours, errors = estimates(result)
    assert (np.abs(ours[:, 0] - theirs.params) / theirs.bse).max() < 1e-4
    truth = np.array([-5.0 - 4.0 + 2.5, 0.08, -0.05])
    assert (np.abs(ours[:, 0] - truth) / errors[:, 0]).max() < 4
    assert any("converge" not in fit.notes[0] for fit in result.report.fits)


def test_sums_are_those_of_the_pooled_rows_over_protocols_bit_for_bit() -> None:
    clients = make_clients((60, 30, 50))
    method = Logistic(penalty=0.1)
    several = Federation(method, Additive()).run(clients)
    one = ClientData(
        "one",
        np.concatenate([c.features for c in clients[:2]]),
        np.concatenate([c.labels for c in clients[:2]]),
    )
    fewer = Federation(method, Additive()).run([one, clients[2]])
    assert several.report.exact
    assert several.report.rounds > 2
    for whole, part in zip(several.rounds, fewer.rounds, strict=True):
        assert np.array_equal(whole.released.total, part.released.total)
    assert np.array_equal(several.model.weights, fewer.model.weights)
    assert several.statistics.rows == 140


def test_separable_classes_are_named_with_the_way_out() -> None:
    values, _ = made(200, [1, 1], 0)
    labels = (values[:, 0] > 50).astype(np.int64)
    result, _ = federated(values, labels)
    assert any("separable" in said and "--penalty" in said for said in result.report.warnings)
    assert any("separable" in note for note in result.report.fits[0].notes)
    settled, _ = federated(values, labels, Logistic(penalty=1.0, rounds=20))
    assert not any("separable" in said for said in settled.report.warnings)


@pytest.mark.slow
@pytest.mark.parametrize("several", [1, 40, 1500])
def test_classes_that_are_separable_in_part_do_not_pass_for_converged(several: int) -> None:
    values, labels = made(3000, [0.5, 0.5], 0)
    # Whoever has 80 in the second column is of class 1, whatever the first is.
    values[:several, 1], labels[:several] = 80.0, 1
    values[several:, 1] = 20.0
    for rounds in (30, 50):
        result, _ = federated(values, labels, Logistic(rounds=rounds))
        assert result.report.rounds < 30
        assert any("separable in part" in said for said in result.report.warnings)


def test_too_few_sums_are_said() -> None:
    values, labels = made(300, [1.5, -1.0], -2.0)
    result, _ = federated(values, labels, Logistic(rounds=2))
    assert result.report.rounds == 2
    assert any("Not converged" in said and "--rounds" in said for said in result.report.warnings)


def test_a_step_too_long_is_shortened() -> None:
    # Few rows far out make the first step overshoot.
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (400, 1))
    values[:4] = 60.0
    labels = (rng.random(400) < 1 / (1 + np.exp(-2 * values[:, 0]))).astype(np.int64)
    labels[0] = 0
    result, rounded = federated(values, labels, Logistic(rounds=40))
    theirs = sm.Logit(labels, sm.add_constant(rounded)).fit(disp=0, tol=1e-12, maxiter=200)
    ours, _ = estimates(result)
    assert (np.abs(ours[:, 0] - theirs.params) / theirs.bse).max() < 1e-3


def test_a_class_without_rows_is_never_predicted_and_said() -> None:
    values, labels = made(300, [1.0, -0.5], 0)
    with_gap, _ = federated(values, 2 * labels + 1, classes=5)
    plain, _ = federated(values, labels)
    np.testing.assert_allclose(estimates(with_gap)[0], estimates(plain)[0], rtol=1e-9)
    assert with_gap.report.fits[0].outcome == "d"
    assert any("No site has rows of a, c, e" in said for said in with_gap.report.warnings)
    rows = columns_of(values).features(values)
    assert set(with_gap.model.predict(rows)) == {1, 3}
    alone, _ = federated(values, np.ones(300, dtype=np.int64))
    assert alone.report.rounds == 1
    assert any("of one class" in said for said in alone.report.warnings)
    assert set(alone.model.predict(rows)) == {1}


def test_a_column_that_others_make_up_is_left_out_and_named() -> None:
    values, labels = made(300, [1.0, -0.5], 0)
    doubled = np.column_stack([values, np.full(300, 3.0), values[:, 0]])
    result, _ = federated(doubled, labels)
    names = [c.name for c in result.report.fits[0].coefficients]
    assert names == ["(intercept)", "x0", "x1"]
    assert any("'x2' does not vary in the sum" in said for said in result.report.warnings)
    assert any("'x3' is a combination of 'x0'" in said for said in result.report.warnings)
    penalised, _ = federated(doubled, labels, Logistic(penalty=0.1))
    assert len(penalised.report.fits[0].coefficients) == 5


@pytest.mark.parametrize("other", ["sum", "unit"])
def test_a_column_that_others_make_up_but_for_rounding_is_left_out(other: str) -> None:
    values, labels = made(500, [0.5, 0.2], -0.5)
    values = values.round(1)
    again = values.sum(axis=1) if other == "sum" else (2.20462 * values[:, 0]).round(2)
    result, _ = federated(np.column_stack([values, again]), labels)
    names = [c.name for c in result.report.fits[0].coefficients]
    assert names == ["(intercept)", "x0", "x1"]
    of = "'x0', 'x1'" if other == "sum" else "'x0'"
    wanted = f"'x2' is a combination of {of}, as far as rounding lets tell"
    assert any(wanted in said and "--penalty" in said for said in result.report.warnings)
    alone, _ = federated(values, labels)
    np.testing.assert_allclose(estimates(result)[0], estimates(alone)[0], atol=0.05)
    assert estimates(result)[1].max() < 1


def test_many_columns_that_are_left_out_are_named_in_one_sentence() -> None:
    values, labels = made(300, [1.0], 0)
    result, _ = federated(np.column_stack([values, np.ones((300, 9))]), labels)
    (said,) = (text for text in result.report.warnings if "do not vary" in text)
    assert "'x1', 'x2'" in said
    assert "--penalty" in said


def of_a_rare_class(rows: int, few: int) -> tuple[Result, Any]:
    """Fit whole numbers of 0 to 100 to a class of a few rows; and what statsmodels makes of it."""
    rng = np.random.default_rng(1)
    values = rng.integers(0, 101, rows).astype(float)
    labels = np.zeros(rows, dtype=np.int64)
    chance = 1 + 0.03 * values
    labels[rng.choice(rows, few, replace=False, p=chance / chance.sum())] = 1
    columns = Columns((Column.over("x", 0, 100),))
    features = columns.features(values[:, None])
    clients = [ClientData(f"c{i}", features[i::3], labels[i::3]) for i in range(3)]
    federation = Federation(Logistic(), Plain(), columns=columns, row_mode="columns")
    theirs = sm.Logit(labels, sm.add_constant(values)).fit(disp=0, tol=1e-12, maxiter=50)
    return federation.run(clients, classes=("no", "yes")), theirs


def test_rounding_of_residuals_keeps_no_run_from_converging() -> None:
    result, theirs = of_a_rare_class(30_000, 30)
    assert result.report.rounds < 6
    assert len(result.report.fits[0].notes) == 1
    ours, errors = estimates(result)
    assert (np.abs(ours[:, 0] - theirs.params) / theirs.bse).max() < 0.02
    np.testing.assert_allclose(errors[:, 0], theirs.bse, rtol=0.01)


def test_a_class_too_rare_for_rounded_weights_is_named_and_has_no_errors() -> None:
    result, _ = of_a_rare_class(50_000, 2)
    (fit,) = result.report.fits
    assert all(own.estimate is not None and own.error is None for own in fit.coefficients)
    reference, said = fit.notes
    assert "Wald" not in reference
    assert said.startswith("'yes' has 2 of 50,000 rows. That is too rare")


@pytest.mark.slow
def test_rounding_that_hides_one_error_leaves_the_others() -> None:
    """A category that separates classes has no error; the other columns' are not concerned."""
    values, labels = made(500, [0.7], 0.0)
    group = (labels == 1) & (np.arange(500) % 10 == 0)
    result, _ = federated(np.column_stack([values, group]), labels, Logistic(rounds=12))
    intercept, slope, indicator = result.report.fits[0].coefficients
    alone, _ = federated(values[~group], labels[~group])
    assert slope.error == pytest.approx(estimates(alone)[1][1, 0], rel=0.05)
    assert intercept.error is not None
    assert indicator.error is None
    assert any("these have no errors" in said for said in result.report.warnings)


def test_an_advance_leaves_the_state_it_was_given_alone() -> None:
    values, labels = made(300, [1.5, -1.0], -2.0)
    result, _ = federated(values, labels, Logistic(rounds=2))
    method, before = Logistic(rounds=2), result.rounds[1].public
    assert isinstance(before, LogisticPublic)
    assert before.point is not None
    totals = [round_.released.total for round_ in result.rounds]
    point = before.point.copy()
    first, second = (method.advance(before, totals, ()) for _ in range(2))
    assert first.found is not None
    assert first.found.ended == "rounds"
    assert np.array_equal(before.point, point)
    assert encode(first) == encode(second)


def test_a_small_difference_of_likelihoods_is_judged_by_slopes() -> None:
    point, nothing = np.zeros((1, 1)), np.zeros((1, 1))

    def slope(at: float, value: float, gradient: float) -> Slope:
        return Slope(point + at, value, value, np.array([gradient]), np.ones((1, 1)), nothing)

    before, rows = slope(0.0, -10.0, 1.0), float(FINE)
    assert not fell(before, slope(1.0, -10.5, 0.5), rows)
    assert fell(before, slope(1.0, -10.5, -1.5), rows)
    assert fell(before, slope(1.0, -11.5, 0.5), rows)
    assert not fell(before, slope(1.0, -8.5, -1.5), rows)


def test_it_can_be_evaluated_though_it_ends_early() -> None:
    values, labels = made(400, [1.0, -0.5], 0)
    result, _ = federated(values, labels, evaluated(Logistic(), 0.3))
    pooled = result.report.pooled
    assert pooled is not None
    assert result.report.rounds < 13
    assert result.report.examples is not None
    assert pooled.examples + result.report.examples == 400
    assert result.report.fits[0].figures["rows"] == result.report.examples


def test_no_sum_is_in_a_state_that_clients_see() -> None:
    result, _ = federated(*made(300, [1.0, -0.5], 0))
    fields = ("task", "done", "present", "kept", "point", "best", "best_sum", "found")
    for state in [*(round_.public for round_ in result.rounds), result.public]:
        assert state.broadcast is None
        assert state.__struct_fields__ == fields
        again = decode(encode(state), LogisticPublic)
        assert encode(again) == encode(state)
    assert "weights" in LogisticFit.__struct_fields__


def test_noise_is_refused() -> None:
    with pytest.raises(ConfigError, match="no form for sums with noise"):
        Federation(Logistic(), Additive(), privacy=Privacy(2.0)).run(
            make_clients((20, 30)), classes=("0", "1", "2"), max_rows=64
        )


@pytest.mark.parametrize("field", [{"rounds": 1}, {"rounds": 51}, {"penalty": -1.0}])
def test_settings_out_of_range_are_refused(field: Any) -> None:
    with pytest.raises(ConfigError, match=next(iter(field))):
        Logistic(**field)


def test_a_state_that_is_none_of_the_rounds_is_refused() -> None:
    method, task = Logistic(), make_task(make_clients((20, 30)))
    point, kept, every = np.zeros((7, 2)), tuple(range(7)), (0, 1, 2)
    method.check(LogisticPublic(task, 1, every, kept, point, None, 1), 2)
    bad: list[tuple[LogisticPublic, int]] = [
        (LogisticPublic(task), 2),
        (LogisticPublic(task, 1, every, kept, point, None, 1), 1),
        (LogisticPublic(task, 1, every, kept, point, None, 1), 3),
        (LogisticPublic(task, 1, every, kept, point, None, 2), 2),
        (LogisticPublic(task, 1, (0, 2, 1), kept, point, None, 1), 2),
        (LogisticPublic(task, 1, (0, 1, 3), kept, point, None, 1), 2),
        (LogisticPublic(task, 1, (0, 1), kept, point, None, 1), 2),
        (LogisticPublic(task, 1, every, (1, 2), point, None, 1), 2),
        (LogisticPublic(task, 1, every, (0, 7), point, None, 1), 2),
        (LogisticPublic(task, 1, every, kept, np.zeros((6, 2)), None, 1), 2),
        (LogisticPublic(task, 1, every, kept, point, np.zeros((6, 2)), 1), 2),
    ]
    for value in (np.nan, np.inf, 1e5, 2.0**-17):
        bad.append((LogisticPublic(task, 1, every, kept, np.full((7, 2), value), None, 1), 2))
    for state, round_ in bad:
        with pytest.raises(DataError):
            method.check(state, round_)


def test_a_receiver_may_not_change_classes_or_parameters_between_sums() -> None:
    values, labels = made(300, [1.0, -0.5], 0)
    result, _ = federated(values, labels + (np.arange(300) % 7 == 0), classes=3)
    method = Logistic()
    before, after = (round_.public for round_ in result.rounds[1:3])
    assert isinstance(before, LogisticPublic)
    assert isinstance(after, LogisticPublic)
    method.check_step(before, after)
    for wrong in (replace(after, present=(0, 2)), replace(after, kept=(0, 1))):
        with pytest.raises(DataError, match="other classes or parameters"):
            method.check_step(before, wrong)
    # Whoever has rows of a class that is said to have none knows better.
    columns = columns_of(values)
    data = ClientData("north", columns.features(values), labels)
    lie = replace(before, present=(0, 2), point=np.zeros((3, 1)), best=None)
    method.check(lie, 2)
    memory: dict[str, Any] = {}
    method.contribute(LogisticPublic(before.task), data, memory, b"")
    # Whoever was away does not know; its rows of that class are left out.
    away = dict(memory)
    settle(away, 1, included=False)
    ours = ClientData("north", data.features[labels == 0], labels[labels == 0])
    assert np.array_equal(
        method.contribute(lie, data, away, b""), method.contribute(lie, ours, {}, b"")
    )
    settle(memory, 1, included=True)
    with pytest.raises(DataError, match=r"'north' has rows of class 'b'.*take no part"):
        method.contribute(lie, data, memory, b"")


@pytest.mark.parametrize("kept", [False, True])
def test_a_site_that_missed_the_first_sum_ends_no_run(kept: bool) -> None:
    values, labels = made(400, [1.0, -0.5], 0)
    labels[:20] = 2  # of one site alone, which is away at first
    rows = columns_of(values).features(values)
    bounds = [(0, 100), (100, 200), (200, 300), (300, 400)]
    clients = [ClientData(f"c{a}", rows[a:b], labels[a:b]) for a, b in bounds]
    federation = Federation(
        evaluated(Logistic(), 0.2) if kept else Logistic(),
        Plain(),
        columns=columns_of(values),
        row_mode="columns",
        min_cohort=3,
    )
    report = federation.run(clients, classes=("a", "b", "c"), drop=["c0"]).report
    assert any("No site has rows of c" in said for said in report.warnings)


@pytest.mark.parametrize("half", [20.0, 2000.0, 4000.0])
def test_a_column_whose_range_is_far_too_wide_is_named(half: float) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (20000, 3))
    labels = (rng.random(20000) < 1 / (1 + np.exp(-0.3 * values[:, 0]))).astype(np.int64)
    columns = Columns(
        (Column.over("x", -half, half), *(Column.over(n, -20, 20) for n in ("y", "z")))
    )
    clients = [ClientData(f"c{i}", columns.features(values[i::2]), labels[i::2]) for i in (0, 1)]
    federation = Federation(Logistic(), Plain(), columns=columns, row_mode="columns")
    report = federation.run(clients, classes=("a", "b")).report
    said = [text for text in report.warnings if "draws coefficients to 0" in text]
    assert bool(said) == (half > 20)
    assert all("variance of x," in text for text in said)


def test_rows_of_one_patient_are_not_independent() -> None:
    values, labels = made(300, [1.0, -0.5], 0)
    rows = columns_of(values).features(values)
    whose = [f"p{place // 2}" for place in range(300)]
    clients = [
        ClientData(f"c{i}", rows[i::2], labels[i::2], [f"c{i}{name}" for name in whose[:150]])
        for i in range(2)
    ]
    federation = Federation(Logistic(), Plain(), columns=columns_of(values), row_mode="columns")
    said = federation.run(clients, classes=("a", "b")).report.warnings
    assert any("errors of coefficients take rows for independent" in text for text in said)


def test_a_model_is_evaluated_in_the_round_after_its_own() -> None:
    values, labels = made(400, [1.0, -0.5], 0)
    method = evaluated(Logistic(), 0.3)
    result, _ = federated(values, labels, method)
    last = result.rounds[-1].public
    assert isinstance(last, EvaluatedPublic)
    assert last.evaluating
    method.check(last, result.report.rounds)
    with pytest.raises(DataError, match=r"a fit after \d sums in a run that had 1"):
        method.check(last, 2)


def test_a_point_at_the_end_of_its_range_keeps_every_entry_in_bounds() -> None:
    clients = make_clients((20, 30))
    method, task = Logistic(), make_task(clients)
    point = np.full((7, 2), 4096.0)
    point[:, 1] *= -1
    state = LogisticPublic(task, 1, (0, 1, 2), tuple(range(7)), point, None, 1)
    method.check(state, 2)
    layout = method.layout(state)
    assert layout is not None
    for client in clients:
        vector = method.contribute(state, client, {}, b"")
        for block, entries in layout.split(vector).items():
            least, most = next(b for b in layout.blocks if b.name == block).addend
            assert least <= entries.min() <= entries.max() <= most
