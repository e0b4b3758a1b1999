"""An account of what was read at a site: files, rows, classes, and what looks wrong.

An account stays at the site. It holds numbers of rows, which are private: it enters no message, no
report of a run, and no error that leaves the site.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from secure_afl.data import images
from secure_afl.data.dataset import Dataset, TableOrigin
from secure_afl.data.images import Header
from secure_afl.data.mapping import shorten
from secure_afl.errors import DataError
from secure_afl.progress import Progress

VERSION = 1

Rank: TypeAlias = Literal["wrong", "doubtful", "note"]
_RANKS: tuple[Rank, ...] = ("wrong", "doubtful", "note")
# From this many classes a row on, labels are rather measurements than classes.
_CLASSES_PER_ROW = 0.5
_MANY_CLASSES = 20
# Features of frozen networks are more, and much alike in length.
_FEW_FEATURES, _FEW_ROWS, _SPREAD = 64, 10, 0.25


class Finding(msgspec.Struct, frozen=True):
    """Something that looks wrong.

    Attributes:
        rank: `wrong` gives wrong models nearly always, `doubtful` often, a `note` seldom.
        what: in words, with its count.
        count: rows or files that it is about.
        fix: what helps, with the flag where there is one.
    """

    rank: Rank
    what: str
    count: int
    fix: str


class LeftOutFiles(msgspec.Struct, frozen=True):
    """Files of one kind that are not read, and the first of them."""

    kind: str
    files: int
    example: str


class TableAccount(msgspec.Struct, frozen=True):
    """What was left out of a table or changed, by its dictionary.

    Attributes:
        unread: columns that are not in the dictionary.
        dropped: rows with a missing value that are left out.
        cut: values out of their range and cut to it, by column.
        filled: missing values for which another stands, by column.
        few: numbers of two or three values.
    """

    unread: tuple[str, ...]
    dropped: int
    cut: dict[str, int]
    filled: dict[str, int]
    few: tuple[str, ...] = ()


class Account(msgspec.Struct, frozen=True):
    """What was read of one client, or of a test set.

    Attributes:
        version: of this struct.
        site: the client's name.
        path: of its folder or file.
        files: that were read.
        left_out: files that were not, by kind.
        rows: examples.
        classes: rows of each class; empty where a number is to be predicted.
        sizes, modes: images by "width × height", and by what their pixels are.
        turned: images that were turned upright by their tag.
        frames: images with further frames, which are not read.
        unscaled: DICOM images without a window.
        zero_rows: features that are all zero, or images of one colour where pixels were looked at.
        duplicates: rows that equal an earlier row.
        contradictions: those of them that have another label.
        in_test: rows that equal a row of the test set.
        unreadable: images that cannot be decoded, where pixels were looked at.
        findings: what looks wrong, the worst first.
        table: what was left out of a table or changed; null for other data.
    """

    site: str
    path: str
    files: int
    left_out: tuple[LeftOutFiles, ...]
    rows: int
    classes: dict[str, int]
    sizes: dict[str, int]
    modes: dict[str, int]
    turned: int
    frames: int
    unscaled: int
    zero_rows: int
    duplicates: int
    contradictions: int
    in_test: int
    unreadable: tuple[str, ...]
    findings: tuple[Finding, ...]
    table: TableAccount | None = None
    version: int = VERSION


class Read(msgspec.Struct):
    """One pass over a dataset: what an account, and comparisons with others, are made from.

    Attributes:
        prints: a fingerprint of each row's content, uint64 (n,); equal rows have equal ones, and
            others by a chance of about n² / 2⁶⁵.
    """

    dataset: Dataset
    prints: NDArray[np.uint64]
    sizes: Counter[str]
    modes: Counter[str]
    turned: int = 0
    frames: int = 0
    unscaled: int = 0
    zero_rows: int = 0
    unreadable: tuple[str, ...] = ()


def read(dataset: Dataset, *, pixels: bool = False, progress: Progress | None = None) -> Read:
    """Look once at every row of a dataset; 8 bytes a row stay in memory.

    Args:
        pixels: decode images too, which finds those that are damaged or of one colour. Without it,
            an image that is no image raises.
        progress: called with the number of rows done and that of all.

    Raises:
        DataError: a file that cannot be read; without `pixels`, one that is no image.
    """
    prints = np.empty(len(dataset), dtype=np.uint64)
    found = Read(dataset, prints, Counter(), Counter())
    unreadable = []
    for index in range(len(dataset)):
        try:
            prints[index] = _look(found, index, pixels)
        except DataError as error:
            if not pixels:
                raise
            unreadable.append(str(error))
            # Damaged files are no duplicates of each other.
            prints[index] = np.uint64(index)
        if progress and ((index + 1) % 64 == 0 or index + 1 == len(dataset)):
            progress("account", index + 1, len(dataset))
    found.unreadable = tuple(unreadable)
    return found


def account(found: Read, test: Read | None = None) -> Account:
    """Make the account of what was read, with its findings.

    Args:
        test: a test set that the same site holds.
    """
    dataset, origin = found.dataset, found.dataset.origin
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    if dataset.targets is not None:
        counts[:] = 0
    doubled, contradicting = duplicates(found.prints, dataset.labels)
    in_test = 0 if test is None else int(np.isin(found.prints, test.prints).sum())
    left_out = () if origin is None else origin.left_out
    files = len(dataset) if isinstance(dataset.examples, tuple) else 1
    draft = Account(
        site=dataset.name,
        path="" if origin is None or origin.path is None else str(origin.path),
        files=files,
        left_out=tuple(LeftOutFiles(kind.kind, kind.files, str(kind.example)) for kind in left_out),
        rows=len(dataset),
        classes={
            name: int(count) for name, count in zip(dataset.classes, counts, strict=True) if count
        },
        sizes=dict(found.sizes.most_common()),
        modes=dict(found.modes.most_common()),
        turned=found.turned,
        frames=found.frames,
        unscaled=found.unscaled,
        zero_rows=found.zero_rows,
        duplicates=doubled,
        contradictions=contradicting,
        in_test=in_test,
        unreadable=found.unreadable,
        findings=(),
        table=None if origin is None or origin.table is None else _table(origin.table),
    )
    return msgspec.structs.replace(draft, findings=ranked(_findings(draft, dataset)))


def duplicates(prints: NDArray[np.uint64], labels: NDArray[np.int64]) -> tuple[int, int]:
    """Count rows that equal an earlier row, and those of them whose label differs from it."""
    _, first, places = np.unique(prints, return_index=True, return_inverse=True)
    again = np.arange(len(prints)) != first[places]
    return int(again.sum()), int((again & (labels != labels[first[places]])).sum())


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort findings: the worst first, then by their count."""
    return tuple(sorted(findings, key=lambda f: (_RANKS.index(f.rank), -f.count)))


def _look(found: Read, index: int, pixels: bool) -> np.uint64:
    dataset = found.dataset
    if isinstance(dataset.examples, tuple):
        path = dataset.examples[index]
        content = images.read_bytes(path)
        header = images.read_header(path, content)
        _note(found, header)
        if header.deep:
            # It cannot be read either; say so before any features are made.
            dataset.image(index)
        if not pixels:
            return _print(images.digest(path, content))
        image = dataset.image(index)
        found.zero_rows += _one_colour(image)
        # Two files of the same pixels are one picture.
        return _print(hashlib.sha256(str(image.shape).encode() + image.tobytes()).digest())
    if dataset.holds_images:
        image = dataset.image(index)
        found.sizes[f"{image.shape[1]} × {image.shape[0]}"] += 1
        found.modes["RGB" if image.ndim == 3 else "L"] += 1
        found.zero_rows += _one_colour(image)
        return _print(dataset.image_digest(index))
    row = dataset.examples[index]
    if dataset.marks is not None:
        # Two patients may be alike in a formula's few columns.
        return _print(hashlib.sha256(dataset.marks[index, 0].tobytes()).digest())
    found.zero_rows += not row.any()
    # Zeros of both signs are one number, and so are floats of two lengths.
    return _print(hashlib.sha256((row.astype(np.float64) + 0.0).tobytes()).digest())


def _note(found: Read, header: Header) -> None:
    found.sizes[f"{header.size[0]} × {header.size[1]}"] += 1
    found.modes[header.mode] += 1
    found.turned += header.turned
    found.frames += header.frames > 1
    found.unscaled += header.unscaled


def _one_colour(image: NDArray[np.uint8]) -> bool:
    return bool((image == image[:1, :1]).all())


def _print(digest: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(digest[:8], "little"))


def _table(origin: TableOrigin) -> TableAccount:
    return TableAccount(
        origin.unread, len(origin.dropped), dict(origin.cut), dict(origin.filled), origin.few
    )


def _findings(found: Account, dataset: Dataset) -> list[Finding]:
    return [
        *_of_files(found, dataset),
        *_of_columns(found),
        *_of_rows(found, dataset),
        *_of_lengths(found, dataset),
        *_of_labels(found, dataset),
    ]


def _of_columns(found: Account) -> list[Finding]:
    """Say what a dictionary left out of a table, and what it changed."""
    if found.table is None:
        return []
    site = found.site
    findings: list[Finding] = []
    if found.table.unread:
        count = len(found.table.unread)
        words = f"{site}: columns not in the dictionary are not read: "
        findings.append(
            Finding(
                "doubtful",
                words + shorten(found.table.unread),
                count,
                "declare them, or declare them to be of type ignore",
            )
        )
    for name, count in found.table.cut.items():
        whole = found.rows + found.table.dropped
        rank: Rank = "wrong" if 20 * count > whole else "doubtful"
        words = f"{site}: {count} of {whole} values of {name!r} are out of range and cut to it"
        findings.append(Finding(rank, words, count, "correct units and values, or the range"))
    if found.table.dropped:
        count = found.table.dropped
        words = f"{site}: {count} rows are left out, for a value is missing"
        findings.append(Finding("doubtful", words, count, "fill them, or declare what stands"))
    for name, count in found.table.filled.items():
        words = f"{site}: {count} missing values of {name!r} have the declared one instead"
        findings.append(Finding("note", words, count, "nothing to do"))
    if few := found.table.few:
        words = f"{site}: numbers of two or three values: {shorten(few)}"
        fix = "declare categories, of which Table 1 withholds small counts"
        findings.append(Finding("note", words, len(few), fix))
    return findings


def _of_lengths(found: Account, dataset: Dataset) -> list[Finding]:
    """Say where rows differ in length, of which rows of norm 1 know nothing."""
    width, examples = dataset.width, dataset.examples
    if found.table is not None or width is None or width > _FEW_FEATURES or found.rows < _FEW_ROWS:
        return []
    assert not isinstance(examples, tuple)
    lengths = np.linalg.norm(examples.astype(np.float64), axis=1)
    spread = float(lengths.std() / lengths.mean()) if lengths.any() else 0.0
    if spread < _SPREAD:
        return []
    words = (
        f"{found.site}: lengths of the rows of {width} features differ by {spread:.0%}, and "
        "rows are brought to length 1"
    )
    fix = "--row-mode clip:NORM keeps lengths up to NORM; a table of columns wants --dictionary"
    return [Finding("doubtful", words, found.rows, fix)]


def _of_files(found: Account, dataset: Dataset) -> list[Finding]:
    site, findings = found.site, []
    origin = dataset.origin
    if found.unreadable:
        count = len(found.unreadable)
        findings.append(
            Finding(
                "wrong",
                f"{site}: {count} of {found.files} images cannot be read, as "
                + found.unreadable[0].rpartition("; ")[0],
                count,
                "replace them or delete them",
            )
        )
    for kind in () if origin is None else origin.left_out:
        if kind.pictures:
            findings.append(
                Finding(
                    "wrong",
                    f"{site}: {kind.files} files are left out ({kind.kind}), as {kind.example}",
                    kind.files,
                    "convert them to PNG",
                )
            )
    if origin is not None and origin.empty:
        findings.append(
            Finding(
                "wrong",
                f"{site}: class folders without an image that can be read: "
                + ", ".join(map(repr, origin.empty[:5])),
                len(origin.empty),
                "put images there, or delete the folders",
            )
        )
    for count, what, fix in (
        (found.frames, "images have several frames; the first is read", "split them"),
        (
            found.unscaled,
            "DICOM images have no window; the range of their bits becomes 0..255",
            "set a window where they look dark",
        ),
    ):
        if count:
            findings.append(Finding("doubtful", f"{site}: {count} {what}", count, fix))
    if found.turned:
        words = f"{site}: {found.turned} images are turned upright by their orientation tag"
        findings.append(Finding("note", words, found.turned, "nothing to do"))
    return findings


def _of_rows(found: Account, dataset: Dataset) -> list[Finding]:
    site, findings = found.site, []
    if found.zero_rows and found.table is None:
        what = "images are of one colour" if dataset.holds_images else "rows are all zero"
        rank: Rank = "wrong" if 2 * found.zero_rows >= found.rows else "doubtful"
        words = f"{site}: {found.zero_rows} of {found.rows} {what}"
        findings.append(
            Finding(rank, words, found.zero_rows, "leave them out, or export them anew")
        )
    if found.contradictions:
        words = f"{site}: {found.contradictions} rows equal another row with another label"
        # Two patients may well agree in a few columns.
        certain: Rank = "wrong" if found.table is None else "note"
        findings.append(Finding(certain, words, found.contradictions, "correct the labels"))
    if found.in_test:
        words = f"{site}: {found.in_test} of {found.rows} rows are in the test set too"
        fix = "take them out of one of the two; accuracy on them tells nothing"
        findings.append(Finding("wrong", words, found.in_test, fix))
    findings += _of_patients(found, dataset)
    same = found.duplicates - found.contradictions
    if same:
        words = f"{site}: {same} of {found.rows} rows equal an earlier row"
        likely: Rank = "doubtful" if found.table is None else "note"
        findings.append(Finding(likely, words, same, "keep one of each"))
    if found.table is not None and dataset.patients is None and 2 * found.duplicates > found.rows:
        words = f"{site}: most rows equal another; a ledger does not know them again in other files"
        fix = "declare a column of patients' ids (type = 'id')"
        findings.append(Finding("note", words, found.duplicates, fix))
    return findings


def _of_patients(found: Account, dataset: Dataset) -> list[Finding]:
    if dataset.patients is None:
        return []
    site, nameless = found.site, dataset.patients.count("")
    patients = nameless + len(set(dataset.patients) - {""})
    findings = []
    if nameless:
        words = f"{site}: {nameless} of {found.rows} rows have no id; each is a patient of its own"
        findings.append(Finding("doubtful", words, nameless, "give each row its patient's id"))
    if found.rows > 1 and patients == 1:
        words = f"{site}: all {found.rows} rows are of one patient; is the id a part of its name?"
        findings.append(Finding("doubtful", words, found.rows, "correct --id, or the ids"))
    if found.rows > 1 and patients == found.rows:
        words = f"{site}: no patient has two of the {found.rows} rows; are the ids numbers of rows?"
        findings.append(Finding("note", words, found.rows, "if they are, give ids of patients"))
    return findings


def _of_labels(found: Account, dataset: Dataset) -> list[Finding]:
    site, there = found.site, found.classes
    findings: list[Finding] = []
    if found.table is not None:
        return findings  # a dictionary declares what labels are
    if len(there) > max(_MANY_CLASSES, _CLASSES_PER_ROW * found.rows):
        words = f"{site}: {len(there)} classes of {found.rows} rows; are the labels identifiers?"
        findings.append(Finding("wrong", words, found.rows, "give classes as labels"))
    declared = () if dataset.origin is None else dataset.origin.classes
    if len(declared) > 1 and declared[0] not in there and all(n in there for n in declared[1:]):
        words = (
            f"{site}: no row is of {declared[0]!r}, the first of its class names, and all others "
            "have some; do the labels count from 1?"
        )
        findings.append(Finding("wrong", words, found.rows, "if they do, subtract 1"))
    return findings
