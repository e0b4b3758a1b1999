"""Processes that tests stop have no power cut: nothing waits for the disk.

`test_processes` starts real ones, which do.
"""

import os

import pytest


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush no file: what a process has written outlasts the process all the same."""
    monkeypatch.setattr(os, "fsync", lambda file: None)
