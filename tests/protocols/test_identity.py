"""Keys: endorsed for one session, saved and loaded whole, opening what is theirs and no more."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import Enrolment, Identity, Member, new_nonce
from protocols.codec import encode
from protocols.errors import BadKey, BadSeal, BadSignature, InvalidSession, Refused
from protocols.identity import MLKEM_PUBLIC_BYTES, SEAL_KEY_BYTES, _endorsed
from tests.kit.worlds import mutations

NONCE = bytes(range(32))
IDENTITY = Identity.generate("alice")
ENROLMENT = IDENTITY.enrol("client", NONCE)
SEALED = ENROLMENT.member.seal(b"k" * 32, b"info")


def changed(member: Member, **changes: object) -> Member:
    fields = {field: getattr(member, field) for field in Member.__struct_fields__}
    return Member(**(fields | changes))


def test_an_identity_is_saved_whole() -> None:
    again = Identity.load(IDENTITY.save())
    assert (again.name, again.verify_key) == ("alice", IDENTITY.verify_key)
    assert again.sign(b"data") == IDENTITY.sign(b"data")
    assert again.save() == IDENTITY.save()


def test_identities_and_enrolments_are_fresh() -> None:
    assert Identity.generate("alice").verify_key != IDENTITY.verify_key
    one, two = (IDENTITY.enrol("client", NONCE).member for _ in range(2))
    assert one.verify_key == two.verify_key
    assert one.seal_key[:MLKEM_PUBLIC_BYTES] != two.seal_key[:MLKEM_PUBLIC_BYTES]
    assert one.seal_key[MLKEM_PUBLIC_BYTES:] != two.seal_key[MLKEM_PUBLIC_BYTES:]


def test_an_enrolment_is_saved_whole() -> None:
    again = Enrolment.load(ENROLMENT.save())
    assert again.member == ENROLMENT.member
    assert again.open(SEALED, b"info") == b"k" * 32
    assert again.save() == ENROLMENT.save()


@settings(deadline=None)
@given(mutations())
def test_damaged_keys_are_refused_or_other_keys(damage: Callable[[bytes], bytes]) -> None:
    try:
        identity = Identity.load(damage(IDENTITY.save()))
    except BadKey:
        pass
    else:
        assert (identity.name, identity.verify_key) != ("alice", IDENTITY.verify_key)
    try:
        enrolment = Enrolment.load(damage(ENROLMENT.save()))
    except BadKey:
        pass
    else:
        # X25519 ignores five bits of its private key: then it is still the same key.
        same = enrolment.member == ENROLMENT.member
        assert not same or enrolment.open(SEALED, b"info") == b"k" * 32


@given(st.binary(max_size=120))
def test_any_bytes_are_no_keys(data: bytes) -> None:
    for load in (Identity.load, Enrolment.load):
        with pytest.raises(BadKey, match="not a saved"):
            load(data)


def test_keys_of_another_length_are_refused() -> None:
    for length in (0, 31, 33):
        with pytest.raises(BadKey):
            Identity.load(encode(("alice", bytes(length))))
    saved = IDENTITY.save()
    for mlkem, x25519 in ((63, 32), (64, 31), (65, 32), (0, 0), (32, 32)):
        with pytest.raises(BadKey, match="saved enrolment"):
            Enrolment.load(encode((saved, "client", NONCE, 0, bytes(mlkem), bytes(x25519))))
    with pytest.raises(BadKey, match="saved identity"):
        Enrolment.load(encode((b"no identity", "client", NONCE, 0, bytes(64), bytes(32))))
    whole = Enrolment.load(encode((saved, "client", NONCE, 0, bytes(64), bytes(32))))
    assert whole.member.line == ENROLMENT.member.line


# Bounds


@pytest.mark.parametrize("bound", [0, 1, 2**31, 2**63 - 1])
def test_a_bound_is_endorsed_and_saved(bound: int) -> None:
    enrolment = IDENTITY.enrol("client", NONCE, bound)
    enrolment.member.check(NONCE)
    assert enrolment.member.bound == bound
    assert Enrolment.load(enrolment.save()).member == enrolment.member
    for other in {0, 1, max(bound - 1, 0), min(bound + 1, 2**63 - 1)} - {bound}:
        with pytest.raises(BadKey, match="'alice' is not endorsed for this session"):
            changed(enrolment.member, bound=other).check(NONCE)


@pytest.mark.parametrize("bound", [-1, 2**63, True, 1.0, "1", None])
def test_a_bound_out_of_range_is_refused(bound: Any) -> None:
    with pytest.raises(InvalidSession, match=r"alice: bound .* allowed: integers from 0 to"):
        IDENTITY.enrol("client", NONCE, bound)


# Endorsements


def test_an_endorsement_holds_for_its_nonce_name_role_key_and_bound_only() -> None:
    member = ENROLMENT.member
    member.check(NONCE)
    other = Identity.generate("alice").enrol("client", NONCE).member
    for altered, nonce in (
        (member, new_nonce()),
        (changed(member, name="bob"), NONCE),
        (changed(member, role="server"), NONCE),
        (changed(member, bound=1), NONCE),
        (changed(member, seal_key=other.seal_key), NONCE),
        (changed(member, verify_key=other.verify_key), NONCE),
        (changed(member, endorsement=other.endorsement), NONCE),
        (changed(member, endorsement=b""), NONCE),
        (changed(member, endorsement=bytes(64)), NONCE),
        # A signature of the same key over something else is no endorsement.
        (changed(member, endorsement=IDENTITY.sign(member.seal_key)), NONCE),
        # Fields that run into each other.
        (changed(member, name="aliceclient", role=""), NONCE),
    ):
        with pytest.raises(BadKey, match=f"'{altered.name}' is not endorsed for this session"):
            altered.check(nonce)


@settings(deadline=None)
@given(st.integers(0, SEAL_KEY_BYTES * 8 - 1))
def test_no_bit_of_a_sealing_key_may_change(bit: int) -> None:
    key = bytearray(ENROLMENT.member.seal_key)
    key[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadKey):
        changed(ENROLMENT.member, seal_key=bytes(key)).check(NONCE)


def test_members_with_keys_of_another_length_are_refused() -> None:
    member = ENROLMENT.member
    for altered in (
        changed(member, verify_key=b""),
        changed(member, verify_key=member.verify_key + b"\0"),
        changed(member, seal_key=member.seal_key[:-1]),
        changed(member, seal_key=member.seal_key + b"\0"),
        changed(member, seal_key=b""),
    ):
        with pytest.raises(BadKey, match="wrong length"):
            altered.check(NONCE)


def test_signatures_hold_for_their_data_and_signer_only() -> None:
    member, signature = ENROLMENT.member, IDENTITY.sign(b"data")
    member.verify(signature, b"data")
    other = Identity.generate("alice")
    for altered, data in (
        (signature, b"Data"),
        (signature, b""),
        (signature[:-1], b"data"),
        (signature + b"\0", b"data"),
        (b"", b"data"),
        (other.sign(b"data"), b"data"),
    ):
        with pytest.raises(BadSignature, match="not signed by 'alice'"):
            member.verify(altered, data)
    # s + the group's order: the second signature that careless verifiers accept.
    order = 2**252 + 27742317777372353535851937790883648493
    malleated = int.from_bytes(signature[32:], "little") + order
    with pytest.raises(BadSignature):
        member.verify(signature[:32] + malleated.to_bytes(32, "little"), b"data")
    with pytest.raises(BadSignature):
        changed(member, verify_key=b"\xff" * 32).verify(signature, b"data")


# Seals


@settings(deadline=None)
@given(st.binary(max_size=100), st.binary(max_size=100))
def test_open_inverts_seal(secret: bytes, info: bytes) -> None:
    sealed = ENROLMENT.member.seal(secret, info)
    assert len(sealed) == 1120 + len(secret) + 16
    assert ENROLMENT.open(sealed, info) == secret
    assert ENROLMENT.member.seal(secret, info) != sealed


def test_a_seal_opens_for_its_recipient_session_and_purpose_only() -> None:
    with pytest.raises(BadSeal):
        ENROLMENT.open(SEALED, b"other info")
    for other in (IDENTITY.enrol("client", NONCE), Identity.generate("bob").enrol("x", NONCE)):
        with pytest.raises(BadSeal):
            other.open(SEALED, b"info")


@settings(deadline=None)
@given(mutations())
def test_altered_seals_do_not_open(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(BadSeal):
        ENROLMENT.open(damage(SEALED), b"info")


@settings(deadline=None)
@given(st.binary(max_size=1300))
def test_any_bytes_do_not_open(data: bytes) -> None:
    with pytest.raises(BadSeal):
        ENROLMENT.open(data, b"info")


def test_a_point_of_small_order_in_a_seal_does_not_open() -> None:
    for point in (bytes(32), b"\x01" + bytes(31)):
        with pytest.raises(BadSeal):
            ENROLMENT.open(SEALED[:1088] + point + SEALED[1120:], b"info")
    # X25519 ignores the uppermost bit of a point; the seal must not.
    twin = SEALED[:1119] + bytes([SEALED[1119] ^ 0x80]) + SEALED[1120:]
    with pytest.raises(BadSeal):
        ENROLMENT.open(twin, b"info")


GOOD_KEY = ENROLMENT.member.seal_key
UNUSABLE = (
    bytes(SEAL_KEY_BYTES),
    GOOD_KEY[:MLKEM_PUBLIC_BYTES] + bytes(32),
    b"\xff" * MLKEM_PUBLIC_BYTES + GOOD_KEY[MLKEM_PUBLIC_BYTES:],
)


def test_unusable_sealing_keys_are_refused_by_type() -> None:
    for key in (*UNUSABLE, GOOD_KEY[:-1], b""):
        with pytest.raises(BadKey, match="'alice' is unusable") as caught:
            changed(ENROLMENT.member, seal_key=key).seal(b"secret", b"info")
        assert isinstance(caught.value, Refused)


@pytest.mark.parametrize("key", UNUSABLE)
def test_an_enrolment_with_an_unusable_sealing_key_is_refused_whoever_signed_it(
    key: bytes,
) -> None:
    member = changed(ENROLMENT.member, seal_key=key)
    signed = changed(member, endorsement=IDENTITY.sign(_endorsed(NONCE, member)))
    with pytest.raises(BadKey, match="'alice' is unusable"):
        signed.check(NONCE)


def test_reprs_name_the_party_only() -> None:
    assert repr(IDENTITY) == "<Identity alice>"
    assert repr(ENROLMENT) == "<Enrolment alice as client>"


@pytest.mark.parametrize("bound", [-1, -919, 2**63, 2**64 - 1])
def test_a_signed_bound_out_of_range_is_refused(bound: int) -> None:
    """A negative one would take rows off the sum that all others' bounds must fit."""
    identity, nonce = Identity.generate("liar"), bytes(32)
    member = msgspec.structs.replace(identity.enrol("client", nonce).member, bound=bound)
    signed = msgspec.structs.replace(member, endorsement=identity.sign(_endorsed(nonce, member)))
    with pytest.raises(InvalidSession, match=f"bound {bound}, allowed: integers from 0"):
        signed.check(nonce)
    with pytest.raises(InvalidSession, match=f"bound {bound}"):
        identity.enrol("client", nonce, bound)
