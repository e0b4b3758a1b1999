"""Image files of every kind that people have, and what becomes of them."""

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from secure_afl.data import images
from secure_afl.data.images import digest, read_header, read_image, suffixes
from secure_afl.errors import DataError

# A picture without any symmetry.
PICTURE = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
TURNS = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


def tagged(path: Path, tag: int, pixels: Any = PICTURE) -> Path:
    exif = Image.Exif()
    exif[0x112] = tag
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize("suffix", ["bmp", "dib", "gif", "ico", "jp2", "pcx", "ppm", "qoi", "sgi"])
@pytest.mark.parametrize("spelt", [str.lower, str.upper])
def test_what_pillow_reads_is_read(tmp_path: Path, suffix: str, spelt: Any) -> None:
    path = tmp_path / f"picture.{spelt(suffix)}"
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(path, format=formats()[f".{suffix}"])
    assert f".{suffix}" in suffixes()
    np.testing.assert_array_equal(read_image(path), np.full((32, 32, 3), 90))


@pytest.mark.parametrize("suffix", ["png", "tif", "tiff", "tga", "webp"])
def test_lossless_formats_give_their_pixels(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(PICTURE).save(path, lossless=True)
    np.testing.assert_array_equal(read_image(path), PICTURE)
    assert read_header(path, path.read_bytes()).size == (6, 4)


def test_no_format_runs_another_program(tmp_path: Path) -> None:
    assert ".eps" not in suffixes()
    path = tmp_path / "script.png"
    Image.fromarray(PICTURE).save(path, format="EPS")
    with pytest.raises(DataError, match=r"script\.png cannot be read .*no format"):
        read_image(path)


@pytest.mark.parametrize("tag", range(2, 9))
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_an_orientation_tag_is_followed(tmp_path: Path, tag: int, suffix: str) -> None:
    path = tmp_path / f"turned.{suffix}"
    exif = Image.Exif()
    exif[0x112] = tag
    Image.fromarray(PICTURE).save(path, exif=exif, lossless=True)
    np.testing.assert_array_equal(read_image(path), TURNS[tag](PICTURE))
    header = read_header(path, path.read_bytes())
    assert header.size == read_image(path).shape[1::-1]
    assert header.turned == (suffix != "tif")  # Pillow turns TIFF itself


@pytest.mark.parametrize("tag", [0, 1, 9, 200])
def test_other_tags_leave_a_picture_as_it_is(tmp_path: Path, tag: int) -> None:
    path = tagged(tmp_path / "a.png", tag)
    np.testing.assert_array_equal(read_image(path), PICTURE)


def test_a_turned_picture_has_another_key_and_others_keep_theirs(tmp_path: Path) -> None:
    import hashlib

    turned, upright = tagged(tmp_path / "a.jpg", 6), tagged(tmp_path / "b.jpg", 1)
    plain = tmp_path / "c.png"
    Image.fromarray(PICTURE).save(plain)

    def before(path: Path) -> bytes:
        return hashlib.sha256(b"file\0" + path.read_bytes()).digest()

    for path in (upright, plain):
        assert digest(path, path.read_bytes()) == before(path)
    assert digest(turned, turned.read_bytes()) != before(turned)


def test_a_damaged_tag_is_no_damaged_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(PICTURE).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert read_image(path).shape == (4, 6, 3)


def test_the_first_frame_is_read_and_the_others_counted(tmp_path: Path) -> None:
    first, second = (Image.fromarray(np.full((4, 6), grey, np.uint8)) for grey in (10, 200))
    for suffix in ("gif", "tif", "png", "webp"):
        path = tmp_path / f"a.{suffix}"
        first.save(path, save_all=True, append_images=[second], lossless=True)
        assert abs(int(read_image(path).mean()) - 10) <= 1
        assert read_header(path, path.read_bytes()).frames == 2


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG whose chunks have right checksums."""
    whole = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        whole += struct.pack(">I", len(data)) + kind + data
        whole += struct.pack(">I", zlib.crc32(kind + data))
    return whole


HEAD = (b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
BODY = (b"IDAT", zlib.compress(b"\0" * 13 * 4))
END = (b"IEND", b"")


@pytest.mark.parametrize(
    "content",
    [
        png(HEAD, (b"iCCP", b""), BODY, END),
        png(HEAD, (b"tEXt", b"\xff" * 9), END),
        png((b"IHDR", b"\0" * 13), BODY, END),
        png(HEAD, (b"IDAT", b"nothing compressed"), END),
        b"DDS " + struct.pack("<I", 124) + b"\xff" * 120,
        b"qoif",
        b"II*\0" + b"\xff" * 40,
        b"BM" + b"\0" * 60,
        b"RIFF\x20\0\0\0WEBPVP8 " + b"\0" * 20,
        b"<html>not found</html>",
    ],
)
def test_whatever_a_decoder_raises_the_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged\.png cannot be read as an image \(.+\); replace"):
        read_image(path)


def test_a_picture_that_would_fill_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slide.png"
    Image.fromarray(PICTURE).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    with pytest.raises(DataError, match=r"slide\.png .*exceeds limit.*make it smaller"):
        read_image(path)


def test_what_decoders_remark_is_no_warning_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.png"
    Image.fromarray(PICTURE).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).shape == (4, 6, 3)
        assert digest(path, path.read_bytes())


def test_floats_and_sixteen_bits_are_seen_in_the_header(tmp_path: Path) -> None:
    path = tmp_path / "deep.tif"
    Image.fromarray(np.full((4, 5), 0.5, np.float32)).save(path)
    assert read_header(path, path.read_bytes()).deep
    with pytest.raises(DataError, match="mode F, more than 8 bits"):
        read_image(path)


def test_pictures_are_known_by_their_first_bytes(tmp_path: Path) -> None:
    for number, kind in enumerate(("PNG", "JPEG", "GIF", "TIFF", "WEBP", "JPEG2000")):
        path = tmp_path / f"export{number}"
        Image.fromarray(PICTURE).save(path, format=kind)
        assert images.looks_like_image(path), kind
    (tmp_path / "notes").write_text("PNG")
    assert not images.looks_like_image(tmp_path / "notes")
    assert not images.looks_like_image(tmp_path / "missing")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.avif"
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(path)
    assert abs(int(read_image(path).mean()) - 90) < 4


def formats() -> dict[str, str]:
    Image.init()
    return Image.registered_extensions()


def test_a_mirrored_jpeg_of_a_telephone_is_one_picture(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    small = Image.fromarray(np.full((4, 6, 3), 9, np.uint8))
    Image.fromarray(PICTURE).save(buffer, format="MPO", save_all=True, append_images=[small])
    path = tmp_path / "phone.jpg"
    path.write_bytes(buffer.getvalue())
    assert read_header(path, path.read_bytes()).frames == 1
    assert read_image(path).shape == (4, 6, 3)
