"""The keys of `pairwise`: adverts, agreed masks, sealed shares, and what is signed."""

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import structs

from protocols.codec import Secret, domain_tag, encode
from protocols.errors import BadKey, BadSeal
from protocols.identity import PROBE, Identity
from protocols.message import derive
from protocols.primitives import shamir
from protocols.primitives.masks import MASK_KEY_BYTES, key_stream
from protocols.schemes.pairwise.messages import Advert, parameters_of
from protocols.session import Session

_KEY_BYTES = 32


# Each key seals one content, ever, so that the nonce may be constant.
_ZERO_NONCE = bytes(12)


class Keyring(Secret, frozen=True):
    """A client's secrets of one session, all derived from the one that it drew."""

    mask_key: bytes
    share_key: bytes
    self_mask_seed: bytes
    sharing_key: bytes
    drawing_seed: bytes


def keyring(session: Session, name: str, secret: bytes) -> Keyring:
    """Make the secrets of client `name`."""
    parts = ("mask key", "share key", "self-mask seed", "sharing", "neighbours")
    return Keyring(*(derive(secret, session.id, "pairwise", part, name) for part in parts))


def private_key(private: bytes) -> X25519PrivateKey:
    """Make an X25519 private key of 32 random bytes."""
    return X25519PrivateKey.from_private_bytes(private)


def public_key(private: bytes) -> bytes:
    """Return the X25519 public key, 32 bytes."""
    return private_key(private).public_key().public_bytes_raw()


def agree(private: X25519PrivateKey, public: bytes, party: str) -> bytes:
    """Return the X25519 agreement, 32 bytes, from which keys are derived.

    Raises:
        BadKey: the public key of `party` is of low order: all would agree with it on the same.
    """
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise BadKey(f"a key of '{party}' is no usable X25519 key") from None


def sign_advert(session: Session, identity: Identity, keys: Keyring) -> Advert:
    """Sign the advert of a client's keys."""
    unsigned = Advert(
        public_key(keys.mask_key),
        public_key(keys.share_key),
        commitment(session, identity.name, keys.self_mask_seed),
        b"",
    )
    signature = identity.sign(_advertised(session, identity.name, unsigned))
    return structs.replace(unsigned, signature=signature)


def check_advert(session: Session, name: str, advert: Advert) -> None:
    """Raise UnknownSender, BadKey or BadSignature unless client `name` signed this advert."""
    line = session.line(name)
    keys = (advert.mask_key, advert.share_key, advert.commitment)
    if any(len(key) != _KEY_BYTES for key in keys):
        raise BadKey(f"keys of '{name}' have the wrong length")
    # One spelling a point, or another client's key reflected would not be known again.
    if any(int.from_bytes(key, "little") >= 2**255 - 19 for key in keys[:2]):
        raise BadKey(f"a key of '{name}' is no usable X25519 key")
    line.verify(advert.signature, _advertised(session, name, advert))


def check_order(name: str, advert: Advert) -> None:
    """Raise BadKey if a key of client `name` is a point of low order."""
    for key in (advert.mask_key, advert.share_key):
        agree(PROBE, key, name)


def commitment(session: Session, name: str, self_mask_seed: bytes) -> bytes:
    """Commit to a client's seed.

    The commitment hides the seed, which is random, and binds to it.
    """
    return derive(self_mask_seed, session.id, "pairwise", "self-mask commitment", name)


def self_mask(session: Session, name: str, self_mask_seed: bytes) -> bytes:
    """Return the key, 16 bytes, of the mask that a client adds by itself."""
    return derive(self_mask_seed, session.id, "pairwise", "self mask", name, length=MASK_KEY_BYTES)


def pair_mask(session: Session, agreed: bytes, first: str, second: str) -> bytes:
    """Derive the key, 16 bytes, of the mask of a pair of clients.

    The pair's first on the roster adds the mask, the other subtracts it.
    """
    return derive(agreed, session.id, "pairwise", "pair mask", first, second, length=MASK_KEY_BYTES)


def split_secrets(session: Session, keys: Keyring, holders: tuple[str, ...]) -> dict[str, bytes]:
    """Return each holder's shares of self-mask seed and mask key, 64 bytes.

    The point of a holder is its place + 1.
    """
    points = [session.places[holder] + 1 for holder in holders]
    count = parameters_of(session).threshold - 1
    stream = key_stream(keys.sharing_key, 2 * count * 32)
    drawn = [stream[at : at + 32] for at in range(0, len(stream), 32)]
    seeds = shamir.split(keys.self_mask_seed, drawn[:count], points)
    mask_keys = shamir.split(keys.mask_key, drawn[count:], points)
    return {h: a + b for h, a, b in zip(holders, seeds, mask_keys, strict=True)}


def seal_share(session: Session, agreed: bytes, owner: str, holder: str, share: bytes) -> bytes:
    """Seal a share with AES-256-GCM under a key for this owner, holder and session."""
    return AESGCM(_share_key(session, agreed, owner, holder)).encrypt(_ZERO_NONCE, share, None)


def open_share(session: Session, agreed: bytes, owner: str, holder: str, sealed: bytes) -> bytes:
    """Open what `seal_share` sealed.

    Raises:
        BadSeal: another owner, holder, session or key, or altered bytes.
    """
    try:
        key = _share_key(session, agreed, owner, holder)
        return AESGCM(key).decrypt(_ZERO_NONCE, sealed, None)
    except (InvalidTag, ValueError):
        raise BadSeal(f"share of '{owner}' does not open", party=holder) from None


def survivors_statement(session: Session, survivors: bytes) -> bytes:
    """Make what a client signs: one set of survivors, as bits, of one session."""
    tag = domain_tag("pairwise survivors")
    return tag.encode() + hashlib.sha256(encode((session.id, survivors))).digest()


def _share_key(session: Session, agreed: bytes, owner: str, holder: str) -> bytes:
    return derive(agreed, session.id, "pairwise", "share", owner, holder)


def _advertised(session: Session, name: str, advert: Advert) -> bytes:
    keys = advert.mask_key, advert.share_key, advert.commitment
    return encode((domain_tag("pairwise keys"), session.id, name, *keys))
