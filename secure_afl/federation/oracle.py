"""The oracle of a simulation: every sum again, added up in the clear."""

from collections.abc import Mapping, Sequence

import numpy as np

from protocols.layout import Integers
from protocols.party import Sum
from secure_afl.analytic.rows import ClientData, pooled
from secure_afl.federation.client import FederationClient
from secure_afl.methods.method import AnyMethod, PublicState


class RecordingClient(FederationClient):
    """A client of whose latest vector and noise the simulation keeps copies, for the oracle.

    Only the party has the entropy that went into them; and to train a second time would double the
    time of a run.
    """

    data: ClientData
    vector: Integers
    added_noise: Integers

    def contribute(self, public: PublicState, entropy: bytes) -> Integers:
        """Return the vector as any client does, and keep it without its noise."""
        self.added_noise = np.zeros(1, dtype=np.int64)
        sent = super().contribute(public, entropy)
        self.vector = sent - self.added_noise
        return sent

    def start_digest(self, entropy: bytes) -> bytes:
        """Return nothing: a simulation starts a party once, and pieces of one lineage together."""
        return b""

    def released(self, session: bytes) -> None:
        """Do nothing: a simulation notes once for all of its clients that a sum is out."""

    def noise(self, public: PublicState, entropy: bytes) -> Integers:
        """Draw the share of noise as any client does, and keep it."""
        self.added_noise = super().noise(public, entropy)
        return self.added_noise


def is_exact(
    method: AnyMethod,
    public: PublicState,
    released: Sum,
    members: Mapping[str, RecordingClient],
) -> bool:
    """Compare a released sum, bit for bit, with the sum in the clear.

    Where the sum is one of rows also with the vector of the pooled rows, unless rows have weights
    and a patient is at two clients: pooled, it would be one. A sum out of its bounds makes no claim
    to be exact.
    """
    included = [members[name] for name in released.included]
    # One after the other: many vectors side by side take as much memory again.
    clear = np.zeros(len(released.total), dtype=np.int64)
    noise = np.zeros(len(released.total), dtype=np.int64)
    for member in included:
        clear += member.vector
        noise += member.added_noise
    exact = np.array_equal(released.total, clear + noise)
    if method.adds_up(public) and not (public.task.by_patient and _share_patients(included)):
        everybody = pooled([member.data for member in included])
        vector = method.contribute(public, everybody, {}, b"")
        exact = exact and np.array_equal(released.total, vector + noise)
    return exact and not released.outside


def _share_patients(members: Sequence[RecordingClient]) -> bool:
    """Say whether two of these clients have a patient of one name."""
    names = [set(member.data.patients or ()) - {""} for member in members]
    return len(set().union(*names)) < sum(map(len, names))
