"""Designs: what every row becomes, and what results are called."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from formulaic import model_matrix
from hypothesis import given
from hypothesis import strategies as st

from secure_afl.data.dataset import DroppedRow, TableOrigin
from secure_afl.data.files import load, load_clients, load_unlabelled
from secure_afl.data.ids import parse_ids
from secure_afl.data.mapping import Mapping
from secure_afl.data.tables.design import Design, make_design
from secure_afl.data.tables.dictionary import make_dictionary
from secure_afl.data.tables.raw import read_table, table_of_frame
from secure_afl.errors import ConfigError, DataError
from tests.secure_afl.data.tables.kit import CONTENT, CSV, design, dictionary, written


def test_a_row_becomes_its_columns(tmp_path: Path) -> None:
    made = design()
    data = load(written(tmp_path, CSV), design=made)
    assert made.columns.names == ("age", "bmi", "sex[male]", "sex[other]", "age[missing]")
    assert isinstance(data.examples, np.ndarray)
    values = made.columns.values(np.asarray(data.examples, dtype=np.float64))
    wanted: list[list[float]] = [[40, 25.5, 1, 0, 0], [50, 30, 0, 0, 1], [61, 22.25, 0, 1, 0]]
    assert np.allclose(values, wanted)
    assert (data.labels.tolist(), data.classes) == ([1, 0, 0], ("no", "yes"))
    assert data.patients == ("p1", "p2", "p1")
    assert data.origin is not None
    assert data.origin.table == TableOrigin(filled=(("age", 1),))
    assert np.linalg.norm(data.examples, axis=1).max() <= 1


def test_what_is_left_out_is_accounted_for(tmp_path: Path) -> None:
    drops = {"type": "number", "range": [10, 25], "missing": "drop"}
    made = make_design(dictionary(bmi=drops, note=None))
    text = CSV.replace("30,female", ",female")
    data = load(written(tmp_path, text), design=made)
    assert data.origin is not None
    assert data.origin.table == TableOrigin(("note",), (DroppedRow(1, 4),), (("bmi", 1),))
    assert (len(data), data.patients) == (2, ("p1", "p1"))
    with pytest.raises(DataError, match="all 1 rows have a missing value"):
        made.dataset("x", table_of_frame({k: [v] for k, v in _row(bmi="").items()}, "x"))


def test_words_for_missing_values_are_no_ids(tmp_path: Path) -> None:
    known = make_dictionary({**CONTENT, "missing": ["NA", "-9"]}, "dictionary.toml")
    text = CSV.replace("no,p2", "no,NA").replace("no,p1", "no,-9.0")
    assert load(written(tmp_path, text), design=make_design(known)).patients == ("p1", "", "")


def test_a_column_of_ids_is_read_though_the_dictionary_lacks_it(tmp_path: Path) -> None:
    known = dictionary(patient=None, note=None)
    data = load(written(tmp_path, CSV), design=make_design(known, id="patient"))
    assert data.origin is not None
    assert data.origin.table is not None
    assert data.origin.table.unread == ("note",)
    assert data.patients == ("p1", "p2", "p1")
    again = make_design(known).with_id("patient")
    assert load(written(tmp_path, CSV), design=again).patients == data.patients
    with pytest.raises(ConfigError, match="'bmi' is to say whose rows are, and is a feature"):
        make_design(known).with_id("bmi")


def test_what_a_design_says_is_not_said_twice(tmp_path: Path) -> None:
    path = written(tmp_path, CSV)
    with pytest.raises(DataError, match="id 'patient' beside a table's design"):
        load(path, ids=parse_ids("patient"), design=design())
    with pytest.raises(DataError, match="mapping of the class 'ja' beside a table's dictionary"):
        load(path, mapping=Mapping({"ja": "yes"}), design=design())


def test_a_target_without_a_range_is_one_that_sites_find() -> None:
    known = dictionary(bmi={"type": "number"})
    with pytest.raises(ConfigError, match="column 'bmi' has no range"):
        make_design(known, target="bmi")
    made = make_design(known, target="bmi", open=True)
    assert made.open == ("bmi",)
    assert made.columns.target is not None
    assert made.columns.target.open


def test_a_pattern_of_images_is_no_column_of_ids(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--id names the column of ids; allowed: one of age, bmi"):
        load(written(tmp_path, CSV), design=design(id="{id}_*"))


def _row(**cells: str) -> dict[str, str]:
    return {"age": "1", "bmi": "20", "sex": "male", "ill": "no", "patient": "p"} | cells


def test_a_numeric_target_is_scaled_by_its_range(tmp_path: Path) -> None:
    made = design(target="bmi")
    data = load(written(tmp_path, CSV), design=made)
    assert data.targets is not None
    assert made.columns.target is not None
    assert np.allclose(made.columns.target.own(data.targets), [25.5, 30, 22.25])
    assert (data.labels.tolist(), data.classes) == ([0, 0, 0], ("bmi",))
    assert "bmi" not in made.columns.names
    assert "ill[yes]" in made.columns.names


@pytest.mark.slow
@given(st.lists(st.tuples(st.floats(1, 99), st.floats(11, 59)), min_size=3, max_size=9))
def test_terms_are_those_of_formulaic(rows: list[tuple[float, float]]) -> None:
    formula = "age*bmi + I(age**2) + log(bmi) + sex*bmi"
    words = [("female", "male", "other")[place % 3] for place in range(len(rows))]
    frame = {
        "age": [repr(a) for a, _ in rows],
        "bmi": [repr(b) for _, b in rows],
        "sex": words,
        "ill": ["no"] * len(rows),
        "patient": [""] * len(rows),
    }
    known = dictionary(
        age={"type": "number", "range": [1, 99]}, bmi={"type": "number", "range": [11, 59]}
    )
    made = make_design(known, formula=formula)
    values = made.columns.values(np.asarray(made.dataset("x", table_of_frame(frame, "x")).examples))
    numbers = {"age": [a for a, _ in rows], "bmi": [b for _, b in rows], "sex": words}

    theirs = model_matrix("age*bmi + I(age**2) + log(bmi) + sex:bmi", pd.DataFrame(numbers))
    renamed = {
        "I(age ** 2)": "age^2",
        "sex[T.male]:bmi": "sex[male]:bmi",
        "sex[T.other]:bmi": "sex[other]:bmi",
    }
    for name in theirs.columns:
        ours = renamed.get(name, name)
        if name != "Intercept" and ours in made.columns.names:
            place = made.columns.names.index(ours)
            assert np.allclose(values[:, place], theirs[name], rtol=1e-9, atol=1e-9)
    assert {"age", "bmi", "age:bmi", "age^2", "log(bmi)"} <= set(made.columns.names)


def test_ranges_of_products_hold_all_their_values() -> None:
    signed = {"type": "number", "range": [-3, 2]}
    made = make_design(dictionary(age=signed), formula="I(age**2) + I(age**3) + age:bmi")
    ranges = {column.name: (column.low, column.high) for column in made.columns.columns}
    assert ranges == {"age^2": (0, 9), "age^3": (-27, 8), "age:bmi": (-180, 120)}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"target": "nobody"}, "target 'nobody' is no column of the dictionary"),
        ({"target": "note"}, "is of a type that is no feature"),
        ({"target": "age"}, "has a value for missing ones"),
        ({"formula": "age + weight"}, "column 'weight' is not in the dictionary"),
        ({"formula": "age + sex:bmi"}, "has 'sex' in an interaction and lacks 'bmi'"),
        ({"formula": "age + note"}, "declared to be no feature"),
        ({"formula": "I(sex**2)"}, "is a category, and has no powers"),
        ({"formula": "log(age)"}, "a range above 0"),
        ({"id": "bmi"}, "is to say whose rows are, and is a feature"),
    ],
)
def test_a_design_that_cannot_be_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        design(**settings)


def test_without_target_or_ranges_there_is_no_design() -> None:
    targetless = make_dictionary({"columns": CONTENT["columns"]}, "x")
    with pytest.raises(ConfigError, match="--target COLUMN"):
        make_design(targetless)
    with pytest.raises(ConfigError, match="column 'age' has no range"):
        make_design(dictionary(age={"type": "number"}))


def test_any_change_of_the_dictionary_is_another_digest() -> None:
    digests = {
        design().digest,
        design(formula="age").digest,
        design(target="bmi").digest,
        make_design(dictionary(age={"type": "number", "range": [0, 101]})).digest,
        make_design(dictionary(age={"type": "number", "range": [0, 100], "missing": 51})).digest,
        make_design(dictionary(sex={"type": "category", "categories": ["male", "female"]})).digest,
    }
    assert len(digests) == 6
    assert design().digest == design().digest
    # Whose rows are is a site's own business.
    assert design(id="other").digest == design().digest


def test_a_card_brings_the_design_back(tmp_path: Path) -> None:
    made = design(formula="age*sex")
    again = Design.of_card(msgspec.json.decode(msgspec.json.encode(made.portable)))
    assert (again.digest, again.columns) == (made.digest, made.columns)
    table = read_table(written(tmp_path, CSV))
    ours = np.asarray(made.dataset("x", table).examples, dtype=np.float64)
    theirs = np.asarray(again.unlabelled("x", table).examples, dtype=np.float64)
    assert np.array_equal(ours, theirs)
    with pytest.raises(DataError, match="no usable dictionary"):
        Design.of_card({"dictionary": {}})


def test_rows_to_predict_are_all_there_or_named(tmp_path: Path) -> None:
    drops = {"type": "number", "range": [10, 60], "missing": "drop"}
    made = make_design(dictionary(bmi=drops))
    without = CSV.replace(",ill", "").replace(",yes", "").replace(",no,", ",")
    assert len(load_unlabelled(written(tmp_path, without), design=made)) == 3
    found = load_unlabelled(written(tmp_path, without.replace("30,", ",")), design=made)
    assert len(found) == 2
    assert found.origin is not None
    assert found.origin.table is not None
    assert found.origin.table.dropped == (DroppedRow(1, 4),)
    with pytest.raises(DataError, match="all 1 rows have a missing value"):
        made.unlabelled("x", table_of_frame({k: [v] for k, v in _row(bmi="").items()}, "x"))


def test_sites_are_files_of_one_design(tmp_path: Path) -> None:
    for name in ("north.csv", "south.csv"):
        written(tmp_path, CSV, name)
    clients = load_clients(str(tmp_path / "*.csv"), design=design())
    assert [client.name for client in clients] == ["north", "south"]
    with pytest.raises(DataError, match="nothing says what its columns are; give --dictionary"):
        load(tmp_path / "north.csv")
    with pytest.raises(DataError, match="is no table that is read here"):
        load(written(tmp_path, b"x", "site.xlsx"), design=design())
    with pytest.raises(DataError, match="is a folder"):
        load(tmp_path, design=design())
