"""Messages: signed, sealed, bound to session, names and step; checked in a fixed order."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
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
    UnknownSender,
    WrongRecipient,
)
from protocols.message import Header, Message
from protocols.session import Session
from tests.kit.worlds import World, make_world, mutations, with_header

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
    header = with_header(message, **changes).header_bytes
    return Message(header, ALICE.identity.sign(messages._signed(header)), message.body)


@settings(deadline=None)
@given(st.binary(max_size=2000), st.text(max_size=20))
def test_unseal_inverts_seal(content: bytes, step: str) -> None:
    message = messages.seal(SESSION, ALICE, CHANNEL, step, content)
    assert len(message.body) == len(content) + 16
    assert opened(message) == content
    assert decode(encode(message), Message) == message
    header = messages.check(SESSION, "server", message)
    assert (header.sender, header.recipient, header.step) == ("client0", "server", step)


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
        ({"version": 2}, Malformed),
        ({"tag": b""}, Malformed),
        ({"tag": bytes(15)}, Malformed),
        ({"tag": bytes(17)}, Malformed),
        ({"session": bytes(32)}, SessionMismatch),
        ({"session": b""}, SessionMismatch),
        ({"recipient": "client1"}, WrongRecipient),
        ({"recipient": ""}, WrongRecipient),
        ({"sender": "client1"}, BadSignature),
        ({"sender": "server"}, BadSignature),
        ({"sender": "nobody"}, UnknownSender),
        ({"sender": ""}, UnknownSender),
        ({"step": "other"}, BadSeal),
        ({"tag": bytes(16)}, BadSeal),
        ({"capsule": b""}, BadSeal),
        ({"capsule": CHANNEL.capsule[:-1]}, BadSeal),
        ({"capsule": CHANNEL.capsule + b"\0"}, BadSeal),
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
            opened(with_header(MESSAGE, **wrong, tag=bytes(16)))
        wrong.pop(field, None)


def test_a_header_that_is_no_header_is_malformed() -> None:
    for header in (b"", b"\xc0", MESSAGE.header_bytes + b"\0", encode((1, SESSION.id))):
        message = Message(header, ALICE.identity.sign(messages._signed(header)), MESSAGE.body)
        with pytest.raises(Malformed, match=r"server: not .*Header"):
            opened(message)
        with pytest.raises(Malformed):
            _ = message.header


def test_a_signature_over_something_else_is_no_signature() -> None:
    header = MESSAGE.header_bytes
    for data in (header, messages._signed(header) + b"\0", b"secure-afl/1 sealing key" + header):
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
    for body in (other.body, MESSAGE.body[:-1], MESSAGE.body + b"\0", b""):
        with pytest.raises(BadSeal):
            opened(Message(MESSAGE.header_bytes, MESSAGE.signature, body))


def test_the_signature_covers_the_whole_tag() -> None:
    """With a shorter tag in the header, its rest would travel in the body, unsigned."""
    tag = MESSAGE.header.tag
    whole = signed(MESSAGE, tag=b"")
    shifted = Message(whole.header_bytes, whole.signature, MESSAGE.body + tag)
    with pytest.raises(Malformed, match="tag of 0 bytes, wanted 16"):
        opened(shifted)


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
        1, SESSION.id, "client0", "server", "step", CHANNEL.capsule, MESSAGE.header.tag
    )
    assert encode(MESSAGE.header) == MESSAGE.header_bytes
