"""A site's rows, which stay on the disk until a vector is wanted."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from secure_afl.analytic.rows import ClientData, check_data
from secure_afl.data import dataset as data
from secure_afl.data import files
from secure_afl.errors import ConfigError, DataError
from secure_afl.features.backbone import Backbone, parse_backbone
from secure_afl.features.cache import FeatureCache, default_path
from secure_afl.features.reduction import Reduction, public_reduction, random_reduction
from secure_afl.methods.method import AnyMethod
from secure_afl.progress import Progress
from secure_afl.runs.config import RunConfig


class Reductions:
    """The ways to fewer dimensions that a site or a convener can take, by public settings alone.

    Args:
        backbone: makes the features.
        config: names public data, whitening, and the seed.
    """

    def __init__(self, backbone: Backbone, config: RunConfig) -> None:
        self._backbone = backbone
        self._config = config
        self._public: NDArray[np.floating] | None = None

    def of(self, width: int, dim: int) -> Reduction | None:
        """Return the reduction of features of a width to `dim`; None leaves them as they are.

        Raises:
            ConfigError, DataError: more dimensions than there are, or public data that do not fit.
        """
        config = self._config
        if config.public is not None:
            return public_reduction(self._shared(config.public), dim, whiten=config.whiten)
        return None if dim == width else random_reduction(width, dim, config.seed)

    def digest(self, width: int, dim: int) -> bytes:
        """Return the digest, 32 bytes, of what makes rows of `dim` features."""
        reduction = self.of(width, dim)
        if reduction is None:
            return self._backbone.digest
        return hashlib.sha256(self._backbone.digest + reduction.digest).digest()

    def limit(self, dim: int) -> int:
        """Return how many of `dim` dimensions there can be: public rows span one less than n."""
        public = self._config.public
        return dim if public is None else min(dim, len(self._shared(public)) - 1)

    def _shared(self, path: str) -> NDArray[np.floating]:
        if self._public is None:
            examples = files.load_unlabelled(path, "train")
            self._public = self._backbone.extract(examples, FeatureCache(default_path()))
        return self._public


def open_backbone(config: RunConfig, method: AnyMethod) -> Backbone:
    """Make the backbone of a site's or a convener's settings.

    Raises:
        ConfigError: none is named, or one that the method or its checkpoint does not fit.
    """
    spec = "identity" if method.images else config.backbone
    if spec is None:
        raise ConfigError(
            "no 'backbone'; name what makes features at every site, or 'identity' for features "
            "as they are"
        )
    if method.images and config.backbone not in (None, "identity"):
        raise ConfigError(f"{method.name}, as it is set, learns from pixels; leave backbone out")
    checkpoint = Path(config.checkpoint) if config.checkpoint else None
    return parse_backbone(spec, checkpoint, config.image_size, config.seed)


class SiteRows:
    """One client's rows, in a folder or file of its own.

    Args:
        name: of the client.
        path: of the data.
        backbone: makes features of examples.
        reductions: bring these to a task's dimensions.
        progress: called with what is under way, how much is done, and of how much.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        backbone: Backbone,
        reductions: Reductions,
        progress: Progress | None = None,
    ) -> None:
        self._name = name
        self._path = path
        self._backbone = backbone
        self._reductions = reductions
        self._progress = progress
        self._width: int | None = None

    @property
    def name(self) -> str:
        """Name of the client."""
        return self._name

    @property
    def count(self) -> None:
        """Unknown before the rows are loaded."""
        return

    def check(self, dim: int, classes: Sequence[str], backbone: bytes) -> None:
        """Raise DataError unless a task's rows can be these.

        Its classes are compared here, at home: no other party learns which ones this site has.
        """
        self._dataset(classes)
        if self._reductions.digest(self._features_width(classes), dim) != backbone:
            raise DataError(
                "the task's features are made by another backbone, projection or public data than "
                "this site's; compare backbone, checkpoint, image-size, public, whiten and seed"
            )

    def load(self, dim: int, classes: Sequence[str]) -> ClientData:
        """Return the rows with `dim` features, labelled by their places among `classes`.

        Raises:
            DataError: data that cannot be read, or are none of this task's.
        """
        dataset = self._dataset(classes)
        features = self._backbone.extract(dataset, FeatureCache(default_path()), self._progress)
        reduction = self._reductions.of(features.shape[1], dim)
        rows = features if reduction is None else reduction.apply(features)
        loaded = ClientData(self._name, rows, dataset.labels)
        check_data(f"client '{self._name}'", loaded, len(classes))
        return loaded

    def prepare(self) -> int:
        """Make all features now, into the cache, so that what is wrong shows before a session.

        Returns:
            The number of rows.

        Raises:
            DataError: data that cannot be read, or of which no features can be made.
        """
        dataset = files.load(self._path, "train")
        features = self._backbone.extract(dataset, FeatureCache(default_path()), self._progress)
        self._width = features.shape[1]
        return len(features)

    def _dataset(self, classes: Sequence[str]) -> data.Dataset:
        (dataset,) = data.align([files.load(self._path, "train")], tuple(classes))
        return dataset

    def _features_width(self, classes: Sequence[str]) -> int:
        if self._width is None:
            one = self._dataset(classes).take(np.arange(1))
            self._width = self._backbone.extract(one, FeatureCache(default_path())).shape[1]
        return self._width
