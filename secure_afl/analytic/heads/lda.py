"""Linear discriminant analysis from the sum, its shrinkage and temperature found there too."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from protocols.layout import Integers
from secure_afl.analytic.heads.head import (
    AUTO,
    HEADS,
    Chosen,
    Fit,
    Fitted,
    Head,
    check_conditioning,
)
from secure_afl.analytic.moments import Moments, TooFewRows
from secure_afl.analytic.priors import OBSERVED, Prior, check_prior, prior_shares, settle_prior
from secure_afl.analytic.private_lda import SumNoise, private_lda
from secure_afl.analytic.quantise import Floats
from secure_afl.checks import settle_float
from secure_afl.errors import ConfigError

MAX_SHRINKAGE = 1e6

# ρ = 10^-3 … 10^2 in quarters of a decade.
_GRID = 10.0 ** np.arange(-3, 2.01, 0.25)
# Less of the variance than this outside the fitted directions, and the estimate is a guess.
_LEAST_SLACK = 0.02
# Estimates of the recall this near to the best, a twentieth of a point, are as good.
_AS_GOOD = 5e-4
_DRAWS = 2000
# Draws times classes times classes, at most; many classes get fewer draws.
_WORK = 2.5e8
_FEWEST_DRAWS = 100
_HOTTEST = 100.0


@HEADS.register
class LDA(Head, frozen=True):
    """Normal classes of one covariance: Σ_ρ = S + ρτI, w_c = Σ_ρ⁻¹μ̂_c.

    S is the scatter within classes over N, τ = tr(S)/d, and
    b_c = −½μ̂_cᵀw_c + κ/(2n_c) + log π_c. The small-class term makes up for the noise in a mean of
    few rows, which −½μ̂_cᵀw_c counts against its class: with T = tr(SΣ_ρ⁻¹), κ = T/(1 − T/(N − C)).

    Noisy sums have a form of their own, see `private_lda`: without probabilities, and with
    shrinkage by the noise alone.

    Attributes:
        prior: π: `observed` shares of the classes in the sum, `uniform`, or shares by class.
        shrinkage: ρ > 0. `auto` estimates recall from the sum: scores of class c are normal with
            mean μ̂_cᵀw_j + b_j − [j = c]κ/n_c and covariance WᵀSW/(1 − T/(N − C))², of which draws
            that never change are taken; the classes come in an order of their own, and count by
            the prior. Of the ρ within 0.05 points of the best it takes the geometric middle.
        standardise: features are divided by their standard deviations first, for ρτI is not
            invariant to their scales.
    """

    name = "lda"
    summary = "linear discriminant analysis with a shrunk covariance"
    rank = 0
    has_prior = True
    under_noise = True
    exact_only = ("shrinkage", "standardise")
    prior: Prior = OBSERVED
    shrinkage: float | Literal["auto"] = AUTO
    standardise: bool = False

    def __post_init__(self) -> None:
        from msgspec.structs import force_setattr

        force_setattr(self, "prior", settle_prior(self.prior))
        if self.shrinkage != AUTO:
            settle_float(self, "shrinkage", 1e-12, MAX_SHRINKAGE)

    def fit(self, moments: Moments, classes: tuple[str, ...]) -> Fit:
        """Solve for the weights, with probabilities; see `Head.fit`.

        Raises:
            ConfigError: no more rows than classes, classes without any spread, a ρ that leaves
                the covariance singular, or a prior of other classes.
        """
        check_prior(self.prior, classes)
        deviations = moments.deviations() if self.standardise else np.ones(moments.dim)
        used = moments.divided(deviations) if self.standardise else moments
        observed = used.known_counts / used.rows
        prior = np.where(used.seen, prior_shares(self.prior, classes, observed), 0.0)
        if not prior.any():
            raise ConfigError("the prior has no share for any class that has rows")
        prior = prior / math.fsum(prior)
        order = _order(used, prior)
        spread = _Spread(used.reordered(order), prior[order])
        curve: tuple[Chosen, ...] = ()
        if self.shrinkage == AUTO:
            curve = spread.curve()
            best = min(point.estimate for point in curve)
            good = [point.value for point in curve if point.estimate <= best + _AS_GOOD]
            value = float(np.sqrt(good[0] * good[-1]))
        else:
            value = float(self.shrinkage)
        solution = spread.solve(value)
        places = order[used.seen[order]]
        offset = np.full(moments.classes, np.inf)
        offset[places] = -solution.biases
        weights = np.zeros((moments.dim, moments.classes))
        weights[:, places] = (spread.vectors @ solution.weights) / deviations[:, None]
        fitted = Fitted(
            weights,
            offset,
            observed=observed,
            prior=prior,
            temperature=spread.temperature(solution),
            head=self.name,
            setting="shrinkage",
            value=value,
            conditioning=solution.conditioning,
        )
        return Fit(fitted, curve)

    def fit_noisy(
        self, moments: Moments, floor: float, noise: SumNoise, classes: tuple[str, ...]
    ) -> Fitted:
        """Solve for weights and offsets by `private_lda`; there are no probabilities.

        Raises:
            ConfigError: a prior of other classes, shrinkage or standardised features.
        """
        if self.shrinkage != AUTO or self.standardise:
            raise ConfigError(
                "shrinkage and standardise have no form for sums with noise; leave them out"
            )
        check_prior(self.prior, classes)
        found = private_lda(moments.known_gram, moments.cross, moments.known_counts, noise)
        observed = found.counts / found.counts.sum()
        return Fitted(
            found.weights,
            -found.biases,
            observed=observed,
            prior=prior_shares(self.prior, classes, observed),
            head=self.name,
            setting="floor",
            value=found.floor,
            conditioning=found.conditioning,
        )


def _order(moments: Moments, prior: Floats) -> Integers:
    """Return the places of the classes in an order of their own, (C,), whatever theirs is.

    Sums over classes then round alike, and each class meets the same draws: what is chosen does
    not turn on the order in which somebody lists the classes. Classes that tie are equal in all.
    """
    columns = np.ascontiguousarray(moments.cross.T)

    def own(place: int) -> tuple[float, float, bytes]:
        return moments.known_counts[place], prior[place], columns[place].tobytes()

    return np.array(sorted(range(moments.classes), key=own), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class _Solution:
    """LDA at one ρ, in the eigenbasis of S, for the classes that have rows.

    Attributes:
        weights: (d, K). biases: (K,), without the prior.
        centres: mean score of class c for class j, (K, K), rows being c; with the prior.
        root: A with AAᵀ the covariance of scores, (K, K).
        slack: 1 − T/(N − K).
        conditioning: of Σ_ρ.
    """

    weights: Floats
    biases: Floats
    centres: Floats
    root: Floats
    slack: float
    conditioning: float


class _Spread:
    """The eigenvalues and vectors of S, and what follows for every ρ."""

    def __init__(self, moments: Moments, prior: Floats) -> None:
        from scipy.linalg import eigh

        self.rows = moments.rows
        self.counts = moments.known_counts[moments.seen]
        with np.errstate(divide="ignore"):
            self.log_prior = np.log(prior[moments.seen])
        self.shares = prior[moments.seen]
        values, vectors = eigh(moments.within, driver="evd")
        self.values: Floats = np.maximum(values, 0.0)
        self.vectors: Floats = vectors
        self.means: Floats = vectors.T @ moments.means[:, moments.seen]
        self.unit = float(self.values.mean())
        total = float(np.trace(moments.known_gram)) / self.rows / moments.dim
        if not self.unit > 1e-12 * total:
            raise TooFewRows(
                "rows of a class do not differ from each other, and LDA goes by how they do; give "
                "more rows, or take --head ridge"
            )

    def solve(self, shrinkage: float) -> _Solution:
        """Solve for the weights at one ρ."""
        raised = self.values + shrinkage * self.unit
        conditioning = check_conditioning(
            float(raised.min() / raised.max()), len(raised), "pass a larger --shrinkage"
        )
        weights = self.means / raised[:, None]
        freedom = float((self.values / raised).sum())
        slack = 1.0 - freedom / (self.rows - len(self.counts))
        inflation = freedom / max(slack, _LEAST_SLACK)
        projections = self.means.T @ weights
        biases = -0.5 * projections.diagonal() + inflation / (2 * self.counts)
        with np.errstate(invalid="ignore"):
            centres = projections + biases + self.log_prior
        centres[np.diag_indices(len(biases))] -= inflation / self.counts
        covariance = weights.T @ (self.values[:, None] * weights) / max(slack, _LEAST_SLACK) ** 2
        return _Solution(weights, biases, centres, _root(covariance), slack, conditioning)

    def curve(self) -> tuple[Chosen, ...]:
        """Return the estimated share of wrong predictions at every ρ that leaves slack.

        Raises:
            TooFewRows: there is none.
        """
        curve = []
        for value in _GRID:
            solution = self.solve(float(value))
            if solution.slack >= _LEAST_SLACK:
                curve.append(Chosen(float(value), 1.0 - self._recall(solution)))
        if not curve:
            raise TooFewRows(
                f"{self.rows:.0f} rows of {len(self.counts)} classes are too few to find the "
                "shrinkage from; set --shrinkage, or take --head ridge with a --ridge"
            )
        return tuple(curve)

    def temperature(self, solution: _Solution) -> float:
        """Return the temperature of the least expected log loss over the draws, 1 to 100.

        Normal draws have no outliers, so that they never call scores too modest: where classes lie
        far apart all draws are right, and any sharpening seems to pay.
        """
        from scipy.optimize import minimize_scalar
        from scipy.special import logsumexp

        drawn = self.draws @ solution.root.T
        used = np.flatnonzero(self.shares > 0)

        def loss(log_temperature: float) -> float:
            cold = np.exp(-log_temperature)
            total = 0.0
            for c in used:
                scores = cold * (drawn + solution.centres[c])[:, used]
                own = cold * (drawn[:, c] + solution.centres[c, c])
                total += self.shares[c] * float((logsumexp(scores, axis=1) - own).mean())
            return total

        found = minimize_scalar(
            loss, bounds=(0.0, np.log(_HOTTEST)), method="bounded", options={"xatol": 1e-4}
        )
        return float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0

    @cached_property
    def draws(self) -> Floats:
        """Standard normal numbers, (draws, K), the same for every sum of so many classes."""
        classes = len(self.counts)
        number = int(min(_DRAWS, max(_FEWEST_DRAWS, _WORK / len(_GRID) / classes**2)))
        return np.random.default_rng(0).standard_normal((number, classes))

    def _recall(self, solution: _Solution) -> float:
        """Estimate the recalls of the classes, weighted by the prior."""
        drawn = self.draws @ solution.root.T
        recalls = [
            float(((drawn + centre).argmax(axis=1) == c).mean())
            for c, centre in enumerate(solution.centres)
        ]
        return float(self.shares @ np.array(recalls))


def _root(covariance: Floats) -> Floats:
    """Return A with AAᵀ the covariance, (K, K) positive semidefinite."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    root: Floats = vectors * np.sqrt(np.maximum(values, 0.0))
    return root
