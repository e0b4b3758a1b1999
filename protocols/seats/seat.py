"""A seat: one party of one session, in one folder, which starts once.

What a party needs to begin, its enrolment and its entropy, is on the disk before anybody hears of
it; what it was told is in the journal before it answers. Parties draw nothing afterwards, so that
starting again is hearing the journal again: the same bytes, and never others.

Files in the folder: `key` (under which all else is sealed), `enrolment` (which then names the
session that the seat is bound to), `journal`, `vector`, and in the end `ended` alone.
"""

import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import numpy as np
from msgspec import structs

from protocols.codec import decode, encode
from protocols.errors import (
    BadSavedState,
    InvalidSession,
    Malformed,
    MessageRejected,
    MovedSeat,
    NotStored,
    SessionAborted,
    UnknownSender,
)
from protocols.files import write_durably
from protocols.identity import Enrolment, Identity, Member
from protocols.layout import Integers
from protocols.message import Message, check_claims, check_signed, without_body
from protocols.party import ENTROPY_BYTES, Party, State, Sum, Vector
from protocols.protocol import Protocol
from protocols.release import Release
from protocols.roster import CLIENT
from protocols.seats.birthplace import Birthplace
from protocols.seats.ending import check_not_ended, end_folder
from protocols.seats.journal import Journal
from protocols.seats.lock import lock_folder, unlock
from protocols.seats.media import check_local
from protocols.seats.spool import JournalSpool
from protocols.seats.stored import Bound, Enrolled, Event, StoredVector, create_file, read_file
from protocols.seats.vault import Vault, new_key
from protocols.session import Session
from protocols.void import Void


class Seat:
    """One party of one session, in a folder that one process has at a time.

    Use `hello` to take a new seat and `open` for one that is there; either holds the folder's lock
    until `close`.
    """

    def __init__(self, folder: Path, lock: int, vault: Vault) -> None:
        self.folder = folder
        self._lock: int | None = lock
        self._vault = vault
        self._journal: Journal | None = None
        self._party: Party | None = None
        self._spooled: JournalSpool | None = None
        self._said: dict[tuple[str, str], bytes] = {}
        self._heard: dict[str, dict[str, Message]] = {}
        self._saved = Enrolled.load(folder, vault)
        self._enrolment = Enrolment.load(self._saved.enrolment)
        self._check_no_copy()

    @classmethod
    def hello(
        cls, folder: Path, identity: Identity, role: str, nonce: bytes, bound: int = 0
    ) -> "Seat":
        """Enrol in the session that will be formed under `nonce`; one nonce, one answer.

        Enrolment and entropy are on the disk before this returns.

        Raises:
            SeatEnded: the seat was given up.
            Busy: another process has it.
            BadSavedState: what is there is damaged, or another party's; or a copy, which has ended.
            MovedSeat: the file system has another number now; the seat has not ended.
            NotStored: it cannot be written, or lies on a network's file system.
        """
        check_local(folder.parent)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise NotStored(f"the seat cannot be made: {error.strerror}") from None
        lock = lock_folder(folder)
        try:
            check_not_ended(folder)
            if not (folder / "enrolment").exists():
                if any((folder / name).exists() for name in ("journal", "vector")):
                    end_folder(folder, b"its enrolment is gone")
                    check_not_ended(folder)
                if not (folder / "key").exists():
                    create_file(folder / "key", new_key())
                vault = Vault.load(folder / "key")
                enrolment = identity.enrol(role, nonce, bound)
                here = Birthplace.of(folder)
                entropy = secrets.token_bytes(ENTROPY_BYTES)
                enrolled = Enrolled(enrolment.save(), entropy, folder=here, file=here)
                create_file(folder / "enrolment", lambda file: enrolled.sealed(vault, file))
            seat = cls(folder, lock, Vault.load(folder / "key"))
        except BaseException:
            unlock(lock)
            raise
        wanted = identity.name, identity.verify_key, role, bound
        member = seat.member
        if wanted != (member.name, member.verify_key, member.role, member.bound):
            seat.close()
            raise BadSavedState("the seat of this nonce is another party's, or has another bound")
        return seat

    @classmethod
    def open(cls, folder: Path) -> "Seat":
        """Open a seat that is there.

        Raises:
            SeatEnded, Busy, BadSavedState, MovedSeat: as `hello`.
        """
        if not folder.is_dir():
            raise BadSavedState("there is no such seat", fix="say hello first")
        lock = lock_folder(folder)
        try:
            check_not_ended(folder)
            return cls(folder, lock, Vault.load(folder / "key"))
        except BaseException:
            unlock(lock)
            raise

    @property
    def name(self) -> str:
        """Name of the party."""
        return self.member.name

    @property
    def member(self) -> Member:
        """The enrolment's public part: the answer to hello."""
        return self._enrolment.member

    @property
    def enrolment(self) -> Enrolment:
        """The keys of this party in the session."""
        return self._enrolment

    @property
    def entropy(self) -> bytes:
        """The 32 bytes that the party was given at hello; secret."""
        return self._saved.entropy

    @property
    def party(self) -> Party:
        """The party, once the seat has joined.

        Raises:
            InvalidSession: it has not.
        """
        if self._party is None:
            raise InvalidSession("this seat has joined no session", party=self.name)
        return self._party

    @property
    def awaits(self) -> str | None:
        """The step whose deadline has to be watched for this party, if any."""
        return self.party.awaits

    @property
    def aborted(self) -> bool:
        """Whether the session is over for this party, without a sum."""
        return self.party.aborted

    @property
    def result(self) -> Sum | None:
        """The sum, at a party that receives it and once it is there."""
        return self.party.result

    @property
    def release(self) -> Release | None:
        """What this party signs about the sum, at the receiver and once it is there."""
        return self.party.release

    def join(
        self, session: Session, protocol: Protocol, vector: Vector | None = None
    ) -> list[Message]:
        """Join the session, or go on with it; returns what others may still need.

        The first join binds the seat: it joins no other session, ever. A party whose session was
        over is so again, see `aborted`.

        Args:
            vector: a client's; called once in the seat's life, for it is stored.

        Raises:
            InvalidSession: the seat is bound to another session, or the session is none for it.
            BadSavedState: the journal is gone, damaged or a copy; the seat has ended.
            MovedSeat: the file system has another number now; the seat has not ended.
            NotStored: the journal cannot be written.
        """
        if self._lock is None:
            raise BadSavedState("this seat was closed", party=self.name, fix="open it again")
        spool = JournalSpool()
        party = self._made(session, protocol, vector, spool)
        path = self.folder / "journal"
        if not path.exists():
            if self._saved.session:
                raise self._end_because("its journal is gone")
            content = Bound(encode(session.header), session.thin, session.members)
            with suppress(FileExistsError):
                Journal.create(path, self._vault, encode(content))
        try:
            journal = Journal.open(path, self._vault)
            first = decode(journal.birth.content, Bound)
        except MovedSeat as error:
            raise self._moved(error) from None
        except (BadSavedState, Malformed) as error:
            raise self._end_because(error.what) from None
        if first.header != encode(session.header):
            raise InvalidSession(
                "this seat is bound to another session", party=self.name, fix="enrol anew"
            )
        if not self._saved.session:
            self._bind(session)
        spool.journal = journal
        said = self._replayed(journal, party, spool)
        if said is None:
            # The channels that a party opens are sealed at random; everybody uses the first ones.
            pending = party.start()
            journal.append(encode(Event("begun", party.save())))
            said = {message.route: message.header_bytes for message in pending}
        else:
            pending = party.pending()
        # Nobody hears of the party before what it says is on the disk.
        self._journal, self._spooled, self._said, self._party = journal, spool, said, party
        return pending

    def _bind(self, session: Session) -> None:
        """Name the session in what hello stored, without which there is no seat."""
        saved = structs.replace(self._saved, session=session.id)
        try:
            write_durably(self.folder / "enrolment", lambda file: saved.sealed(self._vault, file))
        except OSError as error:
            raise NotStored(f"the seat cannot be written: {error.strerror}") from None
        self._saved = saved

    def deliver(self, data: bytes) -> list[Message]:
        """Take a message; what is returned may be said, for the message is on the disk.

        Raises:
            MessageRejected: it is refused, or cannot be stored; the seat is as it was.
            SessionAborted: the session is over for this party.
        """
        return self._happen(Event("message", data), lambda: self.party.take(data))

    def deadline(self, step: str) -> list[Message]:
        """Stop waiting for `step`; a party that does not await it ignores the deadline.

        Raises:
            NotStored: it cannot be stored; the seat is as it was.
            SessionAborted: what has arrived is not enough.
        """
        if self.awaits != step:
            return []
        return self._happen(Event("deadline", step.encode()), lambda: self.party.deadline(step))

    def pending(self) -> list[Message]:
        """Return what others may still need from this party."""
        return self.party.pending()

    def heard(self, sender: str) -> tuple[Message, ...]:
        """Return what the seat has taken from a sender, without bodies: to be shown to it."""
        return tuple(self._heard.get(sender, {}).values())

    def contradicted(self, data: bytes) -> Message | None:
        """Return what the seat took before, where a message says something else on its route.

        The message need not be signed: a sender that is shown what it has said knows it.
        """
        try:
            message = without_body(data)
            header = check_claims(self.party.session, self.name, message)
        except MessageRejected:
            return None
        before = self._heard.get(header.sender, {}).get(header.step)
        return before if before and before.header_bytes != message.header_bytes else None

    def confront(self, data: bytes) -> None:
        """Show the seat a message that others have from it; one that it never said ends it.

        The message bears this party's own signature: a seat that does not know of it has lost part
        of its journal, as one that was restored from a copy has.

        The body is not looked at; the header has its digest.

        Raises:
            MessageRejected: no message of this party in this session.
            BadSavedState: it was never said; the seat has ended.
        """
        message = decode(data, Message, party=self.name)
        header = message.read_header(self.name)
        if (header.session, header.sender) != (self.party.session.id, self.name):
            raise UnknownSender("no message of this party in this session", party=self.name)
        if self._said.get((header.recipient, header.step)) == message.header_bytes:
            return
        check_signed(self.party.session, header, message)
        raise self._end_because(f"it never said '{header.step}', which others have from it")

    def void(self) -> Void:
        """Give the session back: this party says nothing more in it, and signs that.

        Raises:
            NotVoidable: something of it that opens the session may be out.
            NotStored: it cannot be written, and is not signed.
        """
        self._happen(Event("void", b""), self.party.give_back)
        return self.party.void()

    def end(self) -> None:
        """Forget everything: the key is gone, and a mark stays that refuses to begin again."""
        end_folder(self.folder, b"")
        self._party = None

    def close(self) -> None:
        """Let the folder go; another process may open the seat."""
        if self._lock is not None:
            unlock(self._lock)
        self._lock = self._party = self._journal = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _made(
        self, session: Session, protocol: Protocol, vector: Vector | None, spool: JournalSpool
    ) -> Party:
        """Make the party, with the entropy of hello and what the journal spools."""

        def entropy(length: int) -> bytes:
            assert length == ENTROPY_BYTES
            return self._saved.entropy

        if self.member.role == CLIENT:
            assert vector is not None, "a client needs a vector"
            return protocol.client(session, self._enrolment, self._once(vector), entropy=entropy)
        return protocol.coordinator(session, self._enrolment, spool=spool, entropy=entropy)

    def _once(self, vector: Vector) -> Vector:
        """Return the stored vector, and compute it where there is none: the first writer wins."""
        path = self.folder / "vector"

        def stored(entropy: bytes) -> Integers:
            if not path.exists():
                computed = np.ascontiguousarray(vector(entropy))
                sealed = self._vault.seal("vector", encode(StoredVector(computed)))
                with suppress(FileExistsError):
                    create_file(path, sealed)
                    return computed
            return decode(self._vault.open("vector", read_file(path)), StoredVector).vector

        return stored

    def _happen(self, event: Event, happen: Callable[[], list[Message]]) -> list[Message]:
        """Let something happen, and write it down before anybody hears of it."""
        assert self._journal is not None
        assert self._spooled is not None
        before: State = self.party.state
        aborted: SessionAborted | None = None
        said: list[Message] = []
        try:
            try:
                said = happen()
            except SessionAborted as error:
                aborted = error
            place = self._journal.append(encode(event))
        except BaseException:
            # Whatever stopped it, what is not written down has not happened.
            self.party.go_back(before)
            self._spooled.forget()
            raise
        self._spooled.keep(place)
        self._hears(event)
        if aborted is not None:
            raise aborted
        return self._says(said)

    def _hears(self, event: Event) -> None:
        """Remember who said what to this party, the first time."""
        if event.kind == "message":
            message = without_body(event.data)
            header = message.header
            self._heard.setdefault(header.sender, {}).setdefault(header.step, message)

    def _says(self, said: list[Message]) -> list[Message]:
        """Remember what this party said, on which route."""
        self._said |= {message.route: message.header_bytes for message in said}
        return said

    def _replayed(
        self, journal: Journal, party: Party, spool: JournalSpool
    ) -> dict[tuple[str, str], bytes] | None:
        """Let the party hear the journal again; returns all that it ever said, by route.

        None is for a party that has not begun.
        """
        said: dict[tuple[str, str], bytes] | None = None
        try:
            for place, record in journal.replay():
                said = said or {}
                event = decode(record, Event)
                with suppress(SessionAborted):
                    heard = _hear_again(party, event)
                    said |= {message.route: message.header_bytes for message in heard}
                self._hears(event)
                spool.keep(place)
        except (MessageRejected, BadSavedState) as error:
            raise self._end_because(f"it does not hear its journal again: {error.what}") from None
        return said

    def _check_no_copy(self) -> None:
        """End the seat if this is a copy, of which nobody knows how far its original has come."""
        try:
            self._saved.check(self.folder)
        except MovedSeat as error:
            raise self._moved(error) from None
        except BadSavedState as error:
            raise self._end_because(error.what) from None
        except OSError as error:
            raise BadSavedState(
                f"this seat's folder cannot be looked at: {error.strerror}", party=self.name
            ) from None

    def _moved(self, error: MovedSeat) -> MovedSeat:
        return MovedSeat(error.what, party=self.name, fix=error.fix)

    def _end_because(self, what: str) -> BadSavedState:
        """End the seat for good; returns the error that says why."""
        with suppress(NotStored):
            end_folder(self.folder, what.encode())
        self._party = None
        return BadSavedState(
            f"this seat has ended: {what}",
            party=self.name,
            fix="take part in a new session; never restore a seat from a copy",
        )

    def __repr__(self) -> str:
        return f"<Seat of {self.name} in {self.folder.name[:16]}>"


def _hear_again(party: Party, event: Event) -> list[Message]:
    """Let a party hear one record of its journal; returns what it said because of it."""
    if event.kind == "begun":
        return party.restore(event.data).pending()
    if event.kind == "message":
        return party.take(event.data)
    if event.kind == "deadline":
        return party.deadline(event.data.decode())
    return party.give_back()
