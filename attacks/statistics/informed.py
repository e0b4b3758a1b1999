"""An adversary that knows everything but one row, and sees the model."""

from typing import NamedTuple

import numpy as np

from attacks.attack import ATTACKS, Attack, Known, Measure, Truth
from attacks.measures.metrics import share
from attacks.statistics.rows import true_rows
from attacks.views.run import RunView
from secure_afl.analytic.quantise import MAX_BITS, Floats, Quantiser
from secure_afl.analytic.rows import ClientData
from secure_afl.analytic.statistics import one_hot
from secure_afl.errors import ConfigError
from secure_afl.methods.model import LinearModel


class Missing(NamedTuple):
    """The row claimed to be missing (d,), in integer units, its label, and the quantiser."""

    row: Floats
    label: int
    quantiser: Quantiser


@ATTACKS.register
class InformedRidge(Attack[Missing]):
    """All rows but one and the ridge model give the missing row (Balle et al., IEEE S&P 2022).

    With the known rows' G₋ and Q₋ the normal equations (G₋ + ffᵀ + λI)W = Q₋ + fyᵀ leave
    (G₋ + λI)W − Q₋ = f(y − Wᵀf)ᵀ, a matrix of rank one: its column space is f up to a factor a,
    and with its image under f the label and a follow from a quadratic equation for each class.
    """

    name = "informed-ridge"
    wants = "the model"
    assumes = ("all rows but one, with labels", "the ridge parameter")

    def claim(self, view: RunView, known: Known, rng: np.random.Generator) -> Missing | None:
        """Solve the normal equations for the missing row, its label and its quantiser.

        An outsider tries every number of bits and keeps the one that leaves a matrix nearest to
        rank one. Return None where the view has no ridge parameter or no linear model.

        Raises:
            ConfigError: `Known.rows` is missing.
        """
        ridge = view.ridge
        if known.rows is None:
            raise ConfigError("the informed adversary needs Known.rows, which are missing")
        if ridge is None or not isinstance(view.model, LinearModel):
            return None
        if view.publics:
            quantisers = [view.publics[0].task.quantiser]
        else:
            # An outsider tries all; with the right one the equations leave a matrix of rank one.
            quantisers = [Quantiser(bits) for bits in range(1, MAX_BITS + 1)]
        attempts = [
            _solve(known.rows, view.model.weights, ridge, quantiser) for quantiser in quantisers
        ]
        return min(attempts, key=lambda attempt: attempt[0])[1]

    def judge(self, claim: Missing | None, truth: Truth, confidence: float = 0.95) -> list[Measure]:
        """Judge whether the claim is some client's row to the last bit, rightly labelled."""
        right = False
        if claim is not None:
            rows, labels = true_rows(truth, frozenset(truth.clients), claim.quantiser)
            right = bool(((rows == claim.row).all(axis=1) & (labels == claim.label)).any())
        trials = 0 if claim is None else 1
        metric = "exact missing row"
        return [share(int(right), trials, 0.0, confidence=confidence, metric=metric)]


def _solve(
    rows: ClientData, weights: Floats, ridge: float, quantiser: Quantiser
) -> tuple[float, Missing]:
    """Return what is left beside rank one, relative to it; and the row."""
    known = quantiser.integers(rows.features) / quantiser.scale
    cross = known.T @ one_hot(rows.labels, weights.shape[1])
    left = known.T @ (known @ weights) + ridge * weights - cross
    u, sizes, v = np.linalg.svd(left, full_matrices=False)
    direction, image = u[:, 0], sizes[0] * v[0]
    rest = float(sizes[1:].max(initial=0.0) / sizes[0]) if sizes[0] > 0 else np.inf
    factor, label = _length_and_label(direction @ weights, image)
    row = np.rint(factor * direction * quantiser.scale)
    return rest, Missing(row, label, quantiser)


def _length_and_label(w: Floats, image: Floats) -> tuple[float, int]:
    """Solve a(e_c − a·w) = image for a and c.

    It is a quadratic in place c, and the rest must agree.
    """
    best, least = (0.0, 0), np.inf
    for label in range(len(w)):
        unit = np.zeros(len(w))
        unit[label] = 1.0
        for factor in np.roots([-w[label], 1.0, -image[label]]):
            if abs(factor.imag) > 1e-9 * abs(factor):
                continue
            residual = float(np.linalg.norm(factor.real * (unit - factor.real * w) - image))
            if residual < least:
                best, least = (float(factor.real), label), residual
    return best
