"""Flower's bundle of this project, a FAB: one pyproject.toml, and not a line of Python.

Flower sends a run's bundle to every SuperNode, which executes what is in it. This one names apps of
the site's own installation, so that an operator has no code to send.
"""

import tomllib
from pathlib import Path

from secure_afl.errors import ConfigError

NAME, PUBLISHER, VERSION = "blind-sum", "secure-afl", "1.0.0"
FILE = "pyproject.toml"

CONTENT = f"""\
[project]
name = "{NAME}"
version = "{VERSION}"
dependencies = []

[tool.flwr.app]
publisher = "{PUBLISHER}"

[tool.flwr.app.components]
serverapp = "secure_afl.flower.server:app"
clientapp = "secure_afl.flower.client:app"

[tool.flwr.app.config]
site = ""
config = ""
resume = false
nudge = 90
ttl = 86400
"""


def write_bundle(folder: Path) -> None:
    """Write the folder that `flwr run` and `flwr build` take.

    Raises:
        ConfigError: another file lies there, which Flower would send along.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(CONTENT)
    others = [path.name for path in folder.iterdir() if path.name != FILE]
    if others:
        raise ConfigError(
            f"{folder} holds {sorted(others)[0]!r}, which Flower would send along; take an empty "
            "folder"
        )


def unknown_in(apps: Path) -> list[str]:
    """Describe what a folder of installed apps holds beside this bundle; nothing if that is all.

    Args:
        apps: `$FLWR_HOME/apps`.
    """
    found = []
    for app in sorted(apps.iterdir()):
        try:
            files = sorted(str(p.relative_to(app)) for p in app.rglob("*") if not p.is_dir())
            known = files == [FILE] and _parsed((app / FILE).read_text()) == _parsed(CONTENT)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
            known = False
        if not known:
            found.append(app.name)
    return found


def _parsed(text: str) -> object:
    return tomllib.loads(text)
