"""Which documents there are: those of the root, and those under `docs/`."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOT_DOCUMENTS = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")


def documents() -> list[Path]:
    """List all documents, the root's first."""
    return [*(ROOT / name for name in ROOT_DOCUMENTS), *sorted((ROOT / "docs").rglob("*.md"))]
