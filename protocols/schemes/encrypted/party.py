"""What the parties of `ckks` and `bfv` have in common: their parameters and their ring."""

import secrets
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from protocols.codec import decode
from protocols.errors import Malformed, Replayed
from protocols.identity import Enrolment
from protocols.party import Entropy, Party, Vector
from protocols.schemes.encrypted.chunks import ChunkMap
from protocols.schemes.encrypted.parameters import Parameters, find_parameters
from protocols.schemes.encrypted.seal import Ring
from protocols.session import Session
from protocols.spool import Spool


class EncryptedParty(Party):
    """Common ground of the three kinds of parties: the ring, and the protocol's terms.

    Attributes:
        chunk_map: may be set to a process pool's `map`, to encrypt many chunks at once.
    """

    def __init__(
        self,
        session: Session,
        enrolment: Enrolment,
        vector: Vector | None = None,
        *,
        spool: Spool | None = None,
        entropy: Entropy = secrets.token_bytes,
    ) -> None:
        super().__init__(session, enrolment, vector, spool=spool, entropy=entropy)
        _, self._verify = _terms(session)
        self.chunk_map: ChunkMap = map
        self.parameters = parameters_of(session)
        self._chunks = self.parameters.chunks(session.layout.length)

    @cached_property
    def _ring(self) -> Ring:
        return Ring(self.parameters)

    def _load(self, sender: str, step: str, chunks: tuple[bytes, ...]) -> Iterator[Any]:
        if len(chunks) != self._chunks:
            raise Malformed(
                f"'{sender}' sent {len(chunks)} ciphertexts, wanted {self._chunks}",
                party=self.name,
                step=step,
            )
        for index, chunk in enumerate(chunks):
            try:
                yield self._ring.load(chunk)
            except Malformed as error:
                raise Malformed(
                    f"'{sender}', ciphertext {index}: {error.what}", party=self.name, step=step
                ) from None

    def _replayed(self, sender: str, step: str) -> Replayed:
        return Replayed(f"'{sender}' has been heard on this before", party=self.name, step=step)


def parameters_of(session: Session) -> Parameters:
    """Find the encryption's parameters of a session, equal at every party.

    Raises:
        NoParameters: too many clients for what any candidate holds.
    """
    scheme, _ = _terms(session)
    return find_parameters(session.layout, len(session.clients), scheme)


def chunks_bytes(session: Session) -> int:
    """Bound the bytes of a content that holds a vector's ciphertexts and little else."""
    parameters = parameters_of(session)
    chunks = parameters.chunks(session.layout.length)
    return chunks * (parameters.ciphertext_bytes + 8) + 64


def key_bytes(session: Session) -> int:
    """Bound the bytes of a content that holds a public key."""
    return parameters_of(session).ciphertext_bytes + 64


def _terms(session: Session) -> tuple[str, bool]:
    """Read the parameters of `Ckks` and `Bfv`: their tag, and whether sums are verified."""
    return decode(session.parameters, tuple[str, bool])
