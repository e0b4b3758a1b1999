"""What a run says about itself."""

from typing import Any

import msgspec


class Clients(msgspec.Struct, frozen=True):
    """How many clients were enrolled, are in the sum, and are not."""

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
    """Where the time went, summed over clients and rounds.

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


class Report(msgspec.Struct, frozen=True):
    """One run.

    Attributes:
        method, protocol: names.
        protects: what the protocol hides, from whom, and under which condition.
        session: id of the last round's session, hex.
        rounds: blind sums.
        examples: rows in the sum.
        feature_dim, classes: d and C.
        feature_bits: rows are integers of norm ≤ 2^feature_bits.
        ring_bits: width of the ring that carries the sum.
        max_rows: the declared bound on the rows of all clients together.
        ridge: λ, or β for FedHiP; null for methods without.
        exact: the decoded sum equals the clients' integer vectors added in the clear, and those of
            the pooled rows; bit for bit, computed by this run.
        privacy: the differential-privacy guarantee, or null.
        warnings: what a reader should know before trusting the protection.
    """

    method: str
    protocol: str
    protects: str
    session: str
    rounds: int
    clients: Clients
    examples: int
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
    privacy: None = None
    warnings: tuple[str, ...] = ()
    settings: dict[str, Any] = {}
