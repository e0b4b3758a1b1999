"""Datasets: one client's images or features with their labels, from folders and .npz files."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secure_afl.data import images
from secure_afl.data.classes import MAX_CLASSES
from secure_afl.data.mapping import shorten
from secure_afl.data.scan import LeftOut
from secure_afl.errors import DataError

ImageFiles: TypeAlias = tuple[Path, ...]
"""Image files that are read when they are needed."""

Examples: TypeAlias = ImageFiles | NDArray[np.uint8] | NDArray[np.floating[Any]]
"""Image files, a uint8 array (n, h, w) or (n, h, w, 3), or float features (n, d)."""


class DroppedRow(NamedTuple):
    """A row of a table that is left out, for a value is missing.

    Attributes:
        place: among the table's rows, from 0.
        line: of the file, on which the row begins; of a Parquet file the row's number from 1.
    """

    place: int
    line: int


@dataclass(frozen=True)
class TableOrigin:
    """What a data dictionary left out of a table, and what it changed.

    Attributes:
        unread: columns that the dictionary does not have.
        dropped: rows left out, for a value is missing, in order.
        cut: columns, and how many of their values were out of range and cut to it.
        filled: columns, and for how many missing values another stands.
        few: columns of numbers that have two or three values, other than both ends, in many rows.
    """

    unread: tuple[str, ...] = ()
    dropped: tuple[DroppedRow, ...] = ()
    cut: tuple[tuple[str, int], ...] = ()
    filled: tuple[tuple[str, int], ...] = ()
    few: tuple[str, ...] = ()


@dataclass(frozen=True)
class Origin:
    """Where a dataset was read, and what was not taken from there.

    Attributes:
        path: of the folder or file; None for a frame.
        sources: names of the classes as they are there, before any mapping.
        classes: the same after mapping, of this data set alone.
        left_out: files that are not read, by kind.
        empty: class folders without an image that is read.
        named: the classes have names of their own; an .npz may only number them.
        table: what was not taken from a table as it is; None for other data.
    """

    path: Path | None
    sources: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    empty: tuple[str, ...] = ()
    named: bool = True
    table: TableOrigin | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples with their labels, checked when constructed.

    `labels` is int64 (n,) with values in 0..len(classes) - 1; a class may have no example. `origin`
    is None for arrays, and for parts of others. `patients` says
    whose each example is, (n,) words; None where the data do not say. `targets`, (n,) in [−1, 1],
    are the numbers to be predicted, scaled by their public range; labels are 0 then.
    `marks`, (n, 12, 4), are what a ledger knows a table's rows by.

    Raises:
        DataError: no examples, lengths that differ, a shape or dtype other than those of
            `Examples`, NaN or infinite features, labels out of range, or class names that repeat.
    """

    name: str
    examples: Examples = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    classes: tuple[str, ...]
    origin: Origin | None = field(default=None, repr=False)
    patients: tuple[str, ...] | None = field(default=None, repr=False)
    targets: NDArray[np.float64] | None = field(default=None, repr=False)
    marks: NDArray[np.float32] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.examples, tuple):
            _check_files(self.name, self.examples)
        elif not isinstance(self.examples, np.ndarray):
            raise DataError(
                f"{self.name}: examples of type {type(self.examples).__name__} are neither a "
                "tuple of paths nor a NumPy array; convert them"
            )
        elif self.examples.ndim == 2:
            _check_features(self.name, self.examples)
        else:
            _check_images(self.name, self.examples)
        _check_classes(self.name, self.classes)
        _check_labels(self.name, self.labels, len(self), len(self.classes))
        if self.patients is not None and len(self.patients) != len(self):
            raise DataError(
                f"{self.name}: {len(self)} examples but {len(self.patients)} patients; give one "
                "patient per example"
            )
        if self.targets is not None and self.targets.shape != (len(self),):
            raise DataError(f"{self.name}: {len(self)} examples but {len(self.targets)} targets")

    def __len__(self) -> int:
        """Return the number of examples, at least 1."""
        return len(self.examples)

    @property
    def holds_images(self) -> bool:
        """True for image files and image arrays, False for features."""
        return self.width is None

    @property
    def width(self) -> int | None:
        """Number of features of a row; None for images."""
        if isinstance(self.examples, tuple) or self.examples.ndim > 2:
            return None
        return int(self.examples.shape[1])

    def take(self, indices: NDArray[np.int64]) -> "Dataset":
        """Return the rows at `indices`, int64 (k,), in that order.

        Raises:
            DataError: no indices.
        """
        labels, examples, whose = self.labels[indices], self.examples, self.patients
        targets = None if self.targets is None else self.targets[indices]
        if isinstance(examples, tuple):
            examples = tuple(examples[index] for index in indices)
        else:
            examples = examples[indices]
        if whose is not None:
            whose = tuple(whose[index] for index in indices)
        marks = None if self.marks is None else self.marks[indices]
        return replace(
            self, examples=examples, labels=labels, patients=whose, targets=targets, marks=marks
        )

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return one image, uint8.

        An image is (h, w, 3) from a file; (h, w) or (h, w, 3) as it lies in an array.

        Raises:
            DataError: the dataset holds features, or the file cannot be read as an 8-bit image.
        """
        if isinstance(self.examples, tuple):
            return images.read_image(self.examples[index])
        self._require_images()
        image: NDArray[np.uint8] = self.examples[index]
        return image

    def image_digest(self, index: int) -> bytes:
        """Hash what an image's pixels follow from: SHA-256, 32 bytes.

        That is a file's content, or an array image's bytes, shape and dtype.

        Raises:
            DataError: the dataset holds features, or the file cannot be read.
        """
        if isinstance(self.examples, tuple):
            path = self.examples[index]
            return images.digest(path, images.read_bytes(path))
        self._require_images()
        image = self.examples[index]
        header = f"array\0{image.shape}\0{image.dtype.str}\0".encode()
        return hashlib.sha256(header + image.tobytes()).digest()

    def _require_images(self) -> None:
        if not self.holds_images:
            raise DataError(
                f"{self.name} holds features of width {self.width}, not images; "
                "use the backbone 'identity' or 'projection:<dim>' for features"
            )


def align(datasets: Sequence[Dataset], classes: tuple[str, ...]) -> list[Dataset]:
    """Relabel datasets onto a class list.

    Raises:
        DataError: a dataset has an example of a class that is not in the list.
    """
    position = {name: index for index, name in enumerate(classes)}
    aligned = []
    for dataset in datasets:
        lookup = np.array([position.get(name, -1) for name in dataset.classes], dtype=np.int64)
        labels = lookup[dataset.labels]
        if (unknown := dataset.labels[labels < 0]).size:
            raise DataError(
                f"{dataset.name} has examples of class {dataset.classes[unknown[0]]!r}, which is "
                f"not one of the clients' classes {shorten(classes)}; "
                "remove them, rename the class, or add a client that has it"
            )
        aligned.append(replace(dataset, labels=labels, classes=classes))
    return aligned


def check_alike(datasets: Sequence[Dataset]) -> None:
    """Check that all datasets hold images, or all hold features of one width.

    Raises:
        DataError: one dataset differs from the first, naming both.
    """
    first = datasets[0]
    for other in datasets[1:]:
        if other.width != first.width:
            raise DataError(
                f"{first.name} holds {_kind(first)} but {other.name} holds {_kind(other)}; "
                "all clients and the test set need the same kind of data and the same width"
            )


def split_holdout(
    dataset: Dataset, fraction: float, rng: np.random.Generator
) -> tuple[Dataset, Dataset | None]:
    """Split off a random `fraction` of the rows, in [0, 1): (train, holdout).

    `fraction * n` is rounded to the nearest count, and every class gives its share of it to within
    one row. At least one training row stays; the holdout is None where no row is left for it.
    Where rows say whose they are, the same is true of patients, each counting by its first row.

    Raises:
        DataError: a fraction outside [0, 1).
    """
    if not 0 <= fraction < 1:
        raise DataError(f"holdout fraction {fraction} is not in [0, 1); give for example 0.2")
    if dataset.patients is None:
        held_out = _held_out(dataset.labels, len(dataset.classes), fraction, rng)
    else:
        _, first, of = np.unique(dataset.patients, return_index=True, return_inverse=True)
        held_out = _held_out(dataset.labels[first], len(dataset.classes), fraction, rng)[of]
    train = dataset.take(np.flatnonzero(~held_out))
    if not held_out.any():
        return train, None
    return train, dataset.take(np.flatnonzero(held_out))


def _held_out(
    labels: NDArray[np.int64], classes: int, fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Say of each label whether it is of the `fraction` that is held out, (n,)."""
    # With rows ordered by class, every k-th row is a stratified sample. The order of the classes
    # is random, or small clients would all hold out the same classes.
    class_order = rng.permutation(classes)
    order = np.lexsort((rng.permutation(len(labels)), class_order[labels]))
    steps = np.floor(fraction * np.arange(len(labels) + 1) + 0.5)
    chosen = np.diff(steps) > 0
    if chosen.all():
        chosen[0] = False
    found = np.zeros(len(labels), dtype=bool)
    found[order[chosen]] = True
    return found


def _kind(dataset: Dataset) -> str:
    return "images" if dataset.holds_images else f"features of width {dataset.width}"


def _check_files(name: str, files: ImageFiles) -> None:
    if not files:
        raise DataError(f"{name} holds no examples; at least 1 is needed")
    if wrong := [file for file in files if not isinstance(file, Path)]:
        raise DataError(f"{name}: image file {wrong[0]!r} is not a pathlib.Path")


def _check_features(name: str, features: NDArray[Any]) -> None:
    if 0 in features.shape:
        raise DataError(
            f"{name}: features of shape {features.shape} are empty; give at least (1, 1)"
        )
    if features.dtype.kind != "f":
        raise DataError(
            f"{name}: features of dtype {features.dtype} are not floats; convert them to float32"
        )
    finite = np.isfinite(features)
    if not finite.all():
        bad_rows = np.flatnonzero(~finite.all(axis=1))
        columns = int(np.count_nonzero(~finite[bad_rows[0]]))
        raise DataError(
            f"{name}: row {bad_rows[0]} has NaN or infinity in {columns} of {features.shape[1]} "
            f"columns, and {len(bad_rows)} rows have some; remove or impute them"
        )


def _check_images(name: str, pixels: NDArray[Any]) -> None:
    grey_or_rgb = pixels.ndim == 3 or (pixels.ndim == 4 and pixels.shape[3] == 3)
    if not grey_or_rgb or 0 in pixels.shape:
        raise DataError(
            f"{name}: examples of shape {pixels.shape} are neither images (n, h, w) or "
            "(n, h, w, 3) nor features (n, d), or are empty; reshape them"
        )
    if pixels.dtype != np.uint8:
        raise DataError(
            f"{name}: images of dtype {pixels.dtype} are not uint8; scale them to 0..255 and "
            "convert them to uint8"
        )


def _check_classes(name: str, classes: tuple[str, ...]) -> None:
    if not 1 <= len(classes) <= MAX_CLASSES:
        raise DataError(f"{name}: {len(classes)} classes are not in the range 1..{MAX_CLASSES}")
    if len(set(classes)) < len(classes):
        twice = next(label for label in classes if classes.count(label) > 1)
        raise DataError(f"{name}: the class name {twice!r} is given twice; rename one")


def _check_labels(name: str, labels: NDArray[Any], examples: int, classes: int) -> None:
    if labels.dtype != np.int64 or labels.ndim != 1:
        raise DataError(
            f"{name}: labels of dtype {labels.dtype} and shape {labels.shape} are not int64 (n,)"
        )
    if len(labels) != examples:
        raise DataError(
            f"{name}: {examples} examples but {len(labels)} labels; give one label per example"
        )
    if (bad := np.flatnonzero((labels < 0) | (labels >= classes))).size:
        raise DataError(
            f"{name}: label {labels[bad[0]]} at row {bad[0]} is not in 0..{classes - 1}; "
            "correct it, or name all the classes"
        )
