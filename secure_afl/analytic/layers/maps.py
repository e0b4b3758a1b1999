"""Images and feature maps as whole numbers of bounded energy."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from secure_afl.analytic.quantise import MAX_FEATURE, Floats, bad_row
from secure_afl.errors import ConfigError


class MapShape(NamedTuple):
    """Shape of an image or of a stack of feature maps; flattened in this order."""

    height: int
    width: int
    channels: int

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self)

    @property
    def positions(self) -> int:
        """Number of pixels, P."""
        return self.height * self.width


def image_shape(values: int, given: tuple[int, int, int] | None, least_side: int) -> MapShape:
    """Return the shape of images with so many values.

    Args:
        values: of a flattened image.
        given: (height, width, channels); None for square images, which are grey if `values` is a
            square and coloured if a third of it is.
        least_side: of what looks at them.

    Raises:
        ConfigError: rows of that length are no such images.
    """
    shape = MapShape(*given) if given is not None else _square(values)
    if shape is None or shape.size != values or min(shape[:2]) < least_side or min(shape) < 1:
        wanted = f"of shape {given}" if given is not None else "square, grey or RGB"
        raise ConfigError(
            f"rows of {values} values are no images for this network; allowed: {wanted}, sides ≥ "
            f"{least_side}. Use the backbone 'identity' with --image-size, or give another "
            "image_shape."
        )
    return shape


def _square(values: int) -> MapShape | None:
    for channels in (1, 3):
        side = math.isqrt(values // channels)
        if side * side * channels == values:
            return MapShape(side, side, channels)
    return None


def standardised(images: NDArray[np.floating], first_row: int = 0) -> Floats:
    """Bring each image to mean 0 and deviation 1, by its own values alone.

    An image of one colour has no deviation; it becomes zeros.

    Args:
        images: (n, d), flattened, finite.
        first_row: what errors call the first of them.

    Returns:
        (n, d) float64. An image's numbers do not depend on its neighbours.

    Raises:
        DataError: a NaN, an infinity or too large a number, naming the row.
    """
    with np.errstate(over="ignore"):  # a longer float may become infinite, and is then refused
        rows = np.array(images, dtype=np.float64, order="C")
    usable = (np.abs(rows) < MAX_FEATURE).all(axis=1)
    if not usable.all():
        raise bad_row(first_row + int(usable.argmin()))
    # Brought below 1 first, so that no square overflows or vanishes. What is left of an image of
    # one colour is rounding.
    greatest = np.abs(rows).max(axis=1, keepdims=True)
    rows /= np.where(greatest > 0, greatest, 1.0)
    rows -= rows.mean(axis=1, keepdims=True)
    deviation = rows.std(axis=1, keepdims=True)
    varies = deviation > 1e-6
    rows[~varies[:, 0]] = 0.0
    rows /= np.where(varies, deviation, 1.0)
    return rows


def whole(maps: Floats, steps: int) -> Floats:
    """Round maps of mean square 1 to whole numbers of energy ≤ d·steps².

    Each map is divided by the root of its own mean square, times `steps` and rounded to nearest;
    the few whose energy still exceeds the bound are truncated toward zero instead.

    Args:
        maps: (n, d) float64.
        steps: whole numbers to a unit, ≥ 1.

    Returns:
        (n, d) float64 holding whole numbers; a map of zeros stays zero. A map's numbers do not
        depend on its neighbours.
    """
    # Over a row the sum takes the same order of additions however many rows there are.
    energy = np.square(maps).sum(axis=1, keepdims=True)
    scaled = maps * (steps * np.sqrt(maps.shape[1] / np.where(energy > 0, energy, 1.0)))
    rounded: Floats = np.rint(scaled)
    too_much = np.square(rounded).sum(axis=1) > maps.shape[1] * steps**2
    rounded[too_much] = np.trunc(scaled[too_much] * (1 - 1e-12))
    return rounded
