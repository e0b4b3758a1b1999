"""Student's interval for the mean of independent values."""

import math
from collections.abc import Sequence
from statistics import stdev


def student_reach(values: Sequence[float], confidence: float = 0.95) -> float:
    """Return half the width of Student's interval for the mean; 0 from a single value.

    Args:
        values: independent, at least one.
        confidence: above 0 and below 1.
    """
    if len(values) < 2:
        return 0.0
    from scipy.stats import t

    quantile = float(t.ppf((1 + confidence) / 2, len(values) - 1))
    return quantile * stdev(values) / math.sqrt(len(values))
