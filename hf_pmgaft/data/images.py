"""Files, bytes and arrays to upright RGB images of 8 bits."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
from PIL import ExifTags, Image, ImageOps


def read_image(value: Any) -> Any:
    """Turns a file's name, its content, an array or an opened image into an upright RGB image on white.

    Args:
        value (`str`, `bytes`, `dict`, `np.ndarray` or `PIL.Image.Image`): A path, the bytes of a file, `{"path",
            "bytes"}` as `datasets` stores images, or an array of 8 or 16 bits `[H,W]`, `[H,W,3]` or `[H,W,4]`.

    Returns:
        `PIL.Image.Image`, or the value itself if it is something else, which the processor then has to read.

    Raises:
        ValueError: if there is no image, or one whose numbers have no known scale.

    Example:
        >>> import numpy as np
        >>> image = read_image(np.zeros((20, 30, 4), dtype=np.uint8))  # all of it transparent
        >>> image.mode, image.size, image.getpixel((0, 0))
        ('RGB', (30, 20), (255, 255, 255))
    """
    # Files
    if isinstance(value, str):
        value = {"path": value, "bytes": None}
    if isinstance(value, bytes):
        value = {"path": None, "bytes": value}
    if isinstance(value, dict):
        value = datasets.Image().decode_example(value)
    if value is None:
        raise ValueError("there is none")

    # Arrays
    if isinstance(value, np.ndarray) and _is_picture(value):
        value = Image.fromarray(to_8_bits(value))
    if not isinstance(value, Image.Image):
        return value

    # A camera notes how it was held instead of turning the pixels.
    if value.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        value = ImageOps.exif_transpose(value)
    return flatten_on_white(value)


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


def to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """Rounds pixels of 16 bits, where white is 65535, to the nearest of 8 bits; pixels of 8 bits stay as they are."""
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _is_picture(array: np.ndarray) -> bool:
    """Whether an array of 8 or 16 bits has the shape of a grey, RGB or RGBA image."""
    has_whole_levels = array.dtype in (np.uint8, np.uint16)
    is_grey = array.ndim == 2
    is_colour = array.ndim == 3 and array.shape[-1] in (3, 4)
    return has_whole_levels and (is_grey or is_colour)
