"""The ledger itself: it looks, judges and records under one lock.

The ledger is the client's, and no coordinator can write to it. It counts by *lineage*: a name for
data and all that becomes of it, for a changed row does not make new data. A release is recorded
before anything leaves the client; whatever stands in the way of recording stands in the way of
releasing.
"""

import hashlib
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Unpack

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from secure_afl.errors import ConfigError, LedgerRefusal
from secure_afl.privacy.ledger.alike import Alike, describe_met, lineages_met
from secure_afl.privacy.ledger.book import (
    FORMAT_VERSION,
    Book,
    Budget,
    Charge,
    Entry,
    Mark,
    RunSpent,
    Spent,
    Void,
    checked,
    make_entry,
    now,
)
from secure_afl.privacy.ledger.rows import Rows, check_digests, row_digests
from secure_afl.privacy.ledger.rules import (
    epsilon_spent,
    in_words,
    left,
    problem_of,
    remedy_of,
    rounds_used,
    runs_of,
)
from secure_afl.privacy.ledger.store import Store


class Ledger:
    """A JSON file of releases, and the budget they keep to.

    The file, its key and its rows are for their owner alone (mode 0600). A change by hand is
    noticed, as is, with an anchor, an older copy. Neither stops the owner, who has the key, nor an
    older copy of ledger and anchor together.

    Several processes and threads may use one file: each looks and records under a lock (on POSIX;
    elsewhere only one process may use a ledger). Clients of one run may keep one ledger together,
    each about a lineage of its own. Use `open`.
    """

    def __init__(self, store: Store, budget: Budget | None, *, new: bool) -> None:
        self._store = store
        self._rows = Rows(store.rows)
        self._wanted = budget
        self._new = new
        self._busy = threading.RLock()

    @classmethod
    def open(
        cls,
        path: Path,
        budget: Budget | None = None,
        *,
        anchor: Path | None = None,
        new: bool = False,
    ) -> "Ledger":
        """Open the ledger of this file; a new one is written with its first release.

        Args:
            path: the file. Beside it lie its key, its lock and its rows, of the same name and
                `.key`, `.lock` and `.rows`.
            budget: kept in a file that has none, from the next release on. A smaller one than the
                file's binds this object alone; None takes the file's.
            anchor: folder of the client's identity, in which the ledger's head is kept, too. A
                ledger that was used with one needs it from then on.
            new: begin a ledger; the file must not exist.

        Raises:
            ConfigError: a budget out of range, or an anchor that is no folder.
            LedgerRefusal: no such file, or one that is new and exists; a larger budget than the
                file's or one of another kind; a file that is damaged, was changed or rolled back,
                or cannot be written.
        """
        if budget is not None:
            budget = checked(budget)
        if anchor is not None and not anchor.is_dir():
            raise ConfigError(f"{anchor} is no folder; name the folder of the client's identity")
        store = Store(Path(path).resolve(), anchor)
        ledger = cls(store, budget, new=new)
        if new:
            store.check_new()
        else:
            with nullcontext() if anchor is None else store.locked():
                book = store.read()
                store.check_anchor(book)
            ledger._effective(book)
        return ledger

    @classmethod
    def look(cls, path: Path) -> "Ledger":
        """Open an existing ledger to read in it; its anchor is not looked at.

        Raises:
            LedgerRefusal: no such file, or one that is damaged or was changed.
        """
        store = Store(Path(path).resolve(), None)
        store.read()
        return cls(store, None, new=False)

    @classmethod
    def clear_unborn(cls, path: Path, *, anchor: Path | None = None) -> None:
        """Remove what a process left that was killed as it wrote a new ledger for the first time.

        Nothing was released then. That the ledger is not lost is the caller's to know.

        Raises:
            LedgerRefusal: there is a ledger, or an anchor of one.
        """
        Store(Path(path).resolve(), anchor).clear_unborn()

    @property
    def path(self) -> Path:
        """The file, links resolved."""
        return self._store.path

    @property
    def budget(self) -> Budget | None:
        """The budget that this object keeps to; None where there is none.

        Raises:
            LedgerRefusal: the file cannot be read, or has a smaller budget or another kind by now.
        """
        return self._effective(self._read())

    @property
    def lineages(self) -> tuple[str, ...]:
        """The lineages that something was released about, in the order in which they came."""
        return tuple(lineage.name for lineage in self._read().lineages)

    def entries(self, lineage: str) -> tuple[Entry, ...]:
        """Return the releases about a lineage, oldest first, also those that were given back.

        Raises:
            LedgerRefusal: the file cannot be read.
        """
        return tuple(entry for entry in self._read().entries if entry.lineage == lineage)

    def knows(self, session: bytes, lineage: str | None = None, party: bytes | None = None) -> bool:
        """Say whether a release of a session is recorded.

        Args:
            session, party: as for `authorise`.
            lineage: that the release is about; None for any. Another client of the session may have
                recorded one here.
        """
        return bool(self._read().of_session(session, lineage, party))

    def shares(self, lineage: str) -> tuple[str, ...]:
        """Return the other lineages that count as one with this one, sorted."""
        return tuple(sorted(self._read().group(lineage) - {lineage}))

    def spent(self, lineage: str) -> Spent:
        """Add up what was released about a lineage, and about those that share rows with it.

        Raises:
            LedgerRefusal: the file cannot be read, or has a smaller budget or another kind by now.
        """
        book = self._read()
        entries = book.counting(book.group(lineage))
        return Spent(epsilon_spent(entries, self._effective(book)), len(entries))

    def runs(self, lineage: str) -> tuple[RunSpent, ...]:
        """Sum up what each run released about a lineage, oldest run first.

        Raises:
            LedgerRefusal: the file cannot be read, or has a smaller budget or another kind by now.
        """
        book = self._read()
        return runs_of(book, lineage, self._effective(book))

    def row_digests(self, features: NDArray[np.floating]) -> tuple[bytes, ...]:
        """Hash a client's rows under the ledger's key, for `authorise`.

        Args:
            features: (n, d), finite. Labels do not matter.

        Returns:
            8 bytes each, sorted and without repetitions; none for rows of zeros.

        Raises:
            LedgerRefusal: the key cannot be read.
        """
        return row_digests(features, self._store.key)

    def authorise(
        self,
        lineage: str,
        *,
        session: bytes,
        party: bytes = b"",
        rows: Sequence[bytes] = (),
        alike: Sequence[Alike] = (),
        **charge: Unpack[Charge],
    ) -> None:
        """Record a release and return, or refuse it.

        On return the record is on the disk.

        A session is charged once to a lineage and a party: it may be asked for again after a
        restart. It may be asked for by each of several disjoint pieces of the lineage, too, under
        one `party`, since what changes is in one of them only. A party that was started twice
        draws twice, and its second message is a release of its own.

        Args:
            lineage: of the data, 1 to 1000 characters.
            session: id, 1 to 64 bytes.
            party: digest of the entropy that the client's party drew, ≤ 64 bytes; empty where it
                is unknown.
            rows: digests of the client's rows, by `row_digests`. Lineages that share a row count
                as one: the releases about each count for all of them.
            alike: digests of a table's rows, and of its patients: lineages that share more than
                chance explains count as one, too.
            charge: fields of `Charge`.

        Raises:
            ConfigError: an argument out of range.
            LedgerRefusal: the release would exceed the budget, or is of another kind than the
                budget; or is exact, and there is a budget, or an exact release of another run;
                or the run has had its rounds, or declares more than before; or a session that is
                recorded comes back with other terms, or was given back; or the file is damaged,
                was changed or rolled back, or cannot be written.
        """
        new = make_entry(lineage, session, party, charge)
        check_digests(_all(rows, alike))
        with self._busy:
            if self._new:
                # What is refused makes no files.
                self._judge(self._read(), new, rows, alike)
            self._authorise(new, rows, alike)

    def _authorise(self, new: Entry, rows: Sequence[bytes], alike: Sequence[Alike]) -> None:
        lineage = new.lineage
        with self._locked(create=True) as book:
            recorded, shares = self._judge(book, new, rows, alike)
            budget = self._effective(book)
            after = replace(book, budget=book.budget or budget).with_lineage(lineage, shares)
            if not recorded:
                counting = after.counting(after.group(lineage))
                new = replace(new, epsilon=epsilon_spent([*counting, new], budget))
                after = replace(after, entries=(*book.entries, new))
            place = book.place(lineage)
            with self._reading_rows():
                unknown = self._rows.unknown(book.rows, place, _all(rows, alike))
            if after != book or unknown:
                self._record(after, place, unknown)

    def check(
        self,
        lineage: str,
        *,
        session: bytes = b"\0",
        rows: Sequence[bytes] = (),
        alike: Sequence[Alike] = (),
        **charge: Unpack[Charge],
    ) -> None:
        """Raise LedgerRefusal if `authorise` would, now; nothing is recorded.

        Args:
            session: by default a new one. Lineages that count as one have one round in one session.
        """
        check_digests(_all(rows, alike))
        self._judge(self._read(), make_entry(lineage, session, b"", charge), rows, alike)

    def released(self, session: bytes) -> None:
        """Record that a session's sum came out, so that it cannot be given back.

        It is out for all lineages that have a release in the session.

        Raises:
            LedgerRefusal: no release of this session is recorded, or the file cannot be written.
        """
        with self._locked() as book:
            found = self._entries_of(book, session)
            after = book.changed(found, lambda entry: replace(entry, released=True))
            if after != book:
                self._store.write(after)

    def void(
        self,
        session: bytes,
        reason: str,
        evidence: bytes = b"",
        *,
        lineage: str | None = None,
        party: bytes | None = None,
    ) -> None:
        """Give a session back, whose sum never came out and never will.

        Its releases stay in the file, cost nothing, and leave their round to the run; their
        lineages are refused in that session from then on. Whether that is true is the caller's to
        know. A second time changes nothing.

        Args:
            session, party: as for `authorise`.
            reason: in words, 1 to 1000 characters.
            evidence: bytes whose SHA-256 is kept; empty for none.
            lineage: whose release it is; None gives back those of all lineages, for whoever knows
                of all of them. A client knows of its own only, and by its own word, without
                evidence, of its own `party` only: another's vector may be out.

        Raises:
            ConfigError: a reason out of range.
            LedgerRefusal: no such release of this session is recorded, or its sum is known to have
                come out; or the file cannot be written.
        """
        digest = hashlib.sha256(evidence).hexdigest() if evidence else None
        note = checked(Void(now(), reason, digest))
        with self._locked() as book:
            found = self._entries_of(book, session, lineage, party)
            if any(entry.released for entry in book.of_session(session)):
                raise LedgerRefusal(
                    f"the sum of session {session.hex()} came out; it cannot be given back. Leave "
                    f"it: what was released counts. The ledger is {self.path}."
                )
            after = book.changed(
                found, lambda e: e if e.void is not None else replace(e, void=note)
            )
            if after != book:
                self._store.write(after)

    def raise_budget(self, budget: Budget) -> None:
        """Put a larger budget in the file's place, deliberately.

        Raises:
            ConfigError: a budget out of range.
            LedgerRefusal: one that is smaller or of another kind than the file's; or the file
                cannot be written.
        """
        budget = checked(budget)
        with self._locked() as book:
            if book.budget is not None and not budget.allows(book.budget):
                raise LedgerRefusal(
                    f"{self.path} has the budget {book.budget}; {budget} does not "
                    "raise it. Keep unit and neighbours, and lower neither epsilon nor delta."
                )
            self._store.write(replace(book, budget=budget))
            self._wanted = budget

    def take_over(self, budget: Budget | None, entries: Sequence[Entry]) -> None:
        """Begin this new ledger with releases that are known from elsewhere; none is judged.

        Raises:
            LedgerRefusal: the ledger is not new, or cannot be written.
        """
        with self._locked(create=True) as book:
            for entry in entries:
                book = book.with_lineage(entry.lineage, ())
            self._store.create(replace(book, budget=budget, entries=tuple(entries)))
            self._new = False

    def _judge(
        self, book: Book, new: Entry, rows: Sequence[bytes], alike: Sequence[Alike]
    ) -> tuple[bool, list[str]]:
        """Return whether a release is recorded already, and the lineages that share its rows.

        Raises:
            LedgerRefusal: it is there with other terms, or may not be added.
        """
        budget = self._effective(book)
        with self._reading_rows():
            met = lineages_met(book, self._rows, new, rows, alike)
        group = book.group(new.lineage, met)
        earlier = book.counting(group)
        session = book.of_session(bytes.fromhex(new.session))
        same = [entry for entry in session if entry.lineage == new.lineage]
        problem, recorded = "", [entry for entry in same if entry.party == new.party]
        # A party keeps its vector, whatever data it is given later.
        own = [*same, *(entry for entry in session if entry.party == new.party != "")]
        if any(entry.void for entry in own):
            problem = "this session was given back, and its messages with it"
        elif any(entry.terms != new.terms for entry in same):
            problem = "this session is recorded with other terms"
        elif not recorded:
            problem = problem_of(new, earlier, budget)
        elif group != book.group(new.lineage):
            # Recorded before it was known whose rows these are, too.
            problem = problem_of(new, [e for e in earlier if e is not recorded[0]], budget)
        if problem:
            raise self._refusal(new, earlier, budget, problem, describe_met(met, alike))
        return bool(recorded), list(met)

    def _record(self, book: Book, place: int, rows: Sequence[bytes]) -> None:
        """Write rows first, and then the file, which says how many of them count."""
        if rows:
            try:
                book = replace(book, rows=self._rows.append(book.rows, place, rows))
            except OSError as error:
                raise self._store.unusable(error) from None
        if self._new:
            self._store.create(book)
            self._new = False
        else:
            self._store.write(book)

    def _effective(self, book: Book) -> Budget | None:
        if self._wanted is None or book.budget is None:
            return book.budget or self._wanted
        if not book.budget.allows(self._wanted):
            raise LedgerRefusal(
                f"{self.path} has the budget {book.budget}, asked: {self._wanted}. "
                "Ask for no more; or raise the ledger's budget first, which weakens the promise "
                "that was made to those whose data it is."
            )
        return self._wanted

    def _refusal(
        self, new: Entry, earlier: list[Entry], budget: Budget | None, problem: str, met: str
    ) -> LedgerRefusal:
        asked = "an exact release"
        if new.mu is not None:
            asked = f"a release of {in_words(new.mu, budget)}"
        spent = epsilon_spent(earlier, budget)
        known = "" if budget is None else f" (epsilon {spent:.4g} of {budget})"
        return LedgerRefusal(
            f"lineage '{new.lineage}': {problem}. {met}Asked: {asked} in run {new.run[:16]}, round "
            f"{1 + rounds_used(e for e in earlier if e.run == new.run)} of {new.rounds}. "
            f"Spent: {len(earlier)} releases{known}. Left: {left(earlier, budget)}. "
            f"{remedy_of(new, budget)}, or leave this data out; data is a new lineage only if none "
            "of its rows has been used before. A session that failed can be given back: secure-afl "
            f"ledger void. The ledger is {self.path}."
        )

    def _entries_of(
        self, book: Book, session: bytes, lineage: str | None = None, party: bytes | None = None
    ) -> list[Entry]:
        found = book.of_session(session, lineage, party)
        if not found:
            about = "" if lineage is None else f" about lineage '{lineage}'"
            whose = "" if party is None else " by this party"
            raise LedgerRefusal(
                f"the ledger {self.path} has no release of session {session.hex()}{about}{whose}; "
                "`secure-afl ledger show --json` lists the sessions of each lineage"
            )
        return found

    def _read(self) -> Book:
        with self._busy:
            if not self._new:
                return self._store.read()
            self._store.check_new()
            return Book(
                FORMAT_VERSION, secrets.token_hex(16), 0, "", 0, self._wanted, (), Mark(), (), ""
            )

    @contextmanager
    def _locked(self, *, create: bool = False) -> Iterator[Book]:
        """Hold the lock, and yield the file as it is; what is new only with `create`."""
        with self._busy:
            if not self.path.exists() and not (self._new and create):
                self._store.read()  # says what to do
            with self._store.locked(new=self._new):
                book = self._read()
                if not self._new:
                    self._store.check_anchor(book)
                yield book

    @contextmanager
    def _reading_rows(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            raise LedgerRefusal(
                f"the rows {self._store.rows} of the ledger cannot be read ({error}). Nothing is "
                "released without them: restore them, with the ledger, from a backup"
            ) from None


def _all(rows: Sequence[bytes], alike: Sequence[Alike]) -> list[bytes]:
    return [*rows, *(digest for kind in alike for digest in kind.digests)]
