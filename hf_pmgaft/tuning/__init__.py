"""Tunings by name: what of a model is trained. A new one is one file and one row here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..registry import make
from .base import ONLY_IF_SET, Attachment, Tuning, attachment_of
from .deep_prompts import DeepPrompts
from .last_blocks import LastBlocks
from .peft_adapter import PeftAdapter, has_adapter
from .prepared import fold_into_clip, keeps_weights, text_is_live, without_tuning
from .r_adapter import RAdapter
from .text_context import TextContext
from .vision_tower import WholeVisionTower

TUNINGS: dict[str, type[Tuning]] = {
    "deep_prompts": DeepPrompts,
    "last_blocks": LastBlocks,
    "peft": PeftAdapter,
    "r_adapter": RAdapter,
    "text_context": TextContext,
    "vision_tower": WholeVisionTower,
}


def make_tuning(tuning: str | Tuning, options: Mapping[str, Any] | None = None) -> Tuning:
    """Makes a tuning by its name and options, or returns the given instance.

    Raises:
        ValueError: for an unknown name or option, or an option's value of the wrong kind.

    Example:
        >>> make_tuning("last_blocks", {"blocks": 2})
        LastBlocks(blocks=2)
    """
    if isinstance(tuning, Tuning):
        return tuning
    if tuning == "peft":
        return PeftAdapter.from_options(options or {})
    return make("tuning", TUNINGS, tuning, options)


def name_of(tuning: Tuning) -> str:
    """Returns the name under which a tuning is listed, or that of its class.

    Example:
        >>> name_of(WholeVisionTower())
        'vision_tower'
    """
    return next((name for name, cls in TUNINGS.items() if type(tuning) is cls), type(tuning).__name__)


def options_of(tuning: Tuning) -> dict[str, Any]:
    """Returns a tuning's options as they can be written down, those of `ONLY_IF_SET` only where they are set.

    Example:
        >>> options_of(LastBlocks(blocks=2))
        {'blocks': 2}
    """
    values = {}
    for field in dataclasses.fields(tuning):
        value = getattr(tuning, field.name)
        if field.metadata.get(ONLY_IF_SET) and value == field.default:
            continue
        values[field.name] = value.to_dict() if hasattr(value, "to_dict") else value
    return values


__all__ = [
    "TUNINGS",
    "Attachment",
    "DeepPrompts",
    "LastBlocks",
    "PeftAdapter",
    "RAdapter",
    "TextContext",
    "Tuning",
    "WholeVisionTower",
    "attachment_of",
    "fold_into_clip",
    "has_adapter",
    "keeps_weights",
    "make_tuning",
    "name_of",
    "options_of",
    "text_is_live",
    "without_tuning",
]
