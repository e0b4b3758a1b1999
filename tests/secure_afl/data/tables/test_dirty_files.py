"""Files as hospitals export them: each is read right, or refused in one line that says where."""

from pathlib import Path

import numpy as np
import pytest

from secure_afl.data.files import load
from secure_afl.errors import DataError
from tests.secure_afl.data.tables.kit import design, written

HEAD = "age,bmi,sex,ill,patient,note\n"
ROWS = "40,25.5,male,yes,p1,x\n50,30,female,no,p2,y\n"
VALUES: list[list[float]] = [[40, 25.5, 1, 0, 0], [50, 30, 0, 0, 0]]

RIGHT: dict[str, bytes] = {
    "clean": (HEAD + ROWS).encode(),
    "a byte order mark": b"\xef\xbb\xbf" + (HEAD + ROWS).encode(),
    "Excel's Unicode text": (HEAD + ROWS).replace(",", "\t").encode("utf-16"),
    "semicolons": (HEAD + ROWS).replace(",", ";").encode(),
    "ends of lines from Windows": (HEAD + ROWS).replace("\n", "\r\n").encode(),
    "no end of the last line": (HEAD + ROWS).rstrip("\n").encode(),
    "empty lines": (HEAD + "\n" + ROWS.replace("\n", "\n\n")).encode(),
    "spaces around cells": (HEAD + ROWS).replace(",", " , ").encode(),
    "all cells quoted": "\n".join(
        ",".join(f'"{cell}"' for cell in line.split(",")) for line in (HEAD + ROWS).splitlines()
    ).encode(),
    "a quoted line break": (HEAD + ROWS.replace(",x\n", ',"x\nand more"\n')).encode(),
    "columns in another order": b"note,patient,ill,sex,bmi,age\nx,p1,yes,male,25.5,40\n"
    b"y,p2,no,female,30,50\n",
    "a column that nobody declared": (HEAD + ROWS)
    .replace("note\n", "note,ward\n")
    .replace("x\n", "x,7\n")
    .replace("y\n", "y,8\n")
    .encode(),
    "whole numbers as floats": (HEAD + ROWS)
    .replace("40,", "40.0,")
    .replace("50,", "5e1,")
    .encode(),
}

REFUSED: dict[str, tuple[bytes, str]] = {
    "decimal commas in a file of semicolons": (
        (HEAD + ROWS).replace(",", ";").replace("25.5", "25,5").encode(),
        r"line 2: '25,5' in column 'bmi' is no number: write the decimal comma as a point, 25\.5",
    ),
    "decimal commas in a file of commas": (
        (HEAD + ROWS).replace("25.5", "25,5").encode(),
        "line 2, has 7 cells and the header 6",
    ),
    "words among numbers": (
        (HEAD + ROWS).replace("30,", "about 30,").encode(),
        "line 3: 'about 30' in column 'bmi' is no number",
    ),
    "a limit of detection": (
        (HEAD + ROWS).replace("30,", "<10,").encode(),
        "line 3: '<10' in column 'bmi' is no number",
    ),
    "infinity": (
        (HEAD + ROWS).replace("30,", "inf,").encode(),
        "line 3: 'inf' in column 'bmi' is no finite number",
    ),
    "a number without end": (
        (HEAD + ROWS).replace("30,", "9" * 500 + ",").encode(),
        "is too large a number",
    ),
    "a birthday for an age": (
        (HEAD + ROWS).replace("50,", "1974-05-01,").encode(),
        "line 3: '1974-05-01' in column 'age' is a date",
    ),
    "a category of this site alone": (
        (HEAD + ROWS).replace("female", "w").encode(),
        "line 3: 'w' is no category of column 'sex'; declared: female, male, other",
    ),
    "large letters": (
        (HEAD + ROWS).replace("yes", "YES").encode(),
        "line 2: 'YES' is no category of column 'ill'",
    ),
    "an empty cell": (
        (HEAD + ROWS).replace("30,", ",").encode(),
        "line 3: column 'bmi' is empty, and in 1 of 2 rows",
    ),
    "a header that is shifted": (
        b",age,bmi,sex,ill,patient,note\n" + ROWS.encode(),
        "column 1 has no name",
    ),
    "an index without a name in the header": (
        HEAD.encode() + b"0,40,25.5,male,yes,p1,x\n",
        "line 2, has 7 cells and the header 6",
    ),
    "a title above the header": (
        b"Export of ward 3\n" + (HEAD + ROWS).encode(),
        "line 2, has 6 cells and the header 1",
    ),
    "a column twice": (
        (HEAD + ROWS).replace("note", "bmi").encode(),
        "has the column 'bmi' twice",
    ),
    "no header": (b"1,2,3\n4,5,6\n", "the first line holds numbers"),
    "a column that is gone": (
        b"age,sex,ill,patient\n40,male,yes,p1\n",
        "has no column 'bmi'; it has age, sex, ill, patient",
    ),
    "a quote that never closes": (
        (HEAD + ROWS).replace(",x\n", ',"x\n').encode(),
        "is no CSV file",
    ),
    "Latin-1": (
        (HEAD + ROWS).replace("x\n", "für\n").encode("latin-1"),
        "line 2, is not UTF-8; save the file as 'CSV UTF-8'",
    ),
    "a row that was cut off": ((HEAD + ROWS)[:-12].encode(), "line 3, has 3 cells"),
    "a workbook": (b"PK\x03\x04\x00\x00" + bytes(40), "bytes of 0"),
    "nothing": (b"", "is empty"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_means_the_same_is_read_as_the_same(name: str, tmp_path: Path) -> None:
    made = design()
    data = load(written(tmp_path, RIGHT[name]), design=made)
    values = made.columns.values(np.asarray(data.examples, dtype=np.float64))
    assert np.allclose(values, VALUES, atol=1e-12)
    assert (data.labels.tolist(), data.patients) == ([1, 0], ("p1", "p2"))


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    content, words = REFUSED[name]
    with pytest.raises(DataError, match=words) as refused:
        load(written(tmp_path, content), design=design())
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


def test_there_are_more_than_twenty_kinds_of_dirt() -> None:
    assert len(RIGHT) + len(REFUSED) > 30
