"""The key holder of `ckks` and `bfv`: makes the session's keys, verifies, and opens one sum."""

from typing import Any, ClassVar

import msgspec
import numpy as np

from protocols.errors import (
    CoordinatorMissing,
    InconsistentSurvivors,
    InexactDecoding,
    Malformed,
    SumOutOfBounds,
    UnexpectedStep,
    UnverifiedSum,
)
from protocols.layout import Integers
from protocols.message import Channel, Message
from protocols.party import Aborted, Fresh, Received, State, Step, Sum
from protocols.schemes.encrypted.chunks import (
    CLIENT_SEED_BYTES,
    chunk_seed,
    encrypt_zeros,
    session_keys,
)
from protocols.schemes.encrypted.messages import (
    CONFIRMED,
    KEY,
    KEY_HOLDER,
    SERVER,
    TOTAL,
    UPLOAD,
    Confirmed,
    Key,
    Total,
    VouchedUpload,
    Voucher,
)
from protocols.schemes.encrypted.parameters import tolerance
from protocols.schemes.encrypted.party import EncryptedParty
from protocols.schemes.encrypted.seal import KeyPair, Slots, from_entries
from protocols.session import CLIENT


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
        UPLOAD: Step(CLIENT, Voucher),
        TOTAL: Step(SERVER, Total),
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
        if self._verify:
            seeds = {name: dict(state.vouchers)[name].seed for name in included}
            slots = self._read(key_pair.public_key, totals, seeds)
        else:
            slots = [self._ring.decrypt(key_pair.secret_key, total) for total in totals]
        entries = np.concatenate(slots)[: self.session.layout.length * self.parameters.limbs]
        return Finished(Sum(self._decode(entries), included))

    def _read(self, public_key: Any, totals: list[Any], seeds: dict[str, bytes]) -> list[Slots]:
        """Return the entries of each chunk of a sum that the clients' seeds account for.

        Raises:
            UnverifiedSum: they do not.
            InexactDecoding: they do, but somebody has shifted the sum by a fraction of a unit.
        """
        self._subtract_zeros(public_key, totals, seeds)
        if not all(self._ring.is_plaintext(total, len(seeds)) for total in totals):
            raise self._inexact()
        return [self._ring.read(total) for total in totals]

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

    def _decode(self, slots: Slots) -> Integers:
        layout = self.session.layout
        rounded = np.rint(slots)
        if np.abs(slots - rounded).max() > tolerance(self._verify):
            raise self._inexact()
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

    def _inexact(self) -> InexactDecoding:
        return InexactDecoding(
            "the decrypted sum is not made of integers",
            party=self.name,
            step=TOTAL,
            fix="some party did not follow the protocol; run a new session",
        )

    def _key_pair(self, secret: bytes) -> KeyPair:
        return session_keys(self.session, self._ring, secret, self.name)


def _uploads(vouchers: tuple[tuple[str, Voucher], ...]) -> tuple[VouchedUpload, ...]:
    return tuple(VouchedUpload(client, voucher.digest) for client, voucher in vouchers)


def _name(entry: tuple[str, Voucher]) -> str:
    return entry[0]
