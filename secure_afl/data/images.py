"""Image files to pixels: what Pillow decodes, and DICOM through pydicom."""

import hashlib
import io
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from secure_afl.data import dicom
from secure_afl.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

# Pillow hands EPS to Ghostscript and WMF to Windows, and only recognises the others.
_NOT_DECODED = ("EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG")
_EIGHT_BIT_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
# Formats of which later frames are other pictures. A telephone's MPO is one picture.
_FRAMED = ("GIF", "TIFF", "WEBP", "PNG", "AVIF")
_MAGIC = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"II*\0",
    b"MM\0*",
    b"\0\0\0\x0cjP  ",
    b"qoif",
    b"DDS ",
    b"8BPS",
)
# Orientation: EXIF 2.32, table 6; where the picture's first row and column lie. Pillow's names for
# what makes it upright.
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_ORIENTATION = 0x0112
# Without any of these in it, a file has no orientation; most have none.
_MARKS = (b"Exif", b"EXIF", b"eXIf", b"Raw profile type", b"Orientation", b"XML:com.adobe.xmp")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Header:
    """A file's own word about its picture.

    Attributes:
        size: width and height as people see it, in pixels.
        mode: the file's pixels, as Pillow or DICOM calls them.
        turned: a tag says that the picture lies on a side or is mirrored.
        frames: pictures in the file, of which the first is read.
        deep: more than 8 bits a channel, which only DICOM says how to show.
        unscaled: a DICOM file without a window.
    """

    size: tuple[int, int]
    mode: str
    turned: bool = False
    frames: int = 1
    deep: bool = False
    unscaled: bool = False


@cache
def formats() -> tuple[str, ...]:
    """Return the formats that Pillow decodes in this process, by Pillow's names."""
    from PIL import Image

    Image.init()
    return tuple(sorted(set(Image.OPEN) - set(_NOT_DECODED)))


@cache
def suffixes() -> frozenset[str]:
    """Return the suffixes of image files that can be read, in small letters with their dot."""
    from PIL import Image

    known = formats()
    registered = Image.registered_extensions()
    pillow = (suffix for suffix, kind in registered.items() if kind in known)
    return frozenset([*pillow, *dicom.SUFFIXES])


def looks_like_image(path: Path) -> bool:
    """Say whether a file begins as an image does, whatever its name."""
    try:
        with path.open("rb") as file:
            head = file.read(dicom.PREAMBLE)
    except OSError:
        return False
    webp = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    return head.startswith(_MAGIC) or webp or dicom.is_dicom(head)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image file as RGB, uint8 (h, w, 3).

    Grey is replicated, transparency dropped, an orientation tag followed, and of several frames
    the first is read. `secure_afl.data.dicom` says how DICOM's grey values become 8 bits.

    Raises:
        DataError: a file that is missing, damaged, or has more than 8 bits per channel.
    """
    content = read_bytes(path)
    if _is_dicom(path, content):
        return dicom.read_pixels(path, content)
    try:
        # What a decoder wonders about is counted by `inspect`, and said there.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mode, pixels = _decode(content)
    except Exception as error:  # decoders raise what they like: IndexError, NotImplementedError, …
        raise _unreadable(path, error) from error
    if mode not in _EIGHT_BIT_MODES:
        raise DataError(
            f"{path} has pixels of mode {mode}, more than 8 bits per channel; "
            "scale it to 0..255 and save it with 8 bits"
        )
    return pixels


def read_header(path: Path, content: bytes) -> Header:
    """Read what a file says of its picture, without decoding the pixels.

    Raises:
        DataError: no image.
    """
    if _is_dicom(path, content):
        about = dicom.describe(path, content)
        return Header(about.size, about.mode, frames=about.frames, unscaled=not about.scaled)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _open(content) as image:
                width, height = image.size
                tag = _orientation(image, content)
                frames = getattr(image, "n_frames", 1) if image.format in _FRAMED else 1
                deep = image.mode not in _EIGHT_BIT_MODES
                size = (height, width) if tag >= 5 else (width, height)
                return Header(size, image.mode, tag > 1, frames, deep)
    except Exception as error:  # as in `read_image`
        raise _unreadable(path, error) from error


def digest(path: Path, content: bytes) -> bytes:
    """Hash what an image file's pixels follow from: its content and how it is decoded, 32 bytes.

    The key changes where another version of this module would give other pixels.
    """
    if _is_dicom(path, content):
        way = b"dicom, 1\0"
    elif _is_turned(content):
        way = b"upright\0"
    else:
        way = b"file\0"
    return hashlib.sha256(way + content).digest()


def read_bytes(path: Path) -> bytes:
    """Read a file whole.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); check that it is there") from error


def _is_dicom(path: Path, content: bytes) -> bool:
    return dicom.is_dicom(content) or path.suffix.lower() in dicom.SUFFIXES


def _open(content: bytes) -> "Image.Image":
    from PIL import Image

    return Image.open(io.BytesIO(content), formats=formats())


def _decode(content: bytes) -> tuple[str, NDArray[np.uint8]]:
    from PIL.Image import Transpose

    with _open(content) as image:
        mode = image.mode
        if mode not in _EIGHT_BIT_MODES:
            return mode, np.empty((0, 0, 3), np.uint8)
        tag = _orientation(image, content)
        # Pillow warns about palettes with transparent entries unless they go through RGBA.
        opaque = image.convert("RGBA") if "transparency" in image.info else image
        whole = opaque.convert("RGB")
        return mode, np.array(whole.transpose(Transpose[_UPRIGHT[tag]]) if tag > 1 else whole)


def _orientation(image: Any, content: bytes) -> int:
    """Return the orientation that is still to be followed, 1 to 8; 1 is upright."""
    # Pillow turns TIFF itself, as it decodes.
    if content.startswith(_TIFF) or not any(mark in content for mark in _MARKS):
        return 1
    try:
        tag = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged tag is no damaged picture
        return 1
    return tag if tag in _UPRIGHT else 1


def _is_turned(content: bytes) -> bool:
    if content.startswith(_TIFF) or not any(mark in content for mark in _MARKS):
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _open(content) as image:
                return _orientation(image, content) > 1
    except Exception:  # it cannot be decoded either, and is named then
        return False


def _unreadable(path: Path, error: Exception) -> DataError:
    from PIL import Image, UnidentifiedImageError

    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        reason = "no format that is known here"
    if isinstance(error, Image.DecompressionBombError):
        reason = f"{reason.split(',')[0]}; make it smaller"
    return DataError(f"{path} cannot be read as an image ({reason}); replace it or delete it")
