"""What the documents say is what the code does."""

import subprocess
import sys
from pathlib import Path

from benchmarks.tables import README, render

ROOT = Path(__file__).parents[1]


def test_the_readme_has_the_tables_of_the_results() -> None:
    text = README.read_text(encoding="utf-8")
    assert "<!-- table: " in text
    assert render(text) == text


def test_the_quickstart_runs() -> None:
    command = [sys.executable, str(ROOT / "examples" / "quickstart.py")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "exact: True" in said.stdout
    assert "protects each client's vector" in said.stdout
    assert "warning: 1500 rows in the sum" in said.stdout


def test_the_packages_import_to_the_left_only() -> None:
    for package, right in (("protocols", ("secure_afl", "attacks")), ("secure_afl", ("attacks",))):
        for path in (ROOT / package).rglob("*.py"):
            if path.parent.name == "cli":
                continue
            for line in path.read_text(encoding="utf-8").splitlines():
                words = line.split()
                if words[:1] in (["import"], ["from"]):
                    assert words[1].split(".")[0] not in right, f"{path}: {line}"
