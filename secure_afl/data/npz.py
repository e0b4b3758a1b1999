"""One client's `.npz` file: its examples, and its labels as class numbers or names."""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from secure_afl.data.classes import MAX_CLASSES, sort_names
from secure_afl.errors import DataError

SPLITS = ("train", "val", "test")
# Whole numbers up to here are themselves as floats.
_MAX_LABEL = 2**53


class Labelled(NamedTuple):
    """Labels of an `.npz`, as places in a list of names.

    Attributes:
        labels: int64 (n,).
        names: of the classes, as the file has them or as its numbers are written.
        named: the file names its classes.
    """

    labels: NDArray[np.int64]
    names: tuple[str, ...]
    named: bool


def read_examples(path: Path, split: str) -> NDArray[Any]:
    """Read images or features; whole numbers in rows become floats.

    Raises:
        DataError: a file that cannot be read, or that has no such array.
    """
    keys = read_keys(path)
    if present := [name for name in SPLITS if f"{name}_images" in keys]:
        if split not in present:
            raise DataError(f"{path} has no split {split!r}; it has {', '.join(present)}")
        key = f"{split}_images"
    else:
        key = _one_key(path, keys, ("images", "features", "x"))
    with _reading(path), np.load(path, allow_pickle=False) as archive:
        examples: NDArray[Any] = archive[key]
    if examples.ndim == 2 and examples.dtype.kind in "biu":
        return examples.astype(np.float32)
    if examples.ndim == 4 and examples.shape[3] == 1:
        return examples[:, :, :, 0]
    return examples


def read_labels(path: Path, split: str) -> Labelled:
    """Read labels and, where they are, the names of their classes.

    Without names, the classes are the numbers that occur, or the words.

    Raises:
        DataError: a file that cannot be read, or labels that are neither whole numbers nor words.
    """
    keys = read_keys(path)
    has_splits = f"{split}_images" in keys
    labels_key = _one_key(path, keys, (f"{split}_labels",) if has_splits else ("labels", "y"))
    with _reading(path), np.load(path, allow_pickle=False) as archive:
        raw = archive[labels_key]
        declared = archive["classes"] if "classes" in keys else None
        names = None if declared is None else _words(declared.reshape(-1))
    if raw.ndim == 2 and raw.shape[1] == 1:
        raw = raw[:, 0]
    if raw.dtype.kind in "US":
        with _reading(path):
            return _by_word(path, _words(raw.reshape(-1)), names)
    return _by_number(path, whole_labels(str(path), raw), names)


def read_patients(path: Path, split: str, name: str | None = None) -> tuple[str, ...] | None:
    """Read whose each example is, words or numbers; None where the file does not say.

    Args:
        name: of the array, which has to be there; by default `patients`, which need not.

    Raises:
        DataError: a file that cannot be read, no array of that name, or one that is not one name
            an example.
    """
    keys = read_keys(path)
    wanted = "patients" if name is None else name
    key = f"{split}_{wanted}" if f"{split}_images" in keys else wanted
    if key not in keys:
        if name is None:
            return None
        raise DataError(
            f"{path} has no array {key!r} of ids; it has {', '.join(keys)}: give one of them with "
            "--id, or add it"
        )
    with _reading(path), np.load(path, allow_pickle=False) as archive:
        raw = archive[key]
        if raw.ndim == 2 and raw.shape[1] == 1:
            raw = raw[:, 0]
        if raw.ndim != 1 or raw.dtype.kind not in "USiu":
            raise DataError(
                f"{path}: {key} of shape {raw.shape} and dtype {raw.dtype} are no names; give one "
                "word or whole number per example, of shape (n,)"
            )
        return tuple(_words(raw))


def read_keys(path: Path) -> list[str]:
    """Return the names of a file's arrays."""
    with _reading(path):
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("not a zip archive")
        with np.load(path, allow_pickle=False) as archive:
            return list(archive.files)


def whole_labels(where: str, labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return class numbers as int64 (n,).

    Raises:
        DataError: another shape, or numbers that are negative, fractional or too large.
    """
    if labels.ndim == 2 and _is_one_hot(labels):
        raise DataError(
            f"{where}: labels of shape {labels.shape} are one-hot; give class numbers: "
            "labels.argmax(axis=1)"
        )
    if labels.ndim != 1 or labels.dtype.kind not in "biuf":
        raise DataError(
            f"{where}: labels of shape {labels.shape} and dtype {labels.dtype} are neither class "
            "numbers nor names; give whole numbers from 0, or words, of shape (n,), one class per "
            "example"
        )
    # The comparison also catches NaN, and values that int64 cannot hold.
    outside = ~((labels >= 0) & (labels <= _MAX_LABEL))
    fractional = ~outside & (np.floor(labels) != labels) if labels.dtype.kind == "f" else outside
    if (bad := np.flatnonzero(outside | fractional)).size:
        raise DataError(
            f"{where}: label {labels[bad[0]]} at row {bad[0]} is not a whole number in "
            f"0..{_MAX_LABEL}; number the classes from 0"
        )
    return labels.astype(np.int64)


def _by_word(path: Path, words: Sequence[str], names: Sequence[str] | None) -> Labelled:
    classes = sort_names(words) if names is None else tuple(names)
    places = {name: index for index, name in enumerate(classes)}
    if unknown := [word for word in words if word not in places]:
        raise DataError(
            f"{path}: label {unknown[0]!r} is not one of the file's classes {', '.join(classes)}"
        )
    _check_number(path, len(classes))
    return Labelled(np.array([places[word] for word in words], dtype=np.int64), classes, True)


def _by_number(path: Path, labels: NDArray[np.int64], names: Sequence[str] | None) -> Labelled:
    if names is not None:
        greatest = int(labels.max(initial=-1))
        if greatest >= len(names):
            shifted = greatest == len(names) and labels.min() >= 1
            raise DataError(
                f"{path}: label {greatest} is not in 0..{len(names) - 1}, the places of its "
                f"{len(names)} class names; "
                + (
                    "the labels seem to count from 1: subtract 1"
                    if shifted
                    else "correct it, or name all the classes"
                )
            )
        return Labelled(labels, tuple(names), True)
    numbers, places = np.unique(labels, return_inverse=True)
    _check_number(path, len(numbers))
    return Labelled(places.astype(np.int64), tuple(str(number) for number in numbers), False)


def _check_number(path: Path, classes: int) -> None:
    if classes == 0:
        raise DataError(f"{path} holds no examples; at least 1 is needed")
    if classes > MAX_CLASSES:
        raise DataError(
            f"{path} has {classes} different labels; allowed: 1..{MAX_CLASSES}. Are they classes?"
        )


def _words(values: NDArray[Any]) -> list[str]:
    if values.dtype.kind == "S":
        return [bytes(value).decode() for value in values]
    return [str(value) for value in values]


def _is_one_hot(labels: NDArray[Any]) -> bool:
    if labels.dtype.kind not in "biuf" or labels.shape[1] < 2 or len(labels) == 0:
        return False
    return bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all())


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, DataError):
            raise
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
