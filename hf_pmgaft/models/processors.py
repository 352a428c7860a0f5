"""What a processor knows: pixel statistics, padding, its image processor and its tokenizer."""

from __future__ import annotations

from typing import Any


def image_processor_of(processor: Any) -> Any:
    """The part of a processor that makes pixel values; an image processor itself."""
    return getattr(processor, "image_processor", processor)


def tokenizer_of(processor: Any) -> Any:
    """The part of a processor that makes token ids; a tokenizer itself."""
    return getattr(processor, "tokenizer", processor)


def pixel_statistics(processor: Any) -> tuple[list[float], list[float]]:
    """Mean and standard deviation by which the processor normalises images in [0,1].

    Raises:
        TypeError: for a processor without an image processor.
    """
    image_processor = image_processor_of(processor)
    if not hasattr(image_processor, "image_mean"):
        raise TypeError(
            f"You passed a {type(processor).__name__} as `processing_class`, which holds no pixel statistics, so "
            "images cannot be taken back to [0,1]. Pass the model's CLIPProcessor."
        )
    if not getattr(image_processor, "do_normalize", True):
        return [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
    return list(image_processor.image_mean), list(image_processor.image_std)


def padding_id(processor: Any) -> int:
    """What fills up token ids: the tokenizer's padding, or 0 where there is none to ask."""
    return getattr(tokenizer_of(processor), "pad_token_id", None) or 0
