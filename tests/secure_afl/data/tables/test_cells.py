"""Cells: numbers and categories, or one line on the first that is neither."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_afl.data.tables.cells import read_cells
from secure_afl.data.tables.dictionary import Category, Number
from secure_afl.data.tables.raw import table_of_frame
from secure_afl.data.tables.words import as_number
from secure_afl.errors import DataError
from tests.secure_afl.data.tables.kit import design, written

AGE, SEX = Number((0, 100)), Category(("female", "male"))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_that_python_writes_is_read_as_itself(number: float) -> None:
    assert as_number(repr(number)) == number


@pytest.mark.parametrize("word", ["1_000", "0x10", "１２", "1e999", "", ".", "e5", "1 2", "--1"])
def test_words_that_only_python_takes_for_numbers_are_none(word: str) -> None:
    assert as_number(word) is None


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("1,5", "write the decimal comma as a point, 1.5"),
        ("1,234", "write 1234 if its comma parts thousands, 1.234 if decimals"),
        ("0,234", "write the decimal comma as a point, 0.234"),
        ("1,234.5", "without signs between thousands"),
        ("1 234", "without signs between thousands"),
        ("2024-01-31", "is a date"),
        ("31.01.2024", "is a date"),
        ("inf", "is no finite number"),
        ("-Infinity", "is no finite number"),
        ("NaN", "is no finite number"),
        ("1e999", "is too large a number"),
        ("9" * 400, "is too large a number"),
        ("forty", "is no number: correct it, list it under 'missing'"),
        ("<5", "is no number"),
    ],
)
def test_a_cell_that_is_no_number_is_named_with_its_line(cell: str, words: str) -> None:
    table = table_of_frame({"age": ["40", cell]}, "site")
    with pytest.raises(DataError, match=words) as refused:
        read_cells(table, "age", AGE, ())
    assert str(refused.value).startswith("site, line 2: ")
    assert len(str(refused.value)) < 250


def test_values_out_of_range_are_cut_and_counted() -> None:
    found = read_cells(table_of_frame({"age": ["-3", "50", "1e20"]}, "site"), "age", AGE, ())
    assert (found.values.tolist(), found.cut) == ([0, 50, 100], 2)


def test_missing_cells_are_refused_unless_declared() -> None:
    table = table_of_frame({"age": ["40", "", "NA"]}, "site")
    with pytest.raises(DataError, match=r"line 2: column 'age' is empty, and in 2 of 3 rows"):
        read_cells(table, "age", AGE, ("NA",))
    found = read_cells(table, "age", Number((0, 100), "", 30), ("NA",))
    assert (found.values.tolist(), found.missing.tolist()) == ([40, 30, 30], [False, True, True])
    with pytest.raises(DataError, match="'NA' in column 'age' is no number"):
        read_cells(table, "age", Number((0, 100), "", 30), ())


def test_missing_words_that_are_numbers_go_by_their_value() -> None:
    cells = ["40", "-9", "-9.0", "-9.00", "-9.5", "9"]
    found = read_cells(
        table_of_frame({"age": cells}, "s"), "age", Number((-10, 100), "", 30), ("-9",)
    )
    assert found.missing.tolist() == [False, True, True, True, False, False]
    words = ["male", "99", "99.0", "non dit\u00e9"]
    missing = ("9.9e1", "non dite\u0301")
    found = read_cells(
        table_of_frame({"sex": words}, "s"), "sex", Category(("female", "male"), "drop"), missing
    )
    assert found.missing.tolist() == [False, True, True, True]


def test_a_category_that_nobody_declared_is_refused() -> None:
    table = table_of_frame({"sex": ["female", "Male", "x", "x"]}, "site")
    with pytest.raises(
        DataError, match=r"line 2: 'Male' is no category .* nor are 1 other words here"
    ):
        read_cells(table, "sex", SEX, ())
    assert read_cells(table_of_frame({"sex": ["male"]}, "s"), "sex", SEX, ()).values == [1]


def test_names_in_two_forms_of_unicode_are_one_category() -> None:
    spec = Category(("caf\u00e9", "bar"))
    table = table_of_frame({"place": ["cafe\u0301"]}, "site")
    assert read_cells(table, "place", spec, ()).values == [0]


def test_errors_of_a_file_name_the_line_of_the_file(tmp_path: Path) -> None:
    text = 'age,bmi,sex,ill,patient,note\n40,25,male,yes,p1,"two\nlines"\n30,x,male,no,p2,\n'
    from secure_afl.data.files import load

    with pytest.raises(DataError, match=r"site\.csv, line 4: 'x' in column 'bmi'"):
        load(written(tmp_path, text), design=design())
