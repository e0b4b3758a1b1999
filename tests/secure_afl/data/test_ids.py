"""Ids of examples: arrays, patterns of file names, and what cannot be meant."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from secure_afl.data import account as accounting
from secure_afl.data.files import load, load_clients
from secure_afl.data.ids import parse_ids
from secure_afl.errors import ConfigError, DataError
from secure_afl.methods import AFL
from secure_afl.runs.config import RunConfig
from secure_afl.runs.prepare import read_sources
from secure_afl.sites.party import check_bound
from secure_afl.sites.rows import SiteRows
from secure_afl.sites.settings import Place, Site
from tests.kit.commands import Command


def folder(at: Path, *names: str) -> Path:
    for place, name in enumerate(names):
        path = at / "ab"[place % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4), (place, 0, 0)).save(path)
    return at


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("{id}_*", ("p1", "p2", "p1")),
        ("{id}_?.png", ("p1", "p2", "p1")),
        ("p{id}_*", ("1", "2", "1")),
        ("(p[0-9]+)_", ("p1", "p2", "p1")),
        (r"_(\d)\.png$", ("1", "1", "2")),
        (r"^p1_(\d?)", ("1", "", "2")),
    ],
)
def test_a_pattern_takes_the_id_from_each_name(
    pattern: str, wanted: tuple[str, ...], tmp_path: Path
) -> None:
    names = ("p1_1.png", "p2_1.png", "p1_2.png")
    ids = parse_ids(pattern)
    assert ids is not None
    if wanted[1]:
        data = load(folder(tmp_path / "site", *names), ids=ids)
        # Sorted by class: a has the first and the third.
        assert data.patients == (wanted[0], wanted[2], wanted[1])
        assert load(tmp_path / "site").patients is None
    else:
        with pytest.raises(DataError, match=r"1 of 3 files .* the first is p2_1.png"):
            ids.of_files(Path("site"), [Path(name) for name in names])


def test_an_id_ends_where_it_first_may_and_may_be_empty_in_an_expression_only() -> None:
    ids = parse_ids("{id}_*")
    assert ids is not None
    assert ids.of_files(Path(), [Path("a_b_c.png")]) == ("a",)
    with pytest.raises(DataError, match="1 of 1 files"):
        ids.of_files(Path(), [Path("_c.png")])
    ids = parse_ids(r"^(p\d+)?")
    assert ids is not None
    assert ids.of_files(Path(), [Path("p1.png"), Path("x.png")]) == ("p1", "")


def test_both_spellings_of_an_accent_are_one_id() -> None:
    names = [unicodedata.normalize(form, "zoé_1.png") for form in ("NFC", "NFD")]
    assert names[0] != names[1]
    for pattern in ("{id}_*", "(.*)_", unicodedata.normalize("NFD", "(zoé)")):
        ids = parse_ids(pattern)
        assert ids is not None
        assert len(set(ids.of_files(Path(), [Path(name) for name in names]))) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("person.*_", "0 groups, allowed: 1"),
        ("(p)(q)", "2 groups, allowed: 1"),
        ("(p", "no regular expression"),
        ("{id}_{id}", "2 times"),
        ("{id}*", "does not say where the id ends"),
        ("*{id}_", "does not say where the id ends"),
    ],
)
def test_a_pattern_that_cannot_be_meant_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_ids(text)


def test_names_that_do_not_match_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    for site in ("one", "two"):
        folder(tmp_path / site, "p1_1.png", "p2_1.png")
    folder(tmp_path / "two", "x.png", "y.png", "z.png")
    with pytest.raises(DataError, match=r"3 of 5 files in .*two do not match.*first is .*a/x.png"):
        load_clients(str(tmp_path / "*"), ids=parse_ids("{id}_*"))
    with pytest.raises(DataError, match=r"is the name of an array, and .*one is a folder"):
        load(tmp_path / "one", ids=parse_ids("patients"))


def save(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_an_array_is_named_or_called_patients(tmp_path: Path) -> None:
    rows, labels = np.eye(3, dtype=np.float32), np.array([0, 1, 0])
    path = save(tmp_path / "x.npz", x=rows, y=labels, patients=["a", "", "a"], person=[7, 7, 8])
    assert load(path).patients == ("a", "", "a")
    assert load(path, ids=parse_ids("person")).patients == ("7", "7", "8")
    with pytest.raises(DataError, match="no array 'patient' of ids; it has x, y, patients, person"):
        load(path, ids=parse_ids("patient"))
    with pytest.raises(DataError, match=r"is a pattern of file names, and an .npz has none"):
        load(path, ids=parse_ids("{id}_*"))
    path = save(tmp_path / "y.npz", x=rows, y=labels, person=[7.0, 7, 8])
    with pytest.raises(DataError, match=r"person of shape .* are no names"):
        load(path, ids=parse_ids("person"))
    split = save(
        tmp_path / "z.npz",
        train_images=np.zeros((2, 3, 3), np.uint8),
        train_labels=np.array([0, 1]),
        train_person=["a", "b"],
    )
    assert load(split, ids=parse_ids("person")).patients == ("a", "b")


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (["", "a", "", "a"], "2 of 4 rows have no id; each is a patient of its own"),
        (["a", "a", "a", "a"], "all 4 rows are of one patient"),
        (["a", "b", "c", "d"], "no patient has two of the 4 rows"),
    ],
)
def test_an_account_says_what_is_odd_about_ids(ids: list[str], words: str, tmp_path: Path) -> None:
    path = save(tmp_path / "x.npz", x=np.eye(4, dtype=np.float32), y=[0, 1, 0, 1], patients=ids)
    found = accounting.account(accounting.read(load(path)))
    assert [words in finding.what for finding in found.findings] == [True]


def test_ids_of_the_embedded_digits_are_refused() -> None:
    with pytest.raises(ConfigError, match="--id person goes with --clients"):
        read_sources(RunConfig(id="person"))


def test_patients_without_ids_are_refused_before_features_are_made(
    command: Command, tmp_path: Path
) -> None:
    for site in "abc":
        folder(tmp_path / site, "p1_1.png", "p2_1.png", "p1_2.png", "p3_1.png")
    settings = ("--epsilon", 1, "--unit", "patient", "--max-rows", 8, "--clients")
    # There is no such backbone: nobody came as far as to ask for it.
    run = ("run", *settings, tmp_path / "*", "--backbone", "timm:none")
    line = command.badly(*run)
    assert "client 'a' does not say whose its rows are" in line
    assert "--id" in line
    assert "4 of 4 files" in command.badly(*run, "--id", "{id}-*")


def test_an_account_takes_ids(command: Command, tmp_path: Path) -> None:
    site = folder(tmp_path / "site", "p1_1.png", "p1_2.png", "p1_3.png")
    assert "of one patient" not in command.well("inspect", site).out
    assert "all 3 rows are of one patient" in command.well("inspect", site, "--id", "{id}_*").out


def test_a_site_keeps_the_ids_that_its_settings_name(tmp_path: Path) -> None:
    rows, labels = np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1])
    file = save(tmp_path / "x.npz", x=rows, y=labels, patients=list("aabb"), person=list("abab"))
    for name, wanted in ((None, "aabb"), ("person", "abab"), (None, "aabb")):
        config = RunConfig(backbone="identity", id=name)
        site = SiteRows("x", file, config, AFL(), tmp_path / "store")
        assert site.load(4, ("0", "1")).patients == tuple(wanted)


def test_a_site_of_too_many_patients_or_without_ids_is_refused_at_home(tmp_path: Path) -> None:
    rows, labels = np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1])
    place = Place(identity="i", roster="r", state=str(tmp_path), role="client", data="d")

    def bound(max_rows: int, **arrays: object) -> str:
        file = save(tmp_path / "x.npz", x=rows, y=labels, **arrays)
        settings = {"epsilon": 1.0, "unit": "patient", "max_rows": max_rows}
        run = RunConfig(backbone="identity", **settings)  # type: ignore[arg-type]
        store = tmp_path / f"{max_rows}{sorted(arrays)}"
        return check_bound(SiteRows("x", file, run, AFL(), store), Site(place, run, ()))

    assert bound(3, patients=["a", "a", "", ""]) == "3 patients, bound 3"
    with pytest.raises(DataError, match="this site has 3 patients, more than max-rows 2"):
        bound(2, patients=["a", "a", "", ""])
    with pytest.raises(DataError, match="client 'x' does not say whose"):
        bound(3)


def test_figures_draw_the_patients_that_ids_name(command: Command, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for site in "abc":
        rows = rng.standard_normal((40, 3)).astype(np.float32)
        labels = (rows[:, 0] > 0).astype(int)
        save(tmp_path / f"{site}.npz", x=rows, y=labels, person=np.arange(40) // 4)
    out, found = tmp_path / "out", tmp_path / "found.json"
    command.well("run", "--clients", tmp_path / "[ab].npz", "--out", out)
    told = ("evaluate", out / "model.safetensors", tmp_path / "c.npz", "--json", found)
    command.well(*told)
    assert json.loads(found.read_text())["results"][0]["patients"] is None
    command.well(*told, "--id", "person")
    assert json.loads(found.read_text())["results"][0]["patients"] == 10
