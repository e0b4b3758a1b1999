"""A mapping file: what sites call their classes and folders, and what a federation calls them.

[classes]               # source name = class
"Pneumonie" = "pneumonia"
"1" = "pneumonia"

[sites]                 # folder or file = site
"Krankenhaus Süd" = "sued"
"""

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from secure_afl.errors import ConfigError
from secure_afl.texts import read_toml


class Mapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names as they are, and as they are to be; each is looked up once.

    Attributes:
        classes: source name to class. A class that is mapped to itself is meant as it is, however
            alike another looks.
        sites: name of a folder, or of a file without its suffix, to the name of the site.
    """

    classes: dict[str, str] = {}
    sites: dict[str, str] = {}

    def class_of(self, name: str) -> str:
        """Return the class that a source name stands for."""
        return self.classes.get(name, name)

    def site_of(self, name: str) -> str:
        """Return the name of the site of a folder or file."""
        return self.sites.get(composed(name), name)

    @property
    def meant(self) -> frozenset[str]:
        """Class names that somebody wrote down, and that are not compared with one another."""
        return frozenset(self.classes.values())

    def check_used(self, classes: Iterable[str], sites: Iterable[str]) -> None:
        """Raise ConfigError for a source name that none of these has: most are misspelt."""
        for table, lines, there in (
            ("classes", self.classes, sorted(set(classes))),
            ("sites", self.sites, sorted({composed(site) for site in sites})),
        ):
            if unused := sorted(lines.keys() - set(there)):
                raise ConfigError(
                    f"the mapping file's [{table}] has {unused[0]!r}, which no client has; there "
                    f"are: {shorten(there)}. Correct the line or take it out"
                )


def read_mapping(file: Path | None) -> Mapping:
    """Read a mapping file; without one, names stay as they are.

    Raises:
        ConfigError: unreadable TOML, other tables than these, or names that cannot be.
    """
    if file is None:
        return Mapping()
    content = read_toml(file)
    try:
        raw = msgspec.convert(content, Mapping)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{file} is no mapping file ({error}); it has the tables [classes] and [sites], whose "
            'lines are "source" = "name"'
        ) from None
    tables: dict[str, Any] = {}
    for table, lines in (("classes", raw.classes), ("sites", raw.sites)):
        found: dict[str, str] = {}
        for source, name in lines.items():
            if not name.strip():
                raise ConfigError(f"{file}: [{table}] maps {source!r} to an empty name; give one")
            if found.setdefault(composed(source), composed(name)) != composed(name):
                raise ConfigError(
                    f"{file}: [{table}] has {source!r} twice, in two spellings of Unicode; keep one"
                )
        tables[table] = found
    return Mapping(**tables)


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC); macOS writes the decomposed one."""
    return unicodedata.normalize("NFC", name)


def shorten(names: Sequence[str], most: int = 10) -> str:
    """List names for people, the first of them where there are many."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, … ({len(names)} in all)"
