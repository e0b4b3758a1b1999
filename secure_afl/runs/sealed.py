"""A folder of sealed files, for its owner alone, that one process has at a time.

It has `seal`, which says what opens it; `key`, which does, unless an identity does; the sealed
files; and among them `record`, without which the folder counts for nothing.
"""

import logging
import os
import secrets
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from protocols.codec import Digest, Secret, Wire, decode, domain_tag, encode
from protocols.errors import BadSavedState, Busy, Malformed
from protocols.files import PARTIAL_PREFIX, claim, write_durably
from protocols.identity import Identity
from protocols.message import derive
from protocols.seats.vault import Vault, new_key
from secure_afl.errors import NotKept, NotResumable
from secure_afl.federation.keys import load_keys

log = logging.getLogger("secure_afl")

RECORD = "record"
_SEAL, _KEY = "seal", "key"
_VERSION = 1

T = TypeVar("T")


class Seal(Wire, frozen=True):
    """The facts that open a folder.

    Attributes:
        version: of these files.
        place: the folder that they were made in; a copy is another.
        started: the working folder that what is sealed goes by; empty where it goes by none.
        keys, receiver: the folder of keys, and whose identity there opens the rest; empty where
            the file `key` does.
        salt: 32 bytes.
    """

    version: int
    place: str
    started: str
    keys: str
    receiver: str
    salt: Digest


class SealedFolder:
    """A folder of sealed files; `take` makes one, and `reopen` opens one that is there.

    Args:
        place: the folder; its files are named by `names` or begin with one of `prefixes`.
        receiver: whose identity opens it; None makes a key beside the files.
        keys: the folder of that identity.
        started: see `Seal`.
    """

    def __init__(
        self,
        place: Path,
        names: Collection[str],
        prefixes: Collection[str],
        *,
        receiver: Identity | None = None,
        keys: str = "",
        started: str = "",
    ) -> None:
        self._names = {RECORD, _SEAL, _KEY, *names}
        self._prefixes = (PARTIAL_PREFIX, *prefixes)
        self._receiver = receiver
        name = "" if receiver is None else receiver.name
        self._seal = Seal(_VERSION, str(place), started, keys, name, secrets.token_bytes(32))
        self._key = new_key() if receiver is None else b""
        self._vault: Vault | None = None
        self._lock: int | None = None
        # All that has to be on the disk, sealed: a folder that vanishes is written again.
        self._files: dict[str, bytes] = {}

    @property
    def place(self) -> Path:
        """The folder."""
        return Path(self._seal.place)

    @property
    def exists(self) -> bool:
        """Whether the folder counts for anything."""
        return (self.place / RECORD).exists()

    @property
    def taken(self) -> bool:
        """Whether this process has the folder."""
        return self._lock is not None

    @property
    def opens(self) -> str:
        """Clause on what opens the folder, for people."""
        if self._receiver is not None:
            return f"sealed to the identity of '{self._receiver.name}'"
        return f"sealed; its key is {self.place / _KEY}, and whoever has both has the sums"

    @property
    def files(self) -> list[str]:
        """Names of the sealed files, sorted."""
        return sorted(self._files)

    def foreign(self) -> Path | None:
        """Return a file in the folder's place that is none of its own, or a file in its stead."""
        if not self.place.is_dir():
            return self.place if self.place.exists() else None
        own = set(self._own())
        return next((path for path in self.place.iterdir() if path not in own), None)

    def take(self) -> None:
        """Make the folder and have it; what an earlier process left in it is deleted.

        Raises:
            NotKept: it cannot be made, or counts by now.
            Busy: another process has it.
        """
        try:
            self.place.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise self._not_kept(error) from None
        self._lock = claimed(self.place)
        if self.exists:
            self.close()
            raise NotKept(f"another process has begun a run in {self.place}; name another folder")
        self._clear()

    def reopen(self) -> None:
        """Have the folder that is there, with what is in it.

        Raises:
            NotResumable: it does not count, is damaged, a copy, or cannot be opened here.
            Busy: another process has it.
        """
        place = self.place
        self._lock = claimed(place)
        try:
            seal = self._decoded(_SEAL, self._load(_SEAL), Seal)
            _check_seal(seal, place)
            self._seal, self._key, self._receiver = seal, b"", None
            if seal.keys:
                self._receiver = load_keys(Path(seal.keys)).identities.get(seal.receiver)
                if self._receiver is None:
                    raise NotResumable(
                        f"the sums are sealed to '{seal.receiver}', whose identity is not in "
                        f"{seal.keys}; restore it"
                    )
            else:
                self._key = self._load(_KEY)
            own = [path.name for path in self._own()]
            sealed = [n for n in own if n not in (_SEAL, _KEY) and not n.startswith(PARTIAL_PREFIX)]
            self._files = {name: self._load(name) for name in sealed}
        except BaseException:
            self.close()
            raise

    def write(self, name: str, content: Secret) -> None:
        """Seal and write a file; on return it is on the disk.

        Raises:
            NotKept: it cannot be written; an earlier file of this name is as it was.
        """
        before = self._files.get(name)
        self._files[name] = self._opener.seal(f"run {name}", encode(content), self._seal.salt)
        try:
            if RECORD not in self._files or self.exists:
                write_durably(self.place / name, self._files[name])
            else:
                self._write_all()
        except OSError as error:
            del self._files[name]
            if before is not None:
                self._files[name] = before
            raise self._not_kept(error) from None

    def read(self, name: str, kind: type[T]) -> T:
        """Return the content of a file.

        Raises:
            NotResumable: it is missing, damaged or another folder's.
        """
        try:
            sealed = self._files.get(name, b"")
            content = self._opener.open(f"run {name}", sealed, self._seal.salt)
        except BadSavedState:
            raise NotResumable(
                f"{self.place / name} cannot be opened: it is missing, damaged or another run's, "
                "or the key is; restore it from a backup"
            ) from None
        return self._decoded(name, content, kind)

    def delete(self, name: str) -> None:
        """Delete a file that is wanted no more, if it can be deleted."""
        if self._files.pop(name, None) is not None:
            with suppress(OSError):
                (self.place / name).unlink()

    def rescue(self, elsewhere: Path) -> None:
        """Write everything again if the folder has vanished; if that fails, elsewhere.

        Raises:
            NotKept: neither can be written.
        """
        if self.exists or RECORD not in self._files:
            return
        try:
            self._write_all()
        except OSError:
            place = elsewhere / secrets.token_hex(4)
            self._seal = msgspec.structs.replace(self._seal, place=str(place))
            try:
                self._write_all()
            except OSError as error:
                raise self._not_kept(error) from None

    def remove(self) -> None:
        """Delete the folder; first the record and what opens the rest."""
        problem = None
        for name in (RECORD, _KEY):
            try:
                (self.place / name).unlink(missing_ok=True)
            except NotADirectoryError:
                pass
            except OSError as error:
                problem = error
        self._clear()
        with suppress(OSError):
            self.place.rmdir()
        if problem is not None and self.exists:
            log.warning(
                "%s cannot be deleted (%s); delete it: it holds the run's sums",
                self.place,
                problem.strerror,
            )
        self._files.clear()
        self.close()

    def sweep(self) -> None:
        """Delete what a process left that was killed as it made or deleted the folder."""
        if self.place.is_dir() and not self.exists:
            with suppress(Busy, NotResumable):
                self._lock = claimed(self.place)
                self.remove()

    def close(self) -> None:
        """Let the folder go."""
        if self._lock is not None:
            with suppress(OSError):
                os.close(self._lock)
        self._lock = None

    def begin(self) -> None:
        """Write what opens the folder; the record may come after.

        Raises:
            NotKept: it cannot be written.
        """
        try:
            self._write_opener()
        except OSError as error:
            raise self._not_kept(error) from None

    def _write_opener(self) -> None:
        write_durably(self.place / _SEAL, encode(self._seal))
        if self._receiver is None:
            write_durably(self.place / _KEY, self._key)

    def _write_all(self) -> None:
        """Write a folder that has vanished again, the record last."""
        self.close()
        self.place.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = claim(self.place)
        self._write_opener()
        for name in sorted(self._files, key=lambda name: name == RECORD):
            write_durably(self.place / name, self._files[name])

    def _own(self) -> list[Path]:
        """List the files in the folder whose names it gives."""
        found = sorted(self.place.iterdir()) if self.place.is_dir() else []
        return [p for p in found if p.name in self._names or p.name.startswith(self._prefixes)]

    def _clear(self) -> None:
        with suppress(OSError):
            for path in self._own():
                path.unlink()

    def _load(self, name: str) -> bytes:
        try:
            return (self.place / name).read_bytes()
        except OSError as error:
            raise NotResumable(
                f"{self.place / name} cannot be read ({error.strerror}); restore it from a backup"
            ) from None

    def _decoded(self, name: str, content: bytes, kind: type[T]) -> T:
        try:
            return decode(content, kind)
        except Malformed:
            raise NotResumable(
                f"{self.place / name} is damaged, or of another version of secure-afl; restore it "
                "from a backup, or finish with the version that it was begun with"
            ) from None

    @property
    def _opener(self) -> Vault:
        if self._vault is None:
            key = self._key
            if self._receiver is not None:
                # The hash of a signature that never leaves: nobody without the identity can tell.
                said = encode((domain_tag("sealed folder"), self._seal.salt))
                key = derive(self._receiver.sign(said), self._seal.salt, "sealed folder")
            self._vault = Vault(key)
        return self._vault

    def _not_kept(self, error: OSError) -> NotKept:
        return NotKept(
            f"{self.place}, in which a run keeps its sums before it uses them, cannot be written "
            f"({error.strerror}). Make room, or make the folder writable. A sum that is not kept "
            "is dropped, and its session given back"
        )

    def __repr__(self) -> str:
        return f"<SealedFolder {self.place}>"


def claimed(place: Path) -> int:
    """Lock a folder; closing the descriptor lets it go.

    Raises:
        Busy: another process has it.
        NotResumable: it cannot be opened.
    """
    try:
        return claim(place)
    except BlockingIOError:
        raise Busy(
            f"another process runs in {place}", fix="wait until it is done, or stop it"
        ) from None
    except OSError as error:
        raise NotResumable(f"{place} cannot be opened ({error.strerror})") from None


def _check_seal(seal: Seal, place: Path) -> None:
    if seal.version != _VERSION:
        raise NotResumable(
            f"{place} is of another version of secure-afl; finish the run with that one"
        )
    if Path(seal.place) != place:
        raise NotResumable(
            f"{place} was copied or moved from {seal.place}. A run is finished once, and where it "
            "began: move it back"
        )
    if seal.started not in ("", str(Path.cwd())):
        raise NotResumable(
            f"the run was started in {seal.started}, and its settings name files from there. Go "
            f"there: cd {seal.started}; then secure-afl run --resume {place}"
        )
