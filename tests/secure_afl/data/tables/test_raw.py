"""Tables from files: each dirty file is right, or refused in one clear line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from secure_afl.data.tables.raw import is_table, read_table, table_of_frame
from secure_afl.errors import DataError
from tests.secure_afl.data.tables.kit import CSV, written

CLEAN = {"a": ("1", "3"), "b": ("2", "4")}


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,2\n3,4\n",
        b"a,b\n1,2\n3,4",
        b"a,b\r\n1,2\r\n3,4\r\n",
        b"\xef\xbb\xbfa,b\n1,2\n3,4\n",
        "a,b\n1,2\n3,4\n".encode("utf-16"),
        b"a;b\n1;2\n3;4\n",
        b"a\tb\n1\t2\n3\t4\n",
        b"a|b\n1|2\n3|4\n",
        b'"a","b"\n"1","2"\n"3","4"\n',
        b" a , b \n 1 , 2 \n3 ,4\n",
        b"a,b\n\n1,2\n\n3,4\n\n",
    ],
)
def test_the_ways_to_write_one_table_are_one_table(tmp_path: Path, content: bytes) -> None:
    assert read_table(written(tmp_path, content)).columns == CLEAN


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty; its first line has to name the columns"),
        (b"\n\n", "is empty"),
        (b"a,b\n", "has a header and no rows"),
        (b"1,2\n3,4\n", "the first line holds numbers"),
        (b"a,a\n1,2\n", "has the column 'a' twice"),
        (b"a,\n1,2\n", "column 2 has no name"),
        (b"a,b\n1,2\n1,2,3\n", r"line 3, has 3 cells and the header 2; a cell that holds ','"),
        (b"a,b\n1,2\n1\n", "line 3, has 1 cells and the header 2"),
        (b"row,a,b\n1,2\n", "line 2, has 2 cells and the header 3"),
        (b"a,b\n1,2,3\n", "line 2, has 3 cells and the header 2"),
        (b'a,b\n1,"2\n3,4\n', "is no CSV file"),
        (b"a,b\n1,\xe4\n", "line 2, is not UTF-8; save the file as 'CSV UTF-8'"),
        (b"a,b\n1,\x00\n", "holds bytes of 0"),
        (b"a;b,c\n1;2,3\n", "the header has both ',' and ';'"),
        (b"a\x07,b\n1,2\n", "has a control letter"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as refused:
        read_table(written(tmp_path, content))
    assert "\n" not in str(refused.value)
    assert "site.csv" in str(refused.value)


def test_quoted_cells_hold_separators_and_lines_and_errors_name_the_right_line(
    tmp_path: Path,
) -> None:
    table = read_table(written(tmp_path, CSV))
    assert table.cells("note") == ('a "quoted" note\nover two lines', "", "x")
    assert table.lines == (2, 4, 5)
    assert table.line(1).endswith("site.csv, line 4")
    quoted = read_table(written(tmp_path, '"a, of all",b\n1,2\n', "other.csv"))
    assert tuple(quoted.columns) == ("a, of all", "b")


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no column 'c'; it has a, b"):
        read_table(written(tmp_path, b"a,b\n1,2\n")).cells("c")


def test_parquet_and_frames_are_the_same_table(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "whole": [1, 2],
            "part": [0.1, np.nan],
            "word": ["x", None],
            "maybe": pd.array([1, None], dtype="Int64"),
            "kind": pd.Categorical(["u", "v"]),
        }
    )
    path = tmp_path / "site.parquet"
    frame.to_parquet(path)
    wanted = {
        "whole": ("1", "2"),
        "part": ("0.1", ""),
        "word": ("x", ""),
        "maybe": ("1", ""),
        "kind": ("u", "v"),
    }
    assert read_table(path).columns == wanted
    assert table_of_frame(frame, "frame").columns == wanted
    assert is_table(path)


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no Parquet file"):
        read_table(written(tmp_path, b"a,b\n1,2\n", "site.parquet"))


def test_a_mapping_of_unequal_columns_is_refused() -> None:
    with pytest.raises(DataError, match=r"columns of \[1, 2\] cells"):
        table_of_frame({"a": [1], "b": [1, 2]}, "frame")
