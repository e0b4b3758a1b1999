"""What a run says about itself."""

from collections.abc import Sequence
from typing import Any

import msgspec

from secure_afl.privacy.mechanism import NoisySum


class Clients(msgspec.Struct, frozen=True):
    """Numbers of clients that were enrolled, are in the sum, and are not."""

    total: int
    included: int
    dropped: int


class Accuracy(msgspec.Struct, frozen=True):
    """Shares of right predictions, 0 to 1; null where nothing was there to score on.

    Attributes:
        federated: the global model, on the test set.
        centralised_float: ridge on all rows in one place in float64, same λ, on the test set.
        local_mean: each client's ridge on its own rows alone, on the test set, averaged.
        personal_mean: each client's personal model on its own held-out rows, averaged.
        holdout_federated_mean, holdout_local_mean: the global and the local models on the same
            held-out rows, to compare `personal_mean` with.
        agreement: share of test rows on which the federated and the centralised model agree.
    """

    federated: float | None = None
    centralised_float: float | None = None
    local_mean: float | None = None
    personal_mean: float | None = None
    holdout_federated_mean: float | None = None
    holdout_local_mean: float | None = None
    agreement: float | None = None


class Bytes(msgspec.Struct, frozen=True):
    """Bytes per client.

    Attributes:
        upload_per_client: sent by a client on average, over all rounds, everything included.
        plain_float64_per_client: (d² + d·C)·8, what AFL's own upload takes.
    """

    upload_per_client: float
    plain_float64_per_client: int


class Seconds(msgspec.Struct, frozen=True):
    """The times of the parts of a run, summed over clients and rounds.

    Attributes:
        features: backbone, cache included.
        statistics: the clients' vectors.
        protect: what else clients do: sealing, masking, encrypting.
        aggregate: all coordinators.
        solve: from the sum to the models.
    """

    features: float
    statistics: float
    protect: float
    aggregate: float
    solve: float


class PrivacyReport(msgspec.Struct, frozen=True):
    """The guarantee that a run gives for everything it released.

    Attributes:
        epsilon, delta, unit, neighbours: what is promised, see `Privacy`.
        accountant: how it was computed.
        noise_multiplier: σ/Δ of each sum.
        rounds: sums that the promise covers.
        noise_std: σ of each block's noise in units of its scale, 0 for public constants; in the
            last sum.
        noise_std_by_round: the same in every sum, in order, where they differ; empty where all are
            alike.
        placement: who adds the noise.
        dropouts, colluders: how many clients may vanish, and tell what they know, without harm.
        trusts: what the promise rests on.
    """

    epsilon: float
    delta: float
    unit: str
    neighbours: str
    accountant: str
    noise_multiplier: float
    rounds: int
    noise_std: dict[str, float]
    placement: str
    dropouts: int
    colluders: int
    trusts: str
    noise_std_by_round: tuple[dict[str, float], ...] = ()

    @classmethod
    def of(cls, sums: Sequence[NoisySum]) -> "PrivacyReport":
        """Report on the noise of a run's sums, in order, and on what it promises."""
        mechanism, by_round = sums[-1].mechanism, [_scaled_stds(noisy) for noisy in sums]
        alike = all(stds == by_round[0] for stds in by_round)
        privacy = mechanism.privacy
        if privacy.placement == "central":
            trusts = "whoever decodes a sum sees it exactly, and is trusted to add the noise"
        else:
            trusts = (
                f"at least {mechanism.shares} of the clients in a sum add their shares of the "
                f"noise and keep them secret; no other party is trusted with an exact sum"
            )
        return cls(
            epsilon=privacy.epsilon,
            delta=privacy.delta,
            unit=privacy.unit,
            neighbours=privacy.neighbours,
            accountant="analytic Gaussian (Balle and Wang 2018)",
            noise_multiplier=mechanism.noise_multiplier,
            rounds=mechanism.rounds,
            noise_std=by_round[-1],
            placement=privacy.placement,
            dropouts=mechanism.dropouts,
            colluders=mechanism.colluders,
            trusts=trusts,
            noise_std_by_round=() if alike else tuple(by_round),
        )


def _scaled_stds(noisy: NoisySum) -> dict[str, float]:
    """Return σ of each block's noise in units of its scale."""
    stds = noisy.stds
    return {block.name: stds[block.name] * block.scale for block in noisy.layout.blocks}


class Report(msgspec.Struct, frozen=True):
    """One run.

    Attributes:
        method, protocol: names.
        protects: what the protocol hides, from whom, and under which condition.
        session: id of the last round's session, hex.
        rounds: blind sums.
        examples: rows in the sum; null where privacy hides their number.
        feature_dim, classes: d and C.
        feature_bits: rows are integers of norm ≤ 2^feature_bits.
        ring_bits: width of the ring that carries the sum.
        max_rows: the declared bound on the rows of all clients together.
        ridge: λ, or β for FedHiP; null for methods without.
        exact: the decoded sum equals the clients' integer vectors added in the clear, and those of
            the pooled rows, plus the noise that was added; bit for bit, computed by this run.
        outside: entries of the sum that break their bounds, by block; where there are any, a
            client lied, and the model is made of a wrong sum all the same.
        privacy: the differential-privacy guarantee, or null.
        warnings: what a reader should know before trusting the protection.
    """

    method: str
    protocol: str
    protects: str
    session: str
    rounds: int
    clients: Clients
    examples: int | None
    feature_dim: int
    classes: int
    feature_bits: int
    ring_bits: int
    max_rows: int
    min_cohort: int
    ridge: float | None
    exact: bool
    accuracy: Accuracy
    bytes: Bytes
    seconds: Seconds
    outside: dict[str, int] = {}
    privacy: PrivacyReport | None = None
    warnings: tuple[str, ...] = ()
    settings: dict[str, Any] = {}
