"""Table 1 against pandas on the pooled rows, as they were rounded."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from secure_afl.analytic.components import principal
from secure_afl.analytic.describe import Summary, summarise
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.statistics import Statistics
from secure_afl.analytic.table_noise import correlation_errors, figure_errors
from secure_afl.analytic.table_sums import StepNoise
from secure_afl.data.columns import Column, Columns
from secure_afl.errors import ConfigError

CLASSES = ("well", "ill", "dead")
COLUMNS = Columns(
    (
        Column.over("age", 0, 120, "years"),
        Column.over("bmi", 10, 60, "kg/m²"),
        Column.over("sex[male]", 0, 1),
        Column.over("stage[2]", 0, 1),
        Column.over("stage[3]", 0, 1),
        Column.over("age:sex[male]", 0, 120, derived=True),
        Column.over("creatinine", 0, 1e6, "µmol/l"),
    )
)
RULE = Quantiser(12, "columns")


def make_rows(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, rows, p=[0.6, 0.3, 0.1])
    age = rng.normal(50 + 8 * labels, 12)
    male, stage = rng.random(rows) < 0.4, rng.choice(3, rows, p=[0.5, 0.3, 0.2])
    bmi = rng.normal(25 + 0.05 * age, 3)
    values = np.column_stack(
        [age, bmi, male, stage == 1, stage == 2, age * male, rng.normal(9e5, 4e3, rows)]
    ).astype(float)
    return values, labels.astype(np.int64)


def rounded(values: np.ndarray) -> np.ndarray:
    integers = RULE.integers(COLUMNS.features(values))
    return np.asarray(COLUMNS.values(integers / RULE.steps(integers.shape[1])))


def summary_of(values: np.ndarray, labels: np.ndarray, **settings: object) -> Summary:
    features = COLUMNS.features(values)
    integers = RULE.integers(features).astype(np.int64)
    squares = np.stack([(integers[labels == c] ** 2).sum(axis=0) for c in range(3)], axis=1)
    statistics = Statistics.of(features, labels, 3, RULE)
    return summarise(statistics, COLUMNS, CLASSES, RULE, squares=squares, **settings)  # type: ignore[arg-type]


def test_figures_are_those_of_pandas_on_the_rounded_rows() -> None:
    values, labels = make_rows(700)
    found = summary_of(values, labels)
    frame = pd.DataFrame(rounded(values), columns=COLUMNS.names)
    by_class = frame.groupby(labels)
    figures = found.figures
    numbers = [0, 1, 6]
    np.testing.assert_allclose(figures.mean[numbers], frame.mean().iloc[numbers], rtol=1e-9)
    np.testing.assert_allclose(figures.deviation[numbers], frame.std().iloc[numbers], rtol=1e-9)
    np.testing.assert_allclose(
        figures.means[numbers].T, by_class.mean().iloc[:, numbers], rtol=1e-9
    )
    assert figures.deviations is not None
    np.testing.assert_allclose(
        figures.deviations[numbers].T, by_class.std().iloc[:, numbers], rtol=1e-9
    )
    pooled = np.sqrt(by_class.var().mul(by_class.size() - 1, axis=0).sum() / (len(frame) - 3))
    np.testing.assert_allclose(figures.within[numbers], pooled.iloc[numbers], rtol=1e-9)
    assert figures.rows.tolist() == by_class.size().tolist()
    counted = [2, 3, 4]
    assert figures.ones[counted].tolist() == values[:, counted].sum(axis=0).tolist()
    ones = pd.DataFrame(values).groupby(labels).sum().iloc[:, counted]
    np.testing.assert_array_equal(figures.ones_each[counted].T, ones)
    # An interaction's mean and the count of its indicator would give a subgroup's mean away.
    assert np.isnan(figures.mean[5])
    place = found.correlated
    assert place.tolist() == [0, 1, 2, 3, 4, 6]
    expected = frame.iloc[:, place].corr()
    np.testing.assert_allclose(found.correlations, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(found.shown_correlations, found.correlations)


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("number", ["heaped", "spread"])
@pytest.mark.parametrize("width", [3, 10, 41])
def test_counts_are_right_whatever_the_rows_round_to(width: int, number: str, bits: int) -> None:
    # Only some rows have all entries at ends of ranges. If these alone were rounded otherwise, a
    # count of two would be printed as one that is not small.
    rng = np.random.default_rng([width, bits])
    words = rng.integers(1, width, 2000)
    words[:2] = 0
    values = np.zeros((2000, width))
    values[:, 0] = rng.uniform(0, 60, 2000)
    if number == "heaped":
        values[rng.random(2000) < 0.7, 0] = 0
    for place in range(1, width):
        values[:, place] = words == place - 1
    columns = Columns(
        (
            Column.over("cigarettes", 0, 60),
            *(Column.over(f"code[{place}]", 0, 1) for place in range(1, width)),
        )
    )
    labels, rule = rng.integers(0, 2, 2000), Quantiser(bits, "columns")
    statistics = Statistics.of(columns.features(values), labels, 2, rule)
    found = summarise(statistics, columns, ("no", "yes"), rule)
    assert found.raw.ones[1:].tolist() == values[:, 1:].sum(axis=0).tolist()
    assert np.isnan(found.figures.ones[1]), "two rows are fewer than the least count"
    each = [values[labels == label, 1:].sum(axis=0) for label in (0, 1)]
    np.testing.assert_array_equal(found.raw.ones_each[1:].T, each)


def test_components_are_those_of_the_correlations() -> None:
    values, labels = make_rows(300)
    summary = summary_of(values, labels)
    found = principal(summary, shown=3)
    frame = pd.DataFrame(rounded(values)).iloc[:, summary.correlated]
    standard = ((frame - frame.mean()) / frame.std(ddof=0)).to_numpy()
    spread = np.linalg.svd(standard, compute_uv=False) ** 2 / len(frame)
    np.testing.assert_allclose(found.values, spread, rtol=1e-9)
    assert found.shares.sum() == pytest.approx(1)
    assert found.loadings.shape == (6, 3)
    scores = standard @ found.loadings
    np.testing.assert_allclose(scores.var(axis=0), found.values[:3], rtol=1e-9)
    plain = principal(summary, standardise=False)
    expected = np.linalg.eigvalsh(frame.cov())[::-1]
    np.testing.assert_allclose(plain.values, expected, rtol=1e-7)


def test_nothing_is_printed_that_gives_a_small_class_away() -> None:
    values, labels = make_rows(120)
    labels[labels == 2] = 1
    labels[:3] = 2
    figures = summary_of(values, labels).figures
    # Two are withheld, and whoever subtracts has both together.
    assert np.isnan(figures.rows).tolist() == [False, True, True]
    assert np.isnan(figures.means[:2]).tolist() == [[False, True, True]] * 2
    # What is pooled takes those two for one class: its mean is known anyway.
    frame, merged = pd.DataFrame(rounded(values)), np.minimum(labels, 1)
    by_class = frame.groupby(merged)
    pooled = np.sqrt(by_class.var().mul(by_class.size() - 1, axis=0).sum() / (len(frame) - 2))
    np.testing.assert_allclose(figures.within[:2], pooled.iloc[:2], rtol=1e-9)


def test_a_rare_indicator_is_in_no_file() -> None:
    values, labels = make_rows(200)
    values[:, 2] = np.arange(200) < 4
    found = summary_of(values, labels)
    assert np.isnan(found.figures.ones[2])
    assert 2 not in found.correlated
    values[:, 2] = np.arange(200) >= 4
    assert np.isnan(summary_of(values, labels).figures.ones[2])
    values[:, 2] = np.arange(200) < 40
    values[:, 3], values[:, 4] = np.arange(200) >= 37, 0
    found = summary_of(values, labels)
    place = found.correlated.tolist()
    assert np.isnan(found.shown_correlations[place.index(2), place.index(3)])


def test_a_number_with_two_values_counts_as_an_indicator() -> None:
    values, labels = make_rows(200)
    values[:, 1] = np.where(np.arange(200) < 2, 60.0, 10.0)
    figures = summary_of(values, labels).figures
    assert np.isnan(figures.mean[1])
    assert np.isnan(figures.ones[1])


def described(values: dict[str, np.ndarray], *columns: Column, rows: int = 300) -> Summary:
    """Table 1 of columns in [0, 1], or of these, with two classes dealt out by turns."""
    made = columns or tuple(Column.over(name, 0, 1) for name in values)
    whole = Columns(made)
    table = np.column_stack(list(values.values())).astype(float)
    labels = np.arange(rows) % 2
    statistics = Statistics.of(whole.features(table), labels, 2, RULE)
    return summarise(statistics, whole, ("no", "yes"), RULE)


def test_missing_ones_do_not_give_away_the_category_that_stands_for_them() -> None:
    place = np.random.default_rng(0).permutation(300)
    missing, former = place < 20, place < 21
    found = described(
        {"smoke[current]": place >= 221, "smoke[former]": former, "smoke[missing]": missing}
    )
    ones = found.figures.ones
    # 21 less 20 would be the one who has stopped.
    assert np.isnan(ones).tolist() == [False, True, False]
    assert np.isnan(found.figures.ones_each[1]).all()


def test_a_number_that_a_few_rows_make_up_is_not_printed() -> None:
    dose, age = np.zeros(300), np.random.default_rng(0).uniform(20, 80, 300)
    dose[[17, 40]] = 37.5, 12.0
    columns = Column.over("dose", 0, 100), Column.over("age", 0, 100)
    found = described({"dose": dose, "age": age}, *columns)
    figures = found.figures
    assert np.isnan([figures.mean[0], figures.deviation[0], figures.within[0]]).all()
    assert np.isnan(figures.means[0]).all()
    assert figures.mean[1] == pytest.approx(age.mean(), abs=0.02)
    # A correlation would be the age of these two.
    assert found.correlated.tolist() == [1]
    dose[:60] = 10.0
    assert not np.isnan(described({"dose": dose, "age": age}, *columns).figures.mean[0])


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_counts_of_three_values_do_not_follow_from_mean_and_deviation(low: float) -> None:
    stage = np.full(300, low)
    stage[:40] += 1
    column = Column.over("stage", low, low + 2)
    stage[40:42] += 2
    assert np.isnan(described({"stage": stage}, column).figures.mean[0])
    stage[40:60] = low + 2
    assert described({"stage": stage}, column).figures.mean[0] == pytest.approx(stage.mean())


def test_what_stands_for_missing_numbers_does_not_give_the_few_others_away() -> None:
    lab, missing = np.full(300, 40.0), np.ones(300)
    lab[7], missing[7] = 87.0, 0.0
    columns = Column.over("lab", 0, 100), Column.over("lab[missing]", 0, 1, indicator=True)
    figures = described({"lab": lab, "lab[missing]": missing}, *columns).figures
    assert np.isnan([figures.mean[0], figures.deviation[0], figures.within[0]]).all()
    assert np.isnan(figures.means[0]).all()
    # In one class alone.
    lab[1::4], missing[1::4] = 30.0, 0.0
    lab[7], missing[7] = 40.0, 1.0
    lab[2], missing[2] = 87.0, 0.0
    figures = described({"lab": lab, "lab[missing]": missing}, *columns).figures
    assert not np.isnan(figures.mean[0])
    assert np.isnan(figures.means[0]).all()
    assert np.isnan(figures.within[0])


@pytest.mark.parametrize("squares", [False, True])
def test_one_of_a_class_follows_from_no_mean_by_class(squares: bool) -> None:
    dose = np.zeros(300)
    dose[::2] = np.random.default_rng(0).uniform(5, 60, 150)  # class "no"
    dose[7] = 73.0  # class "yes"
    columns = Columns((Column.over("dose", 0, 100),))
    features, labels = columns.features(dose[:, None]), np.arange(300) % 2
    integers = RULE.integers(features).astype(np.int64)
    each = np.stack([(integers[labels == c] ** 2).sum(axis=0) for c in (0, 1)], axis=1)
    found = summarise(
        Statistics.of(features, labels, 2, RULE),
        columns,
        ("no", "yes"),
        RULE,
        squares=each if squares else None,
    )
    assert np.isnan(found.figures.means).all()
    assert np.isnan(found.figures.within).all()
    assert not np.isnan(found.figures.mean[0])
    assert not np.isnan(found.figures.deviation[0])


def test_a_heap_at_zero_is_found_in_the_middle_of_a_range() -> None:
    dose = np.zeros(300)
    dose[[3, 8]] = 112.0, 73.0
    for half in (200.0, 1024.0):
        column = Column.over("dose", -half, half)
        assert np.isnan(described({"dose": dose}, column).figures.mean[0])
    dose += np.random.default_rng(0).normal(0, 60, 300)
    figures = described({"dose": dose}, Column.over("dose", -256, 256)).figures
    assert figures.mean[0] == pytest.approx(dose.mean(), abs=0.1)


def test_a_number_is_no_indicator_by_its_name() -> None:
    share = np.random.default_rng(0).uniform(0.2, 0.8, 300)
    found = described({"frac[x]": share})
    assert not found.hidden.indicators[0]
    assert found.figures.mean[0] == pytest.approx(share.mean(), abs=1e-3)


def test_what_is_made_of_other_columns_is_left_out() -> None:
    values = np.random.default_rng(0).uniform(0, 1, 300)
    columns = Column.over("time:s", 0, 1), Column.over("time:s^2", 0, 1, derived=True)
    found = described({"x": values, "y": values**2}, *columns)
    assert np.isnan(found.figures.mean).tolist() == [False, True]
    assert found.correlated.tolist() == [0]


def test_correlations_with_others_do_not_show_those_with_the_first_category() -> None:
    group, ill = np.arange(300) // 100, np.zeros(300)
    ill[0] = 1  # of the first group, which has no column
    ill[100:120] = ill[200:220] = 1
    found = described({"a[2]": group == 1, "a[3]": group == 2, "b[yes]": ill})
    shown = found.shown_correlations
    assert np.isnan(shown[:2, 2]).all()
    assert shown[0, 1] == pytest.approx(-0.5)
    ill[:20] = 1
    found = described({"a[2]": group == 1, "a[3]": group == 2, "b[yes]": ill})
    assert not np.isnan(found.shown_correlations).any()


def test_few_rows_are_not_printed_at_all() -> None:
    values, labels = make_rows(4)
    figures = summary_of(values, labels).figures
    assert np.isnan(figures.total)
    for array in (figures.mean, figures.means, figures.within, figures.ones, figures.rows):
        assert np.isnan(array).all()
    with pytest.raises(ConfigError, match="least count is 0"):
        summary_of(values, labels, least=0)
    with pytest.raises(ConfigError, match="a table of 1 rows"):
        summary_of(values[:1], labels[:1])
    with pytest.raises(ConfigError, match="rows of mode 'normalise'"):
        summarise(Statistics.of(values, labels, 3, RULE), COLUMNS, CLASSES, Quantiser(12))


def test_errors_are_those_of_noise_drawn_many_times() -> None:
    values, labels = make_rows(4000)
    values[:, 6] = np.random.default_rng(2).normal(5e5, 1e5, 4000)
    exact = summary_of(values, labels)
    noise = StepNoise(3e6, 2e6, 2e3, 2.0, 8e5)
    rng = np.random.default_rng(4)
    drawn: dict[str, list[np.ndarray]] = {}
    for _ in range(400):
        noisy = with_noise(exact, noise, rng)
        figures = noisy.figures
        parts = {
            "mean": figures.mean[:2],
            "deviation": figures.deviation[:2],
            "within": figures.within[:2],
            "means": figures.means[:2],
            "deviations": np.asarray(figures.deviations)[:2],
            "ones": figures.ones[2:5],
            "rows": figures.rows,
            "correlations": noisy.correlations[:3, :3],
            "values": principal(noisy).values,
        }
        for name, part in parts.items():
            drawn.setdefault(name, []).append(part)
    centre = replace(exact, noise=noise)
    errors, components = figure_errors(centre), principal(centre)
    assert errors is not None
    assert components.errors is not None
    correlated = correlation_errors(centre)
    assert correlated is not None
    said = {
        "mean": errors.mean[:2],
        "deviation": errors.deviation[:2],
        "within": errors.within[:2],
        "means": errors.means[:2],
        "deviations": np.asarray(errors.deviations)[:2],
        "ones": errors.ones[2:5],
        "rows": errors.rows,
        "correlations": correlated[:3, :3],
    }
    for name, expected in said.items():
        np.testing.assert_allclose(
            np.std(drawn[name], axis=0), expected, rtol=0.2, atol=1e-9, err_msg=name
        )
    largest = np.std(drawn["values"], axis=0)[0]
    assert largest == pytest.approx(components.errors[0], rel=0.2)


def with_noise(exact: Summary, noise: StepNoise, rng: np.random.Generator) -> Summary:
    statistics, dim = exact.statistics, len(exact.names)
    upper = np.triu(rng.normal(0, noise.upper, (dim, dim)), 1)
    gram = upper + upper.T + np.diag(rng.normal(0, noise.diagonal, dim))
    cross = rng.normal(0, noise.cross, statistics.cross.shape)
    counts = rng.normal(0, noise.counts, statistics.counts.shape)
    assert exact.squares is not None
    squares = exact.squares + np.rint(rng.normal(0, noise.squares, exact.squares.shape))
    noisy = Statistics(
        statistics.gram + np.rint(gram).astype(np.int64),
        statistics.cross + np.rint(cross).astype(np.int64),
        statistics.counts + np.rint(counts).astype(np.int64),
    )
    return replace(exact, statistics=noisy, squares=squares.astype(np.int64), noise=noise)


def test_what_is_printed_is_a_function_of_the_sums_alone() -> None:
    """Other rows of the same sums give the same table: no row is looked at."""
    values, labels = make_rows(60)
    features = COLUMNS.features(values)
    order = np.random.default_rng(1).permutation(60)
    one = Statistics.of(features, labels, 3, RULE)
    parts = [Statistics.of(features[o], labels[o], 3, RULE) for o in np.array_split(order, 3)]
    two = parts[0] + parts[1] + parts[2]
    first, second = (summarise(s, COLUMNS, CLASSES, RULE) for s in (one, two))
    for name in ("mean", "deviation", "within", "means", "ones_each"):
        np.testing.assert_array_equal(getattr(first.figures, name), getattr(second.figures, name))
    np.testing.assert_array_equal(first.correlations, second.correlations)
    assert first.figures.deviations is None
