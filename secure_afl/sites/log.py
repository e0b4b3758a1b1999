"""What a site's party tells its own people, where no terminal is: a file in its folder of state."""

import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from secure_afl.sites.settings import Site

LOG = "log.txt"

log = logging.getLogger("secure_afl")


def open_log(site: Site) -> Callable[[str], None]:
    """Return what writes a line, with the time, into a file for the site's owner alone."""
    path = Path(site.place.state) / LOG

    def tell(what: str) -> None:
        log.info("%s: %s", site.place.role, what)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        with os.fdopen(os.open(path, flags, 0o600), "a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {what}\n")

    return tell
