"""DICOM files to pixels, through pydicom, which is the extra 'dicom'.

Grey values go through the modality's rescaling and then through the first window or value-of-
interest table of the file (DICOM PS3.3, C.11.1 and C.11.2), whose output range becomes 0..255.
Without either, the range of the stored bits becomes 0..255, whatever values the image has, so that
equal values stay equal from file to file. MONOCHROME1, which shows small values bright, is
inverted.
"""

import io
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from secure_afl.errors import DataError

SUFFIXES = (".dcm", ".dicom", ".ima")
PREAMBLE = 132
MAX_BITS = 16
_GREY = ("MONOCHROME1", "MONOCHROME2")
# Further out than any grey value: what a window makes of them are the ends of its output.
_FAR = 1e12


class About(NamedTuple):
    """A DICOM file's own word about its picture."""

    size: tuple[int, int]
    mode: str
    frames: int
    scaled: bool


def is_dicom(content: bytes) -> bool:
    """Say whether content has DICOM's mark after its preamble (PS3.10, 7.1)."""
    return content[128:PREAMBLE] == b"DICM"


def read_pixels(path: Path, content: bytes) -> NDArray[np.uint8]:
    """Decode the first frame of a DICOM file as RGB, uint8 (h, w, 3).

    Raises:
        DataError: pydicom is missing, the file is damaged or holds no picture, or it has more than
            16 bits.
    """
    with warnings.catch_warnings():
        # pydicom remarks on much that does not touch the pixels.
        warnings.simplefilter("ignore")
        dataset = _read(path, content)
        _check(path, dataset)
        try:
            from pydicom.pixels.processing import apply_color_lut
            from pydicom.pixels.utils import pixel_array

            frame = pixel_array(dataset, index=0)
            if dataset.PhotometricInterpretation in _GREY:
                grey = _to_eight_bits(frame, dataset)
                return np.repeat(grey[:, :, None], 3, axis=2)
            if dataset.PhotometricInterpretation == "PALETTE COLOR":
                frame = apply_color_lut(frame, dataset)
            return _colours(path, frame)
        except DataError:
            raise
        except Exception as error:  # each transfer syntax has decoders of its own
            reason = " ".join(str(error).split())
            raise DataError(
                f"{path} cannot be read as DICOM ({reason[:300]}); replace it, or convert it to "
                "uncompressed DICOM or PNG"
            ) from error


def describe(path: Path, content: bytes) -> About:
    """Read what a DICOM file says of its picture.

    Raises:
        DataError: pydicom is missing, or the file holds no picture.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = _read(path, content)
        _check(path, dataset)
        kind = f"{dataset.PhotometricInterpretation}, {dataset.BitsStored} bits"
        grey = dataset.PhotometricInterpretation in _GREY
        scaled = not grey or _has_window(dataset) or _table(dataset) is not None
        frames = int(dataset.get("NumberOfFrames", 1) or 1)
        return About((int(dataset.Columns), int(dataset.Rows)), kind, frames, scaled)


def _read(path: Path, content: bytes) -> Any:
    try:
        import pydicom
    except ImportError:
        raise DataError(
            f"{path} is a DICOM file, which pydicom reads; install 'secure-afl[dicom]'"
        ) from None
    try:
        dataset = pydicom.dcmread(io.BytesIO(content), force=True)
        _name_syntax(dataset)
        return dataset
    except Exception as error:  # pydicom raises what its parsers meet
        raise DataError(
            f"{path} cannot be read as DICOM ({' '.join(str(error).split())[:300]}); "
            "replace it or delete it"
        ) from error


def _name_syntax(dataset: Any) -> None:
    """Name the transfer syntax that a file without a header was read in, if that can be.

    Old systems write files without one. Compressed pixels stay unnamed: nothing says how.
    """
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    meta = getattr(dataset, "file_meta", None) or FileMetaDataset()
    compressed = bytes(dataset.get("PixelData", b"")[:4]) == b"\xfe\xff\x00\xe0"
    if "TransferSyntaxUID" in meta or compressed:
        return
    implicit, little = dataset.original_encoding
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    dataset.file_meta = meta


def _check(path: Path, dataset: Any) -> None:
    """Raise DataError unless a file holds a picture of at most 16 bits."""
    needed = ("Rows", "Columns", "BitsStored", "PhotometricInterpretation", "PixelData")
    if missing := [name for name in needed if dataset.get(name) in (None, "")]:
        raise DataError(
            f"{path} holds no picture (a DICOM file without {missing[0]}); delete it, or move it "
            "out of the class folder"
        )
    if dataset.BitsStored > MAX_BITS:
        raise DataError(
            f"{path} has {dataset.BitsStored} bits a value; allowed: 1..{MAX_BITS}. Export it with "
            "fewer bits"
        )


def _to_eight_bits(frame: NDArray[Any], dataset: Any) -> NDArray[np.uint8]:
    """Bring grey values (h, w) to 0..255, as this module's docstring says."""
    from pydicom.pixels.processing import apply_modality_lut, apply_windowing

    values = apply_modality_lut(frame, dataset)
    if (table := _table(dataset)) is not None:
        low, high = 0.0, float((1 << int(table.LUTDescriptor[2])) - 1)
        values = _looked_up(values, table)
    elif _has_window(dataset):
        # A window works on numbers of any size, and its ends are where it ends.
        low, high = apply_windowing(np.array([-_FAR, _FAR]), dataset)
        values = apply_windowing(values, dataset)
    else:
        bits = int(dataset.BitsStored)
        least = -(1 << (bits - 1)) if dataset.PixelRepresentation else 0
        stored = np.array([least, least + (1 << bits) - 1], dtype=frame.dtype)
        low, high = sorted(np.asarray(apply_modality_lut(stored, dataset), dtype=np.float64))
    share = (np.asarray(values, dtype=np.float64) - low) / (high - low)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        share = 1.0 - share
    return np.rint(np.clip(share, 0.0, 1.0) * 255).astype(np.uint8)


def _looked_up(values: NDArray[Any], table: Any) -> NDArray[np.float64]:
    """Look values up in a value-of-interest table (PS3.3, C.11.2.1.1).

    pydicom's own `apply_voi` counts places of 8-bit tables in 8 bits, and wraps beyond 255.
    """
    entries, first = int(table.LUTDescriptor[0]) or 1 << 16, int(table.LUTDescriptor[1])
    data = table.LUTData
    words = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.asarray(data)
    places = np.clip(np.rint(values) - first, 0, entries - 1).astype(np.int64)
    found: NDArray[np.float64] = words.astype(np.float64)[places]
    return found


def _colours(path: Path, frame: NDArray[Any]) -> NDArray[np.uint8]:
    """Bring colours (h, w, 3 or more) to uint8 (h, w, 3)."""
    if frame.ndim != 3 or frame.shape[2] < 3:
        raise DataError(f"{path} has pixels of shape {frame.shape}; convert it to PNG")
    if frame.dtype == np.uint16:
        # A palette's entries have 16 bits.
        frame = np.rint(frame / 257.0)
    colours: NDArray[np.uint8] = np.ascontiguousarray(frame[:, :, :3]).astype(np.uint8)
    return colours


def _has_window(dataset: Any) -> bool:
    return None not in (dataset.get("WindowCenter"), dataset.get("WindowWidth"))


def _table(dataset: Any) -> Any:
    """Return the value-of-interest table that pydicom applies; None without one."""
    tables = dataset.get("VOILUTSequence")
    usable = tables and None not in (tables[0].get("LUTDescriptor"), tables[0].get("LUTData"))
    return tables[0] if usable else None
