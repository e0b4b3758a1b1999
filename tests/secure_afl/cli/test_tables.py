"""Hospital tables on the command line, as somebody meets them who is new to them."""

import csv
import io
import runpy
from pathlib import Path

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
