"""Images of a data set as one array."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from secure_afl.data.dataset import Dataset
from secure_afl.errors import DataError


def load_stack(dataset: Dataset, side: int) -> NDArray[np.float32]:
    """Load all images of a data set at one size, (n, side, side, 3).

    They are float32 in 0..1.

    Grey is replicated to three channels.

    Raises:
        DataError: the data set holds features, or an image cannot be read.
    """
    if not dataset.holds_images:
        raise DataError(
            f"{dataset.name} holds features, not images; give a folder of images or an .npz of them"
        )
    stack = np.empty((len(dataset), side, side, 3), dtype=np.float32)
    for index in range(len(dataset)):
        image = Image.fromarray(dataset.image(index)).convert("RGB")
        stack[index] = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))
    return stack / np.float32(255)


def resize_stack(stack: NDArray[np.floating], side: int) -> NDArray[np.float32]:
    """Resize images (n, h, w, channels), to float32 (n, side, side, channels) in 0..1."""
    n, height, width, channels = stack.shape
    if (height, width) == (side, side):
        return np.asarray(stack, dtype=np.float32)
    resized = np.empty((n, side, side, channels), dtype=np.float32)
    for index, image in enumerate(stack):
        for channel in range(channels):
            plane = Image.fromarray(np.ascontiguousarray(image[..., channel], dtype=np.float32))
            shrunk = plane.resize((side, side), Image.Resampling.BICUBIC)
            resized[index, ..., channel] = np.asarray(shrunk)
    return np.clip(resized, 0.0, 1.0)
