"""Class names: which are one, which only look like one, and which cannot be names."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from secure_afl.data.mapping import Mapping as Names
from secure_afl.data.mapping import composed, shorten
from secure_afl.errors import DataError

MAX_CLASSES = 65_536
MAX_NAME = 200
# From this similarity on, two names of different sites may be one, misspelt.
_SIMILAR = 0.85
_ZEROS = re.compile(r"(?<![\d.,])0+(?=\d)")
_WHOLE = re.compile(r"(\d+)\.0+")


def check_name(where: str, name: str) -> None:
    """Raise DataError for a class name that is empty, too long, or has control characters."""
    if not name.strip():
        raise DataError(f"{where}: a class has the name {name!r}; give it one")
    if len(name) > MAX_NAME:
        raise DataError(
            f"{where}: the class name {name[:40]!r}… has {len(name)} characters; allowed: "
            f"1..{MAX_NAME}"
        )
    if bad := [letter for letter in name if unicodedata.category(letter) in ("Cc", "Cs")]:
        raise DataError(
            f"{where}: the class name {name!r} has the control character {bad[0]!r}; take it out"
        )


def sort_names(names: Iterable[str]) -> tuple[str, ...]:
    """Sort the different names; numerically where all of them are whole numbers."""
    unique = set(names)
    if all(name.isascii() and name.isdigit() for name in unique):
        return tuple(sorted(unique, key=lambda name: (int(name), name)))
    return tuple(sorted(unique))


def unite(
    where: str, labels: NDArray[np.int64], sources: Sequence[str], mapping: Names
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Bring source names to class names, and labels with them.

    Names are composed (NFC) and mapped; those that become one are one class. Classes keep the order
    of the first of their sources.

    Args:
        where: what errors begin with.
        labels: int64 (n,), places in `sources`.

    Raises:
        DataError: a name that cannot be.
    """
    names = [mapping.class_of(composed(source)) for source in sources]
    for name in names:
        check_name(where, name)
    classes = tuple(dict.fromkeys(names))
    if classes == tuple(names):
        return labels, classes
    places = {name: index for index, name in enumerate(classes)}
    lookup = np.array([places[name] for name in names], dtype=np.int64)
    return lookup[labels], classes


def check_alike(classes: Mapping[str, Sequence[str]], meant: frozenset[str]) -> None:
    """Refuse class names that differ in what people do not see or do not mean.

    These are small and large letters, white space, leading zeros, and forms of one letter.

    Args:
        classes: the names at each site.
        meant: names that a mapping file gives; two of these may look alike.

    Raises:
        DataError: two such names, and who has them.
    """
    seen: dict[str, tuple[str, str]] = {}
    for site, names in classes.items():
        for name in names:
            first, other = seen.setdefault(folded(name), (name, site))
            if first == name or (first in meant and name in meant):
                continue
            raise DataError(
                f"the classes {first!r} (of {other}) and {name!r} (of {site}) look like one; "
                f"rename one of them, or say what is meant in a mapping file (--mapping): "
                f'[classes] "{name}" = "{first}"'
            )


def check_numbering(classes: Mapping[str, Sequence[str]]) -> None:
    """Refuse sites of which one numbers its classes and another names them.

    Raises:
        DataError: two such sites, with both lists.
    """
    numbered = [site for site, names in classes.items() if all(map(_is_number, names))]
    named = [site for site, names in classes.items() if not any(map(_is_number, names))]
    if numbered and named:
        by_number, by_name = classes[numbered[0]], classes[named[0]]
        raise DataError(
            f"{named[0]} names its classes ({shorten(by_name)}) and {numbered[0]} numbers them "
            f"({shorten(by_number)}); say which is which in a mapping file (--mapping): "
            f'[classes] "{by_number[0]}" = "{by_name[0]}"'
        )


def folded(name: str) -> str:
    """Return what is left of a name without what `check_alike` looks past."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    plain = "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")
    plain = " ".join(plain.split())
    if whole := _WHOLE.fullmatch(plain):
        plain = whole[1]
    return _ZEROS.sub("", plain)


def similar(classes: Mapping[str, Sequence[str]], meant: frozenset[str]) -> list[tuple[str, str]]:
    """List pairs of names that may be one class: alike, and at no site together.

    Names that differ in their digits alone are numbers of something. At most 200 names are
    compared, for every pair is.
    """
    names = sorted({name for there in classes.values() for name in there} - meant)
    if len(names) > 200:
        return []
    found = []
    for index, name in enumerate(names):
        for other in names[index + 1 :]:
            if any(name in there and other in there for there in classes.values()):
                continue
            if _letters(name) != _letters(other) and _near(name, other):
                found.append((name, other))
    return found


def _near(name: str, other: str) -> bool:
    first, second = _joined(name), _joined(other)
    return first == second or difflib.SequenceMatcher(None, first, second).ratio() >= _SIMILAR


def _joined(name: str) -> str:
    """Return a name's letters and digits, without accents."""
    plain = unicodedata.normalize("NFKD", folded(name))
    return "".join(letter for letter in plain if letter.isalnum())


def _letters(name: str) -> str:
    return re.sub(r"\d+", "#", folded(name))


def _is_number(name: str) -> bool:
    return bool(re.fullmatch(r"-?\d+(\.0+)?", name))
