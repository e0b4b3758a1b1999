"""The oracle of a simulation: every sum again, added up in the clear."""

import numpy as np

from protocols.layout import Integers
from secure_afl.federation.client import FederationClient
from secure_afl.methods import PublicState


class Watched(FederationClient):
    """A client of whose latest vector and noise the driver keeps copies, for the oracle.

    Only the party has the entropy that went into them; and to train a second time would double the
    time of a run.
    """

    vector: Integers
    added_noise: Integers

    def contribute(self, public: PublicState, entropy: bytes) -> Integers:
        self.added_noise = np.zeros(1, dtype=np.int64)
        sent = super().contribute(public, entropy)
        self.vector = sent - self.added_noise
        return sent

    def noise(self, public: PublicState, entropy: bytes) -> Integers:
        self.added_noise = super().noise(public, entropy)
        return self.added_noise
