"""Categories that no column of a model stands for: the first of each variable."""

from typing import NamedTuple

from secure_afl.data.tables.design import Design
from secure_afl.data.tables.dictionary import Category


class Reference(NamedTuple):
    """A category that its variable's others are compared with.

    Attributes:
        name: written like a column's: `sex[female]`.
        others: names of the columns of all other categories, in order.
    """

    name: str
    others: tuple[str, ...]


def references(design: Design | None) -> tuple[Reference, ...]:
    """List the first category of each variable that is in the model by itself; none without one."""
    if design is None:
        return ()
    found = []
    for term in design.terms:
        name = term[0].column
        spec = design.dictionary.columns[name]
        if len(term) == 1 and isinstance(spec, Category):
            first, *others = (f"{name}[{category}]" for category in spec.categories)
            found.append(Reference(first, tuple(others)))
    return tuple(found)
