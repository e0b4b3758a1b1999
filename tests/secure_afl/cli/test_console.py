"""Progress where there is no terminal: a line now and then, and no numbers of rows."""

import io

import pytest
from rich.console import Console

from secure_afl.cli import console


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    text = io.StringIO()
    plain = Console(file=text, force_terminal=False, width=100)
    monkeypatch.setattr(console, "errors", lambda: plain)
    return text


def test_quick_work_prints_nothing(screen: io.StringIO) -> None:
    with console.progress() as advance:
        for done in range(100):
            advance("features", done, 100)
    assert screen.getvalue() == ""


def test_long_work_prints_a_line_now_and_then(
    screen: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "LINE_EVERY", 0.0)
    with console.progress() as advance:
        advance("features", 900, 1797)
        advance("points", 3, 11)
    assert screen.getvalue() == "features: 50%\npoints: 3 of 11\n"
