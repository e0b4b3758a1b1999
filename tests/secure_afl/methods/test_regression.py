"""Regression over one sum equals statsmodels on the pooled rows, whatever carries it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.datasets import load_diabetes

from protocols import Plain
from protocols.protocol import PROTOCOLS, Protocol
from protocols.schemes.additive import Additive
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.rows import ClientData, pooled
from secure_afl.data.columns import Column, Columns
from secure_afl.errors import ConfigError, DataError
from secure_afl.federation.result import Result
from secure_afl.federation.simulation import Federation
from secure_afl.federation.task import Declared, Terms, plan_task
from secure_afl.methods import AFL
from secure_afl.methods.evaluated import evaluated
from secure_afl.methods.regression import Regression, RegressionPublic
from secure_afl.methods.regression_model import RegressionModel
from tests.kit.tables import (
    columns_of,
    ordinary,
    quantised,
    table_client,
    table_clients,
    table_task,
)


def diabetes() -> tuple[Floats, Floats]:
    data = load_diabetes(scaled=False)
    return data.data, data.target


def drawn(rows: int, dim: int, seed: int = 0, noise: float = 1.0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, dim)) @ rng.standard_normal((dim, dim))
    return values, values @ rng.standard_normal(dim) + noise * rng.standard_normal(rows) + 3


def badly_scaled() -> tuple[Floats, Floats]:
    """Large means beside small deviations, and units of all sizes."""
    rng = np.random.default_rng(5)
    values = 1e6 + rng.standard_normal((200, 4)) * [1e-3, 1.0, 1e3, 1e5]
    return values, 1e8 + (values - 1e6) @ [2e3, 1.0, 1e-3, 1e-5] + rng.standard_normal(200)


TABLES = {
    "diabetes": diabetes(),
    "one column": drawn(30, 1),
    "wide": drawn(400, 20, 1),
    "rows close to columns": drawn(9, 6, 2),
    "a perfect fit nearly": drawn(100, 3, 3, 1e-9),
    "badly scaled": badly_scaled(),
}


def run(
    values: Floats,
    target: Floats,
    method: Regression | None = None,
    protocol: Protocol | None = None,
    columns: Columns | None = None,
    sites: int = 3,
) -> tuple[Result, ClientData]:
    columns = columns or columns_of(values, target)
    clients = table_clients(columns, values, target, sites)
    federation = Federation(
        method or Regression(), protocol or Plain(), row_mode="columns", columns=columns
    )
    return federation.run(clients, classes=("y",)), pooled(clients)


@pytest.mark.parametrize("name", TABLES)
def test_it_is_statsmodels_on_the_rows_that_the_integers_stand_for(name: str) -> None:
    result, rows = run(*TABLES[name])
    assert result.report.exact
    assert isinstance(result.public, RegressionPublic)
    fit = result.public.fit
    assert fit is not None
    task = result.public.task
    columns = task.columns
    assert columns is not None
    assert columns.target is not None
    assert rows.targets is not None
    # Floats cannot hold large means beside small deviations, and statsmodels drops what is small
    # beside other columns: it gets deviations from the centres, in halves of the ranges.
    values = task.quantiser.integers(rows.features) / task.quantiser.end(task.feature_dim)
    target = np.rint(rows.targets * 4096) / 4096 * columns.target.half
    middle = values.mean(axis=0)
    theirs = ordinary(values - middle, target)
    own = columns.halves
    assert_allclose(fit.estimates[1:] * own, theirs.params[1:], rtol=1e-9)
    assert_allclose(fit.errors[1:] * own, theirs.bse[1:], rtol=1e-9)
    assert_allclose(fit.statistics[1:], theirs.tvalues[1:], rtol=1e-8)
    assert_allclose(fit.p[1:], theirs.pvalues[1:], rtol=1e-7, atol=1e-300)
    ends = np.stack([fit.low, fit.high], 1)[1:] * own[:, None]
    assert_allclose(ends, theirs.conf_int()[1:], rtol=1e-8)
    figures = dict(fit.figures)
    assert_allclose(figures["r_squared"], theirs.rsquared, rtol=1e-9)
    assert_allclose(figures["adjusted_r_squared"], theirs.rsquared_adj, rtol=1e-9)
    assert_allclose(figures["residual_deviance"], theirs.ssr, rtol=1e-8)
    assert_allclose(figures["residual_standard_error"], np.sqrt(theirs.scale), rtol=1e-8)
    assert_allclose(figures["f_statistic"], theirs.fvalue, rtol=1e-8)
    assert_allclose(figures["f_p"], theirs.f_pvalue, rtol=1e-6, atol=1e-300)
    assert (figures["rows"], figures["df"]) == (theirs.nobs, theirs.df_resid)
    # The intercept is at 0 in own units, and its error that of the prediction there.
    zero = -columns.centres / own - middle
    at_zero = theirs.get_prediction(np.append(1.0, zero)).summary_frame(0.05)
    scale = np.abs(theirs.params[1:] * zero).sum() + abs(columns.target.centre)
    assert abs(fit.estimates[0] - columns.target.centre - at_zero["mean"][0]) < 1e-12 * scale
    assert_allclose(fit.errors[0], at_zero["mean_se"][0], rtol=1e-8)


@pytest.mark.parametrize("name", TABLES)
def test_rounding_moves_coefficients_no_more_than_its_bound(name: str) -> None:
    values, target = TABLES[name]
    result, _ = run(values, target)
    assert isinstance(result.public, RegressionPublic)
    fit = result.public.fit
    assert fit is not None
    middle, spread = values.mean(axis=0), values.std(axis=0)
    theirs = ordinary((values - middle) / spread, target - target.mean())
    slopes = theirs.params[1:] / spread
    exact = np.append(target.mean() - slopes @ middle, slopes)
    moved = np.abs(fit.estimates - exact)
    assert (moved <= fit.rounding * (1 + 1e-9)).all()
    assert (moved > 0).all()


@pytest.mark.parametrize("protocol", [*PROTOCOLS, "additive 3"])
def test_every_protocol_carries_it_exactly(protocol: str) -> None:
    made = Additive(3) if protocol == "additive 3" else PROTOCOLS[protocol]()
    result, _ = run(*TABLES["one column"], protocol=made)
    assert result.report.exact
    expected, _ = run(*TABLES["one column"])
    assert result.report.fits == expected.report.fits
    assert result.report.rounds == 1


def test_columns_of_combinations_are_left_out_and_named() -> None:
    values, target = drawn(60, 3)
    values = np.column_stack([values, np.full(60, 7.0), values[:, 0] + values[:, 1]])
    result, rows = run(values, target)
    (fit,) = result.report.fits
    assert [c.name for c in fit.coefficients if c.estimate is None] == ["c3", "c4"]
    assert "'c3' does not vary" in fit.notes[0]
    assert "'c4' is a combination of 'c0', 'c1'" in fit.notes[1]
    kept, numbers = quantised(result.public.task, rows)
    theirs = ordinary(kept[:, :3], numbers)
    found = [c.estimate for c in fit.coefficients[:4]]
    assert_allclose(np.array(found, dtype=float), theirs.params, rtol=1e-9)
    assert fit.figures["df"] == theirs.df_resid
    ridged, _ = run(values, target, Regression(ridge=0.01))
    assert all(c.estimate is not None for c in ridged.report.fits[0].coefficients)


def test_indicators_of_all_levels_are_a_combination() -> None:
    rng = np.random.default_rng(3)
    levels = np.eye(3)[rng.integers(0, 3, 90)]
    columns = Columns(
        tuple(Column.over(f"level[{name}]", 0, 1) for name in "abc"), Column.over("y", -9, 9)
    )
    result, _ = run(levels, rng.standard_normal(90), columns=columns)
    (fit,) = result.report.fits
    assert fit.coefficients[-1].estimate is None
    assert "'level[c]' is a combination of 'level[a]', 'level[b]'" in fit.notes[0]


@pytest.mark.parametrize("rows", [4, 7])
def test_no_more_rows_than_columns_and_intercept_are_refused_before_any_sum(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Regression, "contribute", None)
    with pytest.raises(ConfigError, match=rf"{rows} rows at most in the sum, for 6 .* ≥ 8"):
        run(*drawn(rows, 6), sites=2)


@pytest.mark.parametrize(("rows", "enough"), [(7, False), (8, True)])
def test_declared_rows_that_are_too_few_are_refused(rows: int, enough: bool) -> None:
    terms = Terms(Regression(), Additive())
    columns = columns_of(*drawn(20, 6))
    declared = Declared(6, ("y",), (("a", 4), ("b", rows - 4)), bytes(32), 2, columns=columns)
    declared = replace(declared, row_mode="columns")
    if enough:
        assert plan_task(terms, declared).total_rows == 8
        return
    with pytest.raises(ConfigError, match=r"7 rows at most in the sum, .* ≥ 8"):
        plan_task(terms, declared)


def test_a_perfect_fit_explains_all() -> None:
    values = np.arange(20.0)[:, None]
    columns = Columns((Column.over("x", -4096, 4096),), Column.over("y", -4096, 4096))
    result, _ = run(values, 2 * values[:, 0] + 5, columns=columns)
    (fit,) = result.report.fits
    assert fit.figures["r_squared"] == 1
    assert fit.coefficients[0].estimate == 5
    assert fit.coefficients[1].estimate == 2


@pytest.mark.parametrize("half", [3.0, 100.0, 1000.0, 8000.0, 1e6])
def test_a_range_far_too_wide_is_never_silent(half: float) -> None:
    rng = np.random.default_rng(4)
    values = rng.uniform(0, 1, (400, 1))
    target = 2 * values[:, 0] + 0.1 * rng.standard_normal(400)
    columns = Columns((Column.over("x", 0, 1),), Column.over("y", -half, half))
    result, _ = run(values, target, columns=columns)
    (fit,) = result.report.fits
    slope, error = fit.coefficients[1].estimate, fit.coefficients[1].error
    assert slope is not None
    assert error is not None
    said = [text for text in result.report.warnings if "declare narrower ones" in text]
    assert set(said) <= set(fit.notes)
    assert bool(said) == (half >= 1000)
    if not said:
        assert abs(slope - 2) < 3 * error
        assert fit.figures["rounding_spread"] < 0.1


@pytest.mark.parametrize("half", [20.0, 2000.0, 4000.0])
def test_a_column_whose_range_is_far_too_wide_is_named(half: float) -> None:
    # Noise is large, so that residuals show nothing; the slope is drawn to 0 all the same.
    rng = np.random.default_rng(0)
    values = np.column_stack([rng.exponential(1, 20000), rng.random(20000) < 0.01])
    target = 0.15 * values[:, 0] + rng.standard_normal(20000)
    columns = Columns(
        (Column.over("x", -half, half), Column.over("rare", 0, 1)), Column.over("y", -6, 7)
    )
    result, _ = run(values, target, columns=columns)
    (fit,) = result.report.fits
    said = [text for text in result.report.warnings if "draws coefficients to 0" in text]
    assert bool(said) == (half > 20)
    assert all("variance of x," in text for text in said)
    assert set(said) <= set(fit.notes)
    assert fit.figures["rounding_spread"] < 0.1


def test_a_target_that_does_not_vary_has_no_r_squared() -> None:
    values, _ = drawn(20, 2)
    result, _ = run(values, np.full(20, 3.0))
    assert "r_squared" not in result.report.fits[0].figures
    assert result.report.fits[0].coefficients[1].estimate == 0


@pytest.mark.parametrize("ridge", [1e-3, 0.1, 10.0])
def test_ridge_is_least_squares_with_more_rows(ridge: float) -> None:
    values, target = TABLES["diabetes"]
    result, rows = run(values, target, Regression(ridge=ridge))
    task = result.public.task
    assert task.columns is not None
    # The penalty is on the features' weights: a row √λ of each, about means.
    integers = task.quantiser.integers(rows.features) / task.quantiser.scale
    _, numbers = quantised(task, rows)
    left = np.vstack([integers - integers.mean(axis=0), np.sqrt(ridge) * np.eye(10)])
    right = np.append(numbers - numbers.mean(), np.zeros(10))
    weights = np.linalg.lstsq(left, right)[0]
    assert_allclose(result.model.weights[:, 0], weights, rtol=1e-9)
    (fit,) = result.report.fits
    assert {c.p for c in fit.coefficients} == {None}
    assert "without that bias" in fit.notes[0]
    # The spread of ridge: σ²H⁻¹GH⁻¹, with the degrees that are left.
    gram = left[:-10].T @ left[:-10]
    inverse = np.linalg.inv(gram + ridge * np.eye(10))
    residual = numbers - numbers.mean() - left[:-10] @ weights
    freedom = len(numbers) - 1 - np.trace(inverse @ gram)
    spread = np.sqrt((inverse @ gram @ inverse).diagonal() * (residual @ residual) / freedom)
    errors = [c.error for c in fit.coefficients[1:]]
    own = spread / task.columns.halves * task.quantiser.end(10) / task.quantiser.scale
    assert_allclose(np.array(errors, dtype=float), own, rtol=1e-8)


def test_without_columns_features_have_names_and_their_own_units() -> None:
    rng = np.random.default_rng(0)
    features = rng.uniform(-0.5, 0.5, (40, 2))
    targets = np.clip(features @ [0.5, -0.25] + 0.1 + 0.01 * rng.standard_normal(40), -1, 1)
    labels = np.zeros(20, dtype=np.int64)
    clients = [ClientData(f"s{i}", features[i::2], labels, targets=targets[i::2]) for i in range(2)]
    result = Federation(Regression(), Plain(), row_mode="clip").run(clients, classes=("y",))
    names = [c.name for c in result.report.fits[0].coefficients]
    assert names == ["(intercept)", "x0", "x1"]
    theirs = ordinary(*quantised(result.public.task, pooled(clients)))
    found = [c.estimate for c in result.report.fits[0].coefficients]
    assert_allclose(np.array(found, dtype=float), theirs.params, rtol=1e-9)
    told = Federation(Regression(), Plain()).run(clients, classes=("y",))
    assert "norm 1" in told.report.fits[0].notes[0]


def test_the_model_predicts_in_own_units_and_survives_the_disk(tmp_path: Path) -> None:
    values, target = TABLES["diabetes"]
    result, _ = run(values, target)
    model = result.model
    assert model.numeric
    estimates = [c.estimate for c in result.report.fits[0].coefficients]
    expected = np.column_stack([np.ones(len(values)), values]) @ np.array(estimates, dtype=float)
    features = columns_of(values, target).features(values)
    assert_allclose(model.scores(features)[:, 0], expected, rtol=1e-9)
    model.save(tmp_path / "model.safetensors", {"method": "regression"})
    again, card = RegressionModel.load(tmp_path / "model.safetensors")
    assert np.array_equal(again.scores(features), model.scores(features))
    assert again.columns == result.public.task.columns
    assert (again.classes, card["method"]) == (("y",), "regression")
    with pytest.raises(DataError, match="predicts a number"):
        model.predict(features)
    with pytest.raises(DataError, match="give the columns"):
        model.scores(features[:, 1:])


def test_it_is_scored_beside_all_rows_in_one_place_and_each_site_alone() -> None:
    values, target = TABLES["diabetes"]
    columns = columns_of(values, target)
    clients = table_clients(columns, values[:340], target[:340], 4)
    test = table_client("test", columns, values[340:], target[340:])
    tiny = table_client("tiny", columns, values[:3], target[:3])
    federation = Federation(Regression(), Plain(), row_mode="columns", columns=columns)
    kept = [table_client("s1", columns, values[400:], target[400:])]
    result = federation.run([*clients, tiny], classes=("y",), test=test, holdout=kept)
    numeric = result.report.numeric
    assert numeric is not None
    assert numeric.federated is not None
    assert numeric.centralised_float is not None
    off = result.model.scores(test.features)[:, 0] - target[340:]
    assert_allclose(numeric.federated.rmse.value, np.sqrt((off**2).mean()), rtol=1e-9)
    theirs = ordinary(np.vstack([values[:340], values[:3]]), np.append(target[:340], target[:3]))
    central = np.column_stack([np.ones(len(values) - 340), values[340:]]) @ theirs.params
    rmse = np.sqrt(((central - target[340:]) ** 2).mean())
    assert_allclose(numeric.centralised_float.rmse.value, rmse, rtol=1e-9)
    assert numeric.largest_difference is not None
    assert 0 < numeric.largest_difference < 1
    assert [site.name for site in numeric.sites] == ["s0", "s1", "s2", "s3", "tiny"]
    assert numeric.sites[-1].fit is None
    alone = numeric.sites[1]
    assert alone.fit is not None
    assert alone.kept_out is not None
    assert alone.federated is not None
    own = ordinary(values[1:340:4], target[1:340:4])
    found = [c.estimate for c in alone.fit.coefficients]
    assert (np.abs(np.array(found, dtype=float) - own.params) < 0.05 * own.bse).all()
    assert result.report.accuracy.federated is None


def test_classes_and_numbers_are_not_mixed_up() -> None:
    values, target = drawn(20, 2)
    columns = columns_of(values, target)
    clients = table_clients(columns, values, target, 2)
    with pytest.raises(DataError, match=r"has targets.*--method regression"):
        Federation(AFL(), Plain(), row_mode="columns", columns=columns).run(clients, classes=("y",))
    bare = [ClientData(c.name, c.features, c.labels) for c in clients]
    with pytest.raises(DataError, match=r"no targets.*predicts a number"):
        Federation(Regression(), Plain(), row_mode="clip").run(bare, classes=("y",))
    with pytest.raises(ConfigError, match="2 classes with regression"):
        Federation(Regression(), Plain(), row_mode="clip").run(clients, classes=("y", "z"))
    with pytest.raises(ConfigError, match="--evaluate counts"):
        evaluated(Regression(), 0.2)


def test_columns_take_rows_as_they_are_and_a_target() -> None:
    values, target = drawn(20, 2)
    columns = columns_of(values, target)
    task = table_task(table_clients(columns, values, target, 2), columns)
    assert Regression().begin(task).fit is None
    clients = table_clients(columns, values, target, 2)
    with pytest.raises(ConfigError, match="row mode 'normalise'"):
        Federation(Regression(), Plain(), columns=columns).run(clients, classes=("y",))
    with pytest.raises(ConfigError, match="no target"):
        Federation(Regression(), Plain(), row_mode="columns", columns=Columns(columns.columns)).run(
            clients, classes=("y",)
        )
