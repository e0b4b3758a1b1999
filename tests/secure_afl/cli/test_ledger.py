"""`secure-afl ledger`: what was released can be read, and what is changed is changed on purpose."""

import io
import json
import sys
from pathlib import Path

import msgspec
import pytest

from secure_afl.federation.rosters import Edition, RosterFile
from secure_afl.privacy.accounting import noise_multiplier
from secure_afl.privacy.ledger import Budget, Ledger
from tests.kit.commands import Command
from tests.protocols.test_void import WORLD, evidence, voids_of
from tests.secure_afl.privacy.test_ledger_files import OLD

BUDGET = Budget(2.0, 1e-5, "example", "add-remove")
ONE_OF_FOUR = 1 / noise_multiplier(BUDGET.epsilon, BUDGET.delta, 4)


def spend(
    ledger: Ledger,
    lineage: str,
    number: int,
    mu: float | None = ONE_OF_FOUR,
    run: int | None = None,
) -> None:
    ledger.authorise(
        lineage,
        run=b"run%d" % (number if run is None else run),
        session=b"%dsession" % number,
        rows=[b"sameRow!"] if lineage == "knees" else [],
        rounds=1 if run is None else 3,
        mu=mu,
        distance=0.0,
        unit="example",
        neighbours="add-remove",
        mechanism="discrete Gaussian" if mu else "none: an exact sum",
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.json"
    ledger = Ledger.open(path, BUDGET, new=True)
    for number in range(4):
        spend(ledger, "[hips]", number)
    spend(ledger, "knees", 4)
    return path


def session(number: int) -> str:
    return (b"%dsession" % number).hex()


def test_it_prints_each_lineage_and_what_is_spent(command: Command, file: Path) -> None:
    before = file.read_bytes()
    out = command.well("ledger", "show", file).out
    assert out.index("[hips]") < out.index("knees")
    assert out.count("1 of 1") == 5
    assert b"run3".hex() in out
    assert session(3)[:8] in out
    assert "Releases: 4; spent: ε = 2 of 2" in out
    assert f"Releases: 1; spent: ε = {Ledger.open(file).spent('knees').epsilon:.4g} of 2" in out
    assert "ε = 2 at δ = 1e-05 for one example, add-remove" in out
    assert file.read_bytes() == before


def test_a_run_is_one_line(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    ledger = Ledger.open(path, new=True)
    for number in range(3):
        spend(ledger, "hips", number, mu=None, run=7)
    ledger.void(b"1session", "it failed")
    spend(ledger, "hips", 5, mu=0.25)
    lines = command.well("ledger", "show", path).out.splitlines()
    (exact,) = [line for line in lines if b"run7".hex() in line]
    assert "2 of 3" in exact
    assert f" {session(2)[:8]} +2  {session(1)[:8]}  exact" in exact
    (noisy,) = [line for line in lines if b"run5".hex() in line]
    assert "0.25" in noisy
    assert noisy.split()[4:6] == [session(5)[:8], "0.25"]


def test_it_prints_json_with_all_ids(command: Command, file: Path) -> None:
    Ledger.open(file).void(b"2session", "it failed")
    found = json.loads(command.well("ledger", "show", file, "--json").out)
    assert found["budget"] == {
        "epsilon": 2.0, "delta": 1e-5, "unit": "example", "neighbours": "add-remove",
    }  # fmt: skip
    hips, knees = found["lineages"]
    assert (hips["name"], hips["releases"], hips["shares_rows_with"]) == ("[hips]", 3, [])
    assert [run["sessions"] for run in hips["runs"]] == [[session(n)] for n in range(4)]
    assert [run["void"] for run in hips["runs"]] == [[], [], [session(2)], []]
    assert knees["runs"][0]["mu"] == ONE_OF_FOUR
    assert knees["epsilon"] == Ledger.open(file).spent("knees").epsilon


def test_lineages_with_the_same_rows_are_shown_as_one(command: Command, tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.json", BUDGET, new=True)
    spend(ledger, "knees", 1)
    ledger.authorise(
        "copy", run=b"r", session=b"s", rows=[b"sameRow!"], rounds=1, mu=0.1, distance=0.0,
        unit="example", neighbours="add-remove", mechanism="any",
    )  # fmt: skip
    out = command.well("ledger", "show", ledger.path).out
    assert "counts as one with copy" in out
    assert "counts as one with knees" in out


def test_a_ledger_without_a_budget(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    ledger = Ledger.open(path, new=True)
    spend(ledger, "hips", 0, mu=None)
    out = command.well("ledger", "show", path).out
    assert "exact" in out
    assert "There is no budget" in out
    assert "keeps no budget" in command.badly("ledger", "raise-budget", path, "--budget", 3)


def test_the_old_form_names_the_new_one(command: Command, file: Path) -> None:
    for arguments in ([file], [file, "--raise-budget", "3"]):
        said = command.badly("ledger", *arguments)
        assert f"secure-afl ledger show {file}" in said
        assert "show, raise-budget, void, import" in said


def test_its_help_is_in_the_list_of_commands(command: Command) -> None:
    assert "Show what was released about each lineage" in command.well("--help").out
    for name in ("show", "raise-budget", "void", "import"):
        assert name in command.well("ledger", "--help").out
        assert "ledger" in command.well("ledger", name, "--help").out


def test_a_budget_is_raised_deliberately(command: Command, file: Path) -> None:
    out = command.well("ledger", "raise-budget", file, "--budget", "3").out
    assert "Old budget: epsilon 2 at delta 1e-05" in out
    assert "New budget: epsilon 3 at delta 1e-05" in out
    assert Ledger.open(file).budget == Budget(3.0, 1e-5, "example", "add-remove")
    spend(Ledger.open(file), "[hips]", 5)
    out = command.well("ledger", "raise-budget", file, "--budget", "3", "--delta", "1e-4").out
    assert "New budget: epsilon 3 at delta 0.0001" in out


@pytest.mark.parametrize(
    ("flags", "allowed"),
    [
        (["--budget", "2"], "above the old, 2 and 1e-05"),
        (["--budget", "nan"], "above the old"),
        (["--budget", "1", "--delta", "1e-6"], "above the old"),
        (["--budget", "3", "--delta", "1e-6"], "lower neither"),
        (["--budget", "1e9"], "1000"),
    ],
)
def test_it_is_not_raised_otherwise(
    command: Command, file: Path, flags: list[str], allowed: str
) -> None:
    before = file.read_bytes()
    assert allowed in command.badly("ledger", "raise-budget", file, *flags)
    assert file.read_bytes() == before


def test_a_session_is_not_given_back_without_evidence(command: Command, file: Path) -> None:
    before = file.read_bytes()
    said = command.badly("ledger", "void", file, session(1))
    assert "no evidence that the session failed" in said
    assert "If you know it, pass --force" in said
    # A file by itself is no evidence.
    said = command.badly("ledger", "void", file, session(1), "--evidence", file)
    assert "--keys" in said
    assert file.read_bytes() == before


def test_a_session_is_given_back_by_its_parties_voids(command: Command, tmp_path: Path) -> None:
    keys, ledger, proof = tmp_path / "keys", tmp_path / "ledger.json", tmp_path / "voids"
    keys.mkdir()
    roster = WORLD.session.roster
    (keys / "roster.json").write_bytes(msgspec.json.encode(RosterFile.of(Edition(roster))))
    book = Ledger.open(ledger, None, anchor=keys, new=True)
    for id_, run in ((WORLD.session.id, b"one"), (b"other session", b"two")):
        book.authorise(
            "hips",
            run=run,
            session=id_,
            rounds=1,
            mu=1.0,
            distance=0.0,
            unit="example",
            neighbours="add-remove",
            mechanism="discrete Gaussian",
        )
    own = WORLD.session.id.hex()
    call = ("ledger", "void", ledger, own, "--evidence", proof, "--keys", keys)
    proof.write_bytes(evidence(WORLD, voids_of(WORLD, ("collector",))))
    assert "not given back: aggregator_1 missing" in command.badly(*call)
    proof.write_bytes(evidence(WORLD, voids_of(WORLD, ("collector", "aggregator_1"))))
    elsewhere = ("ledger", "void", ledger, b"other session".hex(), *call[4:])
    assert "not this one" in command.badly(*elsewhere)
    assert Ledger.open(ledger, None, anchor=keys).spent("hips").releases == 2
    assert "Given back by its parties" in command.well(*call).out
    assert Ledger.open(ledger, None, anchor=keys).spent("hips").releases == 1


def test_a_session_is_given_back_by_force(command: Command, file: Path) -> None:
    out = command.well("ledger", "void", file, session(1)[:8], "--force", "--yes").out
    assert f"Session {session(1)}, about [hips]\n" in out
    assert "tells everything that changed" in out
    assert Ledger.open(file).spent("[hips]").releases == 3
    void = Ledger.open(file).entries("[hips]")[1].void
    assert void is not None
    assert void.reason == "by hand, without evidence"
    command.well("ledger", "void", file, session(1), "--force", "--yes")
    spend(Ledger.open(file), "[hips]", 5)


@pytest.mark.parametrize(
    ("typed", "done"), [("{id}", True), ("{id:.8}", True), ("y", False), ("{id:.7}", False)]
)
def test_the_session_has_to_be_typed(
    command: Command, file: Path, monkeypatch: pytest.MonkeyPatch, typed: str, done: bool
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed.format(id=session(1)) + "\n"))
    outcome = command("ledger", "void", file, session(1), "--force")
    assert outcome.code == (0 if done else 2), outcome
    assert ("nothing was changed" in outcome.err) is not done
    assert Ledger.open(file).spent("[hips]").releases == (3 if done else 4)


def test_without_an_answer_nothing_is_given_back(
    command: Command, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert command("ledger", "void", file, session(1), "--force").code != 0
    assert Ledger.open(file).spent("[hips]").releases == 4


def test_sessions_that_cannot_be_given_back(command: Command, file: Path, tmp_path: Path) -> None:
    Ledger.open(file).released(b"1session")
    before = file.read_bytes()
    force = ("--force", "--yes")
    outcome = command("ledger", "void", file, session(1), *force)
    assert outcome.code == 2
    assert "came out" in outcome.err
    for given in ("00" * 9, session(1)[:7], ""):
        assert "0 sessions" in command.badly("ledger", "void", file, given, *force)
    missing = ("--evidence", tmp_path / "none")
    assert "cannot be read" in command.badly("ledger", "void", file, session(2), *missing)
    assert file.read_bytes() == before


def test_an_anchored_ledger_is_changed_with_its_keys(command: Command, tmp_path: Path) -> None:
    path, home = tmp_path / "ledger.json", tmp_path / "keys"
    home.mkdir()
    spend(Ledger.open(path, BUDGET, anchor=home, new=True), "hips", 1)
    assert "hips" in command.well("ledger", "show", path).out
    change = ("ledger", "raise-budget", path, "--budget", 3)
    assert "--keys" in command.badly(*change)
    command.well(*change, "--keys", home)
    command.well("ledger", "void", path, session(1), "--force", "--yes", "--keys", home)
    assert Ledger.open(path, anchor=home).spent("hips").releases == 0


def test_a_ledger_of_format_1_is_imported(command: Command, tmp_path: Path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(OLD), encoding="utf-8")
    assert "secure-afl ledger import" in command.badly("ledger", "show", old)
    assert "1 releases are in" in command.well("ledger", "import", old, new).out
    assert "hips" in command.well("ledger", "show", new).out


def test_a_missing_file_is_not_made(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    for arguments in (
        ("show", path),
        ("raise-budget", path, "--budget", 3),
        ("void", path, session(1), "--force", "--yes"),
    ):
        assert "there is no ledger" in command.badly("ledger", *arguments)
    assert list(tmp_path.iterdir()) == []
    damaged = tmp_path / "damaged.json"
    damaged.write_text("{", encoding="utf-8")
    assert "backup" in command.badly("ledger", "show", damaged)
