"""Masks: the whole numbers that files, images and arrays hold."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from support.borders import Refused, check, outcomes
from support.tiny import encoded

from hf_pmgaft.data.masks import mask_size, read_mask

INDICES = np.array([[0, 1, 2], [3, 4, 255]])
GREY = Image.fromarray(INDICES.astype(np.uint8))
COLOURS = Refused("a picture in colours (mode RGB")
NOT_WHOLE = Refused("that are not whole")


def palette() -> Image.Image:
    image = Image.fromarray(INDICES.astype(np.uint8), mode="P")
    image.putpalette(list(range(255, -1, -1)) * 3)
    return image


def held_on_its_side() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.fromarray(INDICES.astype(np.uint8)), exif=exif)


def few_bits(bits: int, rows: list[list[int]]) -> bytes:
    """A grey PNG of so many bits, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    per_byte = 8 // bits
    lines = b""
    for row in rows:
        padded = row + [0] * (-len(row) % per_byte)
        packed = [padded[i : i + per_byte] for i in range(0, len(padded), per_byte)]
        lines += b"\0" + bytes(sum(v << (8 - bits * (i + 1)) for i, v in enumerate(part)) for part in packed)
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), bits, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


SAME = INDICES.tolist()
CASES = {
    "grey": (GREY, SAME),
    "a grey PNG": (encoded(GREY), SAME),
    "bytes with a path": ({"bytes": encoded(GREY), "path": "3.png"}, SAME),
    "a palette, whose indices count": (palette(), SAME),
    "a palette PNG": (encoded(palette()), SAME),
    "a PNG of 16 bits": (encoded(Image.fromarray((INDICES * 100).astype(np.uint16))), (INDICES * 100).tolist()),
    "a PNG of 4 bits": (few_bits(4, [[0, 1, 15], [7, 2, 3]]), [[0, 1, 15], [7, 2, 3]]),
    "a PNG of 2 bits": (few_bits(2, [[0, 1, 2, 3, 1]]), [[0, 1, 2, 3, 1]]),
    "a PNG of one bit": (encoded(Image.fromarray(INDICES == 1)), (INDICES == 1).astype(int).tolist()),
    "a TIFF of floats": (encoded(Image.fromarray(INDICES.astype(np.float32)), format="TIFF"), SAME),
    "held on its side": (held_on_its_side(), INDICES[::-1].T.tolist()),
    "an array": (INDICES, SAME),
    "an array of booleans": (INDICES == 1, (INDICES == 1).astype(int).tolist()),
    "a tensor with a channel": (torch.from_numpy(INDICES)[None], SAME),
    "an array with a channel": (INDICES[..., None], SAME),
    "nested lists": (SAME, SAME),
    "whole floats": (INDICES.astype(np.float64), SAME),
    "an array with a negative index": (INDICES - 1, (INDICES - 1).tolist()),
    "a colour picture": (encoded(GREY.convert("RGB")), COLOURS),
    "a palette shown in colours": (palette().convert("RGB"), COLOURS),
    "a picture with alpha": (GREY.convert("RGBA"), Refused("(mode RGBA)")),
    "grey with alpha": (GREY.convert("LA"), Refused("(mode LA)")),
    "a JPEG": (encoded(GREY, format="JPEG"), Refused("a JPEG, which does not keep numbers")),
    "an array of colours": (np.zeros((4, 5, 3), np.uint8), Refused("its shape [4, 5, 3] is not [H,W]")),
    "probabilities": (np.full((2, 3), 0.5), NOT_WHOLE),
    "infinity": (np.full((2, 3), np.inf), NOT_WHOLE),
    "no pixel": (np.zeros((0, 3), int), Refused("its shape [0, 3] is not [H,W]")),
    "one number": (np.array(3), Refused("its shape [] is not [H,W]")),
    "nothing": (None, Refused("there is none")),
    "a file that is not there": ("masks/3.png", Refused("there is no file 'masks/3.png'")),
    "bytes that are no image": (b"mask", Refused("no image of a kind that Pillow knows")),
}


@outcomes(CASES)
def test_what_holds_a_mask(given, outcome):
    check(lambda: read_mask(given).tolist(), outcome)


@pytest.mark.parametrize("name", [name for name, (_, outcome) in CASES.items() if not isinstance(outcome, Refused)])
def test_the_size_is_that_of_what_is_read(name):
    given, outcome = CASES[name]
    assert mask_size(given) == np.shape(outcome)


def test_the_size_of_a_file_comes_from_its_header():
    content = encoded(Image.new("L", (300, 200), 7))
    without_pixels = content[:60]
    assert mask_size(without_pixels) == (200, 300)
    with pytest.raises(OSError):
        read_mask(io.BytesIO(without_pixels))
