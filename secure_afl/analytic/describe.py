"""Table 1: means, counts, deviations and correlations in own units, from summed statistics."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from secure_afl.analytic.hidden import Hidden, hide
from secure_afl.analytic.known import Known
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

    They are of the rows that have a value, where the sum tells: see `Summary.known`.

    Attributes:
        rows: of each class, (C,).
        total: rows of all classes.
        mean, deviation: over all rows, (d,), in own units; deviations over N − 1.
        within: deviation pooled within the classes shown, those withheld being one, (d,).
        means: by class, (d, C).
        deviations: by class, (d, C); None where no squares by class were summed.
        ones: rows at the upper end of an indicator's range, (d,).
        ones_each: the same by class, (d, C).
        known: rows that a column's figures are of, (d,).
        known_each: the same by class, (d, C).
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
    known: Floats
    known_each: Floats

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
            _without(self.known, np.array(hidden.everything)),
            _without(self.known_each, hidden.classes | hidden.known_each[:, None]),
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

    @property
    def known(self) -> Known:
        """The sums of the rows that have a value."""
        return self.hidden.known

    @cached_property
    def known_total(self) -> Floats:
        """Rows that have a value, (d,)."""
        total: Floats = self.known.counts.sum(axis=1) / self.label_scale**2
        return total

    @cached_property
    def shift(self) -> Integers:
        """Integers near the means, about which sums are taken: floats then lose nothing."""
        if self.label_scale != 1:
            return np.zeros(len(self.names), dtype=np.int64)
        shift: Integers = np.rint(self.known.sums.sum(axis=1) / self.known_total).astype(np.int64)
        return shift

    @cached_property
    def cross(self) -> Floats:
        """Class sums about the shift, (d, C); int64 wraps around, and the difference is right."""
        moved = self.known.sums - self.shift[:, None] * self.known.counts
        cross: Floats = moved / self.label_scale
        return cross

    @cached_property
    def _squares(self) -> Floats:
        """Sums of squares about the shift, (d,)."""
        c, known = self.shift, self.known
        moved = known.squares - 2 * c * known.sums.sum(axis=1) + c**2 * known.counts.sum(axis=1)
        squares: Floats = moved.astype(np.float64)
        return squares

    @cached_property
    def _middle(self) -> Floats:
        """Means about the shift, (d,)."""
        middle: Floats = self.cross.sum(axis=1) / self.known_total
        return middle

    @cached_property
    def covariance(self) -> Floats:
        """Covariance over N in squared integer steps, (d, d), of all rows.

        A missing value counts as the mean of the known ones, where `known` has these: pairs of
        columns do not tell the covariance of the rows that have both.
        """
        c, total = self.shift, self.statistics.cross.sum(axis=1)
        across = np.outer(c, total)
        gram = self.statistics.gram - across - across.T
        gram = gram + np.outer(c, c) * self.statistics.counts.sum()
        middle = (total - c * self.statistics.counts.sum()) / self.label_scale / self.total
        covariance: Floats = gram / self.total - np.outer(middle, middle)
        # What stands for a missing value moves by so much for each step of the indicator.
        moves = np.eye(len(c))
        for place, missing, level in self.known.taken:
            assert level is not None, "what was taken out has a level"
            moves[place, missing] = (self.level[place] - level) / (2 * self.end)
        if self.known.taken:
            covariance = moves @ covariance @ moves.T
        for place, missing, _ in self.known.taken:
            covariance[[place, missing], [missing, place]] = 0.0
        return covariance

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
        """Rows of each class that have a value, (d, C); NaN for a class without."""
        rows = self.known.counts / self.label_scale**2
        return np.where(rows >= 1, rows, np.nan)

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
        n, own, ones = self.known_total, self.unit, self.ones.copy()
        for place, missing, level in self.known.taken:
            if level == self.end:
                ones[place] -= ones[missing]
        variances = (self._squares / n - self._middle**2) * (n / (n - 1))
        return Figures(
            self.rows,
            self.total,
            self.columns.centres + own * self.level,
            own * root(variances),
            own * root(self.within),
            self.columns.centres[:, None] + own[:, None] * self.level_each,
            None if self.squares is None else own[:, None] * root(self.variances),
            ones.sum(axis=1),
            ones,
            n,
            self.known_rows,
        )

    @cached_property
    def groups(self) -> tuple[Floats, Floats]:
        """Class sums and rows, (d, K) each, of classes shown, and of those withheld together."""
        hidden, known = self.hidden.classes, self.known.counts / self.label_scale**2
        parts = [np.array([place]) for place in np.flatnonzero(~hidden)]
        if hidden.any():
            parts.append(np.flatnonzero(hidden))
        parts = [part for part in parts if self.rows[part].sum() >= 1]
        sums = [self.cross[:, part].sum(axis=1) for part in parts]
        return np.stack(sums, axis=1), np.stack([known[:, p].sum(axis=1) for p in parts], axis=1)

    @cached_property
    def within(self) -> Floats:
        """Variances pooled within `groups`, (d,), in squared integer steps."""
        sums, rows = self.groups
        left = self.known_total - rows.shape[1]
        with np.errstate(divide="ignore", invalid="ignore"):
            within = (self._squares - (sums**2 / rows).sum(axis=1)) / left
        return np.where(left > 0, within, np.nan)

    @cached_property
    def variances(self) -> Floats:
        """Variances by class over n − 1, (d, C), in squared integer steps."""
        known = self.known
        assert known.squares_each is not None, "asked for where they are"
        c = self.shift[:, None]
        # Where rows have weights, the shift is zero.
        moved = known.squares_each - 2 * c * known.sums + c**2 * known.counts
        n = np.where(self.known_rows >= 2, self.known_rows, np.nan)
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
        at = place[self.hidden.indicators[place]]
        if not len(at):
            return self.correlations
        # A correlation turns on counts of an indicator, and of the rows that have a value.
        turns = place[:, None] == at
        for pair in self.known.taken:
            turns[place == pair.place] |= at == pair.missing
        shows = turns.astype(int) @ self._small_pairs(at).astype(int) @ turns.T.astype(int) > 0
        np.fill_diagonal(shows, False)
        return np.where(shows, np.nan, self.correlations)

    def _small_pairs(self, at: Integers) -> Bools:
        """Say of which pairs of indicators at these places a cell is small, (k, k)."""
        apart, taken = np.eye(len(at)), np.zeros(len(at), dtype=bool)
        for pair in self.known.taken:
            taken |= at == pair.missing
            if pair.level == self.end:
                apart -= np.outer(at == pair.place, at == pair.missing)
        both, ones = apart @ self.both(at) @ apart.T, apart @ self.ones.sum(axis=1)[at]
        base = np.array([base_of(self.names[p]) for p in at])
        # Those of missing values may be among the others' rows, where they were not taken out.
        among = np.array([is_of_missing(self.names[p]) for p in at]) & ~taken
        shows = withheld_pairs(both, ones, ones, self.total, self.least)
        np.fill_diagonal(shows, False)
        for name in set(base.tolist()):
            # What is left of the others' rows is in the first category.
            own = (base == name) & ~among
            left = ones - both[own].sum(axis=0), self.total - ones[own].sum(keepdims=True)
            small = withheld_pairs(left[0][None], left[1], ones, self.total, self.least)[0]
            shows |= np.outer(own, small) | np.outer(small, own)
        # No row has two categories of one variable, as everybody knows.
        shows &= (base[:, None] != base) | among[:, None] | among
        return shows


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
