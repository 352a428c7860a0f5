"""Facts about a processor: pixel statistics, padding, its image processor and its tokenizer; and its files."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers.utils import cached_file

TOKENIZER = "tokenizer.json"
HOW_TO_PASS = "--processor ID, in Python processor=ID"  # a processor of one's own


def image_processor_of(processor: Any) -> Any:
    """Finds what makes pixel values in a processor; an image processor is returned as it is.

    Example:
        >>> image_processor_of(processor) is processor.image_processor
        True
    """
    return getattr(processor, "image_processor", processor)


def tokenizer_of(processor: Any) -> Any:
    """Finds what makes token ids in a processor; a tokenizer is returned as it is.

    Example:
        >>> tokenizer_of(processor.tokenizer) is processor.tokenizer
        True
    """
    return getattr(processor, "tokenizer", processor)


def pixel_statistics(processor: Any) -> tuple[list[float], list[float]]:
    """Returns the means and standard deviations by which the processor normalises images in [0,1].

    Raises:
        TypeError: for a processor without an image processor.
        ValueError: for statistics that are not of images in [0,1], and a processor that does not scale images to it.

    Example:
        >>> mean, std = pixel_statistics(processor)
        >>> [round(value, 3) for value in mean]
        [0.481, 0.458, 0.408]
    """
    image_processor = image_processor_of(processor)
    if not hasattr(image_processor, "image_mean"):
        raise TypeError(
            f"You passed a {type(processor).__name__} as the processor, which holds no pixel statistics, so images "
            "cannot be taken to [0,1] and back. Pass the model's CLIPProcessor."
        )
    check_rescaling(image_processor)
    if not getattr(image_processor, "do_normalize", True):
        return [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]

    # One number stands for all three channels, as in transformers.
    mean, std = image_processor.image_mean, image_processor.image_std
    mean = [mean] * 3 if isinstance(mean, (int, float)) else mean
    std = [std] * 3 if isinstance(std, (int, float)) else std
    check_mean(mean)
    check_std(std)
    return list(mean), list(std)


def image_edges(processor: Any) -> tuple[int, int] | None:
    """Height and width of what a processor makes of every image, `None` where that follows from the image.

    Example:
        >>> image_edges(processor)
        (16, 16)
    """
    image_processor = image_processor_of(processor)
    if getattr(image_processor, "do_center_crop", False) and getattr(image_processor, "crop_size", None):
        made = dict(image_processor.crop_size)
    elif getattr(image_processor, "do_resize", False):
        made = dict(image_processor.size)
    else:
        return None
    return (made["height"], made["width"]) if {"height", "width"} <= set(made) else None


def check_image_size(processor: Any, image_size: int) -> None:
    """Raises `ValueError` for a processor that makes images of another size than a model takes.

    Example:
        >>> check_image_size(processor, 16)
        >>> check_image_size(processor, 24)
        Traceback (most recent call last):
        ValueError: The CLIPImageProcessor... makes images of 16 x 16, but the model takes 24 x 24, ...
    """
    edges = image_edges(processor)
    if edges not in (None, (image_size, image_size)):
        raise ValueError(
            f"The {type(image_processor_of(processor)).__name__} makes images of {edges[0]} x {edges[1]}, but the "
            f"model takes {image_size} x {image_size}, so that images would be cropped and attacked as for another "
            "model. Pass the model's own processor, or take both to one size by --image_size, in Python "
            "`at_resolution(model, processor, size)`; `native_size=True` evaluates images at their own size."
        )


def check_crop(image_processor: Any) -> None:
    """Raises `ValueError` for an image processor that cuts more out of an image than is left of it.

    Example:
        >>> check_crop(processor.image_processor)
    """
    crop = getattr(image_processor, "crop_size", None)
    cuts = getattr(image_processor, "do_resize", False) and getattr(image_processor, "do_center_crop", False)
    if not (cuts and crop):
        return
    resized, cut = dict(image_processor.size), dict(crop)
    edge = min(value for value in resized.values() if value)
    if edge < max(cut.values()):
        raise ValueError(
            f"The {type(image_processor).__name__} resizes to {resized} and then crops to {cut}, which would put a "
            f"black frame around each image. Give it a size of at least {max(cut.values())}."
        )


def check_rescaling(image_processor: Any) -> None:
    """Raises `ValueError` for an image processor that does not scale levels of 8 bits to [0,1]."""
    rescales = getattr(image_processor, "do_rescale", True)
    factor = getattr(image_processor, "rescale_factor", 1 / 255)
    if not rescales or not isinstance(factor, (int, float)) or not math.isclose(factor, 1 / 255, rel_tol=1e-3):
        raise ValueError(
            f"The {type(image_processor).__name__} has do_rescale={rescales} and rescale_factor={factor}, so its "
            "pixels are not in [0,1], where radii and statistics are counted. Set do_rescale=True and "
            "rescale_factor=1/255, with an image_mean and image_std of that scale."
        )


def check_mean(mean: Sequence[float] | None) -> None:
    """Raises `ValueError` for means that no RGB images in [0,1] have.

    Example:
        >>> check_mean([0.481, 0.458, 0.408])
        >>> check_mean([123.675, 116.28, 103.53])
        Traceback (most recent call last):
        ValueError: image_mean=[123.675, 116.28, 103.53] is not of images in [0,1]. ...
    """
    _check_statistic("image_mean", mean, "three numbers from 0 to 1", lambda value: 0 <= value <= 1)


def check_std(std: Sequence[float] | None) -> None:
    """Raises `ValueError` for standard deviations that no RGB images in [0,1] have; 1 leaves them as they are.

    Example:
        >>> check_std([0.269, 0.261, 0.276])
    """
    _check_statistic("image_std", std, "three numbers above 0, up to 1", lambda value: 0 < value <= 1)


def _check_statistic(
    name: str, values: Sequence[float] | None, allowed: str, is_possible: Callable[[float], bool]
) -> None:
    if isinstance(values, str) or not hasattr(values, "__len__") or len(values) != 3:
        raise ValueError(f"{name}={values!r} is not one number for each of red, green and blue. Pass {allowed}.")
    if not all(is_possible(value) for value in values):
        raise ValueError(
            f"{name}={list(values)} is not of images in [0,1]. Pass {allowed}; what is counted in levels of 8 bits is "
            "divided by 255."
        )


def padding_id(processor: Any) -> int:
    """Returns the token id that fills up texts: the tokenizer's padding, or 0 where there is none to ask.

    Example:
        >>> padding_id(processor) == processor.tokenizer.pad_token_id
        True
    """
    return getattr(tokenizer_of(processor), "pad_token_id", None) or 0


def save_processor(processor: Any, folder: str | os.PathLike) -> None:
    """Saves a processor or tokenizer, which itself is left as it is.

    A tokenizer would be saved with the truncation and padding of its last call; the file gets those of the one that it
    was loaded from, and none where there is no such file.

    Example:
        >>> batch = processor.tokenizer(["a photo"], padding=True, truncation=True, max_length=8)
        >>> save_processor(processor, "robust")
        >>> Tokenizer.from_file("robust/tokenizer.json").truncation is None
        True
    """
    processor.save_pretrained(folder)
    file = Path(folder) / TOKENIZER
    if not file.is_file():
        return

    saved, base = Tokenizer.from_file(str(file)), _loaded_from(tokenizer_of(processor))
    truncation, padding = (None, None) if base is None else (base.truncation, base.padding)
    if (saved.truncation, saved.padding) == (truncation, padding):
        return
    saved.no_truncation()
    saved.no_padding()
    if truncation is not None:
        saved.enable_truncation(**truncation)
    if padding is not None:
        saved.enable_padding(**padding)
    saved.save(str(file))


def _loaded_from(tokenizer: Any) -> Tokenizer | None:
    """The tokenizer in the file that one was loaded from, if it is on this machine."""
    name = getattr(tokenizer, "name_or_path", None)
    file = None
    if name:
        file = cached_file(
            name,
            TOKENIZER,
            local_files_only=True,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
    return None if file is None else Tokenizer.from_file(file)
