"""Parties that were started twice, sessions that were given back, and sums that came out."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from secure_afl.errors import ConfigError, LedgerRefusal
from secure_afl.privacy.accounting import compose
from secure_afl.privacy.ledger import Budget, Ledger
from tests.secure_afl.privacy.test_ledger import BUDGET, ONE_OF_FOUR, spend


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.json"


@pytest.fixture
def ledger(path: Path) -> Ledger:
    return Ledger.open(path, BUDGET, new=True)


@pytest.fixture
def exact(tmp_path: Path) -> Ledger:
    return Ledger.open(tmp_path / "exact.json", new=True)


def test_a_party_is_one_release_however_often_it_comes_back(ledger: Ledger, path: Path) -> None:
    for _ in range(3):
        spend(ledger, 1, party=b"one")
    assert ledger.spent("hips").releases == 1
    assert json.loads(path.read_text())["entries"][0]["party"] == b"one".hex()


def test_a_party_that_was_started_twice_releases_twice(ledger: Ledger) -> None:
    for party in (b"", b"one", b"two"):
        spend(ledger, 1, party=party, rounds=9)
    assert ledger.spent("hips").releases == 3
    entries = ledger.entries("hips")
    assert entries[2].epsilon == pytest.approx(ledger.spent("hips").epsilon)
    assert ledger.runs("hips")[0].mu == pytest.approx(compose([ONE_OF_FOUR] * 3))
    assert ledger.runs("hips")[0].used == 3
    spend(ledger, 1, party=b"three", rounds=9)
    with pytest.raises(LedgerRefusal, match="exceed the budget"):
        spend(ledger, 1, party=b"four", rounds=9)
    with pytest.raises(LedgerRefusal, match="other terms"):
        spend(ledger, 1, party=b"five", rounds=9, mu=0.001)


def test_an_exact_sum_has_one_party_a_round(exact: Ledger) -> None:
    spend(exact, 1, mu=None, party=b"one")
    with pytest.raises(LedgerRefusal, match="declares 1 rounds, and has had 1"):
        spend(exact, 1, mu=None, party=b"two")
    spend(exact, 1, mu=None, party=b"one")


def test_what_is_given_back_stays_and_costs_nothing(ledger: Ledger, path: Path) -> None:
    for number in range(4):
        spend(ledger, number)
    with pytest.raises(LedgerRefusal, match="secure-afl ledger void"):
        spend(ledger, 4)
    ledger.void(b"s\2", "the aggregator vanished", b"signed")
    assert ledger.spent("hips").releases == 3
    entry = Ledger.open(path).entries("hips")[2]
    assert entry.void is not None
    assert entry.void.reason == "the aggregator vanished"
    assert entry.void.evidence == hashlib.sha256(b"signed").hexdigest()
    assert ledger.runs("hips")[2][:5] == (b"r\2".hex(), 0, 1, ("7302",), ("7302",))
    assert ledger.runs("hips")[2].mu == 0
    spend(ledger, 4)
    with pytest.raises(LedgerRefusal, match="exceed the budget"):
        spend(ledger, 5)


def test_giving_back_twice_changes_nothing(ledger: Ledger, path: Path) -> None:
    spend(ledger, 1)
    ledger.void(b"s\1", "first")
    before = path.read_bytes()
    ledger.void(b"s\1", "second", b"more")
    assert path.read_bytes() == before


def test_a_round_that_was_given_back_can_be_had_again(exact: Ledger) -> None:
    for session in (1, 2):
        spend(exact, session, run=b"run", rounds=2, mu=None)
    with pytest.raises(LedgerRefusal, match="has had 2"):
        spend(exact, 3, run=b"run", rounds=2, mu=None)
    exact.void(b"s\2", "it failed")
    spend(exact, 3, run=b"run", rounds=2, mu=None)
    with pytest.raises(LedgerRefusal, match="has had 2"):
        spend(exact, 4, run=b"run", rounds=2, mu=None)
    # And another run may begin once nothing of the first is left.
    for session in (1, 3):
        exact.void(b"s" + bytes([session]), "it failed")
    spend(exact, 5, mu=None)
    with pytest.raises(LedgerRefusal, match="another run had an exact release"):
        spend(exact, 6, mu=None)


def test_a_session_that_was_given_back_is_over(ledger: Ledger) -> None:
    spend(ledger, 1, party=b"one")
    ledger.void(b"s\1", "it failed")
    # A party whose data were moved has the same vector.
    for changes in ({"party": b"one"}, {"party": b"two"}, {"party": b"one", "lineage": "moved"}):
        with pytest.raises(LedgerRefusal, match="was given back"):
            spend(ledger, 1, **changes)
    assert ledger.spent("hips").releases == 0
    # Another client in this ledger knows nothing of that, and is charged.
    spend(ledger, 1, "knees", party=b"other")
    assert ledger.spent("knees").releases == 1


def test_of_two_clients_of_a_session_each_gives_its_own_release_back(ledger: Ledger) -> None:
    spend(ledger, 1, "hips", party=b"one")
    spend(ledger, 1, "knees", party=b"two")
    ledger.void(b"s\1", "nothing was sent", lineage="hips")
    assert [ledger.spent(name).releases for name in ("hips", "knees")] == [0, 1]
    spend(ledger, 1, "knees", party=b"two")
    with pytest.raises(LedgerRefusal, match="no release of session 7301 about lineage 'elbows'"):
        ledger.void(b"s\1", "nothing was sent", lineage="elbows")


def test_of_two_parties_of_a_lineage_each_gives_its_own_release_back(ledger: Ledger) -> None:
    for party in (b"one", b"two"):
        spend(ledger, 1, party=party, rounds=2)
    ledger.void(b"s\1", "nothing was sent", lineage="hips", party=b"one")
    assert [entry.counts for entry in ledger.entries("hips")] == [False, True]
    assert ledger.runs("hips")[0].void == ()
    with pytest.raises(LedgerRefusal, match=r"no release .* by this party"):
        ledger.void(b"s\1", "nothing was sent", lineage="hips", party=b"four")
    ledger.void(b"s\1", "nothing was sent", lineage="hips", party=b"two")
    assert ledger.runs("hips")[0].void == ("7301",)


def test_a_sum_that_one_client_knows_of_is_given_back_by_none(ledger: Ledger) -> None:
    spend(ledger, 1, "hips")
    ledger.released(b"s\1")
    spend(ledger, 1, "knees")
    with pytest.raises(LedgerRefusal, match="came out"):
        ledger.void(b"s\1", "it failed", lineage="knees")
    assert ledger.spent("knees").releases == 1


def test_what_is_asked_before_a_session_is_asked_of_that_session(exact: Ledger) -> None:
    """Two clients with a row in common have one round together, and not two."""
    spend(exact, 1, "hips", run=b"run", mu=None, rows=[b"same row"])
    terms: dict[str, Any] = {"distance": 0.0, "unit": "example", "neighbours": "add-remove"}
    terms |= {"run": b"run", "rounds": 1, "mu": None, "mechanism": "none", "rows": [b"same row"]}
    exact.check("knees", session=b"s\1", **terms)
    with pytest.raises(LedgerRefusal, match="declares 1 rounds, and has had 1"):
        exact.check("knees", **terms)


def test_all_lineages_of_a_session_are_given_back(ledger: Ledger) -> None:
    spend(ledger, 1)
    spend(ledger, 1, "knees")
    spend(ledger, 2, "knees")
    ledger.void(b"s\1", "it failed")
    assert [ledger.spent(name).releases for name in ("hips", "knees")] == [0, 1]


def test_a_sum_that_came_out_is_not_given_back(ledger: Ledger, path: Path) -> None:
    spend(ledger, 1)
    spend(ledger, 1, "knees")
    ledger.released(b"s\1")
    before = path.read_bytes()
    ledger.released(b"s\1")
    with pytest.raises(LedgerRefusal, match="came out"):
        ledger.void(b"s\1", "it failed")
    assert path.read_bytes() == before
    assert all(entry.released for entry in ledger.entries("knees"))
    assert ledger.spent("hips").releases == 1


def test_a_sum_that_came_out_after_all_counts_again(ledger: Ledger) -> None:
    spend(ledger, 1)
    ledger.void(b"s\1", "it failed")
    ledger.released(b"s\1")
    assert ledger.spent("hips").releases == 1
    (entry,) = ledger.entries("hips")
    assert entry.void is not None
    assert entry.released


@pytest.mark.parametrize("reason", ["", "x" * 1001, "\ud800"])
def test_a_reason_is_given(ledger: Ledger, reason: str) -> None:
    spend(ledger, 1)
    with pytest.raises(ConfigError, match=r"reason|cannot record"):
        ledger.void(b"s\1", reason)
    assert ledger.spent("hips").releases == 1


def test_sessions_that_are_not_known_are_refused(ledger: Ledger) -> None:
    spend(ledger, 1)
    assert ledger.knows(b"s\1")
    assert not ledger.knows(b"s\2")
    assert ledger.knows(b"s\1", "hips", b"")
    assert not ledger.knows(b"s\1", "knees")
    assert not ledger.knows(b"s\1", "hips", b"another party")
    with pytest.raises(LedgerRefusal, match=r"no release of session 7302; .*show --json"):
        ledger.void(b"s\2", "why")
    with pytest.raises(LedgerRefusal, match="no release of session 7302"):
        ledger.released(b"s\2")


@pytest.mark.parametrize(
    "changes", [{"party": bytes(65)}, {"rows": [b"short"]}, {"rows": bytes(8)}]
)
def test_arguments_out_of_range_are_refused(ledger: Ledger, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        spend(ledger, 1, **changes)


def test_runs_are_summed_up(ledger: Ledger) -> None:
    spend(ledger, 1, run=b"a", rounds=3, mu=0.1)
    spend(ledger, 2, run=b"b", rounds=1, mu=0.2)
    spend(ledger, 3, run=b"a", rounds=3, mu=0.1)
    first, second = ledger.runs("hips")
    assert (first.run, first.used, first.rounds, first.sessions) == ("61", 2, 3, ("7301", "7303"))
    assert first.mu == pytest.approx(compose([0.1, 0.1]))
    assert first.epsilon == pytest.approx(ledger.spent("hips").epsilon)
    assert second.epsilon is not None
    assert first.epsilon is not None
    assert second.epsilon < first.epsilon
    free = Ledger.open(ledger.path.with_name("free.json"), new=True)
    spend(free, 1, mu=None)
    assert (free.runs("hips")[0].mu, free.runs("hips")[0].epsilon) == (None, None)
    assert Budget(2.0, 1e-5, "example", "add-remove") == ledger.budget
