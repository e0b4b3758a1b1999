"""The data dictionary: what it may say, and what it may not."""

from pathlib import Path
from typing import Any

import pytest

from secure_afl.data.tables.dictionary import Category, Number, make_dictionary, read_dictionary
from secure_afl.errors import ConfigError
from tests.secure_afl.data.tables.kit import dictionary


def test_a_file_says_what_columns_are(tmp_path: Path) -> None:
    file = tmp_path / "dictionary.toml"
    file.write_text(
        'target = "ill"\nmissing = ["NA"]\n[columns.age]\ntype = "number"\nrange = [18, 100]\n'
        'missing = 50\n[columns.ill]\ntype = "category"\ncategories = ["no", "yes"]\n'
        '[columns.who]\ntype = "id"\n'
    )
    found = read_dictionary(file)
    assert found.columns["age"] == Number((18, 100), "", 50)
    assert found.columns["ill"] == Category(("no", "yes"))
    assert (found.target, found.missing, found.id) == ("ill", ("NA",), "who")
    assert list(found.columns) == ["age", "ill", "who"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"type": "date"}, "column .x., is no data dictionary: .* or ignore"),
        ({"type": "number", "rnage": [0, 1]}, "rnage"),
        ({"type": "number", "range": [1, 1]}, r"column 'x': range is \[1, 1\]"),
        ({"type": "number", "range": [2, 1]}, "the least first"),
        ({"type": "number", "range": [0, float("inf")]}, "two finite numbers"),
        ({"type": "number", "range": [0, float("nan")]}, "two finite numbers"),
        ({"type": "number", "range": [0, 1], "missing": 2}, "missing is 2; allowed: refuse, drop"),
        ({"type": "number", "range": [0, 1], "missing": "mean"}, "missing"),
        ({"type": "category", "categories": ["a"]}, "categories"),
        ({"type": "category", "categories": ["a", "a"]}, "different words"),
        ({"type": "category", "categories": ["a", "b"], "missing": "c"}, "or one of a, b"),
    ],
)
def test_what_a_column_cannot_be_is_refused(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_dictionary({"columns": {"x": spec}}, "dictionary.toml")


@pytest.mark.parametrize(("word", "category"), [("no", "no"), ("-9", "-9.0"), ("9e0", "9")])
def test_a_word_is_a_category_or_a_missing_value(word: str, category: str) -> None:
    spec = {"type": "category", "categories": ["yes", category], "missing": "drop"}
    with pytest.raises(ConfigError, match=f"column 'x': '{category}' is a category, and stands"):
        make_dictionary({"missing": [word], "columns": {"x": spec}}, "dictionary.toml")
    assert make_dictionary({"missing": ["NA"], "columns": {"x": spec}}, "dictionary.toml")


def test_two_columns_of_ids_are_refused() -> None:
    with pytest.raises(ConfigError, match="several columns of type id"):
        dictionary(other={"type": "id"})


def test_two_spellings_of_one_name_are_refused() -> None:
    names = {"caf\u00e9": {"type": "ignore"}, "cafe\u0301": {"type": "ignore"}}
    with pytest.raises(ConfigError, match="twice"):
        make_dictionary({"columns": names}, "dictionary.toml")
