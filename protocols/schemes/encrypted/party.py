"""What the parties of `ckks` and `bfv` have in common: their parameters and their ring."""

import secrets
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from protocols.codec import decode
from protocols.errors import BelowThreshold, Malformed, Replayed
from protocols.identity import Enrolment
from protocols.party import Entropy, Party, Received, Vector
from protocols.schemes.encrypted.chunks import ChunkMap
from protocols.schemes.encrypted.messages import UPLOAD, VouchedUpload
from protocols.schemes.encrypted.parameters import find_parameters
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
        # The parameters of `Ckks` and `Bfv`: their tag, and whether sums are verified.
        scheme, self._verify = decode(session.parameters, tuple[str, bool])
        self.chunk_map: ChunkMap = map
        self.parameters = find_parameters(session.layout, len(session.clients), scheme)
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

    def _check_list(self, received: Received, uploads: tuple[VouchedUpload, ...]) -> None:
        names = [upload.client for upload in uploads]
        if names != sorted(set(names)) or not set(names) <= set(self.session.clients):
            raise Malformed("not a sorted list of clients", party=self.name, step=UPLOAD)

    def _check_cohort(self, count: int, step: str) -> None:
        if count < self.session.min_cohort:
            raise BelowThreshold(
                f"{count} clients contributed, wanted ≥ {self.session.min_cohort}",
                party=self.name,
                step=step,
                fix="run again with more clients, or a smaller minimum cohort",
            )
