"""Masks: files, bytes and arrays to the whole numbers that they hold, whatever colours these are shown in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from .images import is_of_numbers, open_image, upright, upright_size

MASK_COLUMNS = ("mask", "masks", "annotation", "segmentation", "label", "labels", "label_map", "gt")
INDEXED = ("1", "L", "P", "I", "F")  # and 16 bits, whose modes begin with I;16
LOSSY = ("JPEG", "MPO", "JPEG2000")
# Greys of two and four bits, which Pillow stretches to 255.
STRETCHED = {"L;2": 85, "L;4": 17}


def read_mask(value: Any) -> np.ndarray:
    """Reads the whole number of each pixel, as it is stored: of a palette image the index, not the colour.

    Args:
        value: The name of a file, its content or an opened image, as `read_image` takes them: greys of 1 to 16 bits
            or a palette; or whole numbers or booleans in an array, a tensor or nested lists, `[H,W]`, `[1,H,W]` or
            `[H,W,1]`.

    Returns:
        `np.ndarray`: `[H,W]` int64, turned upright as images are.

    Raises:
        OSError, ValueError: if there is no mask, for a picture in colours, files that do not keep numbers exactly, and
            numbers that are not whole.

    Example:
        >>> read_mask(Image.new("P", (3, 2), 7)).tolist()
        [[7, 7, 7], [7, 7, 7]]
        >>> read_mask(Image.new("RGB", (3, 2)))
        Traceback (most recent call last):
        ValueError: it is a picture in colours (mode RGB) in place of the index of a class for each pixel; ...
    """
    if _is_array(value):
        return _whole(value)
    image = open_image(value)
    _check_holds_indices(image)
    stretch = 1
    if image.format == "PNG" and image.tile:
        stretch = STRETCHED.get(image.tile[0][3], 1)
    image.load()
    return _whole(np.asarray(upright(image))) // stretch


def mask_size(value: Any) -> tuple[int, int]:
    """Reads height and width of what [`read_mask`] gives, of a file from its header alone.

    Raises:
        OSError, ValueError: if there is no mask, for a picture in colours, and files that do not keep numbers exactly.

    Example:
        >>> mask_size(Image.new("L", (3, 2)))
        (2, 3)
    """
    if _is_array(value):
        return _whole(value).shape
    image = open_image(value)
    _check_holds_indices(image)
    return upright_size(image)


def file_name(value: Any) -> str | None:
    """Names the file that holds an image or a mask, if it is known.

    Example:
        >>> file_name({"path": "masks/3.png", "bytes": None}), file_name(Image.new("L", (3, 2)))
        ('3.png', None)
    """
    if isinstance(value, Mapping):
        value = value.get("path")
    return os.path.basename(value) if isinstance(value, (str, os.PathLike)) else None


def _is_array(value: Any) -> bool:
    """Whether a value is numbers, in place of a file or an image."""
    if isinstance(value, (list, tuple)):
        return is_of_numbers(value)
    return hasattr(value, "__array__") and not isinstance(value, Image.Image)


def _check_holds_indices(image: Image.Image) -> None:
    """Raises `ValueError` for an image whose pixels are no single numbers, or are not kept as they were."""
    if image.mode not in INDEXED and not image.mode.startswith("I;16"):
        raise ValueError(
            f"it is a picture in colours (mode {image.mode}) in place of the index of a class for each pixel; save "
            "indices in a grey or palette image, mode L, P or I"
        )
    if image.format in LOSSY:
        raise ValueError(f"it is a {image.format}, which does not keep numbers as they were; save masks as PNG")


def _whole(numbers: Any) -> np.ndarray:
    """Numbers `[H,W]` as int64."""
    if isinstance(numbers, torch.Tensor):
        numbers = numbers.detach().cpu()
    array = np.asarray(numbers)
    shape = list(array.shape)
    if array.ndim == 3 and 1 in (shape[0], shape[-1]):
        array = array[0] if shape[0] == 1 else array[..., 0]
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"its shape {shape} is not [H,W], with one index of a class for each pixel")

    is_whole = array.dtype.kind in "biu"
    if array.dtype.kind == "f":
        is_whole = np.isfinite(array).all() and np.array_equal(array, np.rint(array))
    if not is_whole:
        raise ValueError(f"it holds {array.dtype} that are not whole, in place of the index of a class for each pixel")
    return array.astype(np.int64)
