"""Identity files and the roster that parties pin: who is known by which signing key.

`keygen` writes, into one folder, `<name>.identity` for each party (private, for that party alone)
and `roster.json` (public, for everybody). People compare the roster out of band; after that, nobody
can enrol a party that it does not name.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from protocols.errors import InvalidSession, ProtocolError
from protocols.identity import Identity
from protocols.protocol import Protocol, roles
from protocols.roster import CLIENT, Line, Roster, check_name
from secure_afl.errors import ConfigError, DataError

ROSTER = "roster.json"
FORMAT_VERSION = 2


class RosterLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One party: its name, its role, and its Ed25519 public key in hexadecimal."""

    name: str
    role: str
    verify_key: str


class RosterFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The public file: an edition of the roster, counted up at every change."""

    format_version: int
    number: int
    members: tuple[RosterLine, ...]

    @classmethod
    def of(cls, roster: Roster) -> "RosterFile":
        """Write a roster for people to compare."""
        lines = (RosterLine(n.name, n.role, n.verify_key.hex()) for n in roster.lines)
        return cls(FORMAT_VERSION, roster.number, tuple(lines))

    def roster(self) -> Roster:
        """Return the roster that is written here.

        Raises:
            InvalidSession: a name or key twice, or one that no party can have.
            ValueError: a key that is not hexadecimal.
        """
        lines = (Line(n.name, n.role, bytes.fromhex(n.verify_key)) for n in self.members)
        return Roster.of(lines, self.number)


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
        identity = self.identities.get(name)
        if line is None or line.role != role or identity is None:
            raise ConfigError(
                f"no identity for {role} '{name}'; make one: secure-afl keygen {name} --role {role}"
            )
        return identity


def generate(names: Sequence[str], role: str, folder: Path) -> Roster:
    """Make identities, and add them to the folder's roster.

    Raises:
        ConfigError: a name that no party can have, or that has a key already; nothing is
            overwritten.
        DataError: the folder's roster is damaged.
    """
    if role not in roles():
        raise ConfigError(f"role {role!r}, allowed: {', '.join(roles())}")
    for name in names:
        try:
            check_name(name)
        except InvalidSession as error:
            raise ConfigError(str(error)) from None
    roster = load_roster(folder) if (folder / ROSTER).exists() else Roster(0, ())
    taken = sorted(set(names) & roster.by_name.keys())
    if taken or len(set(names)) != len(names):
        raise ConfigError(f"{(taken or list(names))[0]!r} has a key already; choose another name")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made ({error.strerror}); name another") from None
    lines = list(roster.lines)
    for name in names:
        identity = Identity.generate(name)
        # Created for its owner alone, and never over an existing key.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            file = os.open(_identity_path(folder, name), flags, 0o600)
        except FileExistsError:
            raise ConfigError(f"{_identity_path(folder, name)} exists; move it away") from None
        except OSError as error:
            raise ConfigError(f"{folder} cannot be written ({error.strerror})") from None
        with os.fdopen(file, "wb") as opened:
            opened.write(identity.save())
        lines.append(Line(name, role, identity.verify_key))
    roster = Roster.of(lines, roster.number + 1)
    text = msgspec.json.format(msgspec.json.encode(RosterFile.of(roster)), indent=2)
    (folder / ROSTER).write_bytes(text + b"\n")
    return roster


def load_roster(folder: Path) -> Roster:
    """Read the roster of a folder.

    Raises:
        DataError: missing, damaged, of another format, or with a name twice.
    """
    path = folder / ROSTER
    try:
        text = path.read_bytes()
        version = msgspec.json.decode(text, type=_Versioned).format_version
        if version == FORMAT_VERSION:
            return msgspec.json.decode(text, type=RosterFile).roster()
    except (OSError, ValueError, InvalidSession) as error:
        raise DataError(f"{path} is no roster: {error}; make one with secure-afl keygen") from None
    raise DataError(
        f"{path} has format {version}, wanted {FORMAT_VERSION}; make keys anew with "
        "secure-afl keygen"
    )


def load_keys(folder: Path) -> Keys:
    """Read the roster, and every identity that lies beside it.

    Raises:
        DataError: a damaged roster or identity, or an identity that the roster names otherwise.
    """
    roster = load_roster(folder)
    identities = {}
    for line in roster.lines:
        name, path = line.name, _identity_path(folder, line.name)
        if not path.exists():
            continue
        try:
            identity = Identity.load(path.read_bytes())
        except (OSError, ProtocolError) as error:
            raise DataError(f"{path}: {error}") from None
        if (identity.name, identity.verify_key) != (name, line.verify_key):
            raise DataError(f"{path} is not the identity that the roster names '{name}'")
        identities[name] = identity
    return Keys(roster, identities)


class _Versioned(msgspec.Struct, frozen=True):
    format_version: int


def _identity_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.identity"
