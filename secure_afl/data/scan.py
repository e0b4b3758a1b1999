"""What lies in a client's folder: images by class, and what is left out, by reason."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from secure_afl.data.images import looks_like_image, suffixes
from secure_afl.errors import DataError

# Folders that programs leave beside people's files, and who leaves them.
_LITTER = {
    "__MACOSX": "macOS' archiver",
    "@eaDir": "a Synology server",
    "#recycle": "a Synology server's bin",
    "@Recycle": "a QNAP server's bin",
    "$RECYCLE.BIN": "Windows' bin",
    "System Volume Information": "Windows",
    "lost+found": "the file system",
    "__pycache__": "Python",
}
_LITTER_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "dicomdir")
# Pictures in formats that nothing here reads: people mean them to be learned from.
_FOREIGN = frozenset(
    [
        *(".heic", ".heif", ".hif", ".jxl", ".svg", ".eps", ".ps", ".wmf", ".emf", ".pdf"),
        *(".nii", ".gz", ".mha", ".mhd", ".nrrd", ".img", ".hdr", ".svs", ".ndpi", ".czi"),
        *(".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".raf", ".rw2", ".raw"),
        *(".mp4", ".avi", ".mov", ".mkv", ".npy", ".npz", ".mat", ".h5", ".hdf"),
        *(".zip", ".tar", ".7z", ".rar"),
    ]
)
SYSTEM = "hidden and system files"
OUTSIDE = "files beside the class folders"


@dataclass(frozen=True)
class LeftOut:
    """Files of one kind that are not read.

    Attributes:
        kind: in words.
        files: their number.
        example: the first of them.
        pictures: they hold pictures, which people will miss.
    """

    kind: str
    files: int
    example: Path
    pictures: bool = False


@dataclass
class Scan:
    """The content of one client's folder.

    Attributes:
        images: the image files of each class folder, by its name, both sorted.
        left_out: the files that are not read, by kind.
    """

    images: dict[str, list[Path]] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()

    @property
    def empty(self) -> tuple[str, ...]:
        """The class folders without an image that can be read."""
        return tuple(name for name, files in self.images.items() if not files)


class _Tally:
    """A count of the files that are left out."""

    def __init__(self) -> None:
        self._files: Counter[tuple[str, bool]] = Counter()
        self._first: dict[tuple[str, bool], Path] = {}

    def add(self, path: Path, kind: str, pictures: bool = False) -> None:
        """Count one file."""
        self._files[kind, pictures] += 1
        self._first.setdefault((kind, pictures), path)

    def result(self) -> tuple[LeftOut, ...]:
        """List the kinds: pictures first, then by number."""
        order = sorted(self._files.items(), key=lambda item: (not item[0][1], -item[1], item[0]))
        return tuple(
            LeftOut(kind, files, self._first[kind, pictures], pictures)
            for (kind, pictures), files in order
        )


def scan_client(folder: Path) -> Scan:
    """Find a client's images: `<class>/<name>`, whose name or first bytes say that they are some.

    Raises:
        DataError: images outside of class folders or deeper than they may be, or names that cannot
            be written as UTF-8.
    """
    refuse_litter(folder)
    tally = _Tally()
    images: dict[str, list[Path]] = {}
    for entry in _visible(folder, tally):
        if entry.is_dir():
            check_utf8(entry)
            images[entry.name] = _images_in(entry, tally)
        elif is_image(entry):
            raise DataError(
                f"{entry} lies outside of a class folder; move it to {folder}/<class>/{entry.name}"
            )
        else:
            tally.add(entry, OUTSIDE)
    return Scan(images, tally.result())


def scan_unlabelled(folder: Path) -> tuple[list[Path], tuple[LeftOut, ...]]:
    """Find the images of a folder at any depth, sorted, and what is left out."""
    refuse_litter(folder)
    tally = _Tally()
    return sorted(_images_below(folder, tally)), tally.result()


def is_image(entry: Path) -> bool:
    """Say whether a file is to be read as an image.

    The suffix decides. A file without one, or with a number for one as DICOM's identifiers have, is
    judged by its first bytes.
    """
    suffix = entry.suffix.lower()
    if suffix in suffixes():
        return True
    return (not suffix or suffix[1:].isdigit()) and entry.is_file() and looks_like_image(entry)


def refuse_litter(folder: Path) -> None:
    """Raise DataError for a folder that no person made."""
    if (maker := _LITTER.get(folder.name)) is not None:
        raise DataError(
            f"{folder} is a folder of {maker} and holds nobody's images; delete it, or narrow the "
            "pattern so that it does not match"
        )


def check_utf8(path: Path) -> None:
    """Raise DataError unless a folder's name can be written as UTF-8."""
    try:
        path.name.encode()
    except UnicodeEncodeError:
        shown = str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        raise DataError(
            f"the folder {shown} has a name that is not UTF-8 (an old archive's?); rename it"
        ) from None


def _visible(folder: Path, tally: _Tally) -> Iterator[Path]:
    """Yield the entries of a folder that people made, sorted; count the others."""
    for entry in sorted(folder.iterdir()):
        # macOS leaves hidden "._name.jpg" files that are not images.
        if entry.name.startswith(".") or entry.name.lower() in _LITTER_FILES:
            tally.add(entry, SYSTEM)
        elif entry.name in _LITTER and entry.is_dir():
            tally.add(entry, f"folders of {_LITTER[entry.name]}")
        else:
            yield entry


def _images_in(class_folder: Path, tally: _Tally) -> list[Path]:
    files = []
    for entry in _visible(class_folder, tally):
        if entry.is_dir():
            client = class_folder.parent
            raise DataError(
                f"{entry} is a folder inside the class folder {class_folder}; move its images up, "
                f"or, if each folder in {client} is a client, give the pattern '{client}/*'"
            )
        if is_image(entry):
            files.append(entry)
        else:
            _leave_out(entry, tally)
    return files


def _images_below(folder: Path, tally: _Tally) -> Iterator[Path]:
    for entry in _visible(folder, tally):
        if entry.is_dir():
            yield from _images_below(entry, tally)
        elif is_image(entry):
            yield entry
        else:
            _leave_out(entry, tally)


def _leave_out(entry: Path, tally: _Tally) -> None:
    suffix = entry.suffix.lower()
    if suffix in _FOREIGN:
        tally.add(entry, f"{suffix} files, which nothing here reads", pictures=True)
    elif looks_like_image(entry):
        tally.add(entry, f"images named {suffix}; rename them", pictures=True)
    else:
        tally.add(entry, f"{suffix or 'other'} files")
