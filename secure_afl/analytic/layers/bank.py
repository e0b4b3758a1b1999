"""The filters of a layer as whole numbers, and what maps become behind them."""

import numpy as np

from protocols.codec import Wire
from protocols.layout import Integers
from secure_afl.analytic.layers.maps import MapShape
from secure_afl.analytic.layers.patches import LayerShape, patches
from secure_afl.analytic.quantise import Floats
from secure_afl.errors import DataError

# Whole numbers to a filter's unit, and the most that one weight may be: with maps of bounded energy
# every response is then exact in float64.
UNIT = 2**12
MAX_WEIGHT = 2**24


class FilterBank(Wire, frozen=True, eq=False):
    """Filters of one layer; whoever makes them sends them as they are.

    The singular vectors that filters come from differ between machines. Whole numbers of bounded
    size make all that follows the same on every machine.

    Attributes:
        weights: (p, F) int64, in units of 2^-12.
        bias: (F,) int64, added to the responses, in the same units.
    """

    weights: Integers
    bias: Integers

    def __repr__(self) -> str:
        return f"<FilterBank of {self.weights.shape[-1]} filters>"

    @classmethod
    def of(cls, weights: Floats, bias: Floats) -> "FilterBank":
        """Round filters to whole numbers; a weight beyond the greatest is cut off there."""

        def rounded(values: Floats) -> Integers:
            limit = MAX_WEIGHT
            return np.clip(np.rint(values * UNIT), -limit, limit).astype(np.int64)

        return cls(rounded(weights), rounded(bias))

    @property
    def count(self) -> int:
        """Number of filters, F; there are 2F maps behind them."""
        return int(self.weights.shape[1])

    def check(self, shape: LayerShape, count: int) -> None:
        """Check filters that somebody sent.

        Raises:
            DataError: another shape than (p, count), or weights beyond the greatest.
        """
        found = self.weights.shape, self.bias.shape
        if found != ((shape.patch, count), (count,)):
            raise DataError(
                f"filters are {list(found[0])} and {list(found[1])}, wanted "
                f"[{shape.patch}, {count}] and [{count}]"
            )
        for values in (self.weights, self.bias):
            if values.dtype != np.int64 or values.min() < -MAX_WEIGHT or values.max() > MAX_WEIGHT:
                raise DataError(f"filters beyond ±{MAX_WEIGHT}, or no whole numbers")

    def apply(self, maps: Floats, shape: LayerShape) -> Floats:
        """Map whole-number maps (n, h, w, c) to (n, h/2, w/2, 2F), whole numbers ≥ 0.

        A response z = Wᵀx + b becomes relu(z) and relu(−z), of which the greatest of each 2 × 2
        positions is kept; an odd row or column at the end falls away.
        """
        formed = patches(maps, shape.kernel)
        responses = formed.reshape(-1, shape.patch) @ self.weights.astype(np.float64)
        responses += self.bias * float(shape.steps)
        responses = responses.reshape(*formed.shape[:3], self.count)
        # The greatest of relu(−z) is relu of minus the least z.
        high, low = _pooled(responses, np.maximum), _pooled(responses, np.minimum)
        return np.concatenate([np.maximum(high, 0.0), np.maximum(-low, 0.0)], axis=3)

    def shape_after(self, maps: MapShape) -> MapShape:
        """Return the shape of the maps behind these filters."""
        return pooled_shape(maps, self.count)


def pooled_shape(maps: MapShape, filters: int) -> MapShape:
    """Return the shape of the maps behind so many filters."""
    return MapShape(maps.height // 2, maps.width // 2, 2 * filters)


def _pooled(responses: Floats, greater: np.ufunc) -> Floats:
    height, width = (side // 2 * 2 for side in responses.shape[1:3])
    cut = responses[:, :height, :width]
    rows: Floats = greater(cut[:, ::2], cut[:, 1::2])
    pooled: Floats = greater(rows[:, :, ::2], rows[:, :, 1::2])
    return pooled
