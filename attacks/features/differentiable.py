"""A frozen backbone as a function that can be differentiated by the image. Needs torch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from secure_afl.errors import ConfigError
from secure_afl.features.backbone import Backbone
from secure_afl.features.pixels import Pixels, Projection
from secure_afl.features.timm import TimmNetwork

if TYPE_CHECKING:
    import torch

# Height, width and channels.
ImageShape = tuple[int, int, int]

_PROBE = 8


@dataclass(frozen=True)
class Differentiable:
    """A backbone's action on an image, from its pixels on.

    Attributes:
        shape: (h, w, channels) of an image once it is resized for the backbone.
        device: where the backbone's weights are.
        features: images (n, channels, h, w) float32 in 0..1 to rows (n, d) float32.
    """

    shape: ImageShape
    device: "torch.device"
    features: Callable[["torch.Tensor"], "torch.Tensor"] = field(repr=False)


def differentiable(backbone: Backbone, image_shape: ImageShape | None = None) -> Differentiable:
    """Return a backbone as `Backbone.extract` applies it to a resized image.

    The method is that of `secure_afl.features.backbone`.

    Resizing is left out, for it is not an image of the original size that an attack looks for but
    one of the backbone's.

    Args:
        backbone: of images.
        image_shape: of the clients' images, which a backbone on pixels has no record of.

    Raises:
        ConfigError: torch is missing, or nobody says what shape the images have.
    """
    require_torch()
    if isinstance(backbone.front, TimmNetwork):
        return _of_network(backbone.front, backbone.projection)
    if not isinstance(backbone.front, Pixels):
        raise ConfigError(f"{backbone.name} is no backbone of images, which this attack rebuilds")
    return _of_pixels(backbone.front, backbone.projection, image_shape)


def require_torch() -> None:
    """Raise ConfigError unless torch can be imported."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ConfigError("feature inversion needs torch; install 'secure-afl[vision]'") from error


def _of_network(network: TimmNetwork, projection: Projection | None) -> Differentiable:
    import torch

    # After resizing, preprocessing is one factor and one offset for each channel; what it makes of
    # black and of white tells both.
    black, white = (
        network.preprocess(Image.new("RGB", (_PROBE, _PROBE), colour)).amax(dim=(1, 2))
        for colour in ("black", "white")
    )
    channels, height, width = network.preprocess(Image.new("RGB", (_PROBE, _PROBE))).shape
    device = next(network.model.parameters()).device
    offset = black.to(device)[:, None, None]
    factor = (white - black).to(device)[:, None, None]
    project = _project(projection, device)

    def features(images: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = network.model(images * factor + offset)
        return project(rows)

    return Differentiable((height, width, channels), device, features)


def _of_pixels(
    pixels: Pixels, projection: Projection | None, image_shape: ImageShape | None
) -> Differentiable:
    import torch

    if image_shape is None:
        raise ConfigError(
            "a backbone on pixels does not say what shape its images have; give image_shape, for "
            "example (8, 8, 1)"
        )
    height, width, channels = image_shape
    if pixels.image_size is not None:
        height = width = pixels.image_size
    device = torch.device("cpu")
    project = _project(projection, device)

    def features(images: torch.Tensor) -> torch.Tensor:
        return project(images.permute(0, 2, 3, 1).flatten(1))

    return Differentiable((height, width, channels), device, features)


def _project(
    projection: Projection | None, device: "torch.device"
) -> Callable[["torch.Tensor"], "torch.Tensor"]:
    import torch

    if projection is None:
        return lambda rows: rows
    matrices: dict[int, torch.Tensor] = {}

    def project(rows: torch.Tensor) -> torch.Tensor:
        width = rows.shape[1]
        if width not in matrices:
            # relu(R) − relu(−R) is R: what the projection does to the unit rows tells its matrix.
            units = np.eye(width, dtype=np.float32)
            matrix = projection.apply(units) - projection.apply(-units)
            matrices[width] = torch.from_numpy(matrix).to(device)
        return (rows @ matrices[width]).relu()

    return project
