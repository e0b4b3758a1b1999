"""Where a party stands in a run."""

from dataclasses import dataclass

from protocols.codec import Digest, Wire, decode, encode
from protocols.party import Party
from protocols.roster import Bits
from secure_afl.methods.method import AnyMethod, PublicState


@dataclass(frozen=True, eq=False)
class Position:
    """Where one party stands in a run: the last round that it entered.

    Attributes:
        round: its number.
        session: its session's id, 32 bytes.
        context: its context, 32 bytes.
        roster: digest of the roster, 32 bytes.
        public: the state that it began with.
        party: this party's in that session, which may know whose vectors are in the sum.
        given_back: the session was given back; another attempt's sum ends the round.
        restored: bits of the clients that the party had agreed to before a restart; empty where it
            could not tell, or there was none.
    """

    round: int
    session: bytes
    context: bytes
    roster: bytes
    public: PublicState
    party: Party | None = None
    given_back: bool = False
    restored: bytes = b""

    @property
    def agreed(self) -> bytes:
        """Bits of the clients that this party let into the sum; empty where it cannot tell."""
        if self.party is None or self.party.agreed is None:
            return self.restored
        return self.party.session.bits(self.party.agreed)


class SavedPosition(Wire, frozen=True):
    """A position as it outlasts a restart; the party is in its seat, until that ends."""

    round: int
    session: Digest
    context: Digest
    roster: Digest
    public: bytes
    given_back: bool
    agreed: Bits

    @classmethod
    def of(cls, position: Position) -> "SavedPosition":
        """Write a position down."""
        p = position
        public = encode(p.public)
        return cls(p.round, p.session, p.context, p.roster, public, p.given_back, p.agreed)

    def position(self, method: AnyMethod) -> Position:
        """Return the position, without its party.

        Raises:
            Malformed: the state is none of this method's.
        """
        public = decode(self.public, method.public)
        return Position(
            self.round,
            self.session,
            self.context,
            self.roster,
            public,
            given_back=self.given_back,
            restored=self.agreed,
        )
