"""Tables between sites: every site has the dictionary, and refuses rows of another."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from protocols import Additive, Plain
from secure_afl.data.columns import Columns
from secure_afl.data.files import load
from secure_afl.data.tables.design import read_design
from secure_afl.errors import ConfigError, DataError
from secure_afl.features.table import table_backbone, table_rows
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL, Regression
from secure_afl.methods.model import LinearModel
from secure_afl.runs.description import TABLE
from secure_afl.runs.frames import table_federation
from secure_afl.runs.inference import load_model
from secure_afl.sites.ending import convened, finish
from secure_afl.sites.settings import read_run, read_site
from tests.kit.samples import make_clients
from tests.kit.sites import Sites

NAMES = ("north", "south", "west")
DICTIONARY = """
target = "ill"
[columns.age]
type = "number"
range = [0, 100]
[columns.sex]
type = "category"
categories = ["female", "male"]
[columns.ill]
type = "category"
categories = ["no", "yes", "unknown"]
"""


def tables(folder: Path, rows: int = 20) -> Sites:
    """Three hospitals with a table each, where other sites have features."""
    clients = dict(zip(NAMES, make_clients((rows,) * 3), strict=True))
    sites = Sites(folder, Additive(), clients)
    rng = np.random.default_rng(0)
    for name in (*NAMES, "collector"):
        (folder / name / "dictionary.toml").write_text(DICTIONARY)
    for name in NAMES:
        lines = [
            f"{rng.integers(0, 101)},{('female', 'male')[rng.integers(2)]},"
            f"{('no', 'yes', 'unknown')[rng.integers(3)]}"
            for _ in range(rows)
        ]
        (folder / name / "data.csv").write_text("age,sex,ill\n" + "\n".join(lines) + "\n")
        _replace(
            folder / name / "site.toml",
            'data = "data.npz"\nbackbone = "identity"',
            'data = "data.csv"\ndictionary = "dictionary.toml"',
        )
    run = folder / "collector" / "run.toml"
    kept = [
        line
        for line in run.read_text().splitlines()
        if not line.startswith(("classes", "width", "backbone"))
    ]
    run.write_text("\n".join([*kept, 'dictionary = "dictionary.toml"', ""]))
    return sites


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_sites_make_the_model_of_their_tables_in_one_place(tmp_path: Path) -> None:
    sites = tables(tmp_path)
    sites.run()
    convention = sites.conventions["collector"]
    report = convention.report(convention.model())
    assert report.row_mode == "columns"
    design = read_design(tmp_path / "north" / "dictionary.toml")
    loaded = [
        replace(load(tmp_path / name / "data.csv", design=design), name=name) for name in NAMES
    ]
    alone = Federation(
        AFL(),
        Plain(),
        feature_bits=report.feature_bits,
        row_mode="columns",
        columns=design.columns,
        backbone=table_backbone(design).digest,
    ).run([table_rows(one, design) for one in loaded], classes=design.classes, max_rows=32)
    assert np.array_equal(sites.weights(), alone.model.weights)
    for name in NAMES:
        model = sites.parties[name].model()
        assert model is not None
        assert np.array_equal(model.weights, alone.model.weights)


def test_the_receiver_of_the_sum_keeps_table_1(tmp_path: Path) -> None:
    sites = tables(tmp_path)
    sites.run()
    party, out = sites.parties["collector"], tmp_path / "collector" / "out"
    place = msgspec.structs.replace(party.site.place, out=str(out))
    party.site = msgspec.structs.replace(party.site, place=place)
    convened(party, sites.conventions["collector"])
    with (out / TABLE).open() as file:
        found = {(line["column"], line["figure"]): line for line in csv.DictReader(file)}
    read = [(tmp_path / name / "data.csv").read_text() for name in NAMES]
    assert int(found["", "rows"]["all"]) == 60
    assert int(found["sex[male]", "count"]["all"]) == sum(text.count(",male") for text in read)
    women = sum(text.count(",female") for text in read)
    assert int(found["sex[female]", "count"]["all"]) == women
    # Nobody else has it.
    assert [path.parent for path in tmp_path.rglob(TABLE)] == [out]


def test_another_dictionary_is_refused_at_home(tmp_path: Path) -> None:
    sites = tables(tmp_path)
    _replace(tmp_path / "south" / "dictionary.toml", "[0, 100]", "[0, 99]")
    for name in sites.roles:
        sites.start(name)
    sites.until(lambda: sites.conventions["collector"].convening.finished)
    assert any("made by another dictionary, target or formula" in t for t in sites.told["south"])
    assert all("dictionary" not in told for told in sites.told["collector"])


def test_a_convener_cannot_give_columns_other_names_or_units(tmp_path: Path) -> None:
    sites = tables(tmp_path)
    rows = sites.start("north").rows
    assert rows is not None
    design = read_design(tmp_path / "north" / "dictionary.toml")
    digest = table_backbone(design).digest
    rows.check(2, design.classes, digest, design.columns)
    swapped = Columns(design.columns.columns[::-1])
    for columns in (swapped, None):
        with pytest.raises(DataError, match="names other columns or ranges"):
            rows.check(2, design.classes, digest, columns)


def test_a_cell_that_is_no_value_shows_before_anybody_enrols(tmp_path: Path) -> None:
    sites = tables(tmp_path)
    with (tmp_path / "west" / "data.csv").open("a") as file:
        file.write("12,diverse,no\n")
    with pytest.raises(DataError, match=r"data\.csv, line 22: 'diverse' is no category"):
        sites.start("west")


def test_classes_are_the_dictionarys(tmp_path: Path) -> None:
    tables(tmp_path)
    site = read_site(tmp_path / "north" / "site.toml")
    assert site.place.classes == ("no", "yes", "unknown")
    collector = read_site(tmp_path / "collector" / "site.toml")
    run = tmp_path / "collector" / "run.toml"
    assert read_run(run, collector)[0].classes == ("no", "yes", "unknown")
    shutil.copy(run, tmp_path / "copy.toml")
    run.write_text(run.read_text() + 'classes = ["yes", "no", "unknown"]\n')
    with pytest.raises(ConfigError, match="leave 'classes' out"):
        read_run(run, collector)


def test_sites_have_the_coefficients_of_their_tables_in_one_place(tmp_path: Path) -> None:
    sites = tables(tmp_path)
    for name in (*NAMES, "collector"):
        _replace(tmp_path / name / "dictionary.toml", 'target = "ill"', 'target = "age"')
    for path in tmp_path.glob("*/*.toml"):
        path.write_text(path.read_text().replace('method = "afl"', 'method = "regression"'))
    run = tmp_path / "collector" / "run.toml"
    run.write_text('test = "../north/data.csv"\n' + run.read_text())
    sites.run()
    convention = sites.conventions["collector"]
    report = convention.report(convention.model())
    assert report.method == "regression"
    design = read_design(tmp_path / "north" / "dictionary.toml")
    loaded = [
        replace(load(tmp_path / name / "data.csv", design=design), name=name) for name in NAMES
    ]
    alone = Federation(
        Regression(),
        Plain(),
        row_mode="columns",
        columns=design.columns,
        backbone=table_backbone(design).digest,
    ).run(
        [table_rows(one, design) for one in loaded],
        classes=design.classes,
        max_rows=32,
        test=table_rows(loaded[0], design),
    )
    assert report.fits == alone.report.fits
    assert [c.name for c in report.fits[0].coefficients][1:] == list(design.columns.names)
    assert np.array_equal(sites.weights(), alone.model.weights)
    assert report.accuracy is None
    assert alone.report.numeric is not None
    assert report.numeric is not None
    assert report.numeric == alone.report.numeric.federated


# Ranges that sites find together


def unscaled(folder: Path) -> Sites:
    """The hospitals of `tables`, and no range for the age."""
    sites = tables(folder)
    for name in (*NAMES, "collector"):
        _replace(folder / name / "dictionary.toml", "range = [0, 100]\n", "")
    for path in folder.glob("*/site.toml"):
        path.write_text('scale = "federated"\n' + path.read_text())
    run = folder / "collector" / "run.toml"
    run.write_text('scale = "federated"\n' + run.read_text())
    return sites


def test_sites_find_a_range_and_their_cards_have_it(tmp_path: Path) -> None:
    sites = unscaled(tmp_path)
    for name in ("north", "collector"):
        path = tmp_path / name / "site.toml"
        path.write_text('out = "out"\n' + path.read_text())
    for name in sites.roles:
        sites.start(name)
    # Everybody is gone once, after the first sum.
    sites.until(lambda: any("the sum over 3 clients" in told for told in sites.told["collector"]))
    for name in sites.roles:
        sites.stop(name)
    sites.run()
    convention = sites.conventions["collector"]
    report = convened(sites.parties["collector"], convention)
    assert report.rounds == 2
    assert [(one.name, one.low, one.high) for one in report.ranges] == [("age", -128.0, 128.0)]
    assert "age" in (tmp_path / "collector" / "out" / TABLE).read_text()
    finish(sites.parties["north"])
    assert "age: range = [-128.0, 128.0]: 0 of 20 values here are cut to it" in sites.told["north"]
    for name in (*NAMES, "collector"):
        path = tmp_path / name / "dictionary.toml"
        head = '[columns.age]\ntype = "number"\n'
        path.write_text(path.read_text().replace(head, head + "range = [-128.0, 128.0]\n"))
    design = read_design(tmp_path / "north" / "dictionary.toml")
    loaded = [
        replace(load(tmp_path / name / "data.csv", design=design), name=name) for name in NAMES
    ]
    alone = table_federation(design, AFL(), Plain(), feature_bits=report.feature_bits).run(
        [table_rows(one, design) for one in loaded], classes=design.classes, max_rows=32
    )
    for name in ("north", "collector"):
        saved = load_model(tmp_path / name / "out")
        assert isinstance(saved.model, LinearModel)
        assert np.array_equal(saved.model.weights, alone.model.weights)
        assert saved.design is not None
        assert saved.design.digest == design.digest


def test_a_site_without_the_word_takes_no_part(tmp_path: Path) -> None:
    unscaled(tmp_path)
    path = tmp_path / "south" / "site.toml"
    path.write_text(path.read_text().removeprefix('scale = "federated"\n'))
    with pytest.raises(ConfigError, match="'age' has no range in the dictionary"):
        read_site(path)
    collector = tmp_path / "collector" / "run.toml"
    collector.write_text(collector.read_text().replace('dictionary = "dictionary.toml"\n', ""))
    with pytest.raises(ConfigError, match="has no 'classes'"):
        read_run(collector, read_site(tmp_path / "collector" / "site.toml"))
    collector.write_text(collector.read_text() + 'classes = ["no", "yes"]\nwidth = 2\n')
    with pytest.raises(ConfigError, match="there is no table"):
        read_run(collector, read_site(tmp_path / "collector" / "site.toml"))
