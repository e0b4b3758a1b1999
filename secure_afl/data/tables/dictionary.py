"""The data dictionary: what the columns of all sites' tables mean, agreed on before anybody looks.

target = "diagnosis"             # may be left out where --target names it
missing = ["NA", "-"]            # words for a missing value; an empty cell is always one

[columns.age]
type = "number"
unit = "years"
range = [18, 100]                # public: known without looking at anybody's rows
missing = 50                     # stands for a missing value, beside a column age[missing]

[columns.sex]
type = "category"
categories = ["female", "male"]  # the first is what the others are compared with

[columns.patient]
type = "id"

[columns.remarks]
type = "ignore"
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta

from secure_afl.data.mapping import composed, shorten
from secure_afl.data.tables.words import MissingWords
from secure_afl.errors import ConfigError
from secure_afl.texts import read_toml

REFUSE, DROP = "refuse", "drop"
MAX_CATEGORIES = 1024

Text = Annotated[str, Meta(min_length=1, max_length=200)]


class Number(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="number"
):
    """A column of numbers.

    Attributes:
        range: least and greatest value, public; values outside are cut to it, and counted. None
            is a draft's, or one that sites find together in a run (`--scale federated`).
        unit: for people.
        missing: `refuse` an empty cell, `drop` its row, or the number that stands for it.
    """

    range: tuple[float, float] | None = None
    unit: str = ""
    missing: Literal["refuse", "drop"] | float = "refuse"


class Category(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="category"
):
    """A column of words.

    Attributes:
        categories: all that occur anywhere, the first of which the others are compared with.
        missing: `refuse` an empty cell, `drop` its row, or the category that stands for it.
    """

    categories: Annotated[tuple[Text, ...], Meta(min_length=2, max_length=MAX_CATEGORIES)]
    missing: str = REFUSE


class Id(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="id"):
    """A column that says whose each row is; it is no feature, and stays at the site."""


class Ignored(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="ignore"
):
    """A column that is not read: free text, dates, and what is known only afterwards."""


Spec: TypeAlias = Number | Category | Id | Ignored


class Dictionary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What columns mean; all sites have the same.

    Attributes:
        columns: by name; features are in this order.
        target: of the column that is to be predicted; empty where a run names it.
        missing: words that stand for a missing value in every column; numbers by their value.
    """

    columns: Annotated[dict[Text, Spec], Meta(min_length=1)]
    target: str = ""
    missing: tuple[str, ...] = ()

    @property
    def id(self) -> str | None:
        """Name of the column of ids, if there is one."""
        return next((name for name, spec in self.columns.items() if isinstance(spec, Id)), None)


def read_dictionary(file: Path) -> Dictionary:
    """Read a dictionary.

    Raises:
        ConfigError: unreadable TOML, a key or value that cannot be, naming the column.
    """
    return make_dictionary(read_toml(file), str(file))


def make_dictionary(content: Mapping[str, Any], where: str) -> Dictionary:
    """Make a dictionary of a TOML file's content, names in Unicode's composed form.

    Raises:
        ConfigError: as `read_dictionary`.
    """
    try:
        found = msgspec.convert(content, Dictionary)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{where}{_wrong_column(content)} is no data dictionary: {error}; columns have type "
            "number (range, unit, missing), category (categories, missing), id or ignore. "
            "secure-afl inspect --propose drafts a dictionary"
        ) from None
    columns: dict[str, Spec] = {}
    for name, spec in found.columns.items():
        plain = composed(name.strip())
        if plain in columns:
            raise ConfigError(f"{where} has the column {plain!r} twice; keep one")
        columns[plain] = _checked(f"{where}, column {plain!r}", spec)
    if sum(isinstance(spec, Id) for spec in columns.values()) > 1:
        raise ConfigError(f"{where} has several columns of type id; allowed: one")
    target = composed(found.target.strip())
    missing = tuple(word.strip() for word in found.missing)
    _check_missing(where, missing, columns)
    return Dictionary(columns, target, missing)


def _check_missing(where: str, missing: tuple[str, ...], columns: Mapping[str, Spec]) -> None:
    """Refuse a word that is a category and stands for a missing value: its rows would go."""
    words = MissingWords(missing)
    for name, spec in columns.items():
        for category in spec.categories if isinstance(spec, Category) else ():
            if category in words:
                raise ConfigError(
                    f"{where}, column {name!r}: {category!r} is a category, and stands for a "
                    "missing value in 'missing' above; take it out of one of the two"
                )


def _wrong_column(content: Mapping[str, Any]) -> str:
    """Name the first column that cannot be read; empty where it is none of them."""
    columns = content.get("columns")
    for name, spec in columns.items() if isinstance(columns, dict) else ():
        try:
            msgspec.convert(spec, Spec)
        except msgspec.ValidationError:
            return f", column {name!r},"
    return ""


def _checked(where: str, spec: Spec) -> Spec:
    if isinstance(spec, Number):
        return _checked_number(where, spec)
    if isinstance(spec, Category):
        names = tuple(composed(name.strip()) for name in spec.categories)
        if len(set(names)) < len(names) or not all(names):
            raise ConfigError(f"{where}: categories {shorten(names)}; allowed: different words")
        missing = composed(spec.missing.strip())
        if missing not in (REFUSE, DROP, *names):
            raise ConfigError(
                f"{where}: missing is {missing!r}; allowed: {REFUSE}, {DROP}, or one of "
                f"{shorten(names)}"
            )
        return Category(names, missing)
    return spec


def _checked_number(where: str, spec: Number) -> Number:
    if spec.range is None:
        return spec
    low, high = spec.range
    if not (np.isfinite([low, high]).all() and low < high and abs(high - low) < 1e150):
        raise ConfigError(
            f"{where}: range is [{low:g}, {high:g}]; allowed: two finite numbers, the least first"
        )
    if not isinstance(spec.missing, str) and not low <= spec.missing <= high:
        raise ConfigError(
            f"{where}: missing is {spec.missing:g}; allowed: {REFUSE}, {DROP}, or a number in its "
            f"range {low:g}..{high:g}"
        )
    return spec
