"""Where a coordinator keeps bulky messages until it knows which of them count."""

import hashlib
from pathlib import Path
from typing import Protocol

from protocols.errors import BadSavedState, NotStored
from protocols.files import write_durably


class Spool(Protocol):
    """Durable storage of messages by sender; what is put is there after a restart."""

    def put(self, sender: str, message: bytes) -> None:
        """Keep a message, in place of any earlier one of this sender. Raises NotStored."""

    def get(self, sender: str) -> bytes:
        """The message kept for a sender. Raises BadSavedState if there is none."""


class MemorySpool:
    """A spool for simulations, where all parties die together."""

    def __init__(self) -> None:
        self._messages: dict[str, bytes] = {}

    def put(self, sender: str, message: bytes) -> None:
        self._messages[sender] = message

    def get(self, sender: str) -> bytes:
        try:
            return self._messages[sender]
        except KeyError:
            raise BadSavedState(f"the message of '{sender}' is not in the spool") from None


class FileSpool:
    """A spool in a folder of its own, one file a sender, readable by its owner only.

    The files hold sealed messages, which nobody without the party's sealing key can open.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, sender: str, message: bytes) -> None:
        try:
            write_durably(self._path(sender), message)
        except OSError as error:
            raise NotStored(
                f"the message of '{sender}' cannot be written to the spool: {error.strerror}",
                fix="free space in the spool's folder; the sender may send it again",
            ) from None

    def get(self, sender: str) -> bytes:
        try:
            return self._path(sender).read_bytes()
        except OSError as error:
            raise BadSavedState(
                f"the message of '{sender}' cannot be read from the spool: {error.strerror}",
                fix="restore the spool's folder, or run the session again",
            ) from None

    def _path(self, sender: str) -> Path:
        # Names differ in case where file systems may not.
        digest = hashlib.sha256(sender.encode()).hexdigest()
        return self._folder / f"{digest}.message"
