"""The client's ledger: what it refuses, and that it survives crashes, races and damage."""

import json
import math
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dp_accounting
import pytest
from dp_accounting import pld
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_afl.errors import ConfigError, LedgerRefusal
from secure_afl.privacy.accounting import (
    compose,
    delta_of,
    distance_delta,
    epsilon_of,
    mu_of,
    noise_multiplier,
)
from secure_afl.privacy.ledger import Budget, Ledger

ROOT = Path(__file__).parents[3]
BUDGET = Budget(2.0, 1e-5, "example", "add-remove")
ONE_OF_FOUR = 1 / noise_multiplier(BUDGET.epsilon, BUDGET.delta, 4)


def spend(ledger: Ledger, number: int, lineage: str = "hips", **changes: Any) -> None:
    terms: dict[str, Any] = {
        "run": b"r" + bytes([number]),
        "session": b"s" + bytes([number]),
        "rounds": 1,
        "mu": ONE_OF_FOUR,
        "distance": 0.0,
        "unit": "example",
        "neighbours": "add-remove",
        "mechanism": "Gaussian",
    }
    ledger.authorise(lineage, **(terms | changes))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledgers" / "ledger.json"


@pytest.fixture
def ledger(path: Path) -> Ledger:
    return Ledger.open(path, BUDGET, new=True)


def test_a_budget_holds_what_was_calibrated_for_it_and_no_more(ledger: Ledger) -> None:
    assert ledger.spent("hips") == (0.0, 0)
    for session in range(4):
        spend(ledger, session)
    epsilon, releases = ledger.spent("hips")
    assert releases == 4
    assert epsilon == pytest.approx(BUDGET.epsilon, rel=1e-6)
    with pytest.raises(LedgerRefusal) as refusal:
        spend(ledger, 4)
    for words in ("'hips'", "exceed the budget", "mu = 0.2", "Spent: 4", "epsilon 2 of", "Left: "):
        assert words in str(refusal.value)
    assert ledger.spent("hips").releases == 4
    spend(ledger, 4, "knees")  # other data has a budget of its own


def test_it_is_a_readable_file_for_its_owner_alone(ledger: Ledger, path: Path) -> None:
    spend(ledger, 1, mechanism="discrete Gaussian of 10 shares")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    files = {"ledger.json", "ledger.json.lock", "ledger.json.key"}
    assert {file.name for file in path.parent.iterdir()} == files
    entry = json.loads(path.read_text())["entries"][0]
    assert entry["session"] == "7301"
    assert entry["mechanism"] == "discrete Gaussian of 10 shares"
    assert entry["epsilon"] == pytest.approx(epsilon_of(1e-5, ONE_OF_FOUR))
    assert entry["when"].endswith("Z")
    (read,) = Ledger.open(path).entries("hips")
    assert read.mu == ONE_OF_FOUR
    assert Ledger.open(path).budget == BUDGET


def test_a_session_is_charged_once_and_only_with_its_terms(ledger: Ledger, path: Path) -> None:
    spend(ledger, 1)
    spend(ledger, 1)
    spend(Ledger.open(path), 1, mechanism="in other words")
    assert ledger.spent("hips").releases == 1
    for changes in ({"mu": 0.001}, {"mu": None}, {"run": b"x"}, {"distance": 1e-9}, {"rounds": 2}):
        with pytest.raises(LedgerRefusal, match="other terms"):
            spend(ledger, 1, **changes)


def test_rounds_are_those_declared(ledger: Ledger) -> None:
    for session in range(2):
        spend(ledger, session, run=b"run", rounds=2, mu=0.01)
    with pytest.raises(LedgerRefusal, match="has had 2"):
        spend(ledger, 2, run=b"run", rounds=2, mu=0.01)
    with pytest.raises(LedgerRefusal, match="declares 3 rounds, and had declared 2"):
        spend(ledger, 2, run=b"run", rounds=3, mu=0.01)
    spend(ledger, 2, run=b"other", rounds=3, mu=0.01)


def test_a_refusal_speaks_of_epsilon(ledger: Ledger) -> None:
    budget = ledger.budget
    assert budget is not None
    spend(ledger, 1, mu=0.1)
    with pytest.raises(LedgerRefusal) as refused:
        spend(ledger, 2, mu=3.0)
    asked = epsilon_of(budget.delta, 3.0)
    words = f"Asked: a release of epsilon = {asked:.4g} at delta {budget.delta:g} (mu = 3)"
    assert words in str(refused.value)
    # What is left composes with what was spent to the budget.
    mu = math.sqrt(mu_of(budget.epsilon, budget.delta) ** 2 - 0.1**2)
    left = epsilon_of(budget.delta, mu)
    assert f"Left: releases of epsilon ≤ {left:.4g} at delta 1e-05 (mu ≤ {mu:.4g}) together" in str(
        refused.value
    )


def test_distances_cost_delta(ledger: Ledger) -> None:
    distance = 0.2e-5 / (1 + math.e**2)
    spend(ledger, 1, mu=0.1, distance=distance)
    spend(ledger, 2, mu=0.1, distance=distance)
    epsilon, mu = ledger.spent("hips").epsilon, compose([0.1, 0.1])
    assert epsilon is not None
    assert epsilon_of(1e-5, mu) < epsilon < 1.1 * epsilon_of(0.8e-5, mu)
    assert delta_of(epsilon, mu) + distance_delta(epsilon, 2 * distance) <= 1e-5
    with pytest.raises(LedgerRefusal, match="Left: releases of epsilon ≤"):
        spend(ledger, 3, mu=0.3, distance=20 * distance)
    # A larger budget allows more, and the same releases cost the same.
    ledger.raise_budget(Budget(50.0, 1e-5, "example", "add-remove"))
    assert ledger.spent("hips").epsilon == epsilon
    spend(ledger, 3, mu=0.2, distance=distance)


def test_exact_releases_and_budgets_exclude_each_other(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(LedgerRefusal, match="infinite epsilon"):
        spend(ledger, 1, mu=None)
    free = Ledger.open(tmp_path / "free.json", new=True)
    spend(free, 1, mu=None)
    assert free.spent("hips") == (None, 1)
    bound = Ledger.open(tmp_path / "free.json", BUDGET)
    assert bound.spent("hips") == (math.inf, 1)
    with pytest.raises(LedgerRefusal, match="exceed the budget"):
        spend(bound, 2, mu=0.01)
    spend(bound, 2, "knees", mu=0.01)
    # The budget came into the file, and binds who opened it without one.
    with pytest.raises(LedgerRefusal, match="there is a budget"):
        spend(free, 3, "elbows", mu=None)


def test_without_a_budget_exact_releases_are_those_of_one_run(path: Path) -> None:
    ledger = Ledger.open(path, new=True)
    spend(ledger, 1)
    spend(ledger, 2, run=b"run", rounds=2, mu=None)
    spend(ledger, 3, run=b"run", rounds=2, mu=None)
    spend(ledger, 3, run=b"run", rounds=2, mu=None)
    with pytest.raises(LedgerRefusal, match="has had 2"):
        spend(ledger, 4, run=b"run", rounds=2, mu=None)
    with pytest.raises(LedgerRefusal, match=r"another run had an exact release.*of one exact sum"):
        spend(ledger, 5, mu=None)
    spend(ledger, 6)
    spend(ledger, 7, "knees", mu=None)
    assert ledger.spent("hips") == (None, 4)


def test_promises_of_other_kinds_do_not_add_up(ledger: Ledger, path: Path, tmp_path: Path) -> None:
    for changes in ({"unit": "client"}, {"neighbours": "replace-one"}):
        with pytest.raises(
            LedgerRefusal, match=r"does not add up.*of the budget.s kind, example and"
        ):
            spend(ledger, 1, **changes)
    spend(ledger, 1, "knees")
    with pytest.raises(LedgerRefusal, match="asked: epsilon 2"):
        Ledger.open(path, Budget(2.0, 1e-5, "client", "add-remove"))
    free = Ledger.open(tmp_path / "free.json", new=True)
    spend(free, 1, unit="client", mu=0.01)
    with pytest.raises(LedgerRefusal, match="exceed the budget"):
        spend(Ledger.open(tmp_path / "free.json", BUDGET), 2, mu=0.01)


def test_a_budget_is_raised_only_deliberately(ledger: Ledger, path: Path) -> None:
    spend(ledger, 9, "knees")
    for epsilon, delta in ((2.1, 1e-5), (1.0, 2e-5)):
        with pytest.raises(LedgerRefusal, match="raise the ledger's budget first"):
            Ledger.open(path, Budget(epsilon, delta, "example", "add-remove"))
    small = Ledger.open(path, Budget(0.1, 1e-6, "example", "add-remove"))
    with pytest.raises(LedgerRefusal, match="exceed the budget"):
        spend(small, 1)
    spend(ledger, 1)
    with pytest.raises(LedgerRefusal, match="does not raise it"):
        ledger.raise_budget(Budget(3.0, 1e-6, "example", "add-remove"))
    larger = Budget(3.0, 1e-5, "example", "add-remove")
    ledger.raise_budget(larger)
    assert ledger.budget == Ledger.open(path, larger).budget == Ledger.open(path).budget == larger
    assert ledger.spent("hips").releases == 1


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["hips", "knees"]),
            st.integers(0, 5),  # run
            st.integers(0, 12),  # session
            st.sampled_from([0.01, 0.1, 0.3, 0.7, None]),
            st.sampled_from([0.0, 1e-9, 2e-7]),
            st.integers(1, 4),
        ),
        max_size=25,
    )
)
def test_no_sequence_exceeds_the_budget(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[Any, ...]]
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "ledger.json"
    ledger = Ledger.open(path, BUDGET, new=True)
    granted: dict[str, dict[int, tuple[float, float]]] = {"hips": {}, "knees": {}}
    for lineage, run, session, mu, distance, rounds in asked:
        try:
            spend(
                ledger, session, lineage, run=bytes([run]), mu=mu, distance=distance, rounds=rounds
            )
        except LedgerRefusal:
            continue
        assert mu is not None
        granted[lineage].setdefault(session, (mu, distance))
    for lineage, releases in granted.items():
        spent = ledger.spent(lineage)
        assert spent.releases == len(releases)
        if not releases:
            continue
        distance = math.fsum(d for _, d in releases.values())
        sigma = compose(mu for mu, _ in releases.values()) ** -1
        assert spent.epsilon is not None
        assert spent.epsilon <= BUDGET.epsilon * (1 + 1e-6)
        charge = (1 + math.exp(spent.epsilon)) * distance
        theirs = dp_accounting.get_epsilon_gaussian(sigma, BUDGET.delta - charge)
        # Near the least ε that this distance leaves room for, and not below it.
        assert theirs * (1 - 1e-6) <= spent.epsilon <= 1.01 * theirs + 1e-3


def test_a_distance_that_takes_most_of_delta_still_leaves_an_epsilon(ledger: Ledger) -> None:
    for number, mu in enumerate((0.3, 0.01, 0.3, 0.01)):
        spend(ledger, number, mu=mu, distance=2e-7)
    epsilon, mu = ledger.spent("hips").epsilon, compose([0.3, 0.01, 0.3, 0.01])
    assert epsilon is not None
    assert distance_delta(epsilon, 8e-7) > 5e-6
    assert delta_of(epsilon, mu) + distance_delta(epsilon, 8e-7) <= 1e-5
    assert delta_of(0.999 * epsilon, mu) + distance_delta(0.999 * epsilon, 8e-7) > 1e-5


def test_runs_compose_as_another_accountant_composes_them(ledger: Ledger) -> None:
    mus = [0.05, 0.2, 0.1, 0.15, 0.01]
    accountant = pld.PLDAccountant()
    for session, mu in enumerate(mus):
        spend(ledger, session, mu=mu)
        accountant.compose(dp_accounting.GaussianDpEvent(1 / mu))
    ours = ledger.spent("hips").epsilon
    assert ours == pytest.approx(accountant.get_epsilon(BUDGET.delta), rel=2e-3)


class PowerCut(BaseException):
    """The machine stops."""


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_crash_leaves_the_old_ledger(
    ledger: Ledger, path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spend(ledger, 1)
    before = path.read_bytes()

    def cut(*_: object) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(os if call == "fsync" else Path, call, cut)
        with pytest.raises(PowerCut):
            spend(ledger, 2)
    assert path.read_bytes() == before
    again = Ledger.open(path, BUDGET)
    spend(again, 2)
    assert again.spent("hips").releases == 2


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_what_cannot_be_recorded_is_refused(
    ledger: Ledger, path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spend(ledger, 9)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os if call == "fsync" else Path, call, full)
        with pytest.raises(LedgerRefusal, match="No space left"):
            spend(ledger, 1)
    assert ledger.spent("hips").releases == 1
    assert not list(path.parent.glob("*.partial"))


SPENDER = """
import sys
from pathlib import Path
from secure_afl.errors import LedgerRefusal
from tests.secure_afl.privacy.test_ledger import BUDGET, Ledger, spend
ledger = Ledger.open(Path(sys.argv[1]), BUDGET)
for session in range(10):
    try:
        spend(ledger, session, run=sys.argv[2].encode() + bytes([session]),
              session=sys.argv[2].encode() + bytes([session]))
        print("granted")
    except LedgerRefusal:
        pass
"""


@pytest.mark.slow
def test_processes_do_not_spend_the_same_budget(ledger: Ledger, path: Path) -> None:
    spend(ledger, 0, "knees")
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", SPENDER, str(path), name],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for name in ("a", "b")
    ]
    granted = [racer.communicate(timeout=60)[0].split() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    assert sum(map(len, granted)) == 4 == Ledger.open(path).spent("hips").releases


def test_threads_do_not_spend_the_same_budget(ledger: Ledger, path: Path) -> None:
    spend(ledger, 0, "knees")

    def attempt(session: int) -> bool:
        try:
            spend(Ledger.open(path) if session % 2 else ledger, session)
        except LedgerRefusal:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(40))) == 4
    assert ledger.spent("hips").releases == 4


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{", "", "cannot be read"),
        ("{", "[", "cannot be read"),
        ('"format_version": 2', '"format_version": 3', "cannot be read"),
        ('"mu": 0.1', '"mu": NaN', "cannot be read"),
        ('"mu": 0.1', '"mu": Infinity', "cannot be read"),
        ('"entries": [', '"entries": [[],', "cannot be read"),
        ('"mu": 0.1', '"mu": 1e999', "entry 1 of 2 was changed"),
        ('"mu": 0.1', '"mu": 0.01', "entry 1 of 2 was changed"),
        ('"mu": 0.1', '"moo": 0.1', "entry 1 of 2 was changed"),
        ('"session": "7302"', '"session": "7301"', "entry 2 of 2 was changed"),
        ('"epsilon": 2.0', '"epsilon": 20.0', "budget or another part was changed"),
        ('"epsilon": 2.0', '"epsilon": 1e999', "budget or another part was changed"),
        ('"unit": "example"', '"unit": "nobody"', "budget or another part was changed"),
        ('"head": "', '"head": "\u00e9', "budget or another part was changed"),
        ('"ledger": "', '"ledger": "00', "entry 1 of 2 was changed"),
    ],
)
def test_a_damaged_ledger_is_refused_and_kept(
    ledger: Ledger, path: Path, old: str, new: str, said: str
) -> None:
    spend(ledger, 1, mu=0.1)
    spend(ledger, 2, mu=0.1)
    text = path.read_text()
    assert old in text
    damaged = text.replace(old, new, 1)
    path.write_text(damaged)
    for use in (
        lambda: Ledger.open(path, BUDGET),
        lambda: Ledger.look(path),
        lambda: spend(ledger, 3, mu=0.1),
        lambda: ledger.spent("hips"),
        lambda: ledger.raise_budget(BUDGET),
        lambda: ledger.void(b"s1", "it failed"),
        lambda: ledger.released(b"s1"),
    ):
        with pytest.raises(LedgerRefusal, match=f"{said}.*restore") as refusal:
            use()
        assert str(path) in str(refusal.value)
    assert path.read_text() == damaged


def test_a_truncated_or_missing_ledger_is_not_begun_anew(ledger: Ledger, path: Path) -> None:
    spend(ledger, 1)
    whole = path.read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:length])
        with pytest.raises(LedgerRefusal, match="restore it"):
            Ledger.open(path, BUDGET)
    path.unlink()
    for use in (lambda: spend(ledger, 2), lambda: Ledger.open(path)):
        with pytest.raises(LedgerRefusal, match="restore it"):
            use()
    with pytest.raises(LedgerRefusal, match=r"belongs to a ledger .* that is gone"):
        Ledger.open(path, new=True)
    assert not path.exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LedgerRefusal, match="cannot be written"):
        Ledger.open(tmp_path / "file" / "ledger.json", BUDGET, new=True)


def test_a_link_leads_to_the_ledger_and_stays(ledger: Ledger, path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(path)
    spend(ledger, 1)
    spend(Ledger.open(link), 2)
    assert link.is_symlink()
    assert ledger.spent("hips").releases == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"mu": math.nan},
        {"mu": math.inf},
        {"mu": -0.1},
        {"mu": 0.0},
        {"distance": math.nan},
        {"distance": -1e-9},
        {"rounds": 0},
        {"rounds": True},
        {"run": b""},
        {"session": bytes(65)},
        {"unit": "row"},
        {"lineage": ""},
        {"lineage": "\ud800"},
        {"mechanism": ""},
    ],
)
def test_arguments_out_of_range_are_refused(ledger: Ledger, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        spend(ledger, 1, **changes)
    assert ledger.spent("hips").releases == 0


@pytest.mark.parametrize(("epsilon", "delta"), [(0, 1e-5), (math.nan, 1e-5), (1, 0), (1, 1)])
def test_budgets_out_of_range_are_refused(path: Path, epsilon: float, delta: float) -> None:
    with pytest.raises(ConfigError):
        Ledger.open(path, Budget(epsilon, delta, "example", "add-remove"), new=True)
    assert not path.exists()
