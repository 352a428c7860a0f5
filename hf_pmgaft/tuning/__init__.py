"""What is trained, by name, and how it is saved, loaded and folded back into a plain `CLIPModel`. A new tuning is one
file and one row here."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
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


def prepare_tuning(
    model: nn.Module,
    tuning: str | Tuning,
    options: Mapping[str, Any] | None,
    peft_config: Any,
    class_names: Sequence[str] | None,
) -> tuple[Tuning, nn.Module]:
    """A tuning, and the model prepared for it: frozen but for what is trained.

    A model that carries an adapter, or what another tuning added in an earlier run, is trained on as it is.

    Raises:
        ValueError: for an adapter with a tuning that trains something else, or options that do not fit.
    """
    tuning = make_tuning(tuning, options)
    if peft_config is not None or has_adapter(model):
        if name_of(tuning) not in ("vision_tower", "peft"):
            raise ValueError(
                f"You passed an adapter and tuning={name_of(tuning)!r}, which trains something else. Pass one of "
                "them; `layers_to_transform` of the peft config chooses blocks."
            )
        if peft_config is not None or not isinstance(tuning, PeftAdapter):
            tuning = PeftAdapter(peft_config)

    attached = attachment(unwrap_peft(model))
    if attached is None:
        model = tuning.for_classes(class_names).prepare(model)
        attached = attachment(unwrap_peft(model))
    else:
        tuning = attached.options
        model.requires_grad_(False)
        attached.requires_grad_(True)
    if attached is not None:
        attached.at_test = False
    return tuning, model


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
    "prepare_tuning",
    "text_is_live",
    "without_tuning",
]
