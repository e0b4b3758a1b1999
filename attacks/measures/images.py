"""How like two images are. An image is (h, w, channels) float in 0..1."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from secure_afl.analytic.quantise import Floats

Image = NDArray[np.floating]

# Equal images have no error and no finite PSNR; they count as this many dB.
MAX_PSNR = 200.0

# Wang et al. 2004, section III-B: a Gaussian window of 11 × 11, deviation 1.5; K1 and K2.
_DEVIATION, _RADIUS = 1.5, 5
_K1, _K2 = 0.01, 0.03


def psnr(true: Image, rebuilt: Image) -> float:
    """Return the peak signal-to-noise ratio in dB, the peak being 1; at most `MAX_PSNR`."""
    error = float(np.mean(np.square(np.subtract(true, rebuilt, dtype=np.float64))))
    return min(MAX_PSNR, -10 * math.log10(error)) if error > 0 else MAX_PSNR


def ssim(true: Image, rebuilt: Image) -> float:
    """Return the structural similarity, −1..1, over all channels.

    Wang et al., IEEE TIP 13(4), 2004, eq. 13.

    Windows that reach over the border are left out; images smaller than a window are mirrored.
    """
    x, y = np.asarray(true, dtype=np.float64), np.asarray(rebuilt, dtype=np.float64)

    def local_mean(values: Floats) -> Floats:
        smooth: Floats = gaussian_filter(values, _DEVIATION, radius=_RADIUS, axes=(0, 1))
        return smooth

    mean_x, mean_y = local_mean(x), local_mean(y)
    variance_x = local_mean(x * x) - mean_x**2
    variance_y = local_mean(y * y) - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + _K1**2) * (2 * covariance + _K2**2)
    similarity /= (mean_x**2 + mean_y**2 + _K1**2) * (variance_x + variance_y + _K2**2)
    if min(x.shape[:2]) > 2 * _RADIUS:
        similarity = similarity[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
    return float(similarity.mean())


def fitted(true: Image, rebuilt: Image) -> Floats:
    """Return the rebuilt image at the brightness and contrast that fit the true one best.

    For models that see neither, such as those that standardise their images or bring rows to norm
    1: what they throw away is in no gradient and no feature. One factor and one offset for all
    pixels by least squares; a flat image becomes the true one's mean. Clipped to 0..1.
    """
    x, y = np.asarray(rebuilt, dtype=np.float64), np.asarray(true, dtype=np.float64)
    spread = float(x.var())
    factor = float(np.mean((x - x.mean()) * (y - y.mean()))) / spread if spread > 0 else 0.0
    best: Floats = np.clip(y.mean() + factor * (x - x.mean()), 0.0, 1.0)
    return best


def correlations(left: Image, right: Image) -> Floats:
    """Correlate images of one stack (n, h, w, c) with those of another: (n, m).

    The correlations are −1..1, of every image of one with every one of the other, (m, …).

    They do not depend on brightness and contrast. A flat image correlates with nothing.
    """

    def standardised(stack: Image) -> Floats:
        rows = np.asarray(stack, dtype=np.float64).reshape(len(stack), -1)
        rows = rows - rows.mean(axis=1, keepdims=True)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        unit: Floats = rows / np.where(lengths > 0, lengths, 1.0)
        return unit

    product: Floats = standardised(left) @ standardised(right).T
    return product


def mean_of_others(images: Image) -> Floats:
    """Return for each of n ≥ 2 images the mean of all others.

    Images are (n, h, w, c).

    A guess would show that mean.
    """
    stack = np.asarray(images, dtype=np.float64)
    means: Floats = (stack.sum(axis=0) - stack) / (len(stack) - 1)
    return means


def ranks(rebuilt: Image, candidates: Image, true: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count candidates more like each rebuilt image than the true one is; 0 is best.

    Args:
        rebuilt: (n, h, w, c).
        candidates: (m, h, w, c), the true images among them.
        true: (n,) which candidate each one should be.

    Returns:
        (n,) int64 in 0..m−1. Candidates just as like count as more like: a flat image finds nobody.
    """
    likeness = correlations(rebuilt, candidates)
    own = likeness[np.arange(len(rebuilt)), true]
    worse: NDArray[np.int64] = (likeness >= own[:, None]).sum(axis=1) - 1
    return worse
