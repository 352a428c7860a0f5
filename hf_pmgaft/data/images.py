"""Files, bytes and arrays to upright RGB images of 8 bits."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets.utils.file_utils import xopen
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from .arrays import image_of_numbers, to_8_bits
from .local_files import is_lfs_pointer

LONGEST_NAME = 80  # of a file, in a message
ON_ITS_SIDE = (5, 6, 7, 8)  # orientations of EXIF in which height and width change places
BASE64 = re.compile(r"[A-Za-z0-9+/\s]{80,}={0,2}\s*")


def read_image(value: Any) -> Image.Image:
    """Turns whatever holds one image into an upright RGB image on white.

    Args:
        value: The name of a file (`str` or `Path`) or its address (`https://...`, `hf://...`); the content of a file
            (`bytes`, `bytearray`) or an open one; `{"path", "bytes"}` as `datasets` stores images; an opened image;
            or numbers, in an array, a tensor or nested lists, as [`image_of_numbers`] takes them. Of an animation it
            is the first picture. A list may hold one of these, not several.

    Raises:
        OSError, ValueError: if there is no image, or one whose numbers have no known scale.

    Example:
        >>> import numpy as np
        >>> image = read_image(np.zeros((20, 30, 4), dtype=np.uint8))  # all of it transparent
        >>> image.mode, image.size, image.getpixel((0, 0))
        ('RGB', (30, 20), (255, 255, 255))
    """
    image = open_image(value)
    if 0 in image.size:
        raise ValueError(f"it is {image.width} x {image.height} and has no pixels")
    image.load()  # before its EXIF is read, which for some formats would read the pixels too
    return flatten_on_white(upright(image))


def image_size(value: Any) -> tuple[int, int]:
    """Reads height and width of what [`read_image`] makes, of a file from its header alone.

    Raises:
        OSError, ValueError: if there is no image.

    Example:
        >>> import numpy as np
        >>> image_size(np.zeros((20, 30, 3), dtype=np.uint8))
        (20, 30)
    """
    return upright_size(open_image(value))


def open_image(value: Any) -> Image.Image:
    """Opens the image that a value holds, as it is stored.

    Args:
        value: See [`read_image`].

    Raises:
        OSError, ValueError: if there is no image.

    Example:
        >>> open_image(Image.new("P", (30, 20))).mode
        'P'
    """
    if value is None or (isinstance(value, float) and np.isnan(value)):  # which tables have for nothing
        raise ValueError("there is none")
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, Mapping):
        return open_image(_entry_of_dict(value))
    if isinstance(value, (list, tuple)) and not is_of_numbers(value):
        if len(value) != 1:
            raise ValueError(f"it is a list of {len(value)} entries in place of one image; give each a row of its own")
        return open_image(value[0])

    if isinstance(value, (str, os.PathLike)):
        return _open_content(_read_file(os.fspath(value)))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _open_content(bytes(value))
    if hasattr(value, "read"):
        value.seek(0)  # it may have been read before
        return _open_content(value.read())
    if isinstance(value, (list, tuple)) or hasattr(value, "__array__"):
        return image_of_numbers(value)
    raise ValueError(f"it is of the type {type(value).__name__}, which holds no image")


def _entry_of_dict(value: Mapping[str, Any]) -> Any:
    """The bytes or, without them, the path of an image as `datasets` stores it."""
    if not {"bytes", "path"} & set(value):
        raise ValueError(f"it is a dict of {list(value)[:5]} without 'bytes' or 'path'")
    content = value.get("bytes")
    return value.get("path") if content is None else content


def is_of_numbers(values: list | tuple) -> bool:
    """Whether nested lists hold numbers, rather than images of another kind."""
    first: Any = values
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    return isinstance(first, (bool, int, float, np.number, np.bool_))


def _read_file(name: str) -> bytes:
    """The content of a local file or of an address."""
    if not name:
        raise ValueError("there is none")
    try:
        with xopen(name, "rb") as file:
            return file.read()
    except OSError as error:
        half = LONGEST_NAME // 2  # of a path both ends tell something
        short = name if len(name) <= LONGEST_NAME else f"{name[:half]}...{name[-half:]}"
        if BASE64.fullmatch(name):
            reason = f"it is the base64 text {short!r}: pass bytes, such as base64.b64decode gives"
        elif "://" in name:
            reason = f"nothing can be read from {short!r}"
        elif isinstance(error, FileNotFoundError):
            reason = f"there is no file {short!r}"
        else:
            reason = f"{short!r}: {error.strerror or error}"
        raise ValueError(reason) from error


def _open_content(content: bytes) -> Image.Image:
    """The image in the content of a file."""
    try:
        return Image.open(io.BytesIO(content))
    except UnidentifiedImageError as error:
        if is_lfs_pointer(content):
            raise ValueError("its file only says where Git LFS keeps it: run `git lfs pull`") from error
        raise ValueError(f"its {len(content)} bytes are no image of a kind that Pillow knows") from error


def upright(image: Image.Image) -> Image.Image:
    """Turns an image as the camera notes that it was held, and leaves it as it is if what is noted cannot be read.

    Example:
        >>> upright(Image.new("L", (30, 20))).size
        (30, 20)
    """
    with contextlib.suppress(Exception):  # Pillow raises anything for what cameras and editors write
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            return ImageOps.exif_transpose(image)
    return image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Gives height and width of an image once it is [`upright`], without a look at its pixels.

    What a PNG notes of the camera behind its pixels is not seen.

    Example:
        >>> upright_size(Image.new("L", (30, 20)))
        (20, 30)
    """
    with contextlib.suppress(Exception):
        # Not the method of PNG, which reads the pixels first.
        if Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1) in ON_ITS_SIDE:
            return image.width, image.height
    return image.height, image.width


def flatten_on_white(image: Image.Image) -> Image.Image:
    """Converts an image to RGB of 8 bits. Transparent pixels become white, as CLIPProcessor makes them.

    Raises:
        ValueError: for an image of integers or floats whose scale is not known.

    Example:
        >>> from PIL import Image
        >>> flatten_on_white(Image.new("LA", (4, 4), (0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    # Pillow before 11 opens a PNG of 16 bits as one of 32.
    has_16_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    if has_16_bits:
        image = Image.fromarray(to_8_bits(np.asarray(image)))
    if image.mode[0] in "IF":
        raise ValueError(
            f"mode {image.mode} holds numbers without a known scale: convert it to 8 or 16 bits per channel"
        )

    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
