"""`ckks` and `bfv`: clients encrypt, a server adds ciphertexts, a key holder opens one sum.

The key holder makes a key pair for the session and sends the public key to the clients. A client
encrypts its vector once, sends the ciphertexts to the server, and vouches for them to the key
holder: by their digest and, in a verified session, by the seed that they were encrypted with. The
key holder closes its list, the server adds up the ciphertexts of that list which it has, and the
key holder opens their sum (Cheon, Kim, Kim and Song 2017; BFV: Fan and Vercauteren 2012).

A key holder that decrypts what it is given is a decryption oracle, and one wisely chosen
ciphertext takes the key out of it. In a verified session it therefore encrypts zero under every
client's seed, adds up, and opens nothing whose second component differs from that sum in a single
bit. What remains of the difference never touches the key, and the clients' noise is subtracted with
it, so that what is released depends on the vectors alone (Li and Micciancio 2021 on what noise in
released sums gives away).
"""

import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np

from protocols.ckks_parameters import BFV, CKKS, Parameters, find_parameters, tolerance
from protocols.codec import Secret, Wire, decode, encode
from protocols.errors import (
    BelowThreshold,
    CoordinatorMissing,
    InconsistentSurvivors,
    InexactDecoding,
    Malformed,
    Replayed,
    SumOutOfBounds,
    UnexpectedStep,
    UnverifiedSum,
)
from protocols.identity import Enrolment
from protocols.layout import Integers
from protocols.message import Channel, Header, Message, derive
from protocols.party import Aborted, Entropy, Fresh, Party, Received, State, Step, Sum, Vector
from protocols.protocol import Protocol
from protocols.seal import SEED_BYTES, KeyPair, Ring, Slots, from_entries, pieces, to_entries
from protocols.session import CLIENT, Session
from protocols.spool import Spool

SERVER = "server"
KEY_HOLDER = "key_holder"

KEY = "key"
UPLOAD = "upload"
CONFIRMED = "confirmed"
TOTAL = "total"

CLIENT_SEED_BYTES = 32

# As the builtin `map`, which does one after the other; a process pool's `map` does many at once.
ChunkMap = Callable[..., Iterable[bytes]]


class Key(Wire, frozen=True):
    """The session's public key, in SEAL's encoding."""

    public_key: bytes


class Ciphertexts(Secret, frozen=True):
    """A client's encrypted vector, chunk by chunk, in SEAL's encoding."""

    chunks: tuple[bytes, ...]


class Voucher(Secret, frozen=True):
    """What a client vouches for: the digest of its ciphertexts, and the seed that made them.

    Attributes:
        digest: SHA-256, 32 bytes.
        seed: 32 bytes; empty where sums are not verified.
    """

    digest: bytes
    seed: bytes


class Upload(Wire, frozen=True):
    """A client, and the digest of its ciphertexts."""

    client: str
    digest: bytes


class Confirmed(Wire, frozen=True):
    """What clients have vouched for at the key holder, sorted by client."""

    uploads: tuple[Upload, ...]


class Total(Secret, frozen=True):
    """The sum of these uploads' ciphertexts, chunk by chunk."""

    uploads: tuple[Upload, ...]
    chunks: tuple[bytes, ...]


class Waiting(State, frozen=True):
    """The client has begun, and awaits the public key."""

    secret: bytes
    fingerprint: bytes
    server: Channel
    key_holder: Channel


class Uploading(State, frozen=True):
    """The client has taken the one key that it will ever encrypt under."""

    secret: bytes
    fingerprint: bytes
    server: Channel
    key_holder: Channel
    public_key: bytes


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


class Vouching(State, frozen=True):
    """The key holder has published its key and takes vouchers."""

    secret: bytes
    clients: tuple[Channel, ...]
    server: Channel
    vouchers: tuple[tuple[str, Voucher], ...] = ()


class Holding(State, frozen=True):
    """The key holder has closed its list, and awaits the one sum that it will open."""

    secret: bytes
    server: Channel
    vouchers: tuple[tuple[str, Voucher], ...]


class Finished(State, frozen=True):
    """The key holder has released the sum; the key is gone with its secret."""

    total: Sum


class _EncryptedParty(Party):
    """What the three kinds of parties have in common: the ring, and the protocol's terms.

    Attributes:
        chunk_map: may be set to a process pool's `map`, to encrypt many chunks at once.
    """

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
        terms = _terms(session)
        self._verify = terms.verify
        self.chunk_map: ChunkMap = map
        self.parameters = find_parameters(session.layout, len(session.clients), terms.name)
        self._chunks = self.parameters.chunks(session.layout.length)

    @cached_property
    def _ring(self) -> Ring:
        return Ring(self.parameters)

    def _load(self, sender: str, step: str, chunks: tuple[bytes, ...]) -> Iterator[Any]:
        if len(chunks) != self._chunks:
            raise Malformed(
                f"'{sender}' sent {len(chunks)} ciphertexts, wanted {self._chunks}",
                party=self.name,
                step=step,
            )
        for index, chunk in enumerate(chunks):
            try:
                yield self._ring.load(chunk)
            except Malformed as error:
                raise Malformed(
                    f"'{sender}', ciphertext {index}: {error.what}", party=self.name, step=step
                ) from None

    def _replayed(self, sender: str, step: str) -> Replayed:
        return Replayed(f"'{sender}' has been heard on this before", party=self.name, step=step)

    def _check_list(self, received: Received, uploads: tuple[Upload, ...]) -> None:
        names = [upload.client for upload in uploads]
        if names != sorted(set(names)) or not set(names) <= set(self.session.clients):
            raise Malformed("not a sorted list of clients", party=self.name, step=UPLOAD)

    def _check_cohort(self, count: int, step: str) -> None:
        if count < self.session.min_cohort:
            raise BelowThreshold(
                f"{count} clients contributed, wanted ≥ {self.session.min_cohort}",
                party=self.name,
                step=step,
                fix="run again with more clients, or a smaller minimum cohort",
            )


class EncryptingClient(_EncryptedParty):
    """Encrypts under the key that it is sent, once; sends once."""

    role = CLIENT
    states = Fresh | Waiting | Uploading | Aborted
    steps: ClassVar[dict[str, Step]] = {KEY: Step(KEY_HOLDER, Key)}

    def _begin(self, secret: bytes) -> Waiting:
        (server,), (key_holder,) = (self.session.of_role(role) for role in (SERVER, KEY_HOLDER))
        fingerprint = self._fingerprint_vector(secret)
        return Waiting(
            secret,
            fingerprint,
            self._open_channel(server, secret),
            self._open_channel(key_holder, secret),
        )

    def _transition(self, state: State, received: Received) -> State:
        assert isinstance(received.content, Key)
        if isinstance(state, Uploading):
            raise self._replayed(received.sender, KEY)
        if not isinstance(state, Waiting):
            raise UnexpectedStep("no key is awaited", party=self.name, step=KEY)
        public_key = received.content.public_key
        try:
            self._ring.load_public_key(public_key)
        except Malformed as error:
            raise Malformed(error.what, party=self.name, step=KEY) from None
        return Uploading(
            state.secret, state.fingerprint, state.server, state.key_holder, public_key
        )

    def _outbox(self, state: State) -> list[Message]:
        if not isinstance(state, Uploading):
            return []
        vector = self._contribution(state.secret, state.fingerprint)
        seed = encryption_seed(self.session, state.secret, self.name)
        chunks = self._encrypt(vector, seed, state.public_key)
        digest = ciphertext_digest(self.session, self.name, chunks)
        voucher = Voucher(digest, seed if self._verify else b"")
        contents = [(state.server, Ciphertexts(chunks)), (state.key_holder, voucher)]
        return self._seal_together(UPLOAD, contents)

    def _encrypt(self, vector: Integers, seed: bytes, public_key: bytes) -> tuple[bytes, ...]:
        entries = to_entries(self.parameters, self.session.layout, vector)
        parts = list(pieces(self.parameters, entries))
        seeds = (chunk_seed(self.session, seed, self.name, i) for i in range(len(parts)))
        same = ([thing] * len(parts) for thing in (self.parameters, public_key))
        return tuple(self.chunk_map(encrypt_chunk, *same, seeds, parts))


class Server(_EncryptedParty):
    """Checks and spools ciphertexts, and adds up those that the key holder has confirmed."""

    role = SERVER
    states = Fresh | Collecting | Closed | Adding | Aborted
    steps: ClassVar[dict[str, Step]] = {
        UPLOAD: Step(CLIENT, Ciphertexts),
        CONFIRMED: Step(KEY_HOLDER, Confirmed),
    }

    def _begin(self, secret: bytes) -> Collecting:
        (key_holder,) = self.session.of_role(KEY_HOLDER)
        return Collecting(self._open_channel(key_holder, secret))

    @property
    def awaits(self) -> str | None:
        match self._state:
            case Collecting():
                return UPLOAD
            case Closed():
                return CONFIRMED
            case _:
                return None

    def _outbox(self, state: State) -> list[Message]:
        if not isinstance(state, Adding):
            return []
        return [self._seal(state.key_holder, TOTAL, Total(state.agreed, self._add(state.agreed)))]

    def _transition(self, state: State, received: Received) -> State:
        match state, received.content:
            case Collecting(), Ciphertexts() as content:
                return self._settle(self._collect(state, received, content))
            case Collecting(), Confirmed() as content:
                if state.confirmed is not None:
                    raise self._replayed(received.sender, CONFIRMED)
                self._check_list(received, content.uploads)
                return self._settle(msgspec.structs.replace(state, confirmed=content.uploads))
            case Closed(), Confirmed() as content:
                self._check_list(received, content.uploads)
                return self._agree(state.key_holder, state.uploads, content.uploads)
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
        self, key_holder: Channel, uploads: tuple[Upload, ...], confirmed: tuple[Upload, ...]
    ) -> Adding:
        held = set(uploads)
        agreed = tuple(upload for upload in confirmed if upload in held)
        self._check_cohort(len(agreed), CONFIRMED)
        return Adding(key_holder, agreed)

    def _add(self, agreed: tuple[Upload, ...]) -> tuple[bytes, ...]:
        """One client's ciphertexts in memory at a time, beside the sum."""
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


class KeyHolder(_EncryptedParty):
    """Makes the session's key pair, takes vouchers, and opens one sum of what they vouch for."""

    role = KEY_HOLDER
    states = Fresh | Vouching | Holding | Finished | Aborted
    steps: ClassVar[dict[str, Step]] = {
        UPLOAD: Step(CLIENT, Voucher),
        TOTAL: Step(SERVER, Total),
    }

    def _begin(self, secret: bytes) -> Vouching:
        (server,) = self.session.of_role(SERVER)
        clients = tuple(self._open_channel(name, secret) for name in self.session.clients)
        return Vouching(secret, clients, self._open_channel(server, secret))

    @property
    def awaits(self) -> str | None:
        match self._state:
            case Vouching():
                return UPLOAD
            case Holding():
                return TOTAL
            case _:
                return None

    @property
    def result(self) -> Sum | None:
        return self._state.total if isinstance(self._state, Finished) else None

    def _outbox(self, state: State) -> list[Message]:
        match state:
            case Vouching():
                key = Key(self._ring.save(self._key_pair(state.secret).public_key))
                return [self._seal(channel, KEY, key) for channel in state.clients]
            case Holding():
                confirmed = Confirmed(_uploads(state.vouchers))
                return [self._seal(state.server, CONFIRMED, confirmed)]
            case _:
                return []

    def _transition(self, state: State, received: Received) -> State:
        match state, received.content:
            case Vouching(), Voucher() as content:
                return self._hear(state, received.sender, content)
            case Holding(), Total() as content:
                return self._open(state, received, content)
            case _:
                raise UnexpectedStep("not awaited now", party=self.name, step=received.header.step)

    def _deadline(self, state: State) -> State:
        if isinstance(state, Vouching):
            return self._close(state)
        raise CoordinatorMissing(
            "the server has not sent a sum",
            party=self.name,
            step=TOTAL,
            fix="see whether the server runs, and run a new session",
        )

    def _hear(self, state: Vouching, sender: str, voucher: Voucher) -> State:
        if sender in dict(state.vouchers):
            raise self._replayed(sender, UPLOAD)
        seed_bytes = CLIENT_SEED_BYTES if self._verify else 0
        if len(voucher.digest) != 32 or len(voucher.seed) != seed_bytes:
            raise Malformed(f"voucher of '{sender}' has another length", party=self.name)
        state = msgspec.structs.replace(state, vouchers=(*state.vouchers, (sender, voucher)))
        everybody = len(state.vouchers) == len(self.session.clients)
        return self._close(state) if everybody else state

    def _close(self, state: Vouching) -> Holding:
        self._check_cohort(len(state.vouchers), UPLOAD)
        return Holding(state.secret, state.server, tuple(sorted(state.vouchers, key=_name)))

    def _open(self, state: Holding, received: Received, content: Total) -> Finished:
        # Whatever comes now, it is the one sum that is looked at: an error ends the session.
        totals = list(self._load(received.sender, TOTAL, content.chunks))
        self._check_list(received, content.uploads)
        if not set(content.uploads) <= set(_uploads(state.vouchers)):
            raise InconsistentSurvivors(
                "the server lists an upload that no client vouched for here",
                party=self.name,
                step=TOTAL,
                fix="ask the server which uploads it holds, and run again",
            )
        self._check_cohort(len(content.uploads), TOTAL)
        included = tuple(upload.client for upload in content.uploads)
        key_pair = self._key_pair(state.secret)
        slots = self._slots(key_pair, totals, {n: dict(state.vouchers)[n].seed for n in included})
        return Finished(Sum(self._decode(slots), included))

    def _slots(self, key_pair: KeyPair, totals: list[Any], seeds: dict[str, bytes]) -> Slots:
        slots = [self._ring.decrypt(key_pair.secret_key, total) for total in totals]
        if self._verify:
            for index, noise in enumerate(self._noise(key_pair, totals, seeds)):
                slots[index] = slots[index] - noise
        return np.concatenate(slots)[: self.session.layout.length * self.parameters.limbs]

    def _noise(self, key_pair: KeyPair, totals: list[Any], seeds: dict[str, bytes]) -> list[Slots]:
        """What the clients' seeds add to each chunk of the sum.

        Raises:
            UnverifiedSum: their second components do not add up to the sum's.
        """
        public_key = self._ring.save(key_pair.public_key)
        chunk_seeds = [
            [chunk_seed(self.session, seed, name, index) for name, seed in seeds.items()]
            for index in range(len(totals))
        ]
        same = ([thing] * len(totals) for thing in (self.parameters, public_key))
        noises = []
        zeros = self.chunk_map(encrypt_zeros, *same, chunk_seeds)
        for total, zero in zip(totals, map(self._ring.load, zeros), strict=True):
            if self._ring.second(total) != self._ring.second(zero):
                raise UnverifiedSum(
                    "the encrypted sum is not that of the clients' own encryptions",
                    party=self.name,
                    step=TOTAL,
                    fix="the server or a client did not follow the protocol; run again without it",
                )
            noises.append(self._ring.decrypt(key_pair.secret_key, zero))
        return noises

    def _decode(self, slots: Slots) -> Integers:
        layout = self.session.layout
        rounded = np.rint(slots)
        if np.abs(slots - rounded).max() > tolerance(self._verify):
            raise InexactDecoding(
                "the decrypted sum is not made of integers",
                party=self.name,
                step=TOTAL,
                fix="some party did not follow the protocol; run a new session",
            )
        entries = rounded.astype(np.int64)
        total = layout.decode(
            from_entries(self.parameters, layout, entries), party=self.name, step=TOTAL
        )
        # Beyond what honest sums can be: congruent to one in the ring, or wrapped around q.
        if self.parameters.limb_bits:
            most = len(self.session.clients) * (2**self.parameters.limb_bits - 1)
            beyond = bool(entries.min() < 0 or entries.max() > most)
        else:
            beyond = not np.array_equal(total, entries)
        if beyond:
            raise SumOutOfBounds(
                "the decrypted sum is outside its bounds by more than the ring",
                party=self.name,
                step=TOTAL,
                fix="a client broke its declared bounds; run again without it",
            )
        return total

    def _key_pair(self, secret: bytes) -> KeyPair:
        return session_keys(self.session, self._ring, secret, self.name)


class EncryptedSum(Protocol, frozen=True):
    """What `ckks` and `bfv` have in common.

    Attributes:
        verify: the key holder opens only what the clients' own seeds account for.
    """

    parties: ClassVar[Mapping[str, type[Party]]] = {
        CLIENT: EncryptingClient,
        SERVER: Server,
        KEY_HOLDER: KeyHolder,
    }
    upload_step = UPLOAD
    verify: bool = True

    @property
    def protects(self) -> str:  # type: ignore[override]
        """As in `Protocol`, which it does for both of them."""
        hidden = (
            "each client's vector from the server and from the key holder, unless they work "
            "together; the key holder receives the sum"
        )
        if self.verify:
            return hidden
        return f"{hidden}; NOT VERIFIED: only while server and clients follow the protocol"

    def coordinators(self) -> Mapping[str, str]:
        # The server closes first, so that a client that reached one of the two only is left out.
        return {SERVER: SERVER, KEY_HOLDER: KEY_HOLDER}


class Ckks(EncryptedSum, frozen=True, tag="ckks"):
    """Sums under CKKS, rounded to the integers that they are."""

    name: ClassVar[Literal["ckks"]] = CKKS  # type: ignore[assignment]


class Bfv(EncryptedSum, frozen=True, tag="bfv"):
    """Sums under BFV, whose plaintexts are integers: to compare with."""

    name: ClassVar[Literal["bfv"]] = BFV  # type: ignore[assignment]


def _terms(session: Session) -> EncryptedSum:
    scheme: type[EncryptedSum] = Ckks if session.protocol == CKKS else Bfv
    return decode(session.parameters, scheme)


def encrypt_chunk(parameters: Parameters, public_key: bytes, seed: bytes, part: Integers) -> bytes:
    """One ciphertext; a function of its arguments alone, for any process to compute."""
    ring, loaded = _loaded(parameters, public_key)
    return ring.save(ring.encrypt(loaded, seed, ring.encode(part)))


def encrypt_zeros(parameters: Parameters, public_key: bytes, seeds: Iterable[bytes]) -> bytes:
    """The sum of the encryptions of zero under these seeds."""
    ring, loaded = _loaded(parameters, public_key)
    first, *others = seeds
    total = ring.encrypt(loaded, first)
    for seed in others:
        ring.add(total, ring.encrypt(loaded, seed))
    return ring.save(total)


@lru_cache(maxsize=4)
def _loaded(parameters: Parameters, public_key: bytes) -> tuple[Ring, Any]:
    ring = Ring(parameters)
    return ring, ring.load_public_key(public_key)


def session_keys(session: Session, ring: Ring, secret: bytes, key_holder: str) -> KeyPair:
    """The key pair of a session, from the secret that its key holder drew."""
    seeds = (
        derive(secret, session.id, purpose, key_holder, length=SEED_BYTES)
        for purpose in ("secret key", "public key")
    )
    return KeyPair(ring, *seeds)


def encryption_seed(session: Session, secret: bytes, client: str) -> bytes:
    """What a client encrypts with, 32 bytes, from the secret that it drew."""
    return derive(secret, session.id, "encryption", client)


def chunk_seed(session: Session, seed: bytes, client: str, index: int) -> bytes:
    """SEAL's seed, 64 bytes, of a client's ciphertext `index`."""
    return derive(seed, session.id, "chunk", client, str(index), length=SEED_BYTES)


def ciphertext_digest(session: Session, client: str, chunks: tuple[bytes, ...]) -> bytes:
    """SHA-256, 32 bytes, of a client's ciphertexts in a session."""
    sizes = tuple(map(len, chunks))
    digest = hashlib.sha256(encode(("secure-afl/1 ciphertexts", session.id, client, sizes)))
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()


def _uploads(vouchers: tuple[tuple[str, Voucher], ...]) -> tuple[Upload, ...]:
    return tuple(Upload(client, voucher.digest) for client, voucher in vouchers)


def _name(entry: tuple[str, Voucher]) -> str:
    return entry[0]
