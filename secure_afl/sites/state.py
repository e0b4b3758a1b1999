"""What a site's party keeps on its own disk: seats, its memory, and the runs it has been in."""

import os
from contextlib import suppress
from pathlib import Path

from protocols.codec import Secret, decode, encode
from protocols.errors import BadSavedState, Malformed, NotStored
from protocols.files import create_durably, remove_partials, write_durably
from protocols.seats.media import check_local
from protocols.seats.seat import lock_folder


class KeptRun(Secret, frozen=True):
    """The run that a party is in.

    Attributes:
        run: its 16 bytes.
        half: what the party's half saved.
    """

    run: bytes
    half: bytes


class State:
    """One party's folder of state, which one process has at a time.

    Args:
        folder: on a local disk; made if need be.
        party: name, for errors.

    Raises:
        Busy: another process has it.
        NotStored: it cannot be written, or lies on a network's file system.
    """

    def __init__(self, folder: Path, party: str) -> None:
        self._folder = folder
        self._party = party
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_local(folder)
            self._been.mkdir(mode=0o700, exist_ok=True)
            self._lock: int | None = lock_folder(folder)
            remove_partials(folder)
        except OSError as error:
            raise NotStored(
                f"{folder} cannot be used: {error.strerror}",
                party=party,
                fix="name a folder on a local disk that this user may write",
            ) from None

    @property
    def seats(self) -> Path:
        """Folder of the seats."""
        return self._folder / "seats"

    def run(self) -> KeptRun | None:
        """Return the run that this party is in, if it is in one.

        Raises:
            BadSavedState: damaged.
        """
        data = self._read("run")
        if data is None:
            return None
        try:
            return decode(data, KeptRun)
        except Malformed as error:
            raise BadSavedState(
                f"the memory of a run in {self._folder} is damaged: {error.what}",
                party=self._party,
                fix="leave that run: secure-afl party --leave",
            ) from None

    def keep_run(self, run: bytes, half: bytes) -> None:
        """Keep what a party's half saved, before the party says anything.

        Raises:
            NotStored: it cannot be written.
        """
        self._write("run", encode(KeptRun(run, half)))

    def convener(self) -> bytes | None:
        """Return what this site's convener saved, if there is one."""
        return self._read("convener")

    def keep_convener(self, saved: bytes) -> None:
        """Keep what the convener saved, before it says anything.

        Raises:
            NotStored: it cannot be written.
        """
        self._write("convener", saved)

    def has_been(self, run: bytes) -> bool:
        """Say whether this party has been through a run."""
        return (self._been / run.hex()).exists()

    def forget(self, run: bytes) -> None:
        """Forget all of a run but that it has been; empty for whichever it was."""
        if run:
            with suppress(FileExistsError):
                create_durably(self._been / run.hex(), b"")
        for name in ("run", "convener"):
            (self._folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let the folder go."""
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None

    @property
    def _been(self) -> Path:
        return self._folder / "runs"

    def _read(self, name: str) -> bytes | None:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BadSavedState(
                f"{self._folder / name} cannot be read: {error.strerror}", party=self._party
            ) from None

    def _write(self, name: str, content: bytes) -> None:
        try:
            write_durably(self._folder / name, content)
        except OSError as error:
            raise NotStored(
                f"{self._folder / name} cannot be written: {error.strerror}",
                party=self._party,
                fix="make room, then start this party again: it goes on where it was",
            ) from None
