"""A picture that somebody hands in is opened, or refused in one clear line before its pixels are read."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from support.borders import Refused, check, outcomes
from support.tiny import encoded

from hf_pmgaft.data import open_picture, pictures

RED = Image.new("RGB", (30, 20), "red")


def header_of_png(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and has no pixels."""
    content = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + content
    checksum = struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + checksum + struct.pack(">I", 99) + b"IDAT"


def on_its_side() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(RED, format="JPEG", exif=exif)


def several(kind: str) -> bytes:
    frames = [RED, Image.new("RGB", (30, 20), "blue")]
    return encoded(frames[0], format=kind, save_all=True, append_images=frames[1:])


CASES = {
    "a PNG": (encoded(RED), (30, 20)),
    "a JPEG that was held upright": (on_its_side(), (20, 30)),
    "an opened image": (RED, (30, 20)),
    "an open file": (io.BytesIO(encoded(RED)), (30, 20)),
    "an entry of datasets": ({"bytes": encoded(RED), "path": "red.png"}, (30, 20)),
    "a photograph with a smaller one beside it": (several("MPO"), (30, 20)),
    "a GIF that moves": (several("GIF"), Refused("a GIF of 2 pictures")),
    "a PNG that moves": (several("PNG"), Refused("a PNG of 2 pictures")),
    "pages": (several("TIFF"), Refused("a TIFF of 2 pictures")),
    "40 megapixels": (header_of_png(8000, 5000), Refused("8000 x 5000, which is 40.0 million pixels; at most 25")),
    "400 megapixels": (header_of_png(20000, 20000), Refused("far too many pixels")),
    "a picture that ends too soon": (encoded(Image.effect_noise((99, 99), 90))[:2000], Refused("is broken")),
    "PostScript, which starts a program": (encoded(RED, format="EPS"), Refused("the format EPS, which is not opened")),
    "a text": (b"cats and dogs", Refused("cannot be opened: its 13 bytes are no image")),
    "nothing": (b"", Refused("cannot be opened")),
    "no picture": (None, Refused("a NoneType as a picture")),
    "numbers": (np.zeros((4, 4, 3), np.uint8), Refused("a ndarray as a picture")),
    "a file that is not there": ("nowhere.png", Refused("there is no file 'nowhere.png'")),
    "a folder": (".", Refused("the folder '.'")),
    "an address": ("https://example.org/cat.png", Refused("the address 'https://example.org/cat.png'")),
    "an address in an entry of datasets": ({"path": "hf://a/b.png", "bytes": None}, Refused("the address")),
    "floats of no known scale": (Image.new("F", (4, 4)), Refused("mode F")),
}


@outcomes(CASES)
def test_pictures_are_opened_or_refused(given, outcome):
    def opened():
        image = open_picture(given)
        assert image.mode == "RGB"
        return image.size

    check(opened, outcome)


def test_a_picture_that_is_refused_is_not_decoded(monkeypatch):
    for name in ("flatten_on_white", "upright"):
        monkeypatch.setattr(pictures, name, None)
    content = encoded(RED)
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(ValueError, match="at most 0.0005 million"):
        open_picture(content, max_pixels=500)
