"""Whether token ids are of a model's own tokenizer: known to it, and ended as its text tower expects."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .backbones import unwrap

# Families that read a text at its end token, by class.
READ_AT_THE_END = ("CLIPModel", "MetaClip2Model", "Aimv2Model")
LARGEST_ID = 2  # the end token in the configurations of OpenAI's CLIP, which stands for the largest id


def check_is_tokenizer(tokenizer: Any) -> None:
    """Raises `TypeError` for what makes no token ids of texts.

    Example:
        >>> check_is_tokenizer(processor.tokenizer)
        >>> check_is_tokenizer(processor.image_processor)
        Traceback (most recent call last):
        TypeError: You passed a CLIPImageProcessor... as the processor, which has no tokenizer, ...
    """
    if not callable(tokenizer) or not hasattr(tokenizer, "model_max_length"):
        raise TypeError(
            f"You passed a {type(tokenizer).__name__} as the processor, which has no tokenizer, so no token ids can "
            "be made of prompts or captions. Pass the model's CLIPProcessor."
        )


def check_tokens(model: nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> None:
    """Raises `ValueError` for token ids `[N,L]` of a tokenizer that is not the model's, where that can be seen.

    Example:
        >>> ids = torch.tensor([[0, 5, 1]])
        >>> check_tokens(model, ids, torch.ones_like(ids))
        >>> check_tokens(model, ids + 40, torch.ones_like(ids))
        Traceback (most recent call last):
        ValueError: The tokenizer gave the token id 45 to a CLIPModel of 32 tokens, ...
    """
    plain = unwrap(model)
    config = getattr(plain.config, "text_config", None)
    name = type(plain).__name__
    vocabulary = getattr(config, "vocab_size", None)
    if vocabulary is not None and input_ids.max() >= vocabulary:
        raise ValueError(
            f"The tokenizer gave the token id {int(input_ids.max())} to a {name} of {vocabulary} tokens, so it "
            "belongs to another model. Pass the model's own processor."
        )

    families = {cls.__name__ for cls in type(plain).__mro__}
    if families.isdisjoint(READ_AT_THE_END):
        return
    end = config.eos_token_id
    if "CLIPModel" in families and end == LARGEST_ID:
        last = attention_mask.sum(1, keepdim=True) - 1
        is_ended = input_ids.gather(1, last)[:, 0] == input_ids.amax(1)
    else:
        is_ended = (input_ids == end).any(1)
    if not is_ended.all():
        raise ValueError(
            f"The tokenizer does not end texts with the token at which a {name} reads them, so that it would read "
            "them at another place. It belongs to another model: pass the model's own processor."
        )
