"""Table 1, correlations and components of a run as files and text, at whoever received the sum."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from secure_afl.analytic.components import Components, principal
from secure_afl.analytic.describe import Figures, Summary
from secure_afl.analytic.known import StandIn
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.table_noise import correlation_errors, figure_errors
from secure_afl.data.columns import MISSING
from secure_afl.data.mapping import shorten
from secure_afl.data.tables.references import Reference
from secure_afl.federation.warnings import ROWS_PER_DIMENSION

TABLE, CORRELATIONS, COMPONENTS = "table1.csv", "correlations.csv", "components.csv"
FILES = (TABLE, CORRELATIONS, COMPONENTS)
WITHHELD = "withheld"
STAND_INS = "stand-ins among the values"


class Line(NamedTuple):
    """A line of Table 1.

    Attributes:
        name, unit: of the column; empty for the numbers of rows.
        figure: what is told of it.
        values: over all rows, then by class; NaN for what is withheld or not there.
        errors: standard deviation of the noise in each; None without noise.
        told: whether a figure by class exists at all.
    """

    name: str
    unit: str
    figure: str
    values: Floats
    errors: Floats | None
    told: bool = True


def table_lines(summary: Summary, references: Sequence[Reference] = ()) -> list[Line]:
    """List the lines of Table 1: rows, then for each column a count, or mean and deviation.

    Args:
        references: categories without a column, whose counts are what the others' lines leave of
            the rows: they tell nothing that these lines do not.
    """
    first = {reference.others[0]: reference for reference in references}
    places = {name: at for at, name in enumerate(summary.names)}
    found, errors = summary.figures, figure_errors(summary)
    left_in = {pair.missing for pair in summary.known.left}
    whose = "patients" if summary.label_scale != 1 else "rows"

    def line(name: str, unit: str, figure: str, at: int | None, *, told: bool = True) -> Line:
        values = _row(found, figure, at)
        return Line(
            name, unit, figure, values, None if errors is None else _row(errors, figure, at), told
        )

    def left(reference: Reference) -> list[Line]:
        others = [line(name, "", "count", places[name]) for name in reference.others]
        own = places[reference.others[0]]
        missing = [
            line("", "", "count", pair.missing) for pair in summary.known.taken if pair.place == own
        ]
        counted = rest(reference.name, lines[0], [*others, *missing])
        return [counted, _share(counted, found, own)]

    lines = [line("", "", whose, None)]
    hidden = summary.hidden
    for at, column in enumerate(summary.columns.columns):
        if hidden.derived[at]:
            continue
        if column.name in first:
            lines += left(first[column.name])
        if hidden.indicators[at]:
            counted = line(column.name, column.unit, "count", at)
            lines.append(counted)
            lines.append(_share(counted, found, at))
            if at in left_in:
                base = column.name.removesuffix(MISSING)
                lines.append(counted._replace(name=base, figure=STAND_INS))
            continue
        lines.append(line(column.name, column.unit, "mean", at))
        lines.append(
            line(column.name, column.unit, "deviation", at, told=found.deviations is not None)
        )
        lines.append(line(column.name, column.unit, "deviation within classes", at, told=False))
    return lines


def _row(figures: Figures, figure: str, at: int | None) -> Floats:
    """Return one figure over all rows and by class, (1 + C,)."""
    if at is None:
        return np.concatenate([[figures.total], figures.rows])
    nothing = np.full(len(figures.rows), np.nan)
    deviations = nothing if figures.deviations is None else figures.deviations[at]
    whole, each = {
        "count": (figures.ones[at], figures.ones_each[at]),
        "known": (figures.known[at], figures.known_each[at]),
        "mean": (figures.mean[at], figures.means[at]),
        "deviation": (figures.deviation[at], deviations),
        "deviation within classes": (figures.within[at], nothing),
    }[figure]
    return np.concatenate([[whole], each])


def rest(name: str, rows: Line, others: Sequence[Line]) -> Line:
    """Return the count of the rows that are in none of these k lines; NaN where one is withheld.

    A count of noise is (q + n)/2, with n of the rows and q of its own entry of the sums. What is
    left of the rows is (1 − k/2)n less half of all q.
    """
    values = rows.values - np.sum([other.values for other in others], axis=0)
    errors = None
    if rows.errors is not None:
        own = [_known(other.errors) ** 2 - rows.errors**2 / 4 for other in others]
        shared = (1 - len(others) / 2) ** 2 * rows.errors**2
        errors = np.sqrt(shared + np.sum(own, axis=0))
    return Line(name, "", "count", values, errors)


def _known(errors: Floats | None) -> Floats:
    assert errors is not None, "all figures of a noisy sum have errors"
    return errors


def _share(counted: Line, figures: Figures, at: int) -> Line:
    """Return a count in per cent of the rows that have a value, to first order in their noise.

    Args:
        at: place of the column, or of one of the same variable.
    """
    rows = _row(figures, "known", at)
    return counted._replace(
        figure="per cent",
        values=100 * counted.values / rows,
        errors=None if counted.errors is None else 100 * counted.errors / rows,
    )


def notes(summary: Summary) -> list[str]:
    """Say what a reader of Table 1 should know of it, in sentences."""
    found, hidden = [], summary.hidden
    least = summary.least
    if hidden.classes.any() or (hidden.ones_each & hidden.indicators).any():
        found.append(
            f"Withheld are counts below {least}, and what they would follow from by subtraction."
        )
    if hidden.classes.any() and not hidden.classes.all():
        found.append(
            "Deviations within classes take the classes withheld for one; all of them together "
            "follow from the totals."
        )
    if summary.noise is not None:
        found.append(
            "± is the standard deviation of the noise alone, to first order; a figure without one "
            "is lost in it."
        )
    found += _missing_notes(summary)
    if hidden.derived.any():
        found.append(
            "Interactions, powers and functions are left out: with counts and means they tell of "
            "subgroups."
        )
    numbers = ~(hidden.indicators | hidden.derived)
    if (places := np.flatnonzero(hidden.few & numbers)).size:
        names = [summary.names[place] for place in places]
        found.append(
            f"Withheld are means and deviations of {shorten(names)}, which may be those of fewer "
            f"than {least} rows: all others may be 0, at an end of the range, or missing."
        )
    alone = hidden.few_each & ~hidden.few & ~hidden.known_each & numbers
    if (places := np.flatnonzero(alone)).size:
        names = [summary.names[place] for place in places]
        found.append(
            f"Withheld are figures by class of {shorten(names)}: one may be of fewer than {least} "
            "rows" + ("." if summary.squares is not None else "; --squares tells.")
        )
    if summary.is_exact:
        coarse = float((summary.resolution / (2 * summary.columns.halves)).max())
        found.append(
            f"Figures are exact for values rounded by ≤ {100 * coarse:.2g} % of their range."
        )
    return found


def _missing_notes(summary: Summary) -> list[str]:
    """Say what figures are of where another value stands for missing ones."""
    known, hidden, found = summary.known, summary.hidden, []
    if known.taken:
        found.append(
            f"Figures of {_variables(summary, known.taken)} are of the rows that have a value; the "
            f"count under {MISSING} is of the others."
        )
    if apart := [pair for pair in known.taken if hidden.known_each[pair.place]]:
        found.append(
            f"Withheld by class is what would tell how many rows have no value of "
            f"{_variables(summary, apart)}, fewer than {summary.least} in a class."
        )
    if known.left:
        noisy = summary.noise is not None or summary.label_scale != 1
        why = (
            "in noise how many rows have none is not known"
            if noisy
            else "how many rows have none is withheld"
        )
        found.append(
            f"Figures of {_variables(summary, known.left)} are not of known values alone: the "
            "dictionary's value or category stands for missing ones, and counts like any other, "
            f"for {why}. See {STAND_INS!r}."
        )
    return found


def _variables(summary: Summary, pairs: Sequence[StandIn]) -> str:
    """List the table's columns that these are of."""
    names = [summary.names[pair.missing].removesuffix(MISSING) for pair in pairs]
    return shorten(tuple(dict.fromkeys(names)))


def gram_notes(summary: Summary) -> list[str]:
    """Say what correlations and components give away beyond Table 1, in sentences."""
    found = [
        f"{CORRELATIONS} and {COMPONENTS} are functions of the Gram matrix, which the model is "
        "hardly: keep them where the sum is."
    ]
    if taken := summary.known.taken:
        found.append(
            f"In both a missing value of {_variables(summary, taken)} counts as the mean of the "
            "known ones, which draws correlations towards 0."
        )
    if left := summary.known.left:
        found.append(
            f"In both a missing value of {_variables(summary, left)} counts as the dictionary says."
        )
    need = ROWS_PER_DIMENSION * len(summary.names)
    if summary.is_exact and summary.total < need:
        found.append(
            f"{summary.total:.0f} rows for {len(summary.names)} columns, below {need}: a Gram "
            "matrix of so few shows whose rows are in it, and so may these two files."
        )
    return found


def write_description(folder: Path, summary: Summary, references: Sequence[Reference] = ()) -> None:
    """Write Table 1, and for their owner alone (0600) correlations and components.

    Args:
        references: as `table_lines` takes them.

    Raises:
        OSError: they cannot be written.
    """
    _write(folder / TABLE, _table(summary, references), mode=0o644)
    if not len(summary.correlated):
        return
    _write(folder / CORRELATIONS, _correlations(summary), mode=0o600)
    _write(folder / COMPONENTS, _components(principal(summary)), mode=0o600)


def _table(summary: Summary, references: Sequence[Reference]) -> Iterable[Sequence[str]]:
    yield "column", "unit", "figure", "all", *summary.classes
    for line in table_lines(summary, references):
        yield line.name, line.unit, line.figure, *_cells(line)
        if line.errors is not None:
            errors = [number(value) for value in line.errors]
            yield line.name, line.unit, f"noise in {line.figure}", *errors


def _cells(line: Line) -> list[str]:
    """Write a line's values; what is not told by class is empty, not withheld."""
    lost = "" if line.errors is not None and line.figure.startswith("dev") else WITHHELD
    whole, *each = (number(value) or lost for value in line.values)
    return [whole, *(each if line.told else [""] * len(each))]


def _correlations(summary: Summary) -> Iterable[Sequence[str]]:
    names = [summary.names[place] for place in summary.correlated]
    values, errors = summary.shown_correlations, correlation_errors(summary)
    yield "first", "second", "correlation", *([] if errors is None else ["noise"])
    for one in range(len(names)):
        for other in range(one + 1, len(names)):
            noise = [] if errors is None else [number(errors[one, other])]
            shown = number(values[one, other]) or WITHHELD
            yield names[one], names[other], shown, *noise


def _components(found: Components) -> Iterable[Sequence[str]]:
    noisy = found.errors is not None
    yield "component", "eigenvalue", *(["noise"] if noisy else []), "share", *found.names
    for at in range(len(found.values)):
        loadings: Iterable[float] = found.loadings[:, at : at + 1].ravel()
        numbers = [found.values[at], *([] if found.errors is None else [found.errors[at]])]
        told = [number(value) for value in (*numbers, found.shares[at], *loadings)]
        yield str(at + 1), *told


def number(value: float) -> str:
    """Write a number with all that is known of it; nothing for NaN."""
    return "" if math.isnan(value) else f"{value:.12g}"


def _write(path: Path, rows: Iterable[Sequence[str]], *, mode: int) -> None:
    path.touch(mode=mode)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
