"""The terms that all parties of a blind sum agree on before it begins.

A session is a short header over a roster that its parties have. A client reads names, places and
the number of clients off its own roster; of the others' enrolments it sees a hash. Coordinators,
who write to clients, have the enrolments themselves.
"""

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Annotated

from msgspec import Meta

from protocols.codec import WIRE_VERSION, Digest, Wire, decode, domain_tag, encode, wire_version
from protocols.errors import InvalidSession, Malformed, UnknownSender
from protocols.identity import NONCE_BYTES, Member
from protocols.layout import Layout
from protocols.roster import CLIENT, Bits, Line, Name, Roster, check_name

MAX_COORDINATORS = 64
MAX_PARAMETER_BYTES = 4096
# Beside coordinators and bits: the layout takes most of it.
MAX_TERMS_BYTES = 2**16
_MAX_COORDINATOR_BYTES = 1536
MAX_SESSION_BYTES = MAX_TERMS_BYTES + MAX_COORDINATORS * _MAX_COORDINATOR_BYTES + 2 * 12_501


class SessionHeader(Wire, frozen=True):
    """The frozen terms of a session, as they travel.

    Attributes:
        version: of everything on the wire.
        protocol: the protocol's name.
        parameters: the protocol's own parameters, canonically encoded.
        nonce: 32 random bytes that no other session has; enrolments are endorsed for it.
        layout: of the vector; the ring's width follows from it.
        min_cohort: the least number of contributing clients for which a sum may be released.
        corrupt: the declared number of clients that may work with whoever sees the sum.
        round: of the run, from 1.
        attempt: of the round, from 0.
        void: digest of what made the attempt before void, 32 bytes; empty at attempt 0.
        context: SHA-256 of what the sum is for, 32 bytes; opaque here.
        same_set: bits of the clients whose sum alone may be released, as in the rounds before;
            empty where any set will do.
        coordinators: enrolments of all parties that are no clients, sorted by name.
        roster: digest of the roster, 32 bytes.
        participants: bits of the clients that are enrolled, one for each client's line.
        enrolments: SHA-256 of their enrolments in the roster's order, 32 bytes.
    """

    version: int
    protocol: Name
    parameters: Annotated[bytes, Meta(max_length=MAX_PARAMETER_BYTES)]
    nonce: Digest
    layout: Layout
    min_cohort: int
    corrupt: int
    round: int
    attempt: int
    void: Digest
    context: Digest
    same_set: Bits
    coordinators: Annotated[tuple[Member, ...], Meta(max_length=MAX_COORDINATORS)]
    roster: Digest
    participants: Bits
    enrolments: Digest


class Session:
    """A session as one party sees it; two parties with different terms have different ids.

    Args:
        header: the terms.
        roster: of the header's digest; names and places are read off it.
        members: the clients' enrolments in the roster's order, which coordinators have and check;
            None at clients.
        pinned: the roster that this party has pinned; None compares with none.

    Raises:
        InvalidSession: terms that no party may agree to, with the allowed range.
        BadKey: an enrolment that is not endorsed for this nonce.
        Malformed: participants that are not bits of this roster's clients.
    """

    def __init__(
        self,
        header: SessionHeader,
        roster: Roster,
        members: Sequence[Member] | None = None,
        pinned: Roster | None = None,
    ) -> None:
        self.header = header
        self.roster = roster
        self.members = None if members is None else tuple(members)
        self._check_terms()
        self._check_lines()
        if pinned is not None:
            self.check_pinned(pinned)
        # Strangers' signatures are not worth the time.
        for member in self.everybody:
            member.check(self.nonce)

    @classmethod
    def read(
        cls,
        data: bytes,
        pinned: Roster | None,
        *,
        thin: bytes = b"",
        members: Sequence[Member] | None = None,
    ) -> "Session":
        """Read a header that somebody sent, against the roster that this party has pinned.

        Args:
            data: the header's canonical bytes.
            pinned: this party's own roster; None, in simulations only, believes the thin list.
            thin: the roster's canonical bytes, wanted where the digests differ.
            members: the clients' enrolments, at coordinators.

        Raises:
            Malformed: too long, not canonical, or a thin list of another digest.
            InvalidSession, BadKey, InvalidLayout, WouldOverflow: terms that no party may agree to;
                a party that is not pinned in its role by its key; other coordinators than exactly
                those that are pinned for their roles.
        """
        if len(data) > MAX_SESSION_BYTES:
            raise Malformed(f"a session of {len(data)} bytes, allowed: ≤ {MAX_SESSION_BYTES}")
        header = read_header(data)
        if pinned is not None and header.roster == pinned.digest:
            return cls(header, pinned, members, pinned)
        if thin:
            return cls(header, Roster.read(thin, header.roster), members, pinned)
        raise InvalidSession(
            "the session is over another roster than this party's, and brings none",
            fix="compare the rosters' numbers, or send the roster with the session",
        )

    @cached_property
    def id(self) -> bytes:
        """SHA-256 of the header, which names the roster and all enrolments; 32 bytes."""
        return hashlib.sha256(encode((domain_tag("session"), self.header))).digest()

    @property
    def protocol(self) -> str:
        """The protocol's name."""
        return self.header.protocol

    @property
    def parameters(self) -> bytes:
        """The protocol's parameters, canonically encoded."""
        return self.header.parameters

    @property
    def nonce(self) -> bytes:
        """The 32 bytes that enrolments are endorsed for."""
        return self.header.nonce

    @property
    def layout(self) -> Layout:
        """The vector's blocks."""
        return self.header.layout

    @property
    def min_cohort(self) -> int:
        """The least number of contributing clients."""
        return self.header.min_cohort

    @property
    def corrupt(self) -> int:
        """The declared number of corrupt clients."""
        return self.header.corrupt

    @property
    def context(self) -> bytes:
        """SHA-256 of what the sum is for, 32 bytes."""
        return self.header.context

    @cached_property
    def clients(self) -> tuple[str, ...]:
        """Names of the clients, in the roster's order."""
        return self.roster.names(self.header.participants)

    @cached_property
    def places(self) -> dict[str, int]:
        """Each client's index in `clients`."""
        return {name: place for place, name in enumerate(self.clients)}

    @cached_property
    def thin(self) -> bytes:
        """The roster's canonical bytes, for parties whose own has another digest."""
        return encode(self.roster)

    def of_role(self, role: str) -> tuple[str, ...]:
        """Return the names of the parties in `role`, sorted by name."""
        if role == CLIENT:
            return self.clients
        return tuple(member.name for member in self.header.coordinators if member.role == role)

    def line(self, name: str) -> Line:
        """Return the roster's line of a party of this session.

        Raises:
            UnknownSender: the name is no party's here.
        """
        if name in self.places or name in self._coordinators:
            return self.roster.by_name[name]
        raise UnknownSender("a name that is not on the roster")

    def member(self, name: str) -> Member:
        """Return a party's enrolment; a client has the coordinators' only.

        Raises:
            UnknownSender: the name is no party's here, or its enrolment is not at hand.
        """
        found = self._coordinators.get(name) or self._members.get(name)
        if found is None:
            raise UnknownSender("a name whose enrolment is not at hand")
        return found

    @property
    def everybody(self) -> tuple[Member, ...]:
        """All enrolments that are at hand, the coordinators' first."""
        return (*self.header.coordinators, *(self.members or ()))

    def bits(self, names: Iterable[str]) -> bytes:
        """Write a set of this session's clients as bits of the roster."""
        return self.roster.bits(names)

    def names(self, bits: bytes, *, party: str = "", step: str = "") -> tuple[str, ...]:
        """Read a set of clients that a peer sent.

        Raises:
            Malformed: not bits of the roster, or of a client that does not take part.
        """
        found = self.roster.names(bits, party=party, step=step)
        if not self.places.keys() >= set(found):
            raise Malformed("a client that is not in the session", party=party, step=step)
        return found

    def allows(self, names: Iterable[str]) -> bool:
        """Say whether a sum over this set may be released, where the run holds to one set."""
        return not self.header.same_set or self._one_set == set(names)

    def check_pinned(self, pinned: Roster) -> None:
        """Compare all parties with what one party has pinned, by name, role and key.

        Without this, whoever forms the session could enrol invented clients around one victim,
        or choose who of several organisations receives the sum.

        Raises:
            InvalidSession: a party that is not pinned in this role by this key; or a role whose
                coordinators are others than all that are pinned for it.
        """
        lines = [member.line for member in self.header.coordinators]
        if self.roster is not pinned:
            lines += [self.roster.by_name[name] for name in self.clients]
        for line in lines:
            if pinned.by_name.get(line.name) != line:
                raise InvalidSession(
                    f"'{line.name}' is not known in the role '{line.role}' by this signing key",
                    fix="exchange keys with that party, or leave it out of the session",
                )
        for role in {line.role for line in lines} - {CLIENT}:
            wanted = [line.name for line in pinned.lines if line.role == role]
            if list(self.of_role(role)) != wanted:
                raise InvalidSession(
                    f"the session's parties in role '{role}' are not all that are pinned for it: "
                    f"{', '.join(wanted)}",
                    fix="pin exactly the coordinators that take part",
                )

    def _check_terms(self) -> None:
        header = self.header
        check_size(header, len(encode(header)))
        if header.version != WIRE_VERSION:
            raise InvalidSession(f"wire version {header.version}, wanted {WIRE_VERSION}")
        sizes = [len(part) for part in (header.nonce, header.context, header.enrolments)]
        if sizes != [NONCE_BYTES, 32, 32]:
            raise InvalidSession("nonce, context and digests must have 32 bytes each")
        check_name(header.protocol)
        if header.roster != self.roster.digest:
            raise InvalidSession("the session is over another roster")
        numbers = (header.min_cohort, header.corrupt, header.round, header.attempt)
        if any(type(number) is not int for number in numbers):
            raise InvalidSession("cohort, corrupt clients, round and attempt must be of type int")
        if header.round < 1 or header.attempt < 0 or max(numbers) >= 2**63:
            raise InvalidSession(
                f"round {header.round}, attempt {header.attempt}, allowed: ≥ 1 and ≥ 0"
            )
        if len(header.void) != (32 if header.attempt else 0):
            raise InvalidSession("an attempt after the first needs the void of the one before")
        # One client's sum is that client's data, and corrupt clients can subtract their own.
        least = max(header.corrupt, 0) + 2
        if header.corrupt < 0 or not least <= header.min_cohort <= len(self.clients):
            raise InvalidSession(
                f"minimum cohort {header.min_cohort} with {len(self.clients)} clients and "
                f"{header.corrupt} declared corrupt, allowed: {least}..{len(self.clients)}",
                fix="enrol more clients, or declare fewer corrupt ones",
            )
        if header.same_set:
            _ = self._one_set  # bits of this roster, or Malformed

    def _check_lines(self) -> None:
        """Compare all enrolments with the roster, before any signature is looked at."""
        coordinators = self.header.coordinators
        names = [member.name for member in coordinators]
        if names != sorted(set(names)):
            raise InvalidSession("coordinators are not sorted by name, or one is there twice")
        for member in coordinators:
            if member.role == CLIENT or self.roster.by_name.get(member.name) != member.line:
                raise InvalidSession("a coordinator that is not on the roster in its role")
            if member.bound:
                raise InvalidSession(f"'{member.name}' is no client and declares a bound")
        if self.members is None:
            return
        if tuple(member.name for member in self.members) != self.clients:
            raise InvalidSession("enrolments of other clients than the session's, or out of order")
        if enrolments_digest(self.members) != self.header.enrolments:
            raise InvalidSession("other enrolments than those of the session's hash")
        for member in self.members:
            if self.roster.by_name[member.name] != member.line:
                raise InvalidSession(f"'{member.name}' is enrolled with another key than pinned")

    @cached_property
    def _coordinators(self) -> dict[str, Member]:
        return {member.name: member for member in self.header.coordinators}

    @cached_property
    def _members(self) -> dict[str, Member]:
        return {member.name: member for member in self.members or ()}

    @cached_property
    def _one_set(self) -> frozenset[str]:
        return frozenset(self.roster.names(self.header.same_set))

    def __repr__(self) -> str:
        return (
            f"<Session {self.id.hex()[:16]} {self.protocol}, round {self.header.round}, "
            f"{len(self.clients)} clients, {self.layout.length} entries of "
            f"{self.layout.ring_bits} bits>"
        )


def read_header(data: bytes) -> SessionHeader:
    """Decode a header; another version's is refused as such.

    Raises:
        InvalidSession: of another version.
        Malformed: not the canonical encoding of a header.
    """
    version = wire_version(data)
    if version != WIRE_VERSION:
        raise InvalidSession(
            f"wire version {version}, wanted {WIRE_VERSION}",
            fix="let all parties run the same version of secure-afl",
        )
    return decode(data, SessionHeader)


def check_size(header: SessionHeader, size: int) -> None:
    """Raise Malformed for terms of more than 64 kB beside coordinators and bits."""
    apart = sum(len(encode(member)) for member in header.coordinators)
    apart += len(header.participants) + len(header.same_set)
    if size - apart > MAX_TERMS_BYTES:
        raise Malformed(f"terms of {size - apart} bytes, allowed: ≤ {MAX_TERMS_BYTES}")


def enrolments_digest(members: Iterable[Member]) -> bytes:
    """Return the SHA-256, 32 bytes, of clients' enrolments in the roster's order."""
    digest = hashlib.sha256(domain_tag("enrolments").encode())
    for member in members:
        digest.update(encode(member))
    return digest.digest()
