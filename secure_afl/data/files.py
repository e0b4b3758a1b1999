"""Data sets from disk: folders of images, .npz files, and scikit-learn's digits."""

import glob
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_afl.data.dataset import (
    IMAGE_SUFFIXES,
    MAX_CLASSES,
    SPLITS,
    Dataset,
    Examples,
    align,
    check_alike,
    sort_names,
)
from secure_afl.errors import DataError


def load(path: str | Path, split: str = "train") -> Dataset:
    """Load one client: an image folder `<class>/*.jpg|jpeg|png`, or an `.npz` file.

    An `.npz` holds `images`, `features` or `x` with `labels` or `y`, or the MedMNIST keys
    `{train,val,test}_{images,labels}`, of which `split` chooses; `split` has no effect on other
    files. It may name its `classes`; without, they are the numbers 0..max(labels). Class folders
    are sorted, numerically where all are numbers; files that are no images are ignored. The
    dataset's name is that of the folder, or of the file without its suffix.

    Raises:
        DataError: anything that cannot be loaded, with the fix.
    """
    path = Path(path)
    if path.is_dir():
        try:
            return _load_folder(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error}); check its permissions") from error
    if not path.exists():
        raise DataError(f"{path} does not exist; give an image folder or an .npz file")
    if path.suffix.lower() != ".npz":
        raise DataError(
            f"{path} is neither a folder of images nor an .npz file; convert it to one of them, "
            "or narrow the pattern so that it does not match"
        )
    return _load_npz(path, split)


def load_unlabelled(path: str | Path, split: str = "test") -> Dataset:
    """Load examples whose labels are unknown; all labels are 0, of the one class "?".

    An image file, a folder of images at any depth, or an `.npz` as for `load`, where labels need
    not be there and are not looked at.

    Raises:
        DataError: anything that cannot be loaded, with the fix.
    """
    path = Path(path)
    examples: Examples
    if path.suffix.lower() == ".npz":
        examples = _npz_examples(path, split)
    elif path.is_dir():
        found = (file for file in sorted(path.rglob("*")) if not file.name.startswith("."))
        examples = tuple(file for file in found if file.suffix.lower() in IMAGE_SUFFIXES)
    else:
        examples = (path,)
    if len(examples) == 0:
        raise DataError(f"{path} holds no images; give a folder with .jpg, .jpeg or .png files")
    return Dataset(_name_of(path), examples, np.zeros(len(examples), dtype=np.int64), ("?",))


def load_clients(pattern: str) -> list[Dataset]:
    """Load each match of a glob pattern (`**` allowed) as a client, sorted by path.

    A literal path is a pattern too. All clients are relabelled onto one shared class list: the
    sorted union. A client is named like its folder or file; where names repeat, the parent's name
    and an underscore go in front.

    Raises:
        DataError: nothing matches, names still repeat, or the clients are not alike.
    """
    paths = client_paths(pattern)
    names = _client_names(paths)
    clients = [replace(load(path), name=name) for path, name in zip(paths, names, strict=True)]
    check_alike(clients)
    return align(clients, sort_names(name for client in clients for name in client.classes))


def client_paths(pattern: str) -> list[Path]:
    """Return every path that matches the pattern of `load_clients`, sorted.

    Raises:
        DataError: none matches, or two are one folder or file by a link.
    """
    # A literal path may hold characters that glob takes for a pattern, and Path.glob refuses
    # absolute patterns.
    literal = Path(pattern).exists()
    found = [pattern] if literal else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    if not found:
        raise DataError(f"no path matches {pattern!r}; give one folder or .npz file per client")
    paths = [Path(path) for path in found]
    if len({path.resolve() for path in paths}) < len(paths):
        raise DataError(f"{pattern!r} matches one folder or file twice, by a link; name it once")
    return paths


def embedded_digits() -> Dataset:
    """Return scikit-learn's handwritten digits.

    They are 1,797 uint8 images (8, 8) in 0..255, classes 0..9.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    names = tuple(str(digit) for digit in range(10))
    return Dataset("digits", images, digits.target.astype(np.int64), names)


def has_split(path: str | Path, split: str) -> bool:
    """Return whether a path is an `.npz` file with `{split}_images` and `{split}_labels`.

    Raises:
        DataError: an `.npz` file that cannot be read.
    """
    path = Path(path)
    if path.is_dir() or path.suffix.lower() != ".npz":
        return False
    return {f"{split}_images", f"{split}_labels"} <= set(_npz_keys(path))


def _load_folder(folder: Path) -> Dataset:
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    for entry in entries:
        if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file():
            raise DataError(
                f"{entry} lies outside of a class folder; move it to {folder}/<class>/{entry.name}"
            )
    by_class = {entry.name: _images_in(entry) for entry in entries if entry.is_dir()}
    classes = sort_names(name for name, files in by_class.items() if files)
    if not classes:
        raise DataError(
            f"{folder} holds no images; put them at {folder}/<class>/<name>.jpg, .jpeg or .png"
        )
    files = [file for name in classes for file in by_class[name]]
    counts = [len(by_class[name]) for name in classes]
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
    return Dataset(_name_of(folder), tuple(files), labels, classes)


def _images_in(class_folder: Path) -> list[Path]:
    files = []
    for entry in sorted(class_folder.iterdir()):
        # macOS leaves hidden "._name.jpg" files that are not images.
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            client = class_folder.parent
            raise DataError(
                f"{entry} is a folder inside the class folder {class_folder}; move its images up, "
                f"or, if each folder in {client} is a client, give the pattern '{client}/*'"
            )
        if entry.suffix.lower() in IMAGE_SUFFIXES:
            files.append(entry)
    return files


def _load_npz(path: Path, split: str) -> Dataset:
    examples = _npz_examples(path, split)
    keys = _npz_keys(path)
    has_splits = f"{split}_images" in keys
    labels_key = _one_key(path, keys, (f"{split}_labels",) if has_splits else ("labels", "y"))
    with _reading(path), np.load(path, allow_pickle=False) as archive:
        raw_labels = archive[labels_key]
        names = archive["classes"].astype(str).reshape(-1) if "classes" in keys else None
    labels = _whole_labels(path, raw_labels)
    if names is not None:
        classes = tuple(str(name) for name in names)
    else:
        classes = tuple(str(label) for label in range(_largest_label(path, labels) + 1))
    return Dataset(_name_of(path), examples, labels, classes)


def _npz_examples(path: Path, split: str) -> NDArray[Any]:
    keys = _npz_keys(path)
    if present := [name for name in SPLITS if f"{name}_images" in keys]:
        if split not in present:
            raise DataError(f"{path} has no split {split!r}; it has {', '.join(present)}")
        key = f"{split}_images"
    else:
        key = _one_key(path, keys, ("images", "features", "x"))
    with _reading(path), np.load(path, allow_pickle=False) as archive:
        examples: NDArray[Any] = archive[key]
    if examples.ndim == 2 and examples.dtype.kind in "iu":
        return examples.astype(np.float32)
    return examples


def _npz_keys(path: Path) -> list[str]:
    with _reading(path):
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("not a zip archive")
        with np.load(path, allow_pickle=False) as archive:
            return list(archive.files)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read as an .npz file ({error}); it may be truncated or hold Python "
            "objects: copy it again, or save plain arrays with numpy.savez_compressed"
        ) from error


def _one_key(path: Path, keys: Sequence[str], allowed: Sequence[str]) -> str:
    present = [key for key in allowed if key in keys]
    if len(present) != 1:
        raise DataError(
            f"{path} has the arrays {', '.join(keys) or 'none'}; "
            f"it needs exactly one of {', '.join(allowed)}"
        )
    return present[0]


def _whole_labels(path: Path, labels: NDArray[Any]) -> NDArray[np.int64]:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "biuf":
        raise DataError(
            f"{path}: labels of shape {labels.shape} and dtype {labels.dtype} are not class "
            "numbers; give whole numbers from 0 of shape (n,), one class per example"
        )
    # The comparison also catches NaN, and values that int64 cannot hold.
    outside = ~((labels >= 0) & (labels < MAX_CLASSES))
    fractional = ~outside & (np.floor(labels) != labels) if labels.dtype.kind == "f" else outside
    if (bad := np.flatnonzero(outside | fractional)).size:
        raise DataError(
            f"{path}: label {labels[bad[0]]} at row {bad[0]} is not a whole number in "
            f"0..{MAX_CLASSES - 1}; number the classes from 0"
        )
    return labels.astype(np.int64)


def _largest_label(path: Path, labels: NDArray[np.int64]) -> int:
    if labels.size == 0:
        raise DataError(f"{path} holds no examples; at least 1 is needed")
    return int(labels.max())


def _client_names(paths: Sequence[Path]) -> list[str]:
    names = [_name_of(path) for path in paths]
    if len(set(names)) < len(names):
        names = [f"{path.absolute().parent.name}_{_name_of(path)}" for path in paths]
    seen: dict[str, Path] = {}
    for name, path in zip(names, paths, strict=True):
        if name in seen:
            raise DataError(
                f"{seen[name]} and {path} would both be the client {name!r}; rename one of them"
            )
        seen[name] = path
    return names


def _name_of(path: Path) -> str:
    # A folder may hold dots in its name, and "." has no name at all.
    return path.absolute().name if path.is_dir() else path.stem
