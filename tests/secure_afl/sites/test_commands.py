"""`secure-afl party` and `secure-afl site` as a person meets them."""

import re
import shutil
import threading
import tomllib
from pathlib import Path

import pytest

from protocols import Additive
from protocols.errors import NotStored
from secure_afl.sites import check as checks
from secure_afl.sites import process
from secure_afl.sites.settings import GUARDS, ROWS, TERMS
from tests.kit.commands import Command
from tests.kit.sites import Sites
from tests.secure_afl.sites.test_sites import CLIENTS, charges, joined


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture
def sites(tmp_path: Path) -> Sites:
    return Sites(tmp_path / "sites", Additive(), CLIENTS)


@pytest.mark.parametrize("role", ["client", "aggregator", "collector", "key_holder"])
def test_init_writes_a_file_that_can_be_read_once_its_things_are_there(
    role: str, command: Command, tmp_path: Path
) -> None:
    path = tmp_path / "site.toml"
    out = command.well("site", "init", "north", "--role", role, "--out", path).out
    assert f"site check --site {path}" in out
    assert f'role = "{role}"' in path.read_text()
    assert ("max-rows" in path.read_text()) == (role == "client")
    # It is a whole file: what it lacks is what it names, and no setting.
    lines = command("site", "check", "--site", path)
    assert lines.code == 1
    assert "settings" not in lines.out
    assert "FAIL identity" in lines.out
    assert "exists; move it away" in command.badly("site", "init", "north", "--out", path)


@pytest.mark.parametrize("role", ["client", "collector"])
def test_init_names_every_key(command: Command, tmp_path: Path, role: str) -> None:
    path = tmp_path / "site.toml"
    command.well("site", "init", "north", "--role", role, "--out", path)
    keys = re.sub(r"^# (?=[\w-]+ = )", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    named = {key.replace("-", "_") for key in tomllib.loads(keys)}
    of_role = {*ROWS, *GUARDS, "data", "classes"} if role == "client" else set()
    of_all = {*TERMS, "identity", "roster", "state", "role", "out", "deadline"}
    assert named == of_all | of_role | {"head"}


def test_init_wants_a_role_that_there_is_and_a_place_that_can_be_written(
    command: Command, tmp_path: Path
) -> None:
    path = tmp_path / "site.toml"
    assert "'king', allowed: " in command.badly(
        "site", "init", "north", "--role", "king", "--out", path
    )
    assert not path.exists()
    nowhere = tmp_path / "nowhere" / "site.toml"
    assert "cannot be written" in command.badly("site", "init", "north", "--out", nowhere)


def test_check_finds_nothing_to_mend_where_all_is_well(command: Command, sites: Sites) -> None:
    for name in ("c0", "aggregator_1", "collector"):
        out = command.well("site", "check", "--site", sites.folder / name / "site.toml").out
        assert "FAIL" not in out
        assert "'collector' receives the sums" in out
    out = command.well("site", "check", "--site", sites.folder / "c0" / "site.toml").out
    assert "20 rows, bound 32" in out
    assert "begin it with: secure-afl site prepare --new-ledger" in out
    assert not (sites.folder / "c0" / "ledger.json").exists()


def failed(command: Command, sites: Sites, name: str = "c0") -> dict[str, str]:
    """What `site check` says has to be mended, by what was looked at."""
    outcome = command("site", "check", "--site", sites.folder / name / "site.toml")
    bad = [line.split(": ", 1) for line in outcome.out.splitlines() if line.startswith("FAIL ")]
    assert outcome.code == (1 if bad else 0)
    return {what.removeprefix("FAIL "): words for what, words in bad}


def test_check_says_what_is_wrong_with_each_thing(
    command: Command, sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sites.folder / "c0"
    path = folder / "site.toml"
    text = path.read_text()
    path.write_text("role = 3")
    assert list(failed(command, sites)) == ["settings"]
    path.write_text(text.replace("max-rows = 32", "max-rows = 10"))
    assert failed(command, sites) == {
        "data": "this site has 20 rows, more than max-rows 10, the bound that it declares; "
        "declare more"
    }
    path.write_text(text.replace('data = "data.npz"', 'data = "nothing.npz"'))
    assert list(failed(command, sites)) == ["data"]
    path.write_text(text)
    (folder / "ledger.json").write_text("{}")
    assert list(failed(command, sites)) == ["ledger"]
    (folder / "ledger.json").unlink()
    (identity,) = folder.glob("*.identity")
    identity.chmod(0o644)
    assert list(failed(command, sites)) == ["identity"]
    identity.chmod(0o600)
    path.write_text(text.replace('"roster.json"', '"roster2.json"'))
    assert list(failed(command, sites)) == ["identity", "roster"]
    path.write_text(text)

    def network(folder: Path) -> None:
        raise NotStored("it lies on a network's file system (nfs)")

    monkeypatch.setattr(checks, "check_local", network)
    assert failed(command, sites) == {"state": "it lies on a network's file system (nfs)"}
    shutil.rmtree(folder / "state")
    (folder / "state").write_text("a file")
    # Features that were made once lie there, too.
    assert list(failed(command, sites)) == ["state", "data"]


@pytest.mark.slow
def test_a_run_goes_through_by_commands(command: Command, sites: Sites) -> None:
    others = [name for name in sites.roles if name != "collector"]
    post = f"folder:{sites.folder / 'post'}"
    convener = [
        "party", "--site", sites.folder / "collector" / "site.toml", "--post", post,
        "--config", sites.folder / "collector" / "run.toml",
    ]  # fmt: skip
    ends: dict[str, str] = {}

    def attend(name: str) -> None:
        try:
            process.take_part(
                sites.folder / name / "site.toml",
                post,
                sites.told[name].append,
                new_ledger=name in CLIENTS,
            )
            ends[name] = "well"
        except Exception as error:
            ends[name] = repr(error)

    threads = [threading.Thread(target=attend, args=(name,)) for name in others]
    for thread in threads:
        thread.start()
    out = command.well(*convener).out
    for thread in threads:
        thread.join()
    assert "4 of 4 clients in the last sum, 1 in all" in out
    assert ends == dict.fromkeys(others, "well")
    for name in CLIENTS:
        assert charges(sites, name) == [(True, True)]
        assert "waiting for 'collector', which forms the sessions" in sites.told[name]


def test_a_run_that_fails_ends_with_exit_code_2(command: Command, tmp_path: Path) -> None:
    sites = Sites(tmp_path / "sites", Additive(), CLIENTS, wait=(1, 20))
    outcome = command(
        "party", "--site", sites.folder / "collector" / "site.toml",
        "--post", f"folder:{sites.folder / 'post'}",
        "--config", sites.folder / "collector" / "run.toml",
    )  # fmt: skip
    assert outcome.code == 2
    *_, line = outcome.err.splitlines()
    assert line.startswith("Error: no model: no enrolment of aggregator_1")
    assert not (sites.folder / "collector" / "state" / "convener").exists()


def test_leaving_ends_the_seats_and_keeps_what_was_charged(command: Command, sites: Sites) -> None:
    for name in sites.roles:
        sites.start(name)
    sites.until(lambda: {"c0", "collector"} <= joined(sites))
    run = sites.parties["c0"].attending.run
    # Not while its process lives.
    path = sites.folder / "c0" / "site.toml"
    assert "another process has this seat" in command.badly("party", "--leave", "--site", path)
    for name in ("c0", "collector"):
        sites.stop(name)
        path = sites.folder / name / "site.toml"
        command.well("party", "--leave", "--site", path)
        state = sites.folder / name / "state"
        assert [mark.name for mark in (state / "runs").iterdir()] == [run.hex()]
        assert not (state / "run").exists()
        assert not (state / "convener").exists()
        assert list((state / "seats").iterdir()) == []
    assert charges(sites, "c0") == [(True, False)]
    # Its letters are not heard again.
    party = sites.start("c0")
    sites.turn()
    assert party.attending.run == b""
    assert not party.attending.hearings
    assert "no --post" in command.badly("party", "--site", path)


@pytest.mark.parametrize("name", ["c0", "collector"])
def test_a_run_whose_memory_is_damaged_can_be_left(
    name: str, command: Command, sites: Sites
) -> None:
    for other in sites.roles:
        sites.start(other)
    sites.until(lambda: {"c0", "collector"} <= joined(sites))
    sites.stop(name)
    state = sites.folder / name / "state"
    (state / "run").write_bytes(b"\xff")
    path = sites.folder / name / "site.toml"
    post = f"folder:{sites.folder / 'post'}"
    assert "secure-afl party --leave" in command.badly("party", "--site", path, "--post", post)
    # Neither data nor ledger are wanted for that.
    for gone in ("data.npz", "ledger.json"):
        (sites.folder / name / gone).unlink(missing_ok=True)
    err = command.well("party", "--leave", "--site", path).err
    assert "whose memory is damaged" in err
    seats = list((state / "seats").iterdir())
    assert seats
    assert all([mark.name for mark in seat.iterdir()] == ["ended"] for seat in seats)
    assert not (state / "run").exists()
