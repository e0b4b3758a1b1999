"""Identity files, and the folders in which parties keep them beside the roster that they pin.

`keygen` writes two files for each party: `<name>.identity`, private and for that party alone, and
`<name>.public.json`, which the party sends to the others. A folder of everybody's identities is for
simulations, and there keygen keeps `roster.json` too. Elsewhere people merge the public lines, and
compare the roster out of band; after that, nobody can enrol a party that it does not name.
"""

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from protocols.errors import BadKey, InvalidSession
from protocols.files import create_durably
from protocols.identity import Identity
from protocols.protocol import Protocol, roles
from protocols.roster import CLIENT, Line, Roster, check_name
from secure_afl.errors import ConfigError, DataError
from secure_afl.federation.rosters import Edition, LineFile, read_roster, update

ROSTER = "roster.json"


@dataclass(frozen=True)
class Keys:
    """The private identities of one simulated federation, and the roster that all of them pin."""

    roster: Roster
    identities: Mapping[str, Identity]

    def clients(self, names: Sequence[str]) -> dict[str, Identity]:
        """Return identities of the named clients.

        Raises:
            ConfigError: a name has no identity, or not as a client.
        """
        return {name: self._identity(name, CLIENT) for name in names}

    def coordinators(self, protocol: Protocol) -> dict[str, Identity]:
        """Map default name to identity of each coordinator, by role and in the roster's order.

        Raises:
            ConfigError: the roster has fewer or more parties in a role than the protocol, or no
                identity of one.
        """
        wanted = protocol.coordinators()
        found: dict[str, Identity] = {}
        for role in dict.fromkeys(wanted.values()):
            names = [name for name, theirs in wanted.items() if theirs == role]
            lines = [line for line in self.roster.lines if line.role == role]
            if len(lines) < len(names):
                raise ConfigError(
                    f"the roster has too few parties in role '{role}'; make one: "
                    f"secure-afl keygen {names[len(lines)]} --role {role}"
                )
            if len(lines) > len(names):
                # Otherwise whoever forms the sessions would choose among them.
                raise ConfigError(
                    f"the roster has {len(lines)} parties in role '{role}', the protocol takes "
                    f"{len(names)}; make a roster of exactly those that take part"
                )
            found |= {
                name: self._identity(line.name, role)
                for name, line in zip(names, lines, strict=True)
            }
        return found

    def _identity(self, name: str, role: str) -> Identity:
        line = self.roster.by_name.get(name)
        if line is None:
            raise ConfigError(
                f"'{name}' is not on the roster; make a key: secure-afl keygen {name} --role {role}"
            )
        if line.role != role:
            raise ConfigError(_other_role(self.roster, line, role))
        if name not in self.identities:
            raise ConfigError(
                f"{name}.identity is missing, which the roster names as {role}; restore it, or "
                f"make a new key: secure-afl keygen {name} --role {role}, then put it in the "
                f"roster: secure-afl roster replace {ROSTER} {name}.public.json"
            )
        return self.identities[name]


@dataclass(frozen=True)
class Made:
    """What keygen made.

    Attributes:
        lines: of the new identities, in the order of their names.
        roster: of the folder, with these lines; None where the folder keeps no roster of its own.
    """

    lines: tuple[Line, ...]
    roster: Roster | None


def keygen(names: Sequence[str], role: str, folder: Path) -> Made:
    """Make identities and public lines; in a simulation's folder add them to its roster.

    A folder is a simulation's if its roster names nobody whose identity is not there, or if it has
    none and several names are given. A roster that came from others is never changed.

    Raises:
        ConfigError: as from `generate` and `make_identity`.
        DataError: the folder's roster is damaged.
    """
    path = folder / ROSTER
    own = len(names) > 1
    if path.exists():
        pinned = read_roster(path).roster.lines
        own = all(identity_path(folder, line.name).exists() for line in pinned)
    if own:
        roster = generate(names, role, folder)
        return Made(tuple(roster.by_name[name] for name in names), roster)
    for name in names:
        _check(name, role)
    return Made(tuple(make_identity(name, role, folder) for name in names), None)


def make_identity(name: str, role: str, folder: Path) -> Line:
    """Make one party's identity and its public line, as at a site; return the line.

    An identity whose line is missing gets it again, as after a crash between the two.

    Raises:
        ConfigError: a name or role that no party can have, a folder that others can write, or
            files that are there already; nothing is overwritten.
        DataError: an identity without a line that cannot be used.
    """
    _check(name, role)
    _make_folder(folder)
    private, public = identity_path(folder, name), public_path(folder, name)
    _refuse_existing(public)
    if private.exists():
        identity = load_identity(private)
        if identity.name != name:
            raise DataError(_other_party(private, identity, name))
    else:
        identity = _create_identity(name, folder)
    return _create_line(identity, role, folder)


def generate(names: Sequence[str], role: str, folder: Path) -> Roster:
    """Make identities, and add them to the folder's roster, as simulations have it.

    Raises:
        ConfigError: a name or role that no party can have, a name that has a key already, or a
            folder that others can write; nothing is overwritten.
        DataError: the folder's roster is damaged.
    """
    for name in names:
        _check(name, role)
    if len(set(names)) != len(names):
        raise ConfigError(f"{list(names)} has a name twice; choose another name")
    _make_folder(folder)

    def make(old: Edition | None) -> Edition:
        edition = old or Edition(Roster(0, ()))
        taken = sorted(set(names) & edition.roster.by_name.keys())
        if taken:
            raise ConfigError(f"{taken[0]!r} has a key already; choose another name")
        for name in names:
            _refuse_existing(identity_path(folder, name))
            _refuse_existing(public_path(folder, name))
        lines = [_create_line(_create_identity(name, folder), role, folder) for name in names]
        return edition.next([*edition.roster.lines, *lines], [])

    return update(folder / ROSTER, make).edition.roster


def load_roster(folder: Path) -> Roster:
    """Read the roster of a folder.

    Raises:
        DataError: missing, damaged, of another format, or with a name twice.
    """
    return read_roster(folder / ROSTER).roster


def load_keys(folder: Path) -> Keys:
    """Read the roster that a folder's parties pin, and every identity that lies beside it.

    Raises:
        DataError: a damaged roster or identity, an identity that the roster names otherwise or
            that others can read, or a folder or roster that others can write.
    """
    roster = pinned_roster(folder / ROSTER)
    identities = {}
    for line in roster.lines:
        path = identity_path(folder, line.name)
        if path.exists():
            identities[line.name] = pinned_identity(path, roster, name=line.name)
    return Keys(roster, identities)


def pinned_roster(path: Path) -> Roster:
    """Read the roster that a party pins, from a file that nobody else can change.

    Raises:
        DataError: missing or damaged, or a file or folder that others can write (POSIX).
    """
    roster = read_roster(path).roster
    _refuse_writable(path)
    _refuse_writable(path.parent)
    return roster


def load_identity(path: Path) -> Identity:
    """Read a private identity from a file that is for its owner alone.

    Raises:
        DataError: missing, unreadable, not an identity, with a mode (POSIX) by which others can
            read or write it, or in a folder that others can write.
    """
    try:
        with path.open("rb") as file:
            # Of the open file: the name may be another one's a moment later.
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            saved = file.read()
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing; restore it, or make an identity: secure-afl keygen NAME --role "
            "ROLE"
        ) from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); run as the user whose file it is"
        ) from None
    if os.name == "posix" and mode & 0o077:
        raise DataError(
            f"{path} has mode {mode:03o}, allowed: 600, for others can get at a private key. If "
            f"nobody did: chmod 600 {path}; otherwise make a new key and replace it"
        )
    _refuse_writable(path.parent)
    try:
        return Identity.load(saved)
    except BadKey:
        raise DataError(
            f"{path} is not an identity file; name the NAME.identity that keygen made, or restore "
            "it"
        ) from None


def pinned_identity(path: Path, roster: Roster, *, name: str = "", role: str = "") -> Identity:
    """Read a party's own identity, and check that the roster has it as it is.

    Args:
        name: of the party; empty for whichever it is.
        role: that the party is to take; empty for whichever the roster gives it.

    Raises:
        DataError: as from `load_identity`; or another party's identity, one that is not on the
            roster, or is there with another key or in another role.
    """
    identity = load_identity(path)
    if name and identity.name != name:
        raise DataError(_other_party(path, identity, name))
    line = roster.by_name.get(identity.name)
    if line is None:
        raise DataError(
            f"'{identity.name}' of {path} is not on the roster, number {roster.number}; add its "
            f"line: secure-afl roster merge {identity.name}.public.json --out {ROSTER}"
        )
    if line.verify_key != identity.verify_key:
        own = Line(line.name, line.role, identity.verify_key)
        raise DataError(
            f"{path} has another key than the roster, number {roster.number}, has for "
            f"'{line.name}': {own.fingerprint}, there {line.fingerprint}. Restore the identity, "
            f"or: secure-afl roster replace {ROSTER} {line.name}.public.json"
        )
    if role and line.role != role:
        raise DataError(_other_role(roster, line, role))
    return identity


def identity_path(folder: Path, name: str) -> Path:
    """Return where a folder has a party's private identity."""
    return folder / f"{name}.identity"


def public_path(folder: Path, name: str) -> Path:
    """Return where a folder has a party's public line."""
    return folder / f"{name}.public.json"


def _check(name: str, role: str) -> None:
    if role not in roles():
        raise ConfigError(f"role {role!r}, allowed: {', '.join(roles())}")
    try:
        check_name(name)
    except InvalidSession as error:
        raise ConfigError(str(error)) from None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made ({error.strerror}); name another") from None
    _refuse_writable(folder)


def _refuse_writable(path: Path) -> None:
    """Raise DataError if others can write a file or folder, and so change pins or keys in it."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o022:
        raise DataError(
            f"{path} has mode {mode:03o}, with which others can change keys there, allowed: 755 or "
            f"less. See what is there, then: chmod go-w {path}"
        )


def _refuse_existing(path: Path) -> None:
    if path.exists():
        raise ConfigError(f"{path} exists; move it away")


def _create_identity(name: str, folder: Path) -> Identity:
    identity = Identity.generate(name)
    _create(identity_path(folder, name), identity.save())
    return identity


def _create_line(identity: Identity, role: str, folder: Path) -> Line:
    file = LineFile.of(identity, role)
    text = msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"
    _create(public_path(folder, identity.name), text)
    return file.line()


def _create(path: Path, content: bytes) -> None:
    try:
        create_durably(path, content)
    except FileExistsError:
        raise ConfigError(f"{path} exists; move it away") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror})") from None


def _other_party(path: Path, identity: Identity, name: str) -> str:
    return f"{path} is the identity of '{identity.name}', wanted that of '{name}'"


def _other_role(roster: Roster, line: Line, role: str) -> str:
    return (
        f"the roster, number {roster.number}, has '{line.name}' in the role '{line.role}', wanted "
        f"'{role}'; a party in another role needs a key of its own: secure-afl keygen NAME "
        f"--role {role}"
    )
