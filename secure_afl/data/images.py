"""Image files to pixels."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from secure_afl.errors import DataError

_EIGHT_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image file as RGB, uint8 (h, w, 3); grey is replicated, transparency dropped.

    Raises:
        DataError: a file that is missing, damaged, or has more than 8 bits per channel.
    """
    content = read_bytes(path)
    try:
        with Image.open(io.BytesIO(content)) as image:
            mode = image.mode
            # Pillow warns about palettes with transparent entries unless they go through RGBA.
            opaque = image.convert("RGBA") if "transparency" in image.info else image
            pixels = np.array(opaque.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} cannot be read as an image ({error}); replace it or delete it"
        ) from error
    if mode not in _EIGHT_BIT_MODES:
        raise DataError(
            f"{path} has pixels of mode {mode}, more than 8 bits per channel; "
            "scale it to 0..255 and save it with 8 bits"
        )
    return pixels


def read_bytes(path: Path) -> bytes:
    """Read a file whole.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); check that it is there") from error
