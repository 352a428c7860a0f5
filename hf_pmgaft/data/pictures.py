"""A picture that somebody hands in: checked before any of its pixels is read."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping
from typing import Any

from PIL import Image

from .images import flatten_on_white, open_image, upright

MAX_PIXELS = 25_000_000  # of a picture, where nothing else is passed
# Formats that hold nothing but pixels. Others, such as EPS, start programs.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP")
# A photograph with a smaller one of itself beside it, as telephones write them.
OF_ONE_MOMENT = ("MPO",)


def open_picture(value: Any, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Opens one picture as an upright RGB image on white; size and format are checked before pixels are read.

    Args:
        value: The name of a local file (`str` or `Path`), the content of a file (`bytes`) or an open one, an opened
            image, or `{"path", "bytes"}` as `datasets` stores images. No addresses: nothing is fetched.
        max_pixels (`int`): How many pixels it may have.

    Raises:
        ValueError: for what is no picture, is broken, moves or has several pages, or has too many pixels.

    Example:
        >>> open_picture(Image.new("L", (30, 20))).mode
        'RGB'
        >>> open_picture(b"cats, and dogs")
        Traceback (most recent call last):
        ValueError: You passed a picture that cannot be opened: its 14 bytes are no image of a kind that Pillow ...
    """
    image = _opened(value)
    _check_pixels(image, max_pixels)
    if image.format is not None and image.format not in FORMATS:
        raise ValueError(
            f"You passed a picture in the format {image.format}, which is not opened. Save it as PNG or JPEG."
        )
    if _is_animated(image):
        raise ValueError(
            f"You passed a {image.format} of {image.n_frames} pictures, of which one can be taken. Save that one as "
            "PNG."
        )
    try:
        image.load()
        return flatten_on_white(upright(image))
    except Exception as error:  # a broken file makes Pillow raise anything
        raise ValueError(
            f"You passed a picture that is broken ({error}). Download or save it again, as PNG or JPEG."
        ) from error


def _opened(value: Any) -> Image.Image:
    """The image in what was passed, of which no pixel is read."""
    if isinstance(value, Mapping):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, (str, os.PathLike)):
        name = os.fspath(value)
        if "://" in name:
            raise ValueError(f"You passed the address {name!r:.80}, which is not fetched. Download the picture first.")
        if os.path.isdir(name):
            raise ValueError(f"You passed the folder {name!r:.80} as a picture. Pass one file of it.")
    elif not isinstance(value, (bytes, bytearray, Image.Image)) and not hasattr(value, "read"):
        raise ValueError(
            f"You passed a {type(value).__name__} as a picture. Pass the name of a file, its bytes or a PIL image."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # pixels are counted here
            return open_image(value)
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"You passed a picture of far too many pixels ({error}). Make it smaller before it is opened."
        ) from error
    except Exception as error:  # a broken file makes Pillow raise anything
        raise ValueError(
            f"You passed a picture that cannot be opened: {error}. Pass an image, such as a PNG or JPEG."
        ) from error


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    pixels = image.width * image.height
    if not pixels:
        raise ValueError(f"You passed a picture of {image.width} x {image.height} without pixels. Pass another one.")
    if pixels > max_pixels:
        raise ValueError(
            f"You passed a picture of {image.width} x {image.height}, which is {pixels / 1e6:.1f} million pixels; at "
            f"most {max_pixels / 1e6:g} million are opened. Make it smaller: models see a few hundred pixels a side."
        )


def _is_animated(image: Image.Image) -> bool:
    """Whether a file holds several pictures; what cannot be asked shows when pixels are read."""
    if image.format in OF_ONE_MOMENT:
        return False
    with contextlib.suppress(Exception):
        return bool(getattr(image, "is_animated", False))
    return False
