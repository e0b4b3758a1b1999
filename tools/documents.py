"""Which documents there are: those of the root, and those under `docs/` and `examples/`."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOT_DOCUMENTS = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")


def documents() -> list[Path]:
    """List all documents, the root's first."""
    folders = (ROOT / name for name in ("docs", "examples"))
    below = (page for folder in folders for page in sorted(folder.rglob("*.md")))
    return [*(ROOT / name for name in ROOT_DOCUMENTS), *below]
