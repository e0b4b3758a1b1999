"""Any torch module as a victim: the gradient is that of the parameters that travel."""

import math
from typing import TYPE_CHECKING

from attacks.gradients.matching import Objective, squared_error
from attacks.gradients.victim import Shape, Victim, require_torch
from secure_afl.analytic.quantise import Floats

if TYPE_CHECKING:
    import torch
    from torch import nn

# Of the whole gradient's squared norm: what is below is rounding.
_NOTHING = 1e-12


class ModuleVictim(Victim):
    """A module of which only parameters that require gradients travel, such as adapters.

    All is computed in float64. The last parameters have to be the head's weight and bias.

    Args:
        module: maps flat rows (n, h·w·channels) to scores; a copy in float64 is kept. Its attention
            must not be fused, for fused kernels have no second derivative.
        parameters: (p,) that travel, in the module's order.
        shape: (channels, h, w) of its images.
        classes: C.

    Raises:
        ConfigError: torch is missing.
    """

    def __init__(self, module: "nn.Module", parameters: Floats, shape: Shape, classes: int) -> None:
        require_torch()
        import copy

        import torch

        super().__init__(torch.tensor(parameters, dtype=torch.float64), shape, classes)
        self.module = copy.deepcopy(module).double().eval()
        self._sizes = {
            name: tuple(value.shape)
            for name, value in self.module.named_parameters()
            if value.requires_grad
        }

    def sizes(self) -> list[tuple[int, ...]]:
        """Return the shapes of the parameters that travel."""
        return list(self._sizes.values())

    def scores(self, vector: "torch.Tensor", images: "torch.Tensor") -> "torch.Tensor":
        """Score images with these parameters, and the frozen ones as they are: (n, C).

        Raises:
            ConfigError: the vector has another length than the parameters that travel.
        """
        from torch.func import functional_call

        given = dict(zip(self._sizes, self.parts(vector), strict=True))
        scores: torch.Tensor = functional_call(
            self.module, given, (images.permute(0, 2, 3, 1).flatten(1),)
        )
        return scores


def relative_error(victim: Victim) -> Objective:
    """Return the sum over weights and biases of ‖found − wanted‖² over ‖wanted‖².

    A head's gradient is far longer than an adapter's, and would count alone. Parameters without a
    gradient, as a low-rank adapter's first factor at the beginning, are left out.
    """
    lengths = [math.prod(size) for size in victim.sizes()]

    def objective(found: "torch.Tensor", wanted: "torch.Tensor") -> "torch.Tensor":
        import torch

        cut = torch.split_with_sizes
        parts = list(zip(cut(found, lengths), cut(wanted, lengths), strict=True))
        least = _NOTHING * wanted.square().sum()
        errors = [squared_error(a, b) for a, b in parts if b.square().sum() > least]
        return torch.stack(errors).sum()

    return objective
