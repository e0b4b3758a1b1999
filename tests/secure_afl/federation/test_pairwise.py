"""`--protocol pairwise` and `params` from the command line."""

import json
import re
from pathlib import Path

import pytest

from protocols import Pairwise
from secure_afl.runs.choose import make_protocol
from secure_afl.runs.settings import make_config
from tests.kit.commands import Command


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


def test_settings_make_the_protocol() -> None:
    assert make_protocol(make_config({"protocol": "pairwise"})) == Pairwise(0.1, 0.1, "lying")
    settings = {"corrupt_fraction": 0.3, "dropout_fraction": 0, "server_trust": "curious"}
    protocol = make_protocol(make_config({"protocol": "pairwise", **settings}))
    assert protocol == Pairwise(0.3, 0.0, "curious")


@pytest.mark.parametrize("method", ["afl", "fedhip"])
def test_pairwise_is_a_drop_in(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setenv("SECURE_AFL_CACHE", str(tmp_path / "features.sqlite"))
    file = tmp_path / "report.json"
    settings = ("--method", method, "--partition", "dirichlet:8:0.5", "--drop", "1")
    shape = ("--backbone", "projection:32", "--json", file)
    command.well("run", "--protocol", "pairwise", *settings, *shape)
    report = json.loads(file.read_text(encoding="utf-8"))
    assert report["exact"] is True
    assert report["protocol"] == "pairwise"
    assert report["clients"] == {"total": 8, "included": 7, "dropped": 1}


def test_params_prints_what_follows(command: Command) -> None:
    text = command.well("params", "1000", "--server-trust", "lying_in_unmasking").out
    assert re.search(r"neighbours k +96\b", text)
    assert re.search(r"threshold t +67\b", text)
    text = command.well("params", "20", "--corrupt-fraction", "0.25", "--min-cohort", "15").out
    assert re.search(r"neighbours k +19\b", text)
    assert "one, over ≥ 10 honest clients" in text


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (("10", "--corrupt-fraction", "0.5", "--dropout-fraction", "0.4"), "threshold"),
        (("10", "--corrupt-fraction", "1"), "corrupt_fraction.*< 1"),
        (("10", "--server-trust", "honest"), "curious, lying, lying_in_unmasking"),
    ],
)
def test_params_refuses_what_cannot_be_kept(
    command: Command, flags: tuple[str, ...], what: str
) -> None:
    assert re.search(what, command.badly("params", *flags))
