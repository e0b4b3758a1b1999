"""What the parties of pairwise masking say to each other, and the keys behind it.

A client has two X25519 keys (RFC 7748) that live for one session: with the *mask key* it agrees on
masks, with the *share key* on how to seal shares to their holders. They are two, because the mask
key of a client that vanishes is opened to the server, which carries the sealed shares. Both are
signed with the identity on the roster, so that the server can substitute neither. Whatever is
derived from an agreement (HKDF-SHA256) is salted with the session id and bound to both names and
to its purpose.
"""

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocols import shamir
from protocols.codec import Secret, decode, encode
from protocols.errors import BadKey, BadSeal
from protocols.identity import Identity
from protocols.masks import MASK_KEY_BYTES, key_stream
from protocols.message import derive
from protocols.secagg_parameters import Parameters, Server, find_parameters
from protocols.session import Session

NAME = "pairwise"
SERVER = "server"

# Steps, in order; the server's are in answer to the clients'.
ADVERTISE, KEYS = "advertise", "keys"
SHARE, SHARES = "share", "shares"
UPLOAD, SURVIVORS = "upload", "survivors"
SIGN, SIGNATURES = "sign", "signatures"
UNMASK = "unmask"

# A share each of self-mask seed and mask key, and the AES-GCM tag.
SEALED_BYTES = 2 * shamir.SHARE_BYTES + 16

_KEY_BYTES = 32
# Each key seals one content, ever, so that the nonce may be constant.
_ZERO_NONCE = bytes(12)
# Any scalar: it finds the points that agree with every key on zero.
_PROBE = X25519PrivateKey.from_private_bytes(bytes(range(32)))


class Advert(Secret, frozen=True):
    """A client's public keys for one session.

    Attributes:
        name: the client.
        mask_key, share_key: X25519 public keys, 32 bytes.
        commitment: derived from the self-mask seed, 32 bytes: whoever opens the seed can tell.
        signature: by the client's identity, over all this and the session id.
    """

    name: str
    mask_key: bytes
    share_key: bytes
    commitment: bytes
    signature: bytes


class Advertise(Secret, frozen=True):
    """A client's keys, and the neighbours that it has drawn, as indices, where clients draw."""

    advert: Advert
    chosen: tuple[int, ...]


class Keys(Secret, frozen=True):
    """To a client: the keys of those it may mask with, in roster order."""

    adverts: tuple[Advert, ...]


class Share(Secret, frozen=True):
    """A client's shares, by holder in roster order, each sealed to its holder."""

    sealed: tuple[tuple[str, bytes], ...]


class Shares(Secret, frozen=True):
    """To a client: whom to mask with, in roster order, and the sealed share that it holds, if any.

    All have shared; an empty share is of one whose secrets others hold.
    """

    sealed: tuple[tuple[str, bytes], ...]


class Upload(Secret, frozen=True):
    """A client's masked vector, packed in the ring."""

    vector: bytes


class Survivors(Secret, frozen=True):
    """To a client: whose vectors are in the sum, in roster order."""

    names: tuple[str, ...]


class Sign(Secret, frozen=True):
    """A client's signature over the survivors."""

    signature: bytes


class Signatures(Secret, frozen=True):
    """To a client: a quorum of signatures over the survivors, by name."""

    signatures: tuple[tuple[str, bytes], ...]


class Unmask(Secret, frozen=True):
    """A share for each client whose secrets the sender holds.

    Of a survivor it is one of its self-mask seed, of any other one of its mask key: a message with
    both cannot be written.
    """

    shares: tuple[tuple[str, bytes], ...]


class Keyring(Secret, frozen=True):
    """A client's secrets of one session, all derived from the one that it drew."""

    mask_key: bytes
    share_key: bytes
    self_mask_seed: bytes
    sharing_key: bytes
    drawing_seed: bytes


def parameters_of(session: Session) -> Parameters:
    """k, t and quorum of a session; the same at every party. Raises Malformed, InvalidSession."""
    terms = decode(session.parameters, tuple[str, float, float, Server])
    _, corrupt, dropout, server = terms
    return find_parameters(len(session.clients), corrupt, dropout, server, session.min_cohort)


def indices(session: Session) -> dict[str, int]:
    """Each client's place on the roster."""
    return {name: index for index, name in enumerate(session.clients)}


def keyring(session: Session, name: str, secret: bytes) -> Keyring:
    """The secrets of client `name`."""
    parts = ("mask key", "share key", "self-mask seed", "sharing", "neighbours")
    return Keyring(*(derive(secret, session.id, "pairwise", part, name) for part in parts))


def private_key(private: bytes) -> X25519PrivateKey:
    """An X25519 private key of 32 random bytes."""
    return X25519PrivateKey.from_private_bytes(private)


def public_key(private: bytes) -> bytes:
    """X25519 public key, 32 bytes."""
    return private_key(private).public_key().public_bytes_raw()


def agree(private: X25519PrivateKey, public: bytes, party: str) -> bytes:
    """X25519 agreement, 32 bytes, to be derived from.

    Raises:
        BadKey: the public key of `party` is of low order: all would agree with it on the same.
    """
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise BadKey(f"a key of '{party}' is no usable X25519 key") from None


def sign_advert(session: Session, identity: Identity, keys: Keyring) -> Advert:
    """The advert of a client's keys."""
    unsigned = Advert(
        identity.name,
        public_key(keys.mask_key),
        public_key(keys.share_key),
        commitment(session, identity.name, keys.self_mask_seed),
        b"",
    )
    signature = identity.sign(_advertised(session, unsigned))
    return Advert(
        unsigned.name, unsigned.mask_key, unsigned.share_key, unsigned.commitment, signature
    )


def check_advert(session: Session, advert: Advert) -> None:
    """Raise UnknownSender, BadKey or BadSignature unless the named client signed this advert."""
    member = session.member(advert.name)
    keys = (advert.mask_key, advert.share_key, advert.commitment)
    if any(len(key) != _KEY_BYTES for key in keys):
        raise BadKey(f"keys of '{advert.name}' have the wrong length")
    # One spelling a point, or another client's key reflected would not be known again.
    if any(int.from_bytes(key, "little") >= 2**255 - 19 for key in keys[:2]):
        raise BadKey(f"a key of '{advert.name}' is no usable X25519 key")
    member.verify(advert.signature, _advertised(session, advert))


def check_order(advert: Advert) -> None:
    """Raise BadKey if a key is a point of low order."""
    for key in (advert.mask_key, advert.share_key):
        agree(_PROBE, key, advert.name)


def commitment(session: Session, name: str, self_mask_seed: bytes) -> bytes:
    """What a client says of its seed in advance: hides it, for the seed is random, and binds."""
    return derive(self_mask_seed, session.id, "pairwise", "self-mask commitment", name)


def self_mask(session: Session, name: str, self_mask_seed: bytes) -> bytes:
    """Key of the mask that a client adds by itself, 16 bytes."""
    return derive(self_mask_seed, session.id, "pairwise", "self mask", name, length=MASK_KEY_BYTES)


def pair_mask(session: Session, agreed: bytes, first: str, second: str) -> bytes:
    """Key, 16 bytes, of the mask that the pair's first on the roster adds, the other subtracts."""
    return derive(agreed, session.id, "pairwise", "pair mask", first, second, length=MASK_KEY_BYTES)


def split_secrets(session: Session, keys: Keyring, holders: tuple[str, ...]) -> dict[str, bytes]:
    """Each holder's shares of self-mask seed and mask key, 64 bytes; its point is its place + 1."""
    place = indices(session)
    points = [place[holder] + 1 for holder in holders]
    count = parameters_of(session).threshold - 1
    stream = key_stream(keys.sharing_key, 2 * count * 32)
    drawn = [stream[at : at + 32] for at in range(0, len(stream), 32)]
    seeds = shamir.split(keys.self_mask_seed, drawn[:count], points)
    mask_keys = shamir.split(keys.mask_key, drawn[count:], points)
    return {h: a + b for h, a, b in zip(holders, seeds, mask_keys, strict=True)}


def seal_share(session: Session, agreed: bytes, owner: str, holder: str, share: bytes) -> bytes:
    """AES-256-GCM under a key for this owner, holder and session."""
    return AESGCM(_share_key(session, agreed, owner, holder)).encrypt(_ZERO_NONCE, share, None)


def open_share(session: Session, agreed: bytes, owner: str, holder: str, sealed: bytes) -> bytes:
    """The inverse of `seal_share`. Raises BadSeal for any other owner, holder, session or bytes."""
    try:
        key = _share_key(session, agreed, owner, holder)
        return AESGCM(key).decrypt(_ZERO_NONCE, sealed, None)
    except (InvalidTag, ValueError):
        raise BadSeal(f"share of '{owner}' does not open", party=holder) from None


def survivors_statement(session: Session, names: tuple[str, ...]) -> bytes:
    """What a client signs: one set of survivors of one session."""
    said = encode(("secure-afl/1 pairwise survivors", session.id, names))
    return b"secure-afl/1 pairwise survivors" + hashlib.sha256(said).digest()


def _share_key(session: Session, agreed: bytes, owner: str, holder: str) -> bytes:
    return derive(agreed, session.id, "pairwise", "share", owner, holder)


def _advertised(session: Session, advert: Advert) -> bytes:
    return encode(
        (
            "secure-afl/1 pairwise keys",
            session.id,
            advert.name,
            advert.mask_key,
            advert.share_key,
            advert.commitment,
        )
    )
