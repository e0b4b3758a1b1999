"""Partitions: one dataset cut into simulated clients, evenly, or with skewed classes or looks."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from secure_afl.data.dataset import Dataset
from secure_afl.errors import ConfigError, DataError

FORMS = (
    "iid:<clients>, dirichlet:<clients>:<alpha>, shards:<clients>:<shards per client>, "
    "sizes:<rows>,<rows>,… or embedding:<clients>:<alpha>[:<clusters>]"
)
MIN_ALPHA, MAX_ALPHA = 1e-3, 1e6

MAX_CLUSTERS = 10_000

_DIRICHLET_TRIES = 1000
# Beginnings of k-means, of which the best counts.
_BEGINNINGS = 3

# Makes features (n, d) of a dataset's examples, in its order.
Embed = Callable[[Dataset], NDArray[np.floating]]


class Partition(ABC):
    """A way to cut a dataset into clients.

    Every row goes to at most one client.

    Attributes:
        needs_features: rows are dealt by their features, which have to be made first.
    """

    needs_features: ClassVar[bool] = False

    def split(
        self, dataset: Dataset, rng: np.random.Generator, embed: Embed | None = None
    ) -> list[Dataset]:
        """Cut a dataset into clients, named client_00, client_01, and so on.

        Equal states of `rng` give equal clients.

        Args:
            dataset: all rows.
            rng: of the draws.
            embed: makes the features, for a partition that needs them; others do not call it.

        Raises:
            DataError: the dataset has too few rows.
            ConfigError: there is no way to the features that this partition needs.
        """
        if self.needs_features and embed is None:
            raise ConfigError(
                f"{type(self).__name__} deals rows by their features, and none are made here; give "
                "split() a function that makes them, or choose another partition"
            )
        parts = self.assign(self.groups(dataset, rng, embed), rng)
        digits = max(2, len(str(len(parts) - 1)))
        return [
            Dataset(
                f"client_{number:0{digits}d}",
                rows.examples,
                rows.labels,
                rows.classes,
                patients=rows.patients,
            )
            for number, rows in enumerate(dataset.take(part) for part in parts)
        ]

    def groups(
        self, dataset: Dataset, rng: np.random.Generator, embed: Embed | None
    ) -> NDArray[np.int64]:
        """Return what `assign` takes for labels, int64 (n,): the labels, by default."""
        return dataset.labels

    @abstractmethod
    def assign(
        self, labels: NDArray[np.int64], rng: np.random.Generator
    ) -> list[NDArray[np.int64]]:
        """Return the row numbers of each client, int64.

        Args:
            labels: of all rows, int64 (n,).
            rng: of the draws.

        Raises:
            DataError: there are too few rows.
        """


@dataclass(frozen=True)
class Iid(Partition):
    """Rows at random, as many for each client as for others, give or take one."""

    clients: int

    def assign(
        self, labels: NDArray[np.int64], rng: np.random.Generator
    ) -> list[NDArray[np.int64]]:
        """See `Partition.assign`; every row is used."""
        _require_rows(len(labels), self.clients, "clients")
        return np.array_split(rng.permutation(len(labels)), self.clients)


@dataclass(frozen=True)
class Dirichlet(Partition):
    """Each class spread over the clients in proportions drawn from Dirichlet(alpha).

    A small `alpha` gives each client few classes and very different sizes.
    """

    clients: int
    alpha: float

    @property
    def spec(self) -> str:
        """The form that makes this partition."""
        return f"dirichlet:{self.clients}:{self.alpha:g}"

    def assign(
        self, labels: NDArray[np.int64], rng: np.random.Generator
    ) -> list[NDArray[np.int64]]:
        """Deal out every row, with no client left empty.

        Raises:
            DataError: fewer rows than clients, or 1,000 draws that all left a client empty.
        """
        _require_rows(len(labels), self.clients, "clients")
        _, class_sizes = np.unique(labels, return_counts=True)
        for _ in range(_DIRICHLET_TRIES):
            shares = rng.dirichlet(np.full(self.clients, self.alpha), size=len(class_sizes))
            # Rounded down where one client ends and the next begins; the last takes the rest.
            ends = np.cumsum(shares, axis=1)[:, :-1] * class_sizes[:, None]
            cuts = np.floor(ends).astype(np.int64)
            sizes = np.diff(cuts, axis=1, prepend=0, append=class_sizes[:, None])
            if sizes.sum(axis=0).min() > 0:
                break
        else:
            raise DataError(
                f"{self.spec} left a client without rows in "
                f"{_DIRICHLET_TRIES} draws of {len(labels)} rows; "
                "take fewer clients or a larger alpha"
            )
        by_class = np.split(_shuffled_by_label(labels, rng), np.cumsum(class_sizes)[:-1])
        pieces = [np.split(rows, at) for rows, at in zip(by_class, cuts, strict=True)]
        return [np.concatenate(client) for client in zip(*pieces, strict=True)]


@dataclass(frozen=True)
class Embedding(Dirichlet):
    """Each cluster of the rows' features spread over the clients as `Dirichlet` spreads a class.

    Clients then differ in how their rows look, within classes too. Clusters are those of k-means on
    features of norm 1. The kind is that of Borazjani et al., 2025, arXiv:2503.14553.

    Attributes:
        clusters: how many; None is as many as the data have classes.
    """

    needs_features: ClassVar[bool] = True
    clusters: int | None = None

    @property
    def spec(self) -> str:
        """The form that makes this partition."""
        tail = "" if self.clusters is None else f":{self.clusters}"
        return f"embedding:{self.clients}:{self.alpha:g}{tail}"

    def groups(
        self, dataset: Dataset, rng: np.random.Generator, embed: Embed | None
    ) -> NDArray[np.int64]:
        """Return the cluster of each row, int64 (n,).

        Raises:
            DataError: more clusters than rows.
        """
        assert embed is not None, "split looks first"
        clusters = self.clusters or len(np.unique(dataset.labels))
        _require_rows(len(dataset), clusters, "clusters")
        return _clustered(embed(dataset), clusters, int(rng.integers(2**31)))


@dataclass(frozen=True)
class Shards(Partition):
    """Rows sorted by label, cut into equal shards, dealt at random.

    Every client gets as many shards as any other.
    """

    clients: int
    shards_per_client: int

    def assign(
        self, labels: NDArray[np.int64], rng: np.random.Generator
    ) -> list[NDArray[np.int64]]:
        """See `Partition.assign`; every row is used."""
        count = self.clients * self.shards_per_client
        _require_rows(len(labels), count, "shards")
        shards = np.array_split(_shuffled_by_label(labels, rng), count)
        hands = rng.permutation(count).reshape(self.clients, self.shards_per_client)
        return [np.concatenate([shards[shard] for shard in hand]) for hand in hands]


@dataclass(frozen=True)
class Sizes(Partition):
    """Rows at random, a given number for each client.

    Rows beyond the sum are not used.
    """

    rows: tuple[int, ...]

    def assign(
        self, labels: NDArray[np.int64], rng: np.random.Generator
    ) -> list[NDArray[np.int64]]:
        """See `Partition.assign`."""
        ends = np.cumsum(self.rows)
        _require_rows(len(labels), int(ends[-1]), "rows in all")
        return np.split(rng.permutation(len(labels))[: ends[-1]], ends[:-1])


def parse(spec: str) -> Partition:
    """Make a partition from its form, such as `iid:10` or `dirichlet:10:0.1`; see `FORMS`.

    Raises:
        ConfigError: another form, naming the allowed ones, or a number out of range.
    """
    match spec.split(":"):
        case ["iid", clients]:
            return Iid(_positive(spec, clients))
        case ["dirichlet", clients, alpha]:
            return Dirichlet(_positive(spec, clients), _alpha(spec, alpha))
        case ["embedding", clients, alpha]:
            return Embedding(_positive(spec, clients), _alpha(spec, alpha))
        case ["embedding", clients, alpha, clusters]:
            number = _positive(spec, clusters)
            if not 2 <= number <= MAX_CLUSTERS:
                raise ConfigError(
                    f"partition {spec!r}: {number} clusters is not a number in 2..{MAX_CLUSTERS}"
                )
            return Embedding(_positive(spec, clients), _alpha(spec, alpha), number)
        case ["shards", clients, shards]:
            return Shards(_positive(spec, clients), _positive(spec, shards))
        case ["sizes", rows]:
            return Sizes(tuple(_positive(spec, size) for size in rows.split(",")))
        case _:
            raise ConfigError(f"partition {spec!r} is not one of {FORMS}")


def _positive(spec: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) > 0):
        raise ConfigError(
            f"partition {spec!r}: {text!r} is not a whole number in 1..999999999; give {FORMS}"
        )
    return int(text)


def _alpha(spec: str, text: str) -> float:
    try:
        alpha = float(text)
    except ValueError:
        alpha = math.nan
    if not MIN_ALPHA <= alpha <= MAX_ALPHA:
        raise ConfigError(
            f"partition {spec!r}: alpha {text!r} is not a number in {MIN_ALPHA:g}..{MAX_ALPHA:g}"
        )
    return alpha


def _require_rows(rows: int, needed: int, what: str) -> None:
    if rows < needed:
        raise DataError(
            f"a dataset of {rows} rows cannot be cut into {needed} {what}; ask for at most {rows}"
        )


def _shuffled_by_label(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    return np.lexsort((rng.permutation(len(labels)), labels))


def _clustered(features: NDArray[np.floating], clusters: int, seed: int) -> NDArray[np.int64]:
    """Return the cluster of each row by k-means, in one thread: sums are then in one order."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    rows = np.asarray(features, dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(norms > 0, norms, 1.0)
    # Copies of one row make no more clusters than there are different rows.
    clusters = min(clusters, len(np.unique(rows, axis=0)))
    with threadpool_limits(1):
        found = KMeans(clusters, n_init=_BEGINNINGS, random_state=seed).fit(rows).labels_
    return np.asarray(found, dtype=np.int64)
