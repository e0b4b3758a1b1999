"""Thresholds for one class by a stated rule, chosen on other rows than those they are judged on."""

import numpy as np

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats
from secure_afl.analytic.tally import margin
from secure_afl.errors import ConfigError, DataError


def threshold_at(scores: Floats, labels: Integers, place: int, sensitivity: float) -> float:
    """Return the highest margin of a class above which at least this share of its rows lie.

    Args:
        scores, labels: of rows to choose on, (n, C) and (n,).
        place: of the class.
        sensitivity: above 0, at most 1.

    Raises:
        ConfigError: a sensitivity out of range.
        DataError: no rows of the class.
    """
    if not 0 < sensitivity <= 1:
        raise ConfigError(f"sensitivity is {sensitivity}, allowed: above 0, at most 1")
    own = np.sort(margin(scores, place)[labels == place])
    if not len(own):
        raise DataError("no rows of this class to choose a threshold on; give some")
    reached = int(np.ceil(sensitivity * len(own)))
    return float(own[len(own) - reached])


def predict_at(scores: Floats, place: int, threshold: float) -> Integers:
    """Predict a class where its margin reaches a threshold, and elsewhere the best other, (n,)."""
    others = scores.copy()
    others[:, place] = -np.inf
    found = np.where(margin(scores, place) >= threshold, place, others.argmax(axis=1))
    return found.astype(np.int64)
