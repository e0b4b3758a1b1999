"""Inputs of other projects' bug reports: each with its thread, and what happens to it here."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.kit.commands import Command

Arguments = list[str]


class Reported(NamedTuple):
    """One odd input.

    Attributes:
        thread: where people reported it.
        make: writes the input into the working folder, and returns the command that takes it.
        says: what the command says; beginning with "Error" if it is refused.
    """

    thread: str
    make: Callable[[], Arguments]
    says: str


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape or (6, 8, 3), dtype=np.uint8)


def save(path: str, seed: int = 0, **options: Any) -> Path:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed)).save(target, **options)
    return target


def put(path: str, content: bytes = b"?") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content)


def site() -> None:
    for number, name in enumerate(("x", "y")):
        for index in range(2):
            save(f"site/{name}/{index}.png", 10 * number + index)


def in_site(write: Callable[[], object]) -> Callable[[], Arguments]:
    def make() -> Arguments:
        site()
        write()
        return ["inspect", "site"]

    return make


def table(**arrays: Any) -> Callable[[], Arguments]:
    def make() -> Arguments:
        np.savez("site.npz", **arrays)
        return ["inspect", "site.npz"]

    return make


def two_tables(first: Any, second: Any, *flags: str) -> Callable[[], Arguments]:
    def make() -> Arguments:
        for name, labels in (("a", first), ("b", second)):
            rows = np.random.default_rng(ord(name)).standard_normal((len(labels), 3))
            np.savez(f"{name}.npz", features=rows, labels=labels)
        return ["run", "--clients", "*.npz", *flags]

    return make


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    whole = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        whole += struct.pack(">I", len(data)) + kind + data
        whole += struct.pack(">I", zlib.crc32(kind + data))
    return whole


HEAD = (b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
BODY = (b"IDAT", zlib.compress((b"\0" + bytes(range(12))) * 4))
END = (b"IEND", b"")
ROWS = np.random.default_rng(0).standard_normal((4, 3))


def turned() -> Arguments:
    site()
    exif = Image.Exif()
    exif[0x112] = 6
    save("site/x/phone.jpg", 5, exif=exif)
    return ["inspect", "site"]


def frames() -> None:
    pictures = [Image.fromarray(pixels(seed)) for seed in (5, 6, 7)]
    pictures[0].save("site/x/stack.tif", save_all=True, append_images=pictures[1:])


def sixteen_bits() -> Arguments:
    for name in ("a", "b"):
        Path(f"sites/{name}/x").mkdir(parents=True)
        deep = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1000
        Image.fromarray(deep).save(f"sites/{name}/x/xray.png")
        save(f"sites/{name}/y/1.png")
    return ["run", "--clients", "sites/*", "--backbone", "identity"]


def palette() -> None:
    picture = Image.fromarray(pixels(5)).convert("P")
    picture.save("site/x/palette.png", transparency=bytes(range(256)))


def copies() -> Arguments:
    site()
    save("test/x/again.bmp", 0)
    save("test/y/other.png", 99)
    return ["inspect", "site", "--test", "test"]


def without_header() -> Arguments:
    """A DICOM file as treatment planning systems write them: neither preamble nor header."""
    from pydicom.dataset import Dataset
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    site()
    dataset = Dataset()
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 3, 4, 1
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.PixelData = np.arange(12, dtype=np.uint16).tobytes()
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_dataset(buffer, dataset)
    put("site/x/dose.dcm", buffer.getvalue())
    return ["inspect", "site"]


def report() -> None:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, BasicTextSRStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = BasicTextSRStorage
    meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    dataset.save_as("site/x/report.dcm", enforce_file_format=True)


def brackets() -> Arguments:
    site()
    Path("[D_DATA]").mkdir()
    Path("site").rename("[D_DATA]/site")
    return ["run", "--clients", "[D_DATA]/*"]


def composed() -> Arguments:
    save("mac/Mu\u0308de/1.png", 1)
    save("mac/M\u00fcde/2.png", 2)
    return ["inspect", "mac"]


def not_utf8() -> Arguments:
    site()
    os.rename(b"site/x", b"site/caf\xea")  # noqa: PTH104
    return ["inspect", "site"]


def mapped(content: bytes) -> Callable[[], Arguments]:
    def make() -> Arguments:
        site()
        put("names.toml", content)
        return ["inspect", "site", "--mapping", "names.toml"]

    return make


MAPPING = "[classes]\r\nx = 'M\u00fcde'\r\n"


def markup() -> Arguments:
    np.savez("site.npz", x=ROWS, y=np.array(["[/<]", "[bold]", "[/<]", ":x:"]))
    return ["inspect", "site.npz"]


def telephone() -> None:
    buffer = io.BytesIO()
    small = Image.fromarray(pixels(9))
    Image.fromarray(pixels(8)).save(buffer, format="MPO", save_all=True, append_images=[small])
    put("site/x/phone.jpg", buffer.getvalue())


GITHUB = "https://github.com/"
REPORTED = [
    Reported("pytorch/vision/issues/2831", in_site(lambda: save("site/.ipynb_checkpoints/0.png")),
             "1 hidden and system files"),
    Reported("pytorch/vision/issues/109", in_site(lambda: put("site/.DS_Store")),
             "rows of each class +│ x: 2, y: 2"),
    Reported("pytorch/vision/issues/4925", in_site(lambda: Path("site/z").mkdir()),
             "class folders without an image that can be read: 'z'"),
    Reported("d8ahazard/sd_dreambooth_extension/issues/64",
             in_site(lambda: put("site/x/Thumbs.db")), "1 hidden and system files"),
    Reported("immich-app/immich/issues/30690",
             in_site(lambda: save("site/x/@eaDir/0.png/SYNOPHOTO_THUMB_XL.jpg")),
             "1 folders of a Synology server"),
    Reported("mseitzer/pytorch-fid/issues/50", in_site(lambda: save("site/x/9.webp", 9)),
             "x: 3, y: 2"),
    Reported("supervisely/supervisely/pull/839", in_site(lambda: save("site/x/9.jfif", 9)),
             "x: 3, y: 2"),
    Reported("007revad/Video_Station_for_DSM_722/issues/86",
             in_site(lambda: put("site/x/IMG_1696.HEIC")), "wrong: site: 1 files are left out"),
    Reported("kohya-ss/sd-scripts/issues/1316", turned, "1 images are turned upright"),
    Reported("python-pillow/Pillow/issues/2574", sixteen_bits,
             "Error: .*xray.png has pixels of mode I.*more than 8 bits"),
    Reported("python-pillow/Pillow/issues/1480",
             in_site(lambda: put("site/x/9.png", png(HEAD, BODY))), "x: 3, y: 2"),
    Reported("python-pillow/Pillow/issues/6118",
             in_site(lambda: put("site/x/9.png", png(HEAD, BODY)[:-20])), "9.png cannot be read"),
    Reported("python-pillow/Pillow/issues/8363",
             in_site(lambda: put("site/x/9.png", png(
                 HEAD, (b"zTXt", b"k\0\0" + zlib.compress(bytes(3_000_000))), BODY, END))),
             "9.png cannot be read as an image .Decompressed data too large"),
    Reported("pytorch/vision/pull/79", in_site(lambda: put("site/x/empty.png", b"")),
             "empty.png cannot be read as an image .no format that is known here"),
    Reported("layumi/University1652-Baseline/issues/17", in_site(palette), "RGB: 4, P: 1"),
    Reported("alephdata/aleph/issues/20", in_site(frames),
             "doubtful: site: 1 images have several frames; the first is read"),
    Reported("libvips/libvips/issues/2958", in_site(telephone), "unreadable +│ 0"),
    Reported("nothings/stb/issues/128",
             in_site(lambda: Image.fromarray(pixels(9)).convert("CMYK").save("site/x/9.jpg")),
             "RGB: 4, CMYK: 1"),
    Reported("pydicom/pydicom/issues/860", without_header, "MONOCHROME1, 16 bits: 1"),
    Reported("vinbigdata-medical/vindr-cxr/issues/3", in_site(report),
             "wrong: .*report.dcm holds no picture"),
    Reported("zalandoresearch/fashion-mnist/issues/44", copies,
             "wrong: site: 1 of 4 rows are in the test set too"),
    Reported("huggingface/datasets/pull/8192", brackets, r"Error: .*write '\[\[\]D_DATA\]/\*'"),
    Reported("nodejs/node/issues/2165", composed, "rows of each class +│ M\u00fcde: 2"),
    Reported("samschott/maestral/issues/230", not_utf8, r"Error: .*caf\\xea.* rename it"),
    Reported("Nayjest/Gito/issues/315",
             mapped(b"\xef\xbb\xbf" + MAPPING.encode()), "M\u00fcde: 2, y: 2"),
    Reported("toml-lang/toml-test/issues/172",
             mapped(MAPPING.encode("utf-16")), "M\u00fcde: 2, y: 2"),
    Reported("mandiant/flare-floss/issues/789", markup, r"\[/<\]: 2"),
    Reported("pytorch/pytorch/issues/15666", two_tables([1, 2, 3, 2], [3, 1, 2, 1]), "3 × 3"),
    Reported("AlfredXiangWu/LightCNN/issues/5", two_tables([0, 1, 2, 0], [1, 2, 3, 1]),
             "b has the labels 1..3, a 0..2; do both count alike"),
    Reported("pytorch/pytorch/issues/1204", table(x=ROWS, y=[0, -1, 1, 0]),
             "Error: .*label -1 at row 1"),
    Reported("MedMNIST/MedMNIST/issues/53",
             table(x=ROWS, y=np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 1, 1]])),
             r"Error: .*labels of shape \(4, 3\).*one class per example"),
    Reported("keras-team/autokeras/issues/23", table(x=ROWS[:3], y=np.eye(3)),
             "Error: .*one-hot; give class numbers"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECURE_AFL_CACHE", str(tmp_path / "cache.sqlite"))


@pytest.mark.parametrize("reported", REPORTED, ids=[case.thread for case in REPORTED])
def test_what_others_reported_is_read_or_refused_in_words(
    reported: Reported, command: Command
) -> None:
    import re

    if reported.make is without_header or "vindr" in reported.thread:
        pytest.importorskip("pydicom")
    outcome = command(*reported.make())
    text = " ".join((outcome.out + outcome.err).split())
    assert re.search(reported.says, text), text
    assert outcome.code == (2 if reported.says.startswith("Error") else 0)
    assert "Traceback" not in text


def test_there_are_thirty_threads_or_more() -> None:
    assert len({case.thread for case in REPORTED}) >= 30
