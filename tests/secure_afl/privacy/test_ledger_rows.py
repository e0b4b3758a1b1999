"""Rows that come back under another name."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secure_afl.errors import LedgerRefusal
from secure_afl.features.reduction import random_reduction
from secure_afl.privacy.accounting import compose
from secure_afl.privacy.ledger import Ledger
from secure_afl.privacy.ledger.book import Mark
from secure_afl.privacy.ledger.rows import Rows, row_digests
from tests.secure_afl.privacy.test_ledger import BUDGET, spend

KEY = bytes(range(32))
RNG = np.random.default_rng(0)
NORTH = RNG.normal(size=(500, 12))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(tmp_path / "ledger.json", BUDGET, new=True)


@pytest.fixture
def exact(tmp_path: Path) -> Ledger:
    return Ledger.open(tmp_path / "exact.json", new=True)


def same(one: NDArray[np.floating], other: NDArray[np.floating]) -> bool:
    return row_digests(one, KEY) == row_digests(other, KEY)


def test_a_row_is_known_by_its_numbers() -> None:
    digests = row_digests(NORTH, KEY)
    assert len(digests) == 500
    assert list(digests) == sorted(digests)
    assert {len(digest) for digest in digests} == {8}
    assert same(NORTH, NORTH[::-1])
    assert same(NORTH, np.asfortranarray(NORTH))
    assert same(NORTH.astype(np.float32), NORTH.astype(np.float32).astype(np.float64))
    assert same(np.array([[0.0, 1.0]]), np.array([[-0.0, 1.0]]))
    assert not same(NORTH, NORTH + 1e-6)
    assert set(digests).isdisjoint(row_digests(NORTH, bytes(32)))
    assert row_digests(np.zeros((3, 4)), KEY) == ()
    assert len(row_digests(np.ones((3, 4)), KEY)) == 1
    for scale in (1e-100, 1e100):  # beyond what a float32 holds
        assert len(row_digests(NORTH * scale, KEY)) == 500
        assert same(NORTH * scale, NORTH[::-1] * scale)
        assert not same(NORTH * scale, NORTH * scale * 1.001)


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(0, 100))
def test_a_projection_of_fewer_rows_is_known_again(rows: int, start: int) -> None:
    """Matrix products of other shapes differ in their last bits."""
    reduction = random_reduction(12, 8, 0)
    whole = row_digests(reduction.apply(NORTH), KEY)
    part = row_digests(reduction.apply(NORTH[start : start + rows]), KEY)
    assert set(part) <= set(whole)


def test_rows_are_hashed_before_the_ledger_is_written(ledger: Ledger) -> None:
    before = ledger.row_digests(NORTH)
    assert not ledger.path.exists()
    spend(ledger, 1, mu=0.1)
    assert Ledger.open(ledger.path).row_digests(NORTH) == before


def digests_of(ledger: Ledger, file: Path) -> tuple[bytes, ...]:
    with np.load(file) as content:
        return ledger.row_digests(content["features"])


@pytest.mark.parametrize("how", ["copy", "hard link", "half", "one row", "relabelled"])
def test_data_under_another_name_are_recognised(
    exact: Ledger, ledger: Ledger, tmp_path: Path, how: str
) -> None:
    north, again = tmp_path / "north.npz", tmp_path / "again.npz"
    np.savez(north, features=NORTH, labels=np.zeros(500, dtype=np.int64))
    shared = 500
    if how == "copy":
        shutil.copy(north, again)
    elif how == "hard link":
        os.link(north, again)
    elif how == "relabelled":
        np.savez(again, features=NORTH[::-1], labels=np.ones(500, dtype=np.int64))
    else:
        shared = 250 if how == "half" else 1
        other = RNG.normal(size=(500 - shared, 12))
        np.savez(again, features=np.concatenate([other, NORTH[:shared]]))
    spend(exact, 1, "north", mu=None, rows=digests_of(exact, north))
    rows = digests_of(exact, again)
    said = rf"another run had an exact.*{shared} of 500 rows were in lineage 'north'"
    with pytest.raises(LedgerRefusal, match=said):
        exact.check("again", rows=rows, **charged(None))
    with pytest.raises(LedgerRefusal, match=said):
        spend(Ledger.open(exact.path), 2, "again", mu=None, rows=rows)
    assert exact.lineages == ("north",)
    # With noise there is one budget for both.
    for number in range(3):
        spend(ledger, number, "north", rows=digests_of(ledger, north))
    spend(ledger, 3, "again", rows=digests_of(ledger, again))
    assert ledger.shares("again") == ("north",)
    assert ledger.shares("north") == ("again",)
    assert ledger.spent("again") == ledger.spent("north")
    assert ledger.spent("again").releases == 4
    for lineage in ("north", "again"):  # without their rows they are known by then
        with pytest.raises(LedgerRefusal, match="exceed the budget"):
            spend(ledger, 4, lineage)


def charged(mu: float | None) -> Any:
    return {
        "run": b"other",
        "rounds": 1,
        "mu": mu,
        "distance": 0.0,
        "unit": "example",
        "neighbours": "add-remove",
        "mechanism": "any",
    }


def test_disjoint_data_have_budgets_of_their_own(exact: Ledger, ledger: Ledger) -> None:
    rows = [exact.row_digests(NORTH[start : start + 100]) for start in (0, 100, 200)]
    for number, own in enumerate(rows):
        spend(exact, number, f"site {number}", mu=None, rows=own)
    rows = [ledger.row_digests(NORTH[start : start + 100]) for start in (0, 100, 200)]
    for number, own in enumerate(rows):
        for session in range(4):
            spend(ledger, 10 * number + session, f"site {number}", rows=own)
        assert ledger.shares(f"site {number}") == ()
        assert ledger.spent(f"site {number}").releases == 4


def test_rows_that_come_later_are_the_lineage_too(exact: Ledger) -> None:
    rows = exact.row_digests(NORTH)
    spend(exact, 1, "north", run=b"run", rounds=2, mu=None, rows=rows[:100])
    spend(exact, 2, "north", run=b"run", rounds=2, mu=None, rows=rows[:200])
    with pytest.raises(LedgerRefusal, match="50 of 50 rows were in lineage 'north'"):
        spend(exact, 3, "south", mu=None, rows=rows[150:200])
    # A second piece of the lineage in one session is no second release, and is known, too.
    spend(exact, 2, "north", run=b"run", rounds=2, mu=None, rows=rows[200:300])
    assert exact.spent("north").releases == 2
    with pytest.raises(LedgerRefusal, match="50 of 50 rows"):
        spend(exact, 3, "south", mu=None, rows=rows[250:300])


def test_what_became_of_a_copy_is_still_the_data(exact: Ledger) -> None:
    """The third has no row of the first, but what was between them has."""
    rows = exact.row_digests(NORTH)
    spend(exact, 1, "first", mu=0.1, rows=rows[:200])
    spend(exact, 2, "second", mu=0.1, rows=rows[100:300])
    spend(exact, 3, "third", mu=None, rows=rows[250:400])
    assert exact.shares("third") == ("first", "second")
    with pytest.raises(LedgerRefusal, match="another run had an exact release"):
        spend(exact, 4, "first", mu=None, rows=rows[:200])


def test_a_row_at_two_clients_of_one_sum_counts_twice(ledger: Ledger, exact: Ledger) -> None:
    rows = ledger.row_digests(NORTH)
    spend(ledger, 1, "north", mu=0.1, rows=rows)
    spend(ledger, 1, "south", mu=0.1, rows=rows)
    spend(ledger, 2, "south", mu=0.1, rows=rows)
    assert ledger.runs("south")[0].mu == 0.1
    spent = ledger.spent("north")
    apart = Ledger.open(ledger.path.with_name("apart.json"), BUDGET, new=True)
    spend(apart, 1, mu=compose([0.2, 0.1]))
    assert spent.epsilon == pytest.approx(apart.spent("hips").epsilon)
    # An exact sum is one round for both.
    for lineage in ("north", "south"):
        spend(exact, 1, lineage, run=b"run", mu=None, rows=exact.row_digests(NORTH))
    with pytest.raises(LedgerRefusal, match="has had 1"):
        spend(exact, 2, "south", run=b"run", mu=None)


def test_a_recorded_session_is_judged_again_when_its_rows_turn_out_to_be_others(
    exact: Ledger,
) -> None:
    rows = exact.row_digests(NORTH)
    spend(exact, 1, "north", mu=None, rows=rows[:100])
    spend(exact, 2, "south", mu=None, rows=rows[100:200])
    with pytest.raises(LedgerRefusal, match="1 of 101 rows were in lineage 'north'"):
        spend(exact, 2, "south", mu=None, rows=rows[99:200])


def test_what_was_given_back_frees_a_copy(exact: Ledger) -> None:
    rows = exact.row_digests(NORTH)
    spend(exact, 1, "north", mu=None, rows=rows)
    exact.void(b"s\1", "it failed")
    spend(exact, 2, "copy", mu=None, rows=rows)


def test_many_lineages_are_named_in_part(exact: Ledger) -> None:
    rows = exact.row_digests(NORTH)
    for number in range(5):
        own = rows[100 * number : 100 * (number + 1) - number]
        spend(exact, number, f"site {number}", mu=None, rows=own)
    with pytest.raises(LedgerRefusal) as refusal:
        spend(exact, 9, "all", mu=None, rows=rows)
    said = "100 of 500 rows were in lineage 'site 0', 99 of 500 rows were in lineage 'site 1', "
    assert said in str(refusal.value)
    assert "and in 2 more lineages" in str(refusal.value)


def test_the_file_of_rows_is_read_once_and_grows(tmp_path: Path) -> None:
    file, rows = tmp_path / "rows", row_digests(NORTH, KEY)
    mark = Mark()
    writing = Rows(file)
    assert writing.unknown(mark, 0, rows) == list(rows)
    first = writing.append(mark, 0, rows[:100])
    second = writing.append(first, 1, rows[50:200])
    for reading in (writing, Rows(file)):
        assert reading.shared(second, 2, rows) == {0: 100, 1: 150}
        assert reading.shared(second, 0, rows) == {1: 150}
        assert reading.unknown(second, 1, rows[150:]) == list(rows[200:])
        assert reading.shared(first, 2, rows) == {0: 100}
        assert reading.shared(second, 2, rows) == {0: 100, 1: 150}
    assert file.stat().st_size == second.bytes == 2 * 8 + 250 * 8
