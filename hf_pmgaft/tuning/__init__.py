"""What is trained, by name, and how it is saved, loaded and folded back into a plain `CLIPModel`. A new tuning is one
file and one row here."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from ..models.backbones import get_encoder, unwrap_peft
from ..registry import make
from .base import Attachment, Tuning, attachment
from .deep_prompts import DeepPrompts
from .last_blocks import LastBlocks
from .peft_adapter import PeftAdapter, has_adapter
from .r_adapter import RAdapter
from .text_context import TextContext
from .vision_tower import VisionTower

TUNINGS: dict[str, type[Tuning]] = {
    "deep_prompts": DeepPrompts,
    "last_blocks": LastBlocks,
    "peft": PeftAdapter,
    "r_adapter": RAdapter,
    "text_context": TextContext,
    "vision_tower": VisionTower,
}


def make_tuning(tuning: str | Tuning, options: Mapping[str, Any] | None = None) -> Tuning:
    """A tuning by its name and options, or the given instance.

    Raises:
        ValueError: for an unknown name or option, or an option's value of the wrong kind.
    """
    if isinstance(tuning, Tuning):
        return tuning
    return PeftAdapter.from_options(options or {}) if tuning == "peft" else make("tuning", TUNINGS, tuning, options)


def name_of(tuning: Tuning) -> str:
    """The name under which a tuning is listed."""
    return next((name for name, cls in TUNINGS.items() if type(tuning) is cls), type(tuning).__name__)


def keeps_weights(model: nn.Module) -> bool:
    """Whether a prepared model's own weights stay as they are, so that it is its own teacher with the tuning off."""
    return has_adapter(model) or attachment(unwrap_peft(model)) is not None


def text_is_live(model: nn.Module) -> bool:
    """Whether training changes what a prepared model makes of a class name."""
    plain = unwrap_peft(model)
    if (added := attachment(plain)) is not None:
        return added.text_is_live
    texts = tuple(f"{part}." for part in get_encoder(plain).text_modules)
    return any(name.startswith(texts) and parameter.requires_grad for name, parameter in plain.named_parameters())


@contextlib.contextmanager
def without_tuning(model: nn.Module) -> Iterator[None]:
    """The model as it was before training, where the tuning keeps its weights; in eval mode, then back."""
    training = model.training
    model.eval()
    off = model.disable_adapter() if hasattr(model, "peft_config") else attachment(model).off()
    try:
        with off:
            yield
    finally:
        model.train(training)


def fold_into_clip(model: nn.Module) -> nn.Module:
    """The plain model with what was trained beside its weights merged into them; `model` itself is left as it was.

    Raises:
        ValueError: for learned prompts, which a plain model has no place for.
    """
    if hasattr(model, "merge_and_unload"):
        return copy.deepcopy(model).merge_and_unload()
    added = attachment(unwrap_peft(model))
    return unwrap_peft(model) if added is None else added.fold(model)


def options_of(tuning: Tuning) -> dict[str, Any]:
    """A tuning's options as they can be written down."""
    values = {field.name: getattr(tuning, field.name) for field in dataclasses.fields(tuning)}
    return {name: value.to_dict() if hasattr(value, "to_dict") else value for name, value in values.items()}


__all__ = [
    "TUNINGS",
    "Attachment",
    "DeepPrompts",
    "LastBlocks",
    "PeftAdapter",
    "RAdapter",
    "TextContext",
    "Tuning",
    "VisionTower",
    "attachment",
    "fold_into_clip",
    "has_adapter",
    "keeps_weights",
    "make_tuning",
    "name_of",
    "options_of",
    "text_is_live",
    "without_tuning",
]
