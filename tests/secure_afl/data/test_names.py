"""Class names that are one, that only look like one, and the file that maps them."""

import codecs
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from secure_afl.data.classes import check_alike, check_name, check_numbering, folded, similar, unite
from secure_afl.data.dataset import Dataset
from secure_afl.data.files import load, load_clients
from secure_afl.data.mapping import Mapping, read_mapping
from secure_afl.errors import ConfigError, DataError

COMPOSED, DECOMPOSED = "M\u00fcdigkeit", "Mu\u0308digkeit"


def site(folder: Path, *classes: str, images: int = 2) -> Path:
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(images):
            picture = Image.new("RGB", (4, 4), (number * 40, index * 9, len(folder.name)))
            picture.save(folder / name / f"{number}_{index}.png")
    return folder


def table(path: Path, labels: object, **arrays: object) -> Path:
    rows = np.random.default_rng(len(path.stem)).standard_normal((len(list(labels)), 3))  # type: ignore[call-overload]
    np.savez(path, features=rows.astype(np.float32), labels=labels, **arrays)  # type: ignore[arg-type]
    return path


def test_composed_and_decomposed_names_are_one_class(tmp_path: Path) -> None:
    site(tmp_path / "mac", DECOMPOSED, "gesund")
    site(tmp_path / "linux", COMPOSED, "gesund")
    clients = load_clients(str(tmp_path / "*"))
    assert clients[0].classes == (COMPOSED, "gesund")
    assert [np.bincount(client.labels).tolist() for client in clients] == [[2, 2], [2, 2]]


def test_both_forms_in_one_folder_are_one_class_in_order(tmp_path: Path) -> None:
    found = load(site(tmp_path / "a", DECOMPOSED, "Atmung", COMPOSED))
    assert found.classes == ("Atmung", COMPOSED)
    assert found.labels.tolist() == [0, 0, 1, 1, 1, 1]
    for index, label in enumerate(found.labels):
        assert isinstance(found.examples, tuple)
        assert load_name(found.examples[index]) == found.classes[label]


def load_name(path: Path) -> str:
    import unicodedata

    return unicodedata.normalize("NFC", path.parent.name)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Pneumonia", "pneumonia"),
        ("STRASSE", "straße"),
        ("7", "007"),
        ("grade 01", "grade 1"),
        ("1", "1.0"),
        ("no finding", "no finding "),
        ("no finding", "no  finding"),
        ("no finding", "no\u00a0finding"),
        ("cyst", "cy\u200bst"),
        ("\uff21\uff22", "AB"),
        ("ﬁbrosis", "fibrosis"),
    ],
)
def test_names_that_look_like_one_are_refused_unless_mapped(first: str, second: str) -> None:
    sites = {"north": (first, "other"), "south": (second, "other")}
    with pytest.raises(DataError, match=r"of north\) and .*of south\) look like one.*\[classes\]"):
        check_alike(sites, frozenset())
    # At one site as well.
    with pytest.raises(DataError, match="look like one"):
        check_alike({"north": (first, second)}, frozenset())
    check_alike(sites, frozenset({first, second}))
    with pytest.raises(DataError, match="look like one"):
        check_alike(sites, frozenset({first}))


@pytest.mark.parametrize(
    ("first", "second"), [("10", "1"), ("0", "00x"), ("1.05", "1.5"), ("1.10", "1.1"), ("a", "á")]
)
def test_names_that_differ_stay_apart(first: str, second: str) -> None:
    check_alike({"north": (first,), "south": (second,)}, frozenset())


@given(st.text(max_size=12))
def test_folding_is_done_once(name: str) -> None:
    assert folded(folded(name)) == folded(name)


@given(st.lists(st.text(min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=8))
def test_uniting_keeps_every_row_in_its_class(sources: list[str]) -> None:
    import unicodedata

    labels = np.arange(len(sources), dtype=np.int64)
    try:
        places, classes = unite("here", labels, sources, Mapping())
    except DataError:
        return
    assert len(set(classes)) == len(classes)
    for source, place in zip(sources, places, strict=True):
        assert classes[place] == unicodedata.normalize("NFC", source)


@pytest.mark.parametrize("name", ["", "  ", "a\x1b[31mb", "two\nlines", "x" * 201, "\udce9"])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="class"):
        check_name("here", name)


def test_numbers_beside_names_are_refused_with_both_lists(tmp_path: Path) -> None:
    table(tmp_path / "named.npz", [0, 1, 1], classes=np.array(["healthy", "ill"]))
    table(tmp_path / "numbered.npz", [0, 1, 0])
    with pytest.raises(DataError, match=r"names its classes \(healthy, ill\).*numbers .*\(0, 1\)"):
        load_clients(str(tmp_path / "*.npz"))
    mapping = Mapping(classes={"0": "healthy", "1": "ill"})
    clients = load_clients(str(tmp_path / "*.npz"), mapping)
    assert [client.labels.tolist() for client in clients] == [[0, 1, 1], [0, 1, 0]]
    # A site that has both knows what it does.
    check_numbering({"a": ("0", "1"), "b": ("0", "ill")})


def test_numbers_that_nobody_has_are_no_classes(tmp_path: Path) -> None:
    table(tmp_path / "a.npz", [1, 2, 2])
    table(tmp_path / "b.npz", np.array([3.0, 1.0]))
    assert load_clients(str(tmp_path / "*.npz"))[0].classes == ("1", "2", "3")
    table(tmp_path / "a.npz", [0, 6000, 54_000])
    assert load(tmp_path / "a.npz").classes == ("0", "6000", "54000")


@pytest.mark.parametrize(
    "labels", [np.array(["ill", "well", "ill"]), np.array([b"ill", b"well", b"ill"])]
)
def test_words_are_labels(tmp_path: Path, labels: object) -> None:
    found = load(table(tmp_path / "a.npz", labels))
    assert found.classes == ("ill", "well")
    assert found.labels.tolist() == [0, 1, 0]
    named = table(tmp_path / "b.npz", labels, classes=np.array(["well", "ill"]))
    assert load(named).labels.tolist() == [1, 0, 1]
    with pytest.raises(DataError, match="'ill' is not one of the file's classes well"):
        load(table(tmp_path / "c.npz", labels, classes=np.array(["well"])))


def test_labels_that_count_from_one_are_said(tmp_path: Path) -> None:
    path = table(tmp_path / "a.npz", [1, 2], classes=np.array(["a", "b"]))
    with pytest.raises(DataError, match="seem to count from 1: subtract 1"):
        load(path)
    path = table(tmp_path / "a.npz", [0, 3], classes=np.array(["a", "b"]))
    with pytest.raises(DataError, match="name all the classes"):
        load(path)


def test_names_at_two_sites_may_be_one_misspelt() -> None:
    sites = {"a": ("pneumonia", "grade_1"), "b": ("pnuemonia", "grade_2")}
    assert similar(sites, frozenset()) == [("pneumonia", "pnuemonia")]
    assert similar(sites, frozenset({"pneumonia", "pnuemonia"})) == []
    assert similar({"a": ("pneumonia", "pnuemonia")}, frozenset()) == []
    assert similar({"a": ("no_finding",), "b": ("No Finding",)}, frozenset())


# The mapping file

MAPPING = """
[classes]
"Müdigkeit" = "fatigue"
"1" = "fatigue"

[sites]
"Krankenhaus Süd" = "sued"
"""


@pytest.mark.parametrize(
    "content",
    [
        MAPPING.encode(),
        codecs.BOM_UTF8 + MAPPING.encode(),
        MAPPING.replace("\n", "\r\n").encode("utf-16"),
        codecs.BOM_UTF16_BE + MAPPING.encode("utf-16-be"),
    ],
)
def test_a_mapping_file_is_read_as_editors_save_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "names.toml"
    path.write_bytes(content)
    mapping = read_mapping(path)
    assert mapping.class_of("1") == "fatigue"
    assert mapping.site_of("Krankenhaus Su\u0308d") == "sued"
    assert mapping.class_of("2") == "2"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[classes]\n'a' = 1", "no mapping file"),
        (b"[names]\n'a' = 'b'", "no mapping file"),
        (b"[classes]\n'a' = ' '", "empty name"),
        ("[classes]\n'M\u00fc' = 'a'\n'Mu\u0308' = 'b'".encode(), "twice, in two spellings"),
        ("[classes]\n'ü' = 'a'".encode("cp1252"), "Save it as UTF-8"),
        (b"[classes", "not readable TOML"),
    ],
)
def test_a_mapping_file_that_cannot_be_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "names.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_mapping(path)
    with pytest.raises(ConfigError, match=r"missing\.toml does not exist; correct its name"):
        read_mapping(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        read_mapping(tmp_path)


def test_sites_and_classes_are_mapped(tmp_path: Path) -> None:
    site(tmp_path / "Krankenhaus Süd", DECOMPOSED, "gesund")
    site(tmp_path / "St. Mary's", "1", "0")
    mapping = Mapping(
        classes={COMPOSED: "fatigue", "1": "fatigue", "gesund": "healthy", "0": "healthy"},
        sites={"Krankenhaus Süd": "sued", "St. Mary's": "st_marys"},
    )
    clients = load_clients(str(tmp_path / "*"), mapping)
    assert [client.name for client in clients] == ["sued", "st_marys"]
    assert clients[0].classes == ("fatigue", "healthy")
    assert all(np.bincount(client.labels).tolist() == [2, 2] for client in clients)


def test_a_line_that_maps_nothing_is_refused() -> None:
    mapping = Mapping(classes={"cta": "cat"})
    with pytest.raises(ConfigError, match=r"\[classes\] has 'cta', .*there are: cat, dog"):
        mapping.check_used(["cat", "dog"], ["a"])
    with pytest.raises(ConfigError, match=r"\[sites\] has 'north'"):
        Mapping(sites={"north": "n"}).check_used(["cat"], ["nrth"])


def test_a_dataset_made_by_hand_has_no_origin() -> None:
    rows = Dataset("a", np.ones((1, 1)), np.zeros(1, np.int64), ("x",))
    assert rows.origin is None
