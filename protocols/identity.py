"""Who the parties are: long-lived signing keys, and sealing keys that live for one session.

A party is known by its Ed25519 key, which people exchange once and pin. For every session it draws
a fresh sealing key (HPKE, RFC 9180, over the hybrid of X25519 and ML-KEM-768) and endorses it with
the signing key. Whoever holds an enrolment deletes it when the session ends, and with it goes every
message that was recorded on its way: a signing key that leaks later opens nothing.
"""

from functools import lru_cache
from typing import Annotated, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from msgspec import Meta, structs

from protocols.codec import Secret, decode, domain_tag, encode
from protocols.errors import BadKey, BadSeal, BadSignature, InvalidSession, Malformed
from protocols.roster import VERIFY_KEY_BYTES, Line

NONCE_BYTES = 32
SIGNATURE_BYTES = 64
# A sealed key of 32 bytes: encapsulated keys of 1088 + 32 bytes, and the AES-GCM tag.
SEALED_KEY_BYTES = 1088 + 32 + 32 + 16
MLKEM_PUBLIC_BYTES = 1184
SEAL_KEY_BYTES = MLKEM_PUBLIC_BYTES + 32

_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


# Any scalar: it finds the points that agree with every key on zero, to which nothing can be sealed.
PROBE = X25519PrivateKey.from_private_bytes(bytes(range(32)))


class _PublicKeys(NamedTuple):
    x25519: X25519PublicKey
    both: hpke.MLKEM768X25519PublicKey


@lru_cache(maxsize=16)
def _public_keys(seal_key: bytes) -> _PublicKeys:
    """Read a sealing key, once for all clients of a process that seal to the same coordinators."""
    mlkem = MLKEM768PublicKey.from_public_bytes(seal_key[:MLKEM_PUBLIC_BYTES])
    x25519 = X25519PublicKey.from_public_bytes(seal_key[MLKEM_PUBLIC_BYTES:])
    return _PublicKeys(x25519, hpke.MLKEM768X25519PublicKey(mlkem, x25519))


class Member(Line, frozen=True):
    """One line of a session: a line of the roster, and what its party enrolled with.

    Attributes:
        name, role, verify_key: as in the roster.
        seal_key: ML-KEM-768 and X25519 public keys of this session, 1184 + 32 bytes.
        bound: a client's public bound on its part in the sum, as on its rows; whoever forms the
            session's terms adds these up. 0 to 2^63 − 1; 0 for coordinators.
        endorsement: Ed25519 signature by `verify_key` over the session nonce and all this, 64
            bytes.
    """

    seal_key: Annotated[bytes, Meta(max_length=SEAL_KEY_BYTES)]
    bound: int
    endorsement: Annotated[bytes, Meta(max_length=SIGNATURE_BYTES)]

    @property
    def line(self) -> Line:
        """The roster's part of this."""
        return Line(self.name, self.role, self.verify_key)

    def check(self, nonce: bytes) -> None:
        """Check that the keys are well-formed and the endorsement is for this nonce.

        Raises:
            BadKey: they are not.
            InvalidSession: the bound is out of range.
        """
        check_bound(self.bound, self.name)
        if len(self.verify_key) != VERIFY_KEY_BYTES or len(self.seal_key) != SEAL_KEY_BYTES:
            raise BadKey(f"keys of '{self.name}' have the wrong length", party=self.name)
        try:
            self.verify(self.endorsement, _endorsed(nonce, self))
        except BadSignature:
            raise BadKey(
                f"the enrolment of '{self.name}' is not endorsed for this session",
                party=self.name,
                fix="enrol the party again with the session's nonce",
            ) from None
        # A key that cannot be sealed to would fail whoever first tries, in the middle of things.
        try:
            PROBE.exchange(_public_keys(self.seal_key).x25519)
        except ValueError:
            raise self._unusable() from None

    def seal(self, secret: bytes, info: bytes) -> bytes:
        """Seal a secret to this member: HPKE single-shot, 1120 + len(secret) + 16 bytes.

        The sealed bytes are fresh each time.
        """
        try:
            return _SUITE.encrypt(secret, _public_keys(self.seal_key).both, info)
        except ValueError:
            raise self._unusable() from None

    def _unusable(self) -> BadKey:
        return BadKey(f"the sealing key of '{self.name}' is unusable", party=self.name)


class Identity:
    """A party's name and its long-lived Ed25519 signing key."""

    def __init__(self, name: str, signing_key: Ed25519PrivateKey) -> None:
        self.name = name
        self._signing_key = signing_key

    @classmethod
    def generate(cls, name: str) -> "Identity":
        """Make a new identity from the operating system's randomness."""
        return cls(name, Ed25519PrivateKey.generate())

    @property
    def verify_key(self) -> bytes:
        """The public half, 32 bytes: what others pin."""
        return self._signing_key.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """Sign `data` with Ed25519: a signature of 64 bytes, the same each time."""
        return self._signing_key.sign(data)

    def enrol(self, role: str, nonce: bytes, bound: int = 0) -> "Enrolment":
        """Enrol in the session that will be formed under `nonce`, with a fresh sealing key.

        Raises:
            InvalidSession: `bound` is out of range, 0 to 2^63 − 1.
        """
        keys = MLKEM768PrivateKey.generate(), X25519PrivateKey.generate()
        return Enrolment(self, role, nonce, bound, *keys)

    def save(self) -> bytes:
        """Return the whole identity as bytes, private key included."""
        return encode(_SavedIdentity(self.name, self._signing_key.private_bytes_raw()))

    @classmethod
    def load(cls, saved: bytes) -> "Identity":
        """Read what `save` wrote.

        Raises:
            BadKey: other bytes than a saved identity.
        """
        try:
            parts = decode(saved, _SavedIdentity)
            return cls(parts.name, Ed25519PrivateKey.from_private_bytes(parts.signing_key))
        except (Malformed, ValueError):
            raise BadKey("not a saved identity", fix="make one with Identity.generate") from None

    def __repr__(self) -> str:
        return f"<Identity {self.name}>"


class Enrolment:
    """An identity in one session: the keys to sign, and to open sealed messages."""

    def __init__(
        self,
        identity: Identity,
        role: str,
        nonce: bytes,
        bound: int,
        mlkem_key: MLKEM768PrivateKey,
        x25519_key: X25519PrivateKey,
    ) -> None:
        check_bound(bound, identity.name)
        self.identity = identity
        self.nonce = nonce
        self._mlkem_key = mlkem_key
        self._x25519_key = x25519_key
        # The last capsule of each channel, whose every message brings it again.
        self._opened: dict[bytes, tuple[bytes, bytes]] = {}
        seal_key = (
            mlkem_key.public_key().public_bytes_raw() + x25519_key.public_key().public_bytes_raw()
        )
        unsigned = Member(identity.name, role, identity.verify_key, seal_key, bound, b"")
        endorsement = identity.sign(_endorsed(nonce, unsigned))
        self.member = structs.replace(unsigned, endorsement=endorsement)

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Open what `Member.seal` sealed to this enrolment's member.

        Raises:
            BadSeal: sealed for another party, session or `info`, or altered.
        """
        known, secret = self._opened.get(info, (b"", b""))
        if known and known == sealed:
            return secret
        private = hpke.MLKEM768X25519PrivateKey(self._mlkem_key, self._x25519_key)
        try:
            secret = _SUITE.decrypt(sealed, private, info)
        except (InvalidTag, ValueError):
            raise BadSeal("sealed for another party or session, or altered") from None
        self._opened[info] = (sealed, secret)
        return secret

    def save(self) -> bytes:
        """Return everything as bytes, private keys included.

        With these bytes a party can restart within its session.
        """
        return encode(
            _SavedEnrolment(
                self.identity.save(),
                self.member.role,
                self.nonce,
                self.member.bound,
                self._mlkem_key.private_bytes_raw(),
                self._x25519_key.private_bytes_raw(),
            )
        )

    @classmethod
    def load(cls, saved: bytes) -> "Enrolment":
        """Read what `save` wrote.

        Raises:
            BadKey: other bytes than a saved enrolment.
        """
        try:
            parts = decode(saved, _SavedEnrolment)
            return cls(
                Identity.load(parts.identity),
                parts.role,
                parts.nonce,
                parts.bound,
                MLKEM768PrivateKey.from_seed_bytes(parts.mlkem_key),
                X25519PrivateKey.from_private_bytes(parts.x25519_key),
            )
        except (Malformed, ValueError):
            raise BadKey("not a saved enrolment", fix="enrol again for a new session") from None

    def __repr__(self) -> str:
        return f"<Enrolment {self.member.name} as {self.member.role}>"


def check_bound(bound: int, party: str) -> None:
    """Raise InvalidSession unless a client may declare this bound: 0 to 2^63 − 1."""
    if type(bound) is not int or not 0 <= bound < 2**63:
        raise InvalidSession(f"bound {bound!r}, allowed: integers from 0 to 2^63 − 1", party=party)


class _SavedIdentity(Secret, frozen=True):
    name: str
    signing_key: bytes


class _SavedEnrolment(Secret, frozen=True):
    identity: bytes
    role: str
    nonce: bytes
    bound: int
    mlkem_key: bytes
    x25519_key: bytes


def _endorsed(nonce: bytes, member: Member) -> bytes:
    enrolled = member.name, member.role, member.seal_key, member.bound
    return encode((domain_tag("enrolment"), nonce, *enrolled))
