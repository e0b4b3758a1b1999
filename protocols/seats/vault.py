"""The one key of a seat: everything in its folder is encrypted under it, and forgotten with it."""

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocols.codec import domain_tag
from protocols.errors import BadSavedState
from protocols.message import TAG_BYTES, derive

KEY_BYTES = 32
_NONCE_BYTES = 12
# What sealing adds.
SEAL_BYTES = _NONCE_BYTES + TAG_BYTES


class Vault:
    """The key of one seat, and what is sealed under it.

    Nonces are drawn afresh, for a torn write may be followed by another in its place.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._ciphers: dict[str, AESGCM] = {}

    @classmethod
    def load(cls, path: Path) -> "Vault":
        """Read the key from its file.

        Raises:
            BadSavedState: it is missing, or no key.
        """
        try:
            key = path.read_bytes()
        except OSError as error:
            raise BadSavedState(
                f"the key of this seat cannot be read: {error.strerror}",
                fix="without it the seat is forgotten; take part in a new session",
            ) from None
        if len(key) != KEY_BYTES:
            raise BadSavedState("the key of this seat has another length")
        return cls(key)

    def seal(self, purpose: str, content: bytes, bound: bytes = b"") -> bytes:
        """Seal a content for one purpose, bound to further bytes; 28 bytes longer."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher(purpose).encrypt(nonce, content, bound)

    def open(self, purpose: str, sealed: bytes, bound: bytes = b"") -> bytes:
        """Open what `seal` sealed.

        Raises:
            BadSavedState: other bytes, another purpose, or bound to others.
        """
        nonce, ciphertext = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return self._cipher(purpose).decrypt(nonce, ciphertext, bound)
        except (InvalidTag, ValueError):
            raise BadSavedState(
                f"the {purpose} of this seat is damaged, or another's",
                fix="take part in a new session; a damaged seat never goes on",
            ) from None

    def _cipher(self, purpose: str) -> AESGCM:
        if purpose not in self._ciphers:
            key = derive(self._key, b"", domain_tag("seat"), purpose)
            self._ciphers[purpose] = AESGCM(key)
        return self._ciphers[purpose]

    def __repr__(self) -> str:
        return "<Vault>"


def edges(sealed: bytes) -> bytes:
    """Return nonce and tag, 28 bytes: without the key nobody finds two contents that share them."""
    return sealed[:_NONCE_BYTES] + sealed[-TAG_BYTES:]


def new_key() -> bytes:
    """Draw a seat's key, 32 bytes."""
    return os.urandom(KEY_BYTES)
