"""Fingerprints: what people read aloud changes with all that it stands for."""

import re

import pytest

from protocols.identity import Identity
from protocols.roster import Line, Roster

NORTH = Line("north", "client", bytes(range(32)))
SOUTH = Line("south", "client", bytes(range(1, 33)))


def test_fingerprints_stay_what_they_are() -> None:
    """People have written them down: another version may not change them unnoticed."""
    assert NORTH.fingerprint == "5PKE-WXIJ-VG6D-TIH6"
    assert Roster.of([NORTH, SOUTH], 3).fingerprint == "AWSI-HU3W-YKBC-FBNN-TTAE-BF63-UXWQ-2FIN"


def test_fingerprints_are_short_groups_of_letters_that_nobody_mistakes() -> None:
    assert re.fullmatch("[A-Z2-7]{4}(-[A-Z2-7]{4}){3}", NORTH.fingerprint)
    assert re.fullmatch("[A-Z2-7]{4}(-[A-Z2-7]{4}){7}", Roster.of([NORTH]).fingerprint)


@pytest.mark.parametrize(
    "other",
    [
        Line("North", "client", NORTH.verify_key),
        Line("north", "collector", NORTH.verify_key),
        Line("north", "client", SOUTH.verify_key),
        Line("northc", "lient", NORTH.verify_key),
    ],
)
def test_a_lines_fingerprint_changes_with_name_role_and_key(other: Line) -> None:
    assert other.fingerprint != NORTH.fingerprint
    assert Roster.of([other]).fingerprint != Roster.of([NORTH]).fingerprint


def test_a_rosters_fingerprint_changes_with_its_number_and_its_lines() -> None:
    prints = {
        Roster.of(lines, number).fingerprint
        for number in (1, 2)
        for lines in ([NORTH], [SOUTH], [NORTH, SOUTH], [])
    }
    assert len(prints) == 8
    assert Roster.of([SOUTH, NORTH]).fingerprint == Roster.of([NORTH, SOUTH]).fingerprint


def test_an_enrolled_member_has_the_fingerprint_of_its_line() -> None:
    member = Identity.generate("north").enrol("client", bytes(32)).member
    assert member.fingerprint == member.line.fingerprint
