"""Roster files: lines come together, contradictions do not, and no key comes back."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from protocols.errors import InvalidSession
from protocols.identity import Identity
from protocols.roster import Line, Roster
from secure_afl.errors import ConfigError, DataError
from secure_afl.federation.rosters import (
    LineFile,
    RosterFile,
    merge,
    read,
    read_roster,
    replace,
    revoke,
)

ROOT = Path(__file__).parents[3]
NAMES = ("clinic", "north", "south", "university", "west")
IDENTITIES = {name: Identity.generate(name) for name in NAMES}
ROLES = {"university": "collector", "clinic": "aggregator"}


def line_file(path: Path, identity: Identity, role: str = "client") -> Path:
    path.write_bytes(msgspec.json.encode(LineFile.of(identity, role)))
    return path


@pytest.fixture
def lines(tmp_path: Path) -> dict[str, Path]:
    """The public lines of five parties, by name."""
    folder = tmp_path / "mail"
    folder.mkdir()
    return {
        name: line_file(folder / f"{name}.public.json", identity, ROLES.get(name, "client"))
        for name, identity in IDENTITIES.items()
    }


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "roster.json"


def names(lines: tuple[Line, ...]) -> list[str]:
    return [line.name for line in lines]


def members(out: Path) -> list[str]:
    return names(read_roster(out).roster.lines)


# Merging


def test_public_lines_make_a_roster(lines: dict[str, Path], out: Path) -> None:
    change = merge(out, list(lines.values()))
    assert names(change.added) == sorted(NAMES)
    assert (change.removed, change.refused, change.changed) == ((), (), True)
    roster = read_roster(out).roster
    assert roster == change.edition.roster
    assert roster.number == 1
    for name, line in roster.by_name.items():
        assert line == Line(name, ROLES.get(name, "client"), IDENTITIES[name].verify_key)


def test_the_order_of_the_files_is_all_one(lines: dict[str, Path], tmp_path: Path) -> None:
    files = list(lines.values())
    there, back = tmp_path / "there.json", tmp_path / "back.json"
    merge(there, files)
    merge(back, files[::-1])
    assert there.read_bytes() == back.read_bytes()


def test_what_is_there_stays_and_every_change_has_the_next_number(
    lines: dict[str, Path], out: Path
) -> None:
    merge(out, [lines["north"]])
    change = merge(out, [lines["south"], lines["north"]])
    assert names(change.added) == ["south"]
    assert (members(out), change.edition.roster.number) == (["north", "south"], 2)


def test_what_adds_nothing_changes_nothing(lines: dict[str, Path], out: Path) -> None:
    merge(out, [lines["north"], lines["south"]])
    before = out.stat().st_ino
    change = merge(out, [lines["north"]])
    assert (change.changed, change.added, change.edition.roster.number) == (False, (), 1)
    assert out.stat().st_ino == before


def test_whoever_merges_the_latest_edition_has_its_number_and_digest(
    lines: dict[str, Path], out: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs.json"
    for name in ("north", "south", "west"):
        merge(theirs, [lines[name]])
    merge(out, [lines["north"]])
    change = merge(out, [theirs])
    assert names(change.added) == ["south", "west"]
    assert change.edition.roster.number == 3
    assert read_roster(out).roster.digest == read_roster(theirs).roster.digest


@pytest.mark.parametrize("more", [(), ("west",)])
def test_two_editions_of_one_number_make_the_next(
    lines: dict[str, Path], out: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    theirs = tmp_path / "theirs.json"
    merge(theirs, [lines[name] for name in ("south", "north")])
    merge(out, [lines[name] for name in ("north", *more)])
    assert merge(out, [theirs]).edition.roster.number == 2


def test_a_name_with_two_keys_is_refused(lines: dict[str, Path], out: Path, tmp_path: Path) -> None:
    merge(out, [lines["north"]])
    before = out.read_bytes()
    other = line_file(tmp_path / "other.json", Identity.generate("north"))
    for files in ([other], [lines["south"], other]):
        with pytest.raises(ConfigError, match=r"'north' has two keys.*roster\.json.*other\.json"):
            merge(out, files)
    assert out.read_bytes() == before
    out.unlink()
    with pytest.raises(ConfigError, match="'north' has two keys"):
        merge(out, [lines["north"], other])
    assert not out.exists()


def test_a_name_with_two_roles_is_refused(
    lines: dict[str, Path], out: Path, tmp_path: Path
) -> None:
    other = line_file(tmp_path / "other.json", IDENTITIES["north"], "collector")
    with pytest.raises(ConfigError, match=r"'north' has two roles: client in .* and collector in"):
        merge(out, [lines["north"], other])


def test_a_key_under_two_names_is_refused(
    lines: dict[str, Path], out: Path, tmp_path: Path
) -> None:
    renamed = Identity.load(
        IDENTITIES["north"].save().replace(b"\xa5north", b"\xa5forth")  # the private key's copy
    )
    assert renamed.name == "forth"
    other = line_file(tmp_path / "other.json", renamed)
    with pytest.raises(ConfigError, match=r"'north' in .* and 'forth' in .* one and the same key"):
        merge(out, [lines["north"], other])
    merge(out, [lines["north"], lines["south"]])
    with pytest.raises(ConfigError, match=r"'north' in .* and 'forth' in .* one and the same key"):
        merge(out, [other])


def test_a_role_that_no_protocol_has_is_refused(out: Path, tmp_path: Path) -> None:
    other = line_file(tmp_path / "other.json", IDENTITIES["north"], "emperor")
    with pytest.raises(ConfigError, match=r"role 'emperor', allowed: client, .*collector"):
        merge(out, [other])
    assert not out.exists()


MERGES = """
import sys
from pathlib import Path
from secure_afl.federation.rosters import merge
for line in sys.argv[2:]:
    merge(Path(sys.argv[1]), [Path(line)])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_two_merges_at_once_lose_no_line(out: Path, tmp_path: Path) -> None:
    files = [
        line_file(tmp_path / f"p{number}.public.json", Identity.generate(f"p{number}"))
        for number in range(60)
    ]
    racers = [
        subprocess.Popen([sys.executable, "-c", MERGES, str(out), *map(str, part)], cwd=ROOT)
        for part in (files[:30], files[30:])
    ]
    assert [racer.wait(timeout=120) for racer in racers] == [0, 0]
    roster = read_roster(out).roster
    assert len(roster.lines) == roster.number == 60


def test_a_roster_that_cannot_be_written_is_said(lines: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.roster\.json cannot be written"):
        merge(tmp_path / "nowhere" / "roster.json", [lines["north"]])


# Replacing and revoking


def test_a_new_key_takes_the_place_of_the_old_one(
    lines: dict[str, Path], out: Path, tmp_path: Path
) -> None:
    merge(out, list(lines.values()))
    new = Identity.generate("north")
    change = replace(out, line_file(tmp_path / "new.json", new))
    assert (names(change.added), names(change.removed)) == (["north"], ["north"])
    edition = read_roster(out)
    assert edition.roster.number == 2
    assert edition.roster.by_name["north"].verify_key == new.verify_key
    assert members(out) == sorted(NAMES)
    assert edition.revoked == change.removed


def test_what_cannot_be_replaced_is_refused(
    lines: dict[str, Path], out: Path, tmp_path: Path
) -> None:
    merge(out, [lines["north"], lines["south"], lines["university"]])
    before = out.read_bytes()
    other = tmp_path / "other.json"
    with pytest.raises(ConfigError, match=r"has no 'west' to replace.*roster merge"):
        replace(out, lines["west"])
    with pytest.raises(ConfigError, match="has this key of 'north' already"):
        replace(out, lines["north"])
    with pytest.raises(ConfigError, match="'north' as collector, the roster as client"):
        replace(out, line_file(other, Identity.generate("north"), "collector"))
    forth = Identity.load(IDENTITIES["south"].save().replace(b"\xa5south", b"\xa5north"))
    with pytest.raises(ConfigError, match=r"'south' in .* and 'north' in .* one and the same key"):
        replace(out, line_file(other, forth))
    with pytest.raises(DataError, match=r"roster\.json is a roster, wanted one party's"):
        replace(out, out)
    with pytest.raises(DataError, match=r"absent\.json is missing"):
        replace(tmp_path / "absent.json", lines["north"])
    assert out.read_bytes() == before


def test_revoked_parties_are_out_and_the_rest_stays(lines: dict[str, Path], out: Path) -> None:
    merge(out, list(lines.values()))
    change = revoke(out, ["west", "north", "west"])
    assert (names(change.added), names(change.removed)) == ([], ["north", "west"])
    assert members(out) == ["clinic", "south", "university"]
    assert change.edition.roster.number == 2
    assert names(revoke(out, ["south"]).edition.revoked) == ["north", "south", "west"]


def test_whoever_is_not_there_cannot_be_revoked(
    lines: dict[str, Path], out: Path, tmp_path: Path
) -> None:
    merge(out, [lines["north"]])
    before = out.read_bytes()
    with pytest.raises(ConfigError, match="no 'west' to revoke; it has: north"):
        revoke(out, ["north", "west"])
    assert out.read_bytes() == before
    with pytest.raises(DataError, match=r"absent\.json is missing"):
        revoke(tmp_path / "absent.json", ["north"])


def test_no_old_file_brings_a_key_back(lines: dict[str, Path], out: Path, tmp_path: Path) -> None:
    merge(out, [lines["north"], lines["south"]])
    old = tmp_path / "old.json"
    old.write_bytes(out.read_bytes())
    revoke(out, ["south"])
    change = merge(out, [old])
    assert (change.changed, names(change.refused)) == (False, ["south"])
    with pytest.raises(ConfigError, match="'south' that was revoked"):
        merge(out, [lines["south"]])
    new = line_file(tmp_path / "new.json", Identity.generate("south"))
    merge(out, [new])
    with pytest.raises(ConfigError, match="'south' that was revoked"):
        replace(out, lines["south"])
    assert members(out) == ["north", "south"]


def test_a_revocation_reaches_whoever_merges_it(
    lines: dict[str, Path], out: Path, tmp_path: Path
) -> None:
    merge(out, [lines["north"], lines["south"], lines["west"]])
    theirs = tmp_path / "theirs.json"
    theirs.write_bytes(out.read_bytes())
    revoke(theirs, ["south"])
    new = Identity.generate("north")
    replace(theirs, line_file(tmp_path / "new.json", new))
    change = merge(out, [theirs])
    assert (names(change.added), names(change.removed)) == (["north"], ["north", "south"])
    assert read_roster(out) == read_roster(theirs)
    assert read_roster(out).roster.by_name["north"].verify_key == new.verify_key


# Reading


def test_a_roster_survives_its_file(lines: dict[str, Path], out: Path) -> None:
    merge(out, list(lines.values()))
    assert b"revoked" not in out.read_bytes()
    change = revoke(out, ["west"])
    assert read_roster(out) == change.edition == read(out)
    assert RosterFile.of(change.edition).edition() == change.edition


@pytest.mark.parametrize("field", ["name", "role", "verify_key", "signature"])
def test_a_public_line_that_was_changed_is_refused(lines: dict[str, Path], field: str) -> None:
    path = lines["north"]
    said = json.loads(path.read_bytes())
    other = json.loads(lines["university"].read_bytes())
    path.write_text(json.dumps(said | {field: other[field]}), encoding="utf-8")
    with pytest.raises(DataError, match=r"north\.public\.json is not signed by its own key"):
        read(path)


def test_a_private_identity_is_told_from_a_public_line(out: Path, tmp_path: Path) -> None:
    path = tmp_path / "north.identity"
    path.write_bytes(IDENTITIES["north"].save())
    with pytest.raises(DataError, match="is a private identity, which stays") as caught:
        merge(out, [path])
    assert IDENTITIES["north"].save()[-32:].hex() not in str(caught.value)
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "neither a public line nor a roster"),
        (b"[]", "neither a public line nor a roster"),
        (b'{"format_version": 1}', "neither a public line nor a roster"),
        (b'{"format_version": 7, "name": "a"}', "format 7, wanted 1; use the same version"),
        (b'{"format_version": 1, "members": []}', "format 1, wanted 2"),
        (b'{"format_version": 2, "members": []}', "is no roster"),
        (
            b'{"format_version": 1, "name": "a b", "role": "client", "verify_key": "%s", '
            b'"signature": "00"}' % (b"00" * 32),
            "party name 'a b'",
        ),
        (
            b'{"format_version": 1, "name": "a", "role": "client", "verify_key": "zz", '
            b'"signature": "00"}',
            "neither a public line nor a roster",
        ),
    ],
)
def test_what_is_neither_a_line_nor_a_roster_is_refused(
    tmp_path: Path, text: bytes, problem: str
) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text)
    with pytest.raises(DataError, match=problem):
        read(path)


def test_a_file_that_is_missing_or_cannot_be_read_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.json is missing"):
        read(tmp_path / "x.json")
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path)


def test_a_roster_contradicts_itself_in_nothing(lines: dict[str, Path], out: Path) -> None:
    merge(out, [lines["north"], lines["south"]])
    said = json.loads(out.read_bytes())
    for damage, problem in (
        ({"revoked": said["members"][:1]}, "the key of 'north' is there and revoked"),
        ({"revoked": [said["members"][0] | {"name": "a b"}]}, "party name 'a b'"),
        ({"members": said["members"] * 2}, "share a name"),
    ):
        out.write_text(json.dumps(said | damage), encoding="utf-8")
        with pytest.raises(DataError, match=problem):
            read_roster(out)


def test_the_last_number_has_no_next(lines: dict[str, Path], out: Path) -> None:
    last = Roster.of([read(lines["north"]).roster.lines[0]], 2**63 - 1)
    with pytest.raises(InvalidSession):
        Roster.of([], 2**63)
    merge(out, [lines["north"]])
    text = out.read_text(encoding="utf-8").replace('"number": 1', f'"number": {last.number}')
    out.write_text(text, encoding="utf-8")
    assert read_roster(out).roster == last
    with pytest.raises(ConfigError, match="number"):
        merge(out, [lines["south"]])


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_only_the_lock_stays_beside_a_roster(lines: dict[str, Path], out: Path) -> None:
    merge(out, [lines["north"]])
    revoke(out, ["north"])
    beside = sorted(path.name for path in out.parent.iterdir() if path.is_file())
    assert beside == ["roster.json", "roster.json.lock"]
