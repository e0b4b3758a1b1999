"""The ledger on the disk: its lock, its key, and what shows that it was changed or rolled back.

Entries are hash-chained, and the head is an HMAC-SHA256 over the last link and all else, by a key
in a file of its own. With an anchor the head is kept in a second folder, too. Neither stops the
owner, who has the key, nor anybody who puts back older copies of ledger and anchor together.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from protocols.files import locked, write_durably
from secure_afl.errors import LedgerRefusal
from secure_afl.privacy.ledger.book import FORMAT_VERSION, Book, Entry

KEY_BYTES = 32
_DOMAIN = b"secure-afl ledger 2\0"


class Anchor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The second place of a ledger's head: its id, how often it was changed, and the head."""

    ledger: str
    changes: int
    head: str

    @classmethod
    def of(cls, book: Book) -> "Anchor":
        """Return what is kept of a book."""
        return cls(book.ledger, book.changes, book.head)


class Store:
    """The files of one ledger.

    Args:
        path: of the ledger. Beside it lie its key (`.key`), its lock (`.lock`) and its rows
            (`.rows`), of the same name otherwise.
        anchor: folder in which the head is kept, too; None for none.
    """

    def __init__(self, path: Path, anchor: Path | None) -> None:
        self.path = path
        self.rows = self._beside(".rows")
        self._key_path = self._beside(".key")
        self._anchor = None if anchor is None else anchor.resolve() / f"{path.name}.ledger-head"
        self._key: bytes | None = None
        self._seen: tuple[bytes, Book] | None = None

    @property
    def key(self) -> bytes:
        """The ledger's key, 32 bytes; a new one where no ledger was read."""
        if self._key is None:
            self._key = self._read_key() if self.path.exists() else secrets.token_bytes(KEY_BYTES)
        return self._key

    @property
    def anchored(self) -> bool:
        """Whether an anchor was named."""
        return self._anchor is not None

    def read(self) -> Book:
        """Read and authenticate the file.

        Raises:
            LedgerRefusal: the file or its key is missing, damaged, changed or of another format.
        """
        try:
            text = self.path.read_bytes()
            seen = self._seen
            if seen is not None and seen[0] == text:
                return seen[1]
            raw = json.loads(text, parse_constant=_not_json)
            self._check_format(raw)
            self._authenticate(raw)
            book = msgspec.convert(raw, Book)
        except FileNotFoundError:
            raise LedgerRefusal(
                f"there is no ledger {self.path}. If it was lost, restore it from a backup; name "
                "the right file; or begin a new one with --new-ledger (Ledger.open(…, new=True)), "
                "only if nothing was released about these data"
            ) from None
        except (OSError, ValueError, RecursionError) as error:
            raise LedgerRefusal(
                f"the ledger {self.path} cannot be read ({error}). Nothing is released without "
                "it: restore it from a backup. An empty one would forget what is spent."
            ) from None
        self._seen = text, book
        return book

    def write(self, book: Book) -> None:
        """Write the next state of the file durably, and then the anchor. Callers hold the lock.

        Raises:
            LedgerRefusal: it could not be written.
        """
        before = self._seen[1] if self._seen is not None else None
        changes = book.changes + 1
        book = msgspec.structs.replace(
            book,
            changes=changes,
            previous=book.head,
            anchored=book.anchored or (changes if self.anchored else 0),
            entries=_linked(book, () if before is None else before.entries),
        )
        book = msgspec.structs.replace(book, head=self._head(msgspec.to_builtins(book)))
        text = msgspec.json.format(msgspec.json.encode(book), indent=2) + b"\n"
        try:
            write_durably(self.path, text)
            self._seen = text, book
            self._keep(book)
        except OSError as error:
            raise self.unusable(error) from None

    def create(self, book: Book) -> None:
        """Make key and file, which must not exist. Callers hold the lock.

        Raises:
            LedgerRefusal: they exist, or cannot be written.
        """
        self.check_new()
        try:
            key = self.key
            descriptor = os.open(self._key_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise self.unusable(error) from None
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(key)
                file.flush()
                os.fsync(file.fileno())
            self.write(book)
        except OSError as error:
            raise self.unusable(error) from None
        finally:
            # A key without a ledger would look like a ledger that was lost.
            if not self.path.exists():
                for path in (self._key_path, self.rows):
                    with suppress(OSError):
                        path.unlink(missing_ok=True)

    def clear_unborn(self) -> None:
        """Remove key and rows of a ledger whose first write was cut off.

        Raises:
            LedgerRefusal: there is a ledger, or an anchor of one; or they cannot be removed.
        """
        if self.path.exists() or (self._anchor is not None and self._anchor.exists()):
            self.check_new()
        try:
            for path in (self._key_path, self.rows):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise self.unusable(error) from None

    def check_new(self) -> None:
        """Raise LedgerRefusal unless a ledger can be begun here; nothing is written."""
        if self.path.exists():
            raise LedgerRefusal(
                f"the ledger {self.path} exists; leave out --new-ledger (new=True) to go on with "
                "it, or name another file"
            )
        for trace in (self._key_path, self._anchor):
            if trace is not None and trace.exists():
                raise LedgerRefusal(
                    f"{trace} belongs to a ledger {self.path} that is gone. Restore it from a "
                    "backup, or name another file for a new one"
                )
        folder = self.path.parent
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir():
            raise self.unusable(NotADirectoryError(20, f"{folder} is no folder"))
        if not os.access(folder, os.W_OK | os.X_OK):
            raise self.unusable(PermissionError(13, f"no permission to write in {folder}"))

    @contextmanager
    def locked(self, *, new: bool = False) -> Iterator[None]:
        """Hold the lock; with `new`, the folder is made.

        Raises:
            LedgerRefusal: the lock's file cannot be made.
        """
        with ExitStack() as held:
            try:
                if new:
                    self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                held.enter_context(locked(self.path))
            except OSError as error:
                raise self.unusable(error) from None
            yield

    def check_anchor(self, book: Book) -> None:
        """Compare the file with the anchor. Callers hold the lock.

        A file that is ahead by one change shows a crash between the two writes: the anchor is
        mended.

        Raises:
            LedgerRefusal: the ledger was rolled back, or has an anchor that is not named or is
                missing; or the anchor cannot be written.
        """
        if self._anchor is None:
            if book.anchored:
                raise LedgerRefusal(
                    f"the head of the ledger {self.path} is kept in an identity's folder, too. "
                    "Name that folder: --keys DIR (anchor=DIR)"
                )
            return
        kept = self._read_anchor()
        if kept is None and book.anchored not in (0, book.changes):
            raise LedgerRefusal(
                f"{self._anchor}, which has the head of the ledger {self.path}, is missing. "
                "Restore it, or copy it here from the folder that the ledger was used with before. "
                "Clients that share a ledger have their identities in one folder"
            )
        if kept is not None and kept.ledger != book.ledger:
            raise LedgerRefusal(
                f"{self._anchor} is of another ledger than {self.path}. Name the ledger that "
                "belongs to this folder; two ledgers of one identity need different file names"
            )
        if kept == Anchor.of(book) or (kept is None and not book.anchored):
            return
        if kept is not None and (kept.changes, kept.head) != (book.changes - 1, book.previous):
            raise LedgerRefusal(
                f"the ledger {self.path} was rolled back: it has {book.changes} changes, and is "
                f"no continuation of the {kept.changes} that {self._anchor} knows. Restore the "
                "newest copies of both: an older ledger forgets releases"
            )
        try:
            self._keep(book)
        except OSError as error:
            raise self.unusable(error) from None

    def unusable(self, error: OSError) -> LedgerRefusal:
        """Make the refusal for a file that cannot be written."""
        return LedgerRefusal(
            f"the ledger {self.path} cannot be written ({error.strerror}). Nothing is released "
            "without it: make room, or name a folder that can be written."
        )

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _keep(self, book: Book) -> None:
        if self._anchor is not None:
            write_durably(self._anchor, msgspec.json.encode(Anchor.of(book)) + b"\n")

    def _read_anchor(self) -> Anchor | None:
        assert self._anchor is not None, "callers look first"
        try:
            return msgspec.json.decode(self._anchor.read_bytes(), type=Anchor)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise LedgerRefusal(
                f"{self._anchor}, which has the head of the ledger {self.path}, cannot be read "
                f"({error}). Restore it from a backup"
            ) from None

    def _read_key(self) -> bytes:
        try:
            key = self._key_path.read_bytes()
        except OSError as error:
            raise LedgerRefusal(
                f"the key {self._key_path} of the ledger cannot be read ({error.strerror}). "
                "Restore it from a backup; without it nobody can tell what was released"
            ) from None
        if len(key) != KEY_BYTES:
            raise LedgerRefusal(
                f"the key {self._key_path} has {len(key)} bytes, wanted {KEY_BYTES}. Restore it "
                "from a backup"
            )
        return key

    def _check_format(self, raw: Any) -> None:
        version = raw.get("format_version") if isinstance(raw, dict) else None
        if version == 1:
            raise LedgerRefusal(
                f"the ledger {self.path} has format 1, in which nobody can tell an edited entry. "
                "If you trust it, take it over into a new file: secure-afl ledger import OLD NEW"
            )
        if version != FORMAT_VERSION:
            raise ValueError(f"format {version!r}, wanted {FORMAT_VERSION}")

    def _authenticate(self, raw: dict[str, Any]) -> None:
        """Check links and head before anything in the file is believed."""
        entries = raw.get("entries")
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError("it has no list of entries")
        link = _first_link(str(raw.get("ledger")))
        for number, entry in enumerate(entries, 1):
            link = _link(link, entry)
            if entry.get("link") != link:
                raise self._tampered(
                    f"entry {number} of {len(entries)} was changed, removed or moved by hand"
                )
        if not hmac.compare_digest(self._head(raw).encode(), str(raw.get("head")).encode()):
            raise self._tampered(
                "its budget or another part was changed by hand, or its last entries were removed, "
                f"or {self._key_path.name} is not its key"
            )

    def _tampered(self, what: str) -> LedgerRefusal:
        return LedgerRefusal(
            f"the ledger {self.path} is not as it was written: {what}. Nothing is released with "
            "it: restore ledger and key from a backup"
        )

    def _head(self, raw: dict[str, Any]) -> str:
        """Authenticate all of a file but its head; the last link stands for the entries."""
        entries = raw["entries"]
        rest = {name: value for name, value in raw.items() if name != "head"}
        rest["entries"] = [len(entries), entries[-1]["link"] if entries else ""]
        return hmac.new(self.key, _DOMAIN + _canonical(rest), hashlib.sha256).hexdigest()


def _linked(book: Book, before: Sequence[Entry]) -> tuple[Entry, ...]:
    """Chain the entries anew, from the first one that is not as it was before."""
    link, linked, same = _first_link(book.ledger), [], True
    for number, entry in enumerate(book.entries):
        same = same and number < len(before) and before[number] is entry
        if not same:
            link = _link(link, msgspec.to_builtins(entry))
            entry = msgspec.structs.replace(entry, link=link)
        link = entry.link
        linked.append(entry)
    return tuple(linked)


def _first_link(ledger: str) -> str:
    return hashlib.sha256(_DOMAIN + ledger.encode("utf-8", "replace")).hexdigest()


def _link(before: str, entry: dict[str, Any]) -> str:
    own = {name: value for name, value in entry.items() if name != "link"}
    return hashlib.sha256(_DOMAIN + _canonical([before, own])).hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
