"""Whether probabilities mean what they say."""

import msgspec
import numpy as np

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats

BINS = 10


class Bin(msgspec.Struct, frozen=True):
    """Rows whose greatest probability lies in a range.

    Attributes:
        low, high: the range; above low, up to high.
        examples: rows in it.
        confidence: their mean greatest probability.
        accuracy: share of them that are of the class that has it.
    """

    low: float
    high: float
    examples: int
    confidence: float
    accuracy: float


class Calibration(msgspec.Struct, frozen=True):
    """Probabilities of labelled rows against what came true.

    Attributes:
        log_loss: mean of −log of the true class's probability; probabilities count as 1e-15 at
            least.
        brier: mean of Σ_c (p_c − y_c)², 0 to 2.
        ece: mean gap of confidence and accuracy over the bins, by their rows (expected calibration
            error, Guo et al. 2017).
        bins: those that have rows, of ten of one width.
    """

    log_loss: float
    brier: float
    ece: float
    bins: tuple[Bin, ...]


def calibrate(probabilities: Floats, labels: Integers) -> Calibration:
    """Compare probabilities (n, C) with labels (n,)."""
    at = np.arange(len(labels))
    own = probabilities[at, labels]
    targets = np.zeros_like(probabilities)
    targets[at, labels] = 1.0
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    places = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins = []
    for place in np.unique(places):
        inside = places == place
        bins.append(
            Bin(
                low=int(place) / BINS,
                high=(int(place) + 1) / BINS,
                examples=int(inside.sum()),
                confidence=float(confidence[inside].mean()),
                accuracy=float(right[inside].mean()),
            )
        )
    gaps = [abs(b.confidence - b.accuracy) * b.examples for b in bins]
    return Calibration(
        log_loss=float(-np.log(np.maximum(own, 1e-15)).mean()),
        brier=float(((probabilities - targets) ** 2).sum(axis=1).mean()),
        ece=float(sum(gaps)) / len(labels),
        bins=tuple(bins),
    )
