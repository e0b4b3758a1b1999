"""Datasets: one client's images or features with their labels, from folders and .npz files."""

import glob
import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from secure_afl.errors import DataError

ImageFiles: TypeAlias = tuple[Path, ...]
"""Image files that are read when they are needed."""

Examples: TypeAlias = ImageFiles | NDArray[np.uint8] | NDArray[np.floating[Any]]
"""Image files, a uint8 array (n, h, w) or (n, h, w, 3), or float features (n, d)."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MAX_CLASSES = 65_536
SPLITS = ("train", "val", "test")

_EIGHT_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples with their labels, checked when constructed.

    `labels` is int64 (n,) with values in 0..len(classes) - 1; a class may have no example.

    Raises DataError for no examples, lengths that differ, a shape or dtype other than those of
    `Examples`, NaN or infinite features, labels out of range, or class names that repeat.
    """

    name: str
    examples: Examples = field(repr=False)
    labels: NDArray[np.int64] = field(repr=False)
    classes: tuple[str, ...]

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

    def __len__(self) -> int:
        """Number of examples, at least 1."""
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
        """The rows at `indices`, int64 (k,), in that order. Raises DataError for no rows."""
        if isinstance(self.examples, tuple):
            files = tuple(self.examples[index] for index in indices)
            return replace(self, examples=files, labels=self.labels[indices])
        return replace(self, examples=self.examples[indices], labels=self.labels[indices])

    def image(self, index: int) -> NDArray[np.uint8]:
        """One image: (h, w, 3) from a file; (h, w) or (h, w, 3) as it lies in an array.

        Raises DataError for features, and for a file that cannot be read as an 8-bit image.
        """
        if isinstance(self.examples, tuple):
            return read_image(self.examples[index])
        self._require_images()
        image: NDArray[np.uint8] = self.examples[index]
        return image

    def image_digest(self, index: int) -> bytes:
        """SHA-256 (32 bytes) of a file's content, or of an array image's bytes, shape and dtype.

        Raises DataError for features, and for a file that cannot be read.
        """
        if isinstance(self.examples, tuple):
            return hashlib.sha256(b"file\0" + _read_bytes(self.examples[index])).digest()
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


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image file as RGB, uint8 (h, w, 3); grey is replicated, transparency dropped.

    Raises DataError for a file that is missing, damaged, or has more than 8 bits per channel.
    """
    content = _read_bytes(path)
    try:
        with Image.open(io.BytesIO(content)) as image:
            mode = image.mode
            # Pillow warns about palettes with transparent entries unless they go through RGBA.
            opaque = image.convert("RGBA") if "transparency" in image.info else image
            pixels = np.array(opaque.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} cannot be read as an image ({error}); replace it or delete it"
        ) from error
    if mode not in _EIGHT_BIT_MODES:
        raise DataError(
            f"{path} has pixels of mode {mode}, more than 8 bits per channel; "
            "scale it to 0..255 and save it with 8 bits"
        )
    return pixels


def load(path: str | Path, split: str = "train") -> Dataset:
    """Load one client: an image folder `<class>/*.jpg|jpeg|png`, or an `.npz` file.

    An `.npz` holds `images`, `features` or `x` with `labels` or `y`, or the MedMNIST keys
    `{train,val,test}_{images,labels}`, of which `split` chooses; `split` has no effect on other
    files. It may name its `classes`; without, they are the numbers 0..max(labels). Class folders
    are sorted, numerically where all are numbers; files that are no images are ignored. The
    dataset's name is that of the folder, or of the file without its suffix.

    Raises DataError for anything that cannot be loaded, with the fix.
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

    Raises DataError for anything that cannot be loaded, with the fix.
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
    """Load every path that matches a glob pattern (`**` allowed) as one client, sorted by path.

    A literal path is a pattern too. All clients are relabelled onto one shared class list: the
    sorted union. A client is named like its folder or file; where names repeat, the parent's name
    and an underscore go in front.

    Raises DataError if nothing matches, names still repeat, or the clients are not alike.
    """
    paths = client_paths(pattern)
    names = _client_names(paths)
    clients = [replace(load(path), name=name) for path, name in zip(paths, names, strict=True)]
    check_alike(clients)
    return align(clients, sort_names(name for client in clients for name in client.classes))


def client_paths(pattern: str) -> list[Path]:
    """Every path that matches the pattern of `load_clients`, sorted. DataError if none does."""
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


def align(datasets: Sequence[Dataset], classes: tuple[str, ...]) -> list[Dataset]:
    """Relabel datasets onto a class list.

    Raises DataError if a dataset has an example of a class that is not in the list.
    """
    position = {name: index for index, name in enumerate(classes)}
    aligned = []
    for dataset in datasets:
        lookup = np.array([position.get(name, -1) for name in dataset.classes], dtype=np.int64)
        labels = lookup[dataset.labels]
        if (unknown := dataset.labels[labels < 0]).size:
            raise DataError(
                f"{dataset.name} has examples of class {dataset.classes[unknown[0]]!r}, which is "
                f"not one of the clients' classes {_shorten(classes)}; "
                "remove them, rename the class, or add a client that has it"
            )
        aligned.append(replace(dataset, labels=labels, classes=classes))
    return aligned


def check_alike(datasets: Sequence[Dataset]) -> None:
    """Check that all datasets hold images, or all hold features of one width.

    Raises DataError naming the first dataset and one that differs from it.
    """
    first = datasets[0]
    for other in datasets[1:]:
        if other.width != first.width:
            raise DataError(
                f"{first.name} holds {_kind(first)} but {other.name} holds {_kind(other)}; "
                "all clients and the test set need the same kind of data and the same width"
            )


def embedded_digits() -> Dataset:
    """scikit-learn's handwritten digits: 1,797 uint8 images (8, 8) in 0..255, classes 0..9."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    names = tuple(str(digit) for digit in range(10))
    return Dataset("digits", images, digits.target.astype(np.int64), names)


def has_split(path: str | Path, split: str) -> bool:
    """Whether a path is an `.npz` file with `{split}_images` and `{split}_labels`.

    Raises DataError for an `.npz` file that cannot be read.
    """
    path = Path(path)
    if path.is_dir() or path.suffix.lower() != ".npz":
        return False
    return {f"{split}_images", f"{split}_labels"} <= set(_npz_keys(path))


def split_holdout(
    dataset: Dataset, fraction: float, rng: np.random.Generator
) -> tuple[Dataset, Dataset | None]:
    """Split off a random `fraction` of the rows, in [0, 1): (train, holdout).

    `fraction * n` is rounded to the nearest count, and every class gives its share of it to within
    one row. At least one training row stays; the holdout is None where no row is left for it.

    Raises DataError for a fraction outside [0, 1).
    """
    if not 0 <= fraction < 1:
        raise DataError(f"holdout fraction {fraction} is not in [0, 1); give for example 0.2")
    # With rows ordered by class, every k-th row is a stratified sample. The order of the classes
    # is random, or small clients would all hold out the same classes.
    class_order = rng.permutation(len(dataset.classes))
    order = np.lexsort((rng.permutation(len(dataset)), class_order[dataset.labels]))
    steps = np.floor(fraction * np.arange(len(dataset) + 1) + 0.5)
    held_out = np.diff(steps) > 0
    if held_out.all():
        held_out[0] = False
    train = dataset.take(np.sort(order[~held_out]))
    if not held_out.any():
        return train, None
    return train, dataset.take(np.sort(order[held_out]))


def sort_names(names: Iterable[str]) -> tuple[str, ...]:
    """The different names, sorted; numerically where all of them are whole numbers."""
    unique = set(names)
    if all(name.isascii() and name.isdigit() for name in unique):
        return tuple(sorted(unique, key=lambda name: (int(name), name)))
    return tuple(sorted(unique))


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


def _kind(dataset: Dataset) -> str:
    return "images" if dataset.holds_images else f"features of width {dataset.width}"


def _shorten(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    return shown if len(names) <= 10 else f"{shown}, … ({len(names)} in all)"


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); check that it is there") from error


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


def _check_images(name: str, images: NDArray[Any]) -> None:
    grey_or_rgb = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    if not grey_or_rgb or 0 in images.shape:
        raise DataError(
            f"{name}: examples of shape {images.shape} are neither images (n, h, w) or "
            "(n, h, w, 3) nor features (n, d), or are empty; reshape them"
        )
    if images.dtype != np.uint8:
        raise DataError(
            f"{name}: images of dtype {images.dtype} are not uint8; scale them to 0..255 and "
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
