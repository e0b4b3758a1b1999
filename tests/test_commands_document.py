"""The page of commands has every command and flag, as the command line says them."""

import re
import subprocess
import sys

from secure_afl.cli.main import OWN
from secure_afl.runs.config import FIELDS
from tools.documents import ROOT

PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


def test_the_page_is_up_to_date() -> None:
    # In a process of its own: tests register methods and protocols in this one.
    command = [sys.executable, "-W", "ignore", "-m", "tools.commands", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_command_and_setting_is_on_it() -> None:
    for name in (*OWN, "attack", "ledger raise-budget"):
        assert f"\n## `secure-afl {name}`\n" in PAGE, name
    for name in FIELDS:
        assert f"`--{name.replace('_', '-')}`" in PAGE, name
    assert re.search(r"\| `--local-epochs` \| `N` \| .*Default: 5; frl 2\. \|", PAGE)
