"""What lies in a seat's folder."""

from pathlib import Path
from typing import Literal

from msgspec import structs

from protocols.codec import Secret, Wire, decode, encode
from protocols.errors import BadSavedState, Malformed, NotStored
from protocols.files import Content, create_durably
from protocols.identity import Member
from protocols.layout import Integers
from protocols.seats.birthplace import Birthplace
from protocols.seats.vault import Vault


class Bound(Wire, frozen=True):
    """The journal's first content: the session that the seat is bound to, whole."""

    header: bytes
    roster: bytes
    members: tuple[Member, ...] | None


class Event(Wire, frozen=True):
    """One thing that happened to a seat.

    Attributes:
        kind: the party has begun, a message came, a deadline passed, the session is given back.
        data: its first state; the message; the step; nothing.
    """

    kind: Literal["begun", "message", "deadline", "void"]
    data: bytes


class Enrolled(Secret, frozen=True):
    """What is stored before the answer to hello.

    Attributes:
        enrolment: the keys.
        entropy: 32 bytes.
        folder: the seat's, which copies of it are not, were they of hard links.
        file: what this is stored in, which one that is put back into the folder is not.
        session: id of the one that the seat is bound to; empty before it joins.
    """

    enrolment: bytes
    entropy: bytes
    folder: Birthplace
    file: Birthplace
    session: bytes = b""

    @classmethod
    def load(cls, folder: Path, vault: Vault) -> "Enrolled":
        """Read it from a seat's folder; raises BadSavedState where it is damaged."""
        try:
            return decode(vault.open("enrolment", read_file(folder / "enrolment")), cls)
        except Malformed:
            raise BadSavedState(
                "the enrolment of this seat is damaged, or another version's",
                fix="take part in a new session",
            ) from None

    def sealed(self, vault: Vault, file: int) -> bytes:
        """Return it as it lies in a seat's folder, in the file of this descriptor."""
        here = structs.replace(self, file=Birthplace.of(file))
        return vault.seal("enrolment", encode(here))

    def check(self, folder: Path) -> None:
        """Compare with the folder that it was read from; raises as `Birthplace.check`."""
        self.folder.check(folder)
        self.file.check(folder / "enrolment")


class StoredVector(Secret, frozen=True):
    """A client's vector, as it was first computed."""

    vector: Integers


def create_file(path: Path, content: Content) -> None:
    """Write a file of a seat, durably; raises FileExistsError, or NotStored."""
    try:
        create_durably(path, content)
    except FileExistsError:
        raise
    except OSError as error:
        raise NotStored(f"the seat cannot be written: {error.strerror}") from None


def read_file(path: Path) -> bytes:
    """Read a file of a seat; raises BadSavedState."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadSavedState(
            f"the {path.name} of this seat cannot be read: {error.strerror}"
        ) from None
