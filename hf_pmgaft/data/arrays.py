"""Arrays of numbers to images of 8 bits: which axis holds the channels, and which number is white."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
# By how much resized floats may lie outside their scale, as a share of it.
EXCESS = 0.05
# Floats of another processor's making seldom exceed this: white under a standard deviation of 0.2.
BRIGHTEST_NORMALISED = 3


def image_of_numbers(pixels: Any) -> Image.Image:
    """Turns an array, a tensor or nested lists into an image of 8 bits per channel.

    White follows from the type: 255 for 8 bits and all other integers but 16 bits without a sign, where it is 65535,
    and 1 for booleans. Floats are in [0,1] if none is above 1, else from 0 to 255. So an image of floats up to 255 in
    which no level is above 1 would be taken for one in [0,1]: pass 8 bits where images are that dark.

    Args:
        pixels (`np.ndarray`, `torch.Tensor` or nested lists): `[H,W]`, `[H,W,C]` or `[C,H,W]`, with 1, 3 or 4
            channels. Where both could be meant, the channels of a tensor come first and those of an array last.

    Raises:
        ValueError: for shapes that are no image, and numbers whose scale is not known.

    Example:
        >>> image_of_numbers(torch.ones(3, 20, 30)).getpixel((0, 0))
        (255, 255, 255)
        >>> image_of_numbers([[0, 128, 255]]).size
        (3, 1)
    """
    comes_first = isinstance(pixels, torch.Tensor)
    if isinstance(pixels, torch.Tensor):
        pixels = pixels.detach().cpu()
        pixels = (pixels.float() if pixels.is_floating_point() else pixels).numpy()
    pixels = _channels_last(np.asarray(pixels), comes_first)
    return Image.fromarray(np.ascontiguousarray(_levels(pixels)))


def to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """Rounds pixels of 16 bits, where white is 65535, to the nearest of 8 bits; pixels of 8 bits stay as they are.

    Example:
        >>> to_8_bits(np.array([0, 257, 65535], np.uint16)).tolist()
        [0, 1, 255]
    """
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _channels_last(pixels: np.ndarray, comes_first: bool) -> np.ndarray:
    """The pixels of one image, `[H,W]` or `[H,W,C]`."""
    shape = list(pixels.shape)
    if pixels.ndim == 4 and len(pixels) == 1:
        pixels = pixels[0]
    if pixels.ndim == 3:
        fits_first, fits_last = pixels.shape[0] in CHANNELS, pixels.shape[-1] in CHANNELS
        if fits_first and (comes_first or not fits_last):
            pixels = np.moveaxis(pixels, 0, -1)
        elif not fits_last:
            raise ValueError(f"its shape {shape} is neither [H,W], [H,W,C] nor [C,H,W] with 1, 3 or 4 channels")
        if pixels.shape[-1] == 1:
            pixels = pixels[..., 0]

    if pixels.ndim not in (2, 3):
        raise ValueError(f"its shape {shape} is not that of one image, [H,W], [H,W,C] or [C,H,W]")
    if pixels.size == 0:
        raise ValueError(f"its shape {shape} leaves no pixel")
    return pixels


def _levels(pixels: np.ndarray) -> np.ndarray:
    """Pixels of any type as levels of 8 bits."""
    if pixels.dtype == bool:
        return 255 * pixels.astype(np.uint8)
    if pixels.dtype in (np.uint8, np.uint16):
        return to_8_bits(pixels)
    if pixels.dtype.kind not in "iuf":
        raise ValueError(f"it holds {pixels.dtype}, which are no pixels")

    low, high = pixels.min(), pixels.max()
    if pixels.dtype.kind == "f":
        levels = _levels_of_floats(pixels, float(low), float(high))
        return np.rint(levels).clip(0, 255).astype(np.uint8)
    if low < 0 or high > 255:
        raise ValueError(
            f"its {pixels.dtype} from {low} to {high} have no known scale: pass uint8 up to 255 or uint16 up to 65535"
        )
    return pixels.astype(np.uint8)


def _levels_of_floats(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Floats as levels from 0 to 255, not rounded yet."""
    if not np.isfinite([low, high]).all():
        raise ValueError("it holds NaN or infinite pixels")
    pixels = pixels.astype(np.float64)
    if low >= -EXCESS and high <= 1 + EXCESS:
        return 255 * pixels

    # Normalised pixels may have no negative one where all is bright, and are no whole numbers.
    is_whole = low >= 0 and np.array_equal(pixels, np.rint(pixels))
    is_bright = high > BRIGHTEST_NORMALISED
    if (is_whole or is_bright) and low >= -255 * EXCESS and high <= 255 * (1 + EXCESS):
        return pixels
    raise ValueError(
        f"its floats from {low:.3g} to {high:.3g} are neither in [0,1] nor from 0 to 255: pass images as they were "
        "before they were normalised"
    )
