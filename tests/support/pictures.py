"""Images as files of every kind, and sets of them as folders, tables and shards."""

import io
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from support.tiny import CLASS_NAMES, encoded

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
DARK, LIGHT = (64, 64, 64), (192, 192, 192)


def halves(left, right, mode: str = "RGB") -> Image.Image:
    """16 x 8 pixels of one colour on the left and of another on the right."""
    picture = Image.new(mode, (16, 8), left)
    picture.paste(right, (8, 0, 16, 8))
    return picture


def grey_16_bits(kind: str = "<u2") -> Image.Image:
    return Image.fromarray(np.repeat(np.array([[64 * 257, 192 * 257]]), 8, 1).repeat(8, 0).astype(kind))


def png_16_bits(left, right) -> bytes:
    """A PNG of 16 bits per channel, RGB or RGBA, which Pillow reads but does not write."""
    rows = np.repeat(np.array([[left, right]]), 8, 1).repeat(8, 0).astype(">u2")
    content = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 16, 8, 16, 2 if len(left) == 3 else 6, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def palette(transparent: bool) -> bytes:
    picture = Image.new("P", (16, 8), 1)
    picture.putpalette([0, 0, 0, *RED, *BLUE])
    picture.paste(0 if transparent else 2, (8, 0, 16, 8))
    return encoded(picture, **({"transparency": 0} if transparent else {}))


def turned(orientation: int) -> bytes:
    """As a camera stores a picture that was taken upside down or upright."""
    exif = Image.Exif()
    exif[274] = orientation
    back = {3: Image.ROTATE_180, 6: Image.ROTATE_90, 8: Image.ROTATE_270}[orientation]
    return encoded(halves(RED, BLUE).transpose(back), format="JPEG", quality=100, subsampling=0, exif=exif)


FULL, NONE = 65535, 0
KINDS = {  # what is in the file, and the colours that it shows
    "grey": (encoded(halves(64, 192, "L")), DARK, LIGHT),
    "one bit": (encoded(halves(0, 1, "1")), (0, 0, 0), WHITE),
    "palette": (palette(False), RED, BLUE),
    "palette with transparency": (palette(True), RED, WHITE),
    "RGBA, transparent": (encoded(halves((*RED, 255), (0, 0, 0, 0), "RGBA")), RED, WHITE),
    "RGBA, half transparent": (encoded(halves((*RED, 255), (0, 0, 0, 127), "RGBA")), RED, (128, 128, 128)),
    "grey with alpha": (encoded(halves((64, 255), (64, 0), "LA")), DARK, WHITE),
    "CMYK as JPEG": (encoded(halves(RED, BLUE).convert("CMYK"), format="JPEG", quality=100), RED, BLUE),
    "CMYK as TIFF": (encoded(halves(RED, BLUE).convert("CMYK"), format="TIFF"), RED, BLUE),
    "upside down": (turned(3), RED, BLUE),
    "turned left": (turned(6), RED, BLUE),
    "turned right": (turned(8), RED, BLUE),
    "16 bits, grey": (encoded(grey_16_bits()), DARK, LIGHT),
    "16 bits, TIFF": (encoded(grey_16_bits(), format="TIFF"), DARK, LIGHT),
    "16 bits, big-endian TIFF": (encoded(grey_16_bits(">u2"), format="TIFF"), DARK, LIGHT),
    "16 bits, RGB": (png_16_bits((FULL, NONE, NONE), (NONE, NONE, FULL)), RED, BLUE),
    "16 bits, RGBA": (png_16_bits((FULL, NONE, NONE, FULL), (NONE, NONE, NONE, NONE)), RED, WHITE),
    "WebP": (encoded(halves((*RED, 255), (0, 0, 0, 0), "RGBA"), format="WEBP", lossless=True), RED, WHITE),
}


def write_images(source: str, folder: Path, images: list[bytes], suffix: str = "png") -> str:
    """Writes images, of the classes in turn, as an ImageFolder, a CSV file with paths beside it, or a shard."""
    names = [CLASS_NAMES[i % 4] for i in range(len(images))]
    files = [f"{name}/{i:02}.{suffix}" for i, name in enumerate(names)]
    if source == "shard":
        with tarfile.open(folder / "images.tar", "w") as tar:
            for i, content in enumerate(images):
                for ending, data in ((suffix, content), ("cls", str(i % 4).encode())):
                    info = tarfile.TarInfo(f"{i:02}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        return str(folder / "images.tar")
    for file, content in zip(files, images, strict=True):
        (folder / "train" / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / "train" / file).write_bytes(content)
    if source == "folder":
        return str(folder)
    lines = [f"train/{file},{name}" for file, name in zip(files, names, strict=True)]
    (folder / "images.csv").write_text("\n".join(["picture,label" if source == "other csv" else "path,label", *lines]))
    return str(folder / "images.csv")
