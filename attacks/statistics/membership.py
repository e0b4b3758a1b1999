"""Whether a given example was in training: from sums of statistics, and from the model alone.

All three score candidates, high for members; the scores are judged against who really was in.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from attacks.attack import ATTACKS, Attack, Known, Measure, Truth
from attacks.measures import metrics
from attacks.statistics.shadows import SHADOWS, Candidates, claimed
from attacks.views.knowledge import Target, targets
from attacks.views.run import RunView
from secure_afl.analytic.heads.head import HEADS
from secure_afl.analytic.moments import TooFewRows
from secure_afl.analytic.quantise import MAX_BITS, Floats, Quantiser
from secure_afl.errors import ConfigError
from secure_afl.methods.model import LinearModel

# Of the mean eigenvalue. Small for the sum under attack, so that rare directions count; large for
# the public rows', which only say what is rare.
_RIDGE, _PUBLIC_RIDGE = 1e-3, 1.0
# Of the largest eigenvalue: below it an exact Gram matrix has nothing but rounding.
_RANK_TOLERANCE = 1e-10
_SHADOWS = 16
# Of log rarities, over which a line can be drawn.
_SPREAD = 1e-9
_FEWEST_PUBLIC = 3


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores (m,) of the candidates, and the clients among whose rows they were sought.

    `clients` is None where that is all of them.
    """

    scores: Floats
    clients: frozenset[str] | None = None

    def __repr__(self) -> str:
        return f"<Scores of {len(self.scores)} candidates>"


class MembershipAttack(Attack[Scores]):
    """Base of the attacks on membership."""

    assumes: ClassVar[tuple[str, ...]] = ("candidate rows, of which some are in the sum",)

    def judge(self, claim: Scores | None, truth: Truth, confidence: float = 0.95) -> list[Measure]:
        """Return AUC, and TPR at 1 % and at 0.1 % FPR.

        Members that are rows of clients outside the sums, such as the coalition's own, are not
        scored.

        Raises:
            ConfigError: the truth does not say who is a member.
        """
        kept = scored_members(claim, truth)
        if claim is None or kept is None:
            return metrics.membership_at_chance(confidence)
        scores, members = kept
        return metrics.membership(scores, members, confidence)

    def roc(self, claim: Scores | None, truth: Truth) -> tuple[Floats, Floats] | None:
        """Return FPR and TPR of the scored candidates, (0, 0) to (1, 1).

        Return None without a claim, and where the scored candidates are all members or all not.

        Raises:
            ConfigError: the truth does not say who is a member.
        """
        kept = scored_members(claim, truth)
        return None if kept is None else metrics.roc(*kept)


def scored_members(claim: Scores | None, truth: Truth) -> tuple[Floats, metrics.Bools] | None:
    """Return scores and membership of the candidates that can be judged.

    None if none can.
    """
    if truth.members is None:
        raise ConfigError("membership is judged against Truth.members, which is missing")
    if claim is None:
        return None
    members = truth.members
    kept = np.ones(len(members), dtype=np.bool_)
    if claim.clients is not None and truth.origins:
        # Members and others of the same clients: one is not to be told by its camera.
        kept = np.isin(truth.origins, sorted(claim.clients))
    elif claim.clients is not None and truth.owners:
        covered = np.array([owner in claim.clients for owner in truth.owners])
        kept = ~members | covered
    if not members[kept].any() or members[kept].all():
        return None
    return claim.scores[kept], members[kept]


@ATTACKS.register
class SubspaceMembership(MembershipAttack):
    """A member lies in the row space of G: the score is −‖f − P_G f‖²/‖f‖².

    Perfect from n rows with n ≤ d; from more the rows span everything, and all scores are 0. Of
    several sums the nearest counts.
    """

    name = "membership-subspace"
    wants = "a sum of statistics"

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Scores | None:
        """Score each candidate (m,) in −1..0 by what of it is outside the row space.

        Return None where the coalition has no statistics.

        Raises:
            ConfigError: `Known.candidates` is missing.
        """
        found = targets(view)
        if not found:
            return None
        scores = [outside(target, _candidates(known)) for target in found]
        return Scores(-np.min(scores, axis=0), _clients(found))


def outside(target: Target, candidates: Floats) -> Floats:
    """Share (m,) of each candidate's squared norm outside the row space of the Gram matrix."""
    rows = target.quantiser.integers(candidates)
    eigenvalues, vectors = np.linalg.eigh(target.statistics.gram.astype(np.float64))
    # In a noisy Gram matrix the noise spans what the rows do not.
    floor = max(_RANK_TOLERANCE * float(eigenvalues[-1]), -float(eigenvalues[0]))
    null = vectors[:, eigenvalues <= floor]
    residual = ((rows @ null) ** 2).sum(axis=1)
    share: Floats = residual / np.maximum((rows**2).sum(axis=1), 1)
    # What rounding leaves of nothing is nothing.
    return np.where(share < _RANK_TOLERANCE, 0.0, share)


@ATTACKS.register
class LeverageMembership(MembershipAttack):
    """A member has less leverage h(f) = fᵀ(G + λI)⁻¹f than it would have as a stranger.

    In the sum it has h/(1 + h) of what it has outside. How rare a row is has more influence on h
    than that, so the score is calibrated: log h is regressed on the log of the leverage with
    respect to public rows (themselves left out of their own), over the public rows, which are no
    members; the score is what a candidate falls short of the regression. Without public rows it is
    −log h. Of several sums the best score, in standard deviations of the public rows', counts.
    """

    name = "membership-leverage"
    wants = "a sum of statistics"
    assumes = (*MembershipAttack.assumes, "public rows of the same kind, to calibrate by")

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Scores | None:
        """Score each candidate (m,) by how far its log leverage falls short of a stranger's.

        With fewer than three public rows the score is −log h. Return None where the coalition has
        no statistics.

        Raises:
            ConfigError: `Known.candidates` is missing.
        """
        found = targets(view)
        if not found:
            return None
        rows = found[0].quantiser.integers(_candidates(known))
        public = None if known.public is None else found[0].quantiser.integers(known.public)
        scores = [_calibrated(target, rows, public) for target in found]
        return Scores(np.max(scores, axis=0), _clients(found))


def leverage(gram: Floats, rows: Floats, relative_ridge: float) -> Floats:
    """Return fᵀ(G + λI)⁻¹f of each row (m,).

    λ is relative to the mean eigenvalue of G.

    A noisy G is brought to positive semidefinite, and λ raised to its most negative eigenvalue,
    which is as large as the noise.
    """
    eigenvalues, vectors = np.linalg.eigh(gram)
    clipped = np.maximum(eigenvalues, 0.0)
    ridge = max(relative_ridge * float(clipped.mean()), -float(eigenvalues[0]), 1e-300)
    found: Floats = ((rows @ vectors) ** 2 / (clipped + ridge)).sum(axis=1)
    return np.maximum(found, 1e-300)


def _calibrated(target: Target, rows: Floats, public: Floats | None) -> Floats:
    gram = target.statistics.gram.astype(np.float64)
    if public is None or len(public) < _FEWEST_PUBLIC:
        return -np.log(leverage(gram, rows, _RIDGE))
    both = np.concatenate([rows, public])
    measured = np.log(leverage(gram, both, _RIDGE))
    rarity = leverage(public.T @ public, both, _PUBLIC_RIDGE)
    # Sherman and Morrison: the leverage of a public row with respect to all others.
    rarity[len(rows) :] /= np.maximum(1 - rarity[len(rows) :], 1e-6)
    rarity = np.log(rarity)
    if np.ptp(rarity[len(rows) :]) < _SPREAD:
        # Public rows that are equally rare, as copies of one are, say nothing of rarity.
        return -measured[: len(rows)]
    slope, offset = np.polyfit(rarity[len(rows) :], measured[len(rows) :], 1)
    short = offset + slope * rarity - measured
    score: Floats = short[: len(rows)] / max(float(short[len(rows) :].std()), 1e-12)
    return score


@ATTACKS.register
class ModelMembership(MembershipAttack):
    """From the model alone, by the likelihood ratio of what it says of a candidate.

    LiRA (Carlini et al. 2022) with shadow models in closed form: the model's own head on random
    halves of public rows says what it would of a stranger, and by a change of rank one what it
    would had the candidate been in. Of ridge that is the residual y − Wᵀf, of LDA the scores. Two
    Gaussians for every candidate, each with its own mean and one variance per class, give the
    ratio.
    """

    name = "membership-model"
    wants = "the model"
    assumes = (
        *MembershipAttack.assumes,
        "their labels",
        "public rows of the same kind, about as many as were trained on; with their labels as "
        "extra['public_labels'], or those that the model gives them",
        "the head and its ridge parameter or shrinkage",
    )

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Scores | None:
        """Score each candidate (m,) by its log likelihood ratio, over 16 shadow models.

        Return None without public rows, candidates' labels, a head that has shadows or a
        linear model, and where the public rows are too few.

        Raises:
            ConfigError: `Known.candidates` is missing, or there are no rows among the public ones.
        """
        head, labels, model = view.head, known.candidate_labels, view.model
        if known.public is None or labels is None or head is None:
            return None
        shadow = SHADOWS.get(HEADS[head.name])
        if shadow is None or not head.value or not isinstance(model, LinearModel):
            return None
        if len(known.public) == 0:
            raise ConfigError(
                "no client has rows to spare from the sum, so that no shadow model can be trained"
            )
        # Weights are in units of rows of norm ≤ 1; an outsider takes them to be normalised.
        quantiser = view.publics[0].task.quantiser if view.publics else Quantiser(MAX_BITS)
        public = quantiser.scaled(known.public)
        candidates = Candidates(quantiser.scaled(_candidates(known)), labels)
        public_labels = known.extra.get("public_labels")
        if public_labels is None:
            public_labels = model.predict(public)
        strangers, members = [], []
        for _ in range(_SHADOWS):
            half = rng.choice(len(public), max(1, len(public) // 2), replace=False)
            try:
                said = shadow(
                    public[half], public_labels[half], candidates, len(model.classes), head.value
                )
            except TooFewRows:
                return None
            strangers.append(said.strangers)
            members.append(said.members)
        found = claimed(model, head, candidates)
        score = _log_likelihood(found, members) - _log_likelihood(found, strangers)
        return Scores(score)


def _log_likelihood(residuals: Floats, shadows: list[Floats]) -> Floats:
    """Return log-likelihoods of residuals (m, C) under Gaussians of shadow ones (S, m, C)."""
    stacked = np.array(shadows)
    # Of 16 shadows the variance of one candidate is mostly chance; all candidates' together is not.
    variance = np.maximum(stacked.var(axis=0, ddof=1).mean(axis=0), 1e-300)
    squared = (residuals - stacked.mean(axis=0)) ** 2
    likelihood: Floats = -0.5 * (squared / variance + np.log(variance)).sum(axis=1)
    return likelihood


def _candidates(known: Known) -> Floats:
    if known.candidates is None:
        raise ConfigError("an attack on membership needs Known.candidates, which are missing")
    return known.candidates


def _clients(found: list[Target]) -> frozenset[str]:
    return frozenset().union(*(target.clients for target in found))
