"""Regression over CSV files, from the command line to predictions in own units."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.kit.commands import Command
from tests.kit.tables import ordinary

DICTIONARY = """
target = "pressure"
[columns.age]
type = "number"
range = [0, 120]
unit = "years"
[columns.sex]
type = "category"
categories = ["female", "male"]
[columns.pressure]
type = "number"
range = [50, 250]
unit = "mmHg"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three hospitals' blood pressures, and a test set."""
    rng = np.random.default_rng(0)
    for name, rows in (("site_0", 90), ("site_1", 70), ("site_2", 80), ("test", 60)):
        age, male = rng.uniform(20, 90, rows).round(1), rng.random(rows) < 0.5
        pressure = (90 + 0.4 * age + 5 * male + rng.normal(0, 8, rows)).round(1)
        sex = np.where(male, "male", "female")
        frame = pd.DataFrame({"age": age, "sex": sex, "pressure": pressure})
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    (tmp_path / "dictionary.toml").write_text(DICTIONARY)
    return tmp_path


def test_a_run_prints_saves_and_predicts(folder: Path, command: Command) -> None:
    arguments = (
        *("run", "--clients", folder / "site_*.csv", "--test", folder / "test.csv"),
        *("--dictionary", folder / "dictionary.toml", "--method", "regression"),
        *("--protocol", "additive"),
    )
    done = command(*arguments, "--out", folder / "out")
    assert done.code == 0
    assert "linear model of pressure [mmHg]" in done.out
    assert "sex[male]" in done.out
    assert "RMSE each client alone" in done.out
    report = json.loads((folder / "out" / "report.json").read_text())
    assert report["exact"]
    frame = pd.concat(pd.read_csv(folder / f"site_{i}.csv") for i in range(3))
    values = np.column_stack([frame.age, frame.sex == "male"])
    theirs = ordinary(values.astype(float), frame.pressure.to_numpy())
    for ours, estimate, error in zip(
        report["fits"][0]["coefficients"], theirs.params, theirs.bse, strict=True
    ):
        assert abs(ours["estimate"] - estimate) < 0.01 * error
        assert ours["error"] == pytest.approx(error, rel=0.01)
    page = (folder / "out" / "report.html").read_text()
    assert "Coefficients: linear model of pressure [mmHg]" in page
    assert "all rows in one place" in page

    predicted = list(
        csv.reader(command("predict", folder / "out", folder / "test.csv").out.splitlines())
    )
    assert predicted[0] == ["example", "pressure"]
    test = pd.read_csv(folder / "test.csv")
    rows = np.column_stack([np.ones(60), test.age, test.sex == "male"]).astype(float)
    numbers = np.array([float(line[1]) for line in predicted[1:]])
    np.testing.assert_allclose(numbers, rows @ theirs.params, atol=0.05)

    rmse = np.sqrt(((numbers - test.pressure) ** 2).mean())
    judged = command("evaluate", folder / "out", folder / "test.csv", "--json", "-")
    assert json.loads(judged.out)["numeric"]["rmse"]["value"] == pytest.approx(rmse, rel=1e-9)
    refused = command(
        "evaluate", folder / "out", folder / "test.csv", "--html", folder / "page.html"
    )
    assert refused.code == 2
    assert "--html has no page" in refused.err

    noisy = command(*arguments, "--epsilon", 4, "--max-rows", 128)
    assert noisy.code == 0
    assert "noise" in noisy.out
    for flags, words in (
        (("--evaluate", 0.2), "--evaluate counts predicted classes"),
        (("--ridge", "auto"), "--ridge auto with regression"),
    ):
        wrong = command(*arguments, *flags)
        assert wrong.code == 2
        assert words in wrong.err
