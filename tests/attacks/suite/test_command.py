"""`secure-afl attack` as a person meets it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from attacks.attack import ATTACKS
from attacks.suite.cells import CELLS
from tests.kit.commands import Command
from tests.kit.tiny import TINY, Counts


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SECURE_AFL_CACHE", str(tmp_path / "features.sqlite"))
    monkeypatch.setenv("COLUMNS", "140")
    for attack in TINY.values():
        ATTACKS.register(attack)
    yield
    for name in TINY:
        ATTACKS.forget(name)


NAMED = ("--attacks", ",".join(TINY))
DIGITS = ("--backbone", "identity", "--partition", "iid:4", *NAMED)


def test_it_attacks_the_embedded_digits_and_reports(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "leakage"
    said = command.well("attack", "--quick", *DIGITS, "--rows", "40", "--out", out).out
    assert "afl, exact sums, 40 rows in the sum" in said
    assert "1 counts, 2 leverage, 3 mean-picture" in said
    assert "collector" in said
    assert f"Report: {out / 'report.html'}" in said.replace("\n", "")
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert len(results["cells"]) == results["planned"] > 0
    assert results["command"].startswith("secure-afl attack --quick --backbone identity")
    assert {cell["protocol"] for cell in results["cells"]} == {"plain", "additive"}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.endswith("</html>\n")
    # Again: everything is there, and nothing is done.
    before = (out / CELLS).read_bytes()
    command.well("attack", "--quick", *DIGITS, "--rows", "40", "--out", out)
    assert (out / CELLS).read_bytes() == before


def test_stopped_it_says_how_to_go_on_and_leaves_a_report(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "leakage"
    claim = Counts.claim

    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Counts, "claim", stop)
    # In this process: others load the attack as it is.
    one = (*DIGITS, "--processes", "1")
    arguments = ("attack", "--quick", *one, "--attacks", "leverage,counts", "--out", out)
    stopped = command(*arguments)
    assert stopped.code == 130
    assert "the same command goes on" in stopped.err
    assert "Interrupted: 1 of" in (out / "report.html").read_text(encoding="utf-8")
    monkeypatch.setattr(Counts, "claim", claim)
    command.well(*arguments)
    assert "Interrupted" not in (out / "report.html").read_text(encoding="utf-8")


def test_list_says_what_attacks_want_and_assume(command: Command) -> None:
    said = " ".join(command.well("attack", "--list").out.split())
    assert "leverage" in said
    assert "candidate rows" in said
    assert "a released sum of statistics" in said
    assert "with their labels as extra['public_labels']" in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--out is missing"),
        (("--attacks", "magic"), "--attacks 'magic'; allowed: "),
        (("--protocols", "plain,telepathy"), "--protocols 'telepathy'; allowed: additive, bfv"),
        (("--adversaries", "server,fate"), "--adversaries 'fate'; allowed: outsider"),
        (("--methods", "magic"), "--methods 'magic'; allowed: afl"),
        (("--rows", "forty"), "--rows: 'forty' is no number"),
        (("--rows", "5000"), "--rows 5000: allowed for this data"),
        (("--repeats", "0"), "--repeats 0 is not allowed"),
        (("--feature-bits", "99"), "field 'feature_bits': 99 is not allowed"),
        (("--clients", "/nowhere/*"), "no path matches"),
    ],
)
def test_bad_flags_are_refused_in_one_line(
    command: Command, tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    out = ("--out", str(tmp_path / "leakage")) if flags else ()
    assert message in command.badly("attack", *NAMED, *flags, *out)
    assert not (tmp_path / "leakage" / CELLS).exists()
