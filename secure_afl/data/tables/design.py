"""From a table's rows to features: what a dictionary, a target and a formula make of them."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from protocols.codec import encode
from secure_afl.data.columns import GREATEST, Column, Columns, Floats
from secure_afl.data.dataset import Dataset, DroppedRow, Origin, TableOrigin
from secure_afl.data.mapping import shorten
from secure_afl.data.tables.cells import Cells, read_cells
from secure_afl.data.tables.dictionary import (
    DROP,
    REFUSE,
    Category,
    Dictionary,
    Id,
    Ignored,
    Number,
    make_dictionary,
    read_dictionary,
)
from secure_afl.data.tables.formula import Factor, Term, main_effects, parse_formula
from secure_afl.data.tables.marks import row_marks
from secure_afl.data.tables.pieces import Piece, base_pieces, missing_pieces, product_of
from secure_afl.data.tables.raw import RawTable
from secure_afl.data.tables.words import MissingWords
from secure_afl.errors import ConfigError, DataError

MAX_FEATURES = 4096

# Of fewer rows one knows little of how many values a column has.
_MANY_ROWS = 30


class Portable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A design as a model's card holds it.

    Attributes:
        dictionary: its content, as in TOML.
        target, formula: as they were given; a formula of None is all columns.
    """

    dictionary: dict[str, Any]
    target: str
    formula: str | None = None


@dataclass(frozen=True, eq=False)
class Design:
    """What every row of a table becomes, the same at all sites; made by `make_design`.

    Attributes:
        dictionary: what columns mean.
        target: name of the column that is predicted.
        formula: as it was given; None for all columns.
        id: name of the column that says whose each row is, if any.
        terms: of the model, without the intercept.
        open: names of its columns of numbers whose range sites find together; the dictionary has
            the widest for them.
    """

    dictionary: Dictionary
    target: str
    formula: str | None
    id: str | None
    terms: tuple[Term, ...] = field(repr=False)
    open: tuple[str, ...] = ()

    @property
    def outcome(self) -> Number | Category:
        """What the target is."""
        spec = self.dictionary.columns[self.target]
        assert isinstance(spec, Number | Category)
        return spec

    @property
    def numeric(self) -> bool:
        """Whether a number is predicted, and no class."""
        return isinstance(self.outcome, Number)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; of a number its target's alone."""
        outcome = self.outcome
        return outcome.categories if isinstance(outcome, Category) else (self.target,)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the table's columns that features are made of, in the dictionary's order."""
        used = {factor.column for term in self.terms for factor in term}
        return tuple(name for name in self.dictionary.columns if name in used)

    @cached_property
    def columns(self) -> Columns:
        """The design's columns, one a feature, and the target's where it is a number."""
        outcome = self.outcome
        target = None
        if isinstance(outcome, Number):
            assert outcome.range is not None
            opened = self.target in self.open
            target = Column.over(self.target, *outcome.range, outcome.unit, open=opened)
        found = [
            Column.over(
                p.name,
                p.low,
                p.high,
                p.unit,
                open=p.name in self.open,
                derived=p.derived,
                indicator=p.indicator,
            )
            for p in self._pieces
        ]
        return Columns(tuple(found), target)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256, 32 bytes, over all that changes what a row becomes."""
        text = msgspec.json.encode(self.portable, order="sorted").decode()
        names = list(self.dictionary.columns)
        opened = (self.open,) if self.open else ()
        return hashlib.sha256(encode(("secure-afl table", text, names, *opened))).digest()

    @property
    def portable(self) -> Portable:
        """This design without its id, for a model's card."""
        return Portable(msgspec.to_builtins(self.dictionary), self.target, self.formula)

    def completed(self, columns: Columns) -> "Design":
        """Return this design with the ranges that sites found, as if they had been declared.

        A number that stands for missing values is cut to its column's range, as all values are.

        Args:
            columns: of a task, with ranges for all.
        """
        every = (*columns.columns, *([] if columns.target is None else [columns.target]))
        found = {column.name: column for column in every}
        specs = dict(self.dictionary.columns)
        for name in self.open:
            spec, column = specs[name], found[name]
            assert isinstance(spec, Number), "only numbers have ranges"
            specs[name] = _in_range(spec, column.low, column.high)
        dictionary = msgspec.structs.replace(self.dictionary, columns=specs)
        return make_design(dictionary, self.target, self.formula, self.id)

    def with_id(self, name: str) -> "Design":
        """Return this design with another column that says whose each row is.

        Raises:
            ConfigError: the column is a feature.
        """
        _check_id(self.dictionary, name)
        return replace(self, id=name)

    @classmethod
    def of_card(cls, content: Any) -> "Design":
        """Make the design that a model's card holds.

        Raises:
            DataError: it is damaged.
        """
        try:
            found = msgspec.convert(content, Portable)
            dictionary = make_dictionary(found.dictionary, "the card's dictionary")
            return make_design(dictionary, found.target, found.formula)
        except (msgspec.ValidationError, ConfigError) as error:
            raise DataError(f"the model's card has no usable dictionary: {error}") from None

    def dataset(self, name: str, table: RawTable, path: Path | None = None) -> Dataset:
        """Make features, labels or targets, and ids of a table's rows.

        Rows with a missing value are left out where the dictionary says `drop`, and counted.

        Raises:
            DataError: a column that is missing, a cell that is none of its column's values, or no
                row that is left.
        """
        cells, kept = self._cells(table, (*self.inputs, self.target))
        outcome = cells.pop(self.target)
        _check_any(table, kept)
        features = self._features(cells, kept)
        column = self.columns.target
        labels = np.zeros(len(features), dtype=np.int64)
        targets = None
        if column is None:
            labels = outcome.values[kept].astype(np.int64)
        else:
            targets = column.scaled(outcome.values[kept])
        whose = None
        if self.id is not None:
            words = self._ids(table, self.id)
            whose = tuple(words[row] for row in np.flatnonzero(kept))
        return Dataset(
            name,
            features,
            labels,
            self.classes,
            self._origin(path, table, cells | {self.target: outcome}, kept),
            whose,
            targets,
            row_marks(table, self._valued, self.dictionary.missing)[kept],
        )

    def _ids(self, table: RawTable, name: str) -> tuple[str, ...]:
        """Return whose each row is; empty where it is missing."""
        if name not in table.columns:
            raise DataError(
                f"{table.where} has no column {name!r}, and of tables --id names the column of "
                f"ids; allowed: one of {shorten(tuple(table.columns))}. Patterns are of names of "
                "image files"
            )
        cells, absent = table.columns[name], MissingWords(self.dictionary.missing)
        nameless = {cell for cell in set(cells) if cell in absent}
        return tuple("" if cell in nameless else cell for cell in cells)

    @property
    def _valued(self) -> tuple[str, ...]:
        """Names of the dictionary's columns that have values, in the model or not."""
        specs = self.dictionary.columns.items()
        return tuple(name for name, spec in specs if isinstance(spec, Number | Category))

    def unlabelled(self, name: str, table: RawTable, path: Path | None = None) -> Dataset:
        """Make features of rows whose target is unknown, in order.

        Rows with a missing value are left out as by `dataset`; the origin says which they are.

        Raises:
            DataError: as `dataset`.
        """
        cells, kept = self._cells(table, self.inputs)
        _check_any(table, kept)
        labels = np.zeros(int(kept.sum()), dtype=np.int64)
        origin = self._origin(path, table, cells, kept)
        return Dataset(name, self._features(cells, kept), labels, ("?",), origin)

    @cached_property
    def _pieces(self) -> tuple[Piece, ...]:
        pieces = [piece for term in self.terms for piece in self._term(term)]
        pieces += [
            p for name in self.inputs for p in missing_pieces(name, self.dictionary.columns[name])
        ]
        names = [piece.name for piece in pieces]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"two columns of the model are called {twice!r}; rename one")
        if len(pieces) > MAX_FEATURES:
            raise ConfigError(
                f"the model has {len(pieces)} columns; allowed: 1..{MAX_FEATURES}. Take categories "
                "or interactions out"
            )
        return tuple(pieces)

    def _term(self, term: Term) -> list[Piece]:
        factors = [base_pieces(factor, self.dictionary.columns[factor.column]) for factor in term]
        return [product_of(pieces) for pieces in itertools.product(*factors)]

    def _cells(
        self, table: RawTable, names: Sequence[str]
    ) -> tuple[dict[str, Cells], NDArray[np.bool_]]:
        """Read columns; returns them, and which rows are kept, (n,)."""
        cells: dict[str, Cells] = {}
        kept = np.ones(len(table), dtype=bool)
        for name in names:
            spec = self.dictionary.columns[name]
            assert isinstance(spec, Number | Category)
            cells[name] = read_cells(table, name, spec, self.dictionary.missing)
            if spec.missing == DROP:
                kept &= ~cells[name].missing
        return cells, kept

    def _features(self, cells: Mapping[str, Cells], kept: NDArray[np.bool_]) -> Floats:
        values = np.stack([piece.of(cells)[kept] for piece in self._pieces], axis=1)
        return self.columns.features(values)

    def _origin(
        self,
        path: Path | None,
        table: RawTable,
        cells: Mapping[str, Cells],
        kept: NDArray[np.bool_],
    ) -> Origin:
        found = TableOrigin(
            unread=tuple(
                name
                for name in table.columns
                if name not in self.dictionary.columns and name != self.id
            ),
            dropped=tuple(
                DroppedRow(place, table.lines[place]) for place in np.flatnonzero(~kept).tolist()
            ),
            cut=tuple((name, one.cut) for name, one in cells.items() if one.cut),
            filled=tuple(
                (name, count)
                for name, one in cells.items()
                if (count := int(one.missing[kept].sum()))
            ),
            few=tuple(name for name in self.inputs if self._has_few(name, cells[name], kept)),
        )
        return Origin(path, self.classes, self.classes, table=found)

    def _has_few(self, name: str, cells: Cells, kept: NDArray[np.bool_]) -> bool:
        """Say whether a number has so few values that Table 1 may tell how many rows have which."""
        spec = self.dictionary.columns[name]
        if not isinstance(spec, Number) or kept.sum() < _MANY_ROWS:
            return False
        values = np.unique(cells.values[kept])
        return 2 <= len(values) <= 3 and tuple(values) != spec.range


def _check_any(table: RawTable, kept: NDArray[np.bool_]) -> None:
    if not kept.any():
        raise DataError(
            f"{table.where}: all {len(table)} rows have a missing value; at least 1 is needed "
            "without"
        )


def make_design(
    dictionary: Dictionary,
    target: str | None = None,
    formula: str | None = None,
    id: str | None = None,
    *,
    open: bool = False,
) -> Design:
    """Make a design; without a formula, all columns but target and id are features.

    Args:
        open: columns of numbers may lack a range, which the method then finds: `scaled`.

    Raises:
        ConfigError: no target, or one that cannot be; a column that is not in the dictionary, has
            no range, or has another type than the formula needs.
    """
    target = target or dictionary.target
    if not target:
        raise ConfigError(
            "no target; name the column that is to be predicted: --target COLUMN, or 'target' in "
            "the dictionary"
        )
    _check_target(dictionary, target)
    if id is not None:
        _check_id(dictionary, id)
    if formula is None:
        names = [n for n, spec in dictionary.columns.items() if _is_value(spec) and n != target]
        if not names:
            raise ConfigError("the dictionary has no column beside the target; declare one")
        terms = main_effects(names)
    else:
        terms = parse_formula(formula, target)
    opened: tuple[str, ...] = ()
    if open:
        dictionary, opened = _widened(dictionary, target, terms)
    _check_range(target, dictionary.columns[target])
    for factor in itertools.chain.from_iterable(terms):
        _check_factor(dictionary, factor)
    for term in terms:
        _check_marginal(dictionary, term, terms)
    design = Design(dictionary, target, formula, id or dictionary.id, terms, opened)
    _ = design.columns  # what no column can be shows here
    return design


def read_design(
    file: Path,
    target: str | None = None,
    formula: str | None = None,
    id: str | None = None,
    *,
    open: bool = False,
) -> Design:
    """Read a dictionary and make a design by it; see `make_design`."""
    return make_design(read_dictionary(file), target, formula, id, open=open)


def _widened(
    dictionary: Dictionary, target: str, terms: Sequence[Term]
) -> tuple[Dictionary, tuple[str, ...]]:
    """Give a model's columns of numbers without a range the widest, and list these columns.

    Raises:
        ConfigError: one of them is in a term that is made of its range.
    """
    used = {target, *(factor.column for term in terms for factor in term)}
    specs, opened = dict(dictionary.columns), []
    for name, spec in dictionary.columns.items():
        if name in used and isinstance(spec, Number) and spec.range is None:
            specs[name] = msgspec.structs.replace(spec, range=(-(2.0**GREATEST), 2.0**GREATEST))
            opened.append(name)
    for term in terms:
        for factor in term:
            if factor.column in opened and term != (Factor(factor.column),):
                raise ConfigError(
                    f"the formula has {factor.column!r} in an interaction, a power or a function, "
                    "whose range follows from a declared one, and it has none; declare a range, or "
                    "take the term out"
                )
    return msgspec.structs.replace(dictionary, columns=specs), tuple(opened)


def _in_range(spec: Number, low: float, high: float) -> Number:
    stands = spec.missing
    if not isinstance(stands, str):
        stands = min(max(stands, low), high)
    return msgspec.structs.replace(spec, range=(low, high), missing=stands)


def _is_value(spec: object) -> bool:
    return not isinstance(spec, Id | Ignored)


def _check_target(dictionary: Dictionary, target: str) -> None:
    spec = dictionary.columns.get(target)
    if spec is None:
        raise ConfigError(
            f"target {target!r} is no column of the dictionary; allowed: "
            f"{shorten(tuple(dictionary.columns))}"
        )
    if not isinstance(spec, Number | Category):
        raise ConfigError(f"target {target!r} is of a type that is no feature; give it another")
    if spec.missing not in (REFUSE, DROP):
        raise ConfigError(
            f"target {target!r} has a value for missing ones, which nobody can know; allowed: "
            f"{REFUSE}, {DROP}"
        )


def _check_id(dictionary: Dictionary, id: str) -> None:
    if isinstance(dictionary.columns.get(id), Number | Category):
        raise ConfigError(
            f"column {id!r} is to say whose rows are, and is a feature in the dictionary; give it "
            "type id there"
        )


def _check_factor(dictionary: Dictionary, factor: Factor) -> None:
    spec = dictionary.columns.get(factor.column)
    if spec is None:
        raise ConfigError(
            f"column {factor.column!r} is not in the dictionary; allowed: "
            f"{shorten(tuple(dictionary.columns))}"
        )
    if not isinstance(spec, Number | Category):
        raise ConfigError(f"column {factor.column!r} is declared to be no feature; take it out")
    _check_range(factor.column, spec)
    if isinstance(spec, Category) and (factor.power > 1 or factor.function):
        raise ConfigError(
            f"column {factor.column!r} is a category, and has no powers or logarithms"
        )
    if isinstance(spec, Number) and factor.function:
        assert spec.range is not None
        if spec.range[0] < 0 or (factor.function == "log" and spec.range[0] == 0):
            raise ConfigError(
                f"{factor.function}({factor.column}) of the range {list(spec.range)}; allowed: a "
                "range above 0"
            )


def _check_marginal(dictionary: Dictionary, term: Term, terms: Sequence[Term]) -> None:
    """Refuse an interaction of a category without what its first category stands for."""
    for factor in term if len(term) > 1 else ():
        rest = {other for other in term if other != factor}
        category = isinstance(dictionary.columns[factor.column], Category)
        if category and not any(set(other) == rest for other in terms):
            missing = ":".join(sorted(other.column for other in rest))
            raise ConfigError(
                f"the formula has {factor.column!r} in an interaction and lacks {missing!r}, which "
                "the first category's rows go by; add it, or write a*b for a + b + a:b"
            )


def _check_range(name: str, spec: object) -> None:
    if isinstance(spec, Number) and spec.range is None:
        raise ConfigError(
            f"column {name!r} has no range in the dictionary; write one that is known without the "
            "data: range = [0, 120]. Or find one together: --scale federated"
        )
