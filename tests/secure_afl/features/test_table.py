"""Rows of frames: what is doubtful of them is said where they are read."""

import warnings

import pandas as pd
import pytest

from secure_afl.data.account import account, read
from secure_afl.data.compare import compare
from secure_afl.data.tables.design import make_design
from secure_afl.data.tables.dictionary import Category, Dictionary, Number
from secure_afl.data.tables.raw import table_of_frame
from secure_afl.features.table import frame_rows

DESIGN = make_design(
    Dictionary(
        {
            "age": Number(range=(0, 100), missing="drop"),
            "ill": Category(("no", "yes")),
        },
        "ill",
    )
)


def frame(*ages: float | None, **others: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"age": ages, "ill": ["no", "yes"] * (len(ages) // 2), **others})


def test_values_that_are_cut_and_rows_that_are_left_out_are_counted() -> None:
    with pytest.warns(UserWarning, match="north") as said:
        data = frame_rows("north", frame(20, 150, 40, 50, None, 70), DESIGN)
    assert len(data) == 5
    texts = [str(one.message) for one in said]
    assert [text.partition(".")[0] for text in texts] == [
        "north: 1 of 6 values of 'age' are out of range and cut to it",
        "north: 1 rows are left out, for a value is missing",
    ]
    assert said[0].filename == __file__


def test_a_column_that_is_not_read_is_said() -> None:
    with pytest.warns(UserWarning, match="not in the dictionary are not read: weight"):
        frame_rows("north", frame(20, 30, weight=["70", "80"]), DESIGN)


def test_sound_rows_say_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(frame_rows("north", frame(20, 30, 40, 50), DESIGN)) == 4


def test_numbers_of_few_values_are_named_in_the_account() -> None:
    numbers = dict.fromkeys(("stage", "ends", "score"), Number(range=(0, 10)))
    made = make_design(Dictionary({**numbers, "ill": Category(("no", "yes"))}, "ill"))
    rows = {
        "stage": [1, 2, 3] * 20,
        "ends": [0, 10] * 30,
        "score": [0, 1, 2, 3] * 15,
        "ill": ["no", "yes"] * 30,
    }
    dataset = made.dataset("north", table_of_frame(pd.DataFrame(rows), "north"))
    said = [one.what for one in account(read(dataset)).findings if "two or three" in one.what]
    assert said == ["north: numbers of two or three values: stage"]


@pytest.mark.parametrize("ages", [3, 40])
def test_rows_that_a_ledger_cannot_know_again_are_said(ages: int) -> None:
    rows = {"age": [place % ages for place in range(40)], "ill": ["no"] * 40}
    dataset = DESIGN.dataset("north", table_of_frame(pd.DataFrame(rows), "north"))
    said = [one for one in account(read(dataset)).findings if "a ledger does not know" in one.what]
    assert bool(said) == (ages == 3)


def test_rows_at_several_hospitals_are_a_note_in_tables() -> None:
    names = ("north", "south")
    rows = pd.DataFrame({"age": [20, 30], "ill": ["no", "yes"]})
    sets = [DESIGN.dataset(name, table_of_frame(rows, name)) for name in names]
    (shared,) = compare([read(dataset) for dataset in sets], frozenset())
    assert shared.what == "2 rows are at several clients, as at north and south"
    assert shared.rank == "note", "two patients may well agree in a few columns"
