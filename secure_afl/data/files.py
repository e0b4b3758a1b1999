"""Data sets from disk: folders of images, .npz files, and scikit-learn's digits."""

import glob
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secure_afl.data import npz
from secure_afl.data.classes import check_alike as check_names_alike
from secure_afl.data.classes import check_numbering, sort_names, unite
from secure_afl.data.dataset import Dataset, Examples, Origin, align, check_alike
from secure_afl.data.ids import Ids
from secure_afl.data.mapping import Mapping
from secure_afl.data.scan import (
    is_image,
    refuse_litter,
    scan_client,
    scan_unlabelled,
)
from secure_afl.data.tables.design import Design
from secure_afl.data.tables.raw import SUFFIXES, RawTable, is_table, read_table
from secure_afl.errors import DataError
from secure_afl.texts import at_home


def load(
    path: str | Path,
    split: str = "train",
    mapping: Mapping | None = None,
    ids: Ids | None = None,
    design: Design | None = None,
) -> Dataset:
    """Load one client: an image folder `<class>/<image>`, an `.npz` file, or a table.

    An `.npz` holds `images`, `features` or `x` with `labels` or `y`, or the MedMNIST keys
    `{train,val,test}_{images,labels}`, of which `split` chooses; `split` has no effect on other
    files. Labels are class numbers, whose `classes` the file may name, or words; without names the
    classes are the numbers that occur. Class folders are sorted, numerically where all are numbers;
    files that are no images are left out and counted (`Dataset.origin`). The dataset's name is that
    of the folder, or of the file without its suffix.

    Args:
        mapping: of class names and of the dataset's own; of a table the latter alone.
        ids: where examples say whose they are; by default the array `patients` of an `.npz`. Not
            of tables, whose design says so.
        design: of a table's rows, without which no CSV or Parquet file is read.

    Raises:
        DataError: anything that cannot be loaded, with the fix.
    """
    path = Path(at_home(str(path)))
    mapping = mapping or Mapping()
    refuse_litter(path)
    if design is not None:
        _check_of_images(mapping, ids)
        return design.dataset(mapping.site_of(name_of(path)), _table(path), path)
    if path.is_dir():
        try:
            return _load_folder(path, mapping, ids)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error}); check its permissions") from error
    if not path.exists():
        raise DataError(f"{path} does not exist; give an image folder, an .npz file or a table")
    if is_table(path):
        raise DataError(
            f"{path} is a table, and nothing says what its columns are; give --dictionary FILE: "
            f"secure-afl inspect {path} --propose drafts one"
        )
    if path.suffix.lower() != ".npz":
        raise DataError(
            f"{path} is neither a folder of images nor an .npz file; convert it to one of them, "
            "or narrow the pattern so that it does not match"
        )
    return _load_npz(path, split, mapping, ids)


def load_unlabelled(path: str | Path, split: str = "test", design: Design | None = None) -> Dataset:
    """Load examples whose labels are unknown; all labels are 0, of the one class "?".

    An image file, a folder of images at any depth, or an `.npz` as for `load`, where labels need
    not be there and are not looked at; with a `design`, a table without its target.

    Raises:
        DataError: anything that cannot be loaded, with the fix.
    """
    path = Path(at_home(str(path)))
    refuse_litter(path)
    if design is not None:
        return design.unlabelled(name_of(path), _table(path), path)
    examples: Examples
    origin = Origin(path)
    if path.suffix.lower() == ".npz" and not path.is_dir():
        examples = npz.read_examples(path, split)
    elif path.is_dir():
        found, left_out = scan_unlabelled(path)
        examples, origin = tuple(found), Origin(path, left_out=left_out)
    else:
        if path.exists() and not is_image(path):
            raise DataError(
                f"{path} is no image that is read here, no folder of images and no .npz file; "
                "convert it to PNG"
            )
        examples = (path,)
    if len(examples) == 0:
        raise DataError(f"{path} holds no images; give a folder with .jpg, .png or other images")
    labels = np.zeros(len(examples), dtype=np.int64)
    return Dataset(name_of(path), examples, labels, ("?",), origin)


def load_clients(
    pattern: str,
    mapping: Mapping | None = None,
    ids: Ids | None = None,
    design: Design | None = None,
) -> list[Dataset]:
    """Load each match of a glob pattern (`**` allowed) as a client, sorted by path.

    A literal path is a pattern too. All clients are relabelled onto one shared class list: the
    sorted union. A client is named like its folder or file; where names repeat, the parent's name
    and an underscore go in front.

    Args:
        mapping: of class names and of clients' names.
        ids, design: as `load` takes them.

    Raises:
        DataError: nothing matches, names still repeat, the clients are not alike, or their class
            names are not meant to differ (`secure_afl.data.classes`).
    """
    mapping = mapping or Mapping()
    paths = client_paths(pattern)
    names = _client_names(paths, mapping)
    clients = [
        replace(load(path, mapping=mapping, ids=ids, design=design), name=name)
        for path, name in zip(paths, names, strict=True)
    ]
    if design is not None:
        return clients  # the dictionary declares the classes and their order
    check_alike(clients)
    check_classes(clients, mapping)
    return align(clients, sort_names(name for client in clients for name in client.classes))


def _check_of_images(mapping: Mapping, ids: Ids | None) -> None:
    """Refuse what a table has in its design instead: it would have no effect."""
    if ids is not None:
        raise DataError(
            f"id {ids.text!r} beside a table's design; the design names the column of ids: "
            "make_design(…, id=COLUMN)"
        )
    if mapping.classes:
        raise DataError(
            f"a mapping of the class {next(iter(mapping.classes))!r} beside a table's dictionary, "
            "which declares the categories; correct the cells, or leave the mapping out"
        )


def _table(path: Path) -> RawTable:
    if path.is_dir() or not path.exists():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {what}; with a dictionary give one CSV or Parquet file a site")
    if not is_table(path):
        raise DataError(
            f"{path} is no table that is read here; with a dictionary give files that end in "
            f"{', '.join(SUFFIXES)}"
        )
    return read_table(path)


def check_classes(datasets: Sequence[Dataset], mapping: Mapping) -> None:
    """Raise DataError where class names look like one, or where some are numbers and some names."""
    classes = {
        dataset.name if dataset.origin is None else str(dataset.origin.path): (
            dataset.classes if dataset.origin is None else dataset.origin.classes
        )
        for dataset in datasets
    }
    check_names_alike(classes, mapping.meant)
    check_numbering(classes)


def client_paths(pattern: str) -> list[Path]:
    """Return every path that matches the pattern of `load_clients`, sorted.

    Raises:
        DataError: none matches, or two are one folder or file by a link.
    """
    pattern = at_home(pattern)
    # A literal path may hold characters that glob takes for a pattern, and Path.glob refuses
    # absolute patterns.
    literal = Path(pattern).exists()
    found = [pattern] if literal else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    if not found:
        kind = "CSV or Parquet file" if is_table(Path(pattern)) else "folder, .npz file or table"
        raise DataError(
            f"no path matches {pattern!r}; {_brackets(pattern)}give one {kind} per client"
        )
    paths = [Path(path) for path in found]
    if len({path.resolve() for path in paths}) < len(paths):
        raise DataError(f"{pattern!r} matches one folder or file twice, by a link; name it once")
    return paths


def _brackets(pattern: str) -> str:
    """Return a hint where brackets of a folder's name are taken for a pattern."""
    escaped = pattern.replace("[", "[[]")
    if escaped == pattern or not glob.glob(escaped, recursive=True):  # noqa: PTH207
        return ""
    return f"brackets are part of a pattern; for a folder with brackets write {escaped!r}. Or "


def embedded_digits() -> Dataset:
    """Return scikit-learn's handwritten digits.

    They are 1,797 uint8 images (8, 8) in 0..255, classes 0..9.
    """
    found = find_spec("sklearn")
    table = digits_table((found.submodule_search_locations or ()) if found is not None else ())
    images = np.rint(table[:, :64].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    names = tuple(str(digit) for digit in range(10))
    return Dataset("digits", images, table[:, 64].astype(np.int64), names)


def digits_table(folders: Iterable[str]) -> NDArray[np.float64]:
    """Read scikit-learn's digits, (1797, 65) float64: 64 grey values in 0..16, and the digit.

    Args:
        folders: of the package. Its file is read there, for its modules take more than a second to
            import; without the file they load it.
    """
    for file in (Path(folder) / "datasets" / "data" / "digits.csv.gz" for folder in folders):
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return np.column_stack([pixels, labels])


def has_split(path: str | Path, split: str) -> bool:
    """Return whether a path is an `.npz` file with `{split}_images` and `{split}_labels`.

    Raises:
        DataError: an `.npz` file that cannot be read.
    """
    path = Path(at_home(str(path)))
    if path.is_dir() or path.suffix.lower() != ".npz":
        return False
    return {f"{split}_images", f"{split}_labels"} <= set(npz.read_keys(path))


def _load_folder(folder: Path, mapping: Mapping, ids: Ids | None) -> Dataset:
    found = scan_client(folder)
    by_class = {name: files for name, files in found.images.items() if files}
    if not by_class:
        left = "".join(f"; left out: {kind.files} {kind.kind}" for kind in found.left_out[:3])
        raise DataError(
            f"{folder} holds no images; put them at {folder}/<class>/<name>.jpg, .png or another "
            f"kind that Pillow reads{left}"
        )
    sources = sort_names(by_class)
    counts = [len(by_class[name]) for name in sources]
    places = np.repeat(np.arange(len(sources), dtype=np.int64), counts)
    labels, names = unite(str(folder), places, sources, mapping)
    classes = sort_names(names)
    position = np.array([classes.index(name) for name in names], dtype=np.int64)
    files = [file for name in sources for file in by_class[name]]
    # In the order of the classes, as if each of them were one folder.
    order = np.argsort(position[labels], kind="stable")
    examples = tuple(files[index] for index in order)
    return Dataset(
        mapping.site_of(name_of(folder)),
        examples,
        position[labels][order],
        classes,
        Origin(folder, sources, classes, found.left_out, found.empty),
        None if ids is None else ids.of_files(folder, examples),
    )


def _load_npz(path: Path, split: str, mapping: Mapping, ids: Ids | None) -> Dataset:
    examples = npz.read_examples(path, split)
    found = npz.read_labels(path, split)
    if len(set(found.names)) < len(found.names):
        twice = next(name for name in found.names if found.names.count(name) > 1)
        raise DataError(f"{path}: the class name {twice!r} is given twice; rename one")
    labels, classes = unite(str(path), found.labels, found.names, mapping)
    name = mapping.site_of(name_of(path))
    origin = Origin(path, found.names, classes, named=found.named)
    patients = npz.read_patients(path, split, None if ids is None else ids.array)
    return Dataset(name, examples, labels, classes, origin, patients)


def _client_names(paths: Sequence[Path], mapping: Mapping) -> list[str]:
    names = [mapping.site_of(name_of(path)) for path in paths]
    if len(set(names)) < len(names):
        names = [f"{path.absolute().parent.name}_{name_of(path)}" for path in paths]
        names = [mapping.site_of(name) for name in names]
    seen: dict[str, Path] = {}
    for name, path in zip(names, paths, strict=True):
        if name in seen:
            raise DataError(
                f"{seen[name]} and {path} would both be the client {name!r}; rename one of them"
            )
        seen[name] = path
    return names


def name_of(path: Path) -> str:
    """Return what a folder or file is called, without a mapping."""
    # A folder may hold dots in its name, and "." has no name at all.
    return path.absolute().name if path.is_dir() else path.stem
