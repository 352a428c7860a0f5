"""Questions to a model that a tuning has prepared, and the way back to a plain model."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

from torch import nn

from ..models.backbones import get_encoder, unwrap_peft
from .base import attachment_of
from .peft_adapter import has_adapter


def keeps_weights(model: nn.Module) -> bool:
    """Whether a prepared model's own weights stay as they are, so that it is its own teacher with the tuning off.

    Example:
        >>> from hf_pmgaft.tuning import make_tuning
        >>> keeps_weights(make_tuning("r_adapter").prepare(model))
        True
    """
    return has_adapter(model) or attachment_of(model) is not None


def text_is_live(model: nn.Module) -> bool:
    """Whether training changes what a prepared model makes of a class name.

    Example:
        >>> from hf_pmgaft.tuning import make_tuning
        >>> text_is_live(make_tuning("vision_tower").prepare(model))
        False
    """
    attachment = attachment_of(model)
    if attachment is not None:
        return attachment.text_is_live
    plain = unwrap_peft(model)
    text_modules = tuple(f"{module}." for module in get_encoder(plain).text_modules)
    return any(name.startswith(text_modules) and value.requires_grad for name, value in plain.named_parameters())


@contextlib.contextmanager
def without_tuning(model: nn.Module) -> Iterator[None]:
    """Lets a model compute as before training, where the tuning keeps its weights; in eval mode, then back.

    Example:
        >>> from hf_pmgaft.tuning import make_tuning
        >>> tuned = make_tuning("r_adapter").prepare(model)
        >>> with without_tuning(tuned):
        ...     tuned.tuning.enabled
        False
    """
    training = model.training
    model.eval()
    off = model.disable_adapter() if hasattr(model, "peft_config") else attachment_of(model).off()
    try:
        with off:
            yield
    finally:
        model.train(training)


def fold_into_clip(model: nn.Module) -> nn.Module:
    """Merges what was trained beside a model's weights into them, in a plain model; `model` is left as it was.

    Raises:
        ValueError: for learned prompts, which a plain model has no place for.

    Example:
        >>> from peft import LoraConfig, get_peft_model
        >>> adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
        >>> type(fold_into_clip(adapted)).__name__
        'CLIPModel'
    """
    if hasattr(model, "merge_and_unload"):
        return copy.deepcopy(model).merge_and_unload()
    attachment = attachment_of(model)
    return unwrap_peft(model) if attachment is None else attachment.fold(model)
