"""Figures of known values, though others stand for missing ones in the sum."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from secure_afl.analytic.components import principal
from secure_afl.analytic.describe import Summary, summarise
from secure_afl.analytic.known import known_sums, stand_ins
from secure_afl.analytic.quantise import Quantiser
from secure_afl.analytic.statistics import Statistics
from secure_afl.analytic.table_sums import StepNoise
from secure_afl.data.columns import Column, Columns

RULE = Quantiser(12, "columns")
CLASSES = ("well", "ill", "dead")


class Table(NamedTuple):
    """What a hospital knows, NaN and None for what is missing, and what its sum shows."""

    frame: pd.DataFrame
    labels: np.ndarray
    summary: Summary


def table(age: float = 20.0, smoker: str = "current", rows: int = 900, **settings: object) -> Table:
    """Ages and smokers of whom a third is missing, and another number.

    Args:
        age, smoker: stand for missing ones.
    """
    rng = np.random.default_rng(3)
    labels = rng.choice(3, rows, p=[0.5, 0.3, 0.2])
    frame = pd.DataFrame(
        {
            "age": rng.normal(70 - 3 * labels, 8).clip(18, 100),
            "bmi": rng.normal(27, 4, rows).clip(10, 60),
            "smoker": rng.choice(["never", "former", "current"], rows, p=[0.4, 0.3, 0.3]),
        }
    )
    frame.loc[rng.random(rows) < 0.2 + 0.1 * labels, "age"] = np.nan
    frame.loc[rng.random(rows) < 0.4, "smoker"] = None
    return Table(frame, labels, summed(frame, labels, age, smoker, **settings))


def summed(
    frame: pd.DataFrame, labels: np.ndarray, age: float, smoker: str, **settings: object
) -> Summary:
    filled = frame.smoker.fillna(smoker)
    columns = Columns(
        (
            Column.over("age", 0, 100),
            Column.over("bmi", 10, 60),
            Column.over("smoker[former]", 0, 1, indicator=True),
            Column.over("smoker[current]", 0, 1, indicator=True),
            Column.over("age:bmi", 0, 6000, derived=True),
            Column.over("age[missing]", 0, 1, indicator=True),
            Column.over("smoker[missing]", 0, 1, indicator=True),
        )
    )
    whole = frame.age.fillna(age)
    parts = [whole, frame.bmi, filled == "former", filled == "current", whole * frame.bmi]
    values = np.column_stack([*parts, frame.age.isna(), frame.smoker.isna()]).astype(float)
    features = columns.features(values)
    integers = RULE.integers(features).astype(np.int64)
    squares = np.stack([(integers[labels == c] ** 2).sum(axis=0) for c in range(3)], axis=1)
    given = {"squares": squares} | settings
    statistics = Statistics.of(features, labels, 3, RULE)
    return summarise(statistics, columns, CLASSES, RULE, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("age", [0.0, 20.0, 63.7, 100.0])
def test_figures_of_a_number_are_those_of_its_known_values(age: float) -> None:
    frame, labels, summary = table(age)
    figures, known = summary.figures, frame.age.groupby(labels)
    near = 0.02  # rounding moves a value by so much at most
    assert figures.mean[0] == pytest.approx(frame.age.mean(), abs=near)
    assert figures.deviation[0] == pytest.approx(frame.age.std(), abs=near)
    np.testing.assert_allclose(figures.means[0], known.mean(), atol=near)
    assert figures.deviations is not None
    np.testing.assert_allclose(figures.deviations[0], known.std(), atol=near)
    sizes = known.count()
    pooled = np.sqrt((known.var() * (sizes - 1)).sum() / (sizes.sum() - 3))
    assert figures.within[0] == pytest.approx(pooled, abs=near)
    assert figures.known.tolist()[:2] == [frame.age.count(), 900]
    assert figures.known_each[0].tolist() == sizes.tolist()
    # What has no missing values is of all rows.
    assert figures.mean[1] == pytest.approx(frame.bmi.mean(), abs=near)
    assert figures.ones[5] == frame.age.isna().sum()


def test_whatever_stands_for_missing_values_the_figures_are_the_same() -> None:
    first, second = (table(*given).summary for given in ((20.0, "current"), (95.0, "never")))
    for name in ("mean", "deviation", "within", "means", "deviations", "ones", "ones_each"):
        mine, theirs = getattr(first.figures, name), getattr(second.figures, name)
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(first.shown_correlations, second.shown_correlations, atol=1e-9)
    np.testing.assert_allclose(principal(first).values, principal(second).values, atol=1e-9)


@pytest.mark.parametrize("smoker", ["never", "former", "current"])
def test_counts_of_categories_are_those_of_known_rows(smoker: str) -> None:
    frame, labels, summary = table(smoker=smoker)
    figures = summary.figures
    for place, word in ((2, "former"), (3, "current")):
        assert figures.ones[place] == (frame.smoker == word).sum()
        each = (frame.smoker == word).groupby(labels).sum()
        assert figures.ones_each[place].tolist() == each.tolist()
        assert figures.known[place] == frame.smoker.count()
        assert figures.known_each[place].tolist() == frame.smoker.groupby(labels).count().tolist()
    assert figures.ones[6] == frame.smoker.isna().sum()


def test_correlations_take_the_mean_of_the_known_values_for_missing_ones() -> None:
    frame, _, summary = table()
    absent = frame.smoker.isna()
    expected = pd.DataFrame(
        {
            "age": frame.age,
            "bmi": frame.bmi,
            "former": (frame.smoker == "former").astype(float).where(~absent),
            "current": (frame.smoker == "current").astype(float).where(~absent),
            "age[missing]": frame.age.isna().astype(float),
            "smoker[missing]": absent.astype(float),
        }
    )
    expected = expected.fillna(expected.mean()).corr()
    assert summary.correlated.tolist() == [0, 1, 2, 3, 5, 6]
    np.testing.assert_allclose(summary.shown_correlations, expected, atol=2e-3)
    assert summary.shown_correlations[0, 4] == 0.0


def test_where_it_is_withheld_how_many_are_missing_figures_do_not_tell() -> None:
    frame, labels, _ = table()
    frame["age"] = frame.age.fillna(70.0)
    frame.loc[[5, 8, 9], "age"] = np.nan
    summary = summed(frame, labels, 20.0, "current")
    assert np.isnan(summary.figures.ones[5])
    assert {pair.place for pair in summary.known.left} == {0}
    filled = frame.age.fillna(20.0).mean()
    assert summary.figures.mean[0] == pytest.approx(filled, abs=0.02)
    # Of each class it is withheld, and of all rows it is not.
    frame.loc[(labels == 1) & (np.arange(900) < 300), "age"] = np.nan
    summary = summed(frame, labels, 20.0, "current")
    figures = summary.figures
    assert not np.isnan(figures.ones[5])
    assert np.isnan(figures.ones_each[5]).all()
    assert figures.mean[0] == pytest.approx(frame.age.mean(), abs=0.02)
    assert figures.deviation[0] == pytest.approx(frame.age.std(), abs=0.02)
    assert figures.deviations is not None
    for withheld in (figures.means[0], figures.deviations[0], figures.known_each[0]):
        assert np.isnan(withheld).all()
    assert np.isnan(figures.within[0])


def test_few_known_rows_that_differ_are_not_printed() -> None:
    """Beside what stands for missing values they are not few; whoever knows it takes it out."""
    frame, labels, _ = table()
    frame.loc[frame.age.notna(), "age"] = 0.0
    frame.loc[frame.index[frame.age.notna()][:3], "age"] = 50.0
    figures = summed(frame, labels, 20.0, "current").figures
    assert np.isnan([figures.mean[0], figures.deviation[0], figures.within[0]]).all()
    # A number of which no row has a value has no figures.
    frame["age"] = np.nan
    assert np.isnan(summed(frame, labels, 20.0, "current").figures.mean[0])


def test_correlations_show_no_small_count_of_known_rows() -> None:
    frame, labels, _ = table()
    # Who is missing as a smoker was never asked about age, but for two.
    frame["age"] = frame.age.fillna(70.0)
    frame.loc[frame.smoker.isna(), "age"] = np.nan
    frame.loc[frame.index[frame.smoker.isna()][:2], "age"] = 70.0
    summary = summed(frame, labels, 20.0, "current")
    names = [summary.names[place] for place in summary.correlated]
    shown = pd.DataFrame(np.isnan(summary.shown_correlations), names, names)
    assert shown.loc["age[missing]", "smoker[missing]"]
    for word in ("former", "current"):
        assert shown.loc["age", f"smoker[{word}]"]
    assert not shown.loc["age", "bmi"]
    assert not shown.loc["smoker[former]", "smoker[current]"]


def test_in_noise_nothing_is_taken_out() -> None:
    frame, _, summary = table(noise=StepNoise(1.0, 1.0, 1.0, 1.0, 1.0))
    assert summary.known.taken == ()
    assert {pair.place for pair in summary.known.left} == {0, 2, 3}
    assert summary.figures.mean[0] == pytest.approx(frame.age.fillna(20.0).mean(), abs=0.02)


def test_columns_that_only_look_like_a_pair_stay_as_they_are() -> None:
    """A category `a[b]` is none of `a`, whose missing values another stands for."""
    rng = np.random.default_rng(0)
    columns = Columns(
        (
            Column.over("a[2]", 0, 1, indicator=True),
            Column.over("a[b][2]", 0, 1, indicator=True),
            Column.over("a[missing]", 0, 1, indicator=True),
        )
    )
    assert [(pair.place, pair.missing) for pair in stand_ins(columns)] == [(0, 2), (1, 2)]
    missing, other = rng.random(300) < 0.3, rng.random(300) < 0.5
    values = np.column_stack([(rng.random(300) < 0.5) | missing, other, missing]).astype(float)
    statistics = Statistics.of(columns.features(values), np.arange(300) % 2, 2, RULE)
    found = summarise(statistics, columns, ("no", "yes"), RULE)
    known = known_sums(found, np.ones(3, dtype=bool))
    assert [(pair.place, pair.level) for pair in known.taken] == [(0, found.end)]
    assert known.counts[1].sum() == 300
