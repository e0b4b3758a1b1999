"""Features of a site's data, made once and kept beside its state.

A process that takes part in a session then loads no network: it reads rows. What was made of other
data or settings than those that are there now is made anew.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from protocols.codec import Digest, Wire, decode, encode
from protocols.errors import Malformed, NotStored
from protocols.files import write_durably
from protocols.layout import Integers
from secure_afl.analytic.rows import ClientData
from secure_afl.data.columns import Columns
from secure_afl.errors import ConfigError
from secure_afl.methods.method import AnyMethod
from secure_afl.progress import Progress
from secure_afl.runs.config import RunConfig

if TYPE_CHECKING:
    from secure_afl.data.account import Account
    from secure_afl.data.tables.design import Design
    from secure_afl.features.backbone import Backbone


class About(Wire, frozen=True):
    """What prepared features are of.

    Attributes:
        source: hash of the files' names, sizes and times, and of the settings.
        spec, digest: of the backbone.
        classes: names, as the data have them.
        columns: what the features are, where rows are those of a table.
    """

    source: Digest
    spec: str
    digest: Digest
    classes: tuple[str, ...]
    columns: Columns | None = None


@dataclass(frozen=True, eq=False)
class Prepared:
    """Features of a site's data.

    Attributes:
        about: what they are of.
        features: (n, d) float, memory-mapped.
        labels: (n,) int64, places among the data's own classes.
        public: (p, d) float32 features of the public data, if there are any.
        patients: whose each row is, (n,); None where the data do not say. They stay here.
        targets: the numbers to be predicted, (n,) in [−1, 1]; None where rows have classes.
        columns: what the features are, where rows are those of a table.
        marks: what the ledger knows a table's rows by, (n, 12, 4).
    """

    about: About
    features: NDArray[np.floating]
    labels: Integers
    public: NDArray[np.floating] | None
    patients: tuple[str, ...] | None = None
    targets: NDArray[np.float64] | None = None
    columns: Columns | None = None
    marks: NDArray[np.float32] | None = None

    @property
    def width(self) -> int:
        """Features of a row, d."""
        return int(self.features.shape[1])


def open_backbone(config: RunConfig, method: AnyMethod, design: "Design | None") -> "Backbone":
    """Make the backbone of a site's or a convener's settings.

    Args:
        design: that the settings name, of tables; None for other data.

    Raises:
        ConfigError: none is named, or one that the method or its checkpoint does not fit.
    """
    from secure_afl.features.backbone import parse_backbone
    from secure_afl.features.cache import default_path
    from secure_afl.features.table import table_backbone

    if design is not None:
        return table_backbone(design)
    if method.images and config.backbone not in (None, "identity"):
        raise ConfigError(f"{method.name}, as it is set, learns from pixels; leave backbone out")
    spec = "identity" if method.images else config.backbone
    if spec is None:
        raise ConfigError(
            "no 'backbone'; name what makes features at every site, or 'identity' for features "
            "as they are"
        )
    checkpoint = Path(config.checkpoint) if config.checkpoint else None
    return parse_backbone(spec, checkpoint, config.image_size, config.seed, default_path())


def prepare(
    data: Path,
    config: RunConfig,
    method: AnyMethod,
    store: Path,
    progress: Progress | None = None,
    tell: "Callable[[Account], None] | None" = None,
) -> Prepared:
    """Return the features of a site's data: those that are kept, or new ones.

    Args:
        data: the folder or file.
        config: names backbone, public data, the mapping of class names, and where ids are.
        store: folder to keep them in; made if need be.
        tell: called with the account of the data, before new features are made.

    Raises:
        DataError, ConfigError: data that cannot be read, of which no features can be made, or whose
            features are all zero.
        NotStored: they cannot be kept.
    """
    source = _source(data, config)
    kept = _kept(store, source)
    if kept is not None:
        return kept
    # Of no use to a process that has its features.
    from secure_afl.data import account as accounting
    from secure_afl.data import files
    from secure_afl.data.ids import parse_ids
    from secure_afl.data.mapping import read_mapping
    from secure_afl.features.cache import FeatureCache, default_path
    from secure_afl.runs.prepare import check_not_all_zero
    from secure_afl.runs.tables import design_of

    # What is wrong with the data shows before a network is loaded.
    names = read_mapping(None if config.mapping is None else Path(config.mapping))
    design = design_of(config)
    ids = parse_ids(config.id) if design is None else None
    dataset = files.load(data, "train", names, ids, design)
    if tell is not None:
        tell(accounting.account(accounting.read(dataset, progress=progress)))
    backbone = open_backbone(config, method, design)
    cache = FeatureCache(default_path())
    features = backbone.extract(dataset, cache, progress)
    check_not_all_zero(ClientData.of(dataset, features))
    public = None
    if config.public is not None:
        public = backbone.extract(files.load_unlabelled(config.public, "train"), cache)
    columns = None if design is None else design.columns
    about = About(source, backbone.name, backbone.digest, dataset.classes, columns)
    try:
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        (store / "about").unlink(missing_ok=True)
        _write(store / "features.npy", features)
        _write(store / "labels.npy", dataset.labels)
        if public is not None:
            _write(store / "public.npy", public)
        (store / "patients.npy").unlink(missing_ok=True)
        if dataset.patients is not None:
            _write(store / "patients.npy", np.array(dataset.patients))
        (store / "targets.npy").unlink(missing_ok=True)
        if dataset.targets is not None:
            _write(store / "targets.npy", dataset.targets)
        (store / "marks.npy").unlink(missing_ok=True)
        if dataset.marks is not None:
            _write(store / "marks.npy", dataset.marks)
        write_durably(store / "about", encode(about))
    except OSError as error:
        raise NotStored(f"features cannot be kept in {store}: {error.strerror}") from None
    return Prepared(
        about,
        features,
        dataset.labels,
        public,
        dataset.patients,
        dataset.targets,
        about.columns,
        dataset.marks,
    )


def _kept(store: Path, source: bytes) -> Prepared | None:
    try:
        about = decode((store / "about").read_bytes(), About)
        if about.source != source:
            return None
        public, patients = store / "public.npy", store / "patients.npy"
        targets, marks = store / "targets.npy", store / "marks.npy"
        return Prepared(
            about,
            np.load(store / "features.npy", mmap_mode="r"),
            np.load(store / "labels.npy"),
            np.load(public, mmap_mode="r") if public.exists() else None,
            tuple(np.load(patients).tolist()) if patients.exists() else None,
            np.load(targets) if targets.exists() else None,
            about.columns,
            np.load(marks) if marks.exists() else None,
        )
    except (OSError, ValueError, Malformed):
        return None


def _write(path: Path, array: NDArray[np.generic]) -> None:
    content = io.BytesIO()
    np.save(content, np.ascontiguousarray(array), allow_pickle=False)
    write_durably(path, content.getvalue())


# Of what is kept; another one is made anew.
_FORMAT = 3


def _source(data: Path, config: RunConfig) -> bytes:
    """Hash what features are made of, without opening the files."""
    settings = (
        _FORMAT,
        config.backbone,
        config.image_size,
        config.seed,
        config.id,
        config.target,
        config.formula,
        config.scale,
    )
    hashed = hashlib.sha256(encode(settings))
    for place in (data, config.public, config.checkpoint, config.mapping, config.dictionary):
        for name, size, time in [] if place is None else _stats(Path(place)):
            hashed.update(encode((name, size, time)))
        hashed.update(b"\0")
    return hashed.digest()


def _stats(path: Path) -> Iterator[tuple[str, int, int]]:
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in found:
        if file.is_file():
            stat = file.stat()
            yield str(file.relative_to(path.parent)), stat.st_size, stat.st_mtime_ns
