"""Which lineages count as one: those that have a client's rows, or its patients, too."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from secure_afl.privacy.ledger.book import Book, Entry
from secure_afl.privacy.ledger.rows import Rows

# Of two clients of one run, whose rows stand side by side in it.
_BESIDE = 0.1

# Of rows that may agree by chance, so many are the same data.
_NEARLY_ALL = 0.9


class Alike(NamedTuple):
    """Digests of one kind by which the rows of a table, or its patients, are known again.

    Features of images are equal where the images are. Rows of a few columns may agree by chance,
    so only those are looked for that agree with no other row of their own table. How many marks
    are of just two rows says how many of these will agree with others (I. J. Good, 1953: of the
    next row, the chance that its like was seen just once is about 2·f₂/n).

    Attributes:
        digests: as `row_digests` makes them, of all rows.
        alone: those of rows that agree with no other.
        of: how many rows the table has, or patients.
        pairs: f₂, how many digests are of just two.
        slack: how many may agree with others whatever the pairs say.
        what: they are digests of, in the plural.
    """

    digests: tuple[bytes, ...]
    alone: tuple[bytes, ...]
    of: int
    pairs: int = 0
    slack: int = 0
    what: str = "rows"

    def by_chance(self, others: float, *, pairs: int = 0) -> float:
        """Return how many of `alone` may be among so many others, without being the same.

        That is what is expected, of as many pairs as there may well be where these were found, and
        four standard deviations; nine tenths at most. Infinite where chance explains half: the
        digests then tell nothing.

        Args:
            others: how many rows, or patients, those are.
            pairs: as if there were so many more than were found.
        """
        alone = len(self.alone)
        fewer = min(alone, others)
        if not fewer:
            return math.inf
        found = self.pairs + pairs
        rate = min(2 * (found + 2 * math.sqrt(found)) / self.of, 1.0)
        expected = alone * -math.expm1(-others * rate / alone)
        if expected > fewer / 2:
            return math.inf
        return min(expected + 4 * math.sqrt(expected) + self.slack, _NEARLY_ALL * fewer)


class Met(NamedTuple):
    """How many of a client's rows, or patients, a lineage has, too."""

    had: int
    of: int
    what: str = "rows"


def lineages_met(
    book: Book, kept: Rows, new: Entry, rows: Sequence[bytes], alike: Sequence[Alike]
) -> dict[str, Met]:
    """Find the lineages that have a client's rows, too; arguments are those of `authorise`.

    One row is enough. Of `alike` more than chance explains are, see `_same`. Lineages beside which
    this one stood in an earlier run were looked at then, and are again only if it has new rows that
    they have, too.

    Raises:
        OSError, ValueError: as `Rows.shared`.
    """
    place = book.place(new.lineage)
    shared = kept.shared(book.rows, place, rows)
    found = {other: Met(count, len(set(rows))) for other, count in shared.items()}
    beside, before = _beside(book, new)
    held = _held(kept.sizes(book.rows), alike)
    held.pop(place, None)
    for kind in alike:
        owners = kept.owners(book.rows, place, kind.alone)
        fresh = set(kept.unknown(book.rows, place, kind.alone))
        touched = {other for row, others in owners if row in fresh for other in others}
        looked = [set(others) - (before - touched) for _, others in owners]
        counts = Counter(other for others in looked for other in others)
        for other in _same(kind, looked, held, beside):
            known = Met(counts[other], len(kind.alone), kind.what)
            found[other] = max(known, found.get(other, known), key=_telling)
    return {book.lineages[other].name: known for other, known in found.items()}


def _same(
    kind: Alike, looked: Sequence[set[int]], held: Mapping[int, float], beside: set[int]
) -> set[int]:
    """Find the lineages, by place, that have more than chance explains.

    Each is one, for what is nothing beside a year may be a month; and all that are left are one,
    for a year is none of its months, and made of them.

    Args:
        looked: which lineages have a row, for each of `kind.alone` that any has.
        held: how many rows each lineage has.
        beside: that stand beside this one in its runs alone: clients of a simulation, each of whose
            sums is charged. A tenth may agree.
    """
    met = set()
    for other, count in Counter(other for others in looked for other in others).items():
        most = kind.by_chance(held[other])
        if other in beside:
            # Small tables have no pairs by luck.
            most = kind.by_chance(held[other], pairs=int(kind.what == "rows"))
            most = max(most, _BESIDE * min(len(kind.alone), held[other]))
        if count > most:
            met.add(other)
    left = [others - beside for others in looked if not others & met]
    rest = sum(size for other, size in held.items() if other not in beside | met)
    if sum(map(bool, left)) > kind.by_chance(rest):
        met.update(*left)
    return met


def _held(sizes: Mapping[int, int], alike: Sequence[Alike]) -> dict[int, float]:
    """Estimate how many rows lineages have, of whose digests the file does not say the kind.

    Rows there have as many digests each as they have here.
    """
    rows = max((kind.of for kind in alike), default=0)
    digests = sum(len(kind.digests) for kind in alike)
    return {other: size * rows / max(digests, 1) for other, size in sizes.items()}


def _telling(met: Met) -> tuple[bool, int]:
    return met.what == "patients", met.had


def _beside(book: Book, new: Entry) -> tuple[set[int], set[int]]:
    """Return the places of lineages beside which this one stands.

    Those that have been in no runs but its own, the new entry's among them; and those that have
    been in a run with it before.
    """
    runs: dict[str, set[str]] = {}
    for entry in book.entries:
        runs.setdefault(entry.lineage, set()).add(entry.run)
    own = runs.get(new.lineage, set())
    beside, before = set(), set()
    for place, known in enumerate(book.lineages):
        if known.name == new.lineage:
            continue
        theirs = runs.get(known.name, set())
        if theirs and theirs <= own | {new.run}:
            beside.add(place)
        if theirs & own:
            before.add(place)
    return beside, before


def describe_met(met: Mapping[str, Met], alike: Sequence[Alike]) -> str:
    """Say in a sentence which lineages have how many rows, too; empty for none."""
    if not met:
        return ""
    most = sorted(met.items(), key=lambda item: (-item[1].had, item[0]))
    words = [f"{m.had} of {m.of} {m.what} were in lineage '{name}'" for name, m in most[:3]]
    more = f" and in {len(most) - 3} more lineages" if len(most) > 3 else ""
    fix = ""
    if any(known.what == "patients" for known in met.values()):
        fix = "If others have the same ids there, make ids unlike, as north-17. "
    elif alike and all(kind.what != "patients" for kind in alike):
        fix = 'If these are others who are merely alike, declare ids of patients (type = "id"). '
    return f"These count as one: {', '.join(words)}{more}. {fix}"
