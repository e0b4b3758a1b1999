"""Thousands of corrupted messages; `make fuzz` does more of the same."""

import random

import pytest

from protocols import Protocol
from protocols.codec import decode, encode
from protocols.message import Header, Message
from tests.protocols import fuzz
from tests.protocols.fuzz import PROTOCOLS, fuzz_codec, fuzz_protocol, fuzz_sessions

# Those that take longer are struck less often.
COUNTS = dict(zip(PROTOCOLS, (1000, 1000, 1000, 1000, 300, 200), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=str)
def test_corrupted_messages_break_nothing(protocol: Protocol) -> None:
    count = COUNTS[protocol]
    tally = fuzz_protocol(protocol, count, seed=1)
    assert tally.messages >= count
    # It has been everywhere: sums that leave a liar out, sums without a lost one, refusals.
    for what in ("outside: exact sum", "outside: refused", "inside: refused", "inside: a sum"):
        assert any(outcome.startswith(what) for outcome in tally.outcomes), str(tally)


@pytest.mark.slow
def test_damaged_encodings_are_refused_or_are_other_values() -> None:
    tally = fuzz_codec(15_000, seed=1)
    assert tally.outcomes["codec: refused"] > 7_000
    assert tally.outcomes["codec: decoded"] > 1_000


def test_damaged_sessions_are_refused_or_others() -> None:
    tally = fuzz_sessions(1000, seed=1)
    assert tally.outcomes["sessions: another"] > 50
    for error in ("Malformed", "InvalidSession", "BadKey"):
        assert tally.outcomes[f"sessions: refused, {error}"] > 10


def test_a_growth_of_memory_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fuzz.Memory()
    memory.check()
    monkeypatch.setattr(fuzz, "MAX_GROWTH_BYTES", -1)
    with pytest.raises(AssertionError, match="more than at the beginning"):
        memory.check()


def test_what_is_bent_is_another_encoding_mostly() -> None:
    rng = random.Random(0)
    target = fuzz.Target(PROTOCOLS[1], rng)
    for data in target.clean.values():
        content = target.world.content(data)
        header = decode(data, Message).header_bytes
        for whole in (content, header):
            bent = {fuzz.bent(rng, whole) for _ in range(30)}
            assert len(bent - {whole}) > 3
    assert encode(decode(header, Header)) == header
