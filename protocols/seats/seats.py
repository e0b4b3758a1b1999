"""All seats of one party on one machine: a folder each, by the session's nonce."""

import time
from contextlib import suppress
from pathlib import Path

from protocols.errors import Busy, NotStored, SeatEnded
from protocols.identity import NONCE_BYTES, Identity
from protocols.seats.ending import end_seat
from protocols.seats.seat import Seat

MAX_OPEN = 64
"""Enrolments that may be outstanding: anybody may ask for one, and each is a folder."""


class Seats:
    """The seats of one identity, in one folder.

    Args:
        folder: on a local disk; made if need be.
        identity: whose seats these are.
        most: how many may be open at once.
    """

    def __init__(self, folder: Path, identity: Identity, *, most: int = MAX_OPEN) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._identity = identity
        self._most = most

    def hello(self, role: str, nonce: bytes, bound: int = 0) -> Seat:
        """Enrol for a nonce, or return what was answered before.

        Raises:
            NotStored: too many enrolments are outstanding, or the disk is full.
            SeatEnded, Busy, BadSavedState: as `Seat.hello`.
        """
        folder = self._of(nonce)
        if not folder.exists() and len(self.open_seats()) >= self._most:
            raise NotStored(
                f"{self._most} enrolments are outstanding, allowed: ≤ {self._most}",
                party=self._identity.name,
                fix="end those that no session came of, or wait for the janitor",
            )
        return Seat.hello(folder, self._identity, role, nonce, bound)

    def knows(self, nonce: bytes) -> bool:
        """Say whether there is a seat for a nonce, or was one that has ended."""
        return self._of(nonce).exists()

    def open(self, nonce: bytes) -> Seat:
        """Open the seat of a nonce.

        Raises:
            SeatEnded, Busy, BadSavedState: as `Seat.open`.
        """
        return Seat.open(self._of(nonce))

    def open_seats(self) -> list[bytes]:
        """Return the nonces of all seats that have not ended."""
        found = []
        for folder in sorted(self._folder.iterdir()):
            with suppress(ValueError):
                nonce = bytes.fromhex(folder.name)
                if len(nonce) == NONCE_BYTES and not (folder / "ended").exists():
                    found.append(nonce)
        return found

    def has_ended(self, nonce: bytes) -> bool:
        """Say whether there was a seat of a nonce that has ended."""
        return (self._of(nonce) / "ended").exists()

    def end(self, nonce: bytes) -> None:
        """End the seat of a nonce, if there is one; a second time changes nothing.

        Raises:
            Busy: another process has it.
            NotStored: its key cannot be deleted.
        """
        folder = self._of(nonce)
        if folder.exists():
            with suppress(SeatEnded):
                end_seat(folder)

    def give_up(self, nonce: bytes) -> bool:
        """End a seat that has joined no session; say whether there is none that has.

        Raises:
            Busy, NotStored: as `end`.
        """
        folder = self._of(nonce)
        if not folder.exists():
            return False
        try:
            return end_seat(folder, unless_joined=True)
        except SeatEnded:
            return False

    def end_all(self) -> None:
        """End every seat that no other process has."""
        for nonce in self.open_seats():
            with suppress(Busy):
                self.end(nonce)

    def clear(self) -> None:
        """Remove the marks of seats that have ended, where nobody can ask for these again.

        A mark refuses a second answer to one nonce. It is kept as long as the letters of its run
        are heard; another enrolment has other keys, and is of no use in an old session.
        """
        for folder in sorted(self._folder.iterdir()):
            mark = folder / "ended"
            with suppress(OSError):
                if len(folder.name) == 2 * NONCE_BYTES and mark.exists():
                    mark.unlink()
                    folder.rmdir()

    def sweep(self, older_than: float) -> list[bytes]:
        """End the seats whose enrolment is older, in seconds, and that joined no session.

        Returns:
            Their nonces.
        """
        ended = []
        for nonce in self.open_seats():
            folder = self._of(nonce)
            with suppress(Busy, SeatEnded, OSError):
                born = folder.stat().st_mtime
                if time.time() - born >= older_than and end_seat(folder, unless_joined=True):
                    ended.append(nonce)
        return ended

    def _of(self, nonce: bytes) -> Path:
        if len(nonce) != NONCE_BYTES:
            raise NotStored(f"a nonce of {len(nonce)} bytes, wanted {NONCE_BYTES}")
        return self._folder / nonce.hex()
