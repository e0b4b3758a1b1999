"""Drafts of dictionaries: whatever is drafted can be read, and says nothing of single rows."""

from pathlib import Path

import pytest

from secure_afl.data.tables.codes import Code, missing_codes, suspected
from secure_afl.data.tables.dictionary import Category, Ignored, Number, read_dictionary
from secure_afl.data.tables.propose import propose
from secure_afl.data.tables.raw import table_of_frame
from tests.secure_afl.data.tables.kit import written


def draft(tmp_path: Path, **columns: list[str]) -> dict[str, object]:
    text = propose(table_of_frame(columns, "site"), next(iter(columns)))
    return dict(read_dictionary(written(tmp_path, text, "dictionary.toml")).columns)


@pytest.mark.parametrize(
    ("cells", "spec"),
    [
        (["34", "45.5", "61"], Number((30, 70))),
        (["34", "", "61"], Ignored()),
        (["34", "", "61", "50.5", "50.5"], Number((30, 70), "", "drop")),
        (["0", "1", "1"], Category(("0", "1"))),
        (["f", "m", "m"], Category(("f", "m"))),
        (["2020-01-01", "2020-01-02", "2020-01-02"], Ignored()),
        (["a", "b", "c"], Ignored()),
        (["1", "2", "3"], Ignored()),
        (["", "", ""], Ignored()),
        (["x y", 'q"u', 'q"u'], Category(('q"u', "x y"))),
    ],
)
def test_columns_are_guessed(tmp_path: Path, cells: list[str], spec: object) -> None:
    assert draft(tmp_path, column=cells)["column"] == spec


def test_the_least_and_the_greatest_value_are_not_written(tmp_path: Path) -> None:
    cells = [str(value) for value in (13.37, 17.5, 42.42, 17.5)]
    text = propose(table_of_frame({"lab": cells}, "site"), "lab")
    assert "13.37" not in text
    assert "42.42" not in text
    spec = draft(tmp_path, lab=cells)["lab"]
    assert isinstance(spec, Number)
    assert spec.range is not None
    assert spec.range[0] <= 13.37 <= 42.42 <= spec.range[1]


def test_rare_words_are_not_written() -> None:
    cells = ["common"] * 9 + ["usual"] * 8 + ["rare disease"]
    text = propose(table_of_frame({"a": cells}, "site"))
    assert "rare disease" not in text
    assert "1 words have fewer than 5 rows" in text


def test_many_words_are_no_category(tmp_path: Path) -> None:
    assert draft(tmp_path, note=[f"w{k % 21}" for k in range(42)])["note"] == Ignored()


AGES = [str(age) for age in range(18, 95, 3)]


@pytest.mark.parametrize(
    ("cells", "codes"),
    [
        ([*AGES, "999", "999", "999.0"], [Code("999", 3)]),
        ([*AGES, "999"], [Code("999", 1)]),
        ([*AGES, "-9.0", "-8", "-9.0"], [Code("-9.0", 2), Code("-8", 1)]),
        ([*AGES, "-9", "999"], [Code("-9", 1), Code("999", 1)]),
        ([*AGES, "1000", "1000", "?"], [Code("1000", 2)]),
        (["0", "1", "1", "9"], []),
        (["0", "1", "1", "9", "9"], [Code("9", 2)]),
        # A single far value may be a person's; 99 may be an age; -9 may be a temperature.
        ([*AGES, "1000"], []),
        ([*AGES, "99"], []),
        ([*AGES, "-9", "-12", "-3"], []),
        (["1", "2", "3", "3"], []),
        (["1", "999"], []),
        (["a", "b"], []),
    ],
)
def test_numbers_far_from_all_others_may_be_codes(cells: list[str], codes: list[Code]) -> None:
    assert missing_codes(cells) == codes


def test_a_code_is_named_and_out_of_the_range(tmp_path: Path) -> None:
    cells = [*AGES, "999", "999"]
    text = propose(table_of_frame({"age": cells}, "site"), "age")
    assert "# 999 is far from all others" in text
    assert draft(tmp_path, age=cells)["age"] == Number((10, 100))
    table = table_of_frame({"age": cells, "bmi": ["20.5"] * len(cells)}, "site")
    assert suspected(table, []) == {"age": [Code("999", 2)]}
    assert suspected(table, ["999.0"]) == {}
