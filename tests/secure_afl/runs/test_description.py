"""Table 1 in a run's folder: a function of the released sum alone, and for whom it is."""

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from secure_afl.analytic.describe import summarise
from secure_afl.data.tables.design import make_design, read_design
from secure_afl.data.tables.dictionary import Category, Dictionary, Number, Spec
from secure_afl.data.tables.references import Reference, references
from secure_afl.errors import ConfigError
from secure_afl.federation.result import Result
from secure_afl.runs.description import (
    COMPONENTS,
    CORRELATIONS,
    FILES,
    STAND_INS,
    TABLE,
    Line,
    gram_notes,
    notes,
    rest,
    write_description,
)
from secure_afl.runs.run import run
from secure_afl.runs.saving import REPORT
from secure_afl.runs.settings import make_config
from tests.kit.commands import Command

DICTIONARY = """target = "ill"
[columns.age]
type = "number"
unit = "years"
range = [0, 120]
[columns.bmi]
type = "number"
range = [10, 60]
[columns.sex]
type = "category"
categories = ["female", "male"]
[columns.rare]
type = "category"
categories = ["no", "yes"]
[columns.ill]
type = "category"
categories = ["no", "yes"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    (tmp_path / "dictionary.toml").write_text(DICTIONARY)
    for site in range(3):
        ill = rng.integers(0, 2, 80)
        frame = pd.DataFrame(
            {
                "age": rng.normal(50 + 9 * ill, 10).round(1),
                "bmi": rng.normal(27, 4, 80).round(1),
                "sex": np.where(rng.random(80) < 0.4, "male", "female"),
                "rare": ["yes"] + 79 * ["no"],
                "ill": np.where(ill == 1, "yes", "no"),
            }
        )
        frame.to_csv(tmp_path / f"site_{site}.csv", index=False)
    return tmp_path


def run_tables(folder: Path, **settings: Any) -> Result:
    given = {
        "clients": str(folder / "site_*.csv"),
        "dictionary": str(folder / "dictionary.toml"),
        "out": str(folder / "out"),
    }
    return run(make_config(given | settings))


def test_the_table_is_that_of_the_files(folder: Path) -> None:
    run_tables(folder, squares=True)
    table = pd.read_csv(folder / "out" / TABLE, index_col=["column", "figure"])
    rows = pd.concat(pd.read_csv(folder / f"site_{site}.csv") for site in range(3))
    by_class = rows.groupby("ill")
    for name in ("age", "bmi"):
        mean, deviation = table.loc[name, "mean"], table.loc[name, "deviation"]
        assert float(mean["all"]) == pytest.approx(rows[name].mean(), abs=0.01)
        for kind in ("no", "yes"):
            group = by_class.get_group(kind)[name]
            assert float(mean[kind]) == pytest.approx(group.mean(), abs=0.01)
            assert float(deviation[kind]) == pytest.approx(group.std(), abs=0.01)
    men = table.loc["sex[male]", "count"]
    assert int(men["all"]) == (rows.sex == "male").sum()
    assert int(men["yes"]) == ((rows.sex == "male") & (rows.ill == "yes")).sum()
    # The first category is what the others leave, and withheld where they are.
    women = table.loc["sex[female]", "count"]
    assert int(women["all"]) == (rows.sex == "female").sum()
    assert int(women["yes"]) == ((rows.sex == "female") & (rows.ill == "yes")).sum()
    share = table.loc["sex[female]", "per cent"]
    assert float(share["all"]) == pytest.approx(100 * (rows.sex == "female").mean())
    for name in ("rare[yes]", "rare[no]"):
        assert table.loc[name, "count"][["all", "no", "yes"]].tolist() == ["withheld"] * 3
    assert "rare[yes]" not in (folder / "out" / CORRELATIONS).read_text()
    for name in (CORRELATIONS, COMPONENTS):
        assert stat.S_IMODE((folder / "out" / name).stat().st_mode) == 0o600


def test_what_is_written_is_a_function_of_the_released_sum_alone(folder: Path) -> None:
    """Made again of the total and public terms, and no row, all files are the same bytes."""
    result = run_tables(folder)
    again, task = folder / "again", result.public.task
    again.mkdir()
    total = result.rounds[0].released.total
    assert task.columns is not None
    copy = summarise(result.statistics, task.columns, task.classes, task.quantiser)
    known = references(read_design(folder / "dictionary.toml"))
    assert known == (
        Reference("sex[female]", ("sex[male]",)),
        Reference("rare[no]", ("rare[yes]",)),
    )
    write_description(again, copy, known)
    for name in FILES:
        assert (again / name).read_bytes() == (folder / "out" / name).read_bytes()
    assert total.dtype == np.int64
    # And what everybody may read of the run has none of it.
    report = json.loads((folder / "out" / REPORT).read_text())
    assert not any("correlation" in key or "table" in key for key in report)


def test_a_later_run_takes_the_files_with_it(folder: Path) -> None:
    run_tables(folder)
    run_tables(folder, least_count=2)
    table = pd.read_csv(folder / "out" / TABLE, index_col=["column", "figure"])
    assert int(table.loc["rare[yes]", "count"]["all"]) == 3
    run_tables(folder, method="class-means")
    assert not any((folder / "out" / name).exists() for name in FILES)


def test_noise_stands_beside_every_figure(folder: Path) -> None:
    settings = {"method": "afl", "head": "lda", "epsilon": 8, "max_rows": 128, "squares": True}
    run_tables(folder, **settings)
    table = pd.read_csv(folder / "out" / TABLE, index_col=["column", "figure"])
    noise = table.loc["age", "noise in mean"][["all", "no", "yes"]].astype(float)
    assert (noise > 0).all()
    assert noise["yes"] > noise["all"]
    men, women = (table.loc[f"sex[{sex}]", "noise in count"] for sex in ("male", "female"))
    assert women[["all", "no", "yes"]].tolist() == men[["all", "no", "yes"]].tolist()
    assert "noise" in (folder / "out" / CORRELATIONS).read_text().splitlines()[0]
    # Noisy sums without counts make no table, and the run stands.
    run_tables(folder, **{**settings, "head": "ridge", "squares": False})
    assert not (folder / "out" / TABLE).exists()
    with pytest.raises(ConfigError, match="no effect on a sum without class counts"):
        run_tables(folder, **{**settings, "head": "ridge"})


def with_missing_values(folder: Path) -> pd.DataFrame:
    """Take ages and sexes out of the files, and declare what stands for them; returns all rows."""
    rng = np.random.default_rng(0)
    frames = []
    for path in sorted(folder.glob("site_*.csv")):
        frame = pd.read_csv(path)
        frame.loc[rng.random(len(frame)) < 0.3, "age"] = np.nan
        frame.loc[rng.random(len(frame)) < 0.3, "sex"] = np.nan
        frame.to_csv(path, index=False)
        frames.append(frame)
    text = (folder / "dictionary.toml").read_text()
    for name, kind, stands in (("age", "number", "2"), ("sex", "category", '"male"')):
        head = f'[columns.{name}]\ntype = "{kind}"\n'
        text = text.replace(head, f"{head}missing = {stands}\n")
    (folder / "dictionary.toml").write_text(text)
    return pd.concat(frames)


def test_values_that_stand_for_missing_ones_are_no_observations(
    folder: Path, command: Command
) -> None:
    rows = with_missing_values(folder)
    said = command.well(
        "run", "--clients", folder / "site_*.csv", "--dictionary", folder / "dictionary.toml",
        "--squares", "--out", folder / "out",
    ).out  # fmt: skip
    assert "Figures of age, sex are of the rows that have a value" in said
    assert "a missing value of age, sex counts as the mean of the known ones" in said
    table = pd.read_csv(folder / "out" / TABLE, index_col=["column", "figure"])
    mean, deviation = table.loc["age", "mean"], table.loc["age", "deviation"]
    assert float(mean["all"]) == pytest.approx(rows.age.mean(), abs=0.02)
    assert float(deviation["all"]) == pytest.approx(rows.age.std(), abs=0.02)
    for kind in ("no", "yes"):
        ages = rows.age[rows.ill == kind]
        assert float(mean[kind]) == pytest.approx(ages.mean(), abs=0.02)
        assert float(deviation[kind]) == pytest.approx(ages.std(), abs=0.02)
    for name, sex in (("sex[male]", "male"), ("sex[female]", "female")):
        for kind, own in (("all", rows.sex), ("yes", rows.sex[rows.ill == "yes"])):
            assert int(table.loc[name, "count"][kind]) == (own == sex).sum()
            share = float(table.loc[name, "per cent"][kind])
            assert share == pytest.approx(100 * (own.dropna() == sex).mean())
    assert int(table.loc["sex[missing]", "count"]["all"]) == rows.sex.isna().sum()
    assert not any(figure == STAND_INS for _, figure in table.index)


def test_where_stand_ins_stay_the_table_says_so(folder: Path) -> None:
    with_missing_values(folder)
    settings = {"method": "afl", "head": "lda", "epsilon": 8, "max_rows": 128}
    result = run_tables(folder, **settings)
    table = pd.read_csv(folder / "out" / TABLE, index_col=["column", "figure"])
    for name in ("age", "sex"):
        among = table.loc[name, STAND_INS]
        assert among["all"] == table.loc[f"{name}[missing]", "count"]["all"]
    assert result.summary is not None
    (said,) = (note for note in notes(result.summary) if "not of known values alone" in note)
    assert said.startswith("Figures of age, sex are")
    assert "in noise" in said
    assert any("age, sex counts as the dictionary" in note for note in gram_notes(result.summary))


def test_without_missing_values_the_table_does_not_tell_that_there_are_none(folder: Path) -> None:
    text = (folder / "dictionary.toml").read_text()
    head = '[columns.age]\ntype = "number"\n'
    (folder / "dictionary.toml").write_text(text.replace(head, f"{head}missing = 2\n"))
    result = run_tables(folder)
    table = pd.read_csv(folder / "out" / TABLE, index_col=["column", "figure"])
    assert table.loc["age", STAND_INS]["all"] == "withheld"
    assert table.loc["age", "mean"]["all"] != "withheld"
    assert result.summary is not None
    assert any("rows have none is withheld" in note for note in notes(result.summary))


def test_the_command_prints_it(folder: Path, command: Command) -> None:
    said = command(
        "run",
        "--clients", str(folder / "site_*.csv"),
        "--dictionary", str(folder / "dictionary.toml"),
    ).out  # fmt: skip
    for words in ("Table 1", "age, years: mean", "per cent", "Withheld are counts below 5"):
        assert words in said


def test_the_noise_of_what_is_left_is_that_of_noise_drawn() -> None:
    """Counts are (q + n)/2, with noise q of their own and n of the rows."""
    rng = np.random.default_rng(0)
    own, common = 3.0, 2.0
    rows, each = rng.normal(0, common, 40_000), rng.normal(0, own, (3, 40_000))
    counts = (each + rows) / 2
    lines = [
        Line(name, "", "count", np.array([10.0]), np.array([counts[0].std()])) for name in "abc"
    ]
    left = rest("x", Line("", "", "rows", np.array([100.0]), np.array([rows.std()])), lines)
    assert left.values == [70.0]
    assert left.errors is not None
    assert left.errors[0] == pytest.approx((rows - counts.sum(axis=0)).std(), rel=0.02)


def test_categories_without_a_column_are_first_ones_of_the_model() -> None:
    sex, ill = Category(("f", "m", "x")), Category(("no", "yes"))
    columns: dict[str, Spec] = {"age": Number((0, 99)), "sex": sex, "place": ill, "ill": ill}
    known = Dictionary(columns, "ill")
    assert references(make_design(known, formula="age*sex")) == (
        Reference("sex[f]", ("sex[m]", "sex[x]")),
    )
    assert references(make_design(known, formula="age")) == ()
    assert references(None) == ()
