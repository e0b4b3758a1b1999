"""What a site is told of its own data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from secure_afl.data.account import account, duplicates, ranked, read
from secure_afl.data.compare import compare
from secure_afl.data.dataset import Dataset, align
from secure_afl.data.files import load, load_clients, load_unlabelled
from secure_afl.errors import DataError
from tests.secure_afl.data.test_names import table


def picture(path: Path, seed: int, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def test_files_are_read_or_left_out_by_kind(tmp_path: Path) -> None:
    picture(tmp_path / "site" / "x" / "1.png", 1)
    picture(tmp_path / "site" / "x" / "2.bmp", 2)
    picture(tmp_path / "site" / "x" / "scan", 3, format="TIFF")
    picture(tmp_path / "site" / "x" / "4.png~", 4, format="PNG")
    for name in ("y/5.heic", "y/6.heic", "x/notes.txt", "x/._1.png", "labels.csv", "x/Thumbs.db"):
        path = tmp_path / "site" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"?")
    picture(tmp_path / "site" / "__MACOSX" / "x" / "1.png", 1)
    (tmp_path / "site" / "x" / "@eaDir").mkdir()
    found = account(read(load(tmp_path / "site")))
    assert (found.files, found.rows, found.classes) == (3, 3, {"x": 3})
    assert {kind.kind: kind.files for kind in found.left_out} == {
        ".heic files, which nothing here reads": 2,
        "images named .png~; rename them": 1,
        "hidden and system files": 2,
        ".txt files": 1,
        "files beside the class folders": 1,
        "folders of macOS' archiver": 1,
        "folders of a Synology server": 1,
    }
    assert found.sizes == {"5 × 6": 3}
    worst = [finding.what for finding in found.findings if finding.rank == "wrong"]
    assert worst[0].startswith("site: 2 files are left out (.heic")
    assert any("without an image that can be read: 'y'" in what for what in worst)


@pytest.mark.parametrize("name", ["__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found"])
def test_a_folder_that_no_person_made_is_no_client(tmp_path: Path, name: str) -> None:
    picture(tmp_path / name / "x" / "1.png", 1)
    with pytest.raises(DataError, match="holds nobody's images; delete it, or narrow the pattern"):
        load(tmp_path / name)
    with pytest.raises(DataError, match="delete it"):
        load_unlabelled(tmp_path / name)


def test_copies_are_counted_within_a_site_and_with_its_test_set(tmp_path: Path) -> None:
    for name, seed in (("x/1.png", 1), ("x/2.png", 2), ("x/2 copy.png", 2), ("y/1 again.png", 1)):
        picture(tmp_path / "site" / name, seed)
    picture(tmp_path / "site" / "y" / "2.bmp", 2)
    for name, seed in (("x/7.png", 7), ("x/8.png", 2), ("y/9.png", 9)):
        picture(tmp_path / "test" / name, seed)
    site, test = load(tmp_path / "site"), load(tmp_path / "test")
    found = account(read(site), read(test))
    assert (found.duplicates, found.contradictions, found.in_test) == (2, 1, 2)
    # Pixels are looked at: the picture in another format is the same one.
    whole = account(read(site, pixels=True), read(test, pixels=True))
    assert (whole.duplicates, whole.contradictions, whole.in_test) == (3, 2, 3)
    ranks = [finding.rank for finding in whole.findings]
    assert ranks == sorted(ranks, key=["wrong", "doubtful", "note"].index)
    assert "3 of 5 rows are in the test set too" in whole.findings[0].what


def test_what_cannot_be_decoded_is_listed(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        picture(tmp_path / "site" / "x" / f"{seed}.png", seed)
    for name in ("1", "2"):
        path = tmp_path / "site" / "x" / f"{name}.png"
        path.write_bytes(path.read_bytes()[:70])
    Image.new("RGB", (5, 6)).save(tmp_path / "site" / "x" / "black.png")
    found = account(read(load(tmp_path / "site"), pixels=True))
    assert len(found.unreadable) == 2
    assert "1.png cannot be read" in found.findings[0].what
    assert found.findings[0].what.endswith(")")
    assert (found.zero_rows, found.duplicates) == (1, 0)


def test_a_file_that_is_no_image_is_named_before_the_features(tmp_path: Path) -> None:
    path = picture(tmp_path / "site" / "x" / "1.png", 1)
    path.write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"1\.png cannot be read as an image"):
        read(load(tmp_path / "site"))
    Image.fromarray(np.full((4, 5), 40_000, np.uint16)).save(path)
    with pytest.raises(DataError, match=r"1\.png has pixels of mode I;16"):
        read(load(tmp_path / "site"))


def test_rows_of_zeros_and_copies_of_rows(tmp_path: Path) -> None:
    rows = np.array([[0, 0], [1, 2], [1, 2], [-0.0, 0], [1, 2], [3, 4]], dtype=np.float64)
    np.savez(tmp_path / "a.npz", x=rows, y=[0, 0, 0, 1, 1, 1])
    found = account(read(load(tmp_path / "a.npz")))
    assert (found.zero_rows, found.duplicates, found.contradictions) == (2, 3, 2)
    assert {finding.rank for finding in found.findings} == {"doubtful", "wrong"}
    # Floats of another length are the same rows.
    np.savez(tmp_path / "test.npz", x=rows[5:].astype(np.float32), y=[0])
    test = read(load(tmp_path / "test.npz"))
    assert account(read(load(tmp_path / "a.npz")), test).in_test == 1


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1)), min_size=1, max_size=30))
def test_duplicates_are_all_but_the_first(rows: list[tuple[int, int]]) -> None:
    prints = np.array([row for row, _ in rows], dtype=np.uint64)
    labels = np.array([label for _, label in rows], dtype=np.int64)
    first: dict[int, int] = {}
    again = contradicting = 0
    for row, label in rows:
        if row in first:
            again += 1
            contradicting += label != first[row]
        first.setdefault(row, label)
    assert duplicates(prints, labels) == (again, contradicting)


def test_labels_that_look_wrong_are_said(tmp_path: Path) -> None:
    shifted = load(table(tmp_path / "a.npz", [1, 2, 2], classes=np.array(["cat", "dog", "owl"])))
    assert "no row is of 'cat'" in account(read(shifted)).findings[0].what
    names = load(table(tmp_path / "b.npz", list(range(0, 3000, 100))))
    assert "30 classes of 30 rows" in account(read(names)).findings[0].what
    usual = load(table(tmp_path / "c.npz", [0, 2, 2], classes=np.array(["cat", "dog", "owl"])))
    assert account(read(usual)).findings == ()


def test_clients_are_compared_where_one_place_has_all(tmp_path: Path) -> None:
    for site, seeds in (("a", (1, 2)), ("b", (2, 3))):
        for seed in seeds:
            picture(tmp_path / site / "x" / f"{seed}.png", seed)
    [shared] = compare([read(site) for site in load_clients(str(tmp_path / "?"))], frozenset())
    assert shared.what == "1 rows are at several clients, as at a and b"

    table(tmp_path / "from0.npz", [0, 1, 1])
    table(tmp_path / "one_from1.npz", [1, 2, 2])
    clients = load_clients(str(tmp_path / "*.npz"))
    [shifted] = compare([read(site) for site in clients], frozenset())
    assert (shifted.rank, shifted.count) == ("wrong", 2)
    assert "one_from1 has the labels 1..2, from0 0..1" in shifted.what


def test_a_class_that_nobody_has_and_a_misspelt_one_are_said(tmp_path: Path) -> None:
    table(tmp_path / "a.npz", [0, 0], classes=np.array(["pneumonia", "cyst"]))
    table(tmp_path / "long.npz", [0, 1], classes=np.array(["pnuemonia", "healthy"]))
    reads = [read(site) for site in load_clients(str(tmp_path / "*.npz"))]
    said = [finding.what for finding in compare(reads, frozenset())]
    assert any("nobody has a row of the class 'cyst'" in what for what in said)
    assert any("'pneumonia' and 'pnuemonia' are at different" in what for what in said)


def test_an_account_of_a_part_has_no_path() -> None:
    whole = Dataset("a", np.eye(3), np.array([0, 1, 1]), ("x", "y"))
    found = account(read(align([whole], ("x", "y"))[0]))
    assert (found.path, found.files, found.left_out) == ("", 1, ())
    assert ranked([]) == ()
