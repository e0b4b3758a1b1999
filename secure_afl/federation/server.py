"""The coordinators' half of a federation: who forms the sessions, and who carries them."""

import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Self

from protocols.codec import Secret, decode, encode
from protocols.errors import BadSavedState, InvalidSession, Malformed
from protocols.identity import Enrolment, Member
from protocols.layout import Integers
from protocols.party import ENTROPY_BYTES, Party, Sum
from protocols.protocol import check_given_back, form_session, receiver_of
from protocols.release import Release, commit
from protocols.roster import Roster
from protocols.seats.seat import Seat
from protocols.session import Session
from protocols.void import Evidence
from secure_afl.errors import OutOfBoundsTotal
from secure_afl.federation.rounds.checks import fits_task
from secure_afl.federation.rounds.half import Half
from secure_afl.federation.rounds.history import (
    MAX_ATTEMPTS,
    Ended,
    EndedRound,
    History,
    Opening,
    context_of,
    reveals_total,
    state_digest,
)
from secure_afl.federation.rounds.position import SavedPosition
from secure_afl.federation.sums import sum_layout, this_noisy_sum
from secure_afl.federation.task import Terms
from secure_afl.methods.method import PublicState, Task


class _Saved(Secret, frozen=True):
    public: bytes
    history: History
    ended: EndedRound | None
    voids: tuple[bytes, ...]
    totals: tuple[Integers, ...] = ()


class FederationServer:
    """The half that keeps the public state and forms the sessions; it needs public keys only.

    Args:
        terms: method, protocol and promise.
        task: planned from declarations.
        roster: the federation's; None makes one of each session's parties, for simulations.
        same_set: sums of later rounds are over the clients of the first.
        accept_outside: a sum out of its bounds makes a model all the same.
    """

    def __init__(
        self,
        terms: Terms,
        task: Task,
        *,
        roster: Roster | None = None,
        same_set: bool = False,
        accept_outside: bool = False,
    ) -> None:
        self.method = terms.method
        self.protocol = terms.protocol
        self.public: PublicState = terms.method.begin(task)
        self._totals: list[Integers] = []
        self.history = History(state_digest(self.public))
        self._roster = roster
        self._same_set = same_set
        self._accept_outside = accept_outside
        self._ended: Ended | None = None
        self._voids: tuple[bytes, ...] = ()

    @property
    def opening(self) -> Opening:
        """What every party of the next round is told beside its session."""
        return Opening(self.public, self.history, self._ended, self._voids)

    @property
    def finished(self) -> bool:
        """Whether the method wants no further sum."""
        return sum_layout(self.method, self.public) is None

    @property
    def last_total(self) -> Integers | None:
        """The last sum, for its receiver alone; None before it, and where none was kept."""
        return self._totals[-1] if self._totals else None

    @property
    def complete(self) -> bool:
        """Whether the model is there, whatever becomes of further sums."""
        return self.method.complete(self.public)

    def form(
        self, members: Iterable[Member], nonce: bytes, min_cohort: int, corrupt: int
    ) -> Session | None:
        """Form the session of the next round; None when there is no next."""
        layout = sum_layout(self.method, self.public)
        if layout is None:
            return None
        return form_session(
            self.protocol,
            members,
            nonce,
            layout,
            min_cohort=min_cohort,
            corrupt=corrupt,
            context=context_of(self.method, self.public.task, self.history),
            round=len(self.history.links) + 1,
            attempt=len(self._voids),
            void=decode(self._voids[-1], Evidence).voids.digest if self._voids else b"",
            same_set=self.history.first_set if self._same_set else b"",
            roster=self._roster,
        )

    def absorb(
        self,
        session: Session,
        released: Sum,
        release: Release,
        salt: bytes,
        noise: bytes | None = None,
    ) -> None:
        """Move the public state on by a round's sum; centrally placed noise comes in here.

        Args:
            salt: what opens the release's commitment to the sum, 32 bytes.
            noise: 32 secret bytes of which that noise is made, and which no other sum has: a sum
                that is absorbed again gets its noise again. By default new ones.

        Raises:
            BadSignature, InvalidSession: the release is not what the session's receiver signed
                about this sum.
            OutOfBoundsTotal: entries of the sum break their bounds.
        """
        release.check(receiver_of(self.protocol, session))
        signed = release.session, release.total, release.included
        bits = session.bits(released.included)
        if signed != (session.id, commit(released.total, salt), bits):
            raise InvalidSession("the release is of another sum", party="server")
        if released.outside and not self._accept_outside:
            raise OutOfBoundsTotal(released.outside)
        total = released.total
        mechanism = self.public.task.mechanism
        if mechanism is not None and mechanism.privacy.placement == "central":
            drawn = secrets.token_bytes(ENTROPY_BYTES) if noise is None else noise
            total = total + this_noisy_sum(self.method, self.public).share(drawn)
        before = self.public
        # Kept where later states turn on earlier sums, which nobody else may see.
        self._totals = [*self._totals, total] if self.method.needs_totals else [total]
        self.public = self.method.advance(before, self._totals, released.included)
        self.history = self.history.then(release, self.public)
        shown = reveals_total(self.method, self.public.task, len(self.history.links))
        self._ended = Ended(before, total, salt) if shown else None
        self._voids = ()

    def attempt_again(self, evidence: Evidence) -> None:
        """Let the round have another session, for the last one was given back.

        Raises:
            InvalidSession, MessageRejected: it was not; or the round has had its attempts.
        """
        if len(self._voids) + 1 >= MAX_ATTEMPTS:
            raise InvalidSession(
                f"round {len(self.history.links) + 1} was attempted {MAX_ATTEMPTS} times",
                party="server",
                fix="begin a new run, with parties that stay",
            )
        data = encode(evidence)
        check_given_back(data, self._roster)
        self._voids = (*self._voids, data)

    def save(self) -> bytes:
        """Return the run as it stands, for a restart; secret where it has totals."""
        ended = None if self._ended is None else EndedRound.of(self._ended)
        method = self.method
        keeps = method.needs_totals or method.least_printed(self.public.task) is not None
        totals = tuple(self._totals) if keeps else ()
        return encode(_Saved(encode(self.public), self.history, ended, self._voids, totals))

    def restore(self, saved: bytes) -> Self:
        """Put a newly made server where an earlier one was.

        Raises:
            BadSavedState: damaged, or another method's.
        """
        try:
            found = decode(saved, _Saved)
            self.public = decode(found.public, self.method.public)
            self._ended = None if found.ended is None else found.ended.ended(self.method)
        except Malformed as error:
            raise _unusable(error.what) from None
        rounds = len(found.history.links)
        if self.method.needs_totals and len(found.totals) != rounds:
            raise _unusable(f"{len(found.totals)} totals of {rounds} rounds")
        self.history, self._voids = found.history, found.voids
        self._totals = list(found.totals)
        return self


def _unusable(what: str) -> BadSavedState:
    return BadSavedState(
        f"what the server remembers: {what}",
        party="server",
        fix="restore what it saved in this run, or begin a new one",
    )


class FederationCoordinator(Half):
    """One coordinator's half: what it insists on before its party says anything.

    Args:
        name: of the party.
        terms: method, protocol and promise.
        pinned: the roster that this coordinator has; None, in simulations, trusts the session's.
        same_set: it insists on the same clients in all rounds, as `FederationClient` may.
    """

    def __init__(
        self, name: str, terms: Terms, pinned: Roster | None = None, *, same_set: bool = False
    ) -> None:
        super().__init__(name, terms, pinned, same_set)

    def join(
        self,
        session: Session,
        enrolment: Enrolment,
        opening: Opening,
        *,
        seat: Seat | None = None,
        keep: Callable[[bytes], None] = lambda saved: None,
    ) -> Party:
        """Return this coordinator's party, once the session is for the next round of this run.

        There is one party a session: to join again returns the same.

        Args:
            enrolment: this coordinator's in the session.
            opening: what the server tells beside it.
            seat: where the party lives, and outlasts its process; without one it lives here.
            keep: makes what `save` returns durable, before anything of the party can be sent.

        Raises:
            InvalidSession: parties that are not pinned, clients whose declared bounds do not add up
                to the task's, or a round that does not follow from those before.
        """
        self._check_session(session)
        self._check_bounds(session, opening.public.task)
        position = self._enter(session, opening, seat)
        if position.party is not None:
            return position.party
        if seat is None:
            party = self.protocol.coordinator(session, enrolment)
        else:
            seat.join(session, self.protocol)
            party = seat.party
        before, self._position = self._position, replace(position, party=party)
        try:
            keep(self.save())
        except BaseException:
            # Whoever joins again goes on from the seat, and not from this party.
            self._position = before
            raise
        return party

    def save(self) -> bytes:
        """Return where this coordinator stands in its run, for a restart."""
        return encode(self._saved_position())

    def restore(self, saved: bytes) -> Self:
        """Put a newly made coordinator where an earlier one was.

        Raises:
            BadSavedState: damaged, or another method's.
        """
        try:
            self._restore_position(decode(saved, SavedPosition | None))  # type: ignore[arg-type]
        except Malformed as error:
            raise self._unreadable(error) from None
        return self

    def _check_bounds(self, session: Session, task: Task) -> None:
        """Add up what the clients declare, of whom each knows its own bound only."""
        if session.members is None:
            raise self._refused("a coordinator needs the clients' enrolments")
        bounds = [member.bound for member in session.members]
        found = len(bounds), sum(bounds), max(bounds, default=0)
        planned = task.clients, task.total_rows, task.client_rows
        within = all(have <= want for have, want in zip(found, planned, strict=True))
        whole = found == planned or len(bounds) < task.clients
        if not (fits_task(session, task) and within and whole) or min(bounds) < 1:
            raise self._refused(
                f"{found[0]} clients declare {found[1]} rows, the greatest {found[2]}; the task "
                f"says {task.clients}, {task.total_rows} and {task.client_rows}"
            )
