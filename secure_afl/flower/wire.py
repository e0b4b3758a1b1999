"""What crosses between the server app and a client app: parcels of mail, and what came of them."""

import hashlib
from typing import Annotated

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from msgspec import Meta

from protocols.codec import Digest, Wire, decode, encode
from protocols.errors import Malformed
from protocols.roster import Name

ACTION = "blind_sum"
_RECORD, _ARRAY, _KIND = "mail", "bytes", "secure-afl"
MAX_PARCELS = 100_000


class Parcel(Wire, frozen=True):
    """One piece of mail.

    Attributes:
        channel: the nonce of a session; empty for letters.
        recipient: name of a party.
        mail: sealed, and signed by whoever sent it.
    """

    channel: Digest
    recipient: Name
    mail: bytes

    @property
    def digest(self) -> bytes:
        """What this piece of mail is known by, 32 bytes."""
        hashed = hashlib.sha256(encode((self.channel, self.recipient, len(self.mail))))
        hashed.update(self.mail)
        return hashed.digest()


class Request(Wire, frozen=True):
    """An exchange, as it is asked for.

    Attributes:
        parcels: for parties at this node.
        have: digests of what the server has had from them, which need not be sent again.
    """

    parcels: Annotated[tuple[Parcel, ...], Meta(max_length=MAX_PARCELS)]
    have: Annotated[tuple[Digest, ...], Meta(max_length=MAX_PARCELS)]


class Reply(Wire, frozen=True):
    """What came of an exchange.

    Attributes:
        parties: names of those at this node.
        parcels: from them, less what the server has.
        taken: digests of the parcels that need not be sent again.
        wake: seconds until a party here has something to do without mail; None for never.
        problems: parties, and names of errors; texts stay at the site.
    """

    parties: Annotated[tuple[Name, ...], Meta(max_length=1000)]
    parcels: Annotated[tuple[Parcel, ...], Meta(max_length=MAX_PARCELS)]
    taken: Annotated[tuple[Digest, ...], Meta(max_length=MAX_PARCELS)]
    wake: float | None
    problems: tuple[tuple[Name, str], ...] = ()


def pack(content: Request | Reply) -> RecordDict:
    """Write an exchange as Flower carries it: as an array of bytes, which travels in chunks."""
    data = np.frombuffer(encode(content), dtype=np.uint8)
    return RecordDict({_RECORD: ArrayRecord({_ARRAY: Array(data)}), _KIND: ConfigRecord()})


def unpack_request(records: RecordDict) -> Request:
    """Read a request, and take its mail out of the records, which then need no memory.

    Raises:
        Malformed: none.
    """
    return decode(_taken(records), Request)


def unpack_reply(records: RecordDict) -> Reply:
    """Read a reply, and take its mail out of the records, which then need no memory.

    Raises:
        Malformed: none.
    """
    return decode(_taken(records), Reply)


def _taken(records: RecordDict) -> bytes:
    found = records.pop(_RECORD, None)
    if not isinstance(found, ArrayRecord) or _ARRAY not in found:
        raise Malformed("no mail of secure-afl's")
    array = found.pop(_ARRAY).numpy()
    if array.dtype != np.uint8 or array.ndim != 1:
        raise Malformed("no mail of secure-afl's")
    return array.tobytes()
