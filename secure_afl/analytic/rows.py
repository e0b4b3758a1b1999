"""One client's rows, once they are features."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocols.layout import Integers
from secure_afl.analytic.quantise import MAX_FEATURE, Floats, bad_row
from secure_afl.data.arrays import as_features, as_labels
from secure_afl.data.classes import sort_names
from secure_afl.data.columns import Columns
from secure_afl.data.mapping import shorten
from secure_afl.errors import DataError

if TYPE_CHECKING:
    from secure_afl.data.dataset import Dataset


class Rows(Protocol):
    """One client's rows, which may be on the disk until somebody asks for them."""

    @property
    def name(self) -> str:
        """Name of the client."""

    def check(
        self, dim: int, classes: Sequence[str], backbone: bytes, columns: Columns | None = None
    ) -> None:
        """Raise DataError unless these can be rows of such a task."""

    def load(self, dim: int, classes: Sequence[str]) -> "ClientData":
        """Return the rows with `dim` features, labelled by their places among the classes."""


@dataclass(frozen=True, eq=False)
class ClientData:
    """Labelled features of one client, or of a test set.

    Lists, tensors, frames and numbers of other lengths are converted as they come in.

    Attributes:
        name: unique among the clients.
        features: (n, d) float, finite, n ≥ 1; may be memory-mapped.
        labels: (n,) int64 in 0..C−1; or words, which `number_labels` replaces by numbers.
        patients: whose each row is, n words or numbers; an empty word is a patient of its own, as
            are None, NaN and pandas' NA. None where rows do not say.
        targets: the number that is to be predicted of each row, (n,) float64 in [−1, 1]; labels
            are 0 then. None where rows have classes.
        marks: what a ledger knows a table's rows by, (n, 12, 4); None where it goes by features.

    Raises:
        DataError: what cannot be converted without a loss, as masked arrays, patients that are
            not one a row, or targets that are no such numbers.
    """

    name: str
    features: NDArray[np.floating]
    labels: Integers
    patients: Sequence[str] | None = None
    targets: Floats | None = None
    marks: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        where = f"client '{self.name}'"
        object.__setattr__(self, "features", as_features(self.features, where))
        object.__setattr__(self, "labels", as_labels(self.labels, where))
        if self.patients is not None:
            object.__setattr__(self, "patients", tuple(map(_name_of, self.patients)))
            if len(self.patients) != len(self.features):
                raise DataError(
                    f"{where}: {len(self.patients)} patients for {len(self.features)} rows; give "
                    "one a row"
                )
        if self.targets is not None:
            object.__setattr__(self, "targets", _as_targets(self.targets, len(self), where))

    @classmethod
    def of(cls, dataset: "Dataset", features: NDArray[np.floating], name: str = "") -> "ClientData":
        """Return the rows of a data set, of which these features (n, d) were made.

        Args:
            name: by default the data set's.
        """
        return cls(
            name or dataset.name,
            features,
            dataset.labels,
            dataset.patients,
            dataset.targets,
            dataset.marks,
        )

    def check(
        self, dim: int, classes: Sequence[str], backbone: bytes, columns: Columns | None = None
    ) -> None:
        """Raise DataError unless rows have `dim` features; no more is known of them here."""
        width = self.features.shape[1]
        if width != dim:
            raise DataError(f"the task's rows have {dim} features, this client's {width}")

    def load(self, dim: int, classes: Sequence[str]) -> "ClientData":
        """Return these rows, which are here."""
        return self

    @property
    def people(self) -> list[str] | None:
        """Whose each row is, with a name for each of a patient of its own; None where unknown."""
        if self.patients is None:
            return None
        return [name or f"row {place}" for place, name in enumerate(self.patients)]

    def take(self, places: Integers) -> "ClientData":
        """Return the rows at these places, (k,), in this order."""
        whose = None if self.patients is None else [self.patients[place] for place in places]
        return replace(
            self,
            features=self.features[places],
            labels=self.labels[places],
            patients=whose,
            targets=None if self.targets is None else self.targets[places],
            marks=None if self.marks is None else self.marks[places],
        )

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        return f"<ClientData {self.name}: {len(self)} rows>"


def _name_of(patient: object) -> str:
    """Return a patient's name; empty for what frames hold where there is none."""
    name = str(patient)
    missing = not isinstance(patient, str) and name.casefold() in ("none", "nan", "nat", "<na>")
    return "" if missing else name


def _as_targets(targets: Floats, rows: int, where: str) -> Floats:
    found = np.asarray(targets, dtype=np.float64)
    # The comparison also catches NaN.
    if found.shape != (rows,) or not (np.abs(found) <= 1).all():
        raise DataError(
            f"{where}: targets {list(found.shape)} are no {rows} numbers in [−1, 1]; scale them by "
            "their public range"
        )
    return found


def pooled(clients: list[ClientData]) -> ClientData:
    """Pool all rows in one place: what a federation never has, and its oracle needs."""
    named = any(client.patients is not None for client in clients)
    whose = [name for c in clients for name in c.patients or ("",) * len(c)]
    targets = [c.targets for c in clients if c.targets is not None] or None
    return ClientData(
        "pooled",
        np.concatenate([client.features for client in clients]),
        np.concatenate([client.labels for client in clients]),
        whose if named else None,
        None if targets is None else np.concatenate(targets),
    )


def digest_rows(parts: Iterable[ClientData]) -> bytes:
    """Hash names and contents of rows, 32 bytes; another order is another digest."""
    hashed = hashlib.sha256()
    for part in parts:
        arrays = (part.features, part.labels, *(() if part.targets is None else (part.targets,)))
        for array in arrays:
            # The shape first, so that no rows can pass for other rows.
            hashed.update(msgspec.json.encode((part.name, array.dtype.str, array.shape)))
            hashed.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return hashed.digest()


def check_types(clients: Sequence[ClientData]) -> None:
    """Raise DataError for what is no client, or has no name."""
    for data in clients:
        if not isinstance(data, ClientData):
            raise DataError(
                f"a client is a {type(data).__name__}; give ClientData(name, features, labels)"
            )
        if not isinstance(data.name, str):
            raise DataError(f"client name {data.name!r} is no string")


def number_labels(
    clients: Sequence[ClientData], scored: Sequence[ClientData], classes: Sequence[str] | None
) -> tuple[list[ClientData], list[ClientData], Sequence[str] | None]:
    """Replace labels that are words by their places among the classes.

    Args:
        scored: further rows, as of a test set.
        classes: names; by default all of the clients' words, sorted.

    Returns:
        The clients, the further rows and the classes, as they were where no label is a word.

    Raises:
        DataError: words beside numbers, or a word that is no class.
    """
    check_types([*clients, *scored])
    parts = [*clients, *scored]
    worded = [data for data in parts if data.labels.dtype.kind == "U"]
    if not worded:
        return list(clients), list(scored), classes
    if numbered := [data for data in parts if data.labels.dtype.kind != "U"]:
        raise DataError(
            f"client '{worded[0].name}' has words for labels ({worded[0].labels[0]!r}, …), client "
            f"'{numbered[0].name}' numbers; label all rows in one way"
        )
    if classes is None:
        classes = sort_names(str(word) for data in clients for word in data.labels)
    places = {name: index for index, name in enumerate(classes)}

    def numbered_of(data: ClientData) -> ClientData:
        if unknown := [word for word in np.unique(data.labels) if str(word) not in places]:
            raise DataError(
                f"client '{data.name}': label {str(unknown[0])!r} is none of the classes "
                f"{shorten(tuple(places))}; correct it, or name all the classes"
            )
        labels = np.array([places[str(word)] for word in data.labels], dtype=np.int64)
        return replace(data, labels=labels)

    return [numbered_of(c) for c in clients], [numbered_of(s) for s in scored], classes


def check_clients(clients: Sequence[ClientData], classes: int) -> None:
    """Raise DataError, naming the client, unless these can be one federation's clients."""
    if len({client.name for client in clients}) != len(clients):
        raise DataError(f"two clients share a name: {sorted(c.name for c in clients)}")
    for client in clients:
        check_data(f"client '{client.name}'", client, classes)
    first = clients[0]
    for client in clients[1:]:
        if client.features.shape[1] != first.features.shape[1]:
            raise DataError(
                f"client '{client.name}' has {client.features.shape[1]} features a row, "
                f"'{first.name}' has {first.features.shape[1]}; use the same backbone for all"
            )


def check_data(what: str, data: ClientData, classes: int) -> None:
    """Raise DataError, beginning with `what`, unless these are rows to learn from or to score."""
    try:
        check_rows(data.features, data.labels, classes)
        check_finite(data.features)
    except DataError as error:
        raise DataError(f"{what}: {error}") from None


def check_targets(what: str, data: ClientData, *, numeric: bool) -> None:
    """Raise DataError, beginning with `what`, unless rows have targets where these are learned.

    Args:
        numeric: a number is learned, and no class.
    """
    if numeric and data.targets is None:
        raise DataError(
            f"{what} has no targets, and this method predicts a number; give ClientData(…, "
            "targets=…) in [−1, 1], or take a method for classes, as afl"
        )
    if not numeric and data.targets is not None:
        raise DataError(
            f"{what} has targets, and this method tells classes apart; take --method regression, "
            "or give labels and no targets"
        )


def check_finite(features: NDArray[np.floating]) -> None:
    """Raise DataError, naming the row, for a NaN, an infinity or too large a number."""
    for start in range(0, len(features), 1024):
        usable = (np.abs(features[start : start + 1024]) < np.float64(MAX_FEATURE)).all(axis=1)
        if not usable.all():
            raise bad_row(start + int(usable.argmin()))


def check_rows(features: NDArray[np.floating], labels: Integers, classes: int) -> None:
    """Raise DataError unless features (n, d) and labels (n,) can be rows of one client."""
    is_float = features.dtype.kind == "f" and features.dtype.itemsize <= 8
    if features.ndim != 2 or not is_float or 0 in features.shape:
        raise DataError(
            f"features are {features.dtype}{list(features.shape)}; wanted float[n, d] of at most "
            "64 bits with n, d ≥ 1"
        )
    if labels.shape != (len(features),) or labels.dtype != np.int64:
        raise DataError(
            f"labels are {labels.dtype}{list(labels.shape)}; wanted int64[{len(features)}], "
            "one for each row of features"
        )
    if labels.min() < 0 or labels.max() >= classes:
        bad = int(labels[(labels < 0) | (labels >= classes)][0])
        raise DataError(f"label {bad} is out of range; allowed: 0..{classes - 1}")
