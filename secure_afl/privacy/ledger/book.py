"""What a ledger's file holds: the budget, the releases, and which data are the same."""

import math
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from typing import Annotated, NamedTuple, TypedDict, TypeVar, get_args

import msgspec
from msgspec import Meta

from secure_afl.checks import check_choice, settle_float
from secure_afl.errors import ConfigError
from secure_afl.privacy.sensitivity import Neighbours, Unit

FORMAT_VERSION = 2
MAX_ROUNDS = 10**6

Id = Annotated[str, Meta(pattern="^([0-9a-f]{2}){1,64}$")]
Digest = Annotated[str, Meta(pattern="^([0-9a-f]{2}){32}$")]
# A digest, or nothing where there is none yet.
_Maybe = Annotated[str, Meta(pattern="^([0-9a-f]{2}){0,64}$")]
_Text = Annotated[str, Meta(min_length=1, max_length=1000)]
_Count = Annotated[int, Meta(ge=0)]


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The most that may be released about a lineage, ever: (epsilon, delta)-privacy.

    Attributes:
        epsilon: > 0, ≤ 1000.
        delta: 1e-100 to 0.5.
        unit, neighbours: between what the promise holds. Promises of different kinds do not add up.

    Raises:
        ConfigError: a number out of range, or another word.
    """

    epsilon: Annotated[float, Meta(gt=0, le=1000)]
    delta: Annotated[float, Meta(ge=1e-100, le=0.5)]
    unit: Unit
    neighbours: Neighbours

    def __post_init__(self) -> None:
        settle_float(self, "epsilon", 1e-300, 1000)
        settle_float(self, "delta", 1e-100, 0.5)
        check_choice(self, "unit", get_args(Unit))
        check_choice(self, "neighbours", get_args(Neighbours))

    def allows(self, other: "Budget") -> bool:
        """Say whether the other budget is of the same kind and nowhere larger."""
        return (
            (other.unit, other.neighbours) == (self.unit, self.neighbours)
            and other.epsilon <= self.epsilon
            and other.delta <= self.delta
        )

    def __str__(self) -> str:
        return (
            f"epsilon {self.epsilon:g} at delta {self.delta:g} for one {self.unit}, "
            f"{self.neighbours}"
        )


class Void(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A note that a session failed, and that its release was given back.

    Attributes:
        when: UTC.
        reason: in words, 1 to 1000 characters.
        evidence: SHA-256 of the evidence in hexadecimal; null where none was given.
    """

    when: Annotated[datetime, Meta(tz=True)]
    reason: _Text
    evidence: Digest | None


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One release.

    Attributes:
        lineage: of the data.
        run, session: ids in hexadecimal.
        party: digest of the entropy that the client's party drew, in hexadecimal; empty where it
            is unknown.
        rounds: how many releases the run declared.
        mu: Δ/σ of the Gaussian noise, > 0, ≤ 1e6; null for an exact release, without noise.
        distance: total variation of the noise from that Gaussian, 0 to 1.
        unit, neighbours: whose privacy mu measures.
        epsilon: of all releases up to this one, at the budget's delta; null without a budget. For
            people to read: it is computed, never believed.
        mechanism: in words.
        when: UTC.
        released: the session's sum is known to have come out.
        void: set once the release was given back.
        imported: the entry comes from a file that could not be authenticated.
        link: SHA-256 over the entry before and this one, in hexadecimal.
    """

    lineage: _Text
    run: Id
    session: Id
    party: _Maybe
    rounds: Annotated[int, Meta(ge=1, le=MAX_ROUNDS)]
    mu: Annotated[float, Meta(gt=0, le=1e6)] | None
    distance: Annotated[float, Meta(ge=0, le=1)]
    unit: Unit
    neighbours: Neighbours
    epsilon: Annotated[float, Meta(ge=0)] | None
    mechanism: _Text
    when: Annotated[datetime, Meta(tz=True)]
    released: bool = False
    void: Void | None = None
    imported: bool = False
    link: _Maybe = ""

    @property
    def counts(self) -> bool:
        """Whether the release costs anything: it does unless it was given back.

        A sum that came out after all counts whatever was said before.
        """
        return self.void is None or self.released

    @property
    def key(self) -> tuple[str, str, str]:
        """Lineage, session and party, by which the release is told from all others."""
        return self.lineage, self.session, self.party

    @property
    def terms(self) -> tuple[object, ...]:
        """The terms that may not change when the same session is authorised again."""
        return (self.run, self.rounds, self.mu, self.distance, self.unit, self.neighbours)


class Lineage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A name for data and all that becomes of it.

    Attributes:
        name: 1 to 1000 characters.
        shares: other lineages that were found to have rows of this one, sorted.
    """

    name: _Text
    shares: tuple[_Text, ...] = ()


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of the file of rows belongs to the ledger.

    Attributes:
        bytes: its first so many bytes; what comes after was never recorded.
        digest: their SHA-256 in hexadecimal; empty for no bytes.
    """

    bytes: _Count = 0
    digest: _Maybe = ""


class Book(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file.

    Attributes:
        format_version: 2.
        ledger: random id in hexadecimal, 16 bytes.
        changes: how often the file was written.
        previous: head before the last change; empty at first.
        anchored: the change since which an anchor is kept; 0 without one.
        budget: kept to by all who use the file; null where there is none.
        lineages: in the order in which they came; the file of rows goes by their places.
        rows: what of the file of rows is recorded.
        entries: the releases, oldest first.
        head: HMAC-SHA256 of all this by the ledger's key, in hexadecimal.
    """

    format_version: int
    ledger: Id
    changes: _Count
    previous: _Maybe
    anchored: _Count
    budget: Budget | None
    lineages: tuple[Lineage, ...]
    rows: Mark
    entries: tuple[Entry, ...]
    head: _Maybe

    def __post_init__(self) -> None:
        if len({lineage.name for lineage in self.lineages}) < len(self.lineages):
            raise ValueError("a lineage is listed twice")
        if len({entry.key for entry in self.entries}) < len(self.entries):
            raise ValueError("a release is entered twice for one lineage")

    def place(self, lineage: str) -> int:
        """Return the place of a lineage; the next free one for a lineage that is not listed."""
        names = [known.name for known in self.lineages]
        return names.index(lineage) if lineage in names else len(names)

    def with_lineage(self, lineage: str, shares: Collection[str]) -> "Book":
        """Return the book with a lineage listed, and those that have rows of it noted."""
        place = self.place(lineage)
        known = self.lineages[place] if place < len(self.lineages) else Lineage(lineage)
        known = Lineage(lineage, tuple(sorted({*known.shares, *shares})))
        lineages = (*self.lineages[:place], known, *self.lineages[place + 1 :])
        return msgspec.structs.replace(self, lineages=lineages)

    def counting(self, lineages: Collection[str]) -> list[Entry]:
        """Return the releases about some lineages that cost anything, oldest first."""
        return [entry for entry in self.entries if entry.lineage in lineages and entry.counts]

    def of_session(
        self, session: bytes, lineage: str | None = None, party: bytes | None = None
    ) -> list[Entry]:
        """Return the releases of a session, oldest first.

        Args:
            session: id.
            lineage: that they are about; None for any, as clients may keep one ledger together.
            party: digest of the party's entropy; None for any.
        """
        return [
            entry
            for entry in self.entries
            if entry.session == session.hex()
            and lineage in (None, entry.lineage)
            and (party is None or entry.party == party.hex())
        ]

    def changed(self, releases: Iterable[Entry], change: Callable[[Entry], Entry]) -> "Book":
        """Return the book with some of its releases changed, the others as they are."""
        keys = {entry.key for entry in releases}
        entries = tuple(change(entry) if entry.key in keys else entry for entry in self.entries)
        return msgspec.structs.replace(self, entries=entries)

    def group(self, lineage: str, shares: Iterable[str] = ()) -> set[str]:
        """Return all lineages that count as one with this one, which is among them.

        Args:
            lineage: need not be listed.
            shares: lineages with rows of it that are not noted yet.
        """
        near: dict[str, set[str]] = {}
        noted = [(known.name, other) for known in self.lineages for other in known.shares]
        for one, other in [*noted, *((lineage, other) for other in shares)]:
            near.setdefault(one, set()).add(other)
            near.setdefault(other, set()).add(one)
        found, ahead = {lineage}, [lineage]
        while ahead:
            fresh = near.get(ahead.pop(), set()) - found
            found |= fresh
            ahead += fresh
        return found


class Spent(NamedTuple):
    """Everything that was released about a lineage, and about those that share rows with it.

    Attributes:
        epsilon: of all releases together, at the budget's delta; infinite after an exact one, or
            where promises of different kinds do not add up; None without a budget.
        releases: how many; those that were given back do not count.
    """

    epsilon: float | None
    releases: int


class RunSpent(NamedTuple):
    """What one run released about one lineage.

    Attributes:
        run: id in hexadecimal.
        used, rounds: how many of its declared rounds the run has had, and how many it declared.
        sessions: ids in hexadecimal, oldest first.
        void: those of the sessions of which nothing counts: all was given back.
        mu: of all that it released; None where that was exact; 0 where nothing counts.
        epsilon: spent up to the run's last release, by others too; None without a budget.
        when: of the last release.
        mechanism: of the last release, in words.
    """

    run: str
    used: int
    rounds: int
    sessions: tuple[str, ...]
    void: tuple[str, ...]
    mu: float | None
    epsilon: float | None
    when: datetime
    mechanism: str


class Charge(TypedDict):
    """The cost of a release to a client's data.

    Attributes:
        run: id, 1 to 64 bytes.
        rounds: how many releases the whole run will make; it cannot grow later.
        mu: Δ/σ of the noise, > 0, ≤ 1e6; None for an exact release.
        distance: total variation of the noise from the Gaussian that mu tells
            (`discretisation_distance`). It costs 1 + e^ε as much of δ.
        unit, neighbours: whose privacy mu measures.
        mechanism: in words, for those who read the ledger.
    """

    run: bytes
    rounds: int
    mu: float | None
    distance: float
    unit: Unit
    neighbours: Neighbours
    mechanism: str


Checked = TypeVar("Checked", Budget, Entry, Void)


def make_entry(lineage: str, session: bytes, party: bytes, charge: Charge) -> Entry:
    """Make a release as it is recorded, but for its ε and its link.

    Raises:
        ConfigError: an argument out of range.
    """
    return checked(
        Entry(
            lineage,
            charge["run"].hex(),
            session.hex(),
            party.hex(),
            charge["rounds"],
            charge["mu"],
            charge["distance"],
            charge["unit"],
            charge["neighbours"],
            None,
            charge["mechanism"],
            now(),
        )
    )


def now() -> datetime:
    """Return the time, UTC, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def checked(value: Checked) -> Checked:
    """Return arguments converted by the rules of the file.

    Raises:
        ConfigError: a number that is not finite, or a field out of range.
    """
    for name in ("mu", "epsilon", "delta", "distance"):
        number = getattr(value, name, None)
        # JSON knows no such numbers, and would write null.
        if number is not None and not math.isfinite(number):
            raise ConfigError(f"{name} is {number!r}, allowed: finite numbers")
    try:
        return msgspec.json.decode(msgspec.json.encode(value), type=type(value))
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"the ledger cannot record this {type(value).__name__}: {error}"
        ) from None
