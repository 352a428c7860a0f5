"""Facts about a processor: pixel statistics, padding, its image processor and its tokenizer."""

from __future__ import annotations

from typing import Any


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

    Example:
        >>> mean, std = pixel_statistics(processor)
        >>> [round(value, 3) for value in mean]
        [0.481, 0.458, 0.408]
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
    """Returns the token id that fills up texts: the tokenizer's padding, or 0 where there is none to ask."""
    return getattr(tokenizer_of(processor), "pad_token_id", None) or 0
