"""Messages: signed by their sender, sealed to their recipient, carried by anybody.

A sender opens one channel to each recipient when it starts: it derives a channel key, and seals it
to the recipient by HPKE with the session and both names as `info`. Every step's content then goes
under AES-256-GCM with a key of its own, derived from the channel key for (session, sender,
recipient, step). The Ed25519 signature covers a short header that carries the sealed channel key
and the SHA-256 of that and the body: an authentication tag commits to neither key nor content, a
hash commits to both, so that one signature says one thing.
"""

import hashlib
import io
from collections.abc import Iterable, Sequence
from typing import Annotated, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Meta

from protocols.codec import (
    WIRE_VERSION,
    Digest,
    Secret,
    Wire,
    decode,
    domain_tag,
    encode,
    wire_version,
)
from protocols.errors import (
    BadSeal,
    Malformed,
    MessageRejected,
    SessionMismatch,
    WrongRecipient,
)
from protocols.identity import SEALED_KEY_BYTES, SIGNATURE_BYTES, Enrolment
from protocols.roster import Name
from protocols.session import Session

TAG_BYTES = 16
MAX_BATCH = 64
# What surrounds the body of a message, in the longest case.
MAX_HEADER_BYTES = 4096
MAX_OVERHEAD_BYTES = MAX_HEADER_BYTES + SIGNATURE_BYTES + TAG_BYTES + 64
# Each key seals one content, ever, so that the nonce may be constant.
_ZERO_NONCE = bytes(12)


class Header(Wire, frozen=True):
    """The fields that the sender signs.

    Attributes:
        version, session: wire version and session id.
        sender, recipient, step: who says what to whom.
        capsule: the channel key, sealed to the recipient.
        digest: SHA-256 of capsule and body, 32 bytes, which binds both to the signature.
        batch: the digests of all messages that were sealed together with this one, in order, its
            own among them; empty for a message that stands alone.
    """

    version: int
    session: Digest
    sender: Name
    recipient: Name
    step: Name
    capsule: Annotated[bytes, Meta(max_length=SEALED_KEY_BYTES)]
    digest: Digest
    batch: Annotated[tuple[Digest, ...], Meta(max_length=MAX_BATCH)] = ()


class Message(Wire, frozen=True):
    """A message on the wire: canonical header, signature over it, and the encrypted content."""

    header_bytes: bytes
    signature: bytes
    body: bytes

    @property
    def header(self) -> Header:
        """The decoded header: claims, until `receive` has checked them.

        Raises:
            Malformed: too long, of another version, or not the canonical encoding of a header.
        """
        return self.read_header("")

    def read_header(self, party: str) -> Header:
        """Decode the header on behalf of a party, whom errors name.

        Raises:
            Malformed: as `header`.
        """
        size = len(self.header_bytes)
        if size > MAX_HEADER_BYTES:
            raise Malformed(f"header of {size} bytes, allowed: ≤ {MAX_HEADER_BYTES}", party=party)
        version = wire_version(self.header_bytes, party=party)
        if version != WIRE_VERSION:
            raise Malformed(
                f"wire version {version}, wanted {WIRE_VERSION}",
                party=party,
                fix="let all parties run the same version of secure-afl",
            )
        return decode(self.header_bytes, Header, party=party)

    @property
    def route(self) -> tuple[str, str]:
        """Recipient and step: a party says one thing on a route, ever."""
        header = self.header
        return header.recipient, header.step

    def __repr__(self) -> str:
        return f"<Message of {len(self.body)} bytes>"


class _Envelope(Wire, frozen=True):
    """A message whose body stays where it is."""

    header_bytes: bytes
    signature: bytes
    body: memoryview


_envelopes = msgspec.msgpack.Decoder(_Envelope)


def without_body(data: bytes, *, party: str = "") -> Message:
    """Read an encoded message's header and signature alone, in a time that its length does not set.

    Nothing is checked, not even that this is the message's one encoding.

    Raises:
        Malformed: no message; it names `party`.
    """
    try:
        envelope = _envelopes.decode(data)
    except msgspec.MsgspecError:
        raise Malformed("not a Message", party=party) from None
    return Message(envelope.header_bytes, envelope.signature, b"")


class Streamed(NamedTuple):
    """A content that is made while it is sealed, and never lies anywhere as a whole.

    Attributes:
        length: of all pieces together, in bytes.
        pieces: in order; each is used before the next is asked for.
    """

    length: int
    pieces: Iterable[bytes | memoryview]


class Channel(Secret, frozen=True):
    """The sender's end of one direction between two parties in one session."""

    recipient: str
    key: bytes
    capsule: bytes


def derive(key: bytes, session_id: bytes, *purpose: str, length: int = 32) -> bytes:
    """Derive a key bound to the session and to a purpose, by HKDF-SHA256 (RFC 5869)."""
    return HKDF(hashes.SHA256(), length, salt=session_id, info=encode(purpose)).derive(key)


def open_channel(session: Session, enrolment: Enrolment, recipient: str, secret: bytes) -> Channel:
    """Derive a channel key from the party's secret and seal it to `recipient`."""
    sender = enrolment.member.name
    key = derive(secret, session.id, "channel", sender, recipient)
    info = _channel_info(session, sender, recipient)
    return Channel(recipient, key, session.member(recipient).seal(key, info))


def seal(
    session: Session, enrolment: Enrolment, channel: Channel, step: str, content: bytes | Streamed
) -> Message:
    """Make the one message of this step on this channel; the same bytes each time."""
    sealed = _encrypt(session, enrolment, channel, step, content)
    return _sign(session, enrolment, channel, step, sealed, ())


def seal_together(
    session: Session,
    enrolment: Enrolment,
    step: str,
    contents: Sequence[tuple[Channel, bytes | Streamed]],
) -> list[Message]:
    """Make one message of this step on each channel.

    Each message is signed over the digests of all.
    """
    together = [_encrypt(session, enrolment, channel, step, data) for channel, data in contents]
    batch = tuple(sealed.digest for sealed in together)
    return [
        _sign(session, enrolment, channel, step, sealed, batch)
        for (channel, _), sealed in zip(contents, together, strict=True)
    ]


def check(session: Session, recipient: str, message: Message) -> Header:
    """Return the header, once it is for this session and recipient, and its sender signed it.

    Raises:
        Malformed, SessionMismatch, WrongRecipient, UnknownSender, BadSignature: in that order.
    """
    header = check_claims(session, recipient, message)
    check_signed(session, header, message)
    return header


def check_claims(session: Session, recipient: str, message: Message) -> Header:
    """Return the header of a message for this session and recipient, not yet verified.

    Raises:
        Malformed, SessionMismatch, WrongRecipient: in that order.
    """
    header = message.read_header(recipient)
    sizes = {len(digest) for digest in (header.digest, *header.batch)}
    if sizes != {32} or len(header.capsule) != SEALED_KEY_BYTES:
        raise Malformed("a digest or a sealed key of another length", party=recipient)
    if header.batch and header.digest not in header.batch:
        raise Malformed("a digest that is not among those sealed with it", party=recipient)
    if header.session != session.id:
        raise SessionMismatch(
            f"session {header.session.hex()[:16]}, this is {session.id.hex()[:16]}",
            party=recipient,
            fix="compare the two parties' session terms; they differ",
        )
    if header.recipient != recipient:
        raise WrongRecipient("addressed to another party", party=recipient)
    return header


def check_signed(session: Session, header: Header, message: Message) -> None:
    """Raise UnknownSender or BadSignature unless the named sender signed the header."""
    try:
        session.line(header.sender).verify(message.signature, _signed(message.header_bytes))
    except MessageRejected as error:
        raise type(error)(error.what, party=header.recipient) from None


def unseal(session: Session, enrolment: Enrolment, header: Header, body: bytes) -> bytes:
    """Open the content of a message whose header has been checked.

    Raises:
        BadSeal: sealed for another, or altered on its way.
    """
    info = _channel_info(session, header.sender, header.recipient)
    try:
        return open_content(session, enrolment.open(header.capsule, info), header, body)
    except BadSeal:
        raise BadSeal(
            f"content from '{header.sender}' does not open",
            party=header.recipient,
            step=header.step,
            fix="the sender must send it again",
        ) from None


def open_content(session: Session, channel_key: bytes, header: Header, body: bytes) -> bytes:
    """Open a content with the channel key that both of its ends have.

    Raises:
        BadSeal: the body is not the one that was signed, or another key sealed it.
    """
    key = _content_key(session, channel_key, header.sender, header.recipient, header.step)
    if _digest(header.capsule, body) != header.digest:
        raise BadSeal("the body is not the one that was signed")
    try:
        return AESGCM(key).decrypt(_ZERO_NONCE, body, None)
    except InvalidTag:
        raise BadSeal("the content does not open") from None


class _Sealed(NamedTuple):
    body: bytes
    digest: bytes


def _encrypt(
    session: Session, enrolment: Enrolment, channel: Channel, step: str, content: bytes | Streamed
) -> _Sealed:
    """Encrypt a content into the buffer of the body, and hash each piece while it is in cache."""
    if isinstance(content, bytes):
        content = Streamed(len(content), (content,))
    sender = enrolment.member.name
    key = _content_key(session, channel.key, sender, channel.recipient, step)
    encryptor = Cipher(algorithms.AES256(key), modes.GCM(_ZERO_NONCE)).encryptor()
    digest = _begin_digest(channel.capsule)
    # A file in memory gives its buffer away as bytes, where a bytearray would be copied.
    body = io.BytesIO()
    body.seek(content.length + TAG_BYTES - 1)
    body.write(bytes(1))
    at = 0
    with body.getbuffer() as buffer:
        for piece in content.pieces:
            # `update_into` asks for 15 bytes more than it writes: the tag's place.
            with buffer[at:] as free:
                written = encryptor.update_into(piece, free)
                digest.update(free[:written])
            at += written
        encryptor.finalize()
        assert at == content.length, "the pieces have the length that was said"
        buffer[at:] = encryptor.tag
    digest.update(encryptor.tag)
    return _Sealed(body.getvalue(), digest.digest())


def _sign(
    session: Session,
    enrolment: Enrolment,
    channel: Channel,
    step: str,
    sealed: _Sealed,
    batch: tuple[bytes, ...],
) -> Message:
    header = encode(
        Header(
            WIRE_VERSION,
            session.id,
            enrolment.member.name,
            channel.recipient,
            step,
            channel.capsule,
            sealed.digest,
            batch,
        )
    )
    return Message(header, enrolment.identity.sign(_signed(header)), sealed.body)


def _digest(capsule: bytes, body: bytes) -> bytes:
    """Hash what opens to the content: the sealed key, of fixed length, and the body."""
    digest = _begin_digest(capsule)
    digest.update(body)
    return digest.digest()


def _begin_digest(capsule: bytes) -> "hashlib._Hash":
    return hashlib.sha256(domain_tag("message body").encode() + capsule)


def _signed(header: bytes) -> bytes:
    return domain_tag("message header").encode() + header


def _channel_info(session: Session, sender: str, recipient: str) -> bytes:
    return encode((domain_tag("channel"), session.id, sender, recipient))


def _content_key(session: Session, key: bytes, sender: str, recipient: str, step: str) -> bytes:
    return derive(key, session.id, "content", sender, recipient, step)
