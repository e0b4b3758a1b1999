"""One party's process: hears letters and mail over a post, until its run is over."""

from collections.abc import Callable
from dataclasses import dataclass, field

from protocols.carrier import Carrier, Patience, Post
from protocols.errors import NotStored
from secure_afl.federation.attending import Attending, Posted
from secure_afl.federation.convening import Convening
from secure_afl.sites.mailroom import Mailroom


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
        convening: where this site forms the sessions.
        pause: seconds between two looks into the post.
    """

    attending: Attending
    mailroom: Mailroom
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    patience: Patience
    tell: Callable[[str], None]
    convening: Convening | None = None
    pause: float = 1.0
    _carriers: dict[bytes, Carrier] = field(default_factory=dict)
    _told: dict[bytes, int] = field(default_factory=dict)

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
        return convened and self.attending.finished

    def turn(self, letters: Post) -> None:
        """Look once into the post, and answer what is there."""
        for data in self._collected(letters):
            self._send(letters, self.attending.hear(data))
            if self.convening is not None:
                self.convening.hear(data)
        self.attending.settle()
        self._carry()
        if self.convening is not None:
            self._send(letters, self.convening.turn(self.clock()))

    def _collected(self, letters: Post) -> list[bytes]:
        return [data for _, data in letters.collect([self.attending.name])]

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
                    carrier.begin(self.attending.others(nonce))
                self._carriers[nonce].turn()
            except NotStored as error:
                # A post that is away comes back.
                self.tell(str(error))
            self._report(nonce)

    def _report(self, nonce: bytes) -> None:
        """Tell of what was refused since the last time."""
        problems = self._carriers[nonce].problems if nonce in self._carriers else []
        for problem in problems[self._told.get(nonce, 0) :]:
            self.tell(f"refused: {problem.error}")
        self._told[nonce] = len(problems)

    def _send(self, letters: Post, posted: list[Posted]) -> None:
        for recipient, letter in posted:
            try:
                letters.send(recipient, letter)
            except NotStored as error:
                self.tell(str(error))
