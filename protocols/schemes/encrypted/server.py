"""The server of `ckks` and `bfv`: adds up the ciphertexts of the key holder's list."""

from typing import Any, ClassVar

import msgspec

from protocols.codec import encode
from protocols.errors import (
    CoordinatorMissing,
    UnexpectedStep,
)
from protocols.message import Channel, Header, Message
from protocols.party import Aborted, Fresh, Received, State, Step
from protocols.roster import CLIENT
from protocols.schemes.encrypted.messages import (
    CONFIRMED,
    KEY_HOLDER,
    SERVER,
    TOTAL,
    UPLOAD,
    Ciphertexts,
    Confirmed,
    Total,
    ciphertext_digest,
)
from protocols.schemes.encrypted.party import EncryptedParty, chunks_bytes
from protocols.uploads import Upload, Uploads, uploads_bytes


class Collecting(State, frozen=True):
    """The server takes uploads; the key holder may have closed its list already."""

    key_holder: Channel
    uploads: tuple[Upload, ...] = ()
    confirmed: tuple[Upload, ...] | None = None


class Closed(State, frozen=True):
    """The server takes no more uploads, and awaits the key holder's list."""

    key_holder: Channel
    uploads: tuple[Upload, ...]


class Adding(State, frozen=True):
    """The server adds up the one set of ciphertexts that it ever will."""

    key_holder: Channel
    agreed: tuple[Upload, ...]


class Server(EncryptedParty):
    """The party that spools ciphertexts, and adds up those that the key holder has confirmed.

    It checks them first.
    """

    role = SERVER
    states = Fresh | Collecting | Closed | Adding | Aborted
    steps: ClassVar[dict[str, Step]] = {
        UPLOAD: Step((CLIENT,), Ciphertexts, chunks_bytes),
        CONFIRMED: Step((KEY_HOLDER,), Confirmed, uploads_bytes),
    }

    def _begin(self, secret: bytes) -> Collecting:
        (key_holder,) = self.session.of_role(KEY_HOLDER)
        return Collecting(self._open_channel(key_holder, secret))

    @property
    def awaits(self) -> str | None:
        """`upload` while it takes ciphertexts, then `confirmed` until the list; else None."""
        match self._state:
            case Collecting():
                return UPLOAD
            case Closed():
                return CONFIRMED
            case _:
                return None

    @property
    def agreed(self) -> tuple[str, ...] | None:
        """Whose ciphertexts are in the sum that this server sent."""
        if isinstance(self._state, Adding):
            return tuple(upload.client for upload in self._state.agreed)
        return None

    def _has_opened(self, state: State) -> bool:
        return isinstance(state, Adding)

    def _outbox(self, state: State) -> list[Message]:
        if not isinstance(state, Adding):
            return []
        total = Total(Uploads.of(self.session, state.agreed), self._add(state.agreed))
        return [self._seal(state.key_holder, TOTAL, total)]

    def _transition(self, state: State, received: Received) -> State:
        match state, received.content:
            case Collecting(), Ciphertexts() as content:
                return self._settle(self._collect(state, received, content))
            case Collecting(), Confirmed() as content:
                if state.confirmed is not None:
                    raise self._replayed(received.sender, CONFIRMED)
                confirmed = content.uploads.read(self.session, self.name, CONFIRMED)
                return self._settle(msgspec.structs.replace(state, confirmed=confirmed))
            case Closed(), Confirmed() as content:
                confirmed = content.uploads.read(self.session, self.name, CONFIRMED)
                return self._agree(state.key_holder, state.uploads, confirmed)
            case _:
                raise UnexpectedStep("not awaited now", party=self.name, step=received.header.step)

    def _deadline(self, state: State) -> State:
        if isinstance(state, Collecting):
            if state.confirmed is None:
                self._check_cohort(len(state.uploads), UPLOAD)
                return Closed(state.key_holder, state.uploads)
            return self._agree(state.key_holder, state.uploads, state.confirmed)
        raise CoordinatorMissing(
            "the key holder has not sent its list",
            party=self.name,
            step=CONFIRMED,
            fix="see whether the key holder runs, and run a new session",
        )

    def _collect(self, state: Collecting, received: Received, content: Ciphertexts) -> Collecting:
        sender = received.sender
        if sender in (upload.client for upload in state.uploads):
            raise self._replayed(sender, UPLOAD)
        for _ in self._load(sender, UPLOAD, content.chunks):
            pass  # all are well-formed, or none is taken
        digest = ciphertext_digest(self.session, sender, content.chunks)
        self._spool.put(sender, encode(received.message))
        return msgspec.structs.replace(state, uploads=(*state.uploads, Upload(sender, digest)))

    def _settle(self, state: Collecting) -> State:
        """Close once everything that was confirmed is here; before that others may be late."""
        if state.confirmed is None or not set(state.confirmed) <= set(state.uploads):
            return state
        return self._agree(state.key_holder, state.uploads, state.confirmed)

    def _agree(
        self,
        key_holder: Channel,
        uploads: tuple[Upload, ...],
        confirmed: tuple[Upload, ...],
    ) -> Adding:
        held = set(uploads)
        agreed = tuple(upload for upload in confirmed if upload in held)
        self._check_set([upload.client for upload in agreed], CONFIRMED)
        return Adding(key_holder, agreed)

    def _add(self, agreed: tuple[Upload, ...]) -> tuple[bytes, ...]:
        """Add up ciphertexts, with one client's in memory at a time beside the sum."""
        totals: list[Any] = []
        for upload in agreed:
            addends = self._load(upload.client, TOTAL, self._spooled(upload))
            if not totals:
                totals = list(addends)
                continue
            for total, addend in zip(totals, addends, strict=True):
                self._ring.add(total, addend)
        return tuple(self._ring.save(total) for total in totals)

    def _spooled(self, upload: Upload) -> tuple[bytes, ...]:
        def is_same(header: Header, content: Ciphertexts) -> bool:
            digest = ciphertext_digest(self.session, header.sender, content.chunks)
            return digest == upload.digest

        return self._open_spooled(upload.client, Ciphertexts, is_same).chunks
