"""The attacks on encrypted sums, as attacks of the suite: each is a ploy against one client."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from attacks.attack import ATTACKS, Attack, Known, Measure, Truth
from attacks.encryption.ploys import (
    Ploy,
    chosen_ciphertext,
    key_recovery,
    malicious_addend,
    relabelled_upload,
    rushing_client,
)
from attacks.measures.metrics import share
from attacks.views.lies import Lie
from attacks.views.run import RunView
from protocols.layout import Integers
from protocols.roster import CLIENT
from protocols.schemes.encrypted.messages import SERVER
from protocols.schemes.encrypted.parameters import CKKS
from protocols.session import Session


@dataclass(frozen=True, eq=False, repr=False)
class Opened:
    """The result that a ploy got from the victim's upload.

    Attributes:
        victim: the client's name.
        vector: int64, as the coalition has it; None where the session ended without a sum.
    """

    victim: str
    vector: Integers | None


class EncryptedSumAttack(Attack[Opened]):
    """Base of the attacks whose coalition has the server of an encrypted sum, and may lie.

    The victim is the first client. What it sent is opened or not: its vector, with its own share of
    the noise where there is any.

    Attributes:
        with_client: the coalition needs a client too.
    """

    wants = "a session under ckks in which the server may lie"
    assumes = ("that the sum is published to the server",)
    lies = True
    with_client: ClassVar[bool] = False

    @abstractmethod
    def made(self, session: Session, victim: str, ally: str) -> Ploy:
        """Make the ploy against a victim.

        The client that works with the server takes part, if there is any.
        """

    def ploy(self, session: Session, coalition: Sequence[str]) -> Sequence[Lie] | None:
        """Return the ploy's lies; None for another protocol or coalition."""
        found = self._ploy(session, coalition)
        return None if found is None else found.lies

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Opened | None:
        """Read the victim's vector out of the session in which the coalition lied."""
        if not view.rounds:
            return None
        seen = view.rounds[0]
        found = self._ploy(seen.session, view.coalition)
        if found is None:
            return None
        victim = seen.session.clients[0]
        return Opened(victim, found.read(seen))

    def judge(self, claim: Opened | None, truth: Truth, confidence: float = 0.95) -> list[Measure]:
        """Say whether the vector is the victim's, to the last bit."""
        metric = "exact vector of a client"
        if claim is None:
            return [share(0, 0, 0.0, confidence=confidence, metric=metric)]
        sent = truth.vectors[claim.victim]
        right = claim.vector is not None and np.array_equal(claim.vector, sent)
        return [share(int(right), 1, 0.0, confidence=confidence, metric=metric)]

    def _ploy(self, session: Session, coalition: Sequence[str]) -> Ploy | None:
        allies = [name for name in coalition if session.line(name).role == CLIENT]
        fits = SERVER in coalition and bool(allies) == self.with_client
        if session.protocol != CKKS or not fits or session.clients[0] in allies:
            return None
        return self.made(session, session.clients[0], allies[0] if allies else "")


@ATTACKS.register
class RelabelledUpload(EncryptedSumAttack):
    """The server passes one client's ciphertexts off as the sum of all.

    The key holder opens what it is given unless it verifies the sum.
    """

    name = "relabelled-upload"

    def made(self, session: Session, victim: str, ally: str) -> Ploy:
        """Make the server hand over the victim's ciphertexts."""
        return relabelled_upload(session, victim)


@ATTACKS.register
class ChosenCiphertext(EncryptedSumAttack):
    """The server asks for the decryption of (0, w), which is w·s and tells the secret key s.

    With the key it opens the victim's upload.
    """

    name = "chosen-ciphertext"

    def made(self, session: Session, victim: str, ally: str) -> Ploy:
        """Make the server hand over the ciphertext (0, w)."""
        return chosen_ciphertext(session, victim)


@ATTACKS.register
class KeyRecovery(EncryptedSumAttack):
    """The server, which follows the protocol, solves c0 + c1·s = m for the secret key s.

    m is the sum as it was published (Li and Micciancio 2021): rounded integers leave too little.
    """

    name = "key-recovery"

    def made(self, session: Session, victim: str, ally: str) -> Ploy:
        """Make nobody lie."""
        return key_recovery(session, victim)


@ATTACKS.register
class MaliciousAddend(EncryptedSumAttack):
    """A client adds (0, w) to its upload, and the released sum carries w·s.

    The server, which works with it, opens the victim's upload with the secret key s.
    """

    name = "malicious-addend"
    with_client = True

    def made(self, session: Session, victim: str, ally: str) -> Ploy:
        """Make the client lie about its ciphertexts."""
        return malicious_addend(session, ally, victim)


@ATTACKS.register
class RushingClient(EncryptedSumAttack):
    """A client that speaks last cancels all uploads but the victim's.

    The server shows it what the others have sent.
    """

    name = "rushing-client"
    with_client = True

    def made(self, session: Session, victim: str, ally: str) -> Ploy:
        """Make the client upload the encryption of zero, less the others' ciphertexts."""
        return rushing_client(session, ally, victim)
