"""Hospital tables on the command line, as somebody meets them who is new to them."""

import csv
import io
import runpy
from pathlib import Path

import numpy as np
import pytest

from tests.kit.commands import Command
from tools.documents import ROOT

FORMULA = ("--formula", "age + sex + bmi + pressure + glucose")


@pytest.fixture
def hospitals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tables of the tutorial, in the folder where commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    runpy.run_path(str(ROOT / "examples" / "write_tables.py"))
    return tmp_path


def run(command: Command, target: str, *more: object, out: str = "results") -> str:
    """Run a federation over the tutorial's tables, and return what it prints."""
    flags = ("--dictionary", "dictionary.toml", "--target", target, *FORMULA, "--out", out)
    return command.well("run", "--clients", "sites/*.csv", *flags, *more).out


def without_pressure(source: str, file: str, *places: int) -> list[list[str]]:
    """Write a table in which these rows, from 0, lack the pressure; returns its rows."""
    with Path(source).open(newline="") as handle:
        head, *rows = list(csv.reader(handle))[:8]
    for place in places:
        rows[place][head.index("pressure")] = "NA"
    with Path(file).open("w", newline="") as handle:
        csv.writer(handle).writerows([head, *rows])
    return rows


@pytest.mark.parametrize(("target", "method"), [("progression", "regression"), ("fast", "afl")])
def test_rows_with_a_missing_value_keep_their_place_in_predictions(
    command: Command,
    hospitals: Path,
    caplog: pytest.LogCaptureFixture,
    target: str,
    method: str,
) -> None:
    run(command, target, "--method", method)
    without_pressure("new.csv", "whole.csv")
    without_pressure("new.csv", "gaps.csv", 0, 4, 6)
    whole = list(csv.reader(io.StringIO(command.well("predict", "results", "whole.csv").out)))
    caplog.clear()
    gaps = list(csv.reader(io.StringIO(command.well("predict", "results", "gaps.csv").out)))
    assert "3 rows are left out, for a value is missing: lines 2, 6, 8" in caplog.text
    assert len(gaps) == len(whole) == 8
    for place in range(7):
        wanted = whole[1 + place]
        if place in (0, 4, 6):
            wanted = [str(place), *[""] * (len(wanted) - 1)]
        assert gaps[1 + place] == wanted


def test_a_draft_says_which_numbers_may_be_missing_codes(command: Command, hospitals: Path) -> None:
    text = Path("sites/north.csv").read_text().replace(",32.1,", ",-9,").replace(",25.3,", ",-9,")
    Path("coded.csv").write_text(text)
    said = command.well("inspect", "coded.csv", "--propose", "draft.toml").out
    assert f"bmi: -9 in {text.count(',-9,')} cells is far from all others; a missing code?" in said
    assert "# -9 is far from all others" in Path("draft.toml").read_text()


def test_hints_are_of_tables(command: Command, hospitals: Path) -> None:
    tables = ("--dictionary", "dictionary.toml", "--target", "fast")
    for flags, words in (
        (("--clients", "sites/*.csv", "--dictionary", "no.toml"), "no.toml does not exist"),
        (("--clients", "nowhere/*.csv", *tables), "give one CSV or Parquet file per client"),
        (("--clients", "sites/*.csv", *tables, "--id", "{id}_*"), "of tables --id names the"),
    ):
        assert words in command.badly("run", *flags)


def test_a_report_has_no_lines_of_dashes(command: Command, hospitals: Path) -> None:
    plain = run(command, "fast")
    assert "–" not in plain
    for words in ("accuracy", "own rows", "in the test set", "each client alone"):
        assert words not in plain
    assert "exact                    │                             yes │" in plain
    tested = run(command, "fast", "--test", "new.csv")
    for words in ("accuracy", "each client alone", "in the test set"):
        assert words in tested
    assert "own rows" not in tested
    number = run(command, "progression", "--method", "regression")
    assert "classes" not in number
    assert "–" not in number
    held = run(command, "fast", "--holdout", "0.2")
    assert "federated model" in held
    assert "own rows: personal model" in held  # the heading of the lines below


def test_a_promise_says_what_is_exact_and_lost_errors_are_no_columns(
    command: Command, hospitals: Path
) -> None:
    promise = ("--epsilon", "0.1", "--max-rows", "150")
    said = run(command, "progression", "--method", "regression", *promise)
    assert "yes, of integers with noise" in said
    table = said[said.index("linear model of progression") :]
    assert "│ bmi" in table
    for words in ("interval, 0.95", "error ┃", "–"):
        assert words not in table


def test_inspect_prints_what_concerns_its_input(command: Command, hospitals: Path) -> None:
    of_images = ("pixels", "turned upright", "of one colour", "unreadable", "files read")
    tables = ("inspect", "sites/west.csv", "--dictionary", "dictionary.toml")
    number = command.well(*tables, "--target", "progression").out
    assert "1 rows with a missing value" in number
    for words in (*of_images, "each class", "another label", "test set", "rows of zeros"):
        assert words not in number
    classes = command.well(*tables, "--target", "fast", "--test", "new.csv").out
    for words in ("no: 71, yes: 58", "with another label", "rows in the test set"):
        assert words in classes
    np.savez("site.npz", x=np.eye(3), y=np.array([0, 1, 1]))
    features = command.well("inspect", "site.npz").out
    assert "rows of zeros" in features
    for words in (*of_images, "left out", "test set"):
        assert words not in features
    np.savez("images.npz", x=np.arange(192, dtype=np.uint8).reshape(3, 8, 8), y=np.eye(3)[0])
    images = command.well("inspect", "images.npz").out
    for words in (*of_images, "left out", "each class"):
        assert words in images
    assert "rows of zeros" not in images
