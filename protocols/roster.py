"""The roster: the parties of a federation, as all of them have pinned each other.

People exchange signing keys once, and compare the roster out of band. A session speaks of its
clients by one bit a line, and so a client counts them in its own copy. Where two rosters differ, or
where nothing is pinned, the roster itself travels.
"""

import base64
import hashlib
import re
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Meta

from protocols.codec import Digest, Wire, decode, domain_tag, encode
from protocols.errors import BadSignature, InvalidSession, Malformed

CLIENT = "client"
VERIFY_KEY_BYTES = 32
MAX_MEMBERS = 100_000
# A line with the longest name, role and key, and the lengths before them.
_MAX_LINE_BYTES = 64 + 64 + VERIFY_KEY_BYTES + 8
MAX_ROSTER_BYTES = MAX_MEMBERS * _MAX_LINE_BYTES

# A forged line has to meet a given fingerprint, for which 80 bits are enough. Whoever makes a
# roster could search for two that agree, which takes the square root of all tries only.
_LINE_PRINT_BYTES = 10
_ROSTER_PRINT_BYTES = 20

# A session's clients, those in a sum, and a few sets on the way between the two.
_KNOWN_SETS = 8

# Names become file names and lines of logs.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Name = Annotated[str, Meta(max_length=64)]
Bits = Annotated[bytes, Meta(max_length=MAX_MEMBERS // 8 + 1)]


def check_name(name: str) -> None:
    """Raise InvalidSession unless `name` can be a party's."""
    if not _NAME.fullmatch(name):
        raise InvalidSession(
            f"party name {name[:80]!r}",
            fix="use 1 to 64 of A-Z a-z 0-9 . _ - and begin with a letter or digit",
        )


class Line(Wire, frozen=True):
    """One line of a roster: a party, its role, and its signing key.

    Attributes:
        name: unique in its roster, 1 to 64 printable characters without spaces.
        role: `client`, or a coordinator's role as its protocol names it.
        verify_key: Ed25519 public key, 32 bytes.
    """

    name: Name
    role: Name
    verify_key: Annotated[bytes, Meta(max_length=VERIFY_KEY_BYTES)]

    @property
    def fingerprint(self) -> str:
        """Name, role and key as people read them aloud: 4 groups of 4 letters and digits."""
        said = encode((domain_tag("line"), self.name, self.role, self.verify_key))
        return _aloud(hashlib.sha256(said).digest()[:_LINE_PRINT_BYTES])

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raise BadSignature unless `signature` is this party's over `data`."""
        try:
            Ed25519PublicKey.from_public_bytes(self.verify_key).verify(signature, data)
        except (InvalidSignature, ValueError):
            raise BadSignature(f"not signed by '{self.name}'") from None


class Roster(Wire, frozen=True, dict=True):
    """All parties of a federation, sorted by name.

    Attributes:
        number: of this edition, ≥ 0; for people, who compare it.
        lines: sorted by name; no name and no key twice.

    Raises:
        InvalidSession: a name or role that no party can have, one name or key twice, another
            order, a key of another length, or more than 100,000 lines.
    """

    number: int
    lines: Annotated[tuple[Line, ...], Meta(max_length=MAX_MEMBERS)]

    def __post_init__(self) -> None:
        if type(self.number) is not int or not 0 <= self.number < 2**63:
            raise InvalidSession("the roster's number must be an int ≥ 0")
        if len(self.lines) > MAX_MEMBERS:
            raise InvalidSession(f"{len(self.lines)} parties, allowed: ≤ {MAX_MEMBERS}")
        for line in self.lines:
            check_name(line.name)
            check_name(line.role)
            if len(line.verify_key) != VERIFY_KEY_BYTES:
                raise InvalidSession(f"the signing key of '{line.name}' must have 32 bytes")
        names = [line.name for line in self.lines]
        keys = {line.verify_key for line in self.lines}
        if not len(set(names)) == len(keys) == len(self.lines):
            raise InvalidSession("two parties share a name or a signing key")
        if names != sorted(names):
            raise InvalidSession("the roster is not sorted by name")

    @classmethod
    def of(cls, lines: Iterable[Line], number: int = 0) -> "Roster":
        """Sort lines into a roster; of members only name, role and key are taken."""
        thin = (Line(line.name, line.role, line.verify_key) for line in lines)
        return cls(number, tuple(sorted(thin, key=lambda line: line.name)))

    @classmethod
    def read(cls, data: bytes, digest: bytes) -> "Roster":
        """Read a roster that somebody sent, once its digest is the wanted one.

        Raises:
            Malformed: another digest, or too long; before anything is decoded.
            InvalidSession: a roster that nobody may use.
        """
        if len(data) > MAX_ROSTER_BYTES:
            raise Malformed(f"a roster of {len(data)} bytes, allowed: ≤ {MAX_ROSTER_BYTES}")
        if roster_digest(data) != digest:
            raise Malformed("a roster of another digest than the session's")
        return decode(data, cls)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256, 32 bytes: what a session names this roster by."""
        return roster_digest(encode(self))

    @property
    def fingerprint(self) -> str:
        """Number and lines as people read them aloud: 8 groups of 4 letters and digits."""
        return _aloud(self.digest[:_ROSTER_PRINT_BYTES])

    @cached_property
    def clients(self) -> tuple[Line, ...]:
        """Lines of the clients, in order: one bit of a set of clients for each."""
        return tuple(line for line in self.lines if line.role == CLIENT)

    @cached_property
    def by_name(self) -> dict[str, Line]:
        """Each line, by its party's name."""
        return {line.name: line for line in self.lines}

    def bits(self, names: Iterable[str]) -> bytes:
        """Write a set of clients as one bit for each client's line, the first lowest.

        Raises:
            InvalidSession: a name that is no client's here.
        """
        wanted = set(names)
        marks = np.array([line.name in wanted for line in self.clients], dtype=bool)
        if marks.sum() != len(wanted):
            raise InvalidSession("a set of clients that the roster does not have")
        return np.packbits(marks, bitorder="little").tobytes()

    def names(self, bits: bytes, *, party: str = "", step: str = "") -> tuple[str, ...]:
        """Read a set of clients: their names, in the roster's order.

        Raises:
            Malformed: not one bit for each client's line, with zeros after the last.
        """
        # All parties of a process read the same few sets, and each would go through all clients.
        if (known := self._known_sets.get(bits)) is not None:
            return known
        clients = len(self.clients)
        marks = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), bitorder="little")
        if len(bits) != -(-clients // 8) or marks[clients:].any():
            raise Malformed(
                f"a set of clients of {len(bits)} bytes, wanted one bit for each of {clients}",
                party=party,
                step=step,
            )
        found = tuple(self.clients[place].name for place in np.flatnonzero(marks).tolist())
        if len(self._known_sets) >= _KNOWN_SETS:
            self._known_sets.clear()
        self._known_sets[bits] = found
        return found

    def has(self, bits: bytes, name: str) -> bool:
        """Say whether a client is in a set; a name that is no client's is in none.

        Raises:
            Malformed: as `names`.
        """
        self.names(bits)
        place = self._places.get(name)
        return place is not None and bool(bits[place // 8] >> place % 8 & 1)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {line.name: place for place, line in enumerate(self.clients)}

    @cached_property
    def _known_sets(self) -> dict[bytes, tuple[str, ...]]:
        return {}

    def __repr__(self) -> str:
        return f"<Roster {self.number} of {len(self.lines)} parties, {self.digest.hex()[:16]}>"


def roster_digest(data: bytes) -> Digest:
    """Return the SHA-256, 32 bytes, of a roster's canonical bytes."""
    return hashlib.sha256(domain_tag("roster").encode() + data).digest()


def _aloud(data: bytes) -> str:
    """Write whole groups of 20 bits in base32 (A–Z, 2–7), which has no 0 and no 1 to mistake."""
    text = base64.b32encode(data).decode()
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))
