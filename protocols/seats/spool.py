"""Where a party of a seat finds the bodies of messages again: in the journal."""

from protocols.codec import decode
from protocols.errors import BadSavedState
from protocols.seats.journal import Journal, Place
from protocols.seats.stored import Event


class JournalSpool:
    """A spool that keeps nothing itself: the messages are in the seat's journal already."""

    def __init__(self) -> None:
        self.journal: Journal | None = None
        self._fresh: dict[str, bytes] = {}
        self._places: dict[str, Place] = {}

    def put(self, sender: str, message: bytes) -> None:
        """Note that the message which is being taken is to be found again."""
        self._fresh[sender] = message

    def get(self, sender: str) -> bytes:
        """Return the message of a sender.

        Raises:
            BadSavedState: there is none, or it is damaged.
        """
        if sender in self._fresh:
            return self._fresh[sender]
        try:
            place = self._places[sender]
        except KeyError:
            raise BadSavedState(f"the message of '{sender}' is not in the journal") from None
        assert self.journal is not None, "it knows the place"
        return decode(self.journal.read(place), Event).data

    def keep(self, place: Place) -> None:
        """Remember where the journal has what was put just now."""
        self._places |= dict.fromkeys(self._fresh, place)
        self._fresh.clear()

    def forget(self) -> None:
        """Forget what was put just now: its message was refused, or not stored."""
        self._fresh.clear()
