"""Which lineages count as one: those that have a client's rows, or its patients, too."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from secure_afl.privacy.ledger.book import Book, Entry
from secure_afl.privacy.ledger.rows import Rows

# Of two clients of one run, whose rows stand side by side in it.
_BESIDE = 0.1


class Alike(NamedTuple):
    """Digests of one kind by which the rows of a table, or its patients, are known again.

    Features of images are equal where the images are. Rows of a few columns may agree by chance:
    how many do among themselves says how many will agree with others.

    Attributes:
        digests: as `row_digests` makes them.
        share: of all pairs of these rows, those that agree, 0 to 1.
        slack: how many may agree with others whatever the share says.
        what: they are digests of, in the plural.
    """

    digests: tuple[bytes, ...]
    share: float = 0.0
    slack: int = 0
    what: str = "rows"

    def by_chance(self, others: float) -> float:
        """Return how many of these may be among so many others, without being the same.

        Twice what is expected, for the share is an estimate and others' rows are not quite alike,
        and four standard deviations; half of either at most.
        """
        expected = len(self.digests) * others * self.share
        most = 2 * expected + 4 * math.sqrt(expected) + self.slack
        return min(most, min(len(self.digests), others) / 2)


class Met(NamedTuple):
    """How many of a client's rows, or patients, a lineage has, too."""

    had: int
    of: int
    what: str = "rows"


def lineages_met(
    book: Book, kept: Rows, new: Entry, rows: Sequence[bytes], alike: Sequence[Alike]
) -> dict[str, Met]:
    """Find the lineages that have a client's rows, too; arguments are those of `authorise`.

    One row is enough. Of `alike`, all earlier lineages together are one: a year is none of its
    months, and made of them. Lineages of the new entry's own run alone are looked at one by one,
    and a tenth may agree: clients of a simulation stand side by side there, and each of their sums
    is charged.

    Raises:
        OSError, ValueError: as `Rows.shared`.
    """
    place = book.place(new.lineage)
    shared = kept.shared(book.rows, place, rows)
    found = {other: Met(count, len(set(rows))) for other, count in shared.items()}
    beside = _beside(book, new)
    sizes = kept.sizes(book.rows)
    for kind in alike:
        # The file does not say of which kind a digest is, and each row has one of each.
        held = {other: size / len(alike) for other, size in sizes.items() if other != place}
        owners = kept.owners(book.rows, place, kind.digests)
        counts = Counter(other for row in owners for other in row)
        before = sum(size for other, size in held.items() if other not in beside)
        met = set()
        if sum(not beside.issuperset(row) for row in owners) > kind.by_chance(before):
            met = {other for other in counts if other not in beside}
        for other in beside & set(counts):
            fewer = min(len(kind.digests), held[other])
            if counts[other] > max(kind.by_chance(held[other]), _BESIDE * fewer):
                met.add(other)
        for other in met:
            known = Met(counts[other], len(kind.digests), kind.what)
            found[other] = max(known, found.get(other, known), key=_telling)
    return {book.lineages[other].name: known for other, known in found.items()}


def _telling(met: Met) -> tuple[int, bool]:
    return met.had, met.what == "patients"


def _beside(book: Book, new: Entry) -> set[int]:
    """Return the places of lineages that have been in the new entry's run alone."""
    runs: dict[str, set[str]] = {}
    for entry in book.entries:
        runs.setdefault(entry.lineage, set()).add(entry.run)
    return {
        place
        for place, known in enumerate(book.lineages)
        if known.name != new.lineage and runs.get(known.name) == {new.run}
    }


def describe_met(met: Mapping[str, Met]) -> str:
    """Say in a sentence which lineages have how many rows, too; empty for none."""
    if not met:
        return ""
    most = sorted(met.items(), key=lambda item: (-item[1].had, item[0]))
    words = [f"{m.had} of {m.of} {m.what} were in lineage '{name}'" for name, m in most[:3]]
    more = f" and in {len(most) - 3} more lineages" if len(most) > 3 else ""
    fix = ""
    if any(known.what == "patients" for known in met.values()):
        fix = "If others have the same ids there, make ids unlike, as north-17. "
    return f"These count as one: {', '.join(words)}{more}. {fix}"
