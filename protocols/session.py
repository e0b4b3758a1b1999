"""The terms that all parties of a blind sum agree on before it begins."""

import hashlib
import re
from collections.abc import Mapping
from functools import cached_property

from protocols.codec import WIRE_VERSION, Wire, domain_tag, encode
from protocols.errors import InvalidSession, UnknownSender
from protocols.identity import NONCE_BYTES, Member
from protocols.layout import Layout

CLIENT = "client"

# Names become file names and lines of logs.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_MEMBERS = 100_000


def check_name(name: str) -> None:
    """Raise InvalidSession unless `name` can be a party's."""
    if not _NAME.fullmatch(name):
        raise InvalidSession(
            f"party name {name[:80]!r}",
            fix="use 1 to 64 of A-Z a-z 0-9 . _ - and begin with a letter or digit",
        )


class Session(Wire, frozen=True, dict=True):
    """Frozen terms; two parties with different terms have different session ids.

    Attributes:
        version: of everything on the wire.
        protocol: the protocol's name.
        parameters: the protocol's own parameters, canonically encoded.
        nonce: 32 random bytes that no other session has; sealing keys are endorsed for it.
        roster: every party, in any order; the clients are those of role `client`.
        layout: of the vector; the ring's width follows from it.
        min_cohort: the least number of contributing clients for which a sum may be released.
        corrupt: the declared number of clients that may work with whoever sees the sum.
        context: SHA-256 of what the sum is for, 32 bytes; opaque here.

    Raises:
        InvalidSession: terms that no party may agree to, with the allowed range.
        BadKey: a member whose sealing key is not endorsed for this nonce.
    """

    version: int
    protocol: str
    parameters: bytes
    nonce: bytes
    roster: tuple[Member, ...]
    layout: Layout
    min_cohort: int
    corrupt: int
    context: bytes

    def __post_init__(self) -> None:
        if self.version != WIRE_VERSION:
            raise InvalidSession(f"wire version {self.version}, wanted {WIRE_VERSION}")
        if len(self.nonce) != NONCE_BYTES or len(self.context) != 32:
            raise InvalidSession("nonce and context must have 32 bytes each")
        if len(self.roster) > _MAX_MEMBERS:
            raise InvalidSession(f"{len(self.roster)} parties, allowed: ≤ {_MAX_MEMBERS}")
        names, keys = set(), set()
        for member in self.roster:
            check_name(member.name)
            names.add(member.name)
            keys.add(member.verify_key)
        if not len(names) == len(keys) == len(self.roster):
            raise InvalidSession("two parties share a name or a signing key")
        if not type(self.min_cohort) is type(self.corrupt) is int:
            raise InvalidSession("minimum cohort and declared corrupt clients must be of type int")
        # One client's sum is that client's data, and corrupt clients can subtract their own.
        least = max(self.corrupt, 0) + 2
        if self.corrupt < 0 or not least <= self.min_cohort <= len(self.clients):
            raise InvalidSession(
                f"minimum cohort {self.min_cohort} with {len(self.clients)} clients and "
                f"{self.corrupt} declared corrupt, allowed: {least}..{len(self.clients)}",
                fix="enrol more clients, or declare fewer corrupt ones",
            )
        for member in self.roster:
            member.check(self.nonce)

    @cached_property
    def id(self) -> bytes:
        """SHA-256 of the canonical encoding, 32 bytes."""
        return hashlib.sha256(encode((domain_tag("session"), self))).digest()

    @cached_property
    def clients(self) -> tuple[str, ...]:
        """Names of the clients, in roster order."""
        return self.of_role(CLIENT)

    def of_role(self, role: str) -> tuple[str, ...]:
        """Return the names of the parties in `role`, in roster order."""
        return tuple(member.name for member in self.roster if member.role == role)

    def member(self, name: str) -> Member:
        """Return the roster's line for `name`.

        Raises:
            UnknownSender: the name is not on the roster.
        """
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownSender("a name that is not on the roster") from None

    def check_known(self, known: Mapping[str, tuple[str, bytes]]) -> None:
        """Compare the roster with roles and signing keys that were pinned beforehand, by name.

        Without this, whoever forms the session could enrol invented clients around one victim,
        or a client that works with it in an aggregator's place.

        Raises:
            InvalidSession: a party that is not known, or not in this role by this key.
        """
        for member in self.roster:
            if known.get(member.name) != (member.role, member.verify_key):
                raise InvalidSession(
                    f"'{member.name}' is not known in the role '{member.role}' by this signing key",
                    fix="exchange keys with that party, or leave it out of the session",
                )

    @cached_property
    def _by_name(self) -> dict[str, Member]:
        return {member.name: member for member in self.roster}

    def __repr__(self) -> str:
        return (
            f"<Session {self.id.hex()[:16]} {self.protocol}, {len(self.clients)} clients, "
            f"{self.layout.length} entries of {self.layout.ring_bits} bits>"
        )
