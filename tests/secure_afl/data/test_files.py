import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from secure_afl.data.classes import MAX_CLASSES, sort_names
from secure_afl.data.dataset import Dataset, align, check_alike, split_holdout
from secure_afl.data.files import digits_table, embedded_digits, has_split, load, load_clients
from secure_afl.data.images import read_image
from secure_afl.errors import DataError


def features(labels: list[int], classes: tuple[str, ...], name: str = "site") -> Dataset:
    rows = np.arange(len(labels) * 2, dtype=np.float32).reshape(-1, 2)
    return Dataset(name, rows, np.array(labels, dtype=np.int64), classes)


def save_image(path: Path, colour: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4), (colour, 0, 0)).save(path)


# Construction


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ((), "no examples"),
        (("a.jpg",), "not a pathlib.Path"),
        ([[1.0]], "type list"),
        (np.zeros((0, 3), np.float32), r"shape \(0, 3\)"),
        (np.zeros((3, 0), np.float32), r"shape \(3, 0\)"),
        (np.zeros((2, 3), np.int64), "dtype int64 are not floats"),
        (np.zeros((2, 3, 3), np.float32), "dtype float32 are not uint8"),
        (np.zeros((2, 3, 3, 4), np.uint8), r"\(2, 3, 3, 4\)"),
        (np.zeros(2, np.float32), r"shape \(2,\)"),
    ],
)
def test_examples_that_cannot_be_are_refused(examples: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Dataset("site", examples, np.zeros(2, np.int64), ("a",))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 2]), r"label 2 at row 1 is not in 0\.\.1"),
        (np.array([-1, 0]), "label -1 at row 0"),
        (np.array([0]), "2 examples but 1 labels"),
        (np.array([0.0, 1.0]), "dtype float64"),
        (np.array([[0], [1]]), r"shape \(2, 1\)"),
    ],
)
def test_labels_that_cannot_be_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Dataset("site", np.zeros((2, 3), np.float32), labels, ("a", "b"))


def test_features_that_are_not_finite_are_counted() -> None:
    rows = np.zeros((4, 3))
    rows[1, 0], rows[1, 2], rows[3, 1] = np.nan, np.inf, -np.inf
    with pytest.raises(DataError, match="row 1 has NaN or infinity in 2 of 3 columns, and 2 rows"):
        Dataset("site", rows, np.zeros(4, np.int64), ("a",))


@pytest.mark.parametrize("classes", [(), ("a", "b", "a")])
def test_classes_must_be_there_and_differ(classes: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"class"):
        Dataset("site", np.zeros((1, 1)), np.zeros(1, np.int64), classes)


def test_take_keeps_examples_with_their_labels() -> None:
    digits = embedded_digits()
    assert digits.holds_images
    assert digits.width is None
    some = digits.take(np.array([5, 3]))
    assert len(some) == 2
    np.testing.assert_array_equal(some.image(1), digits.image(3))
    np.testing.assert_array_equal(some.labels, digits.labels[[5, 3]])


def test_digests_tell_images_apart_by_content_and_shape() -> None:
    pixels = np.arange(12, dtype=np.uint8)
    labels = np.zeros(2, np.int64)
    wide = Dataset("a", np.stack([pixels.reshape(3, 4)] * 2), labels, ("a",))
    tall = Dataset("b", np.stack([pixels.reshape(4, 3)] * 2), labels, ("a",))
    assert wide.image_digest(0) == wide.image_digest(1)
    assert wide.image_digest(0) != tall.image_digest(0)


def test_features_have_no_images() -> None:
    site = features([0], ("a",))
    assert not site.holds_images
    for ask in (site.image, site.image_digest):
        with pytest.raises(DataError, match="features of width 2, not images"):
            ask(0)


# Images


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_eight_bit_images_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    Image.new("L", (5, 4), 255).convert(mode).save(path)
    pixels = read_image(path)
    assert pixels.shape == (4, 5, 3)
    assert pixels.dtype == np.uint8
    assert pixels.min() >= 250


def test_a_transparent_palette_is_read_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.new("P", (5, 4), 1).save(path, transparency=b"\x00\x80")
    assert read_image(path).shape == (4, 5, 3)


def test_sixteen_bits_are_refused_and_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / "x_ray.png"
    Image.fromarray(np.full((4, 5), 40_000, np.uint16)).save(path)
    with pytest.raises(DataError, match=r"x_ray\.png has pixels of mode I.*8 bits"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_damaged_image_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"damaged{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    for content in (b"", b"no image", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"damaged{suffix} cannot be read"):
            read_image(path)
    path.unlink()
    with pytest.raises(DataError, match=f"damaged{suffix} cannot be read"):
        read_image(path)


# Folders


def test_a_folder_of_class_folders_is_a_client(tmp_path: Path) -> None:
    for name in ("10/a.jpg", "9/b.JPEG", "9/c.Png"):
        save_image(tmp_path / "site.1" / name)
    for ignored in (".DS_Store", "notes.txt", "9/Thumbs.db", "9/._b.jpg"):
        (tmp_path / "site.1" / ignored).write_bytes(b"?")
    (tmp_path / "site.1" / "empty").mkdir()
    site = load(tmp_path / "site.1")
    assert site.name == "site.1"
    assert site.classes == ("9", "10")
    np.testing.assert_array_equal(site.labels, [0, 0, 1])
    assert site.image(0).shape == (4, 5, 3)
    assert len({site.image_digest(index) for index in range(3)}) == 2


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("a.jpg", r"a\.jpg lies outside of a class folder; move it"),
        ("site_0/cat/a.jpg", r"each folder in .* is a client, give the pattern '.*\*'"),
        ("cat/a.txt", "holds no images"),
    ],
)
def test_folders_of_another_shape_are_refused(tmp_path: Path, image: str, message: str) -> None:
    (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / image).touch()
    with pytest.raises(DataError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("name", ["missing.npz", "missing"])
def test_a_missing_path_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name} does not exist"):
        load(tmp_path / name)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.md").touch()
    with pytest.raises(DataError, match=r"readme\.md is neither a folder"):
        load(tmp_path / "readme.md")


# Files


@pytest.mark.parametrize("examples_key", ["features", "x"])
@pytest.mark.parametrize("labels_key", ["labels", "y"])
def test_an_npz_of_features(tmp_path: Path, examples_key: str, labels_key: str) -> None:
    path = tmp_path / "site.npz"
    labels = np.array([[2.0], [0.0]], dtype=np.float32)
    arrays: dict[str, Any] = {examples_key: np.array([[1, 2], [3, 4]]), labels_key: labels}
    np.savez(path, **arrays)
    site = load(path, split="test")
    assert site.name == "site"
    assert site.width == 2
    # A number that nobody has is no class.
    assert site.classes == ("0", "2")
    np.testing.assert_array_equal(site.labels, [1, 0])
    assert not has_split(path, "test")


def test_an_npz_of_images_with_class_names(tmp_path: Path) -> None:
    path = tmp_path / "site.npz"
    np.savez(
        path,
        images=np.zeros((2, 3, 3), np.uint8),
        labels=np.array([0, 0], np.uint8),
        classes=np.array(["healthy", "ill"]),
    )
    site = load(path)
    assert site.holds_images
    assert site.classes == ("healthy", "ill")


def test_the_split_chooses_in_a_medmnist_file(tmp_path: Path) -> None:
    path = tmp_path / "med.npz"
    arrays: dict[str, Any] = {}
    for split, rows in (("train", 4), ("test", 3)):
        arrays[f"{split}_images"] = np.zeros((rows, 3, 3), np.uint8)
        arrays[f"{split}_labels"] = np.ones((rows, 1), np.uint8)
    np.savez_compressed(path, **arrays)
    assert len(load(path)) == 4
    assert len(load(path, "test")) == 3
    with pytest.raises(DataError, match="no split 'val'; it has train, test"):
        load(path, "val")
    assert has_split(path, "test")
    assert not has_split(path, "val")
    assert not has_split(tmp_path, "test")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((1, 2, 2), np.uint8)}, "exactly one of labels, y"),
        ({"y": np.zeros(1)}, "exactly one of images, features, x"),
        (
            {"x": np.zeros((1, 2)), "features": np.zeros((1, 2)), "y": np.zeros(1)},
            "exactly one of images, features, x",
        ),
        ({"x": np.zeros((1, 2)), "y": np.zeros((1, 3))}, r"shape \(1, 3\)"),
        ({"x": np.zeros((1, 2)), "y": np.array([1j])}, "dtype complex128"),
        ({"x": np.zeros((2, 2)), "y": np.eye(2)}, r"one-hot; .*argmax"),
        ({"x": np.zeros((2, 2)), "y": np.array([0, 0.5])}, "label 0.5 at row 1"),
        ({"x": np.zeros((1, 2)), "y": np.array([np.nan])}, "label nan at row 0"),
        ({"x": np.zeros((1, 2)), "y": np.array([-1])}, "label -1 at row 0"),
        (
            {"x": np.zeros((MAX_CLASSES + 1, 1)), "y": np.arange(MAX_CLASSES + 1)},
            f"{MAX_CLASSES + 1} different labels",
        ),
        ({"x": np.zeros((1, 2)), "y": np.array([2.0**60])}, "label 1.15"),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0)}, "no examples"),
        ({"x": np.zeros((2, 2)), "y": np.zeros(3)}, "2 examples but 3 labels"),
        ({"x": np.array([[None]], dtype=object), "y": np.zeros(1)}, "Python objects"),
        ({"x": np.zeros((1, 2)), "y": np.zeros(1), "classes": np.array([b"\xff"])}, "cannot be"),
    ],
)
def test_an_npz_that_cannot_be_is_refused(
    tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "site.npz", **arrays)
    with pytest.raises(DataError, match=message) as error:
        load(tmp_path / "site.npz")
    assert "site" in str(error.value)


def test_a_damaged_npz_is_named_wherever_the_damage_is(tmp_path: Path) -> None:
    path = tmp_path / "site.npz"
    noise = np.random.default_rng(0).integers(0, 256, (8, 9, 9), dtype=np.uint8)
    np.savez_compressed(path, images=noise, labels=np.zeros(8, np.int64))
    whole = path.read_bytes()
    assert len(load(path)) == 8
    flipped = bytearray(whole)
    flipped[200] ^= 0xFF
    for content in (b"", b"PK\x03\x04", whole[:100], whole[:-30], bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"site\.npz cannot be read as an \.npz"):
            load(path)
    np.save(path.with_suffix(".npy"), noise)
    path.with_suffix(".npy").rename(path)
    with pytest.raises(DataError, match="not a zip archive"):
        load(path)


# Clients


def test_clients_share_one_class_list(tmp_path: Path) -> None:
    for image in ("site_0/2/a.png", "site_0/10/b.png", "site_1/1/c.png"):
        save_image(tmp_path / image)
    clients = load_clients(str(tmp_path / "site_*"))
    assert [client.name for client in clients] == ["site_0", "site_1"]
    assert {client.classes for client in clients} == {("1", "2", "10")}
    assert [client.labels.tolist() for client in clients] == [[1, 2], [0]]


def test_a_literal_path_may_look_like_a_pattern(tmp_path: Path) -> None:
    save_image(tmp_path / "site[1]" / "a" / "b.png")
    assert [client.name for client in load_clients(str(tmp_path / "site[1]"))] == ["site[1]"]


def test_clients_of_one_name_are_told_apart_by_their_folder(tmp_path: Path) -> None:
    for site in ("north", "south"):
        save_image(tmp_path / site / "train" / "a" / "b.png")
    names = [client.name for client in load_clients(str(tmp_path / "*" / "train"))]
    assert names == ["north_train", "south_train"]
    (tmp_path / "x").mkdir()
    (tmp_path / "north").rename(tmp_path / "x" / "south")
    with pytest.raises(DataError, match="would both be the client 'south_train'; rename"):
        load_clients(str(tmp_path / "**" / "train"))


def test_a_pattern_that_matches_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no path matches '.*nothing_\*'"):
        load_clients(str(tmp_path / "nothing_*"))
    with pytest.raises(DataError, match="give one CSV or Parquet file per client"):
        load_clients(str(tmp_path / "*.csv"))


def test_clients_must_be_alike(tmp_path: Path) -> None:
    for name, width in (("a", 2), ("b", 3)):
        np.savez(tmp_path / f"{name}.npz", x=np.zeros((1, width)), y=np.zeros(1))
    with pytest.raises(DataError, match=r"a holds features of width 2 but b holds .* width 3"):
        load_clients(str(tmp_path / "*.npz"))
    with pytest.raises(DataError, match="digits holds images but site holds features of width 2"):
        check_alike([embedded_digits(), features([0], ("a",))])


def test_align_follows_names_and_refuses_an_unknown_class() -> None:
    site = features([0, 1], ("b", "a"))
    [aligned] = align([site], ("a", "b", "c"))
    assert aligned.labels.tolist() == [1, 0]
    assert aligned.classes == ("a", "b", "c")
    with pytest.raises(DataError, match=r"site has examples of class 'b', .* classes a, c"):
        align([site], ("a", "c"))
    # A class name without an example does no harm.
    assert align([features([1], ("b", "a"))], ("a", "c"))[0].labels.tolist() == [0]


@given(st.permutations([str(number) for number in range(12)]))
def test_numbers_sort_as_numbers(names: list[str]) -> None:
    assert sort_names(names) == tuple(str(number) for number in range(12))
    assert sort_names([*names, "x", "x"])[:3] == ("0", "1", "10")


def test_the_embedded_digits_are_images() -> None:
    digits = embedded_digits()
    assert len(digits) == 1797
    assert isinstance(digits.examples, np.ndarray)
    assert digits.examples.dtype == np.uint8
    assert (digits.examples.min(), digits.examples.max()) == (0, 255)
    assert set(digits.labels) == set(range(10))


# Holdout


@given(
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=6).filter(any),
    fraction=st.floats(0, 1, exclude_max=True),
    seed=st.integers(0, 2**32),
)
def test_a_holdout_is_stratified(counts: list[int], fraction: float, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    site = features(labels.tolist(), tuple(str(label) for label in range(len(counts))))
    train, holdout = split_holdout(site, fraction, np.random.default_rng(seed))
    held = [] if holdout is None else holdout.labels.tolist()
    assert len(train) + len(held) == len(site)
    assert len(train) >= 1
    assert abs(len(held) - fraction * len(site)) <= 0.5 + 1e-9 or len(train) == 1
    rows = [row.tobytes() for part in (train, holdout) if part for row in np.asarray(part.examples)]
    assert sorted(rows) == sorted(row.tobytes() for row in np.asarray(site.examples))
    if len(train) > 1:
        for label, count in enumerate(counts):
            assert abs(held.count(label) - fraction * count) <= 1 + 1e-9
    again, _ = split_holdout(site, fraction, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.asarray(again.examples), np.asarray(train.examples))


def test_small_clients_do_not_all_hold_out_the_same_classes() -> None:
    site = features(list(range(10)), tuple("abcdefghij"))
    held: set[int] = set()
    for seed in range(50):
        _, holdout = split_holdout(site, 0.2, np.random.default_rng(seed))
        assert holdout is not None
        held |= set(holdout.labels.tolist())
    assert held == set(range(10))


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_holdout_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(DataError, match=re.escape("not in [0, 1)")):
        split_holdout(features([0], ("a",)), fraction, np.random.default_rng(0))


# Real data


@pytest.fixture
def real() -> Callable[[str], Path]:
    folder = os.environ.get("SECURE_AFL_DATA")
    if not folder:
        pytest.skip("SECURE_AFL_DATA is not set to the folder of real data")
    return Path(folder).joinpath


def test_the_sign_digits_load(real: Callable[[str], Path]) -> None:
    clients = load_clients(str(real("sign_digits") / "train" / "site_*"))
    assert (len(clients), sum(len(client) for client in clients)) == (16, 1633)
    assert clients[0].classes == tuple(str(digit) for digit in range(10))
    assert clients[0].image(0).shape == (100, 100, 3)
    [test] = align([load(real("sign_digits") / "test")], clients[0].classes)
    assert len(test) == 429


def test_pneumoniamnist_loads(real: Callable[[str], Path]) -> None:
    path = real("pneumoniamnist.npz")
    sizes = [len(load(path, split)) for split in ("train", "val", "test")]
    assert sizes == [4708, 524, 624]
    assert load(path).classes == ("0", "1")


def test_the_digits_are_read_without_scikit_learn_s_modules() -> None:
    code = (
        "import sys; from secure_afl.data.files import embedded_digits\n"
        "print(len(embedded_digits()), sorted({'sklearn', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1797 []"
    loaded = digits_table(["nowhere"])
    digits = embedded_digits()
    np.testing.assert_array_equal(digits.labels, loaded[:, 64])
    for index in (0, 1, 1796):
        grey = np.rint(loaded[index, :64].reshape(8, 8) * (255 / 16))
        np.testing.assert_array_equal(digits.image(index), grey)
