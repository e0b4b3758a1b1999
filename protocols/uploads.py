"""Lists of uploads that coordinators compare: a bit for each client, and a digest each."""

from collections.abc import Iterable
from typing import Annotated

from msgspec import Meta

from protocols.codec import Wire
from protocols.errors import Malformed
from protocols.roster import MAX_MEMBERS, Bits
from protocols.session import Session

DIGEST_BYTES = 32


class Upload(Wire, frozen=True):
    """A client, and the digest of what it uploaded, 32 bytes."""

    client: str
    digest: bytes


class Uploads(Wire, frozen=True):
    """A list of uploads on the wire.

    Attributes:
        clients: bits of the roster's clients.
        digests: 32 bytes for each of them, in the roster's order.
    """

    clients: Bits
    digests: Annotated[bytes, Meta(max_length=MAX_MEMBERS * DIGEST_BYTES)]

    @classmethod
    def of(cls, session: Session, uploads: Iterable[Upload]) -> "Uploads":
        """Write a list of uploads, in whatever order."""
        ordered = in_order(session, uploads)
        clients = session.bits(upload.client for upload in ordered)
        return cls(clients, b"".join(upload.digest for upload in ordered))

    def read(self, session: Session, party: str, step: str) -> tuple[Upload, ...]:
        """Return the uploads in the roster's order.

        Raises:
            Malformed: not bits of this session's clients, or not one digest for each.
        """
        names = session.names(self.clients, party=party, step=step)
        if len(self.digests) != DIGEST_BYTES * len(names):
            raise Malformed(
                f"{len(self.digests)} bytes of digests for {len(names)} clients",
                party=party,
                step=step,
            )
        starts = range(0, len(self.digests), DIGEST_BYTES)
        digests = [self.digests[start : start + DIGEST_BYTES] for start in starts]
        return tuple(Upload(*pair) for pair in zip(names, digests, strict=True))


def in_order(session: Session, uploads: Iterable[Upload]) -> tuple[Upload, ...]:
    """Sort uploads by their clients' places in the session."""
    return tuple(sorted(uploads, key=lambda upload: session.places[upload.client]))


def uploads_bytes(session: Session) -> int:
    """Bound the bytes of a list of uploads in a session."""
    return len(session.header.participants) + DIGEST_BYTES * len(session.clients) + 16
