"""Where a coordinator keeps bulky messages until it knows which of them count."""

import hashlib
from pathlib import Path
from typing import Protocol

from protocols.errors import BadSavedState, NotStored
from protocols.files import open_regular, remove_partials, write_durably


class Spool(Protocol):
    """Durable storage of messages by sender; what is put is there after a restart."""

    def put(self, sender: str, message: bytes) -> None:
        """Keep a message, in place of any earlier one of this sender.

        Raises:
            NotStored: the message cannot be kept.
        """

    def get(self, sender: str) -> bytes:
        """Return the message kept for a sender.

        Raises:
            BadSavedState: there is none, or it cannot be read.
        """


class MemorySpool:
    """A spool for simulations, where all parties die together."""

    def __init__(self) -> None:
        self._messages: dict[str, bytes] = {}

    def put(self, sender: str, message: bytes) -> None:
        """Keep a message in memory, in place of the sender's earlier one."""
        self._messages[sender] = message

    def get(self, sender: str) -> bytes:
        """Return the message kept for a sender.

        Raises:
            BadSavedState: this object was given no message of that sender.
        """
        try:
            return self._messages[sender]
        except KeyError:
            raise BadSavedState(f"the message of '{sender}' is not in the spool") from None


class FileSpool:
    """A spool in a folder of its own, one file a sender.

    Only the folder's owner can read it.

    The files hold sealed messages, which nobody without the party's sealing key can open.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_partials(folder)

    def put(self, sender: str, message: bytes) -> None:
        """Write a message to its sender's file, flushed to the disk.

        Raises:
            NotStored: the file cannot be written; an earlier message stays as it was.
        """
        try:
            write_durably(self._path(sender), message)
        except OSError as error:
            raise NotStored(
                f"the message of '{sender}' cannot be written to the spool: {error.strerror}",
                fix="free space in the spool's folder; the sender may send it again",
            ) from None

    def get(self, sender: str) -> bytes:
        """Read the message from its sender's file.

        Raises:
            BadSavedState: the file is missing or cannot be read.
        """
        try:
            with open_regular(self._path(sender)) as file:
                return file.read()
        except OSError as error:
            raise BadSavedState(
                f"the message of '{sender}' cannot be read from the spool: {error.strerror}",
                fix="restore the spool's folder, or run the session again",
            ) from None

    def _path(self, sender: str) -> Path:
        # Names differ in case where file systems may not.
        digest = hashlib.sha256(sender.encode()).hexdigest()
        return self._folder / f"{digest}.message"
