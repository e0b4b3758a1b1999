"""Networks whose gradients are inverted, as functions that can be differentiated twice. Torch."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from secure_afl.analytic.quantise import Floats
from secure_afl.errors import ConfigError
from secure_afl.methods import ConvNet, Task

if TYPE_CHECKING:
    import torch

# Channels, height and width of an image.
Shape = tuple[int, int, int]

# A flat image has no deviation to be divided by.
_LEAST_VARIANCE = 1e-12
_KERNEL = 3


def require_torch() -> None:
    """Raise ConfigError unless torch can be imported."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ConfigError("gradient inversion needs torch; install 'secure-afl[vision]'") from error


class Victim(ABC):
    """A classifier at known parameters, whose mean cross-entropy somebody took the gradient of.

    Attributes:
        parameters: (p,) in the order of the gradient; its dtype is that of all computations.
        shape: (channels, h, w) of its images.
        classes: C. The last parameters are a weight (C, k) and then a bias (C,).
    """

    def __init__(self, parameters: "torch.Tensor", shape: Shape, classes: int) -> None:
        self.parameters = parameters
        self.shape = shape
        self.classes = classes

    def gradients(
        self, images: "torch.Tensor", labels: "torch.Tensor", graph: bool = False
    ) -> "torch.Tensor":
        """Return the gradient of the mean cross-entropy by the parameters, (p,).

        Args:
            images: (n, channels, h, w) in 0..1.
            labels: (n,) int64 in 0..C−1.
            graph: the result can itself be differentiated by the images.
        """
        import torch

        vector = self.parameters.detach().requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(self.scores(vector, images), labels)
        (gradient,) = torch.autograd.grad(loss, vector, create_graph=graph)
        return gradient

    @abstractmethod
    def scores(self, vector: "torch.Tensor", images: "torch.Tensor") -> "torch.Tensor":
        """Map parameters (p,) and images (n, channels, h, w) in 0..1 to scores (n, C)."""

    @abstractmethod
    def sizes(self) -> list[tuple[int, ...]]:
        """Return shapes of the weights and biases, in their order in the vector."""

    def parts(self, vector: "torch.Tensor") -> list["torch.Tensor"]:
        """Cut a vector (p,) into weights and biases.

        Raises:
            ConfigError: it has another length.
        """
        import torch

        sizes = self.sizes()
        lengths = [math.prod(size) for size in sizes]
        if sum(lengths) != len(vector):
            raise ConfigError(f"{len(vector)} parameters; this network has {sum(lengths)}")
        cut = torch.split_with_sizes(vector, lengths)
        return [part.view(size) for part, size in zip(cut, sizes, strict=True)]


class ConvNetVictim(Victim):
    """The twin of `secure_afl.methods.ConvNet`, standardisation of its images included."""

    def __init__(
        self, parameters: "torch.Tensor", shape: Shape, classes: int, widths: tuple[int, int]
    ) -> None:
        super().__init__(parameters, shape, classes)
        self.widths = widths

    @classmethod
    def of(cls, architecture: ConvNet, task: Task, parameters: Floats) -> "ConvNetVictim":
        """Make the victim at a round's parameters, (p,) float64.

        Raises:
            ConfigError: torch is missing, or the task's rows are no images for the architecture.
        """
        require_torch()
        import torch

        height, width, channels = architecture.shape(task.feature_dim)
        vector = torch.tensor(parameters, dtype=torch.float64)
        shape = (channels, height, width)
        return cls(vector, shape, len(task.classes), architecture.widths)

    def sizes(self) -> list[tuple[int, ...]]:
        """Return six shapes: two 3 × 3 convolutions and the head, each with its bias."""
        channels, height, width = self.shape
        first, second = self.widths
        flat = second * (height // 4) * (width // 4)
        return [
            *((first, channels, _KERNEL, _KERNEL), (first,)),
            *((second, first, _KERNEL, _KERNEL), (second,)),
            *((self.classes, flat), (self.classes,)),
        ]

    def scores(self, vector: "torch.Tensor", images: "torch.Tensor") -> "torch.Tensor":
        """Standardise each image, then apply two blocks of convolution and pooling, and the head.

        Scores are (n, C); a flat image is divided by a deviation of 10⁻⁶.

        Raises:
            ConfigError: the vector has another length than the network.
        """
        from torch.nn.functional import conv2d, linear, max_pool2d

        weight1, bias1, weight2, bias2, weight3, bias3 = self.parts(vector)
        centred = images - images.mean(dim=(1, 2, 3), keepdim=True)
        variance = centred.square().mean(dim=(1, 2, 3), keepdim=True)
        hidden = centred / variance.clamp(min=_LEAST_VARIANCE).sqrt()
        hidden = max_pool2d(conv2d(hidden, weight1, bias1, padding=1).relu(), 2)
        hidden = max_pool2d(conv2d(hidden, weight2, bias2, padding=1).relu(), 2)
        return linear(hidden.flatten(1), weight3, bias3)


class LeNetVictim(Victim):
    """Network of Zhu et al. 2019 and its published code.

    It has sigmoids, and strides in place of pooling.

    Three 5 × 5 convolutions of 12 channels with strides 2, 2 and 1, and a linear layer. All
    parameters are uniform in ±0.5, as there.
    """

    _WIDTH, _SIDE = 12, 5
    _STRIDES = (2, 2, 1)
    _SPREAD = 0.5

    @classmethod
    def random(cls, shape: Shape, classes: int, seed: int) -> "LeNetVictim":
        """Make an untrained victim, in float64."""
        require_torch()
        import torch

        empty = cls(torch.empty(0, dtype=torch.float64), shape, classes)
        length = sum(math.prod(size) for size in empty.sizes())
        random = torch.Generator().manual_seed(seed)
        uniform = torch.rand(length, generator=random, dtype=torch.float64)
        return cls(cls._SPREAD * (2 * uniform - 1), shape, classes)

    def sizes(self) -> list[tuple[int, ...]]:
        """Return eight shapes: three 5 × 5 convolutions and the head, each with its bias."""
        channels, height, width = self.shape
        for stride in self._STRIDES:
            # Padding of half a kernel: only the stride makes it smaller.
            height, width = -(-height // stride), -(-width // stride)
        kernel = (self._SIDE, self._SIDE)
        sizes: list[tuple[int, ...]] = []
        for index in range(len(self._STRIDES)):
            sizes += [(self._WIDTH, self._WIDTH if index else channels, *kernel), (self._WIDTH,)]
        return [*sizes, (self.classes, self._WIDTH * height * width), (self.classes,)]

    def scores(self, vector: "torch.Tensor", images: "torch.Tensor") -> "torch.Tensor":
        """Apply three strided convolutions with sigmoids and the head: scores (n, C).

        Raises:
            ConfigError: the vector has another length than the network.
        """
        from torch.nn.functional import conv2d, linear

        parts = self.parts(vector)
        hidden = images
        for index, stride in enumerate(self._STRIDES):
            weight, bias = parts[2 * index : 2 * index + 2]
            hidden = conv2d(hidden, weight, bias, stride, padding=self._SIDE // 2).sigmoid()
        return linear(hidden.flatten(1), parts[-2], parts[-1])


class DenseVictim(Victim):
    """Linear layers with ReLU between them, the first one on the pixels themselves."""

    def __init__(
        self, parameters: "torch.Tensor", shape: Shape, classes: int, hidden: Sequence[int]
    ) -> None:
        super().__init__(parameters, shape, classes)
        self.hidden = tuple(hidden)

    @classmethod
    def random(cls, shape: Shape, classes: int, hidden: Sequence[int], seed: int) -> "DenseVictim":
        """Make an untrained victim, in float64.

        It has normal weights of variance 2 / fan-in, and biases of 0.
        """
        require_torch()
        import torch

        random = torch.Generator().manual_seed(seed)
        empty = cls(torch.empty(0, dtype=torch.float64), shape, classes, hidden)
        parts = [
            math.sqrt(2 / size[1]) * torch.randn(size, generator=random, dtype=torch.float64)
            if len(size) > 1
            else torch.zeros(size, dtype=torch.float64)
            for size in empty.sizes()
        ]
        vector = torch.cat([part.flatten() for part in parts])
        return cls(vector, shape, classes, hidden)

    def sizes(self) -> list[tuple[int, ...]]:
        """Return a weight (out, in) and a bias (out,) for each layer, pixels first."""
        widths = [math.prod(self.shape), *self.hidden, self.classes]
        pairs = zip(widths[1:], widths[:-1], strict=True)
        return [size for out, into in pairs for size in ((out, into), (out,))]

    def scores(self, vector: "torch.Tensor", images: "torch.Tensor") -> "torch.Tensor":
        """Flatten the images, apply the layers with ReLU between them: scores (n, C).

        Raises:
            ConfigError: the vector has another length than the network.
        """
        from torch.nn.functional import linear

        parts = self.parts(vector)
        hidden = images.flatten(1)
        for index in range(0, len(parts) - 2, 2):
            hidden = linear(hidden, parts[index], parts[index + 1]).relu()
        return linear(hidden, parts[-2], parts[-1])
