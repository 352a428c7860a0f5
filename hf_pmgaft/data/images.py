"""Files, bytes and arrays to upright RGB images of 8 bits."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
from PIL import ExifTags, Image, ImageOps


def read_image(value: Any) -> Any:
    """A file's name or content, as `datasets` stores them, as an upright RGB image.

    Arrays of 8 or 16 bits `[H,W]`, `[H,W,3]` or `[H,W,4]` are images too; others pass as they are.
    """
    if isinstance(value, str):
        value = {"path": value, "bytes": None}
    if isinstance(value, bytes):
        value = {"path": None, "bytes": value}
    if isinstance(value, dict):
        value = datasets.Image().decode_example(value)
    if value is None:
        raise ValueError("there is none")
    if isinstance(value, np.ndarray) and value.dtype in (np.uint8, np.uint16):
        if value.ndim == 2 or value.ndim == 3 and value.shape[-1] in (3, 4):
            value = Image.fromarray(to_8_bits(value))
    if not isinstance(value, Image.Image):
        return value
    turned = value.getexif().get(ExifTags.Base.Orientation, 1) != 1
    return flatten_on_white(ImageOps.exif_transpose(value) if turned else value)


def flatten_on_white(image: Image.Image) -> Image.Image:
    """An RGB image of 8 bits; transparent pixels become white, as CLIPProcessor makes them."""
    # Pillow before 11 opens a PNG of 16 bits as one of 32.
    if image.mode.startswith("I;16") or image.mode == "I" and image.format == "PNG":
        image = Image.fromarray(to_8_bits(np.asarray(image)))
    if image.mode[0] in "IF":
        raise ValueError(
            f"mode {image.mode} holds numbers without a known scale: convert it to 8 or 16 bits per channel"
        )
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """Pixels of 16 bits, where white is 65535, to the nearest of 8; pixels of 8 bits as they are."""
    return pixels if pixels.dtype == np.uint8 else ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
