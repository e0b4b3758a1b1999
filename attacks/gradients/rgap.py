"""R-GAP: an image out of one gradient, layer by layer in closed form. Needs torch for the victim.

Zhu and Blaschko, "R-GAP: Recursive gradient attack on privacy", ICLR 2021. It wants a network of
its own: one logit, convolutions without bias, an invertible activation, a batch of one. Nothing
is optimised: every layer's input solves a linear system.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.optimize import brentq
from scipy.special import expit

from attacks.features.differentiable import require_torch
from secure_afl.analytic.quantise import Floats
from secure_afl.checks import settle_float, settle_int
from secure_afl.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch

MAX_SIDE = 64

# −μ/(1 + e^μ) has its least value there: above it, a logit is not told by its gradient alone.
_TURN = 1.278464542761074
# How far pixels may be outside 0..1, root mean square, for an image to count as within.
_OUTSIDE = 0.01
# e^500 is still finite, and no logit of such a network is larger.
_MAX_LOGIT = 500.0


class Convolution(msgspec.Struct, frozen=True):
    """One layer: channels it makes, its square kernel, stride and padding in pixels."""

    width: int
    kernel: int
    stride: int
    padding: int

    def __post_init__(self) -> None:
        settle_int(self, "width", 1, 4096)
        settle_int(self, "kernel", 1, 15)
        settle_int(self, "stride", 1, 8)
        settle_int(self, "padding", 0, 14)


class RgapNetwork(msgspec.Struct, frozen=True):
    """The victim: convolutions, each with a leaky ReLU behind it, then one logit; no bias.

    The loss of an image x with label y = ±1 is log(1 + exp(−y·f(x))).

    By default three layers on 16 × 16 colours, 768 values. The rank analysis of the paper (section
    3.4) asks of every layer that equations are no fewer than unknowns: 12·8·8 = 768 outputs and
    12·3·5² = 900 gradient entries for the 768 pixels, and 12·8·8 + 12·12·3² = 2064 for the 768
    inputs of either other layer. That is necessary, not sufficient: equations may depend on one
    another, and the misfit of what comes out then says so.

    Attributes:
        shape: (channels, height, width) of an image, sides ≤ 64.
        layers: from the image on.
        slope: of the leaky ReLU below 0, in (0, 1].
    """

    shape: tuple[int, int, int] = (3, 16, 16)
    layers: tuple[Convolution, ...] = (
        Convolution(12, 5, 2, 2),
        Convolution(12, 3, 1, 1),
        Convolution(12, 3, 1, 1),
    )
    slope: float = 0.2

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or max(self.shape[1:]) > MAX_SIDE:
            raise ConfigError(f"shape is {self.shape!r}, allowed: sides 1 to {MAX_SIDE}")
        if not self.layers:
            raise ConfigError("layers is empty, allowed: ≥ 1 convolution")
        settle_float(self, "slope", 1e-6, 1)
        for shape in self.shapes:
            if min(shape) < 1:
                raise ConfigError(f"layers leave nothing of {self.shape!r}; make kernels smaller")

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """Shapes of the input of every layer, and of the last one's output."""
        shapes = [self.shape]
        for layer in self.layers:
            sides = [
                (side + 2 * layer.padding - layer.kernel) // layer.stride + 1
                for side in shapes[-1][1:]
            ]
            shapes.append((layer.width, sides[0], sides[1]))
        return shapes

    @property
    def surplus(self) -> list[int]:
        """Equations less unknowns of every layer; below 0 the layer cannot be undone."""
        return [
            math.prod(after) + layer.width * before[0] * layer.kernel**2 - math.prod(before)
            for layer, before, after in zip(
                self.layers, self.shapes[:-1], self.shapes[1:], strict=True
            )
        ]

    def initial(self, rng: np.random.Generator) -> list[Floats]:
        """Draw normal weights of variance 2 / fan-in.

        They are kernels (out, in, k, k), and the logit's (d,).
        """
        kernels = [
            rng.standard_normal((layer.width, before[0], layer.kernel, layer.kernel))
            * math.sqrt(2 / (before[0] * layer.kernel**2))
            for layer, before in zip(self.layers, self.shapes[:-1], strict=True)
        ]
        last = math.prod(self.shapes[-1])
        return [*kernels, rng.standard_normal(last) * math.sqrt(1 / last)]

    def gradient(
        self, weights: Sequence[Floats], image: NDArray[np.floating], label: int
    ) -> list[Floats]:
        """Return the victim's upload, the gradient of the loss: float64, shaped like the weights.

        Args:
            weights: as `initial` makes them.
            image: (channels, height, width).
            label: −1 or 1.

        Raises:
            ConfigError: torch is missing.
        """
        require_torch()
        import torch

        tensors = [torch.tensor(weight, requires_grad=True) for weight in weights]
        value = torch.tensor(image, dtype=torch.float64)[None]
        loss = torch.nn.functional.softplus(-label * self._logit(tensors, value))
        return [part.numpy() for part in torch.autograd.grad(loss, tensors)]

    def _logit(self, weights: "Sequence[torch.Tensor]", value: "torch.Tensor") -> "torch.Tensor":
        from torch.nn.functional import conv2d, leaky_relu

        for layer, kernel in zip(self.layers, weights[:-1], strict=True):
            value = conv2d(value, kernel, stride=layer.stride, padding=layer.padding)
            value = leaky_relu(value, self.slope)
        return value.flatten() @ weights[-1]


@dataclass(frozen=True, eq=False)
class Undone:
    """The result that R-GAP found.

    Attributes:
        image: (channels, height, width) float64, as it came out of the equations.
        label: −1 or 1.
        misfit: norm of the difference between the gradient of `image` and the given one, as a
            share of the latter's norm.
    """

    image: Floats
    label: int
    misfit: float


def undo(
    network: RgapNetwork, weights: Sequence[Floats], gradient: Sequence[NDArray[np.floating]]
) -> Undone:
    """Return the image and label that a gradient was computed from.

    Of the last layer, w·∂L/∂w = −μ/(1 + e^μ) gives μ = y·f (one solution below 0, up to two above;
    the paper's section 3.1), and ∂L/∂w = −y·x/(1 + e^μ) then gives x. From there on backwards, z
    being a layer's output before the activation and k = ∂L/∂z, x solves both W x = z and
    Σ k ⊗ patches(x) = ∂L/∂W in least squares, and ∂L/∂x = Wᵀ k.

    Both labels are tried, and the one whose image's own gradient is nearest to the given one is
    returned. The two μ cannot be told apart that way: activations without bias keep scale, and the
    image times the ratio of the two μ has the very same gradient (twin data, in the paper). The
    brighter twin is returned if its pixels keep within 0..1.

    Args:
        network: its shapes.
        weights: known to the attacker, as the server sent them.
        gradient: as `RgapNetwork.gradient` makes it.

    Raises:
        DataError: a gradient of other shapes than the weights', not finite, or all zero.
        ConfigError: torch is missing.
    """
    given = [np.asarray(part, dtype=np.float64) for part in gradient]
    if [part.shape for part in given] != [weight.shape for weight in weights]:
        raise DataError("the gradient's parts are not shaped like the weights; give all, in order")
    norm = math.sqrt(sum(float(np.sum(part**2)) for part in given))
    if not (math.isfinite(norm) and norm > 0):
        raise DataError(f"the gradient's norm is {norm}; it must be finite and above 0")
    found = margins(float(weights[-1] @ given[-1]))
    undone = [_undo_with(network, weights, given, label, found[0]) for label in (-1, 1)]
    best = min(undone, key=lambda one: one.misfit)
    twins = [best.image * (margin / found[0]) for margin in found]
    return Undone(_plausible(twins), best.label, best.misfit)


def _plausible(images: Sequence[Floats]) -> Floats:
    """Return the brightest image that keeps within 0..1.

    If none does, it is the one that is least outside.
    """
    outside = [float(np.sqrt(np.mean((image - image.clip(0, 1)) ** 2))) for image in images]
    within = [image for image, rms in zip(images, outside, strict=True) if rms < _OUTSIDE]
    if within:
        return max(within, key=lambda image: float(image.mean()))
    return images[int(np.argmin(outside))]


def margins(product: float) -> list[float]:
    """Find all μ with −μ/(1 + e^μ) = product.

    There is one for a product ≥ 0, else two below the turn, or one.

    Noise may ask for less than the least value; the nearest, at the turn, is given then.
    """

    def off(margin: float) -> float:
        return -margin * float(expit(-margin)) - product

    if off(_TURN) >= 0:
        return [_TURN]
    low = -max(1.0, 2 * product + 2)
    found = [float(brentq(off, low, _TURN, xtol=1e-15, rtol=1e-15))]
    if product < 0 and off(_MAX_LOGIT) > 0:
        found.append(float(brentq(off, _TURN, _MAX_LOGIT, xtol=1e-15, rtol=1e-15)))
    return found


def _undo_with(
    network: RgapNetwork,
    weights: Sequence[Floats],
    gradient: Sequence[Floats],
    label: int,
    margin: float,
) -> Undone:
    """Undo with this label and this μ, right or wrong."""
    shapes = network.shapes
    weight = -label * float(expit(-margin))
    value = (gradient[-1] / weight).reshape(shapes[-1])
    slopes = weight * weights[-1].reshape(shapes[-1])
    for index in reversed(range(len(network.layers))):
        layer, kernel = network.layers[index], weights[index]
        # Undo the activation, for the value and for the derivative.
        below = value < 0
        value = np.where(below, value / network.slope, value)
        slopes = np.where(below, slopes * network.slope, slopes)
        patches = _patches(shapes[index], layer)
        size = math.prod(shapes[index])
        rows = kernel.reshape(layer.width, -1)
        forward = _scatter(rows[:, None, :], patches.T[None], size)
        backward = _scatter(slopes.reshape(layer.width, 1, -1), patches[None], size)
        slopes = (forward.T @ slopes.ravel()).reshape(shapes[index])
        value = _solve([(forward, value.ravel()), (backward, gradient[index].ravel())]).reshape(
            shapes[index]
        )
    own = network.gradient(weights, value, label)
    off = sum(float(np.sum((a - b) ** 2)) for a, b in zip(own, gradient, strict=True))
    norm = sum(float(np.sum(part**2)) for part in gradient)
    return Undone(value, label, math.sqrt(off / norm))


def _solve(systems: Sequence[tuple[Floats, Floats]]) -> Floats:
    """Solve all systems at once by least squares, each brought to the same scale."""
    scales = [float(np.linalg.norm(matrix)) or 1.0 for matrix, _ in systems]
    matrix = np.concatenate(
        [part / scale for (part, _), scale in zip(systems, scales, strict=True)]
    )
    wanted = np.concatenate(
        [part / scale for (_, part), scale in zip(systems, scales, strict=True)]
    )
    solution: Floats = linalg.lstsq(matrix, wanted, lapack_driver="gelsy", check_finite=False)[0]
    return solution


def _patches(shape: tuple[int, int, int], layer: Convolution) -> NDArray[np.int64]:
    """Return the input that each entry of each patch reads, (channels·k², positions).

    It is −1 in the padding.
    """
    around = (layer.padding, layer.padding)
    places = np.arange(math.prod(shape)).reshape(shape)
    places = np.pad(places, ((0, 0), around, around), constant_values=-1)
    windows = np.lib.stride_tricks.sliding_window_view(
        places, (layer.kernel, layer.kernel), axis=(1, 2)
    )[:, :: layer.stride, :: layer.stride]
    channels, height, width = windows.shape[:3]
    ordered = windows.transpose(0, 3, 4, 1, 2)
    return ordered.reshape(channels * layer.kernel**2, height * width)


def _scatter(values: Floats, places: NDArray[Any], size: int) -> Floats:
    """Make a matrix with `values` in each row's columns `places`.

    `values` are broadcast against `places`.

    Places −1 are left out. The last axis runs along a row; all others count the rows.
    """
    values, places = np.broadcast_arrays(values, places)
    rows = math.prod(places.shape[:-1])
    matrix = np.zeros((rows, size + 1))
    flat = places.reshape(rows, -1)
    np.add.at(matrix, (np.arange(rows)[:, None], flat), values.reshape(rows, -1))
    return matrix[:, :size]
