"""The client's half of a federation: its rows, what it insists on, and its memory.

The server half and the client half know nothing of each other but what crosses between them: the
public state, the session, and the parties' messages. A driver joins them: `simulation` in one
process, a transport between many.
"""

import hashlib
import logging
import math
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from protocols.codec import Secret, decode, domain_tag, encode
from protocols.errors import Malformed
from protocols.identity import Enrolment
from protocols.layout import Integers
from protocols.message import derive
from protocols.party import ENTROPY_BYTES, Party
from protocols.protocol import check_given_back
from protocols.roster import Line, Roster
from protocols.seats.seat import Seat
from protocols.session import Session
from secure_afl.analytic.rows import ClientData, Rows, check_data, check_finite, check_targets
from secure_afl.errors import ConfigError, DataError
from secure_afl.federation.known import MUCH_LOST, KnownBy, known_by
from secure_afl.federation.rounds.checks import fits_task
from secure_afl.federation.rounds.half import Half
from secure_afl.federation.rounds.history import History, Opening
from secure_afl.federation.rounds.position import Position, SavedPosition
from secure_afl.federation.sums import check_spending, this_noisy_sum
from secure_afl.federation.task import Terms, majority
from secure_afl.methods.memory import Memory, settle
from secure_afl.methods.method import Own, PublicState, Task
from secure_afl.privacy.ledger import Charge, Ledger

log = logging.getLogger("secure_afl")


class _Saved(Secret, frozen=True):
    position: SavedPosition | None
    memory: tuple[tuple[str, np.ndarray[Any, Any]], ...]


class FederationClient(Half):
    """One client's half: its rows, the bound that it declares on them, and its memory.

    Args:
        terms: method, protocol, and the promise that this client wants kept: it joins nothing that
            promises anything else; without one it takes part in exact sums only.
        data: this client's rows, or where they can be had once they are wanted.
        max_rows: the bound that this client declares on their number, or on that of their patients
            where these are the unit.
        pinned: the roster that this client has; it then joins no session with anybody else. None
            trusts whoever forms the sessions.
        classes: names of the classes that this client's labels stand for, in order; None accepts
            the task's. With a promise give them: later a refusal would tell of a row.
        backbone: digest of what made this client's features, 32 bytes; None accepts the task's.
        min_cohort, corrupt: the least that this client accepts in a session's terms: whoever
            forms a session chooses its cohort, and would choose one victim and its own clients.
            The default is a majority of the pinned clients, or two where nothing is pinned. A
            method may want more.
        same_set: the client insists on sums over the same clients in all rounds.
        ledger: of what was released about this client's data; it is asked before any part in a
            session. None keeps no account.
        lineage: what the ledger knows these data by; by default the client's name.

    Raises:
        DataError: more rows than the bound, or rows that do not say whose they are where patients
            are the unit; with a promise, rows that no sum could take.
    """

    def __init__(
        self,
        terms: Terms,
        data: Rows,
        max_rows: int,
        pinned: Roster | None = None,
        *,
        classes: Sequence[str] | None = None,
        backbone: bytes | None = None,
        min_cohort: int | None = None,
        corrupt: int = 0,
        same_set: bool = False,
        ledger: Ledger | None = None,
        lineage: str | None = None,
    ) -> None:
        super().__init__(data.name, terms, pinned, same_set)
        self.privacy = terms.privacy
        self._terms = terms
        self.data = data
        self.max_rows = max_rows
        self.classes = None if classes is None else tuple(classes)
        if isinstance(data, ClientData):
            self._check_count(data)
            self._check_rows(data)
            check_targets(f"client '{self.name}'", data, numeric=terms.method.numeric)
        self.backbone = backbone
        if min_cohort is None:
            min_cohort = 2 if pinned is None else majority(len(pinned.clients))
        self.min_cohort = max(min_cohort, terms.method.least_cohort)
        self.corrupt = corrupt
        self.ledger = ledger
        self.lineage = data.name if lineage is None else lineage
        self.memory: Memory = {}
        self._known_by: KnownBy | None = None
        # By session, what the ledger knows this client's party by; after a restart it joins again.
        self._charged: dict[bytes, bytes] = {}
        self.statistics_seconds = 0.0

    def join(
        self,
        session: Session,
        enrolment: Enrolment,
        opening: Opening,
        *,
        seat: Seat | None = None,
        keep: Callable[[bytes], None] = lambda saved: None,
    ) -> Party:
        """Return this client's party, once the session is for the next round of this run.

        There is one party a session: to join again returns the same.

        Args:
            enrolment: this client's in the session.
            opening: what the server tells beside it.
            seat: where the party lives, and outlasts its process; without one it lives here.
            keep: makes what `save` returns durable, for whoever has a seat; called before the
                vector is stored, and before anything of the party can be sent.

        Raises:
            InvalidSession: the session or the opening is not one that this client takes part in:
                parties that it has not pinned, a smaller cohort than it wants, another task than
                its data is for, a round that does not follow from those before, another promise of
                privacy than it wants, or too little noise for it.
            LedgerRefusal: this client's data have been in too many sums already.
        """
        self._check_session(session)
        self._check_policy(session)
        self._check_task(session, enrolment, opening.public.task)
        public = opening.public
        position = self._enter(session, opening, seat)
        if position.party is not None:
            return position.party
        self.settle(opening.history, session.roster)
        self._check_privacy(session, public)
        for given_back in opening.voids:
            # Whatever became of the letter that said so: `enter` has checked it.
            earlier = check_given_back(given_back, self.pinned)
            self.given_back(earlier, "no sum came out", given_back)

        def vector(entropy: bytes) -> Integers:
            contributed = self.contribute(public, entropy)
            # Once the vector is on the disk, nobody computes what is remembered of it again.
            keep(self.save())
            return contributed

        drawn = secrets.token_bytes(ENTROPY_BYTES)
        if seat is None:
            party = self.protocol.client(session, enrolment, vector, entropy=lambda _: drawn)
        else:
            self.protocol.check(session)
        # Before anything can be said; after all else, for what is refused costs nothing.
        if self.ledger is not None:
            self._enter_in(self.ledger, session, public, drawn, seat)
        if seat is not None:
            seat.join(session, self.protocol, vector)
            party = seat.party
        before, self._position = self._position, replace(position, party=party)
        try:
            keep(self.save())
        except BaseException:
            # Whoever joins again goes on from the seat, and not from this party.
            self._position = before
            raise
        return party

    def _enter_in(
        self,
        ledger: Ledger,
        session: Session,
        public: PublicState,
        drawn: bytes,
        seat: Seat | None,
    ) -> None:
        """Have a release of these rows recorded, or refused.

        Args:
            drawn: entropy of a party that has no seat.
        """
        lineage, party = self.lineage, self.start_digest(drawn if seat is None else seat.entropy)
        # With the release of this very party its rows are recorded, too; to load them takes long.
        again = seat is not None and ledger.knows(session.id, lineage, party)
        known = KnownBy() if again else self.known_by(public.task)
        if session.header.round == 1 and not (again or ledger.knows(session.id, lineage)):
            # A run that could not be finished would cost something all the same.
            ledger.check(
                lineage,
                session=session.id,
                rows=known.rows,
                alike=known.alike,
                **self.whole_charge(public),
            )
        ledger.authorise(
            lineage,
            session=session.id,
            party=party,
            rows=known.rows,
            alike=known.alike,
            **self.charge(public),
        )
        self._charged[session.id] = party

    def conclude(self, opening: Opening, receiver: Line) -> None:
        """Check the end of the run, and settle what its last round left open."""
        before = self._position
        super().conclude(opening, receiver)
        if before is not None and (roster := self.pinned or _roster_of(before)) is not None:
            self.settle(opening.history, roster)

    def settle(self, history: History, roster: Roster) -> None:
        """Keep in memory what follows from having been in the last sum, or drop it.

        Args:
            history: of the run, checked; where it does not have that round yet, nothing happens.
            roster: whose clients it names by bits.
        """
        position = self._position
        if position is None or len(history.links) < position.round:
            return
        release = history.links[position.round - 1].release
        included = release.session == position.session and roster.has(release.included, self.name)
        settle(self.memory, position.round, included=included)

    def released(self, session: bytes) -> None:
        """Note in the ledger that the sum of a session, by its id, is out for good.

        Raises:
            LedgerRefusal: the ledger cannot be written.
        """
        if self.ledger is not None and self.ledger.knows(session):
            self.ledger.released(session)

    def given_back(self, session: bytes, reason: str, evidence: bytes = b"") -> None:
        """Note in the ledger that a session cost nothing; whoever calls knows that this is so.

        The ledger may be other clients' of the session, too, whose releases stay as they are.
        Without evidence it is one party's word, and that party's release alone is given back.

        Raises:
            LedgerRefusal: the sum is known to be out, or the ledger cannot be written.
        """
        super().given_back(session, reason, evidence)
        party = None if evidence else self._charged.get(session, b"")
        if self.ledger is not None and self.ledger.knows(session, self.lineage, party):
            self.ledger.void(session, reason, evidence, lineage=self.lineage, party=party)

    def start_digest(self, entropy: bytes) -> bytes:
        """Return what tells this start of the party from another, 32 bytes, for the ledger."""
        return hashlib.sha256(encode((domain_tag("entropy"), entropy))).digest()

    def save(self) -> bytes:
        """Return what this client remembers of its run, for a restart; secret.

        Rows, keys and the party are kept elsewhere.
        """
        return encode(_Saved(self._saved_position(), tuple(self.memory.items())))

    def restore(self, saved: bytes) -> Self:
        """Put a newly made client where an earlier one was.

        Raises:
            BadSavedState: damaged, or another method's.
        """
        try:
            found = decode(saved, _Saved)
            self._restore_position(found.position)
        except Malformed as error:
            raise self._unreadable(error) from None
        self.memory = dict(found.memory)
        return self

    def contribute(self, public: PublicState, entropy: bytes) -> Integers:
        """Return this client's vector for the round of `public`, with its share of the noise."""
        begin = time.perf_counter()
        # Rounding's generator is not one for secrets: its seed tells nothing of the noise.
        rounding = derive(entropy, b"", "rounding")
        vector = self.method.contribute(public, self.rows(public.task), self.memory, rounding)
        self.statistics_seconds += time.perf_counter() - begin
        mechanism = public.task.mechanism
        if mechanism is None or mechanism.privacy.placement == "central":
            return vector
        return vector + self.noise(public, entropy)

    def noise(self, public: PublicState, entropy: bytes) -> Integers:
        """Draw this client's share of the noise in the round of `public`."""
        return this_noisy_sum(self.method, public).share(entropy)

    def personalise(self, public: PublicState, kept: ClientData | None = None) -> Own:
        """Return this client's own model; `kept` are rows of its own that are in no sum."""
        return self.method.personalise(public, self.rows(public.task), self.memory, kept)

    def rows(self, task: Task) -> ClientData:
        """Load this client's rows, of the task's features.

        Raises:
            DataError: they cannot be loaded, are more than the bound, or do not say whose they are.
        """
        rows = self.data.load(task.feature_dim, task.classes)
        self._check_count(rows)
        check_targets(f"client '{self.name}'", rows, numeric=self.method.numeric)
        return rows

    def charge(self, public: PublicState) -> Charge:
        """Return what a sum of the round of `public` costs this client's data."""
        task, mechanism = public.task, public.task.mechanism
        terms = Charge(
            run=task.run,
            rounds=self.method.run_sums(task),
            mu=None,
            distance=0.0,
            unit="example",
            neighbours="add-remove",
            mechanism="none: an exact sum",
        )
        if mechanism is None:
            return terms
        if mechanism.privacy.placement == "central":
            terms["mechanism"] = "none here: whoever decodes the exact sum adds the noise"
            return terms
        noisy = this_noisy_sum(self.method, public)
        return Charge(
            run=task.run,
            rounds=mechanism.rounds,
            mu=noisy.mu,
            distance=noisy.distance,
            unit=mechanism.privacy.unit,
            neighbours=mechanism.privacy.neighbours,
            mechanism=mechanism.describe(),
        )

    def whole_charge(self, public: PublicState) -> Charge:
        """Return what all sums of a run that begins with `public` cost together, as one release."""
        charge, mechanism = self.charge(public), public.task.mechanism
        if mechanism is not None and charge["mu"] is not None:
            charge["mu"] = math.sqrt(mechanism.rounds) * mechanism.mu
            charge["distance"] = mechanism.rounds * mechanism.distance
        return charge

    def known_by(self, task: Task) -> KnownBy:
        """Return digests by which the ledger knows this client's rows again; none without one."""
        if self.ledger is None:
            return KnownBy()
        if self._known_by is None:
            self._known_by = known_by(self.rows(task), self.ledger.row_digests)
            if self._known_by.lost > MUCH_LOST:
                # It is said where the rows are, and not in a report: it tells of them.
                log.warning(
                    "client '%s': %.0f %% of the rows agree with others of the same table in all "
                    "columns. The ledger knows them by their file alone, and as new ones in "
                    'another. Declare a column of patients\' ids (type = "id", --id COLUMN).',
                    self.name,
                    100 * self._known_by.lost,
                )
        return self._known_by

    def _check_count(self, rows: ClientData) -> None:
        if self._terms.units(self.name, len(rows), rows.patients) > self.max_rows:
            what = "patients" if self._terms.by_patient else "rows"
            # How many more may be private.
            raise DataError(
                f"client '{self.name}' has more {what} than {self.max_rows}, the bound that it "
                "declares; pass a larger --max-rows"
            )

    def _check_rows(self, rows: ClientData) -> None:
        """With a promise find bad rows now, for later a refusal would tell that there is one."""
        if self.privacy is not None and self.classes is not None:
            check_data(f"client '{self.name}'", rows, len(self.classes))
        elif self.privacy is not None:
            check_finite(rows.features)

    def _check_policy(self, session: Session) -> None:
        if session.min_cohort < self.min_cohort or session.corrupt < self.corrupt:
            raise self._refused(
                f"minimum cohort {session.min_cohort} with {session.corrupt} declared corrupt; "
                f"this client wants ≥ {self.min_cohort} and ≥ {self.corrupt}"
            )

    def _check_task(self, session: Session, enrolment: Enrolment, task: Task) -> None:
        """Compare the task with this client's data, whose owner alone knows them."""
        if enrolment.member.bound != self.max_rows:
            raise self._refused("the enrolment has another bound on this client's rows")
        if self.max_rows > task.client_rows:
            raise self._refused(
                f"the task has room for {task.client_rows} rows of a client, this one declares "
                f"{self.max_rows}"
            )
        if not fits_task(session, task):
            raise self._refused(
                f"the task is for {task.clients} clients, the session has {len(session.clients)}"
            )
        # Before the rows are looked at: this refusal says nothing of them.
        if self.classes is not None and self.classes != task.classes:
            raise self._refused(f"the task's classes are not this client's, {list(self.classes)}")
        try:
            self.data.check(task.feature_dim, task.classes, task.backbone, task.columns)
        except DataError as error:
            raise self._refused(str(error)) from None
        if self.backbone is not None and self.backbone != task.backbone:
            raise self._refused("the task's backbone is not the one that made this client's rows")

    def _check_privacy(self, session: Session, public: PublicState) -> None:
        """Trust nobody's promise but one's own, and nobody's arithmetic."""
        task, mechanism = public.task, public.task.mechanism
        promised = mechanism.privacy if mechanism is not None else None
        if promised != self.privacy:
            raise self._refused(f"the task promises {promised}, this client wants {self.privacy}")
        if mechanism is None:
            return
        if not self.protocol.hides_vectors and mechanism.shares > 1:
            raise self._refused(
                f"protocol '{self.protocol.name}' shows this client's vector, which has only one "
                f"of {mechanism.shares} shares of the noise"
            )
        try:
            check_spending(self.method, task)
            this_noisy_sum(self.method, public).check()
        except ConfigError as error:
            raise self._refused(f"round {session.header.round}: {error}") from None
        sums = self.method.run_sums(task)
        if mechanism.rounds < sums:
            raise self._refused(f"noise for {mechanism.rounds} sums, the method takes {sums}")
        if mechanism.clients != task.clients:
            raise self._refused(f"noise from {mechanism.clients} clients, not {task.clients}")
        conceded = max(session.corrupt, self.protocol.colluders(len(session.clients)))
        if session.min_cohort < mechanism.min_cohort or conceded > mechanism.colluders:
            raise self._refused(
                f"noise for a minimum cohort of {mechanism.min_cohort} with {mechanism.colluders} "
                f"colluders, the session's are {session.min_cohort} and {conceded}"
            )


def _roster_of(position: Position) -> Roster | None:
    return None if position.party is None else position.party.session.roster
