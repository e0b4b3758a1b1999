"""`secure-afl ledger`: what was released can be read, and a budget is raised on purpose only."""

from pathlib import Path

import pytest

from secure_afl.privacy.accounting import noise_multiplier
from secure_afl.privacy.ledger import Budget, Ledger
from tests.kit.commands import Command

BUDGET = Budget(2.0, 1e-5, "example", "add-remove")
ONE_OF_FOUR = 1 / noise_multiplier(BUDGET.epsilon, BUDGET.delta, 4)


def spend(ledger: Ledger, lineage: str, number: int, mu: float | None = ONE_OF_FOUR) -> None:
    ledger.authorise(
        lineage,
        run=b"run%d" % number,
        session=b"session%d" % number,
        rounds=1,
        mu=mu,
        distance=0.0,
        unit="example",
        neighbours="add-remove",
        mechanism="discrete Gaussian" if mu else "none: an exact sum",
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.json"
    ledger = Ledger.open(path, BUDGET)
    for number in range(4):
        spend(ledger, "[hips]", number)
    spend(ledger, "knees", 4)
    return path


def test_it_prints_each_lineage_and_what_is_spent(command: Command, file: Path) -> None:
    before = file.read_bytes()
    out = command.well("ledger", file).out
    assert out.index("[hips]") < out.index("knees")
    assert out.count("discrete Gaussian") == 5
    assert b"run3".hex() in out
    assert "Releases: 4; spent: ε = 2 of 2" in out
    assert f"Releases: 1; spent: ε = {Ledger.open(file).spent('knees').epsilon:.4g} of 2" in out
    assert "ε = 2 at δ = 1e-05 for one example, add-remove" in out
    assert file.read_bytes() == before


def test_a_ledger_without_a_budget(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    ledger = Ledger.open(path)
    assert "Nothing was released" in command.well("ledger", path).out
    spend(ledger, "hips", 0, mu=None)
    out = command.well("ledger", path).out
    assert "∞" in out
    assert "There is no budget" in out
    assert "keeps no budget" in command.badly("ledger", path, "--raise-budget", "3")


def test_a_budget_is_raised_deliberately(command: Command, file: Path) -> None:
    out = command.well("ledger", file, "--raise-budget", "3").out
    assert "Releases: 4; spent: ε = 2 of 3" in out
    assert Ledger.open(file).budget == Budget(3.0, 1e-5, "example", "add-remove")
    spend(Ledger.open(file), "[hips]", 5)


@pytest.mark.parametrize(("epsilon", "allowed"), [("2", "above 2"), ("nan", "2"), ("1e9", "1000")])
def test_it_is_not_raised_otherwise(
    command: Command, file: Path, epsilon: str, allowed: str
) -> None:
    before = file.read_bytes()
    assert allowed in command.badly("ledger", file, "--raise-budget", epsilon)
    assert file.read_bytes() == before


def test_a_missing_file_is_not_made(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    for flags in ([], ["--raise-budget", "3"]):
        assert "no ledger" in command.badly("ledger", path, *flags)
    assert list(tmp_path.iterdir()) == []
    damaged = tmp_path / "damaged.json"
    damaged.write_text("{", encoding="utf-8")
    assert "backup" in command.badly("ledger", damaged)
