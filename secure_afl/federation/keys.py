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
from protocols.identity import VERIFY_KEY_BYTES, Identity
from protocols.protocol import Protocol, roles
from protocols.session import CLIENT, check_name
from secure_afl.errors import ConfigError, DataError

ROSTER = "roster.json"
FORMAT_VERSION = 1


class RosterLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One party: its name, its role, and its Ed25519 public key in hexadecimal."""

    name: str
    role: str
    verify_key: str


class Roster(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The public file."""

    format_version: int
    members: tuple[RosterLine, ...]

    @property
    def known(self) -> dict[str, tuple[str, bytes]]:
        """Name to role and signing key, 32 bytes: what `Session.check_known` takes."""
        return {line.name: (line.role, bytes.fromhex(line.verify_key)) for line in self.members}


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
        """Map default name to identity of each coordinator, by role and in roster order."""
        lines = [line for line in self.roster.members if line.role != CLIENT]
        found = {}
        for name, role in protocol.coordinators().items():
            line = next((line for line in lines if line.role == role), None)
            if line is None:
                raise ConfigError(
                    f"the roster has too few parties in role '{role}'; make one: "
                    f"secure-afl keygen {name} --role {role}"
                )
            lines.remove(line)
            found[name] = self._identity(line.name, role)
        return found

    def _identity(self, name: str, role: str) -> Identity:
        line = next((line for line in self.roster.members if line.name == name), None)
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
    roster = load_roster(folder) if (folder / ROSTER).exists() else Roster(FORMAT_VERSION, ())
    taken = sorted(set(names) & roster.known.keys())
    if taken or len(set(names)) != len(names):
        raise ConfigError(f"{(taken or list(names))[0]!r} has a key already; choose another name")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made ({error.strerror}); name another") from None
    lines = list(roster.members)
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
        lines.append(RosterLine(name, role, identity.verify_key.hex()))
    roster = Roster(FORMAT_VERSION, tuple(lines))
    text = msgspec.json.format(msgspec.json.encode(roster), indent=2)
    (folder / ROSTER).write_bytes(text + b"\n")
    return roster


def load_roster(folder: Path) -> Roster:
    """Read the roster of a folder.

    Raises:
        DataError: missing, damaged, of another format, or with a name twice.
    """
    path = folder / ROSTER
    try:
        roster = msgspec.json.decode(path.read_bytes(), type=Roster)
        keys = [key for _, key in roster.known.values()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no roster: {error}; make one with secure-afl keygen") from None
    if any(len(key) != VERIFY_KEY_BYTES for key in keys) or len(roster.known) < len(roster.members):
        raise DataError(f"{path} repeats a name, or has a key of the wrong length")
    if roster.format_version != FORMAT_VERSION:
        raise DataError(f"{path} has format {roster.format_version}, wanted {FORMAT_VERSION}")
    return roster


def load_keys(folder: Path) -> Keys:
    """Read the roster, and every identity that lies beside it.

    Raises:
        DataError: a damaged roster or identity, or an identity that the roster names otherwise.
    """
    roster = load_roster(folder)
    identities = {}
    for name, (_, key) in roster.known.items():
        path = _identity_path(folder, name)
        if not path.exists():
            continue
        try:
            identity = Identity.load(path.read_bytes())
        except (OSError, ProtocolError) as error:
            raise DataError(f"{path}: {error}") from None
        if (identity.name, identity.verify_key) != (name, key):
            raise DataError(f"{path} is not the identity that the roster names '{name}'")
        identities[name] = identity
    return Keys(roster, identities)


def _identity_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.identity"
