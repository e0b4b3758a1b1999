"""Marks of rows: the same however a row is written, and whatever a model makes of it."""

from typing import Any

import numpy as np
import pytest

from secure_afl.data.tables.marks import Marks, patient_marks, row_marks
from secure_afl.data.tables.raw import table_of_frame
from tests.secure_afl.data.tables.kit import design

NAMES = ("age", "bmi", "sex")
ROW = {"age": "40", "bmi": "25.50", "sex": "male", "ward": "Innere  Medizin", "note": "NA"}


def marks(**changes: Any) -> Marks:
    """The four marks of one row, some of whose cells are others; None takes a column out."""
    cells = {name: [cell] for name, cell in (ROW | changes).items() if cell is not None}
    found: Marks = row_marks(table_of_frame(cells, "a"), NAMES)[0]
    return found


def kept(**changes: Any) -> list[bool]:
    """Which of the marks these changes leave."""
    return [bool(np.array_equal(*pair)) for pair in zip(marks(), marks(**changes), strict=True)]


def test_a_row_is_known_however_its_cells_are_written() -> None:
    assert marks().shape == (4, 4)
    same = {
        "age": "40.0",
        "bmi": "2.55e1",
        "sex": "MALE",
        "ward": " innere\u00a0Medizin",
        "note": "n/a",
    }
    assert all(kept(**same))
    assert all(np.array_equal(marks(), marks(note=word)) for word in ("", "NULL", "-", "?"))
    back = {name: [cell] for name, cell in reversed(ROW.items())}
    assert np.array_equal(row_marks(table_of_frame(back, "a"), NAMES)[0], marks())
    assert not any(kept(**dict.fromkeys(ROW, "7")))


@pytest.mark.parametrize(
    "changes",
    [
        {"age": "41"},
        {"sex": "m"},
        {"bmi": None},
        {"note": None},
        {"hour": "12"},
        {"ward": "7b"},
    ],
    ids=str,
)
def test_an_edit_of_one_column_leaves_a_mark(changes: dict[str, str | None]) -> None:
    parts = kept(**changes)[1:]
    assert sum(parts) == 1
    # The dictionary's own columns are all that the first mark is of.
    assert kept(**changes)[0] == (not set(changes) & set(NAMES))


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
    assert plain.shape == (2, 4, 4)
    assert len(np.unique(plain.reshape(8, 4), axis=0)) == 8, "kinds are no rows of each other"
    for other in (design(formula="age"), design(target="bmi")):
        again = other.dataset("a", table).marks
        assert again is not None
        assert np.array_equal(plain, again)


def test_patients_have_marks_and_nameless_ones_have_none() -> None:
    marks = patient_marks(("p1", "", "p2", "p1"))
    assert marks.shape == (2, 4)
    assert (np.round(marks) == marks).all()
    assert (marks < 2**24).all()
