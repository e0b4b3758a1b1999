"""Richer rows from a frozen network at no cost in upload: powers, and its last blocks' outputs."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from secure_afl.errors import ConfigError

if TYPE_CHECKING:
    import torch

MAX_STAGES = 64


class Taps(NamedTuple):
    """What is made of a network's outputs, as its spec says.

    Attributes:
        stages: how many of the last blocks are tapped; None takes the network's own output.
        power: entries x become sign(x)·|x|^power.
        seed: of the projection from the blocks' channels to the network's own width.
    """

    stages: int | None
    power: float
    seed: int

    @property
    def described(self) -> dict[str, Any]:
        """What a digest has to know; nothing where the network's output is taken as it is."""
        settings = {} if self.power == 1.0 else {"power": self.power}
        if self.stages is None:
            return settings
        return settings | {"stages": self.stages, "seed": self.seed}


def pop_taps(settings: str, keywords: dict[str, Any], seed: int) -> Taps:
    """Take `stages` and `power` out of a spec's keywords.

    Raises:
        ConfigError: a value out of range.
    """
    stages, power = keywords.pop("stages", None), keywords.pop("power", 1.0)
    whole = isinstance(stages, int) and not isinstance(stages, bool)
    if stages is not None and not (whole and 1 <= stages <= MAX_STAGES):
        raise ConfigError(
            f"timm:{settings}: stages {stages!r} is not a whole number in 1..{MAX_STAGES}"
        )
    if isinstance(power, bool | str) or not 0.1 <= power <= 1:
        raise ConfigError(f"timm:{settings}: power {power!r} is not a number in 0.1..1")
    return Taps(stages, float(power), seed)


def tapped(model: "torch.nn.Module", taps: Taps, settings: str, example: Any) -> "torch.nn.Module":
    """Return a module of images to rows, (n, d) as the network's own.

    With stages: the means over positions of the last blocks' outputs, joined; their power; norm 1;
    and a Gaussian projection to the network's own width, drawn from the seed.

    Args:
        example: an input (1, channels, height, width).

    Raises:
        ConfigError: the network has fewer blocks with positions than are asked for.
    """
    import torch

    if not taps.described:
        return model
    width = int(model(example).shape[1])
    blocks: list[torch.nn.Module] = []
    if taps.stages is not None:
        blocks = _last_blocks(model, taps.stages, settings, example)

    class Tapped(torch.nn.Module):
        """The network, with its blocks' outputs on the side."""

        def __init__(self) -> None:
            super().__init__()
            self.network = model
            self.outputs: list[torch.Tensor] = []
            for block in blocks:
                block.register_forward_hook(self._keep)
            channels = self._channels(example) if blocks else 0
            # Not a weight: the seed in the digest stands for it.
            self.projection = (
                torch.from_numpy(_projection(channels, width, taps.seed)) if blocks else None
            )

        def _keep(self, _block: Any, _inputs: Any, output: torch.Tensor) -> None:
            self.outputs.append(_means(output))

        def _channels(self, images: torch.Tensor) -> int:
            return int(self._rows(images).shape[1])

        def _rows(self, images: torch.Tensor) -> torch.Tensor:
            self.outputs.clear()
            own: torch.Tensor = self.network(images)
            rows = torch.cat(self.outputs, dim=1) if blocks else own
            self.outputs.clear()
            return rows.sign() * rows.abs() ** taps.power

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            """Make rows (n, d) of images."""
            rows = self._rows(images)
            if self.projection is None:
                return rows
            units = torch.nn.functional.normalize(rows.float(), dim=1)
            return units @ self.projection.to(units.device)

    return Tapped().eval()


def _last_blocks(
    model: "torch.nn.Module", stages: int, settings: str, example: Any
) -> "list[torch.nn.Module]":
    """Find the last blocks whose output has positions, in the order in which they run."""
    import torch

    found: list[torch.nn.Module] = []

    def note(block: torch.nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.ndim in (3, 4):
            found.append(block)

    handles = [block.register_forward_hook(note) for block in _blocks(model)]
    with torch.inference_mode():
        model(example)
    for handle in handles:
        handle.remove()
    if len(found) < stages:
        raise ConfigError(f"timm:{settings}: stages {stages}, allowed: ≤ {len(found)} here")
    return found[-stages:]


def _blocks(module: "torch.nn.Module") -> "list[torch.nn.Module]":
    """List a network's blocks: the members of its sequences, however deep sequences nest."""
    import torch

    sequences = (torch.nn.Sequential, torch.nn.ModuleList)
    found: list[torch.nn.Module] = []
    for child in module.children():
        if isinstance(child, sequences):
            inside = list(child.children())
            nested = any(isinstance(block, sequences) for block in inside)
            found += _blocks(child) if nested else inside
        elif any(isinstance(part, sequences) for part in child.children()):
            # Stages of some families hold their sequence of blocks in a module.
            found += _blocks(child)
    return found


def _means(output: "torch.Tensor") -> "torch.Tensor":
    """Average over positions: the last two axes of (n, c, h, w), the middle one of (n, t, c)."""
    return output.mean(dim=(2, 3)) if output.ndim == 4 else output.mean(dim=1)


def _projection(channels: int, width: int, seed: int) -> np.ndarray:
    """Draw a Gaussian projection (channels, width) of variance 1/width."""
    drawn = np.random.default_rng([seed, channels, width]).standard_normal((channels, width))
    return (drawn / math.sqrt(width)).astype(np.float32)
