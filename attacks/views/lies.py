"""Sessions in which a coalition of real parties lies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from attacks.views.view import View
from protocols.codec import Wire, encode
from protocols.errors import ProtocolError, SessionAborted
from protocols.message import open_channel, seal
from protocols.network import Fault, FaultPlan, Network, Transcript
from protocols.party import Party
from protocols.session import Session


@dataclass(frozen=True)
class Lie:
    """A lie that one party of the coalition says instead.

    It is made of what the coalition knows by then.

    Attributes:
        liar, recipient, step: of the message that it replaces.
        say: from the coalition's view to the content of the lie.
    """

    liar: str
    recipient: str
    step: str
    say: Callable[[View], Wire]


@dataclass(frozen=True)
class Staged:
    """The end of a staged session.

    Attributes:
        view: what the coalition has, with the sum if one was released.
        error: why there is none.
        transcript: of everybody, to compare with; not the coalition's to see.
    """

    view: View
    error: ProtocolError | None
    transcript: Transcript


def stage(
    session: Session,
    parties: Sequence[Party],
    coalition: Sequence[str],
    lies: Sequence[Lie] = (),
) -> Staged:
    """Run the parties, with the coalition's lies properly signed and sealed by whoever tells them.

    Args:
        parties: in the order in which they start; a client that is to speak last comes last.
        coalition: parties whose records make up the view.
    """
    tellers = [_Teller(session, coalition, lie) for lie in lies]
    faults = tuple(
        Fault("tamper", lie.liar, lie.recipient, lie.step, teller)
        for lie, teller in zip(lies, tellers, strict=True)
    )
    network = Network(parties, FaultPlan(faults), record=True)
    # Told while the network runs, the lies look into its transcript as it is then.
    for teller in tellers:
        teller.network = network
    released, error = None, None
    try:
        released = network.run()
    except SessionAborted as aborted:
        error = aborted
    assert network.transcript is not None
    return Staged(
        View.cut(session, network.transcript, coalition, released), error, network.transcript
    )


class _Teller:
    """The stand-in that replaces a message by a lie."""

    network: Network

    def __init__(self, session: Session, coalition: Sequence[str], lie: Lie) -> None:
        self._session = session
        self._coalition = coalition
        self._lie = lie

    def __call__(self, said: bytes) -> bytes:
        transcript = self.network.transcript
        assert transcript is not None
        view = View.cut(self._session, transcript, self._coalition)
        enrolment = view.enrolment(self._lie.liar)
        # A channel of the lie's own: one key seals one content.
        secret = self._lie.step.encode().ljust(32, b"\0")
        channel = open_channel(self._session, enrolment, self._lie.recipient, secret)
        content = encode(self._lie.say(view))
        return encode(seal(self._session, enrolment, channel, self._lie.step, content))
