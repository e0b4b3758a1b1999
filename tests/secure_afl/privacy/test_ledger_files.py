"""The ledger's files: made late, noticed when changed by hand, and when rolled back."""

import copy
import json
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_afl.errors import ConfigError, LedgerRefusal
from secure_afl.privacy.ledger import Budget, Ledger
from secure_afl.privacy.ledger import store as stores
from secure_afl.privacy.ledger.imports import import_ledger
from tests.secure_afl.privacy.test_ledger import BUDGET, spend

ROWS = tuple(number.to_bytes(8, "little") for number in range(20))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledgers" / "ledger.json"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "identity"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with all that an entry may have."""
    file = tmp_path_factory.mktemp("ledger") / "ledger.json"
    ledger = Ledger.open(file, BUDGET, new=True)
    spend(ledger, 1, mu=0.1, party=b"p", rows=ROWS)
    spend(ledger, 2, mu=0.1, distance=1e-9)
    spend(ledger, 3, "knees", mu=0.1, rows=ROWS[:3])
    ledger.void(b"s\x02", "it failed", b"evidence")
    ledger.released(b"s\x01")
    return file


def test_a_new_ledger_is_written_with_its_first_release(path: Path) -> None:
    ledger = Ledger.open(path, BUDGET, new=True)
    assert ledger.budget == BUDGET
    assert ledger.entries("hips") == ()
    assert ledger.lineages == ()
    assert ledger.spent("hips") == (0.0, 0)
    ledger.check("hips", rows=ROWS, **charge())
    uses: list[Callable[[], None]] = [
        lambda: spend(ledger, 1, mu=None),
        lambda: ledger.released(b"s1"),
        lambda: ledger.void(b"s1", "why"),
        lambda: ledger.raise_budget(Budget(3.0, 1e-5, "example", "add-remove")),
    ]
    for refused in uses:
        with pytest.raises(LedgerRefusal):
            refused()
    assert not path.parent.exists()
    spend(ledger, 1)
    assert Ledger.open(path).budget == BUDGET
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def charge() -> Any:
    return {
        "run": b"r",
        "rounds": 1,
        "mu": 0.1,
        "distance": 0.0,
        "unit": "example",
        "neighbours": "add-remove",
        "mechanism": "Gaussian",
    }


def test_a_ledger_has_to_exist_unless_it_is_new(path: Path) -> None:
    with pytest.raises(LedgerRefusal, match="--new-ledger"):
        Ledger.open(path)
    first, second = (Ledger.open(path, new=True) for _ in range(2))
    spend(first, 1)
    spend(first, 2)
    for late in (lambda: spend(second, 3), lambda: Ledger.open(path, new=True)):
        with pytest.raises(LedgerRefusal, match="exists; leave out --new-ledger"):
            late()
    assert Ledger.open(path).spent("hips").releases == 2


def test_a_ledger_that_cannot_be_made_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger.open(path, new=True)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(LedgerRefusal, match="No space left"):
            spend(ledger, 1, rows=ROWS)
    assert [file.name for file in path.parent.iterdir()] == ["ledger.json.lock"]
    spend(ledger, 1, rows=ROWS)
    assert Ledger.open(path).spent("hips").releases == 1


def test_a_budget_given_later_comes_into_the_file_with_a_release(path: Path) -> None:
    spend(Ledger.open(path, new=True), 1, mu=0.1)
    before = path.read_bytes()
    later = Ledger.open(path, BUDGET)
    assert path.read_bytes() == before
    spend(later, 1, mu=0.1)
    assert Ledger.open(path).budget == BUDGET


# What may be done to a file by hand: any one value, key or place of its JSON.


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """All paths to values of a JSON document."""
    if at:
        yield at
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from places(inner, (*at, key))


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["", "00", "example", "client", 0, 0.1, 1e-5, [], {}]),
)


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_single_change_of_the_file_is_noticed(written: Path, data: st.DataObject) -> None:
    text = written.read_bytes()
    document = json.loads(text)
    changed = copy.deepcopy(document)
    at = data.draw(st.sampled_from(list(places(document))))
    parent = changed
    for key in at[:-1]:
        parent = parent[key]
    kind = data.draw(st.sampled_from(["set", "remove", "add", "swap", "twice", "tail"]))
    old = parent[at[-1]]
    if kind == "set":
        parent[at[-1]] = data.draw(LEAVES)
    elif kind == "remove":
        del parent[at[-1]]
    elif kind == "tail" and isinstance(old, list):
        del old[data.draw(st.integers(0, max(len(old) - 1, 0))) :]
    elif isinstance(parent, list):
        other = data.draw(st.integers(0, len(parent) - 1))
        if kind == "swap":
            parent[at[-1]], parent[other] = parent[other], parent[at[-1]]
        else:
            parent.insert(other, copy.deepcopy(old))
    else:
        parent[data.draw(st.text(max_size=8)) if kind == "add" else at[-1]] = [old]
    if json.dumps(changed, sort_keys=True) == json.dumps(document, sort_keys=True):
        return
    try:
        written.write_text(json.dumps(changed))
        with pytest.raises(LedgerRefusal, match=r"restore|format 1"):
            Ledger.look(written)
    finally:
        written.write_bytes(text)
    Ledger.look(written)


def test_who_chains_anew_without_the_key_is_noticed(written: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(written.parent, tmp_path / "copy")
    file = folder / written.name
    document = json.loads(file.read_text())
    document["entries"][0]["mu"] = 0.001
    link = stores._first_link(document["ledger"])
    for entry in document["entries"]:
        link = entry["link"] = stores._link(link, entry)
    file.write_text(json.dumps(document))
    with pytest.raises(LedgerRefusal, match="budget or another part"):
        Ledger.look(file)
    # With the key it is nobody's to notice: the owner is not kept from anything.
    store = stores.Store(file, None)
    document["head"] = store._head(document)
    file.write_text(json.dumps(document))
    assert Ledger.look(file).entries("hips")[0].mu == 0.001


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda key: key.unlink(), "cannot be read"),
        (lambda key: key.write_bytes(b""), "has 0 bytes, wanted 32"),
        (lambda key: key.write_bytes(bytes(32)), "is not its key"),
    ],
)
def test_a_ledger_is_nothing_without_its_key(
    written: Path, tmp_path: Path, change: Any, said: str
) -> None:
    folder = shutil.copytree(written.parent, tmp_path / "copy")
    key = folder / "ledger.json.key"
    secret = key.read_bytes()
    change(key)
    with pytest.raises(LedgerRefusal, match=said) as refusal:
        Ledger.open(folder / "ledger.json")
    assert secret.hex() not in str(refusal.value)


def test_rows_that_were_changed_are_noticed(path: Path) -> None:
    ledger = Ledger.open(path, BUDGET, new=True)
    spend(ledger, 1, mu=0.1, rows=ROWS)
    rows = path.with_name("ledger.json.rows")
    whole = rows.read_bytes()
    for damaged in (b"", whole[:-1], whole[:-1] + b"\1"):
        rows.write_bytes(damaged)
        with pytest.raises(LedgerRefusal, match=r"rows.*restore"):
            spend(Ledger.open(path), 2, mu=0.1, rows=ROWS)
    rows.unlink()
    with pytest.raises(LedgerRefusal, match=r"rows.*restore"):
        spend(Ledger.open(path), 2, mu=0.1, rows=ROWS)
    rows.write_bytes(whole + b"left by a crash" * 9)
    spend(Ledger.open(path), 2, mu=0.1, rows=[*ROWS, b"12345678"])
    assert len(rows.read_bytes()) == len(whole) + 16
    spend(Ledger.open(path), 3, mu=0.1, rows=ROWS)


# The anchor.


def test_a_rollback_is_refused(path: Path, home: Path) -> None:
    ledger = Ledger.open(path, BUDGET, anchor=home, new=True)
    copies = []
    for number in range(3):
        spend(ledger, number)
        copies.append(path.read_bytes())
    (anchor,) = home.iterdir()
    assert anchor.name == "ledger.json.ledger-head"
    assert stat.S_IMODE(anchor.stat().st_mode) == 0o600
    kept = json.loads(anchor.read_text())
    assert kept["changes"] == 3
    assert kept["head"] == json.loads(copies[2])["head"]
    for old in copies[:2]:
        path.write_bytes(old)
        for use in (
            lambda: Ledger.open(path, anchor=home),
            lambda: spend(ledger, 3),
            lambda: ledger.void(b"s\0", "why"),
        ):
            with pytest.raises(LedgerRefusal, match="rolled back"):
                use()
    # Written on from an old copy, it is no continuation either.
    path.write_bytes(copies[2])
    spend(Ledger.open(path, anchor=home), 3)


def test_a_crash_between_the_two_writes_is_mended(
    path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCut(BaseException):
        pass

    def cut(*_: object) -> None:
        raise PowerCut

    for number in range(3):
        ledger = Ledger.open(path, BUDGET, anchor=home, new=number == 0)
        with monkeypatch.context() as patch:
            patch.setattr(stores.Store, "_keep", cut)
            with pytest.raises(PowerCut):
                spend(ledger, number)
        again = Ledger.open(path, anchor=home)
        assert again.spent("hips").releases == number + 1
        kept = json.loads((home / "ledger.json.ledger-head").read_text())
        assert kept["head"] == json.loads(path.read_text())["head"]


def test_what_the_anchor_does_not_know_is_refused(path: Path, home: Path, tmp_path: Path) -> None:
    ledger = Ledger.open(path, BUDGET, anchor=home, new=True)
    spend(ledger, 1)
    old, anchor = path.read_bytes(), home / "ledger.json.ledger-head"
    first = anchor.read_bytes()
    spend(ledger, 2)
    spend(ledger, 3)
    # An anchor that is two changes behind is an old copy.
    newest = anchor.read_bytes()
    anchor.write_bytes(first)
    with pytest.raises(LedgerRefusal, match="no continuation of the 1"):
        Ledger.open(path, anchor=home)
    # A branch: as many changes, others.
    whole = path.read_bytes()
    path.write_bytes(old)
    spend(Ledger.open(path, anchor=home), 4)
    spend(Ledger.open(path, anchor=home), 5)
    anchor.write_bytes(newest)
    with pytest.raises(LedgerRefusal, match="rolled back"):
        Ledger.open(path, anchor=home)
    path.write_bytes(whole)
    Ledger.open(path, anchor=home)
    anchor.write_text("{")
    with pytest.raises(LedgerRefusal, match=r"ledger-head.*cannot be read"):
        Ledger.open(path, anchor=home)
    anchor.unlink()
    with pytest.raises(LedgerRefusal, match="is missing"):
        Ledger.open(path, anchor=home)


def test_an_anchored_ledger_needs_its_anchor(path: Path, home: Path, tmp_path: Path) -> None:
    spend(Ledger.open(path, BUDGET, new=True), 1)
    Ledger.open(path, anchor=home)
    assert list(home.iterdir()) == []  # nothing was released
    spend(Ledger.open(path, anchor=home), 2)
    with pytest.raises(LedgerRefusal, match="--keys"):
        Ledger.open(path)
    assert Ledger.look(path).spent("hips").releases == 2
    with pytest.raises(ConfigError, match="no folder"):
        Ledger.open(path, anchor=tmp_path / "nowhere")
    # The identity remembers a ledger that is gone, and one of another place.
    shutil.rmtree(path.parent)
    with pytest.raises(LedgerRefusal, match="that is gone"):
        Ledger.open(path, anchor=home, new=True)
    elsewhere = tmp_path / "elsewhere" / "ledger.json"
    spend(Ledger.open(elsewhere, new=True), 1)
    with pytest.raises(LedgerRefusal, match="of another ledger"):
        Ledger.open(elsewhere, anchor=home)


def test_an_anchor_that_cannot_be_written_refuses_and_is_mended(
    path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger.open(path, BUDGET, anchor=home, new=True)
    spend(ledger, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(stores.Store, "_keep", full)
        with pytest.raises(LedgerRefusal, match="No space left"):
            spend(ledger, 2)
    spend(ledger, 2)
    assert Ledger.open(path, anchor=home).spent("hips").releases == 2


# Format 1.

OLD = {
    "format_version": 1,
    "budget": {"epsilon": 2.0, "delta": 1e-5, "unit": "example", "neighbours": "add-remove"},
    "entries": [
        {
            "lineage": "hips",
            "run": "7201",
            "session": "7301",
            "rounds": 1,
            "mu": 0.1,
            "distance": 0.0,
            "unit": "example",
            "neighbours": "add-remove",
            "epsilon": 0.3,
            "mechanism": "Gaussian",
            "when": "2024-05-01T10:00:00Z",
        }
    ],
}


def test_format_1_is_refused_and_can_be_imported(path: Path, tmp_path: Path, home: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text(json.dumps(OLD))
    with pytest.raises(LedgerRefusal, match=r"format 1.*secure-afl ledger import OLD NEW"):
        Ledger.open(old)
    ledger = import_ledger(old, path, home)
    (entry,) = ledger.entries("hips")
    assert (entry.imported, entry.mu, entry.session, entry.party) == (True, 0.1, "7301", "")
    assert ledger.budget == BUDGET
    assert json.loads(old.read_text()) == OLD
    spend(Ledger.open(path, anchor=home), 2)
    assert not Ledger.look(path).entries("hips")[1].imported
    with pytest.raises(LedgerRefusal, match="exists"):
        import_ledger(old, path, home)
    for damaged in ("{", json.dumps(OLD | {"format_version": 2})):
        old.write_text(damaged)
        with pytest.raises(LedgerRefusal, match="no ledger of format 1"):
            import_ledger(old, tmp_path / "other.json")
    assert not (tmp_path / "other.json").exists()
