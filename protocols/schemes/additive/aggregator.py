"""The aggregators of `additive`: take shares, agree on one set, and open one sum.

The collector is an aggregator that receives the others' partial sums, and so the sum.
"""

import hashlib
import secrets
from typing import ClassVar

import msgspec

from protocols.codec import Wire, domain_tag, encode
from protocols.errors import (
    BadSignature,
    CoordinatorMissing,
    InconsistentSurvivors,
    Malformed,
    Replayed,
    UnexpectedStep,
)
from protocols.identity import SIGNATURE_BYTES, Enrolment
from protocols.layout import RingVector
from protocols.message import Channel, Header, Message
from protocols.party import (
    Aborted,
    Entropy,
    Fresh,
    Party,
    Received,
    State,
    Step,
    Sum,
    Vector,
    vector_bytes,
)
from protocols.primitives.masks import add_mask
from protocols.roster import CLIENT
from protocols.schemes.additive.messages import (
    AGGREGATOR,
    AGREE,
    COLLECTOR,
    MAX_AGGREGATORS,
    PARTIAL,
    SEED_BYTES,
    UPLOAD,
    VERIFIED,
    Agree,
    Partial,
    Share,
    Verified,
    aggregators,
    mask_key,
)
from protocols.session import Session
from protocols.spool import Spool
from protocols.uploads import Upload, Uploads, in_order, uploads_bytes


class Collecting(State, frozen=True):
    """The aggregator takes uploads; others may have closed theirs already."""

    channels: tuple[Channel, ...]
    uploads: tuple[Upload, ...] = ()
    left_out: tuple[str, ...] = ()
    lists: tuple[tuple[str, tuple[Upload, ...]], ...] = ()


class Comparing(State, frozen=True):
    """The aggregator has closed its list and awaits the others'.

    One that heard all clients closed early: others may take uploads until their deadline.
    """

    channels: tuple[Channel, ...]
    uploads: tuple[Upload, ...]
    lists: tuple[tuple[str, tuple[Upload, ...]], ...]
    early: bool
    signatures: tuple[tuple[str, bytes], ...] = ()


class Agreeing(State, frozen=True):
    """The state of an aggregator that has signed its one set and awaits the others.

    It will never sign another set.
    """

    channels: tuple[Channel, ...]
    uploads: tuple[Upload, ...]
    agreed: tuple[Upload, ...]
    signatures: tuple[tuple[str, bytes], ...]
    partials: tuple[tuple[str, Partial], ...] = ()


class Releasing(State, frozen=True):
    """All have signed: the partial sum may leave. The collector awaits the others'."""

    channels: tuple[Channel, ...]
    uploads: tuple[Upload, ...]
    agreed: tuple[Upload, ...]
    signatures: tuple[bytes, ...]
    partials: tuple[tuple[str, Partial], ...] = ()


class Finished(State, frozen=True):
    """The collector has released the sum."""

    total: Sum


class _Running:
    """The sum of the shares of one tuple of uploads, kept in memory as they come.

    Copies of a party share it. It is of the one whose very tuple `uploads` is: another, and one
    that was restored or went back, adds up its spool.
    """

    def __init__(self, total: RingVector) -> None:
        self.uploads: tuple[Upload, ...] | None = ()
        self.total = total

    def __repr__(self) -> str:
        return f"<_Running of {len(self.uploads or ())} shares>"


class Aggregator(Party):
    """The party that spools shares, agrees on a set, and releases one sum of shares.

    It verifies the shares, and the sum is over the agreed set.
    """

    role = AGGREGATOR
    states = Fresh | Collecting | Comparing | Agreeing | Releasing | Finished | Aborted
    steps: ClassVar[dict[str, Step]] = {
        UPLOAD: Step((CLIENT,), Share, lambda _: SEED_BYTES + 16),
        VERIFIED: Step((COLLECTOR, AGGREGATOR), Verified, uploads_bytes),
        AGREE: Step((COLLECTOR, AGGREGATOR), Agree, lambda _: SIGNATURE_BYTES + 16),
    }

    def __init__(
        self,
        session: Session,
        enrolment: Enrolment,
        vector: Vector | None = None,
        *,
        spool: Spool | None = None,
        entropy: Entropy = secrets.token_bytes,
    ) -> None:
        super().__init__(session, enrolment, vector, spool=spool, entropy=entropy)
        self._aggregators = aggregators(session)
        self._others = tuple(name for name in self._aggregators if name != self.name)
        self._found: tuple[tuple[Upload, ...], dict[str, Upload]] = (), {}
        self._running = _Running(session.layout.zeros())

    @property
    def _collects(self) -> bool:
        return self.role == COLLECTOR

    @property
    def awaits(self) -> str | None:
        """`upload`, `verified` or `agree`; `partial` at the collector; else None."""
        match self._state:
            case Collecting() | Comparing(early=True):
                return UPLOAD
            case Comparing():
                return VERIFIED
            case Agreeing():
                return AGREE
            case Releasing() if self._collects:
                return PARTIAL
            case _:
                return None

    @property
    def result(self) -> Sum | None:
        """The sum, at the collector and once all partial sums are in."""
        return self._state.total if isinstance(self._state, Finished) else None

    @property
    def agreed(self) -> tuple[str, ...] | None:
        """The set that all aggregators have signed, once this one has."""
        if isinstance(self._state, Agreeing | Releasing):
            return tuple(upload.client for upload in self._state.agreed)
        return super().agreed

    def _has_opened(self, state: State) -> bool:
        # The partial sum leaves when all have signed.
        return isinstance(state, Finished if self._collects else Releasing)

    def _begin(self, secret: bytes) -> Collecting:
        return Collecting(tuple(self._open_channel(name, secret) for name in self._others))

    def _outbox(self, state: State) -> list[Message]:
        said: list[Message] = []
        if isinstance(state, Comparing | Agreeing | Releasing):
            verified = Verified(Uploads.of(self.session, state.uploads))
            said += self._tell(state.channels, VERIFIED, verified)
        if isinstance(state, Agreeing | Releasing):
            signature = self._enrolment.identity.sign(_agreed_set(self.session, state.agreed))
            said += self._tell(state.channels, AGREE, Agree(signature))
        if isinstance(state, Releasing) and not self._collects:
            partial = self.session.layout.pack(self._sum_shares(state))
            said += self._tell(state.channels[:1], PARTIAL, Partial(state.signatures, partial))
        return said

    def _tell(self, channels: tuple[Channel, ...], step: str, content: Wire) -> list[Message]:
        return [self._seal(channel, step, content) for channel in channels]

    def _transition(self, state: State, received: Received) -> State:
        sender, content = received.sender, received.content
        match state, content:
            case Collecting(), Share():
                return self._collect(state, received, content)
            case Collecting() | Comparing(), Verified():
                if sender in dict(state.lists):
                    raise self._replayed(received)
                theirs = content.uploads.read(self.session, self.name, VERIFIED)
                lists = (*state.lists, (sender, theirs))
                return self._compare(msgspec.structs.replace(state, lists=lists))
            case Comparing() | Agreeing(), Agree():
                return self._hear_agreement(state, received, content)
            case Agreeing() | Releasing(), Partial() if self._collects:
                return self._hear_partial(state, received, content)
            case _:
                raise UnexpectedStep(
                    f"not awaited from '{sender}' now", party=self.name, step=received.header.step
                )

    def _deadline(self, state: State) -> State:
        match state:
            case Collecting():
                return self._close(state, early=False)
            case Comparing(early=True):
                return msgspec.structs.replace(state, early=False)
            case Comparing():
                heard = {name for name, _ in state.lists}
            case Agreeing():
                heard = {name for name, _ in state.signatures}
            case Releasing():
                heard = {name for name, _ in state.partials}
        missing = [name for name in self._others if name not in heard]
        raise CoordinatorMissing(
            f"no answer from {', '.join(missing)}",
            party=self.name,
            step=self.awaits or "",
            fix="run again when all aggregators can be reached",
        )

    def _collect(self, state: Collecting, received: Received, share: Share) -> State:
        sender = received.sender
        if sender in state.left_out:
            raise self._replayed(received)
        self._check_share(share, received)
        upload = Upload(sender, _upload_digest(self.session, received.header))
        known = self._by_client(state.uploads)
        earlier = known.get(sender)
        if earlier == upload:
            raise self._replayed(received)
        if earlier is not None:
            # Retried with fresh seeds: which of the two the others hold cannot be told.
            kept = tuple(other for other in state.uploads if other.client != sender)
            left_out = (*state.left_out, sender)
            if self._running.uploads is state.uploads:
                self._subtract_spooled(self._running.total, earlier)
                self._running.uploads = kept
            return msgspec.structs.replace(state, uploads=kept, left_out=left_out)
        self._spool.put(sender, encode(received.message))
        uploads = (*state.uploads, upload)
        if self._running.uploads is state.uploads:
            self._running.uploads = None  # until the addition is whole
            self._add_share(self._running.total, sender, share)
            self._running.uploads = uploads
        state = msgspec.structs.replace(state, uploads=uploads)
        known[sender] = upload
        self._found = state.uploads, known
        heard = len(state.uploads) + len(state.left_out)
        return self._close(state, early=True) if heard == len(self.session.clients) else state

    def _by_client(self, uploads: tuple[Upload, ...]) -> dict[str, Upload]:
        """Find uploads by their client, without going through all for each that comes."""
        made_of, found = self._found
        # A copy of this party may have gone on with what was found here.
        if made_of is not uploads or len(found) != len(uploads):
            found = {upload.client: upload for upload in uploads}
            self._found = uploads, found
        return found

    def _check_share(self, share: Share, received: Received) -> None:
        packed_bytes = self.session.layout.packed_bytes if self._collects else 0
        seed_bytes = 0 if self._collects else SEED_BYTES
        if (len(share.vector), len(share.seed)) != (packed_bytes, seed_bytes):
            raise Malformed(
                f"share of '{received.sender}' has {len(share.vector)} + {len(share.seed)} bytes, "
                f"wanted {packed_bytes} + {seed_bytes}",
                party=self.name,
                step=UPLOAD,
            )
        header = received.header
        mine = self._aggregators.index(self.name)
        # One for each aggregator and this share's in its place: one digest, one set of shares.
        if len(header.batch) != len(self._aggregators) or header.batch[mine] != header.digest:
            raise Malformed(
                f"upload of '{received.sender}' is not signed over one share for each of the "
                f"{len(self._aggregators)} aggregators, in order",
                party=self.name,
                step=UPLOAD,
            )

    def _close(self, state: Collecting, *, early: bool) -> State:
        uploads = in_order(self.session, state.uploads)
        if self._running.uploads is state.uploads:
            self._running.uploads = uploads
        return self._compare(Comparing(state.channels, uploads, state.lists, early))

    def _compare(self, state: Collecting | Comparing) -> State:
        if isinstance(state, Collecting) or len(state.lists) < len(self._others):
            return state
        common = set(state.uploads).intersection(*(uploads for _, uploads in state.lists))
        agreed = in_order(self.session, common)
        self._check_set([upload.client for upload in agreed], VERIFIED)
        signature = self._enrolment.identity.sign(_agreed_set(self.session, agreed))
        for name, theirs in state.signatures:
            self._check_signature(agreed, name, theirs, AGREE)
        signatures = (*state.signatures, (self.name, signature))
        return self._settle(Agreeing(state.channels, state.uploads, agreed, signatures))

    def _hear_agreement(
        self, state: Comparing | Agreeing, received: Received, agree: Agree
    ) -> State:
        sender = received.sender
        if sender in dict(state.signatures):
            raise self._replayed(received)
        if isinstance(state, Comparing):
            # Its list is still on the way; what it signed can be checked when that is here.
            signatures = (*state.signatures, (sender, agree.signature))
            return msgspec.structs.replace(state, signatures=signatures)
        self._check_signature(state.agreed, sender, agree.signature, AGREE)
        signatures = (*state.signatures, (sender, agree.signature))
        return self._settle(msgspec.structs.replace(state, signatures=signatures))

    def _settle(self, state: Agreeing) -> State:
        if len(state.signatures) < len(self._aggregators):
            return state
        by_name = dict(state.signatures)
        ordered = tuple(by_name[name] for name in self._aggregators)
        releasing = Releasing(state.channels, state.uploads, state.agreed, ordered, state.partials)
        return self._finish(releasing)

    def _hear_partial(
        self, state: Agreeing | Releasing, received: Received, partial: Partial
    ) -> State:
        sender, layout = received.sender, self.session.layout
        if sender in dict(state.partials):
            raise self._replayed(received)
        if len(partial.vector) != layout.packed_bytes:
            raise Malformed(
                f"partial sum of '{sender}' has {len(partial.vector)} bytes, wanted "
                f"{layout.packed_bytes}",
                party=self.name,
                step=PARTIAL,
            )
        if len(partial.signatures) != len(self._aggregators):
            raise Malformed("partial sum without all signatures", party=self.name, step=PARTIAL)
        for name, signature in zip(self._aggregators, partial.signatures, strict=True):
            self._check_signature(state.agreed, name, signature, PARTIAL)
        partials = (*state.partials, (sender, partial))
        state = msgspec.structs.replace(state, partials=partials)
        # It may overtake the agreement of a third aggregator.
        return self._finish(state) if isinstance(state, Releasing) else state

    def _finish(self, state: Releasing) -> State:
        if not self._collects or len(state.partials) < len(self._others):
            return state
        layout = self.session.layout
        total = self._sum_shares(state)
        for _, partial in state.partials:
            total += layout.unpack(partial.vector)
        included = [upload.client for upload in state.agreed]
        return Finished(Sum.of(layout.decode(total), included))

    def _sum_shares(self, state: Releasing) -> RingVector:
        """Add up the agreed shares: the running sum less those left out, or all of the spool."""
        agreed = set(state.agreed)
        others = [upload for upload in state.uploads if upload not in agreed]
        if self._running.uploads is state.uploads and len(others) < len(agreed):
            total = self._running.total.copy()
            for upload in others:
                self._subtract_spooled(total, upload)
            return total
        total = self.session.layout.zeros()
        for upload in state.agreed:
            self._add_share(total, upload.client, self._spooled(upload))
        return total

    def _add_share(self, total: RingVector, client: str, share: Share) -> None:
        if self._collects:
            total += self.session.layout.unpack(share.vector)
        else:
            add_mask(total, mask_key(self.session, share.seed, client, self.name))

    def _subtract_spooled(self, total: RingVector, upload: Upload) -> None:
        share = self.session.layout.zeros()
        self._add_share(share, upload.client, self._spooled(upload))
        total -= share

    def _spooled(self, upload: Upload) -> Share:
        return self._open_spooled(
            upload.client,
            Share,
            lambda header, _: _upload_digest(self.session, header) == upload.digest,
        )

    def _check_signature(
        self, agreed: tuple[Upload, ...], name: str, signature: bytes, step: str
    ) -> None:
        try:
            self.session.member(name).verify(signature, _agreed_set(self.session, agreed))
        except BadSignature:
            raise self._inconsistent(name, step) from None

    def _inconsistent(self, name: str, step: str) -> InconsistentSurvivors:
        return InconsistentSurvivors(
            f"'{name}' has not signed the set of uploads that this party has",
            party=self.name,
            step=step,
            fix="compare the aggregators' lists of clients: any may be wrong; then run again",
        )

    def _replayed(self, received: Received) -> Replayed:
        return Replayed(
            f"'{received.sender}' has been heard on this before",
            party=self.name,
            step=received.header.step,
        )


class Collector(Aggregator):
    """The aggregator that gets each vector minus masks, and puts the partial sums together."""

    role = COLLECTOR
    steps: ClassVar[dict[str, Step]] = {
        **Aggregator.steps,
        UPLOAD: Step((CLIENT,), Share, vector_bytes),
        PARTIAL: Step(
            (AGGREGATOR,),
            Partial,
            lambda session: vector_bytes(session) + MAX_AGGREGATORS * (SIGNATURE_BYTES + 2),
        ),
    }


def _upload_digest(session: Session, header: Header) -> bytes:
    """Hash the digests of all m sealed shares, which their client signed."""
    upload = (domain_tag("upload"), session.id, header.sender, header.batch)
    return hashlib.sha256(encode(upload)).digest()


def _agreed_set(session: Session, agreed: tuple[Upload, ...]) -> bytes:
    """Make what every aggregator signs, once."""
    digest = hashlib.sha256(encode((session.id, Uploads.of(session, agreed)))).digest()
    return domain_tag("agreed set").encode() + digest
