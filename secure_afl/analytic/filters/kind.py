"""The contract between a kind of filters and whoever has a layer's sums."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from protocols.registry import Registry
from secure_afl.analytic.layers.patches import LayerShape, LayerStatistics
from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError


@dataclass(frozen=True, eq=False)
class LayerMoments:
    """A layer's sums as floats, in units of the maps: their mean square is 1.

    Attributes:
        gram: Σxxᵀ over patches without their constant, (p, p).
        sums: Σx, (p,).
        count: number of patches, N·P; with noise what the sum says of it.
        cross: Σx by class and region, (p, C, R).
        masses: number of patches by class and region, (C, R).
        floor: eigenvalues of the Gram below it are noise; 0 for exact sums.
        least_count: numbers of patches below it are noise; 0 for exact sums.
    """

    gram: Floats
    sums: Floats
    count: float
    cross: Floats
    masses: Floats
    floor: float = 0.0
    least_count: float = 0.0

    def __repr__(self) -> str:
        return f"<LayerMoments of patches of {len(self.gram)} numbers>"

    @classmethod
    def of(
        cls,
        statistics: LayerStatistics,
        shape: LayerShape,
        floor: float = 0.0,
        least_count: float = 0.0,
        weight: int = 1,
    ) -> "LayerMoments":
        """Bring whole-number sums into units of the maps, of which each has weight `weight`."""
        gram = statistics.gram / (weight * shape.steps**2)
        cross = statistics.cross / (weight * shape.steps)
        return cls(
            gram[:-1, :-1],
            gram[:-1, -1],
            float(gram[-1, -1]),
            cross[:-1],
            cross[-1],
            floor,
            least_count,
        )

    @cached_property
    def mean(self) -> Floats:
        """Mean patch, (p,); zero where the number of patches does not stand out of the noise."""
        if self.count <= self.least_count:
            return np.zeros(len(self.sums))
        mean: Floats = self.sums / self.count
        return mean

    @cached_property
    def centred(self) -> tuple[Floats, Floats]:
        """Gram (p, p) and cross term (p, C, R) of patches less the mean patch.

        Raises:
            ConfigError: patches of an exact sum do not vary.
        """
        gram = self.gram - self.count * np.outer(self.mean, self.mean)
        cross = self.cross - self.mean[:, None, None] * self.masses
        # Noise may make anything of a trace; there the floor is what eigenvalues have at least.
        least = 1e-12 * max(float(np.trace(self.gram)), 1e-300)
        if self.floor == 0 and not np.trace(gram) > least:
            raise ConfigError(
                "patches do not vary: images of one colour have nothing to learn filters from; "
                "give other images, or take --filters random"
            )
        return (gram + gram.T) / 2, cross

    @cached_property
    def spectrum(self) -> tuple[Floats, Floats]:
        """Eigenvalues of the centred Gram, none below the floor, (p,), and vectors (p, p)."""
        from scipy.linalg import eigh

        values, vectors = eigh(self.centred[0], driver="evd")
        return np.maximum(values, self.floor), vectors

    @property
    def contrasts(self) -> Floats:
        """Centred cross term less its mean over the classes in each region, (p, C, R).

        A class counts by the root of its patches, as in a canonical correlation with labels: the
        mean goes by patches, and each column is divided by that root.
        """
        cross, masses = self.centred[1], np.maximum(self.masses, 0.0)
        regions = cross.sum(axis=1) / np.maximum(masses.sum(axis=0), 1.0)
        contrasts: Floats = cross - regions[:, None, :] * masses
        return contrasts / np.sqrt(np.maximum(masses, max(self.least_count, 1.0)))


class FilterKind(ABC):
    """A kind of filters.

    Attributes:
        name: as on the command line.
        summary: a clause for help texts.
        needs_sum: filters are made of a layer's sums; without, of a public seed alone.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    needs_sum: ClassVar[bool] = True

    @classmethod
    def most(cls, shape: LayerShape, classes: int) -> int | None:
        """Return how many filters there are at most; None for any number."""
        return None

    @classmethod
    @abstractmethod
    def filters(
        cls,
        shape: LayerShape,
        moments: LayerMoments | None,
        count: int,
        ridge: float,
        rng: np.random.Generator,
    ) -> Floats:
        """Make filters (p, count) for patches less their mean.

        Args:
            moments: of the layer; None for a kind that needs no sum.
            ridge: ν > 0, in units of the mean eigenvalue.
            rng: of the public seed and the layer.

        Raises:
            ConfigError: sums that filters cannot be made of.
        """


FILTERS: Registry[FilterKind] = Registry(
    "filters", FilterKind, ("secure_afl.analytic.filters",), "secure_afl.filters"
)


def whitening(moments: LayerMoments, ridge: float) -> Floats:
    """Return V = U(Λ + ν·tr(Ḡ)/p)^(−1/2), (p, p), of the centred Gram Ḡ = UΛUᵀ."""
    values, vectors = moments.spectrum
    whitened: Floats = vectors / np.sqrt(values + ridge * values.mean())
    return whitened


def of_variance_one(filters: Floats, moments: LayerMoments) -> Floats:
    """Scale filters (p, F) so that responses to centred patches have variance 1.

    The sign of each makes its greatest weight positive, for singular vectors have free signs.
    """
    values, vectors = moments.spectrum
    turned = vectors.T @ filters
    variances = (values[:, None] * turned**2).sum(axis=0)
    variances /= max(moments.count, moments.least_count, 1.0)
    scaled = filters / np.sqrt(np.maximum(variances, np.finfo(float).tiny))
    signs = np.sign(scaled[np.abs(scaled).argmax(axis=0), np.arange(scaled.shape[1])])
    positive: Floats = scaled * np.where(signs < 0, -1.0, 1.0)
    return positive
