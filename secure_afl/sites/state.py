"""What a site's party keeps on its own disk: seats, its memory, and the runs it has been in."""

from collections.abc import Mapping
from pathlib import Path

from protocols.codec import Secret, Wire, decode, encode
from protocols.errors import BadSavedState, Malformed, NotStored
from protocols.files import create_durably, remove_partials, write_durably
from protocols.seats.lock import lock_folder, unlock
from protocols.seats.media import check_local

LETTERS = "letters"


class KeptRun(Secret, frozen=True):
    """The run that a party is in, or that it convenes.

    Attributes:
        run: its 16 bytes.
        saved: what the party's half, or the convener, saved.
    """

    run: bytes
    saved: bytes


class WaitsFor(Wire, frozen=True):
    """A party of a session, what it waits for, and since when by the clock on the wall."""

    nonce: bytes
    party: str
    step: str
    since: float


class Waiting(Wire, frozen=True):
    """All that the parties of this site wait for."""

    sessions: tuple[WaitsFor, ...]


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
            remove_partials(folder, older_than=-1)  # nobody else writes here
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
        return self._kept("run")

    def keep_run(self, run: bytes, half: bytes) -> None:
        """Keep what a party's half saved, before the party says anything.

        Raises:
            NotStored: it cannot be written.
        """
        self._write("run", encode(KeptRun(run, half)))

    def convener(self) -> KeptRun | None:
        """Return the run that this site convenes, if there is one.

        Raises:
            BadSavedState: damaged.
        """
        return self._kept("convener")

    def keep_convener(self, run: bytes, saved: bytes) -> None:
        """Keep what the convener saved, before it says anything.

        Raises:
            NotStored: it cannot be written.
        """
        self._write("convener", encode(KeptRun(run, saved)))

    def waiting(self, nonce: bytes) -> dict[str, tuple[str, float]]:
        """Return since when a session's party waits for what, by the clock on the wall."""
        data = self._read("waiting")
        try:
            found = () if data is None else decode(data, Waiting).sessions
        except Malformed:
            # Deadlines then begin anew.
            return {}
        return {w.party: (w.step, w.since) for w in found if w.nonce == nonce}

    def keep_waiting(self, waiting: Mapping[bytes, Mapping[str, tuple[str, float]]]) -> None:
        """Keep since when parties wait, so that deadlines outlast processes."""
        kept = [
            WaitsFor(nonce, party, step, since)
            for nonce, parties in waiting.items()
            for party, (step, since) in parties.items()
        ]
        self._write("waiting", encode(Waiting(tuple(kept))))

    def letters(self) -> list[bytes]:
        """Return the letters that opened sessions which are not over."""
        if not self._letters.is_dir():
            return []
        return [path.read_bytes() for path in sorted(self._letters.glob("*.letter"))]

    def keep_letter(self, nonce: bytes, letter: bytes) -> None:
        """Keep the letter that opened a session; an empty one forgets it."""
        path = self._letters / f"{nonce.hex()}.letter"
        if not letter:
            path.unlink(missing_ok=True)
            return
        self._letters.mkdir(mode=0o700, exist_ok=True)
        self._write(f"{LETTERS}/{path.name}", letter)

    def has_been(self, run: bytes) -> bool:
        """Say whether this party has been through a run."""
        return (self._been / run.hex()).exists()

    def forget(self, *runs: bytes) -> None:
        """Forget all of the run that this party is in but that it has been.

        Args:
            runs: by their 16 bytes; letters of these are never heard again.

        Raises:
            NotStored: that they have been cannot be written; nothing is forgotten.
        """
        for run in runs:
            try:
                create_durably(self._been / run.hex(), b"")
            except FileExistsError:
                pass
            except OSError as error:
                raise self._unwritten(self._been, error) from None
        for name in ("run", "convener", "waiting"):
            (self._folder / name).unlink(missing_ok=True)
        for path in self._letters.glob("*"):
            path.unlink(missing_ok=True)

    def leave(self) -> bool:
        """Forget the run that this party is in, whatever is left of its memory.

        Returns:
            Whether it was known which run that is: letters of an unknown one may be heard again.

        Raises:
            NotStored: as `forget`.
        """
        found, whole = [], True
        for name in ("run", "convener"):
            try:
                kept = self._kept(name)
            except BadSavedState:
                whole = False
            else:
                found += [] if kept is None else [kept.run]
        self.forget(*found)
        return whole

    def close(self) -> None:
        """Let the folder go."""
        if self._lock is not None:
            unlock(self._lock)
        self._lock = None

    @property
    def _letters(self) -> Path:
        return self._folder / LETTERS

    @property
    def _been(self) -> Path:
        return self._folder / "runs"

    def _kept(self, name: str) -> KeptRun | None:
        """Return what is kept of a run, unless a crash came between its end and forgetting it."""
        data = self._read(name)
        if data is None:
            return None
        try:
            kept = decode(data, KeptRun)
        except Malformed as error:
            raise BadSavedState(
                f"the memory of a run in {self._folder} is damaged: {error.what}",
                party=self._party,
                fix="leave that run: secure-afl party --leave",
            ) from None
        return None if self.has_been(kept.run) else kept

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
            raise self._unwritten(self._folder / name, error) from None

    def _unwritten(self, path: Path, error: OSError) -> NotStored:
        return NotStored(
            f"{path} cannot be written: {error.strerror}",
            party=self._party,
            fix="make room, then start this party again: it goes on where it was",
        )
