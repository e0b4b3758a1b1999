"""The columns of a design, made of a table's cells: numbers, indicators, powers and products."""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np

from secure_afl.data.columns import MISSING, Floats
from secure_afl.data.tables.cells import Cells
from secure_afl.data.tables.dictionary import DROP, REFUSE, Category, Number
from secure_afl.data.tables.formula import Factor

_FUNCTIONS: Mapping[str, Callable[[Floats], Floats]] = {"log": np.log, "sqrt": np.sqrt}


class Piece(NamedTuple):
    """A column of the design, or a factor of one.

    Attributes:
        name: for people.
        low, high: ends of its range.
        unit: for people.
        of: makes its values (n,) of the columns' cells.
        derived, indicator: as for `Column`.
    """

    name: str
    low: float
    high: float
    unit: str
    of: Callable[[Mapping[str, Cells]], Floats]
    derived: bool = False
    indicator: bool = False


def base_pieces(factor: Factor, spec: object) -> list[Piece]:
    """List what one factor makes: a number, or an indicator for each category but the first."""
    name = factor.column
    if isinstance(spec, Category):
        return [
            Piece(f"{name}[{category}]", 0.0, 1.0, "", _indicator(name, place), indicator=True)
            for place, category in enumerate(spec.categories)
            if place > 0
        ]
    assert isinstance(spec, Number)
    assert spec.range is not None
    low, high = spec.range
    if factor.function:
        function = _FUNCTIONS[factor.function]
        ends = function(np.array([low, high])).tolist()
        label = f"{factor.function}({name})"
        return [
            Piece(label, ends[0], ends[1], "", lambda cells: function(cells[name].values), True)
        ]
    power = factor.power
    if power == 1:
        return [Piece(name, low, high, spec.unit, lambda cells: cells[name].values)]
    ends = sorted((low**power, high**power))
    least = 0.0 if power % 2 == 0 and low < 0 < high else ends[0]
    return [
        Piece(
            f"{name}^{power}", least, ends[1], "", lambda cells: cells[name].values ** power, True
        )
    ]


def _indicator(name: str, place: int) -> Callable[[Mapping[str, Cells]], Floats]:
    return lambda cells: (cells[name].values == place).astype(np.float64)


def missing_pieces(name: str, spec: object) -> list[Piece]:
    """Return the indicator of a column's missing values, where a value stands for them."""
    if not isinstance(spec, Number | Category) or spec.missing in (REFUSE, DROP):
        return []
    return [
        Piece(
            name + MISSING,
            0.0,
            1.0,
            "",
            lambda cells: cells[name].missing.astype(np.float64),
            indicator=True,
        )
    ]


def product_of(pieces: Sequence[Piece]) -> Piece:
    """Multiply factors; the range follows from theirs."""
    if len(pieces) == 1:
        return pieces[0]
    low, high = pieces[0].low, pieces[0].high
    for piece in pieces[1:]:
        corners = [a * b for a in (low, high) for b in (piece.low, piece.high)]
        low, high = min(corners), max(corners)

    def of(cells: Mapping[str, Cells]) -> Floats:
        return reduce(np.multiply, [piece.of(cells) for piece in pieces])

    return Piece(":".join(piece.name for piece in pieces), low, high, "", of, True)
