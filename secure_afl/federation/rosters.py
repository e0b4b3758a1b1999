"""Roster files: how parties that trust no common machine come to one list of each other.

Every party makes its own key and sends its *public line*, a file that its key has signed. Somebody
merges the lines into a roster, everybody gets that file, and people compare its fingerprint. Each
change is an *edition* with a number. An edition remembers the lines that were taken out, so that an
old file cannot bring them back.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from protocols.codec import domain_tag, encode
from protocols.errors import BadSignature, InvalidSession, ProtocolError
from protocols.files import locked, write_durably
from protocols.identity import Identity
from protocols.protocol import roles
from protocols.roster import Line, Roster
from secure_afl.errors import ConfigError, DataError

FORMAT_VERSION = 2
LINE_FORMAT_VERSION = 1


class RosterLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One party: its name, its role, and its Ed25519 public key in hexadecimal."""

    name: str
    role: str
    verify_key: str

    @classmethod
    def of(cls, line: Line) -> "RosterLine":
        """Write a line for people."""
        return cls(line.name, line.role, line.verify_key.hex())

    def line(self) -> Line:
        """Return the line that is written here; ValueError for a key that is not hexadecimal."""
        return Line(self.name, self.role, bytes.fromhex(self.verify_key))


class RosterFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The public file: an edition of the roster, counted up at every change."""

    format_version: int
    number: int
    members: tuple[RosterLine, ...]
    revoked: tuple[RosterLine, ...] = ()

    @classmethod
    def of(cls, edition: "Edition") -> "RosterFile":
        """Write an edition for people to compare."""
        members, revoked = (
            tuple(RosterLine.of(line) for line in lines)
            for lines in (edition.roster.lines, edition.revoked)
        )
        return cls(FORMAT_VERSION, edition.roster.number, members, revoked)

    def edition(self) -> "Edition":
        """Return the edition that is written here.

        Raises:
            InvalidSession: a name or key twice, or one that no party can have.
            ValueError: a key that is not hexadecimal, or a member whose key was revoked.
        """
        roster = Roster.of((member.line() for member in self.members), self.number)
        revoked = tuple(member.line() for member in self.revoked)
        for line in revoked:
            Roster.of([line])  # checks name, role and length; a name may be there twice
        return Edition(roster, revoked)


class LineFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The public file of one party: what it sends to the others.

    Attributes:
        signature: of name, role and key, by this key, in hexadecimal: whoever sends the line holds
            the key, and no letter of the file was changed.
    """

    format_version: int
    name: str
    role: str
    verify_key: str
    signature: str

    @classmethod
    def of(cls, identity: Identity, role: str) -> "LineFile":
        """Write and sign an identity's public line."""
        line = Line(identity.name, role, identity.verify_key)
        signature = identity.sign(_signed(line)).hex()
        return cls(LINE_FORMAT_VERSION, line.name, role, line.verify_key.hex(), signature)

    def line(self) -> Line:
        """Return the line that is written here.

        Raises:
            BadSignature: another key signed it, or it was changed.
            InvalidSession: a name or role that no party can have.
            ValueError: a key or signature that is not hexadecimal.
        """
        line = Line(self.name, self.role, bytes.fromhex(self.verify_key))
        Roster.of([line])  # checks name, role and length
        line.verify(bytes.fromhex(self.signature), _signed(line))
        return line


@dataclass(frozen=True)
class Edition:
    """One edition of a federation's roster.

    Attributes:
        roster: number 0 for lines that are in no edition yet.
        revoked: lines that were taken out, whose keys never come back, sorted.

    Raises:
        ValueError: a member's key was revoked.
    """

    roster: Roster
    revoked: tuple[Line, ...] = ()

    def __post_init__(self) -> None:
        gone = {line.verify_key for line in self.revoked}
        for line in self.roster.lines:
            if line.verify_key in gone:
                raise ValueError(f"the key of '{line.name}' is there and revoked")

    def next(self, lines: Sequence[Line], revoked: Sequence[Line]) -> "Edition":
        """Make the edition after this one; `revoked` come to those that were so already."""
        return _edition(lines, self.roster.number + 1, (*self.revoked, *revoked))


@dataclass(frozen=True)
class Change:
    """What a change of a roster file did.

    Attributes:
        edition: what the file holds now.
        changed: False where the file is as it was.
        added, removed: lines, sorted by name.
        refused: lines of other files that stay out, for they were revoked.
    """

    edition: Edition
    changed: bool
    added: tuple[Line, ...]
    removed: tuple[Line, ...]
    refused: tuple[Line, ...] = ()


def merge(out: Path, files: Sequence[Path]) -> Change:
    """Merge public lines and rosters into the roster file `out`, under its lock.

    The roster gets the next number, unless one of the files, or `out`, is the latest edition and
    has exactly these lines. A line that any of them revoked stays out.

    Raises:
        ConfigError: a name with two keys or roles, a key under two names, a role that no protocol
            has, or a public line whose key was revoked; `out` is as it was.
        DataError: a file that is neither a public line nor a roster.
    """
    given = {str(path): read(path) for path in files}
    refused: tuple[Line, ...] = ()

    def make(old: Edition | None) -> Edition:
        nonlocal refused
        editions = given if old is None else {str(out): old} | given
        merged = _merged(editions)
        kept = set(merged.roster.lines)
        lines = {line for edition in given.values() for line in edition.roster.lines}
        refused = _sorted(lines - kept)
        return merged

    change = update(out, make)
    return dataclasses.replace(change, refused=refused)


def replace(path: Path, public: Path) -> Change:
    """Put a party's new key in the place of its old one, which is revoked; under the file's lock.

    Args:
        public: the party's new public line, of the same name and role.

    Raises:
        ConfigError: the roster has no such name, or has it in another role or with this very key;
            or the key is another party's or was revoked.
        DataError: a file that is not what it should be.
    """
    given = read(public)
    if given.roster.number or len(given.roster.lines) != 1:
        raise DataError(f"{public} is a roster, wanted one party's public line: NAME.public.json")
    (line,) = given.roster.lines

    def make(old: Edition | None) -> Edition:
        edition = _present(path, old)
        before = edition.roster.by_name.get(line.name)
        if before is None:
            raise ConfigError(
                f"{path} has no '{line.name}' to replace; add the line: "
                f"secure-afl roster merge {public} --out {path}"
            )
        if before.role != line.role:
            raise ConfigError(
                f"{public} has '{line.name}' as {line.role}, the roster as {before.role}, and a "
                f"new key keeps the role; for another role revoke '{line.name}' and merge the line"
            )
        if before.verify_key == line.verify_key:
            raise ConfigError(
                f"{path} has this key of '{line.name}' already; make a new one: "
                f"secure-afl keygen {line.name} --role {line.role}"
            )
        if line.verify_key in {other.verify_key for other in edition.revoked}:
            raise ConfigError(_was_revoked(str(public), line))
        lines = [other for other in edition.roster.lines if other != before]
        for other in lines:
            if other.verify_key == line.verify_key:
                raise ConfigError(_one_key(str(public), line, str(path), other))
        return edition.next([*lines, line], [before])

    return update(path, make)


def revoke(path: Path, names: Sequence[str]) -> Change:
    """Take parties out of a roster file, under its lock; their keys never come back.

    Raises:
        ConfigError: a name that the roster does not have; the file is as it was.
        DataError: no roster, or a damaged one.
    """

    def make(old: Edition | None) -> Edition:
        edition = _present(path, old)
        unknown = sorted(set(names) - edition.roster.by_name.keys())
        if unknown:
            known = ", ".join(edition.roster.by_name) or "nobody"
            raise ConfigError(f"{path} has no '{unknown[0]}' to revoke; it has: {known}")
        gone = [line for line in edition.roster.lines if line.name in names]
        return edition.next([line for line in edition.roster.lines if line not in gone], gone)

    return update(path, make)


def update(path: Path, make: Callable[[Edition | None], Edition]) -> Change:
    """Replace a roster file's edition by what `make` makes of it, durably and under its lock.

    Args:
        make: is given the edition, or None where there is no file.

    Raises:
        ConfigError: the file cannot be written.
        DataError: the file is no roster.
    """
    try:
        with locked(path):
            old = read_roster(path) if path.exists() else None
            new = make(old)
            if new != old:
                text = msgspec.json.format(msgspec.json.encode(RosterFile.of(new)), indent=2)
                write_durably(path, text + b"\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}); name another") from None
    before = set() if old is None else set(old.roster.lines)
    after = set(new.roster.lines)
    return Change(new, new != old, _sorted(after - before), _sorted(before - after))


def read(path: Path) -> Edition:
    """Read a public line, as an edition of number 0, or a roster.

    Raises:
        DataError: missing, damaged, of another format, a private identity, or not signed by its
            own key.
    """
    text = _text(path)
    try:
        head = msgspec.json.decode(text, type=_Head)
        if head.members is msgspec.UNSET and head.format_version == LINE_FORMAT_VERSION:
            return Edition(Roster.of([msgspec.json.decode(text, type=LineFile).line()]))
    except BadSignature:
        raise DataError(
            f"{path} is not signed by its own key: it was changed or damaged; ask for it again"
        ) from None
    except (ValueError, InvalidSession) as error:
        if _is_identity(text):
            raise DataError(
                f"{path} is a private identity, which stays with its party; name the party's "
                "public line: NAME.public.json"
            ) from None
        raise DataError(f"{path} is neither a public line nor a roster: {error}") from None
    if head.members is msgspec.UNSET:
        raise DataError(
            f"{path} has format {head.format_version}, wanted {LINE_FORMAT_VERSION}; use the same "
            "version of secure-afl everywhere"
        )
    return _parsed(path, text)


def read_roster(path: Path) -> Edition:
    """Read an edition of a roster.

    Raises:
        DataError: missing, damaged, of another format, or with a name twice.
    """
    return _parsed(path, _text(path))


class _Head(msgspec.Struct, frozen=True):
    """What tells the two kinds of file apart."""

    format_version: int
    members: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing, and so there is no roster or public line; make one: secure-afl "
            "keygen, and merge the parties' lines: secure-afl roster merge"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None


def _parsed(path: Path, text: bytes) -> Edition:
    try:
        version = msgspec.json.decode(text, type=_Head).format_version
        if version == FORMAT_VERSION:
            return msgspec.json.decode(text, type=RosterFile).edition()
    except (ValueError, InvalidSession) as error:
        raise DataError(f"{path} is no roster: {error}; make one with secure-afl keygen") from None
    raise DataError(
        f"{path} has format {version}, wanted {FORMAT_VERSION}; make keys anew with "
        "secure-afl keygen"
    )


def _is_identity(text: bytes) -> bool:
    try:
        Identity.load(text)
    except ProtocolError:
        return False
    return True


def _merged(editions: Mapping[str, Edition]) -> Edition:
    """Merge editions, each by the name of its file.

    Raises:
        ConfigError: lines that contradict each other, or that no roster may have.
    """
    revoked = [line for edition in editions.values() for line in edition.revoked]
    gone = {line.verify_key for line in revoked}
    by_name: dict[str, tuple[str, Line]] = {}
    by_key: dict[bytes, tuple[str, Line]] = {}
    for file, edition in editions.items():
        for line in edition.roster.lines:
            if line.verify_key in gone:
                if edition.roster.number == 0:
                    raise ConfigError(_was_revoked(file, line))
                continue
            _check_role(file, line)
            other_file, other = by_name.setdefault(line.name, (file, line))
            if other.verify_key != line.verify_key:
                raise ConfigError(
                    f"'{line.name}' has two keys: {other.fingerprint} in {other_file} and "
                    f"{line.fingerprint} in {file}. Ask the party for its fingerprint; a new key "
                    "takes the place of an old one with secure-afl roster replace"
                )
            if other.role != line.role:
                raise ConfigError(
                    f"'{line.name}' has two roles: {other.role} in {other_file} and {line.role} "
                    f"in {file}. A key has one role: make another key for the other"
                )
            other_file, other = by_key.setdefault(line.verify_key, (file, line))
            if other.name != line.name:
                raise ConfigError(_one_key(file, line, other_file, other))
    lines = _sorted(line for _, line in by_name.values())
    number = max((edition.roster.number for edition in editions.values()), default=0)
    latest = {e.roster.lines for e in editions.values() if e.roster.number == number}
    # Whoever takes over the latest edition as it is has the others' number, and so their digest.
    kept = number > 0 and latest == {lines}
    return _edition(lines, number if kept else number + 1, revoked)


def _edition(lines: Iterable[Line], number: int, revoked: Iterable[Line]) -> Edition:
    try:
        roster = Roster.of(lines, number)
    except InvalidSession as error:
        raise ConfigError(f"no roster can be made of these lines: {error}") from None
    return Edition(roster, _sorted({line.verify_key: line for line in revoked}.values()))


def _present(path: Path, edition: Edition | None) -> Edition:
    if edition is None:
        raise DataError(f"{path} is missing; name the roster, or make one: secure-afl roster merge")
    return edition


def _check_role(file: str, line: Line) -> None:
    if line.role not in roles():
        raise ConfigError(
            f"{file} has '{line.name}' in the role {line.role!r}, allowed: {', '.join(roles())}"
        )


def _one_key(file: str, line: Line, other_file: str, other: Line) -> str:
    return (
        f"'{other.name}' in {other_file} and '{line.name}' in {file} have one and the same key; "
        "every party makes its own: secure-afl keygen"
    )


def _was_revoked(file: str, line: Line) -> str:
    return (
        f"{file} has a key of '{line.name}' that was revoked ({line.fingerprint}), and no key "
        f"comes back; make a new one: secure-afl keygen {line.name} --role {line.role}"
    )


def _sorted(lines: Iterable[Line]) -> tuple[Line, ...]:
    return tuple(sorted(lines, key=lambda line: (line.name, line.verify_key)))


def _signed(line: Line) -> bytes:
    return encode((domain_tag("public line"), line.name, line.role, line.verify_key))
