"""A site's rows, which stay on the disk until a vector is wanted."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from protocols.layout import Integers
from secure_afl.analytic.rows import ClientData, check_data
from secure_afl.data.classes import check_alike, check_numbering
from secure_afl.data.columns import Columns
from secure_afl.errors import DataError
from secure_afl.features.reduction import Reduction, public_reduction, reduction_at_random
from secure_afl.methods.method import AnyMethod
from secure_afl.progress import Progress
from secure_afl.runs.config import RunConfig
from secure_afl.sites.prepared import Prepared, prepare

if TYPE_CHECKING:
    from secure_afl.data.account import Account


class Reductions:
    """The ways to fewer dimensions that a site or a convener can take, by public settings alone.

    Args:
        digest: of the backbone, 32 bytes.
        config: names public data, whitening, and the seed.
        method: of the run; with noise some want rows less their own mean.
        public: returns the features of the public data.
    """

    def __init__(
        self,
        digest: bytes,
        config: RunConfig,
        method: AnyMethod,
        public: Callable[[], NDArray[np.floating]],
    ) -> None:
        self._digest = digest
        self._config = config
        self._centred = config.epsilon is not None and method.prefers_fewer_dimensions
        self._public = public

    def of(self, width: int, dim: int) -> Reduction | None:
        """Return the reduction of features of a width to `dim`; None leaves them as they are.

        Raises:
            ConfigError, DataError: more dimensions than there are, or public data that do not fit.
        """
        config = self._config
        if config.dictionary is not None:
            return None  # a table's columns are what people read results by
        if config.public is not None:
            return public_reduction(self._public(), dim, whiten=config.whiten)
        return reduction_at_random(width, dim, config.seed, centred=self._centred)

    def digest(self, width: int, dim: int) -> bytes:
        """Return the digest, 32 bytes, of what makes rows of `dim` features."""
        reduction = self.of(width, dim)
        if reduction is None:
            return self._digest
        return hashlib.sha256(self._digest + reduction.digest).digest()

    def limit(self, dim: int) -> int:
        """Return how many of `dim` dimensions there can be: public rows span one less than n."""
        return dim if self._config.public is None else min(dim, len(self._public()) - 1)


class SiteRows:
    """One client's rows, made of a folder or file of its own.

    Args:
        name: of the client.
        path: of the data.
        config: names what makes features of examples.
        method: that is learned.
        store: folder in which features are kept once they are made.
        progress: called with what is under way, how much is done, and of how much.
        tell: called with the account of the data, when features are made of them.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        config: RunConfig,
        method: AnyMethod,
        store: Path,
        progress: Progress | None = None,
        tell: "Callable[[Account], None] | None" = None,
    ) -> None:
        self._name = name
        self._path = path
        self._config = config
        self._method = method
        self._store = store
        self._progress = progress
        self._tell = tell

    @property
    def name(self) -> str:
        """Name of the client."""
        return self._name

    @cached_property
    def prepared(self) -> Prepared:
        """The features, made now if they are not kept from before.

        Raises:
            DataError: data that cannot be read, or of which no features can be made.
        """
        return prepare(
            self._path, self._config, self._method, self._store, self._progress, self._tell
        )

    @property
    def reductions(self) -> Reductions:
        """What brings these features to a task's dimensions."""
        prepared = self.prepared

        def public() -> NDArray[np.floating]:
            assert prepared.public is not None, "made with the rest"
            return prepared.public

        return Reductions(prepared.about.digest, self._config, self._method, public)

    def check(
        self, dim: int, classes: Sequence[str], backbone: bytes, columns: Columns | None = None
    ) -> None:
        """Raise DataError unless a task's rows can be these.

        Its classes are compared here, at home: no other party is told which ones this site has.
        """
        self._labels(classes)
        if self.reductions.digest(self.prepared.width, dim) != backbone:
            if self.prepared.columns is not None:
                raise DataError(
                    "the task's rows are made by another dictionary, target or formula than this "
                    "site's; compare the three with the convener's, letter by letter"
                )
            raise DataError(
                "the task's features are made by another backbone, projection or public data than "
                "this site's; compare backbone, checkpoint, image-size, public, whiten and seed"
            )

        if columns != self.prepared.columns:
            raise DataError(
                "the task names other columns or ranges than this site's dictionary, in whose "
                "units results would be wrong; take no part, and ask the convener"
            )

    def check_classes(self, classes: Sequence[str]) -> None:
        """Raise DataError unless all examples are of these classes, named and numbered alike."""
        self._labels(classes)

    def load(self, dim: int, classes: Sequence[str]) -> ClientData:
        """Return the rows with `dim` features, labelled by their places among `classes`.

        Raises:
            DataError: data that cannot be read, or are none of this task's.
        """
        prepared = self.prepared
        reduction = self.reductions.of(prepared.width, dim)
        features = prepared.features
        rows = features if reduction is None else reduction.apply(features)
        labels = self._labels(classes)
        loaded = ClientData(
            self._name, rows, labels, prepared.patients, prepared.targets, prepared.marks
        )
        check_data(f"client '{self._name}'", loaded, len(classes))
        return loaded

    def _labels(self, classes: Sequence[str]) -> Integers:
        """Return the labels' places among a task's classes."""
        named = {"the run": tuple(classes), "this site": self.prepared.about.classes}
        check_alike(named, frozenset(classes))
        check_numbering(named)
        prepared, places = self.prepared, {name: place for place, name in enumerate(classes)}
        lookup = np.array([places.get(name, -1) for name in prepared.about.classes])
        labels: Integers = lookup[prepared.labels].astype(np.int64)
        if (unknown := prepared.labels[labels < 0]).size:
            raise DataError(
                f"this site has examples of class {prepared.about.classes[unknown[0]]!r}, which "
                f"is none of the run's: {', '.join(classes[:20])}; rename it, or take no part"
            )
        return labels
