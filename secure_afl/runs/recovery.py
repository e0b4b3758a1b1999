"""What outlasts the process of a run: its settings, its sums, and where its clients stand.

A simulation is one process with all parties in it. If it ends before a sum is on the disk, their
keys are gone and nobody has the sum: its session can be given back. From then on the run can be
finished from the disk, and that sum never comes out a second time.
"""

import hashlib
import logging
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from protocols.codec import Digest, Secret, encode
from protocols.errors import Busy, SessionAborted
from protocols.identity import Identity
from protocols.session import Session
from secure_afl.analytic.rows import ClientData
from secure_afl.errors import (
    ConfigError,
    DataError,
    LedgerRefusal,
    NoModel,
    NotResumable,
    OutOfBoundsTotal,
    Unfinished,
)
from secure_afl.federation.keeping import Keeper, Kept, KeptSum, Standing, Start
from secure_afl.privacy.ledger import Ledger
from secure_afl.runs.config import FIELDS, RunConfig
from secure_afl.runs.sealed import RECORD, SealedFolder, claimed
from secure_afl.runs.settings import make_config

log = logging.getLogger("secure_afl")

FOLDER = "unfinished-run"
# Settings that name files; relative ones mean something else in another folder.
_PATHS = ("clients", "test", "checkpoint", "keys", "public", "ledger", "out")
_SESSION, _SUM, _STANDING = "session", "sum-", "standing-"


class _Record(Secret, frozen=True):
    """How a run began: its settings as JSON, what it begins with, and digests of its rows."""

    settings: bytes
    start: Start
    rows: tuple[tuple[str, Digest], ...]


class _Session(Secret, frozen=True):
    """The last session that may be charged: its id."""

    session: Annotated[bytes, Meta(min_length=32, max_length=32)]


class Recovery(Keeper):
    """A run's folder; use `begin` for a new run and `reopen` for one that was stopped.

    Attributes:
        config: the settings of the run.
    """

    def __init__(self, config: RunConfig, folder: SealedFolder) -> None:
        self.config = config
        self._folder = folder
        self._rows: dict[str, bytes] = {}
        self._pending = b""
        self._released: list[bytes] = []

    @classmethod
    def begin(cls, config: RunConfig, receiver: Identity | None) -> "Recovery | None":
        """Choose a new run's folder; it is made with the first session.

        It lies in the folder of `--out`; without that beside the ledger. A run with neither has
        nothing to lose but what it prints, and no folder.

        Args:
            receiver: of the sums, where it has an identity, to which they are sealed.

        Raises:
            Unfinished: an earlier run into the folder, or with the ledger, was stopped.
            Busy: another process has it.
            ConfigError: something else lies there.
        """
        if config.out is not None:
            place = Path(config.out).absolute() / FOLDER
            _check_free(place)
        elif config.ledger is not None:
            ledger = Path(config.ledger).resolve()
            beside = ledger.with_name(f"{ledger.name}.{FOLDER}")
            for other in sorted(beside.glob("*")):
                # Several runs may use one ledger at a time.
                with suppress(Busy):
                    _check_free(other)
            place = beside / secrets.token_hex(4)
        else:
            return None
        keys = "" if receiver is None else str(config.keys)
        started = str(Path.cwd()) if _is_relative(config) else ""
        return cls(config, _folder(place, receiver=receiver, keys=keys, started=started))

    @classmethod
    def reopen(cls, folder: Path) -> "Recovery":
        """Open the folder of a run that was stopped.

        Args:
            folder: the run's own, the one of `--out`, or the one beside a ledger.

        Raises:
            NotResumable: there is nothing to finish, or it is damaged, a copy, or cannot be opened;
                or several runs lie beside the ledger.
            Busy: another process has it.
        """
        folder = folder.absolute()
        sealed = _folder(_run_in(folder))
        if not sealed.exists:
            sealed.sweep()
            raise NotResumable(
                f"there is nothing to resume in {folder}: no run into it was stopped, or it is "
                "finished"
            )
        sealed.reopen()
        recovery = cls(RunConfig(), sealed)
        try:
            recovery._restore()
        except BaseException:
            sealed.close()
            raise
        return recovery

    def _restore(self) -> None:
        folder = self._folder
        record = folder.read(RECORD, _Record)
        self._rows = dict(record.rows)
        self.config = make_config(msgspec.json.decode(record.settings))
        if _SESSION in folder.files:
            self._pending = folder.read(_SESSION, _Session).session
        names = [name for name in folder.files if name.startswith(_SUM)]
        if names != [_numbered(_SUM, number) for number in range(1, len(names) + 1)]:
            raise NotResumable(f"a sum is missing in {folder.place}; restore it from a backup")
        sums = [folder.read(name, KeptSum) for name in names]
        if sums:
            standing = folder.read(_numbered(_STANDING, len(sums)), Standing)
            self.kept = Kept(record.start, sums, standing)
        self._released = [kept.release.session for kept in sums]

    @property
    def command(self) -> str:
        """The command that finishes the run."""
        return f"secure-afl run --resume {self._folder.place}"

    @property
    def exists(self) -> bool:
        """Whether there is anything of this run to finish."""
        return self._folder.taken and self._folder.exists

    def compare(self, rows: Mapping[str, bytes], sums: int) -> list[str]:
        """Note digests of a run's rows; return whose have changed since the run began.

        Args:
            rows: by `digest_rows`, by client; held-out and test rows, too.
            sums: of the whole run.

        Raises:
            DataError: rows have changed, and sums are to come.
        """
        known = self._rows if self._released else {}
        changed = sorted(name for name in known if rows.get(name) != known[name])
        if changed and len(self._released) < sums:
            raise DataError(
                f"the rows of {', '.join(changed)} have changed since the run began, and "
                f"{sums - len(self._released)} of {sums} sums are to come. Restore them; or, to "
                f"give the run up, delete {self._folder.place}: what is out counts"
            )
        if not self._released:
            self._rows = dict(rows)
        return changed

    def opening(self, start: Start, session: Session) -> None:
        """Note a session, and with the first how the run began; on return it is on the disk.

        Raises:
            NotKept: it cannot be written.
            Busy: another process has the folder.
        """
        if not self._folder.taken:
            self._folder.take()
            self._folder.begin()
        if not self._released:
            settings = msgspec.json.encode(given_settings(self.config))
            rows = tuple(sorted(self._rows.items()))
            self._folder.write(RECORD, _Record(settings, start, rows))
        if self.config.ledger is not None:
            self._folder.write(_SESSION, _Session(session.id))
        self._pending = session.id

    def out(self, kept: KeptSum, standing: Standing) -> None:
        """Keep a sum; on return it is on the disk.

        Raises:
            NotKept: it cannot be written.
        """
        number = len(self._released) + 1
        # The sum comes last: it says that all else is there.
        self._folder.write(_numbered(_STANDING, number), standing)
        self._folder.write(_numbered(_SUM, number), kept)
        self._released.append(kept.release.session)
        self._folder.delete(_numbered(_STANDING, number - 1))

    def settle(self, ledger: Ledger | None) -> bool:
        """Tell the ledger what became of the last session; returns whether it was given back.

        Raises:
            LedgerRefusal: it cannot be told.
        """
        if ledger is None or not self._pending or not ledger.knows(self._pending):
            return False
        if self._pending in self._released:
            ledger.released(self._pending)
            return False
        ledger.void(
            self._pending,
            "the simulation of this session ended before its sum was kept; with its process went "
            "its parties' keys and the sum",
        )
        return True

    def stopped(self, error: BaseException, ledger: Ledger | None) -> None:
        """Clear up after a run that failed; the error gains a note on what is left."""
        settled = True
        if isinstance(error, SessionAborted):
            # Its parties have said whether it may be given back.
            self._pending = b""
        try:
            self.settle(ledger)
        except LedgerRefusal as problem:
            log.warning("the session's releases count for now: %s", problem)
            settled = False
        # Nothing was released, or nothing can be made of it.
        if settled and (not self._released or isinstance(error, (OutOfBoundsTotal, NoModel))):
            self.remove()
        elif self.exists:
            self.note(error)
        self.close()

    def note(self, error: BaseException) -> None:
        """Add to an error what is left of the run, and how to go on; nothing where nothing is."""
        if not self.exists:
            return
        words = f"To give its session back: {self.command}"
        if self._released:
            words = f"What is out is kept, {self._folder.opens}. To finish the run: {self.command}"
        error.add_note(words)
        if not isinstance(error, Exception):
            log.warning("%s", words)

    def rescue(self, elsewhere: Path) -> None:
        """Write everything again if the folder has vanished; if that fails, elsewhere.

        Raises:
            NotKept: neither can be written.
        """
        self._folder.rescue(elsewhere)

    def remove(self) -> None:
        """Delete all that was kept; there is nothing to finish any more."""
        if not self._folder.taken:
            return
        self._folder.remove()
        parent = self._folder.place.parent
        # The folder beside a ledger goes with the last run in it.
        if parent.name.endswith(f".{FOLDER}"):
            with suppress(OSError):
                parent.rmdir()

    def close(self) -> None:
        """Let the folder go, with what is in it."""
        self._folder.close()

    def __repr__(self) -> str:
        return f"<Recovery in {self._folder.place}>"


def digest_rows(data: ClientData) -> bytes:
    """Return the SHA-256, 32 bytes, of features and labels."""
    digest = hashlib.sha256()
    for array in (data.features, data.labels):
        digest.update(encode((array.dtype.str, array.shape)))
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def given_settings(config: RunConfig) -> dict[str, Any]:
    """Return the settings of which `make_config` makes this configuration."""
    content: dict[str, Any] = msgspec.to_builtins(config)
    content.pop("options")
    given = {name: value for name, value in content.items() if value != FIELDS[name].default}
    # The method always: which one is taken where none is named turns on other settings.
    return given | dict(config.options) | {"method": config.method}


def _run_in(folder: Path) -> Path:
    """Find the folder of the run that a folder is, or has in it; one of nothing where none is."""
    if (folder / RECORD).exists():
        return folder
    if not folder.name.endswith(f".{FOLDER}"):
        return folder / FOLDER
    found = sorted(record.parent for record in folder.glob(f"*/{RECORD}"))
    if len(found) > 1:
        raise NotResumable(
            f"{len(found)} runs were stopped in {folder}; name one of them: "
            f"{', '.join(str(place) for place in found)}"
        )
    return found[0] if found else folder / FOLDER


def _folder(place: Path, **opened: Any) -> SealedFolder:
    return SealedFolder(place, (_SESSION,), (_SUM, _STANDING), **opened)


def _is_relative(config: RunConfig) -> bool:
    named = [getattr(config, name) for name in _PATHS]
    return any(path is not None and not Path(path).is_absolute() for path in named)


def _check_free(place: Path) -> None:
    """Raise an error if a run has this folder, or something else lies there."""
    folder = _folder(place)
    if folder.exists:
        with suppress(NotResumable):
            os.close(claimed(place))
        raise Unfinished(
            f"a run was stopped before it was done, and is kept in {place}. Finish it, which also "
            f"gives back what it charged for nothing: secure-afl run --resume {place}"
        )
    if foreign := folder.foreign():
        raise ConfigError(
            f"{foreign} lies where a run keeps its sums, and was not made by one; move it away, or "
            "name another --out or --ledger"
        )


def _numbered(prefix: str, number: int) -> str:
    return f"{prefix}{number:07d}"
