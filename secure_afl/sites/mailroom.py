"""Where a federation's letters and its sessions' mail lie: for now, a folder."""

from pathlib import Path
from typing import Protocol

from protocols.carrier import Post
from protocols.errors import NotStored
from protocols.files import make_folder
from protocols.folder_post import FolderPost
from secure_afl.errors import ConfigError
from secure_afl.federation.letters import MAX_LETTER_BYTES

LETTERS = "letters"


class Mailroom(Protocol):
    """The posts of one federation.

    Attributes:
        nudged: parties that begin ask all others to say again what they have; else the mailroom
            sees to that.
    """

    nudged: bool

    def letters(self) -> Post:
        """Return the post of letters."""

    def session(self, nonce: bytes) -> Post:
        """Return the post of one session's messages."""


class FolderMailroom:
    """The posts of one federation in a folder: one for letters, and one for each session.

    Args:
        folder: shared, synchronised, or carried by hand.

    Raises:
        NotStored: there is no such folder.
    """

    nudged = True

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise NotStored(f"{folder} is no folder", fix="make the post's folder first")
        self._folder = folder

    def letters(self) -> FolderPost:
        """Return the post of letters."""
        return self._post(LETTERS, MAX_LETTER_BYTES)

    def session(self, nonce: bytes) -> FolderPost:
        """Return the post of one session's messages."""
        return self._post(f"session-{nonce.hex()}")

    def _post(self, name: str, most: int = 2**31) -> FolderPost:
        folder = self._folder / name
        try:
            make_folder(folder)
        except OSError as error:
            raise NotStored(
                f"{folder} cannot be made: {error.strerror}", fix="see what is there"
            ) from None
        return FolderPost(folder, most=most)


def open_mailroom(spec: str) -> Mailroom:
    """Open the post that a command line names: `folder:PATH`.

    Raises:
        ConfigError: another kind of post.
        NotStored: there is no such folder.
    """
    kind, _, where = spec.partition(":")
    if kind != "folder" or not where:
        raise ConfigError(f"--post {spec!r}; allowed: folder:PATH")
    return FolderMailroom(Path(where).expanduser())
