"""What can go wrong in a blind sum: one class for each thing, naming who, where and what to do.

Three families tell a driver what to do next. A `Refused` configuration never starts. A
`MessageRejected` leaves the party that raised it exactly as it was: drop the message and go on.
A `SessionAborted` is final: the party releases nothing, now or later.
"""


class SecureAflError(Exception):
    """Base of every error that this project raises on purpose, in whichever package."""


class ProtocolError(SecureAflError):
    """Base of every error of the blind sums.

    Args:
        what: what is wrong, naming the value and the allowed range; never a secret.
        party: the name of the party that noticed.
        step: the step of the protocol that it was in.
        fix: what a person can do about it.
    """

    def __init__(self, what: str, *, party: str = "", step: str = "", fix: str = "") -> None:
        self.what = what
        self.party = party
        self.step = step
        self.fix = fix
        where = " at ".join(part for part in (party, step and f"step '{step}'") if part)
        super().__init__(f"{where + ': ' if where else ''}{what}{'. ' + fix if fix else ''}")


class Refused(ProtocolError):
    """A configuration that must not run; raised before anything leaves a party."""


class InvalidLayout(Refused):
    """The blocks of the vector contradict themselves."""


class WouldOverflow(Refused):
    """A sum or an addend that the ring or its block's bounds cannot hold.

    The message names it.
    """


class InvalidVector(Refused):
    """A client's vector does not fit the layout: shape, dtype or bounds."""


class InvalidSession(Refused):
    """The session's terms are not ones that any party may agree to."""


class BadSavedState(Refused):
    """A saved party that is damaged, or belongs to another session or another party."""


class MovedSeat(BadSavedState):
    """A seat whose file system has another number than when the seat was made."""


class BadKey(Refused):
    """Key material that is damaged or not of the kind that is wanted."""


class NotRegistered(Refused):
    """A name that no registered class has."""


class BrokenExtension(Refused):
    """A class of another distribution that cannot be loaded or registered."""


class MessageRejected(ProtocolError):
    """A message that this party does not accept; the party is unchanged."""


class Malformed(MessageRejected):
    """Bytes that are not the canonical encoding of what they claim to be."""


class SessionMismatch(MessageRejected):
    """The sender has another session, or another idea of this one."""


class WrongRecipient(MessageRejected):
    """The message is addressed to somebody else."""


class UnknownSender(MessageRejected):
    """A sender off the roster, or not in a role that may send this step."""


class BadSignature(MessageRejected):
    """The header was not signed by the sender that it names."""


class BadSeal(MessageRejected):
    """The content cannot be opened: altered on its way, or sealed for another."""


class UnexpectedStep(MessageRejected):
    """A step that this party does not await now: too early, too late, or never."""


class Replayed(MessageRejected):
    """A second message of a step that its sender has already taken."""


class SessionAborted(ProtocolError):
    """The session is over without a sum.

    Attributes:
        opened: the party had looked at the sum when it gave up.
    """

    opened = False


class NotStored(MessageRejected):
    """A message that could not be kept, and so is not taken."""


class CoordinatorMissing(SessionAborted):
    """A coordinator that the session cannot do without did not answer."""


class InconsistentSurvivors(SessionAborted):
    """Two parties have different ideas of whose vectors are in the sum."""


class BelowThreshold(SessionAborted):
    """Fewer clients contributed than the minimum cohort."""


class WrongShares(SessionAborted):
    """Shares open something else than what was shared: some client gave a wrong one."""


class AnotherSet(SessionAborted):
    """A set of clients that is not that of the rounds before, in a run that holds to one set."""


class SeatEnded(Refused):
    """A seat that was given up, and never begins again."""


class Busy(Refused):
    """A seat that another process has."""


class NotVoidable(Refused):
    """A party cannot say that nothing of it opens the session, for something may."""


class NoParameters(Refused):
    """No encryption parameters hold the sum with the security and exactness that are promised."""


class UnverifiedSum(SessionAborted):
    """The encrypted sum is not that of the ciphertexts which its clients vouched for."""


class InexactDecoding(SessionAborted):
    """A decrypted sum is not made of integers: it is not an honest one."""

    opened = True
