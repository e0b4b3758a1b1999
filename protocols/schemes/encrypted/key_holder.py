"""The key holder of `ckks` and `bfv`: makes the session's keys, verifies, and opens one sum."""

from typing import Any, ClassVar

import msgspec
import numpy as np

from protocols.errors import (
    CoordinatorMissing,
    InconsistentSurvivors,
    InexactDecoding,
    Malformed,
    UnexpectedStep,
    UnverifiedSum,
)
from protocols.layout import Decoded
from protocols.message import Channel, Message
from protocols.party import Aborted, Fresh, Received, State, Step, Sum
from protocols.roster import CLIENT
from protocols.schemes.encrypted.chunks import (
    chunk_seed,
    encrypt_zeros,
    session_keys,
)
from protocols.schemes.encrypted.messages import (
    CLIENT_SEED_BYTES,
    CONFIRMED,
    KEY,
    KEY_HOLDER,
    SERVER,
    TOTAL,
    UPLOAD,
    Confirmed,
    Key,
    Total,
    Voucher,
)
from protocols.schemes.encrypted.parameters import tolerance
from protocols.schemes.encrypted.party import EncryptedParty, chunks_bytes
from protocols.schemes.encrypted.seal import KeyPair, Slots, from_entries
from protocols.uploads import Upload, Uploads, uploads_bytes


class Vouching(State, frozen=True):
    """The key holder has published its key and takes vouchers."""

    secret: bytes
    clients: tuple[Channel, ...]
    server: Channel
    vouchers: tuple[tuple[str, Voucher], ...] = ()


class Holding(State, frozen=True):
    """The state of a key holder that has closed its list and awaits one sum.

    It will open that sum only.
    """

    secret: bytes
    server: Channel
    vouchers: tuple[tuple[str, Voucher], ...]


class Finished(State, frozen=True):
    """The key holder has released the sum; the key is gone with its secret."""

    total: Sum


class KeyHolder(EncryptedParty):
    """The party that makes the session's key pair, takes vouchers, and opens one sum.

    The sum is of the uploads that the clients vouch for.
    """

    role = KEY_HOLDER
    states = Fresh | Vouching | Holding | Finished | Aborted
    steps: ClassVar[dict[str, Step]] = {
        UPLOAD: Step((CLIENT,), Voucher, lambda _: 32 + CLIENT_SEED_BYTES + 16),
        TOTAL: Step((SERVER,), Total, lambda s: chunks_bytes(s) + uploads_bytes(s)),
    }

    def _begin(self, secret: bytes) -> Vouching:
        (server,) = self.session.of_role(SERVER)
        clients = tuple(self._open_channel(name, secret) for name in self.session.clients)
        return Vouching(secret, clients, self._open_channel(server, secret))

    @property
    def awaits(self) -> str | None:
        """`upload` while it takes vouchers, `total` until the server's sum; else None."""
        match self._state:
            case Vouching():
                return UPLOAD
            case Holding():
                return TOTAL
            case _:
                return None

    @property
    def result(self) -> Sum | None:
        """The decrypted sum, once the key holder has opened it; None until then."""
        return self._state.total if isinstance(self._state, Finished) else None

    def _has_opened(self, state: State) -> bool:
        return isinstance(state, Finished)

    def _outbox(self, state: State) -> list[Message]:
        match state:
            case Vouching():
                key = Key(self._ring.save(self._key_pair(state.secret).public_key))
                return [self._seal(channel, KEY, key) for channel in state.clients]
            case Holding():
                confirmed = Confirmed(Uploads.of(self.session, _uploads(state.vouchers)))
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
        return Holding(state.secret, state.server, state.vouchers)

    def _open(self, state: Holding, received: Received, content: Total) -> Finished:
        # Bytes that are no ciphertexts, or no list, are refused; what is read is the one sum.
        totals = list(self._load(received.sender, TOTAL, content.chunks))
        uploads = content.uploads.read(self.session, self.name, TOTAL)
        if not set(uploads) <= set(_uploads(state.vouchers)):
            raise InconsistentSurvivors(
                "the server lists an upload that no client vouched for here",
                party=self.name,
                step=TOTAL,
                fix="ask the server which uploads it holds, and run again",
            )
        included = [upload.client for upload in uploads]
        self._check_set(included, TOTAL)
        key_pair = self._key_pair(state.secret)
        if self._verify:
            vouchers = dict(state.vouchers)
            seeds = {name: vouchers[name].seed for name in included}
            self._subtract_zeros(key_pair.public_key, totals, seeds)
            if not all(self._ring.is_plaintext(total, len(seeds)) for total in totals):
                # How it would round turns on the single vectors, which a sum does not tell.
                raise self._inexact()
            slots = [self._ring.read(total) for total in totals]
        else:
            slots = [self._ring.decrypt(key_pair.secret_key, total) for total in totals]
        entries = np.concatenate(slots)[: self.session.layout.length * self.parameters.limbs]
        return Finished(Sum.of(self._decode(entries), included))

    def _subtract_zeros(self, public_key: Any, totals: list[Any], seeds: dict[str, bytes]) -> None:
        """Subtract the encryptions of zero under the clients' seeds, chunk by chunk, in place.

        Raises:
            UnverifiedSum: their second components do not add up to the sum's.
        """
        key = self._ring.save(public_key)
        chunk_seeds = [
            [chunk_seed(self.session, seed, name, index) for name, seed in seeds.items()]
            for index in range(len(totals))
        ]
        same = ([thing] * len(totals) for thing in (self.parameters, key))
        zeros = self.chunk_map(encrypt_zeros, *same, chunk_seeds)
        for total, zero in zip(totals, map(self._ring.load, zeros), strict=True):
            if not self._ring.subtract(total, zero):
                raise UnverifiedSum(
                    "the encrypted sum is not that of the clients' own encryptions",
                    party=self.name,
                    step=TOTAL,
                    fix="the server or a client did not follow the protocol; run again without it",
                )

    def _decode(self, slots: Slots) -> Decoded:
        """Round to integers, and count those that no honest sum can be.

        A verified sum is released whatever it is, for nothing of the key is in it, and a sum of
        integers that wraps around q is none: to give up would answer a question that a liar chose.

        Raises:
            InexactDecoding: no integers, in a sum that nobody verified: what was decrypted may be
                anything.
        """
        layout, limb_bits = self.session.layout, self.parameters.limb_bits
        rounded = np.rint(slots)
        inexact = np.abs(slots - rounded) > tolerance(self._verify)
        if inexact.any() and not self._verify:
            raise self._inexact()
        entries = rounded.astype(np.int64)
        decoded = layout.decode(from_entries(self.parameters, layout, entries))
        # Congruent in the ring to what it may be, or wrapped around q.
        if limb_bits:
            most = len(self.session.clients) * (2**limb_bits - 1)
            wrong = inexact | (entries < 0) | (entries > most)
        else:
            wrong = inexact | (entries != decoded.total)
        marks = np.any(wrong.reshape(-1, layout.length), axis=0)
        return Decoded(decoded.total, layout.outside(decoded.total, marks))

    def _inexact(self) -> InexactDecoding:
        return InexactDecoding(
            "the sum is not made of integers, as honest ones are",
            party=self.name,
            step=TOTAL,
            fix="some party did not follow the protocol; run a new session",
        )

    def _key_pair(self, secret: bytes) -> KeyPair:
        return session_keys(self.session, self._ring, secret, self.name)


def _uploads(vouchers: tuple[tuple[str, Voucher], ...]) -> tuple[Upload, ...]:
    return tuple(Upload(client, voucher.digest) for client, voucher in vouchers)
