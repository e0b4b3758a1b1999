"""Keys and rosters as people make them: two sites, a collector and an aggregator."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from secure_afl.federation.keys import load_keys
from secure_afl.federation.rosters import read, read_roster
from tests.kit.commands import Command

ROOT = Path(__file__).parents[3]
PARTIES = {
    "north": "client",
    "south": "client",
    "university": "collector",
    "clinic": "aggregator",
}
PRINT = r"[A-Z2-7]{4}(?:-[A-Z2-7]{4}){3}"


@pytest.fixture
def mail(command: Command, tmp_path: Path) -> dict[str, Path]:
    """The public lines of all parties, each made in a folder of its own."""
    for name, role in PARTIES.items():
        command.well("keygen", name, "--role", role, "--out", tmp_path / name)
    return {name: tmp_path / name / f"{name}.public.json" for name in PARTIES}


@pytest.fixture
def roster(command: Command, tmp_path: Path, mail: dict[str, Path]) -> Path:
    command.well("roster", "merge", *mail.values(), "--out", tmp_path / "roster.json")
    return tmp_path / "roster.json"


def test_keygen_says_what_stays_and_what_to_send(command: Command, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    said = command.well("keygen", "north", "--out", keys).out
    (line,) = read(keys / "north.public.json").roster.lines
    assert said.splitlines()[0] == f"north  client  {line.fingerprint}"
    assert re.search(r"private, stays here: .*north\.identity", said)
    assert re.search(r"public, send to others: .*north\.public\.json", said)
    assert "roster.json" not in said
    private = (keys / "north.identity").read_bytes()[-32:]
    assert private.hex() not in said


def test_keygen_of_several_names_makes_a_simulation(command: Command, tmp_path: Path) -> None:
    said = command.well("keygen", "north", "south", "--out", tmp_path).out
    said += command.well("keygen", "university", "--role", "collector", "--out", tmp_path).out
    keys = load_keys(tmp_path)
    assert keys.identities.keys() == {"north", "south", "university"}
    assert f"is now number 2, fingerprint {keys.roster.fingerprint}" in said


def test_merge_says_what_was_added_and_what_to_do(
    command: Command, tmp_path: Path, mail: dict[str, Path]
) -> None:
    out = tmp_path / "roster.json"
    said = command.well("roster", "merge", *mail.values(), "--out", out).out
    edition = read_roster(out).roster
    assert {line.name: line.role for line in edition.lines} == PARTIES
    for line in edition.lines:
        assert f"added:     {line.name}  {line.role}  {line.fingerprint}\n" in said
    assert f"is now number 1, fingerprint {edition.fingerprint}" in said
    assert "All parties have to exchange number 1" in said
    said = command.well("roster", "merge", mail["north"], "--out", out).out
    assert "has all of it already, and stays number 1" in said
    assert "exchange" not in said


def test_merge_refuses_in_one_line(
    command: Command, tmp_path: Path, roster: Path, mail: dict[str, Path]
) -> None:
    command.well("keygen", "north", "--out", tmp_path / "other")
    other = tmp_path / "other" / "north.public.json"
    assert "'north' has two keys" in command.badly("roster", "merge", other, "--out", roster)
    private = mail["north"].with_name("north.identity")
    assert "private identity" in command.badly("roster", "merge", private, "--out", roster)
    assert "missing" in command.badly("roster", "merge", tmp_path / "x.json", "--out", roster)


def test_show_has_a_line_a_party_to_read_aloud(
    command: Command, roster: Path, mail: dict[str, Path]
) -> None:
    edition = read_roster(roster).roster
    lines = command.well("roster", "show", roster).out.splitlines()
    assert lines[:3] == [
        "number       1",
        f"digest       {edition.digest.hex()}",
        f"fingerprint  {edition.fingerprint}",
    ]
    assert [line.split()[:2] for line in lines[3:]] == [
        [name, PARTIES[name]] for name in sorted(PARTIES)
    ]
    assert all(re.fullmatch(PRINT, line.split()[2]) for line in lines[3:])
    for path in mail.values():
        (said,) = command.well("roster", "show", path).out.splitlines()
        assert said in lines


def test_show_prints_json_for_programs(command: Command, roster: Path) -> None:
    command.well("roster", "revoke", roster, "south")
    edition = read_roster(roster)
    said = json.loads(command.well("roster", "show", roster, "--json").out)
    assert said["number"] == 2
    assert said["digest"] == edition.roster.digest.hex()
    assert said["fingerprint"] == edition.roster.fingerprint
    for key, lines in (("members", edition.roster.lines), ("revoked", edition.revoked)):
        assert said[key] == [
            {
                "name": line.name,
                "role": line.role,
                "verify_key": line.verify_key.hex(),
                "fingerprint": line.fingerprint,
            }
            for line in lines
        ]
    assert [line["name"] for line in said["revoked"]] == ["south"]


def test_replace_says_both_fingerprints_and_the_next_number(
    command: Command, tmp_path: Path, roster: Path
) -> None:
    old = read_roster(roster).roster.by_name["north"].fingerprint
    command.well("keygen", "north", "--out", tmp_path / "new")
    said = command.well("roster", "replace", roster, tmp_path / "new" / "north.public.json").out
    new = read_roster(roster).roster.by_name["north"].fingerprint
    assert f"taken out: north  client  {old}\nadded:     north  client  {new}\n" in said
    assert "All parties have to exchange number 2" in said
    assert f"revoked: north  client  {old}" in command.well("roster", "show", roster).out


def test_revoke_says_who_is_out_and_that_old_rosters_bring_nobody_back(
    command: Command, tmp_path: Path, roster: Path, mail: dict[str, Path]
) -> None:
    old = tmp_path / "old.json"
    old.write_bytes(roster.read_bytes())
    said = command.well("roster", "revoke", roster, "south", "north").out
    assert re.search(rf"taken out: north  client  {PRINT}\ntaken out: south  client", said)
    assert "All parties have to exchange number 2" in said
    said = command.well("roster", "merge", old, "--out", roster).out
    assert re.search(rf"left out:  south  client  {PRINT} \(revoked\)", said)
    assert "stays number 2" in said
    assert "no 'west' to revoke" in command.badly("roster", "revoke", roster, "west")


def test_help_lists_what_a_roster_can_do(command: Command) -> None:
    assert re.search(r"^  roster +Merge, show and change", command.well("--help").out, re.MULTILINE)
    for text in (command.well("roster", "--help").out, command("roster").err):
        for name in ("merge", "show", "replace", "revoke"):
            assert re.search(rf"^  {name} +\w.*\.$", text, re.MULTILINE)
    for name in ("merge", "show", "replace", "revoke"):
        said = command.well("roster", name, "--help").out
        assert re.search(rf"^ +secure-afl roster {name} \S+\.json", said, re.MULTILINE)


def test_the_documents_commands_do_what_it_says(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them on one machine, where mail is a copy."""
    text = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
    section = text.split("## Keys for many machines")[1].split("## Between sites")[0]
    blocks = re.findall("```sh\n(.*?)```", section.replace("\\\n", " "), re.DOTALL)
    first, later = (
        [words[1:] for line in block.splitlines() if (words := shlex.split(line, comments=True))]
        for block in blocks
    )
    monkeypatch.chdir(tmp_path)

    def send(name: str) -> None:
        shutil.copy(tmp_path / "keys" / f"{name}.public.json", tmp_path)

    for arguments in first:
        command.well(*arguments)
        if arguments[0] == "keygen":
            send(arguments[1])
    edition = read_roster(tmp_path / "roster.json").roster
    assert {line.name: line.role for line in edition.lines} == PARTIES
    shutil.copy("roster.json", "keys")
    assert load_keys(tmp_path / "keys").identities.keys() == PARTIES.keys()

    for name in ("north.identity", "north.public.json"):
        (tmp_path / "keys" / name).rename(tmp_path / f"old.{name}")
    for name in ("north", "east"):
        command.well("keygen", name)
        send(name)
    for arguments in later:
        command.well(*arguments)
    last = read_roster(tmp_path / "roster.json")
    assert sorted(last.roster.by_name) == ["clinic", "east", "north", "university"]
    assert (last.roster.number, len(last.revoked)) == (4, 2)
    assert last.roster.by_name["north"] != edition.by_name["north"]
