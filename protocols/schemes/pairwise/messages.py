"""What the parties of pairwise masking say to each other, and the keys behind it.

A client has two X25519 keys (RFC 7748) that live for one session: with the *mask key* it agrees on
masks, with the *share key* on how to seal shares to their holders. They are two, because the mask
key of a client that vanishes is opened to the server, which carries the sealed shares. Both are
signed with the identity on the roster, so that the server can substitute neither. Whatever is
derived from an agreement (HKDF-SHA256) is salted with the session id and bound to both names and
to its purpose.
"""

from protocols.codec import Secret, decode
from protocols.primitives import shamir
from protocols.schemes.pairwise.parameters import Parameters, ServerTrust, find_parameters
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
    """Message to a client: the keys of those it may mask with, in roster order."""

    adverts: tuple[Advert, ...]


class Share(Secret, frozen=True):
    """A client's shares, by holder in roster order, each sealed to its holder."""

    sealed: tuple[tuple[str, bytes], ...]


class Shares(Secret, frozen=True):
    """Message to a client: whom to mask with, and the sealed share that it holds.

    The former are in roster order; there may be no share.

    All have shared; an empty share is of one whose secrets others hold.
    """

    sealed: tuple[tuple[str, bytes], ...]


class MaskedVector(Secret, frozen=True):
    """A client's masked vector, packed in the ring."""

    vector: bytes


class Survivors(Secret, frozen=True):
    """Message to a client: whose vectors are in the sum, in roster order."""

    names: tuple[str, ...]


class Sign(Secret, frozen=True):
    """A client's signature over the survivors."""

    signature: bytes


class Signatures(Secret, frozen=True):
    """Message to a client: a quorum of signatures over the survivors, by name."""

    signatures: tuple[tuple[str, bytes], ...]


class Unmask(Secret, frozen=True):
    """A share for each client whose secrets the sender holds.

    Of a survivor it is one of its self-mask seed, of any other one of its mask key: a message with
    both cannot be written.
    """

    shares: tuple[tuple[str, bytes], ...]


def parameters_of(session: Session) -> Parameters:
    """Find k, t and quorum of a session, equal at every party.

    Raises:
        Malformed: the session's parameters are not those of `pairwise`.
        InvalidSession: out of range, or no graph on so few clients can keep the promise.
    """
    terms = decode(session.parameters, tuple[str, float, float, ServerTrust])
    _, corrupt, dropout, server = terms
    return find_parameters(len(session.clients), corrupt, dropout, server, session.min_cohort)


def indices(session: Session) -> dict[str, int]:
    """Return each client's place on the roster."""
    return {name: index for index, name in enumerate(session.clients)}
