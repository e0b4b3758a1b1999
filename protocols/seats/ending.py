"""How a seat ends: for good, whatever is in its folder."""

from contextlib import suppress
from pathlib import Path

from protocols.errors import BadSavedState, Malformed, NotStored, SeatEnded
from protocols.files import remove_partials
from protocols.seats.lock import lock_folder, unlock
from protocols.seats.stored import Enrolled, create_file
from protocols.seats.vault import Vault


def end_seat(folder: Path, *, unless_joined: bool = False) -> bool:
    """End a seat whatever is in its folder, as where a crash left half an enrolment.

    Args:
        unless_joined: leave a seat alone that has joined a session.

    Returns:
        Whether it was ended.

    Raises:
        Busy: another process has it.
        SeatEnded: it has ended.
    """
    lock = lock_folder(folder)
    try:
        check_not_ended(folder)
        if unless_joined and _has_joined(folder):
            return False
        end_folder(folder, b"")
        return True
    finally:
        unlock(lock)


def _has_joined(folder: Path) -> bool:
    """Say whether a seat is bound to a session, also where somebody has deleted its journal."""
    if (folder / "journal").exists():
        return True
    if not (folder / "key").exists() or not (folder / "enrolment").exists():
        return False  # a crash left half an enrolment, of which nobody has heard
    try:
        return bool(Enrolled.load(folder, Vault.load(folder / "key")).session)
    except (BadSavedState, Malformed):
        return True


def end_folder(folder: Path, why: bytes) -> None:
    """Delete the key, which takes no space, and leave the mark that refuses to begin again.

    Raises:
        NotStored: the key cannot be deleted, or the mark not be made; then nothing goes on either,
            for the enrolment is there and its key is not.
    """
    try:
        (folder / "key").unlink(missing_ok=True)
    except OSError as error:
        raise NotStored(f"the seat's key cannot be deleted: {error.strerror}") from None
    with suppress(FileExistsError):
        create_file(folder / "ended", why)
    _forget(folder)


def check_not_ended(folder: Path) -> None:
    """Raise SeatEnded, with the reason that is on its mark, for a seat that has ended."""
    mark = folder / "ended"
    if mark.exists():
        with suppress(OSError):
            _forget(folder)
        why = mark.read_text(encoding="utf-8", errors="replace")
        raise SeatEnded(
            f"this seat has ended{': ' + why if why else ''}", fix="enrol for a new session"
        )


def _forget(folder: Path) -> None:
    """Delete what nobody can read any more."""
    for name in ("key", "enrolment", "vector", "journal"):
        with suppress(OSError):
            (folder / name).unlink()
    with suppress(OSError):
        remove_partials(folder, older_than=-1)
