"""What the parties of pairwise masking say to each other, and the keys behind it.

A client has two X25519 keys (RFC 7748) that live for one session: with the *mask key* it agrees on
masks, with the *share key* on how to seal shares to their holders. They are two, because the mask
key of a client that vanishes is opened to the server, which carries the sealed shares. Both are
signed with the identity on the roster, so that the server can substitute neither. Whatever is
derived from an agreement (HKDF-SHA256) is salted with the session id and bound to both names and
to its purpose.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Annotated

from msgspec import Meta

from protocols.codec import Digest, Secret, decode
from protocols.errors import Malformed
from protocols.identity import SIGNATURE_BYTES
from protocols.primitives import shamir
from protocols.roster import MAX_MEMBERS, Bits
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


# Clients by their places in the session, ascending; a few of many take less than a bit each.
Places = Annotated[tuple[int, ...], Meta(max_length=MAX_MEMBERS)]
PLACE_BYTES = 5


class Advert(Secret, frozen=True):
    """A client's public keys for one session.

    Attributes:
        mask_key, share_key: X25519 public keys, 32 bytes.
        commitment: derived from the self-mask seed, 32 bytes: whoever opens the seed can tell.
        signature: by the client's identity, over its name, all this and the session id.
    """

    mask_key: Digest
    share_key: Digest
    commitment: Digest
    signature: Annotated[bytes, Meta(max_length=SIGNATURE_BYTES)]


ADVERT_BYTES = 3 * 34 + SIGNATURE_BYTES + 3


class Advertise(Secret, frozen=True):
    """A client's keys, and the neighbours that it has drawn, where clients draw."""

    advert: Advert
    chosen: Places


class Keys(Secret, frozen=True):
    """Message to a client: whom it may mask with, and their keys in the same order."""

    clients: Places
    adverts: Annotated[tuple[Advert, ...], Meta(max_length=MAX_MEMBERS)]


class Share(Secret, frozen=True):
    """A client's holders, and its shares in the same order, each sealed to its holder."""

    holders: Places
    sealed: bytes


class Shares(Secret, frozen=True):
    """Message to a client: who has shared, whom it masks with therefore.

    Those of them whose secrets it holds are `owners`, with a sealed share from each in order.
    """

    clients: Places
    owners: Places
    sealed: bytes


class MaskedVector(Secret, frozen=True):
    """A client's masked vector, packed in the ring."""

    vector: bytes


class Survivors(Secret, frozen=True):
    """Message to a client: whose vectors are in the sum, a bit for each client of the roster."""

    clients: Bits


class Sign(Secret, frozen=True):
    """A client's signature over the survivors."""

    signature: Annotated[bytes, Meta(max_length=SIGNATURE_BYTES)]


class Signatures(Secret, frozen=True):
    """Message to a client: who signed the survivors, and 64 bytes from each in order."""

    signers: Bits
    signatures: bytes


class Unmask(Secret, frozen=True):
    """Whose secrets the sender opens, and a share of 32 bytes for each in order.

    Of a survivor it is one of its self-mask seed, of any other one of its mask key: a message with
    both cannot be written.
    """

    owners: Places
    shares: bytes


def parameters_of(session: Session) -> Parameters:
    """Find k, t and quorum of a session, equal at every party.

    Raises:
        Malformed: the session's parameters are not those of `pairwise`.
        InvalidSession: out of range, or no graph on so few clients can keep the promise.
    """
    terms = decode(session.parameters, tuple[str, float, float, ServerTrust])
    _, corrupt, dropout, server = terms
    return find_parameters(len(session.clients), corrupt, dropout, server, session.min_cohort)


def places(session: Session, names: Iterable[str]) -> tuple[int, ...]:
    """Return the clients' places, ascending."""
    return tuple(sorted(session.places[name] for name in names))


def names_at(
    session: Session, found: tuple[int, ...], party: str, step: str, *, but: str = ""
) -> tuple[str, ...]:
    """Return the names of the clients at these places.

    Raises:
        Malformed: places out of order, twice or beyond the last; or the place of `but`.
    """
    clients = session.clients
    in_order = all(before < after for before, after in pairwise(found))
    if found and not (in_order and found[0] >= 0 and found[-1] < len(clients)):
        raise Malformed("places out of order, or of no client", party=party, step=step)
    names = tuple(clients[place] for place in found)
    if but in names:
        raise Malformed("a client's own place among the others'", party=party, step=step)
    return names


def parts(data: bytes, count: int, size: int, party: str, step: str) -> list[bytes]:
    """Cut bytes into `count` parts of `size` bytes each.

    Raises:
        Malformed: not so many bytes.
    """
    if len(data) != count * size:
        raise Malformed(f"{len(data)} bytes for {count} parts of {size}", party=party, step=step)
    return [data[start : start + size] for start in range(0, len(data), size)]


def bounded(each: int, once: int = 64) -> Callable[[Session], int]:
    """Return the bound of a content with so many bytes for each client."""
    return lambda session: each * len(session.clients) + once
