"""One party's process: hears letters and mail over a post, until its run is over."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from protocols.carrier import Carrier, Patience, Post
from protocols.errors import NotStored
from secure_afl.federation.attending import Attending, Posted
from secure_afl.sites.mailroom import Mailroom
from secure_afl.sites.state import State

if TYPE_CHECKING:
    from secure_afl.federation.convening import Convening


@dataclass
class Driver:
    """The loop of one process at a site.

    Attributes:
        attending: the site's party.
        mailroom: reaches all others.
        clock: seconds, never backwards.
        sleep: waits so many seconds.
        patience: of the carrier, in seconds.
        tell: is told in words what happens.
        state: where deadlines are kept that began in an earlier process.
        convening: where this site forms the sessions.
        pause: seconds between two looks into the post.
    """

    attending: Attending
    mailroom: Mailroom
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    patience: Patience
    tell: Callable[[str], None]
    state: State
    convening: "Convening | None" = None
    pause: float = 1.0
    _carriers: dict[bytes, Carrier] = field(default_factory=dict)
    _told: dict[bytes, int] = field(default_factory=dict)
    _waiting: dict[bytes, dict[str, tuple[str, float]]] = field(default_factory=dict)
    _unsent: list[Posted] = field(default_factory=list)

    def run(self) -> None:
        """Go on until the run is over for this party, and for the run if this party convenes it.

        Raises:
            SecureAflError: as from `Convening.turn`.
        """
        letters = self.mailroom.letters()
        while True:
            self.turn(letters)
            if self.finished:
                return
            self.sleep(self.pause)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        convened = self.convening is None or self.convening.finished
        return convened and self.attending.finished and not self._unsent

    def turn(self, letters: Post) -> None:
        """Look once into the post, and answer what is there."""
        self._send(letters, [])
        # One by one: whoever can write here can put much there, and much at once.
        for _, data in letters.collect([self.attending.name]):
            self._send(letters, self.attending.hear(data))
            if self.convening is not None:
                self.convening.hear(data)
        self._send(letters, self.attending.settle())
        self._carry()
        if self.convening is not None:
            self._send(letters, self.convening.turn(self.clock()))

    def _carry(self) -> None:
        """Move the mail of every open session."""
        hearings = self.attending.hearings
        for nonce in [nonce for nonce in self._carriers if nonce not in hearings]:
            del self._carriers[nonce]
        for nonce, hearing in hearings.items():
            try:
                if nonce not in self._carriers:
                    post = self.mailroom.session(nonce)
                    carrier = Carrier({hearing.name: hearing}, post, self.clock, self.patience)
                    self._carriers[nonce] = carrier
                    carrier.go_on_waiting(self.state.waiting(nonce))
                    nudged = self.mailroom.nudged
                    carrier.begin(self.attending.others(nonce) if nudged else ())
                self._carriers[nonce].turn()
            except NotStored as error:
                # A post that is away comes back.
                self.tell(str(error))
            self._report(nonce)
        waiting = {nonce: carrier.waiting for nonce, carrier in self._carriers.items()}
        if waiting != self._waiting:
            self._waiting = waiting
            self.state.keep_waiting(waiting)

    @property
    def wake(self) -> float | None:
        """When a deadline passes here that needs no mail, by the clock; None for never."""
        begun = [since for parties in self._waiting.values() for _, since in parties.values()]
        return min(begun) + self.patience.deadline if begun else None

    def _report(self, nonce: bytes) -> None:
        """Tell of what was refused since the last time."""
        problems = self._carriers[nonce].problems if nonce in self._carriers else []
        for problem in problems[self._told.get(nonce, 0) :]:
            self.tell(f"refused: {problem.error}")
        self._told[nonce] = len(problems)

    def _send(self, letters: Post, posted: list[Posted]) -> None:
        """Send letters, and those that could not be sent before: some are written once."""
        waiting, self._unsent = dict.fromkeys([*self._unsent, *posted]), []
        for one in waiting:
            try:
                letters.send(*one)
            except NotStored as error:
                self._unsent.append(one)
                self.tell(str(error))
