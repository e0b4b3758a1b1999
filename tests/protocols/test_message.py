"""Messages: signed, sealed, bound to session, names and step; checked in a fixed order."""

import hashlib
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import Block, Layout, Plain
from protocols import message as messages
from protocols.codec import decode, encode
from protocols.errors import (
    BadSeal,
    BadSignature,
    Malformed,
    MessageRejected,
    ProtocolError,
    SessionMismatch,
    UnexpectedStep,
    UnknownSender,
    WrongRecipient,
)
from protocols.message import Header, Message, Streamed
from protocols.roster import Line
from protocols.session import Session
from tests.kit.worlds import World, make_world, mutations, resigned, with_header

LAYOUT = Layout((Block("all", 3, -100, 100),))
WORLD = make_world(Plain(), [np.arange(3)] * 3, LAYOUT, min_cohort=2)
SESSION = WORLD.session
ALICE, BOB, SERVER = (WORLD.enrolments[name] for name in ("client0", "client1", "server"))
SECRET = bytes(range(32))
CHANNEL = messages.open_channel(SESSION, ALICE, "server", SECRET)
CONTENT = b"a content that is long enough to be cut"
MESSAGE = messages.seal(SESSION, ALICE, CHANNEL, "step", CONTENT)


def opened(message: Message, session: Session = SESSION, world: World = WORLD) -> bytes:
    header = messages.check(session, "server", message)
    return messages.unseal(session, world.enrolments["server"], header, message.body)


def signed(message: Message, **changes: Any) -> Message:
    """Alice signs another header over the same body: what a sender, but no carrier, can do."""
    return resigned(ALICE, message, **changes)


def digest_of(capsule: bytes, body: bytes) -> bytes:
    """What a header must say of a sealed key and a body, without this package's help."""
    return hashlib.sha256(b"secure-afl/2 message body" + capsule + body).digest()


@settings(deadline=None)
@given(st.binary(max_size=2000), st.text(max_size=20))
def test_unseal_inverts_seal(content: bytes, step: str) -> None:
    message = messages.seal(SESSION, ALICE, CHANNEL, step, content)
    assert len(message.body) == len(content) + 16
    assert opened(message) == content
    assert decode(encode(message), Message) == message
    header = messages.check(SESSION, "server", message)
    assert (header.sender, header.recipient, header.step) == ("client0", "server", step)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=700), max_size=9))
def test_a_content_in_pieces_is_sealed_as_the_whole(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    streamed = Streamed(len(whole), iter(pieces))
    message = messages.seal(SESSION, ALICE, CHANNEL, "step", streamed)
    assert message == messages.seal(SESSION, ALICE, CHANNEL, "step", whole)
    assert type(message.body) is bytes
    key = messages._content_key(SESSION, CHANNEL.key, "client0", "server", "step")
    assert AESGCM(key).encrypt(bytes(12), whole, None) == message.body


def test_sealing_again_gives_the_same_bytes() -> None:
    assert messages.seal(SESSION, ALICE, CHANNEL, "step", CONTENT) == MESSAGE


def test_every_step_channel_and_session_has_a_key_of_its_own() -> None:
    """One key and the constant nonce twice would show the difference of two contents."""
    elsewhere = WORLD.with_terms(context=b"e" * 32)
    bodies = [
        messages.seal(session, sender, channel, step, bytes(64)).body
        for session in (SESSION, elsewhere)
        for sender, recipient in ((ALICE, "server"), (ALICE, "client1"), (BOB, "server"))
        for secret in (SECRET, bytes(32))
        for channel in [messages.open_channel(session, sender, recipient, secret)]
        for step in ("step", "other", "")
    ]
    assert len(set(bodies)) == len(bodies) == 36
    assert all(bytes(16) not in body for body in bodies)


def test_names_and_steps_do_not_run_into_each_other() -> None:
    keys = {
        messages.derive(SECRET, SESSION.id, *purpose)
        for purpose in (("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc"), ())
    }
    assert len(keys) == 6
    assert messages.derive(SECRET, SESSION.id, "a") != messages.derive(SECRET, bytes(32), "a")
    assert messages.derive(SECRET, bytes(32), "a") != messages.derive(bytes(32), bytes(32), "a")
    assert len(messages.derive(SECRET, SESSION.id, "a", length=80)) == 80


def test_the_header_carries_no_content() -> None:
    assert CONTENT[:8] not in encode(MESSAGE)
    assert SECRET not in encode(MESSAGE)
    assert CHANNEL.key not in encode(MESSAGE)


# The carrier


@settings(deadline=None)
@given(st.sampled_from(["header_bytes", "signature", "body"]), mutations())
def test_altered_messages_are_refused(field: str, damage: Callable[[bytes], bytes]) -> None:
    parts = {name: getattr(MESSAGE, name) for name in Message.__struct_fields__}
    parts[field] = damage(parts[field])
    with pytest.raises(MessageRejected) as caught:
        opened(Message(**parts))
    assert caught.value.party == "server"


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"version": 0}, Malformed),
        ({"version": 1}, Malformed),
        ({"version": 3}, Malformed),
        ({"version": 128}, Malformed),
        ({"version": -1}, Malformed),
        ({"digest": b""}, Malformed),
        ({"digest": bytes(31)}, Malformed),
        ({"digest": bytes(33)}, Malformed),
        ({"capsule": b""}, Malformed),
        ({"capsule": CHANNEL.capsule[:-1]}, Malformed),
        ({"capsule": CHANNEL.capsule + b"\0"}, Malformed),
        ({"batch": (bytes(32),)}, Malformed),
        ({"batch": (MESSAGE.header.digest, bytes(31))}, Malformed),
        ({"batch": (MESSAGE.header.digest,) * 65}, Malformed),
        ({"sender": "s" * 65}, Malformed),
        ({"recipient": "s" * 65}, Malformed),
        ({"step": "s" * 65}, Malformed),
        ({"session": bytes(33)}, Malformed),
        ({"session": bytes(32)}, SessionMismatch),
        ({"session": b""}, SessionMismatch),
        ({"recipient": "client1"}, WrongRecipient),
        ({"recipient": ""}, WrongRecipient),
        ({"sender": "client1"}, BadSignature),
        ({"sender": "server"}, BadSignature),
        ({"sender": "nobody"}, UnknownSender),
        ({"sender": ""}, UnknownSender),
        ({"step": "other"}, BadSeal),
        ({"digest": bytes(32)}, BadSeal),
        ({"capsule": bytes(len(CHANNEL.capsule))}, BadSeal),
        ({"capsule": CHANNEL.capsule[:-1] + bytes([CHANNEL.capsule[-1] ^ 1])}, BadSeal),
    ],
)
def test_each_field_of_the_header_is_checked(
    changes: dict[str, Any], wanted: type[MessageRejected]
) -> None:
    """Signed by the sender itself, so that the field and not the signature is what fails."""
    with pytest.raises(wanted) as caught:
        opened(signed(MESSAGE, **changes))
    assert caught.value.party == "server"
    with pytest.raises((wanted, BadSignature)):
        opened(with_header(MESSAGE, **changes))


def test_checks_come_in_their_order() -> None:
    """What is wrong in many ways is refused for the first, so that two terms show as two terms."""
    wrong: dict[str, Any] = {"session": bytes(32), "recipient": "x", "sender": "nobody"}
    for field, wanted in (
        ("session", SessionMismatch),
        ("recipient", WrongRecipient),
        ("sender", UnknownSender),
        ("", BadSignature),
    ):
        with pytest.raises(wanted):
            opened(with_header(MESSAGE, **wrong, digest=bytes(32)))
        wrong.pop(field, None)


def test_a_header_that_is_no_header_is_malformed() -> None:
    for header, reason in (
        (b"", "server: not a header of any version"),
        (b"\xc0", "server: not a header of any version"),
        (b"\x98", "server: not a header of any version"),
        (b"\x98\xa1a", "server: not a header of any version"),
        (MESSAGE.header_bytes + b"\0", "server: not .*Header"),
        (MESSAGE.header_bytes[:-1], "server: not .*Header"),
        (encode((2, SESSION.id)), "server: not .*Header"),
    ):
        message = Message(header, ALICE.identity.sign(messages._signed(header)), MESSAGE.body)
        with pytest.raises(Malformed, match=reason):
            opened(message)
        with pytest.raises(Malformed):
            _ = message.header


def test_a_signature_over_something_else_is_no_signature() -> None:
    header = MESSAGE.header_bytes
    for data in (header, messages._signed(header) + b"\0", b"secure-afl/1 message header" + header):
        with pytest.raises(BadSignature, match="not signed by 'client0'"):
            opened(Message(header, ALICE.identity.sign(data), MESSAGE.body))
    endorsement = ALICE.member.endorsement
    with pytest.raises(BadSignature):
        opened(Message(header, endorsement, MESSAGE.body))


# Capsules taken from elsewhere


def test_a_capsule_opens_in_its_session_direction_and_pair_only() -> None:
    elsewhere = WORLD.with_terms(context=b"e" * 32)
    for session, sender, recipient in (
        (elsewhere, ALICE, "server"),
        (SESSION, BOB, "server"),
        (SESSION, SERVER, "client0"),
        (SESSION, ALICE, "client1"),
    ):
        capsule = messages.open_channel(session, sender, recipient, SECRET).capsule
        with pytest.raises(BadSeal, match="content from 'client0' does not open"):
            opened(signed(MESSAGE, capsule=capsule))


def test_a_sender_may_not_pass_off_another_body() -> None:
    other = messages.seal(SESSION, ALICE, CHANNEL, "other", CONTENT)
    longer = messages.seal(SESSION, ALICE, CHANNEL, "step", CONTENT + b"!")
    for body in (other.body, longer.body, MESSAGE.body[:-1], MESSAGE.body + b"\0", b""):
        with pytest.raises(BadSeal):
            opened(Message(MESSAGE.header_bytes, MESSAGE.signature, body))


def test_one_header_and_signature_open_one_way() -> None:
    """A digest commits to sealed key and body, which an authentication tag does not.

    AES-GCM is not key-committing: whoever has two keys can make one body and tag that open under
    both. Here two sealed keys, or two bodies, are two digests, and a signature covers one.
    """
    other = messages.open_channel(SESSION, ALICE, "server", bytes(32))
    header = MESSAGE.header
    assert header.digest == digest_of(CHANNEL.capsule, MESSAGE.body)
    assert len(header.digest) == 32
    swapped = messages.seal(SESSION, ALICE, other, "step", CONTENT)
    for capsule, body in (
        (other.capsule, MESSAGE.body),
        (other.capsule, swapped.body),
        (CHANNEL.capsule, swapped.body),
    ):
        # The digest that was signed first does not stand for another pair, properly sealed or not.
        swap = signed(MESSAGE, capsule=capsule)
        with pytest.raises(BadSeal, match="content from 'client0' does not open"):
            opened(Message(swap.header_bytes, swap.signature, body))
        assert digest_of(capsule, body) != header.digest
    # Nor does what one key seals open under another, when header and digest are made to fit it.
    fitting = signed(MESSAGE, capsule=other.capsule, digest=digest_of(other.capsule, MESSAGE.body))
    with pytest.raises(BadSeal):
        opened(fitting)
    assert opened(swapped) == CONTENT


def test_the_boundary_between_sealed_key_and_body_is_fixed() -> None:
    """Else a byte could move from one to the other under one digest."""
    for moved in (1, 16):
        shorter = CHANNEL.capsule[:-moved]
        body = CHANNEL.capsule[-moved:] + MESSAGE.body
        shifted = signed(MESSAGE, capsule=shorter)
        assert digest_of(shorter, body) == shifted.header.digest
        with pytest.raises(Malformed, match="a sealed key of another length"):
            opened(Message(shifted.header_bytes, shifted.signature, body))


def test_the_header_signs_all_that_was_sealed_together() -> None:
    channels = [messages.open_channel(SESSION, ALICE, n, SECRET) for n in ("server", "client1")]
    one, two = messages.seal_together(
        SESSION, ALICE, "step", [(channel, CONTENT) for channel in channels]
    )
    assert one.header.batch == two.header.batch == (one.header.digest, two.header.digest)
    assert opened(one) == CONTENT
    for batch in ((two.header.digest,), (two.header.digest, two.header.digest)):
        with pytest.raises(Malformed, match="not among those sealed with it"):
            opened(signed(one, batch=batch))


# Lengths, before anything else


def peak_of(call: Callable[[], object]) -> int:
    """Bytes that a call takes at most beyond what was there."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def long_header(batch: int = 0, **fields: Any) -> bytes:
    """A canonical header of any size: what anybody can send, with names and ids of the session."""
    header = MESSAGE.header
    parts = {name: getattr(header, name) for name in Header.__struct_fields__}
    return encode(tuple((parts | {"batch": (bytes(32),) * batch} | fields).values()))


@pytest.mark.parametrize(
    "header",
    [long_header(batch=2_250_000), long_header(capsule=bytes(76 * 10**6)), bytes(76 * 10**6)],
    ids=["batch", "capsule", "noise"],
)
def test_a_header_of_many_megabytes_is_refused_without_decoding(header: bytes) -> None:
    """Nobody has signed it: it must cost no more than its length."""
    assert len(header) >= 76 * 10**6
    message = Message(header, bytes(64), b"")
    party = WORLD.party("server")
    party.start()

    def refuse() -> None:
        for check in (
            lambda: message.header,
            lambda: messages.check_claims(SESSION, "server", message),
            lambda: party.receive(message),
        ):
            with pytest.raises(Malformed, match=rf"header of {len(header)} bytes, allowed: ≤ 4096"):
                check()

    assert peak_of(refuse) < 10**6
    data = encode(message)

    def take() -> None:
        with pytest.raises(Malformed, match=rf"server: {len(data)} bytes, allowed: ≤ \d+$"):
            party.take(data)

    assert peak_of(take) < 10**6


def test_the_longest_header_fits() -> None:
    """Names of 64 characters, and as many digests as may be sealed together."""
    longest = long_header(
        batch=messages.MAX_BATCH, sender="s" * 64, recipient="r" * 64, step="t" * 64
    )
    assert len(longest) <= messages.MAX_HEADER_BYTES
    assert decode(longest, Header).batch == (bytes(32),) * messages.MAX_BATCH
    surrounded = encode(Message(longest, bytes(64), bytes(2**20 + messages.TAG_BYTES)))
    assert len(surrounded) <= 2**20 + messages.MAX_OVERHEAD_BYTES


def test_a_long_body_or_batch_is_refused_before_its_signature_is_verified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verified: list[bytes] = []
    verify = Line.verify

    def watched(self: Line, signature: bytes, data: bytes) -> None:
        verified.append(data)
        verify(self, signature, data)

    monkeypatch.setattr(Line, "verify", watched)
    party = WORLD.party("server")
    party.start()
    good = messages.seal(SESSION, ALICE, CHANNEL, "upload", encode((bytes(12),)))
    most = party.steps["upload"].most(SESSION) + messages.TAG_BYTES
    for message, reason in (
        (Message(good.header_bytes, good.signature, bytes(most + 1)), f"allowed: ≤ {most}$"),
        (signed(good, batch=(good.header.digest,) * 65), "not a Header"),
        (signed(good, batch=(bytes(32),) * 2), "not among those"),
        (signed(good, capsule=b""), "another length"),
    ):
        with pytest.raises(Malformed, match=reason):
            party.receive(message)
    assert verified == []
    party.receive(good)
    assert len(verified) == 1


def test_another_version_is_refused_with_both_named() -> None:
    """In version 1 a tag of 16 bytes stood where the digest is."""
    old = encode((1, SESSION.id, "client0", "server", "step", CHANNEL.capsule, bytes(16), ()))
    for header, version in ((old, 1), (long_header(version=3), 3)):
        message = Message(header, ALICE.identity.sign(messages._signed(header)), MESSAGE.body)
        with pytest.raises(
            Malformed, match=rf"server: wire version {version}, wanted 2.*the same version"
        ):
            opened(message)


def test_errors_say_who_and_what_but_not_what_a_peer_wrote() -> None:
    attack = "\x1b[2J root"
    for changes in (
        {"sender": attack},
        {"recipient": attack},
        {"step": attack},
        {"session": attack.encode()},
        {"sender": attack, "step": attack, "recipient": attack},
    ):
        for message in (with_header(MESSAGE, **changes), signed(MESSAGE, **changes)):
            party = WORLD.party("server")
            party.start()
            with pytest.raises(MessageRejected) as caught:
                party.receive(message)
            assert "root" not in str(caught.value)
            assert str(caught.value).startswith("server")
            assert str(caught.value).isprintable()


def test_a_step_that_the_party_does_not_have_is_unexpected() -> None:
    party = WORLD.party("server")
    party.start()
    with pytest.raises(UnexpectedStep, match=r"^server: no such step here"):
        party.receive(signed(MESSAGE, step="no such step"))


def test_an_error_names_party_step_and_fix() -> None:
    error = ProtocolError("what", party="who", step="when", fix="how")
    assert str(error) == "who at step 'when': what. how"
    assert str(ProtocolError("what")) == "what"
    assert str(ProtocolError("what", party="who")) == "who: what"
    assert str(ProtocolError("what", step="when")) == "step 'when': what"


def test_reprs_show_no_bytes() -> None:
    assert repr(MESSAGE) == f"<Message of {len(MESSAGE.body)} bytes>"
    assert repr(CHANNEL) == "<Channel>"


def test_header_decodes_to_what_was_signed() -> None:
    assert MESSAGE.header == Header(
        2, SESSION.id, "client0", "server", "step", CHANNEL.capsule, MESSAGE.header.digest
    )
    assert encode(MESSAGE.header) == MESSAGE.header_bytes
