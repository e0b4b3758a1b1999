"""Marks of rows: the same however a row is written, and whatever a model makes of it."""

from typing import Any

import numpy as np
import pytest

from secure_afl.data.tables.marks import KINDS, WHOLE, Marks, patient_marks, row_marks
from secure_afl.data.tables.raw import table_of_frame
from tests.secure_afl.data.tables.kit import design

NAMES = ("age", "bmi", "sex")
ROW = {"age": "40", "bmi": "25.50", "sex": "male", "ward": "Innere  Medizin", "note": "NA"}


def marks(**changes: Any) -> Marks:
    """The marks of one row, some of whose cells are others; None takes a column out."""
    cells = {name: [cell] for name, cell in (ROW | changes).items() if cell is not None}
    found: Marks = row_marks(table_of_frame(cells, "a"), NAMES)[0]
    return found


def kept(**changes: Any) -> list[bool]:
    """Which of the marks these changes leave."""
    return [bool(np.array_equal(*pair)) for pair in zip(marks(), marks(**changes), strict=True)]


def test_a_row_is_known_however_its_cells_are_written() -> None:
    assert marks().shape == (KINDS, 4)
    same = {
        "age": "40.0",
        "bmi": "2.55e1",
        "sex": "MALE",
        "ward": " innere\u00a0Medizin",
        "note": "n/a",
    }
    assert all(kept(**same))
    assert all(kept(bmi="25,5"))
    assert all(kept(bmi="25.500000000000004"))
    assert all(kept(age="\uff14\uff10")), "digits of another width"
    assert all(np.array_equal(marks(), marks(note=word)) for word in ("", "NULL", "-", "?"))
    back = {name: [cell] for name, cell in reversed(ROW.items())}
    assert np.array_equal(row_marks(table_of_frame(back, "a"), NAMES)[0], marks())
    assert not any(kept(**dict.fromkeys(ROW, "7")))


CHANGES: list[dict[str, str | None]] = [
    {"age": "41"},
    {"sex": "m"},
    {"bmi": None},
    {"note": None},
    {"hour": "12"},
    {"ward": "7b"},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_an_edit_of_one_column_leaves_six_of_ten_pairs(changes: dict[str, str | None]) -> None:
    own, whole, *pairs = kept(**changes)
    assert sum(pairs) == 6
    assert not whole
    # The dictionary's own columns are all that the first mark is of.
    assert own == (not set(changes) & set(NAMES))


@pytest.mark.parametrize("one", CHANGES, ids=str)
@pytest.mark.parametrize("other", CHANGES, ids=str)
def test_edits_of_two_columns_leave_three_pairs(
    one: dict[str, str | None], other: dict[str, str | None]
) -> None:
    assert sum(kept(**(one | other))[WHOLE:]) >= 3


@pytest.mark.parametrize("name", sorted(ROW))
def test_a_column_of_another_name_leaves_three_pairs(name: str) -> None:
    changes: dict[str, str | None] = {name: None, f"{name} (neu)": ROW[name]}
    assert sum(kept(**changes)[WHOLE:]) >= 3


def test_words_for_missing_values_are_the_dictionarys_in_the_first_mark() -> None:
    def first(cell: str, *missing: str) -> Marks:
        table = table_of_frame({"age": ["40"], "sex": [cell]}, "a")
        found: Marks = row_marks(table, NAMES, missing)[0, 0]
        return found

    assert np.array_equal(first("keine Angabe", "keine Angabe"), first(""))
    assert np.array_equal(first("999", "999"), first("NA", "NA"))
    assert not np.array_equal(first("keine Angabe"), first(""))
    # The others do not turn on what a dictionary says.
    table = table_of_frame({"age": ["40"], "sex": ["?!"]}, "a")
    assert np.array_equal(row_marks(table, NAMES, ["?!"])[0, 1:], row_marks(table, NAMES)[0, 1:])


def test_long_ids_are_no_floats() -> None:
    table = table_of_frame({"patient": ["12345678901234567890", "12345678901234567891"]}, "a")
    first, second = row_marks(table, ["patient"])[:, 0]
    assert not np.array_equal(first, second)


def test_marks_turn_on_no_formula_target_or_range() -> None:
    table = table_of_frame(
        {
            "age": ["40", "50"],
            "bmi": ["25", "30"],
            "sex": ["male", "female"],
            "ill": ["no", "yes"],
            "patient": ["p1", "p2"],
        },
        "a",
    )
    plain = design().dataset("a", table).marks
    assert plain is not None
    assert plain.shape == (2, KINDS, 4)
    distinct = np.unique(plain.reshape(2 * KINDS, 4), axis=0)
    assert len(distinct) == 2 * KINDS, "kinds are no rows of each other"
    for other in (design(formula="age"), design(target="bmi")):
        again = other.dataset("a", table).marks
        assert again is not None
        assert np.array_equal(plain, again)


@pytest.mark.parametrize("other", ["7.0", "0007", " 7", "7,0"])
def test_a_patient_is_known_however_the_id_is_written(other: str) -> None:
    # pandas makes floats of whole numbers where one is missing.
    assert np.array_equal(patient_marks(("7",)), patient_marks((other,)))
    assert np.array_equal(patient_marks(("North-7",)), patient_marks(("NORTH-7",)))
    assert len(np.unique(patient_marks(("7", "70", "north-7")), axis=0)) == 3


def test_patients_have_marks_and_nameless_ones_have_none() -> None:
    marks = patient_marks(("p1", "", "p2", "p1"))
    assert marks.shape == (2, 4)
    assert (np.round(marks) == marks).all()
    assert (marks < 2**24).all()
    assert np.array_equal(patient_marks(("P1 ", "n/a", "17")), patient_marks(("17.0", "p1")))
