"""What the gradient of a linear layer says by itself, without any search."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from protocols.layout import Integers
from secure_afl.analytic.quantise import Floats

_MIN_NORM = 1e-12


class Row(NamedTuple):
    """A row of features (d,) float64, and its class."""

    feature: Floats
    label: int


def labels_of_head(bias_gradient: Floats, rows: int, shares: Floats | None = None) -> Integers:
    """Return the classes of the rows behind the gradient of a softmax head's bias.

    They are (n,) int64 in order.

    That gradient is the mean of p − y. Of one row its only negative entry is the row's class, for
    no share p exceeds 1 (iDLG, Zhao et al. 2020): exact. Of n rows a class occurs about
    n(p − gradient) times; these counts are rounded to the nearest that add up to n. That is exact
    as long as the shares are what the model gives these rows, and they are only guessed.

    Args:
        bias_gradient: (C,).
        rows: n ≥ 1.
        shares: (C,) guess of the mean of the rows' shares, by default 1/C each, as of a model that
            knows nothing yet.
    """
    if rows == 1:
        return np.array([int(np.argmin(bias_gradient))], dtype=np.int64)
    classes = len(bias_gradient)
    guess = np.full(classes, 1 / classes) if shares is None else shares
    counts = np.maximum(0.0, rows * (guess - bias_gradient))
    counts *= rows / max(counts.sum(), _MIN_NORM)
    whole = np.floor(counts).astype(np.int64)
    # Largest remainders get what is left.
    for label in np.argsort(whole - counts)[: rows - int(whole.sum())]:
        whole[label] += 1
    return np.repeat(np.arange(classes), whole)


def labels_of_weights(weight_gradient: Floats, rows: int) -> Integers:
    """Return the classes behind the gradient (d, C) of a softmax head without bias.

    The rows must be ≥ 0.

    The sum of a column is the mean of (p − y) times the sum of the row, which is positive: the same
    signs as those of a bias (Zhao et al. 2020). How much a row sums to is told by a class
    that nobody has, if there is one: of a head at zero its column sums to 1/C of that.

    Args:
        weight_gradient: (d, C).
        rows: n ≥ 1.
    """
    sums = weight_gradient.sum(axis=0)
    classes = len(sums)
    return labels_of_head(sums / max(classes * float(sums.max()), _MIN_NORM), rows)


def row_of_head(gradient: Floats, weights: Floats, label: int | None = None) -> Row:
    """Return the one row behind the gradient of a softmax head without bias.

    The row comes with its length.

    The gradient f(p − y)ᵀ has rank one: its leading left singular vector is ±f/‖f‖, and the sign is
    the one that makes the label's column negative. The length s is where the norm of the gradient
    of s·f/‖f‖ is the one that was seen, the shortest there is up to 1; rows are no longer.

    Args:
        gradient: (d, C) of one row of norm ≤ 1.
        weights: (d, C) of the head.
        label: the row's class; by default as `labels_of_weights` says, which wants rows ≥ 0.
    """
    left, _, _ = np.linalg.svd(gradient, full_matrices=False)
    if label is None:
        label = int(labels_of_weights(gradient, 1)[0])
    direction: Floats = left[:, 0]
    if direction @ gradient[:, label] > 0:
        direction = -direction
    seen = float(np.linalg.norm(gradient))

    def lacking(length: float) -> float:
        scores = length * (direction @ weights)
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        shares[label] -= 1.0
        return length * float(np.linalg.norm(shares)) - seen

    # Quantised gradients of rows of norm 1 can lack a hair of it.
    length = float(brentq(lacking, 0.0, 1.0, xtol=1e-15)) if lacking(1.0) > 0 else 1.0
    return Row(length * direction, label)


def columns_of_head(gradient: Floats, labels: Integers) -> Floats:
    """Return each label's column direction in a head's gradient, (n, d), of norm 1.

    The column of class c is the mean of f·(p_c − y_c): minus that is mostly the rows of c, less a
    little of all others. Of many rows of a class it is a blend, and rows of one class look alike.

    Args:
        gradient: (d, C).
        labels: (n,) classes.
    """
    columns = -gradient[:, labels].T
    lengths = np.linalg.norm(columns, axis=1, keepdims=True)
    directions: Floats = columns / np.maximum(lengths, _MIN_NORM)
    return directions


def class_sums_of_head(gradient: Floats, rows: int) -> Floats:
    """Return the sums Q = FᵀY (d, C) of each class's rows.

    They come from a softmax head's gradient at zero.

    At zero every share is 1/C, so that the column of class c is f̄/C − Q_c/n, with f̄ the mean row.
    Of rows ≥ 0 every Q_c is ≥ 0: C times the greatest column, entry by entry, is f̄ wherever some
    class has no value there. What comes out is Q_c less the least of all classes' sums, entry by
    entry: exact if a class has no row at all, and then one blind sum of FedSGD's first round tells
    as much as the Q of AFL: a class of one row hands over that row.

    Args:
        gradient: (d, C), the mean over all rows, not clipped; at parameters of zero.
        rows: n ≥ 1.
    """
    classes = gradient.shape[1]
    mean_row: Floats = classes * gradient.max(axis=1)
    sums: Floats = rows * (mean_row[:, None] / classes - gradient)
    return sums


def dense_input(weight_gradient: Floats, bias_gradient: Floats) -> Floats:
    """Return the one input (k,) of a linear layer with bias, from its gradient.

    ∂L/∂W_i = ∂L/∂b_i · x for every output i, so that x is their ratio (Phong et al. 2018),
    taken by least squares over all outputs. Exact for one input; of several, their mean with the
    weights ∂L/∂b. Where the layer is the first, x is the image. Zero where no output has a
    derivative.

    Args:
        weight_gradient: (m, k).
        bias_gradient: (m,).
    """
    squared = float(bias_gradient @ bias_gradient)
    if squared == 0.0:
        return np.zeros(weight_gradient.shape[1])
    inputs: Floats = bias_gradient @ weight_gradient / squared
    return inputs


def neuron_inputs(weight_gradient: Floats, bias_gradient: Floats) -> NDArray[np.float64]:
    """Return ∂L/∂W_i over ∂L/∂b_i of every output i that has a derivative, (≤ m, k).

    Of several inputs, an output that only one of them activates gives that one (Boenisch et al.
    2023); others give mixtures.

    Args:
        weight_gradient: (m, k).
        bias_gradient: (m,).
    """
    active = np.abs(bias_gradient) > _MIN_NORM
    inputs: NDArray[np.float64] = weight_gradient[active] / bias_gradient[active, None]
    return inputs
