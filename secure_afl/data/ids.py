"""Where examples say whose they are: an array of an `.npz`, or a pattern of file names."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from secure_afl.errors import ConfigError, DataError

PLACE = "{id}"
_EXAMPLES = "'{id}_*' takes p17 from p17_2.png, '(p[0-9]+)' takes it from scan_p17.png"


@dataclass(frozen=True)
class Ids:
    """The setting that says whose each example is; `parse_ids` makes it.

    Attributes:
        text: as it was given.
        pattern: of file names, with one group; None where the text is the name of an array.
    """

    text: str
    pattern: re.Pattern[str] | None

    @property
    def array(self) -> str:
        """Name of the array in an `.npz`.

        Raises:
            DataError: it is a pattern.
        """
        if self.pattern is not None:
            raise DataError(
                f"id {self.text!r} is a pattern of file names, and an .npz has none; give the name "
                "of its array of ids: --id patients"
            )
        return self.text

    def of_files(self, folder: Path, files: Sequence[Path]) -> tuple[str, ...]:
        """Return whose each file is, by its name without folders, in Unicode's composed form.

        An id may be empty where the pattern allows it: such a row is a patient of its own.

        Raises:
            DataError: it is no pattern, or a file does not match, naming the first and how many.
        """
        if self.pattern is None:
            raise DataError(
                f"id {self.text!r} is the name of an array, and {folder} is a folder of files; "
                f"give a pattern of their names: {_EXAMPLES}"
            )
        # The two ways to write é are one id: macOS has one of them, Linux the other.
        names = [unicodedata.normalize("NFC", file.name) for file in files]
        found = [self.pattern.search(name) for name in names]
        if None in found:
            first = files[found.index(None)]
            raise DataError(
                f"{found.count(None)} of {len(files)} files in {folder} do not match the id "
                f"pattern {self.text!r}, the first is {first}; correct the pattern, or the names: "
                f"{_EXAMPLES}"
            )
        return tuple(match[1] or "" for match in found if match is not None)


def parse_ids(text: str | None) -> Ids | None:
    """Read the setting: a word is the name of an array, all else a pattern of file names.

    In a pattern with `{id}`, that stands for the id, `*` for any text, also none, and `?` for one
    letter; the whole name has to match, the id being as short as it may. Any other pattern is a
    regular expression with one group, and is looked for anywhere in the name.

    Raises:
        ConfigError: a pattern that cannot be read, without an id, or with several.
    """
    if text is None:
        return None
    if PLACE in text:
        return Ids(text, _filled(text))
    if re.fullmatch(r"[\w.-]+", text):
        return Ids(text, None)
    try:
        pattern = re.compile(unicodedata.normalize("NFC", text))
    except re.error as error:
        raise ConfigError(f"id {text!r} is no regular expression: {error}; {_EXAMPLES}") from None
    if pattern.groups != 1:
        raise ConfigError(
            f"id {text!r} has {pattern.groups} groups, allowed: 1, around the id; {_EXAMPLES}"
        )
    return Ids(text, pattern)


def _filled(text: str) -> re.Pattern[str]:
    """Turn a pattern with `{id}` into a regular expression for whole names."""
    before, *after = unicodedata.normalize("NFC", text).split(PLACE)
    if len(after) != 1:
        raise ConfigError(f"id {text!r} has {len(after)} times {PLACE}, allowed: once; {_EXAMPLES}")
    if before.endswith("*") or after[0].startswith("*"):
        raise ConfigError(
            f"id {text!r} does not say where the id ends, for '*' is beside it; put between them "
            f"what is there in the names: {_EXAMPLES}"
        )
    wild = {"*": ".*", "?": "."}
    parts = ["".join(wild.get(c) or re.escape(c) for c in part) for part in (before, after[0])]
    return re.compile(f"{parts[0]}(.+?){parts[1]}\\Z", re.DOTALL)
