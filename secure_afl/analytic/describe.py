"""Table 1: means, counts, deviations and correlations in own units, from summed statistics."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from secure_afl.analytic.hidden import Hidden, hide
from secure_afl.analytic.moments import Bools
from secure_afl.analytic.quantise import Floats, Integers, Quantiser
from secure_afl.analytic.statistics import Statistics
from secure_afl.analytic.table_sums import StepNoise, TableSums
from secure_afl.analytic.withheld import LEAST_COUNT, withheld_pairs
from secure_afl.data.columns import Columns, base_of, is_of_missing
from secure_afl.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Figures:
    """Figures of Table 1; NaN for what is withheld, or lost in noise.

    Attributes:
        rows: of each class, (C,).
        total: rows of all classes.
        mean, deviation: over all rows, (d,), in own units; deviations over N − 1.
        within: deviation pooled within the classes shown, those withheld being one, (d,).
        means: by class, (d, C).
        deviations: by class, (d, C); None where no squares by class were summed.
        ones: rows at the upper end of an indicator's range, (d,).
        ones_each: the same by class, (d, C).
    """

    rows: Floats
    total: float
    mean: Floats
    deviation: Floats
    within: Floats
    means: Floats
    deviations: Floats | None
    ones: Floats
    ones_each: Floats

    def masked(self, hidden: "Hidden") -> "Figures":
        """Return the figures without those that are not printed."""
        numbers = hidden.indicators | hidden.derived | hidden.few | hidden.everything
        compared = numbers | hidden.few_each
        each = hidden.classes | compared[:, None]
        ones_each = hidden.classes | (hidden.ones_each | ~hidden.indicators)[:, None]
        return Figures(
            _without(self.rows, hidden.classes),
            np.nan if hidden.everything else self.total,
            _without(self.mean, numbers),
            _without(self.deviation, numbers),
            _without(self.within, compared),
            _without(self.means, each),
            None if self.deviations is None else _without(self.deviations, each),
            _without(self.ones, hidden.ones | ~hidden.indicators),
            _without(self.ones_each, ones_each),
        )


def _without(values: Floats, hidden: Bools) -> Floats:
    return np.where(hidden, np.nan, values)


@dataclass(frozen=True, eq=False)
class Summary(TableSums):
    """What follows from the sums of a table's rows; functions of these sums alone."""

    def __repr__(self) -> str:
        return f"<Summary of {len(self.columns.columns)} columns, {len(self.classes)} classes>"

    @cached_property
    def unit(self) -> Floats:
        """Own units of one integer step, (d,)."""
        unit: Floats = self.columns.halves / self.end
        return unit

    @cached_property
    def resolution(self) -> Floats:
        """How far rounding may have moved a value, (d,), in own units."""
        return self.unit / 2

    @cached_property
    def shift(self) -> Integers:
        """Integers near the means, about which sums are taken: floats then lose nothing."""
        if self.label_scale != 1:
            return np.zeros(len(self.names), dtype=np.int64)
        shift: Integers = np.rint(self.statistics.cross.sum(axis=1) / self.total).astype(np.int64)
        return shift

    @cached_property
    def cross(self) -> Floats:
        """Class sums about the shift, (d, C); int64 wraps around, and the difference is right."""
        moved = self.statistics.cross - np.outer(self.shift, self.statistics.counts)
        cross: Floats = moved / self.label_scale
        return cross

    @cached_property
    def _gram(self) -> Floats:
        """Gram matrix about the shift, (d, d)."""
        c, total = self.shift, self.statistics.cross.sum(axis=1)
        across = np.outer(c, total)
        gram = self.statistics.gram - across - across.T
        moved: Floats = (gram + np.outer(c, c) * self.statistics.counts.sum()).astype(np.float64)
        return moved

    @cached_property
    def _middle(self) -> Floats:
        """Means about the shift, (d,)."""
        middle: Floats = self.cross.sum(axis=1) / self.total
        return middle

    @cached_property
    def covariance(self) -> Floats:
        """Covariance over N in squared integer steps, (d, d)."""
        return self._gram / self.total - np.outer(self._middle, self._middle)

    @cached_property
    def level(self) -> Floats:
        """Means in integer steps, (d,)."""
        return self.shift + self._middle

    @cached_property
    def level_each(self) -> Floats:
        """Class means in integer steps, (d, C); NaN for a class without rows."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.shift[:, None] + self.cross / self.known_rows

    @cached_property
    def known_rows(self) -> Floats:
        """Rows of each class, (C,); NaN for one without."""
        return np.where(self.rows >= 1, self.rows, np.nan)

    @cached_property
    def hidden(self) -> Hidden:
        """What is not printed, and why no subtraction finds it."""
        return hide(self)

    @cached_property
    def figures(self) -> Figures:
        """What is printed of Table 1."""
        return self.raw.masked(self.hidden)

    @cached_property
    def raw(self) -> Figures:
        """Figures before anything is withheld."""
        n, own = self.total, self.unit
        return Figures(
            self.rows,
            n,
            self.columns.centres + own * self.level,
            own * root(self.covariance.diagonal() * (n / (n - 1))),
            own * root(self.within),
            self.columns.centres[:, None] + own[:, None] * self.level_each,
            None if self.squares is None else own[:, None] * root(self.variances),
            self.ones.sum(axis=1),
            self.ones,
        )

    @cached_property
    def groups(self) -> tuple[Floats, Floats]:
        """Class sums (d, K) and rows (K,) of classes shown, and of those withheld together."""
        hidden = self.hidden.classes
        sums, rows = self.cross[:, ~hidden], self.rows[~hidden]
        if hidden.any():
            sums = np.hstack([sums, self.cross[:, hidden].sum(axis=1, keepdims=True)])
            rows = np.hstack([rows, self.rows[hidden].sum(keepdims=True)])
        return sums[:, rows >= 1], rows[rows >= 1]

    @cached_property
    def within(self) -> Floats:
        """Variances pooled within `groups`, (d,), in squared integer steps."""
        sums, rows = self.groups
        left = self.total - len(rows)
        if left <= 0:
            return np.full(len(self.names), np.nan)
        within: Floats = (self._gram.diagonal() - (sums**2 / rows).sum(axis=1)) / left
        return within

    @cached_property
    def variances(self) -> Floats:
        """Variances by class over n − 1, (d, C), in squared integer steps."""
        assert self.squares is not None, "asked for where they are"
        c = self.shift[:, None]
        moved = self.squares - 2 * c * self.statistics.cross
        if self.label_scale == 1:
            moved = moved + c**2 * self.statistics.counts
        n = np.where(self.rows >= 2, self.rows, np.nan)
        variances: Floats = (moved - self.cross**2 / n) / (n - 1)
        return variances

    @cached_property
    def correlated(self) -> Integers:
        """Places of the columns that correlations and components are of, (k,)."""
        hidden, variances = self.hidden, self.covariance.diagonal()
        out = hidden.derived | hidden.ones | hidden.few | hidden.everything
        # What does not vary correlates with nothing; noise may take more than all variance.
        return np.flatnonzero(~out & (variances > 1e-9))

    @cached_property
    def correlations(self) -> Floats:
        """Pearson correlations of the columns at `correlated`, (k, k), before withholding."""
        place = self.correlated
        part = self.covariance[np.ix_(place, place)]
        deviations = np.sqrt(part.diagonal())
        found: Floats = part / np.outer(deviations, deviations)
        np.fill_diagonal(found, 1.0)
        return found

    @cached_property
    def shown_correlations(self) -> Floats:
        """Correlations without those of indicator pairs that show a small count, (k, k)."""
        place = self.correlated
        found = self.correlations.copy()
        counted = np.flatnonzero(self.hidden.indicators[place])
        if not len(counted):
            return found
        at = place[counted]
        both, ones = self.both(at), self.raw.ones[at]
        base = np.array([base_of(self.names[p]) for p in at])
        missing = np.array([is_of_missing(self.names[p]) for p in at])
        shows = withheld_pairs(both, ones, ones, self.total, self.least)
        np.fill_diagonal(shows, False)
        for name in set(base.tolist()):
            # What is left of the others' rows is in the first category.
            own = (base == name) & ~missing
            left = ones - both[own].sum(axis=0), self.total - ones[own].sum(keepdims=True)
            small = withheld_pairs(left[0][None], left[1], ones, self.total, self.least)[0]
            shows |= np.outer(own, small) | np.outer(small, own)
        # No row has two categories of one variable, as everybody knows.
        shows &= (base[:, None] != base) | missing[:, None] | missing
        part = found[np.ix_(counted, counted)]
        found[np.ix_(counted, counted)] = np.where(shows, np.nan, part)
        return found


def root(squares: Floats) -> Floats:
    """Take square roots; NaN for what noise has made negative, zero for what rounding has."""
    clean = np.where((squares < 0) & (squares > -1e-6), 0.0, squares)
    with np.errstate(invalid="ignore", divide="ignore"):
        roots: Floats = np.sqrt(np.where(clean < 0, np.nan, clean))
    return roots


def summarise(
    statistics: Statistics,
    columns: Columns,
    classes: Sequence[str],
    quantiser: Quantiser,
    *,
    squares: Integers | None = None,
    label_scale: int = 1,
    least: int = LEAST_COUNT,
    noise: StepNoise | None = None,
) -> Summary:
    """Describe the rows of a table from their summed statistics; arguments are `Summary`'s.

    Raises:
        ConfigError: as `Summary`, or rows that were not summed by their columns' ranges.
    """
    if quantiser.mode != "columns":
        raise ConfigError(
            f"rows of mode {quantiser.mode!r}; allowed for a table: 'columns', which keeps lengths"
        )
    return Summary(
        statistics,
        columns,
        tuple(classes),
        quantiser.end(len(columns.columns)),
        squares,
        label_scale,
        least,
        noise,
    )
