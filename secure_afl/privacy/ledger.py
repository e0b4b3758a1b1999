"""A client's own record of what was released about its data, and its refusal to release too much.

The ledger is the client's, and no coordinator can write to it. It counts by *lineage*: a name for
data and all that becomes of it, for a changed row does not make new data. A release is recorded
before anything leaves the client; whatever stands in the way of recording stands in the way of
releasing.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple, TypedDict, TypeVar, Unpack

import msgspec
from msgspec import Meta

from protocols.files import locked, write_durably
from secure_afl.errors import ConfigError, LedgerRefusal
from secure_afl.privacy.accounting import (
    compose,
    delta_of,
    distance_delta,
    epsilon_of,
    mu_of,
)
from secure_afl.privacy.sensitivity import Neighbours, Unit

FORMAT_VERSION = 1
MAX_ROUNDS = 10**6

_Hex = Annotated[str, Meta(pattern="^([0-9a-f]{2}){1,64}$")]
Checked = TypeVar("Checked", "Budget", "Entry")
_Text = Annotated[str, Meta(min_length=1, max_length=1000)]


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The most that may be released about a lineage, ever: (epsilon, delta)-privacy.

    Attributes:
        epsilon: > 0, ≤ 1000.
        delta: 1e-100 to 0.5.
        unit, neighbours: between what the promise holds. Promises of different kinds do not add up.
    """

    epsilon: Annotated[float, Meta(gt=0, le=1000)]
    delta: Annotated[float, Meta(ge=1e-100, le=0.5)]
    unit: Unit
    neighbours: Neighbours

    def allows(self, other: "Budget") -> bool:
        """Say whether the other budget is of the same kind and nowhere larger."""
        return (
            (other.unit, other.neighbours) == (self.unit, self.neighbours)
            and other.epsilon <= self.epsilon
            and other.delta <= self.delta
        )


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One release.

    Attributes:
        lineage: of the data.
        run, session: ids in hexadecimal.
        rounds: how many releases the run declared.
        mu: Δ/σ of the Gaussian noise, > 0, ≤ 1e6; null for an exact release, without noise.
        distance: total variation of the noise from that Gaussian, 0 to 1.
        unit, neighbours: whose privacy mu measures.
        epsilon: of all the lineage's releases up to this one, at the budget's delta; null without
            a budget. For people to read: it is computed, never believed.
        mechanism: in words.
        when: UTC.
    """

    lineage: _Text
    run: _Hex
    session: _Hex
    rounds: Annotated[int, Meta(ge=1, le=MAX_ROUNDS)]
    mu: Annotated[float, Meta(gt=0, le=1e6)] | None
    distance: Annotated[float, Meta(ge=0, le=1)]
    unit: Unit
    neighbours: Neighbours
    epsilon: Annotated[float, Meta(ge=0)] | None
    mechanism: _Text
    when: Annotated[datetime, Meta(tz=True)]

    @property
    def terms(self) -> tuple[object, ...]:
        """The terms that may not change when the same session is authorised again."""
        return (self.run, self.rounds, self.mu, self.distance, self.unit, self.neighbours)


class _Book(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    format_version: int
    budget: Budget | None
    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise ValueError(f"format {self.format_version}, wanted {FORMAT_VERSION}")
        if len({(entry.lineage, entry.session) for entry in self.entries}) < len(self.entries):
            raise ValueError("a session is entered twice for one lineage")

    def of(self, lineage: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.lineage == lineage]


class Spent(NamedTuple):
    """Everything that was released about a lineage.

    Attributes:
        epsilon: of all releases together, at the budget's delta; infinite after an exact one, or
            where promises of different kinds do not add up; None without a budget.
        releases: how many.
    """

    epsilon: float | None
    releases: int


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


class Ledger:
    """A JSON file of releases, and the budget they keep to.

    The file is for its owner alone (mode 0600).

    Several processes and threads may use one file: each looks and records under a lock (on POSIX;
    elsewhere only one process may use a ledger). Use `open`.
    """

    def __init__(self, path: Path, budget: Budget | None) -> None:
        self.path = path
        self._wanted = budget

    @classmethod
    def open(cls, path: Path, budget: Budget | None = None) -> "Ledger":
        """Open the ledger of this file, which is made if it is missing.

        Args:
            path: the file. A lock of the same name and `.lock` lies beside it.
            budget: kept in a file that has none. A smaller one than the file's binds this object
                alone, and leaves the file's as it is; None takes the file's.

        Raises:
            ConfigError: a budget out of range.
            LedgerRefusal: a larger budget than the file's or one of another kind, or a file that is
                damaged or cannot be written.
        """
        if budget is not None:
            budget = _checked(budget)
        ledger = cls(Path(path).resolve(), budget)
        with ledger._locked():
            missing = not ledger.path.exists()
            book = _Book(FORMAT_VERSION, None, ()) if missing else ledger._read()
            if missing or (book.budget is None and budget is not None):
                book = msgspec.structs.replace(book, budget=budget)
                ledger._write(book)
            ledger._effective(book)
        return ledger

    @property
    def budget(self) -> Budget | None:
        """The budget that this object keeps to; None where there is none.

        Raises:
            LedgerRefusal: the file cannot be read, or has a smaller budget or another kind by now.
        """
        return self._effective(self._read())

    def entries(self, lineage: str) -> tuple[Entry, ...]:
        """Return the releases about a lineage, oldest first.

        Raises:
            LedgerRefusal: the file cannot be read.
        """
        return tuple(self._read().of(lineage))

    def spent(self, lineage: str) -> Spent:
        """Add up what was released about a lineage.

        Raises:
            LedgerRefusal: the file cannot be read, or has a smaller budget or another kind by now.
        """
        book = self._read()
        entries = book.of(lineage)
        return Spent(_epsilon(entries, self._effective(book)), len(entries))

    def authorise(self, lineage: str, *, session: bytes, **charge: Unpack[Charge]) -> None:
        """Record a release and return, or refuse it.

        On return the record is on the disk.

        A session is charged once to a lineage: it may be asked for again after a restart, and by
        each of several disjoint pieces of the lineage, since what changes is in one of them only.

        Args:
            lineage: of the data, 1 to 1000 characters.
            session: id, 1 to 64 bytes.
            charge: fields of `Charge`.

        Raises:
            ConfigError: an argument out of range.
            LedgerRefusal: the release would exceed the budget, or is of another kind than the
                budget; or is exact, and there is a budget, or an exact release of another run;
                or the run has had its rounds, or declares more than before; or a session that is
                recorded comes back with other terms; or the file is damaged or cannot be written.
        """
        new = _entry(lineage, session, charge)
        with self._locked():
            book = self._read()
            budget = self._effective(book)
            earlier = book.of(lineage)
            if self._recorded(new, earlier, budget):
                return
            epsilon = _epsilon([*earlier, new], budget)
            new = msgspec.structs.replace(new, epsilon=epsilon)
            self._write(msgspec.structs.replace(book, entries=(*book.entries, new)))

    def check(self, lineage: str, **charge: Unpack[Charge]) -> None:
        """Raise LedgerRefusal if `authorise` would, now, for a new session; nothing is recorded."""
        new = _entry(lineage, b"\0", charge)
        book = self._read()
        self._recorded(new, book.of(lineage), self._effective(book))

    def _recorded(self, new: Entry, earlier: list[Entry], budget: Budget | None) -> bool:
        """Return whether a release is there already.

        Raises:
            LedgerRefusal: it is there with other terms, or may not be added.
        """
        for entry in earlier:
            if entry.session == new.session:
                if entry.terms != new.terms:
                    problem = "this session is recorded with other terms"
                    raise self._refusal(new, earlier, budget, problem)
                return True
        if problem := _problem(new, earlier, budget):
            raise self._refusal(new, earlier, budget, problem)
        return False

    def raise_budget(self, budget: Budget) -> None:
        """Put a larger budget in the file's place, deliberately.

        Raises:
            ConfigError: a budget out of range.
            LedgerRefusal: one that is smaller or of another kind than the file's.
        """
        budget = _checked(budget)
        with self._locked():
            book = self._read()
            if book.budget is not None and not budget.allows(book.budget):
                raise LedgerRefusal(
                    f"{self.path} has the budget {_words(book.budget)}; {_words(budget)} does not "
                    "raise it. Keep unit and neighbours, and lower neither epsilon nor delta."
                )
            self._write(msgspec.structs.replace(book, budget=budget))
            self._wanted = budget

    def _effective(self, book: _Book) -> Budget | None:
        if self._wanted is None or book.budget is None:
            return book.budget or self._wanted
        if not book.budget.allows(self._wanted):
            raise LedgerRefusal(
                f"{self.path} has the budget {_words(book.budget)}, asked: {_words(self._wanted)}. "
                "Ask for no more; or raise the ledger's budget first, which weakens the promise "
                "that was made to those whose data it is."
            )
        return self._wanted

    def _refusal(
        self, new: Entry, earlier: list[Entry], budget: Budget | None, problem: str
    ) -> LedgerRefusal:
        asked = "an exact release" if new.mu is None else f"a release of mu = {new.mu:.6g}"
        spent = _epsilon(earlier, budget)
        known = "" if budget is None else f" (epsilon {spent:.4g} of {_words(budget)})"
        return LedgerRefusal(
            f"lineage '{new.lineage}': {problem}. Asked: {asked} in run {new.run[:16]}, round "
            f"{1 + sum(e.run == new.run for e in earlier)} of {new.rounds}. Spent: {len(earlier)} "
            f"releases{known}. Left: {_left(earlier, budget)}. Ask for a release with more noise "
            "or fewer rounds, or leave this data out; data is a new lineage only if none of its "
            f"rows has been used before. The ledger is {self.path}."
        )

    def _read(self) -> _Book:
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=_Book)
        except (OSError, ValueError, RecursionError) as error:
            raise LedgerRefusal(
                f"the ledger {self.path} cannot be read ({error}). Nothing is released without "
                "it: restore it from a backup. An empty one would forget what is spent."
            ) from None

    def _write(self, book: _Book) -> None:
        text = msgspec.json.format(msgspec.json.encode(book), indent=2) + b"\n"
        try:
            write_durably(self.path, text)
        except OSError as error:
            raise self._unusable(error) from None

    def _unusable(self, error: OSError) -> LedgerRefusal:
        return LedgerRefusal(
            f"the ledger {self.path} cannot be written ({error.strerror}). Nothing is released "
            "without it: make room, or name a folder that can be written."
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with ExitStack() as held:
            try:
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                held.enter_context(locked(self.path))
            except OSError as error:
                raise self._unusable(error) from None
            yield


def _entry(lineage: str, session: bytes, charge: Charge) -> Entry:
    """Make a release as it is recorded, but for its ε.

    Raises:
        ConfigError: an argument out of range.
    """
    return _checked(
        Entry(
            lineage,
            charge["run"].hex(),
            session.hex(),
            charge["rounds"],
            charge["mu"],
            charge["distance"],
            charge["unit"],
            charge["neighbours"],
            None,
            charge["mechanism"],
            datetime.now(UTC).replace(microsecond=0),
        )
    )


def _problem(new: Entry, earlier: list[Entry], budget: Budget | None) -> str:
    """Say why a release may not be made; empty if it may."""
    same_run = [entry for entry in earlier if entry.run == new.run]
    declared = min((entry.rounds for entry in same_run), default=new.rounds)
    if new.rounds > declared:
        return f"the run declares {new.rounds} rounds, and had declared {declared}"
    if len(same_run) >= new.rounds:
        return f"the run declares {new.rounds} rounds, and has had {len(same_run)}"
    if budget is None:
        if new.mu is None and any(e.mu is None and e.run != new.run for e in earlier):
            return "another run had an exact release, and two of them differ by what changed"
        return ""
    if new.mu is None:
        return "an exact release spends an infinite epsilon, and there is a budget"
    if (new.unit, new.neighbours) != (budget.unit, budget.neighbours):
        return f"privacy of {new.unit}, {new.neighbours} does not add up with the budget's kind"
    if not _affordable([*earlier, new], budget):
        return "the release would exceed the budget"
    return ""


def _affordable(entries: list[Entry], budget: Budget) -> bool:
    mu, distance = _composed(entries, budget)
    delta = budget.delta - distance_delta(budget.epsilon, distance)
    # By δ at the budget's ε: noise that was made for this very budget passes by its own margin.
    if delta > 0 and delta_of(budget.epsilon, mu) <= delta:
        return True
    return _least_epsilon(mu, distance, budget.delta) <= budget.epsilon


def _composed(entries: list[Entry], budget: Budget) -> tuple[float, float]:
    """Return μ of all entries together, and their distances.

    μ is infinite where the entries do not compose.
    """
    kinds = {(entry.unit, entry.neighbours) for entry in entries}
    mus = [entry.mu for entry in entries if entry.mu is not None]
    composes = len(mus) == len(entries) and kinds <= {(budget.unit, budget.neighbours)}
    distance = math.fsum(entry.distance for entry in entries)
    return compose(mus) if composes else math.inf, distance


def _least_epsilon(mu: float, distance: float, delta: float) -> float:
    """Return an ε that holds at this δ, near the least.

    It is infinite if the distance takes too much of δ.

    The distance costs more of δ the larger ε is: half of δ gives an ε, and what the distance really
    takes at that one a smaller, at which it takes no more.
    """
    first = epsilon_of(delta / 2, mu)
    left = delta - distance_delta(first, distance) if math.isfinite(first) else 0.0
    return epsilon_of(left, mu) if left >= delta / 2 else math.inf


def _epsilon(entries: list[Entry], budget: Budget | None) -> float | None:
    if budget is None:
        return None
    return _least_epsilon(*_composed(entries, budget), budget.delta)


def _left(entries: list[Entry], budget: Budget | None) -> str:
    if budget is None:
        return "there is no budget"
    if not _affordable(entries, budget):
        return "nothing"
    mu, distance = _composed(entries, budget)
    # The largest ε at which the distance takes half of δ at most.
    epsilon = budget.epsilon
    if distance > 0:
        epsilon = min(epsilon, math.log(max(budget.delta / (2 * distance) - 1, 1.0)))
    delta = budget.delta - distance_delta(epsilon, distance)
    left = math.sqrt(max(mu_of(epsilon, delta) ** 2 - mu**2, 0.0)) if delta > 0 else 0.0
    return f"releases of mu ≤ {left:.4g} together"


def _checked(value: Checked) -> Checked:
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


def _words(budget: Budget) -> str:
    return (
        f"epsilon {budget.epsilon:g} at delta {budget.delta:g} for one {budget.unit}, "
        f"{budget.neighbours}"
    )
