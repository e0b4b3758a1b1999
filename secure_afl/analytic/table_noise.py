"""What noise in the sums does to the figures of Table 1, to first order."""

import numpy as np

from secure_afl.analytic.describe import Figures, Summary, root
from secure_afl.analytic.quantise import Floats


def figure_errors(summary: Summary) -> Figures | None:
    """Return the noise's standard deviation in each figure that is printed; None without noise.

    Moments in integer steps move by N·δm = q − me and N·δV = E − 2mq + (m² − V)e, where E, q and e
    are the noise of Gram matrix, class sums and counts.
    """
    if summary.noise is None:
        return None
    noise, own = summary.noise, summary.unit
    classes, total = len(summary.classes), summary.total
    rows, cross = noise.counts / summary.label_scale**2, noise.cross / summary.label_scale

    def spread(squares: float, level: Floats, variance: Floats) -> Floats:
        """Return the variance of N·δV of a group of rows, without E's other parts."""
        moved: Floats = 4 * level**2 * cross**2 + (level**2 - variance) ** 2 * rows**2
        return squares**2 + moved

    m, v = summary.level, summary.covariance.diagonal()
    mean = np.sqrt(classes * (cross**2 + (m * rows) ** 2)) / total
    whole = noise.diagonal**2 + classes * spread(0.0, m, v)
    sums, sizes = summary.groups
    centres, inside = summary.shift[:, None] + sums / sizes, summary.within
    # Those withheld together have the noise of all their classes.
    parts = np.ones(sizes.shape[1])
    if summary.hidden.classes.any():
        parts[-1] = summary.hidden.classes.sum()
    within = noise.diagonal**2 + (parts * spread(0.0, centres, inside[:, None])).sum(axis=1)
    each, known = summary.level_each, summary.known_rows
    by_class = None
    if summary.squares is not None:
        lost = np.sqrt(spread(noise.squares, each, summary.variances))
        by_class = own[:, None] * lost / (known - 1) / (2 * root(summary.variances))
    ones = np.hypot(cross, summary.end * rows) / (2 * summary.end)
    return Figures(
        np.full(classes, rows),
        float(np.sqrt(classes) * rows),
        own * mean,
        own * np.sqrt(whole) / total / (2 * root(v)),
        own * np.sqrt(within) / max(total - sizes.shape[1], 1) / (2 * root(inside)),
        own[:, None] * np.sqrt(cross**2 + each**2 * rows**2) / known,
        by_class,
        np.full(len(own), np.sqrt(classes) * ones),
        np.full((len(own), classes), ones),
        np.full(len(own), np.sqrt(classes) * rows),
        np.full((len(own), classes), rows),
    ).masked(summary.hidden)


def correlation_errors(summary: Summary) -> Floats | None:
    """Return the noise's standard deviation in each correlation, (k, k); None without noise."""
    if summary.noise is None:
        return None
    noise, place = summary.noise, summary.correlated
    rows, cross = noise.counts / summary.label_scale**2, noise.cross / summary.label_scale
    m, r, v = summary.level[place], summary.correlations, summary.covariance.diagonal()[place]
    both = np.sqrt(np.outer(v, v))
    mine = -m[None, :] / both + r * (m / v)[:, None]
    ratio = (m**2 - v) / v
    counts = np.outer(m, m) / both - r - r / 2 * np.add.outer(ratio, ratio)
    varied = (noise.upper / both) ** 2
    varied += (noise.diagonal * r / 2) ** 2 * np.add.outer(v**-2.0, v**-2.0)
    varied += len(summary.classes) * (cross**2 * (mine**2 + mine.T**2) + (rows * counts) ** 2)
    found: Floats = np.sqrt(varied) / summary.total
    np.fill_diagonal(found, 0.0)
    return found
