"""From a feature to an image by optimisation through the frozen backbone. Needs torch.

Mahendran and Vedaldi 2015, "Understanding deep image representations by inverting them", with the
cosine in place of the distance, for rows brought to norm 1 have no length left.
"""

from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from attacks.features.differentiable import Differentiable
from secure_afl.analytic.quantise import Floats
from secure_afl.checks import settle_float, settle_int
from secure_afl.errors import ConfigError

if TYPE_CHECKING:
    import torch

MAX_STEPS = 100_000
MAX_SMOOTHNESS = 1e6

# Below this, a row has no direction.
_MIN_NORM = 1e-12
# Deviation of the uniform colours that images begin with: equal targets, different images.
_START = 0.02


class Settings(msgspec.Struct, frozen=True):
    """Settings of the search for an image.

    Attributes:
        steps: of Adam, ≥ 1, shared out evenly among the stages.
        rate: Adam's, in pixel values, > 0; it falls to a tenth by the last step of a stage.
        smoothness: λ of the prior, the mean squared difference of neighbouring pixels; ≥ 0.
        jitter: the image is shifted by up to so many pixels at every step, ≥ 0. It makes images
            less noisy, but features of a small image follow its shifts, and fit worse.
        stages: the first image is 2^(stages − 1) times smaller than the backbone's, and grows by
            two from stage to stage; ≥ 1.
        seed: of the shifts and of the image to begin with.
    """

    steps: int = 300
    rate: float = 0.05
    smoothness: float = 200.0
    jitter: int = 0
    stages: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        settle_int(self, "steps", 1, MAX_STEPS)
        settle_float(self, "rate", 1e-9, 10)
        settle_float(self, "smoothness", 0, MAX_SMOOTHNESS)
        settle_int(self, "jitter", 0, 64)
        settle_int(self, "stages", 1, 8)
        settle_int(self, "seed", 0, 2**63 - 1)


class Inverted(NamedTuple):
    """Images (n, h, w, channels) float32 in 0..1, and their cosines to their targets.

    The cosines are (n,).
    """

    images: NDArray[np.float32]
    cosines: Floats


def invert(
    backbone: Differentiable,
    targets: NDArray[np.floating],
    settings: Settings | None = None,
    begin: NDArray[np.floating] | None = None,
) -> Inverted:
    """Find images whose features point where the targets do, as smooth as `smoothness` asks.

    min over δ of 1 − cos(φ(x), target) + λ·mean (δ − its neighbour)², where x = begin + δ within
    0..1, by Adam; one image for each target, all in one batch. δ is found at a low resolution
    first, which is then doubled from stage to stage.

    Args:
        backbone: φ.
        targets: (n, d) rows of any length, n ≥ 1.
        settings: by default `Settings()`.
        begin: an image (h, w, channels) in 0..1 to begin with, such as the mean of public ones, of
            the backbone's shape; by default grey.

    Returns:
        The images, and the cosines reached without any shift.

    Raises:
        ConfigError: a target of no direction, or of another width than the backbone's; or a first
            image of another shape.
    """
    import torch

    settings = settings or Settings()
    lengths = np.linalg.norm(targets, axis=1)
    if not (np.isfinite(lengths) & (lengths > _MIN_NORM)).all():
        raise ConfigError("a feature of norm 0, or not finite, has no direction; leave it out")
    unit = torch.from_numpy((targets / lengths[:, None]).astype(np.float32)).to(backbone.device)
    first = np.full(backbone.shape, 0.5) if begin is None else np.asarray(begin)
    if first.shape != backbone.shape:
        raise ConfigError(
            f"the image to begin with is {list(first.shape)}, the backbone's are "
            f"{list(backbone.shape)}; resize it"
        )
    base = torch.from_numpy(first.astype(np.float32)).to(backbone.device).permute(2, 0, 1)[None]
    height, width, channels = backbone.shape
    random = torch.Generator().manual_seed(settings.seed)
    # No smaller than four pixels each way.
    stages = min(settings.stages, max(1, min(height, width).bit_length() - 2))
    start = _START * torch.randn(len(unit), channels, 1, 1, generator=random)
    difference = start.to(backbone.device)
    for stage in range(stages):
        shrink = 2 ** (stages - 1 - stage)
        size = (-(-height // shrink), -(-width // shrink))
        steps = settings.steps // stages + (stage < settings.steps % stages)
        difference = _stage(
            backbone, unit, base, _resize(difference, size), steps, settings, random
        )
    with torch.inference_mode():
        images = (base + difference).clamp(0, 1)
        cosines = _cosines(backbone, images, unit)
    pixels = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return Inverted(pixels, cosines.double().cpu().numpy())


def _stage(
    backbone: Differentiable,
    unit: "torch.Tensor",
    base: "torch.Tensor",
    begin: "torch.Tensor",
    steps: int,
    settings: Settings,
    random: "torch.Generator",
) -> "torch.Tensor":
    """Return the differences from `base`, (n, channels, h', w'), after one resolution's steps."""
    import torch

    difference = begin.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([difference], lr=settings.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, max(1, steps), eta_min=0.1 * settings.rate
    )
    span = 2 * settings.jitter + 1
    size = backbone.shape[:2]
    room = _resize(base, (difference.shape[2], difference.shape[3]))
    for _ in range(steps):
        optimiser.zero_grad()
        down, right = (
            int(torch.randint(span, (1,), generator=random)) - settings.jitter for _ in range(2)
        )
        images = (base + _resize(difference, size)).clamp(0, 1)
        misfit = 1 - _cosines(backbone, torch.roll(images, (down, right), dims=(2, 3)), unit)
        # Summed, not averaged: an image does not depend on how many others are looked for.
        loss = (misfit + settings.smoothness * _roughness(difference)).sum()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            torch.maximum(torch.minimum(difference, 1 - room), -room, out=difference)
    return difference.detach()


def _cosines(
    backbone: Differentiable, images: "torch.Tensor", unit: "torch.Tensor"
) -> "torch.Tensor":
    import torch

    rows = backbone.features(images)
    if rows.shape[1] != unit.shape[1]:
        raise ConfigError(
            f"the features have {unit.shape[1]} entries, the backbone makes {rows.shape[1]}; give "
            "the backbone that made them"
        )
    return torch.nn.functional.cosine_similarity(rows, unit, dim=1)


def _roughness(images: "torch.Tensor") -> "torch.Tensor":
    """Return the mean squared difference between neighbouring pixels, (n,)."""
    down = (images[:, :, 1:, :] - images[:, :, :-1, :]).square().mean(dim=(1, 2, 3))
    right = (images[:, :, :, 1:] - images[:, :, :, :-1]).square().mean(dim=(1, 2, 3))
    return down + right


def _resize(images: "torch.Tensor", size: tuple[int, int]) -> "torch.Tensor":
    import torch

    if tuple(images.shape[2:]) == size:
        return images
    return torch.nn.functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
