"""Shadow models of a head, without a candidate row and with it, in closed form.

A shadow is trained on rows of an attacker's own. What the model under attack says of a candidate is
compared with what shadows say that do not know it, and with what they would say if they did.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from protocols.layout import Integers
from secure_afl.analytic.heads.head import HEADS, Head
from secure_afl.analytic.heads.lda import LDA
from secure_afl.analytic.heads.ridge import Ridge
from secure_afl.analytic.moments import Moments
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.statistics import one_hot
from secure_afl.federation.report import HeadReport
from secure_afl.methods.model import LinearModel


class Candidates(NamedTuple):
    """Rows (m, d) of norm ≤ 1, and their labels (m,)."""

    rows: Floats
    labels: Integers


class Shadow(NamedTuple):
    """What a shadow says of every candidate, (m, C): without it among its rows, and with it."""

    strangers: Floats
    members: Floats


Maker = Callable[[Floats, Integers, Candidates, int, float], Shadow]


def ridge_shadow(
    rows: Floats, labels: Integers, candidates: Candidates, classes: int, ridge: float
) -> Shadow:
    """Train ridge on these rows; a residual e becomes e/(1 + h) once its row is known.

    h is the row's leverage (Sherman and Morrison).
    """
    gram = rows.T @ rows + ridge * np.eye(rows.shape[1])
    factor = cho_factor(gram)
    weights = cho_solve(factor, rows.T @ one_hot(labels, classes))
    height = np.einsum("ij,ji->i", candidates.rows, cho_solve(factor, candidates.rows.T))
    strangers = one_hot(candidates.labels, classes) - candidates.rows @ weights
    return Shadow(strangers, strangers / (1 + height)[:, None])


def lda_shadow(
    rows: Floats, labels: Integers, candidates: Candidates, classes: int, shrinkage: float
) -> Shadow:
    """Train LDA on these rows; a further row f of class c adds a matrix of rank one.

    N·S gains a·uuᵀ with u = f − μ̂_c and a = n_c/(n_c + 1), and μ̂_c gains u/(n_c + 1). The change
    of τ, of the order 1/N, is left out.
    """
    moments = Moments.of_rows(rows, labels, classes)
    names = tuple(str(index) for index in range(classes))
    fitted = LDA(shrinkage=shrinkage).fit(moments, names).fitted
    assert fitted.offset is not None, "LDA has an offset"
    assert fitted.observed is not None, "LDA has shares"
    with np.errstate(divide="ignore"):
        before = candidates.rows @ fitted.weights - fitted.offset + np.log(fitted.observed)
    n, counts, means = moments.rows, moments.known_counts, moments.means
    within = moments.within
    system = n * (within + shrinkage * np.trace(within) / moments.dim * np.eye(moments.dim))
    factor = cho_factor(system)
    solved = cho_solve(factor, means)
    by_mean, between = candidates.rows @ solved, means.T @ solved
    own = candidates.labels
    at = np.arange(len(own))
    height = np.einsum("ij,ji->i", candidates.rows, cho_solve(factor, candidates.rows.T))
    u_f = height - by_mean[at, own]
    u_u = height - 2 * by_mean[at, own] + between[own, own]
    u_means = by_mean - between[own]
    a = counts[own] / (counts[own] + 1)
    q = a / (1 + a * u_u)
    step = 1 / (counts[own] + 1)
    scores = by_mean - (q * u_f)[:, None] * u_means
    lengths = between.diagonal() - q[:, None] * u_means**2
    scores[at, own] += step * u_f * (1 - q * u_u)
    toward = u_means[at, own] * (1 - q * u_u)
    lengths[at, own] += 2 * step * toward + step**2 * u_u * (1 - q * u_u)
    linear = (n + 1) * (scores - 0.5 * lengths)
    plain = n * (by_mean - 0.5 * between.diagonal())
    return Shadow(_centred(before), _centred(before + linear - plain))


def claimed(model: LinearModel, head: HeadReport, candidates: Candidates) -> Floats:
    """Return what the model under attack says of the candidates, as its head's shadows do."""
    scores = model.scores(candidates.rows)
    if HEADS[head.name].has_prior:
        return _centred(scores)
    return one_hot(candidates.labels, scores.shape[1]) - scores


# Heads of which there are shadows, with the setting that each takes from the report.
SHADOWS: Mapping[type[Head], Maker] = {Ridge: ridge_shadow, LDA: lda_shadow}


def _centred(scores: Floats) -> Floats:
    """Return scores less their mean over the classes that have rows, 0 for others."""
    known = np.isfinite(scores)
    mean = np.where(known, scores, 0).sum(axis=1, keepdims=True) / known.sum(axis=1, keepdims=True)
    return np.where(known, scores - mean, 0.0)
