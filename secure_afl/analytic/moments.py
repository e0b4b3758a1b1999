"""Summed statistics as floats, and what follows from them: means, centring, scales."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats, Quantiser
from secure_afl.analytic.statistics import Statistics, one_hot
from secure_afl.errors import ConfigError, NoModel

Bools = NDArray[np.bool_]


class TooFewRows(NoModel):
    """A sum of too few rows for what is asked of it."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Gram matrix, cross term and class counts of rows F (N, d) with one-hot labels Y (N, C).

    Attributes:
        gram: FᵀF, (d, d) float64; None where it was not summed.
        cross: FᵀY, (d, C) float64.
        counts: rows of each class, (C,) float64; None where they were not summed.
    """

    gram: Floats | None
    cross: Floats
    counts: Floats | None

    def __repr__(self) -> str:
        return f"<Moments of {self.cross.shape[0]} features, {self.cross.shape[1]} classes>"

    @classmethod
    def of(
        cls,
        statistics: Statistics,
        quantiser: Quantiser,
        *,
        gram: bool = True,
        counts: bool = True,
        label_scale: int = 1,
    ) -> "Moments":
        """Bring integer statistics into units of the float features, rows of norm ≤ 1.

        Args:
            gram, counts: whether these were summed.
            label_scale: A, where rows have weights; a patient then counts as one row.
        """
        floats = statistics.floats(quantiser, label_scale)
        known = statistics.counts / label_scale**2 if counts else None
        return cls(floats[0] if gram else None, floats[1], known)

    @classmethod
    def of_rows(cls, rows: Floats, labels: NDArray[np.int64], classes: int) -> "Moments":
        """Sum up float rows (n, d) of norm ≤ 1, without rounding."""
        targets = one_hot(labels, classes)
        return cls(rows.T @ rows, rows.T @ targets, targets.sum(axis=0))

    def __add__(self, other: "Moments") -> "Moments":
        def added(a: Floats | None, b: Floats | None) -> Floats | None:
            return None if a is None or b is None else a + b

        gram, counts = added(self.gram, other.gram), added(self.counts, other.counts)
        return Moments(gram, self.cross + other.cross, counts)

    @property
    def dim(self) -> int:
        """Number of features, d."""
        return len(self.cross)

    @property
    def classes(self) -> int:
        """Number of classes, C."""
        return int(self.cross.shape[1])

    @cached_property
    def known_gram(self) -> Floats:
        """The Gram matrix, (d, d).

        Raises:
            ConfigError: it was not summed.
        """
        if self.gram is None:
            raise ConfigError("the sum holds no Gram matrix; allowed: a head that needs none")
        return self.gram

    @cached_property
    def known_counts(self) -> Floats:
        """The rows of each class, (C,).

        Raises:
            ConfigError: they were not summed.
        """
        if self.counts is None:
            raise ConfigError(
                "the sum holds no class counts, as sums with noise hold none; allowed: --head "
                "ridge, which needs none"
            )
        return self.counts

    @cached_property
    def rows(self) -> float:
        """Number of rows, N.

        Raises:
            TooFewRows: there are no more rows than classes.
            ConfigError: counts were not summed.
        """
        rows, seen = float(self.known_counts.sum()), int(self.seen.sum())
        if rows <= seen:
            raise TooFewRows(
                f"{rows:.0f} rows of {seen} classes; allowed: more rows than classes, for the "
                "spread within classes is what this head goes by. Give more rows"
            )
        return rows

    @cached_property
    def seen(self) -> Bools:
        """Whether a class has rows, (C,)."""
        seen: Bools = self.known_counts > 0
        return seen

    @cached_property
    def means(self) -> Floats:
        """Mean row of each class, (d, C); zero for a class without rows."""
        means: Floats = self.cross / np.where(self.seen, self.known_counts, 1.0)
        return means

    @cached_property
    def mean(self) -> Floats:
        """Mean of all rows, (d,): the labels are one-hot, so that ΣF = Σ_c Q_c."""
        mean: Floats = self.cross.sum(axis=1) / self.rows
        return mean

    @cached_property
    def within(self) -> Floats:
        """Scatter within classes over N: (G − Σ_c Q_cQ_cᵀ/n_c)/N, (d, d)."""
        scaled = self.cross / np.sqrt(np.where(self.seen, self.known_counts, 1.0))
        scatter: Floats = (self.known_gram - scaled @ scaled.T) / self.rows
        return (scatter + scatter.T) / 2

    def centred(self) -> "Moments":
        """Return the moments of rows less their mean: G − N·mmᵀ and Q − m·nᵀ."""
        gram = self.known_gram - self.rows * np.outer(self.mean, self.mean)
        cross = self.cross - np.outer(self.mean, self.known_counts)
        return Moments((gram + gram.T) / 2, cross, self.counts)

    def deviations(self) -> Floats:
        """Return the standard deviation of each feature, (d,); 1 for one that does not vary.

        A variance is on the diagonal of the centred Gram matrix, over N. One below 1e-12 of the
        feature's mean square is rounding.
        """
        squares = self.known_gram.diagonal() / self.rows
        variances = squares - self.mean**2
        varies = variances > 1e-12 * np.maximum(squares, np.finfo(float).tiny)
        deviations: Floats = np.sqrt(np.where(varies, variances, 1.0))
        return deviations

    def reordered(self, order: Integers) -> "Moments":
        """Return the moments with the classes at these places, (C,), in this order."""
        counts = None if self.counts is None else self.counts[order]
        return Moments(self.gram, np.ascontiguousarray(self.cross[:, order]), counts)

    def divided(self, by: Floats) -> "Moments":
        """Return the moments of rows whose features are divided by `by`, (d,) > 0."""
        gram = None if self.gram is None else self.gram / np.outer(by, by)
        return Moments(gram, self.cross / by[:, None], self.counts)
