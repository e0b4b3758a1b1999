"""What a run says about itself."""

from collections.abc import Sequence
from typing import Any

import msgspec

from secure_afl.analytic.coefficients import Fit
from secure_afl.analytic.heads.head import AUTO, Fitted, Head
from secure_afl.analytic.quantise import Floats, RowMode
from secure_afl.analytic.scales import FoundRange
from secure_afl.evaluation.figures import Figures
from secure_afl.evaluation.numeric import NumericFigures
from secure_afl.evaluation.pooled import PooledFigures
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
        centralised_float: the same head, or a ridge classifier where the method has none, on all
            rows in one place in float64, on the test set.
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


class Site(msgspec.Struct, frozen=True):
    """A client's accuracy on its own kept-out rows, of which no model knows.

    Attributes:
        rows: scored.
        way: how the client's own model was made.
        personal, federated, alone: shares of right predictions of the client's own model, of the
            global one, and of a ridge on the client's rows alone.
    """

    name: str
    rows: int
    way: str | None
    personal: float | None
    federated: float | None
    alone: float | None


class SiteFigures(msgspec.Struct, frozen=True):
    """Figures of the global model on the rows that one client kept out, in a simulation.

    Attributes:
        name: of the client.
        figures: under the prior in use.
    """

    name: str
    figures: Figures


class SiteFit(msgspec.Struct, frozen=True):
    """What one client's rows give alone, beside the global model; null where they are too few.

    Attributes:
        name: of the client.
        rows: that were fitted.
        fit: of its rows alone.
        test: figures of that fit on the test set.
        kept_out, federated: figures on the client's kept-out rows, of that fit and of the global
            model.
    """

    name: str
    rows: int
    fit: Fit | None
    test: NumericFigures | None
    kept_out: NumericFigures | None
    federated: NumericFigures | None


class NumericReport(msgspec.Struct, frozen=True):
    """How well a number is predicted; null where nothing was there to score on.

    Attributes:
        federated: the global model, on the test set.
        centralised_float: least squares on all rows in one place in float64, on the test set.
        largest_difference: between the predictions of these two on test rows, in the target's unit.
        sites: what each client's rows give alone; never with noise.
    """

    federated: NumericFigures | None = None
    centralised_float: NumericFigures | None = None
    largest_difference: float | None = None
    sites: tuple[SiteFit, ...] = ()


class PersonalReport(msgspec.Struct, frozen=True):
    """What models of their own were to clients, beside the global one, on their kept-out rows.

    Attributes:
        sites: every client that kept rows out.
        hurt: names of clients whose own model predicts fewer of their rows than the global one.
    """

    sites: tuple[Site, ...]
    hurt: tuple[str, ...]

    @classmethod
    def of(cls, sites: Sequence[Site]) -> "PersonalReport":
        """Compare every client's own model with the global one."""
        hurt = [
            site.name
            for site in sites
            if site.personal is not None
            and site.federated is not None
            and site.personal < site.federated
        ]
        return cls(tuple(sites), tuple(hurt))


class HeadReport(msgspec.Struct, frozen=True):
    """The head that made a classifier of the sum.

    Attributes:
        name: of the head.
        setting, value: what was given, or chosen from the sum; empty and null for heads without.
        chosen: whether the sum, or the noise, chose the value.
        instead_of: the head that was to be, where the sum has too few rows for it; else empty.
        prior: class shares that scores count on, by class; null for heads without a prior.
        observed: class shares in the sum, likewise.
        temperature: of probabilities; null for heads without any.
        conditioning: reciprocal condition number of the system that was solved.
    """

    name: str
    setting: str
    value: float | None
    chosen: bool
    prior: dict[str, float] | None
    observed: dict[str, float] | None
    temperature: float | None
    conditioning: float
    instead_of: str = ""

    @classmethod
    def of(cls, heads: Sequence[Head], fitted: Fitted, classes: Sequence[str]) -> "HeadReport":
        """Report on a fitted head; it is one of those that might have been, best first."""

        def shares(array: Floats | None) -> dict[str, float] | None:
            return None if array is None else dict(zip(classes, array.tolist(), strict=True))

        return cls(
            name=fitted.head,
            setting=fitted.setting,
            value=fitted.value if fitted.setting else None,
            chosen=any(getattr(head, fitted.setting, None) == AUTO for head in heads),
            instead_of="" if heads[0].name == fitted.head else heads[0].name,
            prior=shares(fitted.prior),
            observed=shares(fitted.observed),
            temperature=fitted.temperature,
            conditioning=fitted.conditioning,
        )


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
            alike. Between sites in every kind of sum, in order.
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
        mechanism, by_round = sums[-1].mechanism, [noisy.scaled_stds for noisy in sums]
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


class Report(msgspec.Struct, frozen=True):
    """One run.

    Attributes:
        method, protocol: names.
        protects: what the protocol hides, from whom, and under which condition.
        session: id of the session of the model's last sum, hex.
        rounds: blind sums.
        examples: rows in the sum; null where privacy hides their number.
        feature_dim, classes: d and C.
        feature_bits: rows are integers of norm ≤ 2^feature_bits.
        ring_bits: width of the ring that carries the sum.
        max_rows: the declared bound on the rows of all clients together.
        ridge: λ of a ridge head; null for others.
        head: what made the classifier of the sum; null for methods that sum no statistics.
        personal: the clients' own models beside the global one; null where they have none, or no
            kept-out rows may be scored.
        exact: the decoded sum equals the clients' integer vectors added in the clear, and those of
            the pooled rows, plus the noise that was added; bit for bit, computed by this run.
        results: figures of the global model on the test set with intervals, under the prior in use
            first and then under others.
        sites: figures of the global model at each client that kept rows out, which a simulation
            knows; never with noise.
        pooled: figures of the global model on the rows that all clients kept out, from a sum of
            their counts; null where there was none.
        outside: entries of the sum that break their bounds, by block; where there are any, a
            client lied, and the model is made of a wrong sum all the same.
        privacy: the differential-privacy guarantee, or null.
        warnings: what a reader should know before trusting the protection.
        row_mode: how rows are brought to norm ≤ 1, see `Quantiser`.
        fits: coefficients and their errors, for methods that estimate them.
        numeric: how well a number is predicted; null for methods that predict classes.
        ranges: of columns that the dictionary has none for, as sites found them.
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
    head: HeadReport | None = None
    personal: PersonalReport | None = None
    results: tuple[Figures, ...] = ()
    sites: tuple[SiteFigures, ...] = ()
    pooled: PooledFigures | None = None
    outside: dict[str, int] = {}
    privacy: PrivacyReport | None = None
    warnings: tuple[str, ...] = ()
    settings: dict[str, Any] = {}
    row_mode: RowMode = "normalise"
    fits: tuple[Fit, ...] = ()
    numeric: NumericReport | None = None
    ranges: tuple[FoundRange, ...] = ()
