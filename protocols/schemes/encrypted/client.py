"""The client of `ckks` and `bfv`: encrypts its vector once, and vouches for its ciphertexts."""

from typing import ClassVar

from protocols.errors import (
    Malformed,
    UnexpectedStep,
)
from protocols.layout import Integers
from protocols.message import Channel, Message
from protocols.party import Aborted, Fresh, Received, State, Step
from protocols.roster import CLIENT
from protocols.schemes.encrypted.chunks import chunk_seed, encrypt_chunk, encryption_seed
from protocols.schemes.encrypted.messages import (
    KEY,
    KEY_HOLDER,
    SERVER,
    UPLOAD,
    Ciphertexts,
    Key,
    Voucher,
    ciphertext_digest,
)
from protocols.schemes.encrypted.party import EncryptedParty, key_bytes
from protocols.schemes.encrypted.seal import pieces, to_entries


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


class EncryptingClient(EncryptedParty):
    """The client that encrypts under the key that it is sent, once, and sends once."""

    role = CLIENT
    states = Fresh | Waiting | Uploading | Aborted
    steps: ClassVar[dict[str, Step]] = {KEY: Step((KEY_HOLDER,), Key, key_bytes)}

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

    def _has_uploaded(self, state: State) -> bool:
        return isinstance(state, Uploading)

    def _has_opened(self, state: State) -> bool:
        return self._has_uploaded(state)

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
