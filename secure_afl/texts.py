"""Text files that people write, in whichever way their editors save them."""

import codecs
import tomllib
from pathlib import Path
from typing import Any

from secure_afl.errors import ConfigError

# Marks at a file's beginning; Windows' editors write them.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(content: bytes) -> str:
    """Return the encoding that a byte order mark says, UTF-8 without one."""
    return next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file in UTF-8, or in what a byte order mark says.

    Raises:
        ConfigError: missing, in another encoding, or no TOML.
    """
    try:
        content = file.read_bytes()
        return tomllib.loads(content.decode(encoding_of(content)))
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file} is not readable TOML: {error}. Save it as UTF-8 (in Notepad: Save as, "
            "Encoding)"
        ) from None
    except FileNotFoundError:
        raise ConfigError(f"{file} does not exist; correct its name, or write the file") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{file} cannot be read ({reason}); check its permissions") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not readable TOML: {error}") from None


def at_home(path: str) -> str:
    """Return a path with the user's home directory for a leading ~, as shells do.

    A path that exists as it is written stays as it is.
    """
    if not path.startswith("~") or Path(path).exists():
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError:  # no such user
        return path
