"""Marks of rows: the same however a row is written, and whatever a model makes of it."""

import numpy as np

from secure_afl.data.tables.marks import patient_marks, row_marks
from secure_afl.data.tables.raw import table_of_frame
from tests.secure_afl.data.tables.kit import design

NAMES = ("age", "bmi", "sex")


def test_a_row_is_known_however_its_numbers_are_written() -> None:
    one = table_of_frame({"age": ["40"], "bmi": ["25.50"], "sex": ["male"], "note": ["x"]}, "a")
    two = table_of_frame({"sex": ["male"], "bmi": ["2.55e1"], "age": ["40.0"]}, "b")
    assert np.array_equal(row_marks(one, NAMES), row_marks(two, NAMES))
    other = table_of_frame({"age": ["41"], "bmi": ["25.50"], "sex": ["male"]}, "c")
    assert not np.array_equal(row_marks(one, NAMES), row_marks(other, NAMES))


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
    assert plain.shape == (2, 4)
    for other in (design(formula="age"), design(target="bmi")):
        again = other.dataset("a", table).marks
        assert again is not None
        assert np.array_equal(plain, again)


def test_patients_have_marks_and_nameless_ones_have_none() -> None:
    marks = patient_marks(("p1", "", "p2", "p1"))
    assert marks.shape == (2, 4)
    assert (np.round(marks) == marks).all()
    assert (marks < 2**24).all()
