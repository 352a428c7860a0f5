"""Files of images of every kind, whole and broken, and what cameras and editors note in them."""

import io
import struct

import numpy as np
import PIL
import pytest
from PIL import Image
from support.borders import Refused, check, outcomes
from support.pictures import BLUE, RED, grey_16_bits, halves
from support.tiny import encoded

from hf_pmgaft.data import read_image

PICTURE = halves(RED, BLUE)
LEVELS = np.asarray(PICTURE).astype(int)
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
TALL = Image.new("RGB", (1, 3000), RED)


def animation(form: str) -> bytes:
    file = io.BytesIO()
    PICTURE.save(file, form, save_all=True, append_images=[halves(BLUE, RED)], lossless=True)
    return file.getvalue()


def noted(form: str, exif: bytes, **options) -> bytes:
    return encoded(PICTURE, format=form, exif=exif, **options)


def entries(*fields: tuple[int, int, int, int], data: bytes = b"") -> bytes:
    """An EXIF block of fields `(tag, type, count, value)`; data stand behind two of them, at 38."""
    table = b"".join(struct.pack("<HHII", *field) for field in fields)
    block = b"II*\0" + struct.pack("<IH", 8, len(fields)) + table + bytes(4)
    return b"Exif\0\0" + block + data


def orientation(value: int) -> bytes:
    return entries((274, 3, 1, value))


SHARP = {"quality": 100, "subsampling": 0}
UPRIGHT, TURNED = LEVELS, LEVELS[::-1, ::-1]
# Before 13, Pillow reads no TIFF of this kind, not even its own.
YCBCR = UPRIGHT if int(PIL.__version__.partition(".")[0]) >= 13 else Refused("truncated", OSError)

FILES = {
    "PNG": (encoded(PICTURE), UPRIGHT),
    "JPEG": (encoded(PICTURE, format="JPEG", **SHARP), UPRIGHT),
    "WebP": (encoded(PICTURE, format="WEBP", lossless=True), UPRIGHT),
    "BMP": (encoded(PICTURE, format="BMP"), UPRIGHT),
    "TIFF": (encoded(PICTURE, format="TIFF"), UPRIGHT),
    "a palette": (encoded(PICTURE.convert("P")), UPRIGHT),
    "YCbCr": (encoded(PICTURE.convert("YCbCr"), format="TIFF"), YCBCR),
    "an animated GIF": (animation("GIF"), UPRIGHT),
    "an animated WebP": (animation("WEBP"), UPRIGHT),
    "a TIFF of several pages": (animation("TIFF"), UPRIGHT),
    "one pixel": (encoded(Image.new("RGB", (1, 1), RED)), np.array([[RED]])),
    "one pixel wide": (encoded(TALL), np.asarray(TALL)),
    "turned upside down": (noted("PNG", orientation(3)), TURNED),
    "EXIF that is no TIFF, in a PNG": (noted("PNG", b"Exif\0\0broken block"), UPRIGHT),
    "EXIF that is no TIFF, in a JPEG": (noted("JPEG", b"Exif\0\0broken block", **SHARP), UPRIGHT),
    "EXIF that is no TIFF, in a WebP": (noted("WEBP", b"Exif\0\0broken block", lossless=True), UPRIGHT),
    "EXIF that ends early": (noted("PNG", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"), UPRIGHT),
    "EXIF of nothing": (noted("PNG", b"Exif\0\0"), UPRIGHT),
    "an orientation that there is not": (noted("PNG", orientation(42)), UPRIGHT),
    "an orientation of 0": (noted("PNG", orientation(0)), UPRIGHT),
    "text where there should be a number": (
        noted("PNG", entries((274, 2, 4, int.from_bytes(b"left", "little")))),
        UPRIGHT,
    ),
    "a ratio to nothing": (
        noted("PNG", entries((274, 3, 1, 3), (282, 5, 1, 38), data=struct.pack("<II", 1, 0))),
        TURNED,
    ),
    "half a PNG": (encoded(NOISE)[:6000], Refused("truncated", OSError)),
    "half a PNG with a broken EXIF": (
        encoded(NOISE, exif=b"Exif\0\0broken")[:6000],
        Refused("truncated", OSError),
    ),
    "half a JPEG": (encoded(NOISE, format="JPEG")[:1500], Refused("truncated", OSError)),
    "a page of HTML": (b"<html>404 Not Found</html>", Refused("no image of a kind that Pillow knows")),
    "an SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', Refused("no image of a kind that Pillow knows")),
    "floats without a scale": (encoded(Image.new("F", (8, 8)), format="TIFF"), Refused("mode F holds numbers")),
    "32 bits without a scale": (encoded(Image.new("I", (8, 8)), format="TIFF"), Refused("mode I holds numbers")),
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@outcomes(FILES)
def test_files_of_images(given, outcome):
    if isinstance(outcome, Refused):
        check(lambda: read_image(given), outcome)
    else:
        assert np.abs(np.asarray(read_image(given)).astype(int) - outcome).max() <= 3


@pytest.mark.parametrize(
    "error", [KeyError, ZeroDivisionError, UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), OSError]
)
def test_whatever_reading_an_exif_raises_the_pixels_stay(monkeypatch, error):
    def fail(image):
        raise error

    image = Image.open(io.BytesIO(noted("PNG", orientation(3))))
    monkeypatch.setattr("PIL.ImageOps.exif_transpose", fail)
    assert np.array_equal(np.asarray(read_image(image)), UPRIGHT)
    monkeypatch.setattr(Image.Image, "getexif", fail)
    assert np.array_equal(np.asarray(read_image(image)), UPRIGHT)


def test_an_image_of_16_bits_is_grey():
    assert np.asarray(read_image(encoded(grey_16_bits())))[0, 0].tolist() == [64, 64, 64]


def test_an_image_beyond_pillows_limit_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    check(lambda: read_image(encoded(PICTURE)), Refused("exceeds limit of 80 pixels", Image.DecompressionBombError))
