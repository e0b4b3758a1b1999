"""DICOM files: windows, bits and what holds no picture."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_afl.data import dicom
from secure_afl.data.images import digest, looks_like_image, read_header, read_image
from secure_afl.data.scan import is_image
from secure_afl.errors import DataError

pydicom = pytest.importorskip("pydicom")

RAMP = np.arange(12, dtype=np.uint16).reshape(3, 4) * 300


def write(path: Path, pixels: Any = RAMP, **tags: Any) -> Path:
    """A file of secondary capture; tags are added, or left out where they are None."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(io.BytesIO(), {}, file_meta=meta, preamble=bytes(128))
    grey = pixels.shape[-1] != 3
    bits = pixels.dtype.itemsize * 8
    about: dict[str, Any] = {
        "SOPClassUID": SecondaryCaptureImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "Rows": pixels.shape[-2 if grey else -3],
        "Columns": pixels.shape[-1 if grey else -2],
        "SamplesPerPixel": 1 if grey else 3,
        "PhotometricInterpretation": "MONOCHROME2" if grey else "RGB",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes(),
    } | ({} if grey else {"PlanarConfiguration": 0})
    for name, value in (about | tags).items():
        if value is not None:
            setattr(dataset, name, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW" if bits == 16 else "OB"
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_a_window_becomes_0_to_255(tmp_path: Path) -> None:
    # PS3.3 C.11.2.1.2.1: x ≤ c − 0.5 − (w − 1)/2 is black, x > c − 0.5 + (w − 1)/2 white.
    path = write(tmp_path / "a.dcm", WindowCenter=1500, WindowWidth=1201)
    wanted = np.clip((RAMP - 1499.5) / 1200 + 0.5, 0, 1) * 255
    shown = read_image(path)
    assert shown.shape == (3, 4, 3)
    np.testing.assert_array_equal(shown[:, :, 0], np.rint(wanted))
    np.testing.assert_array_equal(shown[:, :, 0], shown[:, :, 2])
    assert not read_header(path, path.read_bytes()).unscaled


def test_a_window_is_of_rescaled_values(tmp_path: Path) -> None:
    path = write(
        tmp_path / "ct.dcm",
        (RAMP.astype(np.int16) - 1000),
        RescaleSlope=2,
        RescaleIntercept=-24,
        WindowCenter=40,
        WindowWidth=400,
    )
    units = (RAMP.astype(float) - 1000) * 2 - 24
    wanted = np.clip((units - 39.5) / 399 + 0.5, 0, 1) * 255
    np.testing.assert_array_equal(read_image(path)[:, :, 0], np.rint(wanted))


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_without_a_window_the_stored_range_becomes_0_to_255(tmp_path: Path, bits: int) -> None:
    kind = np.uint8 if bits == 8 else np.uint16
    pixels = np.linspace(0, 2**bits - 1, 12).astype(kind).reshape(3, 4)
    path = write(tmp_path / "a.dcm", pixels, BitsStored=bits, HighBit=bits - 1)
    wanted = np.rint(pixels / (2**bits - 1) * 255)
    np.testing.assert_array_equal(read_image(path)[:, :, 0], wanted)
    assert read_header(path, path.read_bytes()).unscaled
    # Equal values stay equal, whatever else is in the picture.
    dim = write(tmp_path / "b.dcm", pixels // 2, BitsStored=bits, HighBit=bits - 1)
    assert read_image(dim).max() < 130


def test_signed_values_have_a_range_too(tmp_path: Path) -> None:
    pixels = np.array([[-2048, -1, 0, 2047]], np.int16)
    path = write(tmp_path / "a.dcm", pixels, BitsStored=12, HighBit=11)
    assert read_image(path)[0, :, 0].tolist() == [0, 127, 128, 255]


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    two = write(tmp_path / "2.dcm", WindowCenter=1500, WindowWidth=1201)
    one = write(
        tmp_path / "1.dcm",
        WindowCenter=1500,
        WindowWidth=1201,
        PhotometricInterpretation="MONOCHROME1",
    )
    total = read_image(one).astype(int) + read_image(two)
    assert set(np.unique(total)) <= {254, 255, 256}


@pytest.mark.parametrize("words", ["US", "OW"])
def test_a_table_of_interest_is_applied(tmp_path: Path, words: str) -> None:
    entries = np.minimum(np.arange(400) // 2, 255).astype("<u2")
    table = pydicom.Dataset()
    table.LUTDescriptor = [400, 10, 8]
    table.add_new((0x0028, 0x3006), words, entries.tobytes() if words == "OW" else entries.tolist())
    # Beyond 255, where a place no longer fits 8 bits, too.
    pixels = np.array([[0, 10, 210, 310, 409, 900]], np.uint16)
    path = write(tmp_path / "a.dcm", pixels, VOILUTSequence=[table])
    assert read_image(path)[0, :, 0].tolist() == [0, 0, 100, 150, 199, 199]
    assert not read_header(path, path.read_bytes()).unscaled


def test_colours_stay_as_they_are(tmp_path: Path) -> None:
    pixels = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    np.testing.assert_array_equal(read_image(write(tmp_path / "a.dcm", pixels)), pixels)


def test_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = np.stack([np.full((3, 4), grey, np.uint8) for grey in (7, 200)])
    path = write(tmp_path / "a.dcm", frames, NumberOfFrames=2)
    assert read_image(path).tolist() == np.full((3, 4, 3), 7).tolist()
    assert read_header(path, path.read_bytes()).frames == 2


@pytest.mark.parametrize("name", ["1.2.840.113619.2.5", "IM000001", "a.dcm", "a.DCM", "a.ima"])
def test_names_of_hospitals_are_known(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, RAMP.astype(np.uint8))
    assert is_image(path)
    assert looks_like_image(path)
    assert read_image(path).shape == (3, 4, 3)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"PixelData": None}, "holds no picture .*without PixelData"),
        ({"Rows": None}, "without Rows"),
        (
            {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31},
            r"32 bits a value; allowed: 1\.\.",
        ),
        ({"PixelData": b"\0\0"}, "cannot be read as DICOM"),
        ({"WindowCenter": 3, "WindowWidth": 0}, "cannot be read as DICOM .*Width"),
    ],
)
def test_a_file_without_a_usable_picture_is_named(
    tmp_path: Path, tags: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "report.dcm", **tags)
    with pytest.raises(DataError, match=r"report\.dcm .*" + message):
        read_image(path)


def test_no_dicom_under_its_name_is_named(tmp_path: Path) -> None:
    for content in (b"", b"text", bytes(200)):
        (tmp_path / "a.dcm").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.dcm (cannot be read|holds no picture)"):
            read_image(tmp_path / "a.dcm")


def test_without_pydicom_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.dcm")
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(DataError, match=r"pydicom reads; install 'secure-afl\[dicom\]'"):
        read_image(path)


def test_a_dicom_file_has_a_key_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm")
    content = path.read_bytes()
    assert dicom.is_dicom(content)
    assert digest(path, content) == digest(tmp_path / "elsewhere", content)
